"""Two sides of a comparison, paired cell by cell and seed by seed: what :mod:`farm.query` is for one run.

Everything is a column with a place for each cell: a comparison of two large runs has a million differences.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from farm.errors import StoreError
from farm.query import axes
from farm.store.runs import Run, connected
from workers.fields.groups import Value

if TYPE_CHECKING:
    import duckdb

Floats = numpy.typing.NDArray[numpy.float64]
Integers = numpy.typing.NDArray[numpy.int64]
Flags = numpy.typing.NDArray[numpy.bool_]

_ROW = "hash(trial_id) AS row"
"""what tells a record from all others of a run: a number, as text would take longer than all values"""

MEASURES_AT_A_TIME = 64
"""whose values are in memory; all of a million records would be gigabytes"""


class Side(NamedTuple):
    """The records of a run, or those of them that have these values."""

    run: Run
    where: Mapping[str, Value] = MappingProxyType({})


class Column(NamedTuple):
    """One measure of all cells; NaN where no seed of a cell has it on both sides."""

    base: Floats
    """medians over the seeds"""
    other: Floats
    mean: Floats
    """of other - base, likewise below"""
    spread: Floats
    """standard deviation of a sample; NaN of one seed"""
    least: Floats
    most: Floats
    pairs: Integers
    """seeds that have it on both sides"""
    one_sided: Flags
    """whether some seed has it on one side only"""

    def ordered(self, order: Integers) -> "Column":
        """The same cells in another order."""
        return Column._make(values[order] for values in self)


class Paired(NamedTuple):
    """The cells that two sides have in common."""

    cells: list[dict[str, Value]]
    seeds: Integers
    measures: dict[str, Column]
    unpaired: tuple[int, int]
    """records of each side without a partner"""


class _Source(NamedTuple):
    """The records of a side, in no order: what follows the columns in a SELECT, and its parameters."""

    sql: str
    parameters: dict[str, object]


def paired(base: Side, other: Side, names: Sequence[str], measures: Sequence[str]) -> Paired:
    """Cells that two sides have in common by these fields, each trial paired with that of the same seed; in
    the order of the sweep's axes.

    Raises:
        farm.errors.StoreError: a run is damaged.
    """
    import duckdb

    sources: list[_Source] = []
    for side in (base, other):
        once, paths = side.run.rows("records", "paths")
        if not paths:
            return Paired([], numpy.zeros(0, numpy.int64), {}, (0, 0))
        values = {f"value_{number}": value for number, value in enumerate(side.where.values())}
        chosen = " AND ".join(f'"{name}" = ${value}' for name, value in zip(side.where, values, strict=True))
        source = f"FROM ({once}){' WHERE ' if chosen else ''}{chosen}"
        sources.append(_Source(source, {"paths": paths, **values}))
    keys = ", ".join([*(f'"{name}"' for name in (*names, "seed")), _ROW])
    with connected() as connection:
        try:
            for letter, one in zip("lr", sources, strict=True):
                connection.execute(f"CREATE TEMP TABLE {letter} AS SELECT {keys} {one.sql}", one.parameters)
            cells, seeds = _join(connection, names)
            rows = connection.execute("SELECT l_row, r_row FROM pairs ORDER BY cell, seed").fetchnumpy()
            order = _order(cells, {**axes(base.run), **axes(other.run)})
            by_seeds = _by_seeds(seeds)
            found = {}
            for start in range(0, len(measures), MEASURES_AT_A_TIME):
                some = measures[start : start + MEASURES_AT_A_TIME]
                left = _values(connection, sources[0], some, rows["l_row"])
                right = _values(connection, sources[1], some, rows["r_row"])
                for name in some:
                    found[name] = _column(left[name], right[name], by_seeds).ordered(order)
            counts = [connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in "lr"]
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise StoreError(
                f"runs {base.run.name}, {other.run.name}: a part is damaged ({reason})"
            ) from None
    total = int(seeds.sum())
    unpaired = counts[0] - total, counts[1] - total
    return Paired([cells[place] for place in order], seeds[order], found, unpaired)


def _join(
    connection: "duckdb.DuckDBPyConnection", names: Sequence[str]
) -> tuple[list[dict[str, Value]], Integers]:
    """Make the table of pairs, by cell and seed; the cells in its order, and how many pairs each has."""
    key = " AND ".join(f'l."{name}" = r."{name}"' for name in (*names, "seed"))
    columns = [f'l."{name}"' for name in names]
    group = ", ".join(columns)
    number = f"dense_rank() OVER (ORDER BY {group}) - 1" if names else "0"
    connection.execute(
        f"CREATE TEMP TABLE pairs AS SELECT {number} AS cell, l.seed AS seed, l.row AS l_row, r.row AS r_row"
        f"{''.join(f', {name}' for name in columns)} FROM l JOIN r ON {key}"
    )
    fields = "".join(f', any_value("{name}")' for name in names)
    rows = connection.execute(f"SELECT count(*){fields} FROM pairs GROUP BY cell ORDER BY cell").fetchall()
    cells = [dict(zip(names, row[1:], strict=True)) for row in rows]
    return cells, numpy.array([row[0] for row in rows], numpy.int64)


def _order(cells: Sequence[Mapping[str, Value]], swept: Mapping[str, tuple[Value, ...]]) -> Integers:
    """Places of the cells in the order of the sweep's axes."""
    places = {name: {value: index for index, value in enumerate(values)} for name, values in swept.items()}

    def key(place: int) -> list[int]:
        return [places[name].get(value, len(places[name])) for name, value in cells[place].items()]

    return numpy.array(sorted(range(len(cells)), key=key), numpy.int64)


