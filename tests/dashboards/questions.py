"""The SQL that answers each query of each dashboard, by dashboard, panel and name of the query.

Columns but ``value`` are the labels. ``cells`` are medians over the seeds of the cells that the variables
choose, with the columns that a question names.
"""

from typing import NamedTuple

from workers.measures import CATEGORIES, COUNTERS, LOCATIONS, SLOW_CAUSES

LABELS = """
arch, "traffic.kind" AS traffic_kind, "pool.size"::VARCHAR AS pool_size,
"pool.recycle"::VARCHAR AS pool_recycle, "machine.iommu" AS machine_iommu
"""

CELLS = """
WITH cells AS (SELECT {labels}, {others}, {columns} FROM read_parquet($records) GROUP BY ALL),
chosen AS (FROM cells WHERE {choice})
"""

PACKETS = """,
pairs AS (
    SELECT {labels}, {others}, unnest(list_zip({histogram}[1:-:2], {histogram}[2:-:2])) AS pair
    FROM read_parquet($records)
), packets AS (
    SELECT arch, traffic_kind, pool_size, pool_recycle, {others},
           (pair[1] & 63) << (pair[1] >> 6) AS low_ps, sum(pair[2]) AS packets
    FROM pairs WHERE {choice} GROUP BY ALL
)
"""
"""packets of all seeds of the chosen cells by the least time of their bucket"""

PERCENTILE = """,
running AS (
    SELECT *, sum(packets) OVER (PARTITION BY arch, traffic_kind, pool_size, pool_recycle, {others}
                                 ORDER BY low_ps) AS up_to,
           sum(packets) OVER (PARTITION BY arch, traffic_kind, pool_size, pool_recycle, {others}) AS every
    FROM packets
), percentiles AS (
    SELECT arch, traffic_kind, pool_size, pool_recycle, {others}, min(low_ps) // 1000 / 1e9 AS value
    FROM running WHERE up_to >= ceil(every * 99 / 100) GROUP BY ALL
)
"""

GAINS = """,
gains AS (
    SELECT arch, pool_size, avg(off_side.value / on_side.value - 1) AS value
    FROM (FROM chosen WHERE pool_recycle = 'false') AS off_side
    JOIN (FROM chosen WHERE pool_recycle = 'true') AS on_side USING (arch, traffic_kind, pool_size, {others})
    GROUP BY ALL
)
"""


class Question(NamedTuple):
    """What answers a query."""

    columns: str
    select: str
    gains: bool = False
    histogram: str = ""
    """column of the records whose packets it asks for"""
    may_be_empty: bool = False


def median(column: str, units_per_base: float = 1.0) -> str:
    return f'median("{column}") / {units_per_base} AS value'


def rate(column: str, name: str = "value") -> str:
    return f'median("{column}") / median(measured_seconds) AS {name}'


def averaged(columns: str, labels: str) -> Question:
    return Question(columns, f"SELECT {labels}, avg(value) AS value FROM chosen GROUP BY ALL")


def parted(columns: str, parts: tuple[str, ...], label: str, labels: str) -> Question:
    """An average over measures that split one quantity, by part."""
    long = f"(UNPIVOT chosen ON {', '.join(parts)} INTO NAME {label} VALUE value)"
    return Question(columns, f"SELECT {labels}, {label}, avg(value) AS value FROM {long} GROUP BY ALL")


def slowest(labels: str) -> Question:
    """The 99th percentile of each cell, averaged."""
    select = f"{PERCENTILE} SELECT {labels}, avg(value) AS value FROM percentiles GROUP BY ALL"
    return Question("count(*) AS seeds", select, histogram="latency_histogram")


BUSY = "median(busy_ns_per_packet) / 1e9 AS value"
BY_CATEGORY = ", ".join(f"median({name}_ns_per_packet) / 1e9 AS {name}" for name in CATEGORIES)
SIZE = "pool_size, pool_recycle"
ON_BY_SIZE = """
, response AS (SELECT pool_size, avg(value) AS value FROM chosen WHERE pool_recycle = 'true' GROUP BY ALL)
, knee AS (
    SELECT min(pool_size::INT) AS knee FROM response WHERE value <= 1.05 * (SELECT min(value) FROM response)
)
"""


def tagged_size(columns: str, word: str) -> Question:
    return Question(
        columns, f"SELECT pool_size, '{word}' AS what, avg(value) AS value FROM chosen GROUP BY ALL"
    )


