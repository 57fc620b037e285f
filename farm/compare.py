"""Compare the two sides of one axis of a run: same configuration, same seed, exact differences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from farm import query
from farm.errors import IncomparableError
from farm.store import Run
from workers.config import check_name
from workers.fields.groups import Value
from workers.measures import MEASURES, Better

Verdict = Literal["better", "worse", "same", "differs", "mixed"]


class Difference(NamedTuple):
    """One measure on both sides."""

    base: float
    other: float
    difference: float
    """other - base"""
    ratio: float | None
    """other / base; None where base is 0"""
    verdict: Verdict
    """of the other side, by the measure's better direction; ``differs`` where it has none"""


@dataclass(frozen=True)
class Pair:
    """Two trials that differ in the axis only."""

    axis: str
    base: Value
    other: Value
    fields: Mapping[str, Value]
    """the other swept fields"""
    seed: int
    measures: Mapping[str, Difference]
    """by name; without those that one of the two could not measure"""


def compare(run: Run, axis: str, base: Value | None = None) -> list[Pair]:
    """Pair the trials of a run along an axis, each of its other values against the base.

    Arguments:
        axis: a swept field.
        base: its value to compare with; by default ``false``, else the first in the sweep.

    Raises:
        workers.errors.ConfigError: no field has this name.
        IncomparableError: the field is not swept, or no two trials differ in it only.
        StoreError: the run is damaged.
    """
    check_name(axis)
    swept = query.axes(run)
    values = swept.get(axis, ())
    if len(values) < 2:
        listed = ", ".join(name for name, found in swept.items() if len(found) > 1) or "none"
        raise IncomparableError(f"axis {axis}: run {run.name} does not sweep it; its axes: {listed}")
    if base is None:
        base = False if False in values and isinstance(values[0], bool) else values[0]
    elif base not in values:
        listed = ", ".join(map(str, values))
        raise IncomparableError(
            f"base {base}: {axis} has no such value in run {run.name}; use one of {listed}"
        )
    names = [name for name in swept if name != axis]
    pairs = [
        Pair(
            axis=axis,
            base=base,
            other=other,
            fields={name: left[name] for name in names},
            seed=left["seed"],
            measures={
                m.name: _difference(left[m.name], right[m.name], m.better)
                for m in MEASURES
                if left[m.name] is not None and right[m.name] is not None
            },
        )
        for other in values
        if other != base
        for left, right in query.paired(run, axis, base, other)
    ]
    if not pairs:
        raise IncomparableError(f"axis {axis}: run {run.name} holds no two records that differ in it only")
    return pairs


def verdict(differences: list[Difference]) -> Verdict:
    """What several seeds say together; ``mixed`` where they do not agree."""
    found = {difference.verdict for difference in differences}
    return found.pop() if len(found) == 1 else "mixed"


def _difference(base: float, other: float, better: Better) -> Difference:
    ratio = other / base if base else None
    return Difference(base, other, other - base, ratio, _verdict(base, other, better))


def _verdict(base: float, other: float, better: Better) -> Verdict:
    if base == other:
        return "same"
    if better == "neither":
        return "differs"
    return "better" if (other > base) == (better == "higher") else "worse"
