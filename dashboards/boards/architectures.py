"""One cell on all architectures."""

from dashboards import grafana, panels
from dashboards.boards import common
from dashboards.boards.common import BUSY, CATEGORY, select, tagged
from dashboards.catalogue import result_name
from dashboards.grafana import Json

_CELL = ("traffic_kind", "pool_size", "pool_recycle")
_CHOSEN = common.chosen(*_CELL)

_BASE = 'arch="$base"'
_DIFFERENCE = (
    f"avg by (arch, category) ({select(CATEGORY, *_CHOSEN)}) - on (category) group_left () "
    f"avg by (category) ({select(CATEGORY, *_CHOSEN, _BASE)})"
)
_SPREAD = " or ".join(
    tagged(f"avg by (arch) ({select(name, *_CHOSEN)})", "seeds", word)
    for name, word in ((f"{BUSY}_low", "1 lowest"), (BUSY, "2 median"), (f"{BUSY}_high", "3 highest"))
)


def _by_arch(title: str, description: str, measure: str, unit: str) -> Json:
    name = result_name(measure)
    expression = f"avg by (arch, pool_recycle) ({select(name, *_CHOSEN[:-1])})"
    return common.parts_by_arch(
        title, description, expression, "pool_recycle", unit, overrides=common.RECYCLING
    )


def build() -> Json:
    """One cell on all architectures: CPU time by category, by IOMMU mode, and what makes the difference."""
    grid = grafana.Grid()
    grid.place(
        common.parts_by_arch(
            "CPU time per packet by architecture and category",
            "Good: short bars; the tallest part is what a faster machine of that architecture would have to "
            "be faster at.",
            f"avg by (arch, category) ({select(CATEGORY, *_CHOSEN)})",
            "category",
            "s",
            stacked=True,
        ),
        14,
        12,
    )
    grid.place(
        common.parts_by_arch(
            "Lowest, median and highest seed",
            "CPU time per packet. Good: the three close together; differences between architectures that are "
            "smaller than those between seeds mean nothing.",
            _SPREAD,
            "seeds",
            "s",
            overrides=[
                common.coloured("1 lowest", "super-light-blue"),
                common.coloured("2 median", "blue"),
                common.coloured("3 highest", "dark-blue"),
            ],
        ),
        10,
        12,
    )
    corner = grafana.corner("category", "arch")
    grid.place(
        panels.coloured_table(
            "Difference by category",
            "CPU time per packet that an architecture spends more (orange) or less (blue) than the one it is "
            "compared with. Good: blue. farm explain says which mechanism is behind it, by switching each "
            f"off. {common.AVERAGED}",
            grafana.table_query(_DIFFERENCE),
            unit="s",
            colours=grafana.thresholds(
                "blue",
                (-5e-9, "super-light-blue"),
                (-1e-9, "#6e6e6e"),
                (1e-9, "light-orange"),
                (5e-9, "dark-orange"),
            ),
            transformations=[
                grafana.sort_by("arch"),
                grafana.sort_by("category"),
                grafana.matrix("category", "arch"),
            ],
            overrides=[
                grafana.override(corner, custom__cellOptions={"type": "auto"}, displayName="category"),
            ],
        ),
        14,
        14,
    )
    grid.place(
        common.parts_by_arch(
            "CPU time per packet by IOMMU mode",
            "Good: lazy near passthrough; strict shows what an invalidation for each page costs, which "
            "recycling saves. One mode only unless the sweep has machine.iommu as an axis.",
            f"avg by (arch, machine_iommu) ({select(BUSY, *_CHOSEN)})",
            "machine_iommu",
            "s",
        ),
        10,
        14,
    )
    for title, description, measure, unit in (
        ("Packets per second", "Good: as many as are offered.", "packets_handled_rate", "short"),
        ("Slowest packets", "99th percentile, wire to consumer. Good: low.", "latency_p99_ns", "s"),
        (
            "Recycle ratio by architecture",
            "Good: near 100 % with recycling on.",
            "recycle_ratio",
            "percentunit",
        ),
    ):
        grid.place(_by_arch(title, f"With recycling on and off. {description}", measure, unit), 8, 8)
    variables = common.variables(*_CELL)
    variables.append(common.cell_variable("base", "arch"))
    return grafana.dashboard(
        "page-pool-farm-architectures", "Architectures compared", build.__doc__ or "", variables, grid
    )