RECYCLING = {
    "Recycling pays most": Question(BUSY, "SELECT * FROM gains ORDER BY value DESC LIMIT 1", gains=True),
    "Recycling pays least": Question(BUSY, "SELECT * FROM gains ORDER BY value LIMIT 1", gains=True),
    "Gain of recycling by architecture and pool size": Question(BUSY, "SELECT * FROM gains", gains=True),
    "CPU time per packet": averaged(BUSY, SIZE),
    "CPU time per packet by category": Question(
        BY_CATEGORY,
        f"""
        SELECT category, pool_size, pool_recycle,
               if(pool_recycle = 'true', 'on', 'off') AS recycling,
               concat(pool_size, ' ', recycling) AS cell, avg(value) AS value
        FROM (UNPIVOT chosen ON {", ".join(CATEGORIES)} INTO NAME category VALUE value)
        GROUP BY ALL
        """,
    ),
    "Recycle ratio": averaged(median("recycle_ratio"), SIZE),
    "Packets dropped": averaged(median("drop_ratio"), SIZE),
    "Peak memory": averaged(median("memory_peak_bytes"), SIZE),
}

POOL_SIZE = {
    "CPU time per packet over the pool size": Question(
        BUSY,
        f"""{ON_BY_SIZE}
        SELECT pool_size, if(pool_recycle = 'true', 'on', 'off') AS curve, avg(value) AS value
        FROM chosen GROUP BY ALL
        UNION ALL
        SELECT pool_size, 'the knee', value FROM response, knee WHERE pool_size::INT = knee
        """,
    ),
    "Knee": Question(BUSY, f"{ON_BY_SIZE} SELECT knee AS value FROM knee"),
    "Peak memory by pool size": averaged(median("memory_peak_bytes"), SIZE),
    "Packets dropped by pool size": averaged(median("drop_ratio"), SIZE),
    "Slowest packets by pool size": slowest(SIZE),
    "Pages idle in the pool": averaged("median(pages_in_cache) + median(pages_in_ring) AS value", SIZE),
    "Returns that found the ring full": averaged(rate("recycle_ring_full"), SIZE),
}

PAGES = {
    "Pages by location": parted(
        ", ".join(f"median(pages_in_{name}) AS {name}" for name in LOCATIONS),
        LOCATIONS,
        "location",
        "pool_size",
    ),
    "Pages in flight at the end": tagged_size(median("pages_inflight"), "pages"),
    "Pages from the page allocator by cause": parted(
        ", ".join(rate(f"slow_{name}", name) for name in SLOW_CAUSES), SLOW_CAUSES, "cause", "pool_size"
    ),
    "Held by one reader's socket": tagged_size(median("socket_share_max"), "share"),
    "Signs of a leak or a stall": Question(
        """
        median(pages_not_returned) AS not_returned, median(drain_forecast_seconds) AS forecast,
        median(socket_share_max) AS share
        """,
        """, sizes AS (
            SELECT pool_size, avg(not_returned) AS not_returned, avg(forecast) AS forecast,
                   avg(share) AS share
            FROM chosen GROUP BY ALL
        )
        SELECT pool_size, if(forecast IS NULL, 'leak or stall', 'still draining') AS signature,
               not_returned AS value
        FROM sizes WHERE not_returned > 0
        UNION ALL
        SELECT pool_size, 'one reader holds nearly all', share FROM sizes WHERE share > 0.9
        """,
        may_be_empty=True,
    ),
}

ARCHITECTURES = {
    "CPU time per packet by architecture and category": parted(BY_CATEGORY, CATEGORIES, "category", "arch"),
    "Lowest, median and highest seed": Question(
        "min(busy_ns_per_packet) AS low, median(busy_ns_per_packet) AS mid, max(busy_ns_per_packet) AS high",
        """
        SELECT arch, '1 lowest' AS seeds, avg(low) / 1e9 AS value FROM chosen GROUP BY ALL
        UNION ALL SELECT arch, '2 median', avg(mid) / 1e9 FROM chosen GROUP BY ALL
        UNION ALL SELECT arch, '3 highest', avg(high) / 1e9 FROM chosen GROUP BY ALL
        """,
    ),
    "Difference by category": Question(
        BY_CATEGORY,
        f"""
        , long AS (UNPIVOT chosen ON {", ".join(CATEGORIES)} INTO NAME category VALUE value)
        , means AS (SELECT arch, category, avg(value) AS value FROM long GROUP BY ALL)
        SELECT means.arch, category, means.value - base.value AS value
        FROM means JOIN means AS base USING (category) WHERE base.arch = $base
        """,
    ),
    "CPU time per packet by IOMMU mode": averaged(BUSY, "arch, machine_iommu"),
    "Packets per second": averaged(median("packets_handled_rate"), "arch, pool_recycle"),
    "Slowest packets": slowest("arch, pool_recycle"),
    "Recycle ratio by architecture": averaged(median("recycle_ratio"), "arch, pool_recycle"),
}
BOTH_WAYS = ("Packets per second", "Slowest packets", "Recycle ratio by architecture")
"""panels that do not follow the choice of recycling"""


