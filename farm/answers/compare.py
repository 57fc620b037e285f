"""Compare two sides cell by cell: two runs, or the two values of an axis of one. Cells are paired by the
configuration that they have in common, trials by their seed, so that most variance cancels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy

from farm import query
from farm.answers.statistics import Interval, Verdict, paired_intervals, paired_verdicts
from farm.errors import IncomparableError
from farm.pairing import Column, Flags, Floats, Side, paired
from farm.store.runs import Run
from farm.tables import word, words
from workers.config import TrialConfig, check_name, field
from workers.fields.derived import SEED_FIELDS, seed_matters
from workers.fields.groups import Value
from workers.measures import Unit, by_name

MODEL, INPUTS = "model", "inputs"
"""what runs may differ in beside fields, as ``--across`` names it"""


class Difference(NamedTuple):
    """One measure of one cell on both sides."""

    base: float
    """median over the seeds, or the samples; NaN if it has none"""
    other: float
    difference: float
    """other - base: mean over the seeds, or of the medians of samples"""
    interval: Interval | None
    """of the difference; None if there is one seed"""
    verdict: Verdict
    """of the other side, by the measure's better direction; ``differs`` where it has none"""

    @property
    def ratio(self) -> float | None:
        """other / base of the medians; None where base is 0."""
        return self.other / self.base if self.base else None


@dataclass(frozen=True)
class Differences:
    """The same of all cells, as columns: two large runs have a million of them."""

    base: Floats
    other: Floats
    difference: Floats
    low: Floats
    """of the interval; NaN if there is one seed"""
    high: Floats
    verdicts: "numpy.typing.NDArray[numpy.str_]"
    """empty where one of the sides has no value"""

    @property
    def change(self) -> Floats:
        """Size of the difference as a part of the base; infinite where the base is 0, NaN where both are."""
        with numpy.errstate(divide="ignore", invalid="ignore"):
            return numpy.abs(self.difference / self.base)

    def at(self, cell: int) -> Difference:
        """That of one cell."""
        low, high = float(self.low[cell]), float(self.high[cell])
        return Difference(
            float(self.base[cell]),
            float(self.other[cell]),
            float(self.difference[cell]),
            None if math.isnan(low) else Interval(low, high),
            cast(Verdict, str(self.verdicts[cell])),
        )


class Pair(NamedTuple):
    """A cell that both sides have."""

    fields: Mapping[str, Value]
    """swept fields that both sides have in common"""
    seeds: int
    """or samples, on the side that has fewer"""
    measures: Mapping[str, Difference]
    """by name; without those that one of the two could not measure"""


@dataclass(frozen=True)
class Comparison:
    """Two sides."""

    base: str
    other: str
    """what the sides are called"""
    across: Mapping[str, tuple[str, str]]
    """what they differ in, base and other: the axis, or what ``--across`` allowed"""
    cells: Sequence[Mapping[str, Value]]
    """swept fields that both sides have in common, of each cell that both have"""
    seeds: Sequence[int]
    """of each cell; of samples those of the side that has fewer"""
    measures: Mapping[str, Differences]
    unpaired: tuple[int, int]
    """records of the base, and of the other, without a partner; of samples cells"""
    units: Mapping[str, Unit]
    """of all measures that were compared"""
    exact: bool = True
    """whether the same thing gives the same values: of records, not of measured samples"""
    caveats: Sequence[str] = ()
    """what was not compared, or could not have been shown"""

    def pair(self, cell: int) -> Pair:
        """All of one cell."""
        compared = {name: found for name, found in self.measures.items() if found.verdicts[cell]}
        return Pair(
            self.cells[cell], self.seeds[cell], {name: found.at(cell) for name, found in compared.items()}
        )

    @property
    def pairs(self) -> list[Pair]:
        """All of all cells."""
        return [self.pair(cell) for cell in range(len(self.cells))]


