"""A comparison for a terminal, a cover letter and a program."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from farm import tables
from farm.answers.compare import Comparison, Difference, Pair
from farm.answers.gate import Broken
from farm.answers.statistics import LEVEL
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


def as_text(found: Sequence[Comparison], measures: Sequence[str]) -> RenderableType:
    """A table for each measure, one row for each cell."""
    parts: list[RenderableType] = []
    for comparison in found:
        axes = _axes(comparison)
        for measure in measures:
            title = f"{measure}: {comparison.base} (base) against {comparison.other}"
            parts += [
                Text(title, style="bold"),
                tables.rows(
                    _heads(comparison, axes), _rows(comparison, axes, measure), text_columns=len(axes)
                ),
                Text(),
            ]
        parts += [Text(sentence) for sentence in _sentences(comparison, measures)]
        parts.append(Text())
    return Group(*parts[:-1])


def as_markdown(found: Sequence[Comparison], measures: Sequence[str]) -> str:
    """The same as Markdown, to paste into a cover letter or a pull request."""
    lines: list[str] = []
    for comparison in found:
        axes = _axes(comparison)
        for measure in measures:
            lines += [f"**{measure}**: {comparison.base} (base) against {comparison.other}", ""]
            heads = _heads(comparison, axes)
            lines += [
                _markdown_row(heads),
                _markdown_row(["---"] * len(axes) + ["---:"] * (len(heads) - len(axes))),
            ]
            lines += [_markdown_row(row) for row in _rows(comparison, axes, measure)] + [""]
        lines += [*_sentences(comparison, measures), ""]
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
    return {
        "base": difference.base,
        "other": difference.other,
        "difference": difference.difference,
        "ratio": difference.ratio,
        "interval": list(difference.interval) if difference.interval else None,
        "verdict": difference.verdict,
    }


def _axes(comparison: Comparison) -> list[str]:
    fields = [pair.fields for pair in comparison.pairs]
    return [name for name in fields[0] if len({one[name] for one in fields}) > 1] or list(fields[0])[:1]


def _heads(comparison: Comparison, axes: Sequence[str]) -> list[str]:
    interval = f"{LEVEL:.0%} of seeds" if comparison.exact else f"{LEVEL:.0%} interval"
    return [*axes, "base", "other", "change", interval, "verdict"]


def _rows(comparison: Comparison, axes: Sequence[str], measure: str) -> Iterator[list[str]]:
    unit = comparison.units[measure]
    for pair in comparison.pairs:
        found = pair.measures.get(measure)
        yield [*(tables.word(pair.fields[name]) for name in axes), *_cells(unit, found)]


def _cells(unit: Unit, found: Difference | None) -> list[str]:
    if found is None:
        return ["-", "-", "-", "-", "-"]
    change = tables.percent(found.ratio - 1, sign=True) if found.ratio is not None else "-"
    return [
        tables.in_unit(unit, found.base),
        tables.in_unit(unit, found.other),
        change,
        _interval(unit, found),
        found.verdict,
    ]


def _interval(unit: Unit, found: Difference) -> str:
    if found.interval is None:
        return "one seed"
    if found.interval.low == found.interval.high:
        return "exact"
    low, high = (
        f"{'+' if number >= 0 else '-'}{tables.in_unit(unit, abs(number))}" for number in found.interval
    )
    return f"{low}..{high}"


def _sentences(comparison: Comparison, measures: Sequence[str]) -> Iterator[str]:
    for measure in measures:
        counts = Counter(
            pair.measures[measure].verdict for pair in comparison.pairs if measure in pair.measures
        )
        listed = ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items()))
        yield f"{measure}: {listed or 'not measured'}, of {len(comparison.pairs)} cells."
    if comparison.caveat:
        yield comparison.caveat
    left, right = comparison.unpaired
    if left or right:
        what = "records" if comparison.exact else "settings"
        yield f"Without a partner: {left} {what} of {comparison.base}, {right} of {comparison.other}."
    for name, (one, two) in comparison.across.items():
        if name not in comparison.base:
            yield f"Compared across {name}: {one} and {two}."


def broken_lines(comparison: Comparison, broken: Sequence[Broken], most: int) -> Iterator[str]:
    """What a gate did not let through."""
    for one in broken[:most]:
        unit = comparison.units[one.measure]
        left, right = (tables.in_unit(unit, value) for value in (one.difference.base, one.difference.other))
        yield f"{_place(one.pair)}: {one.measure} {left} -> {right}: {one.difference.verdict}"
    if len(broken) > most:
        yield f"... and {len(broken) - most} more; --json lists all"


def broken_as_json(broken: Sequence[Broken]) -> list[dict[str, Any]]:
    """The same for a program."""
    return [
        {"fields": dict(one.pair.fields), "measure": one.measure, **_object(one.difference)} for one in broken
    ]


def _place(pair: Pair) -> str:
    return ", ".join(f"{name} = {tables.word(value)}" for name, value in pair.fields.items()) or "the cell"
