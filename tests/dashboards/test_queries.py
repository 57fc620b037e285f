"""Every query of every dashboard, asked of a real Prometheus, against SQL on the stored Parquet parts."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import duckdb
import pytest

from dashboards.panels import all_dashboards
from farm.store import Run
from workers.measures import CATEGORIES

Values = dict[frozenset[tuple[str, str]], float]
"""what a query returns: values by labels"""

CELLS = """
WITH cells AS (
    SELECT arch, "traffic.kind" AS traffic_kind, "pool.size"::VARCHAR AS pool_size,
           "pool.recycle"::VARCHAR AS pool_recycle,
           {others}, {columns}
    FROM read_parquet($records)
    WHERE arch IN (SELECT unnest($arch)) AND "traffic.kind" = $traffic_kind
    GROUP BY ALL
)
"""
"""medians over the seeds of each cell that the variables choose"""

GAINS = """,
gains AS (
    SELECT arch, pool_size, avg(off_side.value / on_side.value - 1) AS value
    FROM (FROM cells WHERE pool_recycle = 'false') AS off_side
    JOIN (FROM cells WHERE pool_recycle = 'true') AS on_side USING (arch, traffic_kind, pool_size, {others})
    GROUP BY ALL
)
"""


class Question(NamedTuple):
    """The SQL that answers a panel; its columns but ``value`` are the labels."""

    columns: str
    select: str
    gains: bool = False


def by_size(column: str, units_per_base: float = 1.0) -> Question:
    return Question(
        f'median("{column}") / {units_per_base} AS value',
        "SELECT pool_size, pool_recycle, avg(value) AS value FROM cells GROUP BY ALL",
    )


def gain(select: str) -> Question:
    return Question("median(busy_ns_per_packet) AS value", select, gains=True)


QUESTIONS = {
    "Recycling pays most": gain("SELECT * FROM gains ORDER BY value DESC LIMIT 1"),
    "Recycling pays least": gain("SELECT * FROM gains ORDER BY value LIMIT 1"),
    "Gain of recycling by architecture and pool size": gain("SELECT * FROM gains"),
    "CPU time per packet": by_size("busy_ns_per_packet", 1e9),
    "CPU time per packet by category": Question(
        ", ".join(f"median({name}_ns_per_packet) / 1e9 AS {name}" for name in CATEGORIES),
        f"""
        SELECT category, pool_size, pool_recycle,
               if(pool_recycle = 'true', 'on', 'off') AS recycling,
               concat(pool_size, ' ', recycling) AS cell, avg(value) AS value
        FROM (UNPIVOT cells ON {", ".join(CATEGORIES)} INTO NAME category VALUE value)
        GROUP BY ALL
        """,
    ),
    "Recycle ratio": by_size("recycle_ratio"),
    "Packets dropped": by_size("drop_ratio"),
    "Peak memory": by_size("memory_peak_bytes"),
}
"""answers in results, by the panel's title"""

STATES = """
SELECT 'recorded' AS state, count(DISTINCT trial_id) AS value FROM read_parquet($records)
UNION ALL
SELECT 'failed', count(*) FROM (
    SELECT trial_id FROM read_parquet($failures) EXCEPT SELECT trial_id FROM read_parquet($records)
)
"""


class Scraped(NamedTuple):
    """A stored run that a Prometheus has scraped."""

    prometheus: Any
    run: Run
    other_axis: str
    """axis that the dashboard averages over"""
    planned: int

    def ask(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        """Rows of SQL on the parts of the run."""
        for kind in ("records", "failures", "attempts"):
            if f"${kind}" in sql:
                parameters[kind] = str(self.run.path / kind / "*.parquet")
        with duckdb.connect() as connection:
            answer = connection.execute(sql, parameters)
            names = [column[0] for column in answer.description or ()]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    def choices(self) -> Iterator[dict[str, Any]]:
        """What a reader can pick for the dashboard's variables: any traffic, all architectures or one."""
        rows = self.ask('SELECT DISTINCT arch, "traffic.kind" AS kind FROM read_parquet($records)')
        archs = sorted({row["arch"] for row in rows})
        for kind in sorted({row["kind"] for row in rows}):
            for chosen in [archs, *([arch] for arch in archs)]:
                yield {"arch": chosen, "traffic_kind": kind}


@pytest.fixture(scope="module", params=["made-up", "simulated"])
def scraped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, run_prometheus: Any
) -> Iterator[Scraped]:
    directory = tmp_path_factory.mktemp("prometheus")
    if request.param == "made-up":
        root, run = request.getfixturevalue("made_up_store")
        axis, planned = "app.work_ns", 144
    else:
        root, run = request.getfixturevalue("simulated_store")
        axis, planned = "nic.rx_ring", 32
    with run_prometheus(root, directory) as prometheus:
        yield Scraped(prometheus, run, axis, planned)


