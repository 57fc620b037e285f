"""The question that a run answers, and the answer in a few sentences."""

from collections.abc import Sequence
from typing import NamedTuple

from farm import query, tables
from farm.query import Cell, Effect, Gain
from farm.sweep import Sweep

BUSY = "busy_ns_per_packet"

SAME = 0.005
"""a relative change below this rounds to nothing"""


class Answer(NamedTuple):
    """What stands on top of a report."""

    question: str
    sentences: list[str]
    """the first is the answer"""


def answer(sweep: Sweep, cells: Sequence[Cell]) -> Answer:
    """Whether recycling pays if it was swept, else which axis changes busy time most."""
    timed = [cell for cell in cells if cell.measures.get(BUSY)]
    found = query.gains(timed)
    if found:
        return Answer("Does recycling pay?", _about_gains(sweep, found))
    per = unit_of_work(cells)
    if not timed:
        return Answer(f"What does a {per} cost?", ["No record with a busy time yet, so there is no answer."])
    if len(timed) == 1:
        return Answer(f"What does a {per} cost?", [_one(timed[0], per)])
    return Answer(f"What changes CPU time per {per} most?", _about_times(sweep, timed, per))


def unit_of_work(cells: Sequence[Cell]) -> str:
    """What busy time is divided by: a packet, or a page in the loops of the pool's benchmark."""
    kinds = {"packet" if cell.fields["workload"] == "nic" else "page" for cell in cells} or {"packet"}
    return " or ".join(sorted(kinds))


def axes_together(sweep: Sweep) -> list[tuple[str, ...]]:
    """The swept fields; in one tuple those that advance together."""
    zipped = tuple(sweep.zip)
    return [*((name,) for name in sweep.axes() if name not in zipped), *([zipped] if zipped else [])]


def _about_gains(sweep: Sweep, found: Sequence[Gain]) -> list[str]:
    summary = query.gain_summary(found)
    unclear = len(found) - summary.pays - summary.costs
    most_seeds = max(max(gain.on.seeds, gain.off.seeds) for gain in found)
    beyond = " by more than the spread of the seeds" if most_seeds > 1 else ""
    if len(found) == 1:
        verdict = "pays" if summary.pays else "costs time" if summary.costs else "changes nothing that shows"
        first = f"Recycling {verdict}{beyond} in the one configuration that was run with it on and off."
    else:
        where = f"{summary.pays} of" if summary.pays < len(found) else "all"
        counts = [f"pays{beyond} in {where} {len(found)} configurations"]
        counts += [f"costs time in {summary.costs}"] if summary.costs else []
        counts += [f"makes no difference that shows in {unclear}"] if unclear else []
        median, low, high = (
            tables.percent(x, sign=True) for x in (summary.median, summary.low, summary.high)
        )
        spread = f" at the median, from {low} to {high}" if low != high else ""
        first = f"Recycling {_listed(counts)}; it gains {median}{spread}."
    sentences = [first, tables.where_it_pays(found)]
    others = [axes for axes in axes_together(sweep) if axes != ("pool.recycle",)]
    changed = query.effects([(gain.on, gain.gain) for gain in found], others, lambda low, high: high - low)
    if changed and changed[0].most >= SAME:
        median, most = (f"{100 * difference:.1f}" for difference in (changed[0].median, changed[0].most))
        sentences.append(
            f"What changes the gain most is {_names(changed[0])}: where all else is equal by {median} "
            f"percentage points at the median and {most} at most."
        )
    if size := tables.what_the_size_changed(found):
        sentences.append(size)
    if sweep.seeds == 1:
        sentences.append("It ran with one seed, so how far seeds differ is unknown.")
    return sentences


def _about_times(sweep: Sweep, timed: Sequence[Cell], per: str) -> list[str]:
    points = [(cell, cell.measures[BUSY]) for cell in timed]
    changed = query.effects(points, axes_together(sweep), lambda low, high: high / low - 1)
    sentences = []
    if changed and max(effect.most for effect in changed) < SAME:
        sentences.append(f"No axis alone changes CPU time per {per} by more than {tables.percent(SAME)}.")
    elif changed:
        sentences.append(
            f"CPU time per {per} changes most with {_names(changed[0])}: where all else is equal "
            f"{_times(changed[0].median)} at the median and {_times(changed[0].most)} at most."
        )
        if len(changed) > 1:
            rest = [f"{_names(effect)} {_times(effect.median)}" for effect in changed[1:]]
            sentences.append(f"The others at the median: {', '.join(rest)}.")
    what = "It" if sentences else f"CPU time per {per}"
    low, high = min(timed, key=_busy), max(timed, key=_busy)
    if _busy(low) == _busy(high):
        sentences.append(f"{what} is {_ns(low)} in all of {len(timed)} cells.")
    else:
        ends = [f"on {tables.place_of(cell)}, {_ns(cell)}" for cell in (low, high)]
        sentences.append(f"{what} is least {ends[0]}, and most {ends[1]}.")
    return sentences


def _one(cell: Cell, per: str) -> str:
    text = f"A {per} costs {_ns(cell)} of CPU time on {tables.place_of(cell)}"
    if cell.seeds == 1:
        return f"{text}."
    return f"{text}, {_ns_of(cell.low[BUSY])} to {_ns_of(cell.high[BUSY])} over {cell.seeds} seeds."


def _busy(cell: Cell) -> float:
    return cell.measures[BUSY]


def _ns(cell: Cell) -> str:
    return _ns_of(_busy(cell))


def _ns_of(value: float) -> str:
    return f"{tables.in_unit('ns', value)} ns"


def _times(more: float) -> str:
    """How much more the largest is than the smallest."""
    return f"by {tables.percent(more)}" if more < 1 else f"by a factor of {1 + more:.3g}"


def _names(effect: Effect) -> str:
    return " with ".join(effect.axes)


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
