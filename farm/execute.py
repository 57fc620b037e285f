"""Run what a plan holds and a run does not yet: batches out, outcomes in, parts to the store.

An executor is transport: it takes ranges of trial numbers, has them run somewhere by
:func:`run_batch`, and yields outcomes as they come. The driver keeps a bitmap of the trials, asks
for a batch only when the executor has room for one, and hands each outcome to the store at once.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy

from farm.plan import Plan
from farm.rounds import Rounds
from farm.rows import KINDS, Outcome, table
from farm.store import Run
from farm.writer import Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

from farm.batch import Job, run_batch
from farm.progress import MOST_WAITING, Progress


class Executor(Protocol):
    """Where trials run."""

    name: str

    @property
    def slots(self) -> int:
        """How many trials run at the same time."""

    def run(self, job: Job, batches: Iterator[range]) -> Iterator[Outcome]:
        """Run batches of trial numbers; yield outcomes in any order.

        A batch is taken from the iterator only when there is room for it. An iterator that has none may have
        one after the next outcome; without a trial under way it has ended.

        Raises:
            ExecutorError: the trials cannot be run there at all.
        """


class SerialExecutor:
    """Runs trials one after the other in this process."""

    name = "serial"
    slots = 1

    def run(self, job: Job, batches: Iterator[range]) -> Iterator[Outcome]:
        """Run batches of trial numbers, in order."""
        for numbers in batches:
            yield from run_batch(job, numbers, self.name)


def execute(
    plan: Plan,
    run: Run,
    writer: Writer,
    executor: Executor,
    done: "NDArray[numpy.bool_]",
    progress: Progress,
    report: Callable[[Progress], None],
    rounds: Rounds | None = None,
) -> None:
    """Run the trials that are not done and store what they yield.

    On any exception, Ctrl-C included, what has come back is stored first.

    Arguments:
        done: by trial number, see :class:`farm.driver.Started`.
        report: called after each outcome.
        rounds: of a sweep that says when a cell has enough seeds.

    Raises:
        ExecutorError: the executor gave up.
        StoreError: the run cannot be written.
    """
    job = job_of(run)
    batches: Iterator[range] = missing(done, lambda: progress.batch_trials)
    if rounds is not None:
        rounds.batch_trials = lambda: progress.batch_trials
        batches = rounds
    try:
        for outcome in executor.run(job, batches):
            progress.add(outcome)
            if rounds is None:
                writer.add(outcome)
            else:
                writer.add_rows(rounds.take({kind: table(kind, [outcome]) for kind in KINDS}))
                progress.trials, progress.done = rounds.most_trials, rounds.done_trials
            report(progress)
    finally:
        writer.flush()


def job_of(run: Run) -> Job:
    """What the batches of a run have in common.

    Raises:
        StoreError: the run is damaged.
    """
    import workers

    return Job(
        sweep_toml=run.sweep.to_toml(),
        inputs_directory=run.inputs_root,
        inputs=run.manifests()[0].get("inputs", {}),
        model_digest=workers.model_digest(),
    )


def missing(done: "NDArray[numpy.bool_]", batch_trials: Callable[[], int]) -> Iterator[range]:
    """The trials that are not done as ranges of at most ``batch_trials()``, in order."""
    start = 0
    while start < len(done):
        ahead = done[start : start + MOST_WAITING]
        if ahead.all():
            start += len(ahead)
            continue
        start += int(ahead.argmin())
        ahead = done[start : start + batch_trials()]
        stop = start + (int(ahead.argmax()) if ahead.any() else len(ahead))
        yield range(start, stop)
        start = stop
