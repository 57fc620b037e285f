"""Does recycling pay?"""

from dashboards import grafana, panels
from dashboards.boards import common
from dashboards.boards.common import AVERAGED, BUSY, CATEGORY, OFF, ON, select
from dashboards.grafana import Json
from dashboards.health import RUN_INFO, TRIALS

_CHOSEN = common.chosen("arch", "traffic_kind", several=["arch"])

# cell by cell before averaging: the ratio of two averages would let the slowest cell decide
_GAIN = (
    f"avg by (arch, pool_size) ({select(BUSY, *_CHOSEN, OFF)} / ignoring (pool_recycle) "
    f"{select(BUSY, *_CHOSEN, ON)} - 1)"
)

_GAIN_HELP = (
    "CPU time per packet without recycling over that with it, minus 1: 20 % means that a packet costs a "
    "fifth more when its page is not recycled."
)


def _categories() -> Json:
    """Bars of busy time stacked by category, one for each pool size with recycling on and off."""
    by_category = f"avg by (category, pool_size, pool_recycle) ({select(CATEGORY, *_CHOSEN)})"
    switch = by_category
    for value, word in (("true", "on"), ("false", "off")):
        switch = f'label_replace({switch}, "recycling", "{word}", "pool_recycle", "{value}")'
    corner = grafana.corner("cell", "category")
    return panels.bar_chart(
        "CPU time per packet by category",
        "What a packet's CPU time is spent on, for each pool size with recycling off and on. Good: the bars "
        "differ where recycling is meant to save (page_alloc, page_free, dma_map, dma_unmap) and not "
        f"elsewhere; cache_misses growing with the pool says that the ring has gone cold. {AVERAGED}",
        grafana.table_query(f'label_join({switch}, "cell", " ", "pool_size", "recycling")'),
        unit="s",
        x_field=corner,
        stacked=True,
        transformations=[
            grafana.sort_by("category"),
            grafana.sort_by("recycling"),
            grafana.to_number("pool_size"),
            grafana.sort_by("pool_size"),
            grafana.matrix("cell", "category"),
        ],
    )


def _gain_table() -> Json:
    corner = grafana.corner("arch", "pool_size")
    return panels.coloured_table(
        "Gain of recycling by architecture and pool size",
        f"{_GAIN_HELP} Good: blue, recycling pays; grey: within 2 %, it makes no difference; orange: it "
        f"costs more than it saves, so leave it off. Columns are pool sizes in pages. {AVERAGED} Empty if "
        "the sweep did not run both pool.recycle = true and false.",
        grafana.table_query(_GAIN),
        unit="percentunit",
        colours=grafana.thresholds(
            "dark-orange", (-0.02, "#6e6e6e"), (0.02, "super-light-blue"), (0.05, "blue"), (0.15, "dark-blue")
        ),
        transformations=[
            grafana.sort_by("arch"),
            grafana.to_number("pool_size"),
            grafana.sort_by("pool_size"),
            grafana.matrix("arch", "pool_size"),
        ],
        overrides=[
            grafana.override(corner, custom__cellOptions={"type": "auto"}, displayName="architecture"),
        ],
    )


def build() -> Json:
    """Where recycling pages saves CPU time, by architecture and pool size, and what the time goes to."""
    grid = grafana.Grid()
    extreme = f"Good: well above 0. {_GAIN_HELP}"
    legend = "{{arch}}, {{pool_size}} pages"
    grid.place(
        panels.stat(
            "Recycling pays most",
            extreme,
            grafana.newest_query(f"topk(1, {_GAIN})", legend),
            unit="percentunit",
            decimals=1,
        ),
        6,
        5,
    )
    grid.place(
        panels.stat(
            "Recycling pays least",
            extreme,
            grafana.newest_query(f"bottomk(1, {_GAIN})", legend),
            unit="percentunit",
            decimals=1,
        ),
        6,
        5,
    )
    grid.place(
        panels.stat(
            "Trials",
            "Trials of the newest run. Good: recorded equals planned and none failed; until then the "
            "other panels show what has been recorded so far.",
            grafana.newest_query(f'max by (state) ({TRIALS.name}{{sweep="$sweep"}})', "{{state}}"),
            unit="short",
        ),
        6,
        5,
    )
    grid.place(
        panels.stat(
            "Results from",
            "Run and model of the results. Good: the same model digest as the run you compare with.",
            grafana.newest_query(f'{RUN_INFO.name}{{sweep="$sweep"}}', "{{run}}, model {{model_digest}}"),
            unit="none",
            text_mode="name",
        ),
        6,
        5,
    )
    grid.place(_gain_table(), 24, 8)
    grid.row("$arch", repeat="arch")
    grid.place(
        common.by_size(
            "CPU time per packet",
            "CPU time per packet that left the receive ring, over the pool size in pages. Good: low, and "
            "lower with recycling on.",
            "busy_ns_per_packet",
            "s",
            _CHOSEN,
        ),
        8,
        11,
    )
    grid.place(_categories(), 16, 11)
    grid.place(
        common.by_size(
            "Recycle ratio",
            "Share of the pages handed to the driver that did not come from the page allocator. Good: "
            "close to 100 % with recycling on; where it falls short, returns overflow the ring or the "
            "pages are held.",
            "recycle_ratio",
            "percentunit",
            _CHOSEN,
            1.0,
        ),
        8,
        8,
    )
    grid.place(
        common.by_size(
            "Packets dropped",
            "Packets that found no descriptor or no room in the socket, over packets offered. Good: 0, "
            "or at least no more with recycling on; early drops on purpose do not count.",
            "drop_ratio",
            "percentunit",
            _CHOSEN,
        ),
        8,
        8,
    )
    grid.place(
        common.by_size(
            "Peak memory",
            "Most memory that was taken from the page allocator at a time. Good: flat over the pool size; "
            "growth is what a larger ring keeps after a burst.",
            "memory_peak_bytes",
            "bytes",
            _CHOSEN,
        ),
        8,
        8,
    )
    return grafana.dashboard(
        "page-pool-farm-recycling",
        "Does recycling pay",
        build.__doc__ or "",
        common.variables("arch", "traffic_kind", several=["arch"]),
        grid,
    )
