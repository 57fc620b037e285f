"""A comparison for a terminal, a cover letter and a program."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy
from rich.console import Group, RenderableType
from rich.text import Text

from farm import tables
from farm.answers.compare import Comparison, Difference
from farm.answers.gate import Broken
from farm.answers.statistics import LEVEL
from farm.store.answers import MOST_ROWS, Table
from workers.measures import Unit

SHOWN = (
    "busy_ns_per_packet",
    "packets_handled_rate",
    "drop_ratio",
    "recycle_ratio",
    "memory_peak_bytes",
    "latency_p99_ns",
)
"""measures of a comparison unless others are asked for"""

MOST_NAMES = 8
"""other measures that differ and are named"""


def tables_of(comparison: Comparison, measures: Sequence[str]) -> list[Table]:
    """One for each measure, with a row for each cell; of many cells those that changed most."""
    axes = _axes(comparison)
    heads = (*axes, *_heads(comparison))
    found = []
    for measure in measures:
        cells = _most_changed(comparison, measure)
        rows = tuple(
            (
                *(tables.word(comparison.cells[cell][name]) for name in axes),
                *_texts(comparison, measure, cell),
            )
            for cell in cells
        )
        title = f"{measure}: {comparison.base} (base) against {comparison.other}"
        if len(cells) < len(comparison.cells):
            title += f", {len(cells)} of {len(comparison.cells)} cells, those that changed most"
        found.append(Table(title=title, heads=heads, rows=rows, text_columns=len(axes)))
    return found


def as_text(found: Sequence[Comparison], measures: Sequence[str]) -> RenderableType:
    """For a terminal."""
    parts: list[RenderableType] = []
    for comparison in found:
        for table in tables_of(comparison, measures):
            parts += [
                Text(table.title, style="bold"),
                tables.rows(table.heads, table.rows, text_columns=table.text_columns),
                Text(),
            ]
        parts += [Text(sentence) for sentence in sentences(comparison, measures)]
        parts.append(Text())
    return Group(*parts[:-1])


def as_markdown(found: Sequence[Comparison], measures: Sequence[str]) -> str:
    """The same as Markdown, to paste into a cover letter or a pull request."""
    lines: list[str] = []
    for comparison in found:
        for table in tables_of(comparison, measures):
            measure, _, sides = table.title.partition(": ")
            numbers = len(table.heads) - table.text_columns
            lines += [
                f"**{measure}**: {sides}",
                "",
                _markdown_row(table.heads),
                _markdown_row(["---"] * table.text_columns + ["---:"] * numbers),
                *(_markdown_row(row) for row in table.rows),
                "",
            ]
        lines += [*sentences(comparison, measures), ""]
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def as_json(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The same for a program, with all that was compared."""
    return [
        {
            "base": comparison.base,
            "other": comparison.other,
            "across": {name: list(sides) for name, sides in comparison.across.items()},
            "unpaired": list(comparison.unpaired),
            "caveats": list(comparison.caveats),
            "cells": [
                {
                    "fields": dict(pair.fields),
                    "seeds": pair.seeds,
                    "measures": {name: _object(one) for name, one in pair.measures.items()},
                }
                for pair in comparison.pairs
            ],
        }
        for comparison in found
    ]


def _object(difference: Difference) -> dict[str, Any]:
    # JSON has no NaN
    base, other, change = (
        None if math.isnan(value) else value
        for value in (difference.base, difference.other, difference.difference)
    )
    return {
        "base": base,
        "other": other,
        "difference": change,
        "ratio": None if base is None else difference.ratio,
        "interval": list(difference.interval) if difference.interval else None,
        "verdict": difference.verdict,
    }


def _heads(comparison: Comparison) -> tuple[str, ...]:
    interval = f"{LEVEL:.0%} of seeds" if comparison.exact else f"{LEVEL:.0%} interval"
    return ("base", "other", "change", interval, "verdict")


def _axes(comparison: Comparison) -> list[str]:
    names = list(comparison.cells[0])
    return [name for name in names if len({cell[name] for cell in comparison.cells}) > 1] or names[:1]


def _most_changed(comparison: Comparison, measure: str) -> list[int]:
    """Cells to show, in their order."""
    cells = len(comparison.cells)
    if cells <= MOST_ROWS or measure not in comparison.measures:
        return list(range(min(cells, MOST_ROWS)))
    change = numpy.nan_to_num(comparison.measures[measure].change, nan=0.0)
    return sorted(numpy.argsort(-change, kind="stable")[:MOST_ROWS].tolist())


