"""What was decided, and on which grounds?"""

from dashboards import answers, grafana, panels
from dashboards.boards import common
from dashboards.boards.common import select
from dashboards.grafana import Json
from dashboards.health import HealthMetric

_SIDES = ("answer", "base", "other")
_COMPARED = ('answer="$comparison"', 'other="$other"')
_ADVISED = ('answer="$advice"',)

_KEPT = "Kept with --keep, until somebody removes its file."

_VERDICTS = {
    "better": "blue",
    "same": "#6e6e6e",
    "not shown": "#a8a8a8",
    "too few": "light-yellow",
    "differs": "light-orange",
    "worse": "dark-orange",
}

GOOD_REGIMES = ("direct", "through the ring", "draining", "shut down")
"""regimes of a diagnosis that ask nothing of anybody"""


def _newest(metric: HealthMetric, *labels: str, matchers: tuple[str, ...] = ()) -> str:
    # a store may be scraped by several: the maximum counts it once
    return f"max by ({', '.join(labels)}) ({select(metric.name, *matchers) if matchers else metric.name})"


def _gates(grid: grafana.Grid) -> None:
    passed = _newest(answers.GATE_PASSED, *_SIDES)
    cells = _newest(answers.GATE_CELLS, *_SIDES)
    differences = f"sum by ({', '.join(_SIDES)}) ({_newest(answers.GATE_BROKEN, *_SIDES, 'measure')})"
    grid.place(
        panels.stat(
            "Gates that failed",
            f"Of those that were kept. Good: 0. {_KEPT}",
            # 0 where there are gates and all passed, nothing where there is none
            grafana.newest_query(f"count ({passed} == 0) or 0 * count ({passed})", ""),
            unit="short",
            text_mode="value",
        ),
        4,
        7,
    )
    grid.place(
        panels.table(
            "Gates",
            "Whether the other side was as good as the base by the gate's rules, in how many cells that was "
            "looked at, and how many differences broke a rule. Good: passed, with as many cells as the sweep "
            f"has. {_KEPT}",
            grafana.table_query(passed),
            grafana.table_query(cells, "B"),
            grafana.table_query(f"{differences} or 0 * {cells}", "C"),
            unit="short",
            transformations=[
                *grafana.merge({"A": "gate", "B": "cells", "C": "differences"}),
                grafana.sort_by("gate"),
            ],
            overrides=[
                grafana.override(
                    "gate",
                    custom__cellOptions={"mode": "basic", "type": "color-background"},
                    mappings=grafana.words({"0": ("FAILED", "dark-orange"), "1": ("passed", "blue")}),
                    unit="none",
                ),
                grafana.override("cells", unit="short"),
                grafana.override("differences", unit="short"),
            ],
        ),
        20,
        7,
    )
    grid.place(
        panels.table(
            "What broke",
            "Cells in which a gate did not let a measure through, of each gate most first. Good: empty; farm "
            "report of either run lists the cells.",
            grafana.table_query(_newest(answers.GATE_BROKEN, *_SIDES, "measure")),
            unit="short",
            transformations=[
                grafana.order(*_SIDES, "measure", "Value", hidden=["Time"]),
                grafana.sort_by("Value", descending=True),
                grafana.sort_by("answer"),
            ],
        ),
        24,
        8,
    )


def _comparisons(grid: grafana.Grid) -> None:
    every = _newest(answers.COMPARED_CELLS, *_SIDES, "measure", "verdict")
    cells = f"max by ({', '.join(_SIDES)}) (sum by ({', '.join(_SIDES)}, measure) ({every}))"
    worse = _newest(answers.COMPARED_CELLS, *_SIDES, matchers=('verdict="worse"',))
    grid.place(
        panels.table(
            "Comparisons",
            "Cells that both sides have, and in how many of them one measure is worse: of the measure that "
            "is so in most. Good: 0 worse; the two at the top choose whose measures are shown below. "
            f"{_KEPT}",
            grafana.table_query(cells),
            grafana.table_query(f"{worse} or 0 * {cells}", "B"),
            unit="short",
            transformations=[
                *grafana.merge({"A": "cells", "B": "worse"}),
                grafana.sort_by("worse", descending=True),
            ],
            overrides=[grafana.override("cells", unit="short"), grafana.override("worse", unit="short")],
        ),
        24,
        7,
    )
    corner = grafana.corner("measure", "verdict")
    grid.place(
        panels.bar_chart(
            "Cells by verdict",
            "Of the chosen comparison, by measure. Good: blue and grey; orange is worse, or differs in a "
            "measure that has no better direction; light grey: other seeds could say otherwise.",
            grafana.table_query(_newest(answers.COMPARED_CELLS, "measure", "verdict", matchers=_COMPARED)),
            unit="short",
            x_field=corner,
            stacked=True,
            transformations=[
                grafana.sort_by("verdict"),
                grafana.sort_by("measure"),
                grafana.matrix("measure", "verdict"),
            ],
            overrides=[common.coloured(verdict, colour) for verdict, colour in _VERDICTS.items()],
        ),
        16,
        9,
    )
    grid.place(
        panels.table(
            "Median change by measure",
            "other / base - 1, median of the cells of the chosen comparison. Good: lower where less is "
            "better, such as time, drops and memory; higher for rates and the recycle ratio.",
            grafana.table_query(_newest(answers.COMPARED_CHANGE, "measure", matchers=_COMPARED)),
            unit="percentunit",
            transformations=[grafana.hide("Time"), grafana.sort_by("measure")],
        ),
        8,
        9,
    )


