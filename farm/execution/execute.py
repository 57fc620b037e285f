"""Run what a plan holds and a run does not yet: batches out, results in, parts to the store.

An executor is transport: it takes ranges of trial numbers, has them run somewhere by
:func:`farm.execution.batch.run_batch`, and yields results as they come. The driver keeps a bitmap of the
trials, asks for a batch only when the executor has room for one, and hands results to the store at once.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy

from farm.execution.batch import Job, run_batch
from farm.execution.batches import Batches, missing
from farm.execution.progress import Progress
from farm.execution.rounds import Rounds
from farm.execution.watchdog import DEADLINE_SECONDS
from farm.plan import Plan
from farm.store.results import Results, together
from farm.store.runs import Run
from farm.store.writer import Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Executor(Protocol):
    """Where trials run."""

    name: str

    @property
    def slots(self) -> int:
        """How many trials run at the same time."""

    def run(self, job: Job, batches: Batches) -> Iterator[Results]:
        """Run batches of trial numbers; yield results in any order.

        A batch is taken only when there is room for it. Where there is none, there may be one after the next
        results; without a trial under way they have ended.

        Raises:
            ExecutorError: the trials cannot be run there at all, or no longer.
        """


class SerialExecutor:
    """Runs trials one after the other in this process."""

    name = "serial"
    slots = 1

    def run(self, job: Job, batches: Batches) -> Iterator[Results]:
        """Run batches of trial numbers, in order; yields each trial as it ends."""
        for numbers in batches:
            for outcome in run_batch(job, numbers, self.name):
                yield Results.of([outcome])


def execute(
    plan: Plan,
    run: Run,
    writer: Writer,
    executor: Executor,
    done: "NDArray[numpy.bool_]",
    progress: Progress,
    report: Callable[[Progress], None],
    rounds: Rounds | None = None,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> None:
    """Run the trials that are not done and store what they yield.

    On any exception, Ctrl-C included, what has come back is stored first.

    Arguments:
        done: by trial number, see :class:`farm.execution.driver.Started`.
        report: called as results come.
        rounds: of a sweep that says when a cell has enough seeds.
        deadline_seconds: a trial that takes longer is a failure.

    Raises:
        ExecutorError: the executor gave up.
        StoreError: the run cannot be written.
    """
    job = job_of(run, deadline_seconds)
    numbers: Iterator[range] = missing(done, lambda: progress.batch_trials)
    if rounds is not None:
        rounds.batch_trials = lambda: progress.batch_trials
        numbers = rounds
    try:
        for results in executor.run(job, Batches(numbers, progress)):
            progress.add(results)
            if rounds is None:
                writer.add(results)
            else:
                writer.add_rows(rounds.take(together([results])))
                progress.trials, progress.done = rounds.most_trials, rounds.done_trials
            report(progress)
    finally:
        writer.flush()


def job_of(run: Run, deadline_seconds: float = DEADLINE_SECONDS) -> Job:
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
        deadline_seconds=deadline_seconds,
    )