def query_of(title: str) -> str:
    """The query of the panel of this title."""
    (query,) = (
        target["expr"]
        for dashboard in all_dashboards()
        for panel in dashboard["panels"]
        if panel["title"] == title
        for target in panel["targets"]
    )
    return str(query)


def filled_in(query: str, run: Run, choice: Mapping[str, Any]) -> str:
    """A query as Grafana sends it: several values of a variable become a group of a regular expression."""
    archs = choice["arch"]
    values = {
        "sweep": run.sweep_name,
        "arch": archs[0] if len(archs) == 1 else f"({'|'.join(archs)})",
        "traffic_kind": choice["traffic_kind"],
    }
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], query)


def returned(scraped: Scraped, query: str) -> Values:
    """What Prometheus answers."""
    series = scraped.prometheus.query(query)
    values = {frozenset(one["metric"].items()): float(one["value"][1]) for one in series}
    assert len(values) == len(series)
    return values


def expected(scraped: Scraped, question: Question, choice: Mapping[str, Any]) -> Values:
    """What the stored records say."""
    others = f'"{scraped.other_axis}"'
    sql = CELLS + (GAINS if question.gains else "")
    rows = scraped.ask(sql.format(others=others, columns=question.columns) + question.select, **choice)
    values = {frozenset((n, v) for n, v in row.items() if n != "value"): row["value"] for row in rows}
    assert len(values) == len(rows) > 0
    return values


def test_every_query_has_its_sql() -> None:
    titles = [
        panel["title"]
        for dashboard in all_dashboards()
        for panel in dashboard["panels"]
        for _ in panel.get("targets", [])
    ]
    assert sorted(titles) == sorted([*QUESTIONS, "Trials", "Results from"])


@pytest.mark.parametrize("title", QUESTIONS)
def test_results_are_those_of_the_stored_records(scraped: Scraped, title: str) -> None:
    choices = list(scraped.choices())
    assert choices
    for choice in choices:
        query = filled_in(query_of(title), scraped.run, choice)
        wanted = expected(scraped, QUESTIONS[title], choice)
        assert returned(scraped, query) == pytest.approx(wanted, rel=1e-12, abs=1e-15), choice


def test_trials_are_those_of_the_stored_run(scraped: Scraped) -> None:
    wanted = {"planned": scraped.planned, "failed": 0}
    failures = list((scraped.run.path / "failures").glob("*.parquet"))
    for row in scraped.ask(STATES if failures else STATES.partition("UNION")[0]):
        wanted[row["state"]] = row["value"]
    assert wanted["recorded"] > 0
    query = filled_in(query_of("Trials"), scraped.run, next(scraped.choices()))
    assert returned(scraped, query) == {frozenset({("state", s)}): n for s, n in wanted.items()}


def test_provenance_is_that_of_the_attempts(scraped: Scraped) -> None:
    (row,) = scraped.ask("SELECT DISTINCT model_digest, versions FROM read_parquet($attempts)")
    versions = json.loads(row["versions"])
    query = filled_in(query_of("Results from"), scraped.run, next(scraped.choices()))
    (series,) = scraped.prometheus.query(query)
    assert series["value"][1] == "1"
    assert {name: series["metric"][name] for name in ("run", "model_digest", "farm_version")} == {
        "run": scraped.run.path.name,
        "model_digest": row["model_digest"],
        "farm_version": versions["page-pool-farm"],
    }


def test_values_do_not_go_stale(scraped: Scraped) -> None:
    """The stored results are there at every scrape: no gap opens after Prometheus' five minutes."""
    samples = scraped.prometheus.query("min(scrape_samples_post_metric_relabeling)")
    assert float(samples[0]["value"][1]) > 100