def _by_seeds(seeds: Integers) -> list[tuple[Integers, Integers]]:
    """Cells of the same number of seeds together: their places, and for each a row of places of values."""
    starts = numpy.cumsum(seeds) - seeds
    found = []
    for count in numpy.unique(seeds):
        cells = numpy.flatnonzero(seeds == count)
        found.append((cells, starts[cells, None] + numpy.arange(count)))
    return found


def _values(
    connection: "duckdb.DuckDBPyConnection", source: _Source, measures: Sequence[str], wanted: Any
) -> dict[str, Floats]:
    """Values of these records of a side, in this order; NaN for none."""
    chosen = ", ".join(
        f'coalesce(CAST("{name}" AS DOUBLE), \'NaN\'::DOUBLE) AS "{name}"' for name in measures
    )
    found = connection.execute(f"SELECT {_ROW}, {chosen} {source.sql}", source.parameters).fetchnumpy()
    rows = found.pop("row")
    order = numpy.argsort(rows)
    places = order[numpy.searchsorted(rows, wanted, sorter=order)]
    return {name: values[places] for name, values in found.items()}


def _column(left: Floats, right: Floats, by_seeds: Sequence[tuple[Integers, Integers]]) -> Column:
    cells = sum(len(places) for places, _ in by_seeds)
    base, other, mean, spread, least, most = numpy.full((6, cells), numpy.nan)
    pairs, one_sided = numpy.zeros(cells, numpy.int64), numpy.zeros(cells, numpy.bool_)
    found = Column(base, other, mean, spread, least, most, pairs, one_sided)
    missing = numpy.isnan(left) | numpy.isnan(right)
    complete = not missing.any()
    for cells_of, rows in by_seeds:
        if complete:
            _fill(found, cells_of, left[rows], right[rows])
            continue
        found.one_sided[cells_of] = (numpy.isnan(left[rows]) != numpy.isnan(right[rows])).any(axis=1)
        # few columns have gaps, and few cells of those
        for cell, row in zip(cells_of, rows, strict=True):
            there = row[~missing[row]]
            if len(there):
                _fill(found, numpy.array([cell]), left[None, there], right[None, there])
    return found


def _fill(found: Column, cells: Integers, left: Floats, right: Floats) -> None:
    """The statistics of some cells, a row of seeds each."""
    difference = right - left
    found.base[cells] = numpy.median(left, axis=1)
    found.other[cells] = numpy.median(right, axis=1)
    found.mean[cells] = difference.mean(axis=1)
    found.least[cells] = difference.min(axis=1)
    found.most[cells] = difference.max(axis=1)
    found.pairs[cells] = left.shape[1]
    if left.shape[1] > 1:
        found.spread[cells] = difference.std(axis=1, ddof=1)