def _advice(grid: grafana.Grid) -> None:
    cell = ("sweep", "cell")
    grid.place(
        panels.table(
            "Advised size",
            "Smallest pool in pages that keeps the targets, and the memory that the ring of one queue may "
            "keep at that size. Good: at most what the driver asks for; no pool is enough for a cell that "
            "is missing here.",
            grafana.table_query(_newest(answers.ADVISED_SIZE, *cell, matchers=_ADVISED)),
            grafana.table_query(_newest(answers.ADVISED_RING, *cell, matchers=_ADVISED), "B"),
            unit="none",
            transformations=[
                *grafana.merge({"A": "pool size", "B": "memory"}),
                grafana.sort_by("memory"),
            ],
            overrides=[
                grafana.override("pool size", unit="none"),
                grafana.override("memory", unit="bytes"),
            ],
        ),
        12,
        9,
    )
    grid.place(
        common.parts_by_size(
            "New pages by pool size",
            "Share of the allocations that need a page of the page allocator, the worst of the seeds, by "
            "size of the pool in pages. Good: near 0 from the advised size on; where the bars no longer "
            "shrink a larger pool buys nothing.",
            _newest(answers.ADVICE_NEW_PAGES, "pool_size", "cell", matchers=_ADVISED),
            "cell",
            "percentunit",
            stacked=False,
            averaged=False,
        ),
        12,
        9,
    )


def _diagnoses(grid: grafana.Grid) -> None:
    pools = ("answer", "source", "pools")
    grid.place(
        panels.table(
            "Diagnoses",
            "What the pools of a host do, by its counters; those that differ from all together have a row "
            f"of their own. Good: blue, pages come back. {_KEPT}",
            grafana.table_query(_newest(answers.DIAGNOSIS, *pools, "regime")),
            unit="none",
            transformations=[
                grafana.order(*pools, "regime", hidden=["Time", "Value"]),
                grafana.sort_by("pools"),
                grafana.sort_by("source"),
            ],
            overrides=[
                grafana.override(
                    "regime",
                    color={"fixedColor": "dark-orange", "mode": "fixed"},
                    custom__cellOptions={"mode": "basic", "type": "color-background"},
                    mappings=grafana.words({name: (name, "blue") for name in GOOD_REGIMES}),
                )
            ],
        ),
        24,
        6,
    )
    grid.place(
        panels.table(
            "Evidence",
            "Figures made of the counters that say so. Good: shares of overflow, of other nodes and of new "
            "pages near 0; farm doctor says which counters each is made of.",
            grafana.table_query(_newest(answers.DIAGNOSIS_EVIDENCE, *pools, "evidence")),
            unit="short",
            transformations=[
                grafana.order(*pools, "evidence", "Value", hidden=["Time"]),
                grafana.sort_by("evidence"),
                grafana.sort_by("pools"),
                grafana.sort_by("source"),
            ],
        ),
        24,
        9,
    )


def build() -> Json:
    """Gates, comparisons, advice and diagnoses that were kept with --keep: what was found, and what broke."""
    grid = grafana.Grid()
    for title, place in (
        ("Gates", _gates),
        ("Comparisons", _comparisons),
        ("Size of the pool", _advice),
        ("Hosts", _diagnoses),
    ):
        grid.row(title)
        place(grid)
    compared = answers.COMPARED_CELLS.name
    variables = [
        grafana.data_source_variable(),
        grafana.label_variable("comparison", "comparison", compared, label="answer"),
        grafana.label_variable("other", "other side", select(compared, 'answer="$comparison"')),
        grafana.label_variable("advice", "advice", answers.ADVICE_NEW_PAGES.name, label="answer"),
    ]
    return grafana.dashboard("page-pool-farm-decisions", "Decisions", build.__doc__ or "", variables, grid)
