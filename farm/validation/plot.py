"""A picture of predicted against published values, as SVG."""

from collections.abc import Sequence
from pathlib import Path

from farm import svg
from farm.validation.validate import Prediction

COLOURS = {"in band": "#2a7f3b", "out of band": "#c0392b", "sign wrong": "#7b2d8b", "not scored": "#8a8a8a"}
MARKERS = {"predicted": "o", "fitted": "s", "input": "^"}
INCHES = (12.0, 6.4)
LABEL_POINTS = 6.5


def write(found: Sequence[Prediction], path: Path) -> None:
    """Write the picture: published values along, predicted ones up, on logarithmic axes, each band as a bar.

    Times stand in one panel, ratios and shares in the other, gains in percent among them as ratios. What has
    no logarithm, such as a published zero, is left out. The same predictions give the same bytes.

    Raises:
        OutputError: it cannot be written.
    """
    with svg.drawn(path, INCHES, panels=2) as panels:
        from matplotlib.lines import Line2D

        times = [p for p in found if p.case.table.compare in ("value", "difference") and not _is_ratio(p)]
        for panel, title, rows in (
            (panels[0], "time, ns", times),
            (panels[1], "ratios", [p for p in found if p not in times]),
        ):
            _draw(panel, title, rows)
        handles = [
            *(Line2D([], [], color="black", marker=m, linestyle="", label=r) for r, m in MARKERS.items()),
            *(Line2D([], [], color=COLOURS[v], marker="o", linestyle="", label=v) for v in COLOURS),
        ]
        panels[0].legend(handles=handles, loc="upper left", frameon=False)


def _is_ratio(prediction: Prediction) -> bool:
    table = prediction.case.table
    return bool(table.share_of) or not all(name.endswith("_ns_per_packet") or name == "busy_ns_per_packet"
                                           for name in prediction.case.measures)  # fmt: skip


def _draw(panel, title: str, rows: Sequence[Prediction]) -> None:  # type: ignore[no-untyped-def]
    """One panel."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    drawn = []
    for row in rows:
        published, predicted = _positive(row, row.case.table.published), _positive(row, row.predicted)
        if published and predicted:
            drawn.append((row, published, predicted))
    panel.set(xscale="log", yscale="log", title=title, xlabel="published", ylabel="predicted")
    if not drawn:
        return
    ends_of = {row.case.name: [_positive(row, end) for end in row.case.table.band or ()] for row, *_ in drawn}
    reached = [value for _, *values in drawn for value in values]
    reached += [end for ends in ends_of.values() for end in ends if end]
    low, high = min(reached) * 0.8, max(reached) * 1.25
    panel.plot([low, high], [low, high], color="#bbbbbb", linewidth=1, zorder=0)
    panel.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    markers = [_points(panel, published, predicted) for _, published, predicted in drawn]
    taken = [(x - 3, x + 3, y - 3) for x, y in markers]
    for row, published, predicted in drawn:
        colour = COLOURS[row.verdict]
        ends = ends_of[row.case.name]
        if all(ends) and ends:
            panel.plot([published] * 2, ends, color=colour, linewidth=5, alpha=0.25, solid_capstyle="butt")
        panel.plot(published, predicted, color=colour, marker=MARKERS[row.case.table.role], markersize=5)
        place = _free_place(panel, published, predicted, row.case.name, taken)
        panel.annotate(
            row.case.name, (published, predicted), xytext=place, textcoords="offset points",
            ha="left" if place[0] > 0 else "right", fontsize=LABEL_POINTS, color=colour,
        )  # fmt: skip
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(
            LogLocator(base=10, subs=(1, 2, 5) if high / low > 20 else (1, 1.5, 2, 3, 5, 7))
        )
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _free_place(  # type: ignore[no-untyped-def]
    panel, x: float, y: float, label: str, taken: list[tuple[float, float, float]]
) -> tuple[int, int]:
    """Where a label goes, in points from its marker: the nearest place that no other has; ``taken`` holds
    left end, right end and height of those before."""
    left, right = 5, -5
    at_x, at_y = _points(panel, x, y)
    edge = _points(panel, *(limits[1] for limits in (panel.get_xlim(), panel.get_ylim())))[0]
    width = LABEL_POINTS * 0.62 * len(label)
    places = [(side, -3 + step) for step in (0, 7, -7, 14, -14, 21, -21, 28, -28) for side in (left, right)]
    for side, up in places:
        start = at_x + side if side > 0 else at_x + side - width
        box = (start, start + width, at_y + up)
        clear = all(box[0] > b[1] or box[1] < b[0] or abs(box[2] - b[2]) >= LABEL_POINTS for b in taken)
        if clear and box[1] < edge:
            break
    taken.append(box)
    return side, up


def _points(panel, x: float, y: float) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Where a pair of values is drawn, in points."""
    at_x, at_y = panel.transData.transform((x, y)) * 72 / panel.figure.dpi
    return float(at_x), float(at_y)


def _positive(row: Prediction, value: float | None) -> float | None:
    """A value on a logarithmic axis; None if it has no place there."""
    if value is None:
        return None
    if row.case.table.compare == "gain_percent":
        value = 1 + value / 100
    return value if value > 0 else None
