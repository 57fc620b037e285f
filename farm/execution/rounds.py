"""Which trials of a sweep with ``seeds = { until = ... }`` run next, and which of those that ran are stored.

A cell's first round is its least number of seeds. When all seeds that were sent out are back, and are not
enough (:mod:`farm.seeds`), the next round is what their spread asks for. A trial is stored when the
seeds before it are known not to be enough, so nothing beyond a cell's last seed comes into the store.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy

from farm.plan import Plan
from farm.seeds import Until
from farm.store.rows import KINDS, NUMBER, Kind
from farm.store.runs import Run

if TYPE_CHECKING:
    import pyarrow

LOOK_AHEAD = 1024
"""trials looked at at once for such as are not done"""

Rows = Mapping[Kind, "pyarrow.Table"]


@dataclass
class _Cell:
    """A cell that has seeds out, or needs more."""

    values: list[float | None] = field(default_factory=list)
    """of the seeds that were stored"""
    waiting: dict[int, float | None] = field(default_factory=dict)
    """values of later seeds, by seed"""
    sent: int = 0
    """seeds that were handed out or are stored"""


class Rounds(Iterator[range]):
    """Ranges of trial numbers to run. The iteration pauses where all cells wait for results, and goes on
    after :meth:`take`; it has ended when it pauses while nothing is being run.

    Arguments:
        plan: of a sweep that has ``until``.
        run: whose stored trials are done; None for a new one.
        batch_trials: how many trials make a range.
        retry_failures: whether trials that failed are run again.
    """

    def __init__(
        self,
        plan: Plan,
        run: Run | None,
        batch_trials: Callable[[], int] = lambda: 1,
        retry_failures: bool = False,
    ) -> None:
        until = plan.sweep.until
        if until is None:
            raise ValueError("the sweep has a fixed number of seeds")
        self.batch_trials = batch_trials
        self.done = numpy.zeros(plan.trials, dtype=bool)
        """by number: is stored, or is not needed"""
        self.most_trials = plan.trials
        """that the run may still come to: less as cells turn out to have enough"""
        self._plan = plan
        self._until: Until = until
        self._cells: dict[int, _Cell] = {}
        """cells under way by the number of their first trial"""
        self._ready: deque[range] = deque()
        self._next = 0
        self._held: dict[Kind, pyarrow.Table] = {}
        """rows of trials that came before an earlier seed of their cell"""
        if run is not None:
            self._resume(run, retry_failures)
        self.stored = int(self.done.sum()) - (plan.trials - self.most_trials)
        """trials that were stored before"""
        self.done_trials = self.stored
        """trials that were stored before or may be since"""

    def __next__(self) -> range:
        while not self._ready:
            self._open_next()
        numbers = self._ready.popleft()
        most = max(1, self.batch_trials())
        if len(numbers) > most:
            self._ready.appendleft(numbers[most:])
        return numbers[:most]

    def take(self, rows: Rows) -> "dict[Kind, pyarrow.Table]":
        """The rows to store now that these trials have been run: some of them, and of those before."""
        import pyarrow
        import pyarrow.compute

        released: list[int] = []
        for number, value in sorted(self._values(rows).items()):
            released += self._arrived(number, value)
        self.done_trials += len(released)
        waiting = [first + seed for first, cell in self._cells.items() for seed in cell.waiting]
        found: dict[Kind, pyarrow.Table] = {}
        for kind in KINDS:
            parts = [part for part in (self._held.pop(kind, None), rows.get(kind)) if part is not None]
            if not parts:
                continue
            known = pyarrow.concat_tables(parts)
            for numbers, into in ((released, found), (waiting, self._held)):
                chosen = pyarrow.compute.is_in(known[NUMBER], pyarrow.array(numbers, pyarrow.int64()))
                kept = known.filter(chosen)
                if kept.num_rows:
                    into[kind] = kept
        return found

    def _values(self, rows: Rows) -> dict[int, float | None]:
        """The measure by trial number, None for a failure."""
        found: dict[int, Any] = {}
        if "failures" in rows:
            found |= {int(number): None for number in _column(rows["failures"], NUMBER)}
        if "records" in rows:
            records = rows["records"]
            found |= zip(_column(records, NUMBER), _column(records, self._until.measure), strict=True)
        return found

    def _arrived(self, number: int, value: float | None) -> list[int]:
        """Trials that may be stored now that this one is known, in order."""
        if self.done[number]:
            # beyond the last seed that is needed, or here for the second time
            return []
        first, seeds = self._plan.cell(number)
        if seeds == 1:
            self.done[number] = True
            return [number]
        cell = self._cells[first]
        cell.waiting[number - first] = value
        released = []
        enough = False
        while not enough and len(cell.values) in cell.waiting:
            seed = len(cell.values)
            cell.values.append(cell.waiting.pop(seed))
            if not self.done[first + seed]:
                self.done[first + seed] = True
                released.append(first + seed)
            enough = self._until.enough(cell.values)
        if enough:
            self._settle(first, seeds, len(cell.values))
        elif len(cell.values) == cell.sent:
            self._send(first, cell, self._until.next_seeds(cell.values))
        return released

    def _settle(self, first: int, seeds: int, stored: int) -> None:
        """A cell needs no more seeds."""
        self._cells.pop(first, None)
        self.done[first : first + seeds] = True
        self.most_trials -= seeds - stored

    def _send(self, first: int, cell: _Cell, seeds: int) -> None:
        """Let a cell have more seeds, but for such as are stored."""
        start, stop = first + cell.sent, first + cell.sent + seeds
        cell.sent += seeds
        for number in range(start, stop):
            if not self.done[number]:
                last = self._ready[-1] if self._ready else range(0)
                if number > start and last.stop == number:
                    self._ready[-1] = range(last.start, number + 1)
                else:
                    self._ready.append(range(number, number + 1))

    def _open_next(self) -> None:
        """Send the first round of the next cell that has none, or all trials ahead whose seed cannot matter.

        Raises:
            StopIteration: there is no such cell.
        """
        while self._next < self._plan.trials:
            ahead = self.done[self._next : self._next + LOOK_AHEAD]
            if ahead.all():
                self._next += len(ahead)
                continue
            number = self._next + int(ahead.argmin())
            first, seeds = self._plan.cell(number)
            self._next = first + seeds
            if first in self._cells:
                continue
            if seeds > 1:
                self._cells[first] = cell = _Cell()
                self._send(first, cell, self._until.least)
                return
            firsts, counts = self._plan.cells_of(
                numpy.arange(number, min(number + self.batch_trials(), self._plan.trials))
            )
            alone = (counts == 1) & ~self.done[firsts]
            self._next = number + (len(alone) if alone.all() else int(alone.argmin()))
            self._ready.append(range(number, self._next))
            return
        raise StopIteration

    def _resume(self, run: Run, retry_failures: bool) -> None:
        """Take up the cells of a run where they are."""
        failed = numpy.zeros(0, numpy.int64) if retry_failures else run.numbers("failures")
        records = run.columns("records", [NUMBER, self._until.measure])
        numbers = numpy.concatenate([failed, records[NUMBER].to_numpy()])
        values = [*([None] * len(failed)), *records[self._until.measure].to_pylist()]
        self.done[numbers] = True
        firsts, counts = self._plan.cells_of(numbers)
        stored: dict[int, dict[int, float | None]] = {}
        for first, seeds, number, value in zip(
            firsts.tolist(), counts.tolist(), numbers.tolist(), values, strict=True
        ):
            if seeds > 1:
                stored.setdefault(first, {})[number - first] = value
        for first, by_seed in sorted(stored.items()):
            cell = _Cell(waiting=by_seed)
            while len(cell.values) in cell.waiting:
                cell.values.append(cell.waiting.pop(len(cell.values)))
            cell.sent = len(cell.values)
            _, seeds = self._plan.cell(first)
            if self._until.enough(cell.values):
                self._settle(first, seeds, len(cell.values))
                continue
            self._cells[first] = cell
            least = max(self._until.least, 1 + max(by_seed, default=-1)) - cell.sent
            more = self._until.next_seeds(cell.values) if least <= 0 else least
            self._send(first, cell, more)


def _column(rows: "pyarrow.Table", name: str) -> list[Any]:
    return rows[name].to_pylist()


def trials_of(plan: Plan, run: Run) -> int:
    """Trials that a run comes to, at most as far as is known now."""
    return Rounds(plan, run).most_trials if plan.sweep.until else plan.trials
