"""Run what a plan holds and a run does not yet: batches out, results in, parts to the store.

An executor is transport: it takes ranges of trial numbers, has them run somewhere by
:func:`farm.batch.run_batch`, and yields results as they come. The driver keeps a bitmap of the trials, asks
for a batch only when the executor has room for one, and writes results at least every second.
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy

from farm.batch import Job, run_batch
from farm.batches import Batches, missing
from farm.plan import Plan
from farm.progress import MOST_WAITING, Progress
from farm.results import Results, together
from farm.store import Run, Writer
from farm.watchdog import DEADLINE_SECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

WRITE_SECONDS = 1.0
"""results wait no longer than this for their part"""


class Executor(Protocol):
    """Where trials run."""

    name: str

    @property
    def slots(self) -> int:
        """How many trials run at the same time."""

    def run(self, job: Job, batches: Batches) -> Iterator[Results]:
        """Run batches of trial numbers; yield results in any order.

        A batch is taken only when there is room for it.

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
    deadline_seconds: float = DEADLINE_SECONDS,
) -> None:
    """Run the trials that are not done and store what they yield.

    On any exception, Ctrl-C included, what has come back is stored first.

    Arguments:
        done: by trial number, see :func:`done_trials`.
        report: called as results come.
        deadline_seconds: a trial that takes longer is a failure.

    Raises:
        ExecutorError: the executor gave up.
        StoreError: the run cannot be written.
    """
    job = job_of(run, deadline_seconds)
    batches = Batches(missing(done, lambda: progress.batch_trials), progress)
    waiting: list[Results] = []
    trials = 0
    written = time.monotonic()
    try:
        for results in executor.run(job, batches):
            waiting.append(results)
            trials += results.trials
            progress.add(results)
            report(progress)
            if time.monotonic() - written > WRITE_SECONDS or trials >= MOST_WAITING:
                writer.write_rows(together(waiting))
                waiting = []
                trials = 0
                written = time.monotonic()
    finally:
        if waiting:
            writer.write_rows(together(waiting))


def job_of(run: Run, deadline_seconds: float = DEADLINE_SECONDS) -> Job:
    """What the batches of a run have in common.

    Raises:
        StoreError: the run is damaged.
    """
    import workers

    return Job(
        sweep_toml=run.sweep.to_toml(),
        inputs_directory=str(run.inputs_directory.resolve()),
        inputs=run.manifests()[0].get("inputs", {}),
        model_digest=workers.model_digest(),
        deadline_seconds=deadline_seconds,
    )


def done_trials(plan: Plan, run: Run, retry_failures: bool = False) -> "NDArray[numpy.bool_]":
    """Which trials of a plan need not run again, by number."""
    import workers

    done = numpy.zeros(plan.trials, dtype=bool)
    ids = run.done(retry_failures)
    if ids:
        job = job_of(run)
        for number in range(plan.trials):
            done[number] = workers.trial_id(job.stored_config(number)) in ids
    return done