def compare_axis(
    run: Run, axis: str, base: Value | None = None, measures: Sequence[str] = ()
) -> list[Comparison]:
    """The values of an axis of a run, each against the base.

    Arguments:
        axis: a swept field.
        base: its value to compare with; by default ``false``, else the first in the sweep.
        measures: those to compare; all if none is named.

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
    found = [
        _compare(
            Side(run, {axis: base}),
            Side(run, {axis: other}),
            names,
            {axis: (word(base), word(other))},
            measures,
        )
        for other in values
        if other != base
    ]
    if not any(comparison.cells for comparison in found):
        raise IncomparableError(f"axis {axis}: run {run.name} holds no two records that differ in it only")
    return [comparison for comparison in found if comparison.cells]


def compare_runs(
    base: Run, other: Run, across: Sequence[str] = (), measures: Sequence[str] = ()
) -> Comparison:
    """Two runs, cell by cell.

    Arguments:
        across: what they may differ in: a field, which then pairs no cells, ``model`` or ``inputs``.
        measures: those to compare; all if none is named.

    Raises:
        IncomparableError: they differ in something that ``across`` does not name, or have no cell in common.
        StoreError: a run is damaged.
    """
    for name in across:
        if name not in (MODEL, INPUTS):
            check_name(name)
    differing = {**_model(base, other), **_inputs(base, other), **_fixed(base, other)}
    refuse_unnamed(differing, across, base.name, other.name)
    swept = {**query.axes(base), **query.axes(other)}
    names = [name for name in swept if name not in across]
    found = _compare(Side(base), Side(other), names, differing, measures)
    if not found.cells:
        raise IncomparableError(
            f"runs {base.name} and {other.name}: no cell and seed in common; their axes are "
            f"{', '.join(query.axes(base)) or 'none'} and {', '.join(query.axes(other)) or 'none'}"
        )
    return found


def refuse_unnamed(
    differing: Mapping[str, tuple[str, str]], across: Sequence[str], base: str, other: str
) -> None:
    """Nothing is compared across what nobody named.

    Raises:
        IncomparableError: two sides of these names differ in something that ``across`` does not name.
    """
    unnamed = [name for name in differing if name not in across]
    if unnamed:
        name = unnamed[0]
        left, right = differing[name]
        raise IncomparableError(
            f"--across {' --across '.join(unnamed)}: {name} is {left} in {base} and {right} in {other}; "
            "compare like with like, or say so with this"
        )


def _model(base: Run, other: Run) -> dict[str, tuple[str, str]]:
    left, right = (
        ", ".join(
            str(row["model_digest"])
            for row in run.query(
                "attempts", "SELECT DISTINCT model_digest FROM attempts ORDER BY model_digest"
            )
        )
        for run in (base, other)
    )
    return {} if left == right else {MODEL: (left, right)}


def _inputs(base: Run, other: Run) -> dict[str, tuple[str, str]]:
    """Profiles, captures and variants that go by one name and have other content."""
    left, right = (run.manifests()[0].get("inputs", {}) for run in (base, other))
    changed = [name for name in sorted(left.keys() & right.keys()) if left[name] != right[name]]
    if not changed:
        return {}
    name = changed[0]
    return {INPUTS: (f"{name} {left[name][:12]}", f"{name} {right[name][:12]}")}


def _fixed(base: Run, other: Run) -> dict[str, tuple[str, str]]:
    """Fields that both runs fix, and differ in."""
    left, right = base.sweep.fixed, other.sweep.fixed
    common = [name for name in left if name in right and name not in query.axes(base) | query.axes(other)]
    return {name: (word(left[name]), word(right[name])) for name in common if left[name] != right[name]}


def _compare(
    base: Side,
    other: Side,
    names: Sequence[str],
    across: Mapping[str, tuple[str, str]],
    measures: Sequence[str],
) -> Comparison:
    chosen = list(measures) or list(by_name())
    found = paired(base, other, names, chosen)
    units = {name: by_name()[name].unit for name in chosen}
    matters = _seeds_matter(base.run)
    seeds_matter = (found.seeds > 1) | numpy.array([matters(cell) for cell in found.cells], numpy.bool_)
    # an older version did not write some measures
    lost = [name for name, one in found.measures.items() if one.one_sided.any() and not one.pairs.any()]
    compared = {name: column for name, column in found.measures.items() if name not in lost}
    return Comparison(
        _name(base),
        _name(other),
        across,
        found.cells,
        found.seeds.tolist(),
        {name: _differences(column, name, seeds_matter) for name, column in compared.items()},
        found.unpaired,
        units,
        caveats=[*_failures(base.run, other.run), *_lost(lost)],
    )


def _differences(column: Column, name: str, seeds_matter: Flags) -> Differences:
    low, high = paired_intervals(column)
    verdicts = paired_verdicts(column, low, high, by_name()[name].better, seeds_matter)
    return Differences(column.base, column.other, column.mean, low, high, verdicts)


def _failures(*runs: Run) -> Iterator[str]:
    for run in dict.fromkeys(runs):
        if failed := len(run.failures()):
            yield f"Of run {run.name} {failed} trials failed and are not compared."


def _lost(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"Not compared, as only one side has them: {', '.join(names)}."


def _name(side: Side) -> str:
    return words(side.where) or side.run.name


def _seeds_matter(run: Run) -> Any:
    """Whether other seeds of a cell could come out otherwise, asked once for all cells alike in that."""
    fixed = run.sweep.fixed
    known: dict[tuple[Value | None, ...], bool] = {}

    def matters(row: Mapping[str, Any]) -> bool:
        values = {name: row.get(name, fixed.get(name)) for name in SEED_FIELDS}
        key = tuple(values.values())
        if key not in known:
            # what a record holds as text has its type again
            given = {name: field(name).parse(str(v)) for name, v in values.items() if v is not None}
            known[key] = seed_matters(TrialConfig.unchecked(given))
        return known[key]

    return matters
