"""A real host's pool beside a simulated one."""

from dashboards import grafana, panels
from dashboards.boards import common
from dashboards.boards.common import select
from dashboards.catalogue import result_name
from dashboards.external import ethtool_name
from dashboards.grafana import Json
from workers.measures import COUNTERS, by_name

_CELL = ("arch", "traffic_kind", "pool_size", "pool_recycle")
_CHOSEN = common.chosen(*_CELL)
_HOST = ('instance="$host"', 'device="$device"')


def _real(counter: str) -> str:
    return f"sum (rate({select(ethtool_name(counter), *_HOST)}[$__rate_interval]))"


def _simulated(counter: str) -> str:
    return f"avg ({select(result_name(counter), *_CHOSEN)})"


def _pair(title: str, description: str, real: str, simulated: str, unit: str) -> Json:
    return panels.time_series(
        title,
        f"{description} Needs node_exporter with --collector.ethtool on the host, and a driver that has "
        "page_pool statistics.",
        [grafana.range_query(real, "real"), grafana.range_query(simulated, "simulated", "B")],
        unit=unit,
    )


def _share(of: str, beside: str, side: str) -> str:
    name = _real if side == "real" else _simulated
    return f"{name(of)} / ({name(of)} + {name(beside)})"


def build() -> Json:
    """The pool counters of a live host, per second, beside those of a chosen cell, per simulated second."""
    grid = grafana.Grid()
    for title, description, of, beside in (
        (
            "Share of slow allocations",
            "Bulk fills over bulk fills and allocations from the cache: does not depend on the packet rate. "
            "Good: both lines near each other, and near 0.",
            "alloc_slow",
            "alloc_fast",
        ),
        (
            "Share of returns that found the ring full",
            "Over returns to the ring: does not depend on the packet rate. Good: both lines near each other, "
            "and near 0.",
            "recycle_ring_full",
            "recycle_ring",
        ),
    ):
        panel = _pair(
            title,
            description,
            _share(of, beside, "real"),
            _share(of, beside, "simulated"),
            "percentunit",
        )
        grid.place(panel, 12, 8)
    for counter in COUNTERS:
        text = by_name()[counter].description
        description = f"{text[0].upper()}{text[1:]}, per second. Good: both lines near each other once the "
        panel = _pair(
            counter,
            f"{description}cell's packet rate is that of the host.",
            _real(counter),
            _simulated(counter),
            "short",
        )
        grid.place(panel, 8, 7)
    first = ethtool_name(COUNTERS[0])
    variables = [
        *common.variables(*_CELL),
        grafana.label_variable("host", "host", first, label="instance"),
        grafana.label_variable("device", "device", select(first, 'instance="$host"')),
    ]
    return grafana.dashboard(
        "page-pool-farm-real-host",
        "Real against simulated",
        build.__doc__ or "",
        variables,
        grid,
        refresh="30s",
    )
