"""Gains and curves drawn in a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from farm import query, tables
from farm.query import Cell, Gain
from workers.fields.groups import Value

BUSY = "busy_ns_per_packet"
GAIN = "gain_percent"
TITLES = {GAIN: "gain of recycling, %", BUSY: "busy time, ns per packet"}

ALONG = "pool.size"
"""what curves run along where it was swept"""

LINES = ("arch", "pool.recycle")
"""whose values share a plot; every other field has a plot for each of its values"""

PLOT_HEIGHT = 18
MOST_PLOTS = 6
MOST_TICKS = 8
LABEL_LENGTH = 24
Y_STEPS = 4
FINE = 20
"""a range below this has ticks with a decimal"""

LOG_SPAN = 8
"""numbers that span this factor stand on a logarithmic axis"""

MARKS = "ox+*#@%&"
"""so that curves can be told apart without colour"""

COLOURS = ("blue", "orange", "green", "magenta", "cyan", "red", "gray", "yellow")


class Curve(NamedTuple):
    """One measure along an axis while everything else stays."""

    measure: str
    axis: str
    fields: dict[str, Value]
    """the other swept fields"""
    x: list[Value]
    median: list[float]
    low: list[float]
    """smallest over the seeds; of a gain, the fastest seed off against the slowest on"""
    high: list[float]


def curves(cells: Sequence[Cell]) -> list[Curve]:
    """Gains of recycling in percent and busy time in ns per packet: along the pool's size, or else the
    numbers with the most values, or else the first axis; none of a run that swept nothing."""
    timed = [cell for cell in cells if cell.measures.get(BUSY) is not None]
    found = []
    gains = query.gains(timed)
    if gains and (axis := _axis([gain.on for gain in gains], without="pool.recycle")):
        found += _curves(GAIN, axis, [(gain.on, *_percents(gain)) for gain in gains], without="pool.recycle")
    if axis := _axis(timed):
        points = [(cell, cell.measures[BUSY], cell.low[BUSY], cell.high[BUSY]) for cell in timed]
        found += _curves(BUSY, axis, points)
    return found


def drawn(cells: Sequence[Cell], width: int, *, coloured: bool) -> str:
    """The curves as text; those that differ in architecture and recycling only are in one plot.

    Args:
        width: columns of the terminal.
        coloured: whether it shows colours.
    """
    plots: dict[tuple[object, ...], list[Curve]] = {}
    for curve in curves(cells):
        apart = tuple(value for name, value in curve.fields.items() if name not in LINES)
        plots.setdefault((curve.measure, *apart), []).append(curve)
    parts = [_plot(group, width, coloured) for group in list(plots.values())[:MOST_PLOTS]]
    if len(plots) > MOST_PLOTS:
        parts.append(f"{MOST_PLOTS} of {len(plots)} plots; farm report draws all, and filters them")
    return "\n".join(parts) if parts else "nothing to draw: one cell, or none"


def _axis(cells: Sequence[Cell], without: str = "") -> str | None:
    values = {
        name: {cell.fields[name] for cell in cells}
        for name in (cells[0].axes if cells else ())
        if name != without
    }
    varied = {name: found for name, found in values.items() if len(found) > 1}
    numbers = [name for name, found in varied.items() if all(map(_is_number, found))]
    if ALONG in numbers:
        return ALONG
    return max(numbers, key=lambda name: len(varied[name]), default=next(iter(varied), None))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _percents(gain: Gain) -> tuple[float, float, float]:
    low, high = query.gain_bounds(gain)
    return 100 * gain.gain, 100 * low, 100 * high


def _curves(
    measure: str, axis: str, points: Sequence[tuple[Cell, float, float, float]], without: str = ""
) -> list[Curve]:
    groups: dict[tuple[tuple[str, Value], ...], list[tuple[Cell, float, float, float]]] = {}
    for point in points:
        cell = point[0]
        key = tuple((name, cell.fields[name]) for name in cell.axes if name not in (axis, without))
        groups.setdefault(key, []).append(point)
    found = []
    for key, group in groups.items():
        if all(_is_number(point[0].fields[axis]) for point in group):
            group.sort(key=lambda point: float(point[0].fields[axis]))
        x = [point[0].fields[axis] for point in group]
        _, median, low, high = zip(*group, strict=True)
        found.append(Curve(measure, axis, dict(key), x, list(median), list(low), list(high)))
    return found


def _plot(group: Sequence[Curve], width: int, coloured: bool) -> str:
    """One plot, its title above and a line of the legend for each curve below."""
    import plotext

    first = group[0]
    apart = [f"{name} {_label(value)}" for name, value in first.fields.items() if name not in LINES]
    values = list(dict.fromkeys(value for curve in group for value in curve.x))
    at = _places(values)
    figure = plotext.figure
    figure.clear()
    figure.theme("simple" if coloured else "colorless")
    figure.plot_size(width, PLOT_HEIGHT)
    looks = [(MARKS[n % len(MARKS)], COLOURS[n % len(COLOURS)]) for n in range(len(group))]
    _draw(figure, group, at, looks)
    margin = 0.03 * (max(at.values()) - min(at.values())) or 1.0
    step = -(-len(values) // MOST_TICKS)
    shown = sorted(values, key=at.__getitem__)[::step]
    ruler = figure.ruler("x")
    ruler.ticks([at[value] for value in shown], [_label(value) for value in shown])
    ruler.lim(min(at.values()) - margin, max(at.values()) + margin)
    low, high = _limits(group)
    steps = [low + (high - low) * step / Y_STEPS for step in range(Y_STEPS + 1)]
    figure.ruler("y").lim(low, high)
    figure.ruler("y").ticks(steps, [f"{step:,.{0 if high - low > FINE else 1}f}" for step in steps])
    figure.label(first.axis, "x")
    title = f"{TITLES[first.measure]}{': ' if apart else ''}{', '.join(apart)}"
    legend = [
        f"{plotext.colorize(mark, colour).string(colorless=not coloured)} {_words(curve)}"
        for (mark, colour), curve in zip(looks, group, strict=True)
    ]
    return "\n".join((title, figure.build().string(colorless=not coloured).rstrip("\n"), *legend, ""))


def _draw(
    figure: Any, group: Sequence[Curve], at: Mapping[Value, float], looks: Sequence[tuple[str, str]]
) -> None:
    """From the smallest to the largest seed at each point, lines along numbers, and the points over all."""
    from plotext import marker

    looking = list(zip(group, looks, strict=True))
    for curve, (_, colour) in looking:
        for value, low, high in zip(curve.x, curve.low, curve.high, strict=True):
            if high > low:
                figure.draw(figure.segment([at[value]] * 2, [low, high], marker=marker("│", colour)))
    for curve, (_, colour) in looking:
        if all(map(_is_number, curve.x)):
            x = [at[value] for value in curve.x]
            figure.draw(figure.signal(x, curve.median, marker=marker("braille", colour)).lines())
    for curve, (mark, colour) in looking:
        figure.draw(
            figure.signal([at[value] for value in curve.x], curve.median, marker=marker(mark, colour))
        )


def _places(values: Sequence[Value]) -> dict[Value, float]:
    """Where each value stands: a number at itself or its logarithm, a word after the one before."""
    if all(map(_is_number, values)):
        numbers = {value: float(value) for value in values}
        low, high = min(numbers.values()), max(numbers.values())
        is_log = low > 0 and high >= LOG_SPAN * low
        return {value: math.log10(number) for value, number in numbers.items()} if is_log else numbers
    return {value: float(number) for number, value in enumerate(values)}


def _limits(group: Sequence[Curve]) -> tuple[float, float]:
    """All points and 0, with some room."""
    low = min(0.0, *(value for curve in group for value in curve.low))
    high = max(0.0, *(value for curve in group for value in curve.high))
    room = 0.05 * (high - low) or 1.0
    return (low - room if low < 0 else 0.0), high + room


def _words(curve: Curve) -> str:
    named = [(name, curve.fields[name]) for name in LINES if name in curve.fields]
    return (
        ", ".join(_label(value) if name == "arch" else f"{name} {_label(value)}" for name, value in named)
        or "all"
    )


def _label(value: Value) -> str:
    """On one line, and not longer than a plot has room for."""
    text = "".join(character if character.isprintable() else " " for character in tables.word(value))
    return text if len(text) <= LABEL_LENGTH else f"…{text[1 - LABEL_LENGTH :]}"
