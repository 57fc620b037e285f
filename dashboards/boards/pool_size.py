"""How large must the pool be?"""

from dashboards import catalogue, grafana, panels
from dashboards.boards import common
from dashboards.boards.common import BUSY, ON, select
from dashboards.catalogue import result_name
from dashboards.grafana import Json

_CHOSEN = common.chosen("arch", "traffic_kind", several=["arch"])

KNEE = 1.05
"""CPU time at the knee over the least: beyond it a larger pool saves less than a twentieth"""

_RECYCLING = f"avg by (pool_size) ({select(BUSY, *_CHOSEN, ON)})"
_SIZES = f"avg by (pool_size) ({select(catalogue.POOL_SIZE, *_CHOSEN, ON)})"
_KNEE = f"min ({_SIZES} and on (pool_size) ({_RECYCLING} <= scalar({KNEE} * min ({_RECYCLING}))))"
_IDLE = select(result_name("pages_in_ring"), *_CHOSEN, 'location=~"cache|ring"')


def _response() -> Json:
    both = f"avg by (pool_size, pool_recycle) ({select(BUSY, *_CHOSEN)})"
    for value, word in (("true", "on"), ("false", "off")):
        both = f'label_replace({both}, "curve", "{word}", "pool_recycle", "{value}")'
    both = f"avg by (pool_size, curve) ({both})"
    # bars stand in the order in which their names appear: this one sorts after on and off
    knee = common.tagged(
        f"{_RECYCLING} and on (pool_size) ({_SIZES} == scalar({_KNEE}))", "curve", "the knee"
    )
    return common.parts_by_size(
        "CPU time per packet over the pool size",
        "Response to the pool size in pages, with recycling on and off; a third bar marks the knee, the "
        "smallest pool within 5 % of the least CPU time with recycling. Good: the kernel's default of 1024 "
        "lies at the knee or above.",
        f"{both} or {knee}",
        "curve",
        "s",
        stacked=False,
        overrides=[
            common.coloured("on", "blue"),
            common.coloured("off", "orange"),
            common.coloured("the knee", "dark-blue"),
        ],
    )


def build() -> Json:
    """What a larger pool saves and costs: response over the size with the knee, memory, drops, latency."""
    grid = grafana.Grid()
    grid.row("$arch", repeat="arch")
    grid.place(_response(), 16, 9)
    grid.place(
        panels.stat(
            "Knee",
            "Smallest pool in pages within 5 % of the least CPU time per packet with recycling on. Good: at "
            "most the size that the driver asks for.",
            grafana.newest_query(_KNEE, ""),
            unit="none",
            text_mode="value",
        ),
        8,
        9,
    )
    for title, description, measure, unit in (
        (
            "Peak memory by pool size",
            "Price of the size: most memory taken from the page allocator at a time. Good: flat; growth is "
            "what a larger ring keeps after a burst.",
            "memory_peak_bytes",
            "bytes",
        ),
        (
            "Packets dropped by pool size",
            "Share of the packets offered. Good: 0, or no more with recycling on.",
            "drop_ratio",
            "percentunit",
        ),
        (
            "Slowest packets by pool size",
            "99th percentile, wire to consumer, all seeds together. Good: flat, no higher with recycling.",
            "latency_p99_ns",
            "s",
        ),
    ):
        grid.place(common.by_size(title, description, measure, unit, _CHOSEN), 8, 8)
    grid.place(
        common.bars_by_size(
            "Pages idle in the pool",
            "Price of the size: pages that wait in cache and ring, time average. Good: few; they are memory "
            "that nobody uses, kept in case of a burst.",
            f"avg by (pool_size, pool_recycle) (sum without (location) ({_IDLE}))",
            "short",
        ),
        12,
        8,
    )
    grid.place(
        common.by_size(
            "Returns that found the ring full",
            "Pages given away for want of room, per simulated second. Good: 0 from the knee on.",
            "recycle_ring_full",
            "short",
            _CHOSEN,
        ),
        12,
        8,
    )
    return grafana.dashboard(
        "page-pool-farm-pool-size",
        "Pool size",
        build.__doc__ or "",
        common.variables("arch", "traffic_kind", several=["arch"]),
        grid,
    )
