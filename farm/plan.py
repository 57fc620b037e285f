"""The lazy plan of a sweep: any cell, trial or id by its number, without a list of them.

A plan is a few blocks of cells: the grid (with the zip as one more axis) and one block per include.
In each block the *deciding* axes, those that an exclude or the meaning of the seed depends on, vary
slowest. How many trials each combination of them has is a small array; all that lies below is
mixed-radix arithmetic. Rules between fields are checked over the product of the axes they mention.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy

from farm.errors import SweepError
from farm.sweep import Block, Sweep
from workers.config import TrialConfig
from workers.fields.derived import INPUT_FIELDS, SEED_FIELDS, seed_matters
from workers.fields.groups import Value
from workers.rules import RULES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers import Input

    Numbers = NDArray[numpy.int64]

MOST_DECIDING = 1 << 26
"""combinations of deciding axes, one array element each"""

SAMPLES = 64
"""trials looked at for an estimate"""


class Axis(NamedTuple):
    """Fields that advance together, and their values row by row."""

    names: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class _Cells:
    """One block of cells: the product of its axes over fixed fields, without the excluded ones."""

    fixed: Mapping[str, Value]
    deciding: tuple[Axis, ...]
    others: tuple[Axis, ...]
    exclude: tuple[Block, ...]
    seeds: int

    @cached_property
    def kept(self) -> "NDArray[numpy.bool_]":
        """Which combinations of the deciding axes are not excluded."""
        shape = tuple(len(axis.rows) for axis in self.deciding)
        kept = numpy.ones(shape, dtype=bool)
        for block in self.exclude:
            if all(self.fixed[name] in block[name] for name in block if name in self.fixed):
                kept &= ~self._matching(block)
        return kept

    @cached_property
    def seeds_per_cell(self) -> "NDArray[numpy.int64]":
        """By combination of the deciding axes: 1 where the seed cannot matter."""
        touched = _touched(self.deciding, SEED_FIELDS)
        counts = numpy.empty(tuple(len(self.deciding[i].rows) for i in touched), dtype=numpy.int64)
        for index in numpy.ndindex(counts.shape):
            values = self._values(touched, index, SEED_FIELDS)
            counts[index] = self.seeds if seed_matters(TrialConfig.unchecked(values)) else 1
        shape = [len(axis.rows) if i in touched else 1 for i, axis in enumerate(self.deciding)]
        return numpy.broadcast_to(counts.reshape(shape), self.kept.shape)

    @cached_property
    def ends(self) -> "NDArray[numpy.int64]":
        """Number of trials up to and including each combination of the deciding axes."""
        per_combination = numpy.where(self.kept, self.seeds_per_cell, 0).ravel() * self.below
        return numpy.cumsum(per_combination, dtype=numpy.int64)

    @property
    def below(self) -> int:
        """Cells per combination of the deciding axes."""
        return prod(len(axis.rows) for axis in self.others)

    @property
    def cells(self) -> int:
        return int(numpy.count_nonzero(self.kept)) * self.below

    @property
    def trials(self) -> int:
        return int(self.ends[-1])

    def trials_up_to(self, seeds: int) -> int:
        """Trials if no cell had more than so many seeds."""
        counts = numpy.where(self.kept, numpy.minimum(self.seeds_per_cell, seeds), 0)
        return int(counts.sum()) * self.below

    def cells_of(self, numbers: "Numbers") -> "tuple[Numbers, Numbers]":
        """For each trial the number of its cell's first trial, and how many the cell has."""
        combinations = numpy.searchsorted(self.ends, numbers, side="right")
        seeds = self.seeds_per_cell.reshape(-1)[combinations]
        # each combination starts where the one before ends
        starts = numpy.concatenate([[0], self.ends])[combinations]
        return numbers - (numbers - starts) % seeds, seeds

    def trial(self, number: int) -> dict[str, Value]:
        """All fields of a trial of this block, the seed among them."""
        combination = int(numpy.searchsorted(self.ends, number, side="right"))
        start = int(self.ends[combination - 1]) if combination else 0
        seeds = int(self.seeds_per_cell.flat[combination])
        cell, seed = divmod(number - start, seeds)
        values = dict(self.fixed)
        for axis in reversed(self.others):
            cell, row = divmod(cell, len(axis.rows))
            values.update(zip(axis.names, axis.rows[row], strict=True))
        for axis in reversed(self.deciding):
            combination, row = divmod(combination, len(axis.rows))
            values.update(zip(axis.names, axis.rows[row], strict=True))
        values["seed"] = seed
        return values

    def holds(self, cell: Mapping[str, Value]) -> bool:
        """Whether a cell, given by all its fields, is one of these."""
        rows = []
        for axis in self.deciding + self.others:
            row = tuple(cell[name] for name in axis.names)
            if row not in axis.rows:
                return False
            rows.append(axis.rows.index(row))
        kept = bool(self.kept[tuple(rows[: len(self.deciding)])])
        return kept and all(cell[name] == value for name, value in self.fixed.items())

    def combinations(self, names: Sequence[str]) -> Iterator[dict[str, Value]]:
        """The values that these fields take together in at least one cell."""
        axes = self.deciding + self.others
        touched = _touched(axes, names)
        for index in product(*(range(len(axes[i].rows)) for i in touched)):
            place: list[int | slice] = [slice(None)] * len(self.deciding)
            for i, row in zip(touched, index, strict=True):
                if i < len(self.deciding):
                    place[i] = row
            if self.kept[tuple(place)].any():
                yield self._values(touched, index, names)

    def _values(self, touched: Sequence[int], index: Sequence[int], names: Sequence[str]) -> dict[str, Value]:
        axes = self.deciding + self.others
        values = {name: self.fixed[name] for name in names if name in self.fixed}
        for i, row in zip(touched, index, strict=True):
            pairs = zip(axes[i].names, axes[i].rows[row], strict=True)
            values |= {name: value for name, value in pairs if name in names}
        return values

    def _matching(self, block: Block) -> "NDArray[numpy.bool_]":
        matching = numpy.ones((1,) * len(self.deciding), dtype=bool)
        for i, axis in enumerate(self.deciding):
            rows = [
                all(v in block[n] for n, v in zip(axis.names, row, strict=True) if n in block)
                for row in axis.rows
            ]
            shape = [1] * len(self.deciding)
            shape[i] = len(rows)
            matching = matching & numpy.array(rows, dtype=bool).reshape(shape)
        return matching