def _texts(comparison: Comparison, measure: str, cell: int) -> tuple[str, ...]:
    columns = comparison.measures.get(measure)
    if columns is None or not columns.verdicts[cell]:
        return ("-", "-", "-", "-", "-")
    found, unit = columns.at(cell), comparison.units[measure]
    if math.isnan(found.difference):
        return ("-", "-", "-", "one side only", found.verdict)
    change = tables.percent(found.ratio - 1, sign=True) if found.ratio is not None else "-"
    return (
        tables.in_unit(unit, found.base),
        tables.in_unit(unit, found.other),
        change,
        _interval(unit, found),
        found.verdict,
    )


def _interval(unit: Unit, found: Difference) -> str:
    if found.interval is None:
        return "one seed"
    if found.interval.low == found.interval.high:
        return "exact"
    low, high = (
        f"{'+' if number >= 0 else '-'}{tables.in_unit(unit, abs(number))}" for number in found.interval
    )
    return f"{low}..{high}"


def sentences(comparison: Comparison, measures: Sequence[str]) -> Iterator[str]:
    """How many cells have which verdict, what differs besides, and what cannot be said."""
    for measure in measures:
        counts = verdicts(comparison, measure)
        listed = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
        yield f"{measure}: {listed or 'not measured'}, of {len(comparison.cells)} cells."
    others = [name for name in comparison.measures if name not in measures]
    changed = [name for name in others if verdicts(comparison, name).keys() - {"same"}]
    if others:
        listed = ", ".join(changed[:MOST_NAMES]) + (", ..." if len(changed) > MOST_NAMES else "")
        colon = ": " if changed else ""
        yield f"Of {len(others)} other measures {len(changed)} differ somewhere{colon}{listed}."
    yield from caveats(comparison)


def caveats(comparison: Comparison) -> Iterator[str]:
    """What was not compared, could not have been shown, or differs because somebody said so."""
    yield from comparison.caveats
    left, right = comparison.unpaired
    if left or right:
        what = "records" if comparison.exact else "settings"
        yield f"Without a partner: {left} {what} of {comparison.base}, {right} of {comparison.other}."
    for name, (one, two) in comparison.across.items():
        if name not in comparison.base:
            yield f"Compared across {name}: {one} and {two}."


def verdicts(comparison: Comparison, measure: str) -> dict[str, int]:
    """How many cells have each verdict on a measure, sorted by verdict."""
    if measure not in comparison.measures:
        return {}
    counts = Counter(comparison.measures[measure].verdicts.tolist())
    return {verdict: counts[verdict] for verdict in sorted(counts) if verdict}


def gate_sentence(comparison: Comparison, broken: Sequence[Broken]) -> str:
    """What a gate says last."""
    return f"{'FAILED' if broken else 'passed'}: {len(broken)} differences in {len(comparison.cells)} cells"


def broken_table(comparison: Comparison, broken: Sequence[Broken]) -> Table:
    """The first differences that a gate did not let through."""
    axes = _axes(comparison)
    rows = tuple(
        (
            *(tables.word(comparison.cells[one.cell][name]) for name in axes),
            one.measure,
            *_texts(comparison, one.measure, one.cell),
        )
        for one in broken[:MOST_ROWS]
    )
    title = f"{comparison.base} (base) against {comparison.other}: {len(rows)} of {len(broken)} differences"
    return Table(
        title=title,
        heads=(*axes, "measure", *_heads(comparison)),
        rows=rows,
        text_columns=len(axes) + 1,
    )


def broken_lines(comparison: Comparison, broken: Sequence[Broken], most: int) -> Iterator[str]:
    """What a gate did not let through."""
    for one in broken[:most]:
        base, other, *_, verdict = _texts(comparison, one.measure, one.cell)
        place = tables.words(comparison.cells[one.cell]) or "the cell"
        yield f"{place}: {one.measure} {base} -> {other}: {verdict}"
    if len(broken) > most:
        yield f"... and {len(broken) - most} more; --json lists all"


def gate_as_json(comparison: Comparison, broken: Sequence[Broken]) -> dict[str, Any]:
    """The same for a program, with all differences."""
    return {
        "passed": not broken,
        "cells": len(comparison.cells),
        "unpaired": list(comparison.unpaired),
        "caveats": list(comparison.caveats),
        "broken": [
            {
                "fields": dict(comparison.cells[one.cell]),
                "measure": one.measure,
                **_object(comparison.measures[one.measure].at(one.cell)),
            }
            for one in broken
        ],
    }
