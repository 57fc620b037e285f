"""How the store scales: planning ten million cells, taking a run of a million records up again, asking it.

The records are made up, the run is written by the real writer in parts as large as those of a long run.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from farm.execution.driver import CHECKED_TRIALS
from farm.plan import Plan
from farm.store.rows import NUMBER, Attempt, Kind, schema, text_fields
from farm.store.runs import Run
from farm.store.writer import Writer
from farm.sweep import Sweep, parse
from workers.measures import LISTS, by_name

if TYPE_CHECKING:
    import pyarrow

PLANNED_CELLS = 10_000_000

RECORDS = 1_000_000

COMPARED_RECORDS = 100_000
"""of each of two runs"""

IN_PART = 2_500
"""records: a million come in 400 parts, as of a driver that writes for three hours, see farm.store.writer"""

LIST_LENGTH = 40
"""numbers in each list of a record, such as a histogram's"""


class StoreBench(NamedTuple):
    """Seconds, with a run of so many records."""

    records: int
    parts: int
    bytes: int
    """of the run's files"""
    write_seconds: float
    """of the writer; making the records up is not in it"""
    plan_seconds: float
    """a plan of PLANNED_CELLS cells"""
    resume_seconds: float
    """until the first missing trial can be sent out"""
    query_seconds: float
    """medians of one measure by the values of one axis"""
    compared_records: int
    """of each of two runs"""
    compare_seconds: float
    """all measures of them, cell by cell"""


def bench_store(records: int = RECORDS, root: Path | None = None) -> StoreBench:
    """Write a run of so many records, and measure. Takes minutes and some gigabytes of disk.

    Arguments:
        root: where the run stays; by default it is removed again.
    """
    if root is None:
        with tempfile.TemporaryDirectory(prefix="farm-bench-") as directory:
            return bench_store(records, Path(directory) / "runs")
    # imported when it is first used
    import duckdb  # noqa: F401

    from farm.answers.compare import compare_runs

    plan_seconds = _seconds(lambda: Plan(_planned()).trials)
    run, write_seconds = _written(records, root)
    resume_seconds = _seconds(lambda: _first_missing(run.name, root))
    query = 'SELECT "pool.size", median(busy_ns_per_packet) FROM records GROUP BY ALL'
    # of a process that has not looked at the run yet
    run = Run(run.place)
    query_seconds = _seconds(lambda: run.query("records", query))
    compared = min(records, COMPARED_RECORDS)
    (base, _), (other, _) = (_written(compared, root / side) for side in ("base", "other"))
    compare_seconds = _seconds(lambda: compare_runs(base, other))
    return StoreBench(
        records=records,
        parts=len(run.part_names("records")),
        bytes=sum(file.size for file in run.place.walk()),
        write_seconds=write_seconds,
        plan_seconds=plan_seconds,
        resume_seconds=resume_seconds,
        query_seconds=query_seconds,
        compared_records=compared,
        compare_seconds=compare_seconds,
    )


def _written(records: int, root: Path) -> tuple[Run, float]:
    """A run with so many records, and the seconds in its writer."""
    from farm.execution import driver

    plan = Plan(_sweep(records))
    started = driver.start(plan, root, "serial")
    seconds = _write(plan, started.writer, records)
    return Run(started.run.place), seconds


def table(found: StoreBench) -> list[tuple[str, str, str]]:
    """Rows for the terminal: figure, value, what it is of."""
    run = f"{found.records:,} records in {found.parts} parts, {found.bytes / 1e9:.2f} GB"
    return [
        ("plan", f"{found.plan_seconds:.2f} s", f"{PLANNED_CELLS:,} cells"),
        ("write", f"{found.write_seconds:.0f} s", run),
        ("resume to the first trial", f"{found.resume_seconds:.2f} s", run),
        ("query of one measure", f"{found.query_seconds:.2f} s", run),
        ("compare two runs", f"{found.compare_seconds:.2f} s", f"{found.compared_records:,} records each"),
    ]


def _planned() -> Sweep:
    sizes, waits = list(range(1, 1001)), list(range(1, 1001))
    return parse(
        f"""
        name = "bench-plan"
        [grid]
        pool.size = {sizes}
        nic.rx_usecs = {waits}
        nic.budget = {list(range(8, 88, 8))}
        """,
        "bench",
    )


def _sweep(records: int) -> Sweep:
    """A sweep of somewhat more trials than so many."""
    waits = list(range(1, records // 1000 + 2))
    return parse(
        f"""
        name = "bench-store"
        seeds = 10
        [fixed]
        traffic.kind = "poisson"
        [grid]
        pool.size = [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768]
        nic.rx_usecs = {waits}
        nic.budget = {list(range(8, 88, 8))}
        """,
        "bench",
    )


def _write(plan: Plan, writer: Writer, records: int) -> float:
    """Write records for the first trials of a plan; seconds in the writer."""
    made_up = _MadeUp(plan, records)
    seconds = 0.0
    for start in range(0, records, IN_PART):
        rows = made_up.rows(range(start, min(records, start + IN_PART)))
        seconds += _seconds(partial(writer.write_rows, rows))
    return seconds


class _MadeUp:
    """Rows of trials with measures at random: as long as real ones, and no easier to compress."""

    def __init__(self, plan: Plan, records: int) -> None:
        self._plan = plan
        self._random = numpy.random.default_rng(1)
        self._apart = max(1, records // CHECKED_TRIALS)

    def rows(self, numbers: range) -> "dict[Kind, pyarrow.Table]":
        """Records and attempts of these trials."""
        import pyarrow

        cells = [self._plan.fields(number) for number in numbers]
        own: dict[str, Any] = {
            "trial_id": [self._id(number) for number in numbers],
            NUMBER: numpy.arange(numbers.start, numbers.stop),
            **{name: self._random.random(len(numbers)) * 1000 for name in by_name()},
            **{name: self._list(len(numbers)) for name in LISTS},
        }
        attempt = Attempt("host", "bench", "", 0.1, 0.0, 0.1, 10_000, "made up", "{}", 0)
        found: dict[Kind, pyarrow.Table] = {}
        kinds: tuple[Kind, ...] = ("records", "attempts")
        for kind in kinds:
            columns: list[Any] = []
            for column in schema(kind):
                values = own.get(column.name)
                if values is None and kind == "attempts":
                    values = [getattr(attempt, column.name)] * len(numbers)
                elif values is None:
                    values = [cell[column.name] for cell in cells]
                    values = list(map(str, values)) if column.name in text_fields() else values
                is_list = isinstance(values, pyarrow.Array)
                columns.append(values if is_list else pyarrow.array(values, type=column.type))
            found[kind] = pyarrow.Table.from_arrays(columns, schema=schema(kind))
        return found

    def _id(self, number: int) -> str:
        """The trial's own id where a resumed run computes it again, which takes a third of a millisecond;
        else something as long."""
        return f"{number:032x}" if number % self._apart else self._plan.trial_id(number)

    def _list(self, rows: int) -> Any:
        import pyarrow

        ends: Any = pyarrow.array(numpy.arange(rows + 1, dtype=numpy.int32) * LIST_LENGTH)
        values = pyarrow.array(self._random.integers(0, 4096, rows * LIST_LENGTH))
        return pyarrow.ListArray.from_arrays(ends, values)


def _first_missing(name: str, root: Path) -> int:
    """The first trial that a resumed run sends out."""
    from farm.execution import driver
    from farm.execution.batches import missing
    from farm.store import runs as store

    _, started = driver.resume(store.find(root, name), None, "serial")
    return next(missing(started.done, lambda: 1)).start


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