class Plan:
    """What a sweep would run. Trials are numbered 0 .. ``trials`` - 1.

    Raises:
        SweepError: no cell is left, an include repeats one, or excludes mention too many combinations.
        workers.errors.ConfigError: a rule between fields is broken by some cell.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._blocks = _blocks(sweep)
        for block in self._blocks:
            _check_rules(block)
        _check_includes(self._blocks)
        self.cells = sum(block.cells for block in self._blocks)
        self.trials = sum(block.trials for block in self._blocks)
        if not self.cells:
            raise SweepError(f"sweep {sweep.name!r}: every cell is excluded; relax an [[exclude]]")

    @property
    def least_trials(self) -> int:
        """Trials if every cell had enough of the least number of seeds; ``trials`` unless the sweep says
        until when."""
        return sum(block.trials_up_to(self.sweep.least_seeds) for block in self._blocks)

    def cell(self, number: int) -> tuple[int, int]:
        """The number of the first trial of a trial's cell, and how many trials the cell has at most."""
        firsts, counts = self.cells_of(numpy.array([number]))
        return int(firsts[0]), int(counts[0])

    def cells_of(self, numbers: "Numbers") -> "tuple[Numbers, Numbers]":
        """As :meth:`cell`, of many trials."""
        firsts, counts = numpy.empty_like(numbers), numpy.empty_like(numbers)
        start = 0
        for block in self._blocks:
            inside = (start <= numbers) & (numbers < start + block.trials)
            own, counts[inside] = block.cells_of(numbers[inside] - start)
            firsts[inside] = own + start
            start += block.trials
        return firsts, counts

    @property
    def collapsed(self) -> int:
        """Trials saved because their seed cannot matter, at most."""
        return self.cells * self.sweep.seeds - self.trials

    def fields(self, number: int) -> dict[str, Value]:
        """The fields of a trial, the seed among them.

        Raises:
            IndexError: no such trial.
        """
        if not 0 <= number < self.trials:
            raise IndexError(f"trial {number} of {self.trials}")
        for block in self._blocks:
            if number < block.trials:
                return block.trial(number)
            number -= block.trials
        raise AssertionError("the blocks hold all trials")

    def config(self, number: int) -> TrialConfig:
        """The configuration of a trial; its rules were checked with the plan."""
        return TrialConfig.unchecked(self.fields(number))

    def trial_id(self, number: int) -> str:
        """The id of a trial: a hash of everything that its record depends on."""
        import workers

        return workers.trial_id(self.config(number))

    def inputs(self) -> dict[str, "Input"]:
        """Profiles and captures that the trials read, by the name that the sweep uses.

        Raises:
            workers.errors.ProfileError: an unknown or malformed architecture.
            workers.errors.CaptureError: a capture that cannot be replayed.
        """
        import workers

        found: dict[str, Input] = {}
        for block in self._blocks:
            for values in block.combinations(INPUT_FIELDS):
                config = TrialConfig.unchecked(values)
                found |= {one.name: one for one in workers.inputs(config)}
        return found

    def packets(self) -> int:
        """About how many packets the trials will simulate, from a sample of them."""
        import workers

        count = min(SAMPLES, self.trials)
        numbers = [i * self.trials // count for i in range(count)]
        return sum(workers.expected_packets(self.config(n)) for n in numbers) * self.trials // count


def _blocks(sweep: Sweep) -> tuple[_Cells, ...]:
    axes = [Axis((name,), tuple((value,) for value in values)) for name, values in sweep.grid.items()]
    if sweep.zip:
        axes.append(Axis(tuple(sweep.zip), tuple(zip(*sweep.zip.values(), strict=True))))
    blocks = [_block(sweep, sweep.fixed, axes, sweep.exclude)]
    for include in sweep.include:
        own = [Axis((name,), tuple((value,) for value in values)) for name, values in include.items()]
        fixed = {name: value for name, value in sweep.fixed.items() if name not in include}
        blocks.append(_block(sweep, fixed, own, ()))
    return tuple(blocks)


def _block(
    sweep: Sweep, fixed: Mapping[str, Value], axes: Sequence[Axis], exclude: tuple[Block, ...]
) -> _Cells:
    deciding_names = [*SEED_FIELDS, *(name for block in exclude for name in block)]
    deciding = _touched(axes, deciding_names)
    combinations = prod(len(axes[i].rows) for i in deciding)
    if combinations > MOST_DECIDING:
        raise SweepError(
            f"exclude: its fields have {combinations} combinations, more than {MOST_DECIDING}; "
            "mention fewer fields or split the sweep"
        )
    return _Cells(
        fixed=fixed,
        deciding=tuple(axes[i] for i in deciding),
        others=tuple(axis for i, axis in enumerate(axes) if i not in deciding),
        exclude=exclude,
        seeds=sweep.seeds,
    )


def _check_rules(block: _Cells) -> None:
    for rule in RULES:
        for values in block.combinations(rule.fields):
            rule.check(TrialConfig.unchecked(values))


def _check_includes(blocks: Sequence[_Cells]) -> None:
    for i, block in enumerate(blocks[1:], start=1):
        names = [name for axis in block.deciding + block.others for name in axis.names]
        for values in block.combinations(names):
            if any(other.holds({**block.fixed, **values}) for other in blocks[:i]):
                listed = ", ".join(f"{name} = {value}" for name, value in values.items())
                raise SweepError(f"include: the cell {listed} is there already; leave it out")


def _touched(axes: Sequence[Axis], names: Sequence[str]) -> list[int]:
    return [i for i, axis in enumerate(axes) if not set(axis.names).isdisjoint(names)]