def _shares(of: str, beside: str) -> Question:
    columns = f"{rate(of, 'counted')}, {rate(beside, 'beside')}"
    return Question(columns, "SELECT avg(counted) / (avg(counted) + avg(beside)) AS value FROM chosen")


HELD = Question(
    "count(*) AS seeds",
    """
    SELECT pool_size, 'share' AS what,
           coalesce(sum(packets) FILTER (low_ps >= 1 << 30), 0) / sum(packets) AS value
    FROM packets GROUP BY ALL
    """,
    histogram="hold_histogram",
)
PAGES |= {"Packets held longer than 1 ms": HELD}

HOLD_BUCKETS = Question(
    "count(*) AS seeds",
    "SELECT pool_size, low_ps, sum(packets)::INT AS packets FROM packets GROUP BY ALL ORDER BY ALL",
    histogram="hold_histogram",
)

REAL = {
    "Share of slow allocations": _shares("alloc_slow", "alloc_fast"),
    "Share of returns that found the ring full": _shares("recycle_ring_full", "recycle_ring"),
    **{counter: Question(rate(counter), "SELECT avg(value) AS value FROM chosen") for counter in COUNTERS},
}
"""queries B of the panels, about the simulated side"""

FIGURES = """
WITH figures AS (
    SELECT parse_filename(filename, true) AS answer, one.metric[15:] AS metric, one.value AS value,
           one.labels['base'] AS base, one.labels['other'] AS other, one.labels['measure'] AS measure,
           one.labels['verdict'] AS verdict, one.labels['sweep'] AS sweep, one.labels['cell'] AS cell,
           one.labels['pool_size'] AS pool_size, one.labels['source'] AS source,
           one.labels['pools'] AS pools, one.labels['regime'] AS regime, one.labels['evidence'] AS evidence
    FROM (
        SELECT filename, unnest(figures) AS one FROM read_json($answers, filename = true, columns =
            {'figures': 'STRUCT(metric VARCHAR, labels MAP(VARCHAR, VARCHAR), value DOUBLE)[]'})
    )
)
"""
"""of the answers that were kept, without the prefix of their metrics"""

_CHOSEN_SIDES = "answer = $comparison AND other = $other"

DECISIONS = {
    ("Gates that failed", "A"): "SELECT count(*) FILTER (value = 0) AS value FROM figures "
    "WHERE metric = 'gate_passed'",
    ("Gates", "A"): "SELECT answer, base, other, value FROM figures WHERE metric = 'gate_passed'",
    ("Gates", "B"): "SELECT answer, base, other, value FROM figures WHERE metric = 'gate_cells'",
    ("Gates", "C"): """
        SELECT answer, base, other, coalesce(sum(value) FILTER (metric = 'gate_broken_cells'), 0) AS value
        FROM figures WHERE metric IN ('gate_passed', 'gate_broken_cells') GROUP BY ALL
    """,
    ("What broke", "A"): "SELECT answer, base, other, measure, value FROM figures "
    "WHERE metric = 'gate_broken_cells'",
    ("Comparisons", "A"): """
        SELECT answer, base, other, max(cells) AS value FROM (
            SELECT answer, base, other, sum(value) AS cells FROM figures WHERE metric = 'compared_cells'
            GROUP BY answer, base, other, measure
        ) GROUP BY ALL
    """,
    ("Comparisons", "B"): """
        SELECT answer, base, other, coalesce(max(value) FILTER (verdict = 'worse'), 0) AS value
        FROM figures WHERE metric = 'compared_cells' GROUP BY ALL
    """,
    ("Cells by verdict", "A"): f"SELECT measure, verdict, value FROM figures WHERE {_CHOSEN_SIDES} "
    "AND metric = 'compared_cells'",
    ("Median change by measure", "A"): f"SELECT measure, value FROM figures WHERE {_CHOSEN_SIDES} "
    "AND metric = 'compared_change_ratio'",
    ("Advised size", "A"): "SELECT sweep, cell, value FROM figures WHERE answer = $advice "
    "AND metric = 'advised_pool_size'",
    ("Advised size", "B"): "SELECT sweep, cell, value FROM figures WHERE answer = $advice "
    "AND metric = 'advised_ring_bytes'",
    ("New pages by pool size", "A"): "SELECT pool_size, cell, value FROM figures WHERE answer = $advice "
    "AND metric = 'advice_new_pages_ratio'",
    ("Diagnoses", "A"): "SELECT answer, source, pools, regime, value FROM figures WHERE metric = 'diagnosis'",
    ("Evidence", "A"): "SELECT answer, source, pools, evidence, value FROM figures "
    "WHERE metric = 'diagnosis_evidence'",
}
"""by panel and name of the query"""
