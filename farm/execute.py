"""Run what a plan holds and a run does not yet: batches out, outcomes in, parts to the store.

An executor is transport: it takes ranges of trial numbers, has them run somewhere by
:func:`run_batch`, and yields outcomes as they come. The driver keeps a bitmap of the trials, asks
for a batch only when the executor has room for one, and writes outcomes at least every second.
"""

import json
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy

from farm import sweep as sweeps
from farm.errors import ExecutorError
from farm.plan import Plan
from farm.rows import Attempt, Failure, Outcome
from farm.store import Run, Writer
from workers.config import TrialConfig
from workers.fields.derived import Loop, loop_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_SECONDS = 2.0
"""work in one batch: long against a millisecond of transport, short against patience after Ctrl-C"""

WRITE_SECONDS = 1.0
"""outcomes wait no longer than this for their part"""

MOST_WAITING = 10_000
"""outcomes wait for their part in no larger number than this, which bounds memory"""


@dataclass(frozen=True)
class Job:
    """What every batch of a run has in common."""

    sweep_toml: str
    """the resolved sweep, from which each worker makes the plan again"""
    inputs_directory: str
    """where the run keeps profiles and captures by content"""
    inputs: Mapping[str, str]
    """SHA-256 by the name that the sweep uses"""
    model_digest: str
    """what the driver computed; a worker with another model refuses"""

    def config(self, number: int) -> TrialConfig:
        """A trial as the sweep has it."""
        return _plan(self.sweep_toml).config(number)

    def stored_config(self, number: int) -> TrialConfig:
        """The same trial, reading its inputs from the run: they need not exist where it runs, and
        may have changed since it started."""
        import workers

        return workers.locate(self.config(number), Path(self.inputs_directory), self.inputs)


class Executor(Protocol):
    """Where trials run."""

    name: str

    @property
    def slots(self) -> int:
        """How many trials run at the same time."""

    def run(self, job: Job, batches: Iterator[range]) -> Iterator[Outcome]:
        """Run batches of trial numbers; yield outcomes in any order.

        A batch is taken from the iterator only when there is room for it.

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


class Progress:
    """How far a run is. Counts trials stored before as done, but not in its rates.

    Arguments:
        trials: of the whole plan.
        stored: of these, done before.
        slots: trials that run at the same time.
        clock: seconds, monotonic.
    """

    def __init__(
        self, trials: int, stored: int, slots: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.trials = trials
        self.done = stored
        self.failed = 0
        self.packets = 0
        self.compile_seconds = 0.0
        """the longest time that a worker took to load or compile the event loop"""
        self._slots = slots
        self._clock = clock
        self._started: float | None = None
        self._trial_seconds: float | None = None

    def add(self, outcome: Outcome) -> None:
        """Count a trial that has just come back."""
        seconds = outcome.attempt.wall_seconds
        if self._started is None or self._trial_seconds is None:
            self._started = self._clock() - seconds
            self._trial_seconds = seconds
        # a moving average over about twenty trials follows a grid from its cheap to its costly cells
        self._trial_seconds += (seconds - self._trial_seconds) / 20
        self.done += 1
        self.failed += isinstance(outcome.result, Failure)
        self.packets += outcome.attempt.packets
        self.compile_seconds = max(self.compile_seconds, outcome.attempt.compile_seconds)

    @property
    def packets_per_second(self) -> float:
        """Packets simulated per second of real time, over all slots."""
        elapsed = 0.0 if self._started is None else self._clock() - self._started
        return self.packets / elapsed if elapsed else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Expected until the last trial is done; None before the first one."""
        if self._trial_seconds is None:
            return None
        return (self.trials - self.done) * self._trial_seconds / self._slots

    @property
    def batch_trials(self) -> int:
        """How many trials make a batch of about :data:`BATCH_SECONDS`; fewer near the end, so that
        the slots finish together; one while nothing is known."""
        if self._trial_seconds is None:
            return 1
        enough = int(BATCH_SECONDS / self._trial_seconds) if self._trial_seconds else MOST_WAITING
        share = (self.trials - self.done) // (2 * self._slots)
        return max(1, min(enough, share, MOST_WAITING))


def execute(
    plan: Plan,
    run: Run,
    writer: Writer,
    executor: Executor,
    done: "NDArray[numpy.bool_]",
    progress: Progress,
    report: Callable[[Progress], None],
) -> None:
    """Run the trials that are not done and store what they yield.

    On any exception, Ctrl-C included, what has come back is stored first.

    Arguments:
        done: by trial number, see :func:`done_trials`.
        report: called after each outcome.

    Raises:
        ExecutorError: the executor gave up.
        StoreError: the run cannot be written.
    """
    job = job_of(run)
    waiting: list[Outcome] = []
    written = time.monotonic()
    try:
        for outcome in executor.run(job, missing(done, lambda: progress.batch_trials)):
            waiting.append(outcome)
            progress.add(outcome)
            report(progress)
            if time.monotonic() - written > WRITE_SECONDS or len(waiting) >= MOST_WAITING:
                writer.write(waiting)
                waiting = []
                written = time.monotonic()
    finally:
        if waiting:
            writer.write(waiting)


def job_of(run: Run) -> Job:
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
    )


def done_trials(plan: Plan, run: Run) -> "NDArray[numpy.bool_]":
    """Which trials of a plan need not run again, by number."""
    import workers

    done = numpy.zeros(plan.trials, dtype=bool)
    ids = run.done()
    if ids:
        job = job_of(run)
        for number in range(plan.trials):
            done[number] = workers.trial_id(job.stored_config(number)) in ids
    return done


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


def run_batch(job: Job, numbers: range, executor: str, retries: int = 0) -> Iterator[Outcome]:
    """Run these trials in this process. A trial that breaks yields a failure.

    Raises:
        ExecutorError: this process has another model than the driver.
    """
    import workers

    if workers.model_digest() != job.model_digest:
        raise ExecutorError(
            f"node {socket.gethostname()}: its model {workers.model_digest()[:12]} is not the driver's "
            f"{job.model_digest[:12]}; install the same version on every node"
        )
    for number in numbers:
        yield _run_trial(job, number, executor, retries)


def worker_died(job: Job, number: int, executor: str, retries: int) -> Outcome:
    """The failure of a trial whose worker process died each time."""
    import workers

    attempt = Attempt(
        host="",
        executor=executor,
        started_at=_now(),
        wall_seconds=0.0,
        compile_seconds=0.0,
        cpu_seconds=0.0,
        packets=0,
        model_digest=job.model_digest,
        versions=versions(),
        retries=retries,
    )
    failure = Failure("WorkerDied", f"the worker process died {retries + 1} times while this trial ran")
    trial_id = workers.trial_id(job.stored_config(number))
    return Outcome(trial_id, job.config(number).to_fields(), failure, attempt)


@cache
def versions() -> str:
    """Versions of Python and of the packages that a result can depend on, as JSON."""
    names = ("page-pool-farm", "numba", "llvmlite", "numpy", "ray", "pyarrow")
    found = {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
    return json.dumps(found, sort_keys=True)


def _run_trial(job: Job, number: int, executor: str, retries: int) -> Outcome:
    import workers

    config = job.stored_config(number)
    trial_id = workers.trial_id(config)
    compile_seconds = 0.0
    started_at = _now()
    wall, cpu = time.perf_counter(), time.process_time()
    result: dict[str, int | float | None] | Failure
    try:
        compile_seconds = _prepare(loop_of(config))
        # from here the trial alone
        started_at = _now()
        wall, cpu = time.perf_counter(), time.process_time()
        result = workers.run_trial(config)
    except Exception as error:  # noqa: BLE001 - one broken trial must not end a night's sweep
        result = Failure(type(error).__name__, " ".join(str(error).split()))
    attempt = Attempt(
        host=socket.gethostname(),
        executor=executor,
        started_at=started_at,
        wall_seconds=time.perf_counter() - wall,
        compile_seconds=compile_seconds,
        cpu_seconds=time.process_time() - cpu,
        packets=0 if isinstance(result, Failure) else int(result["packets_offered"] or 0),
        model_digest=job.model_digest,
        versions=versions(),
        retries=retries,
    )
    return Outcome(trial_id, job.config(number).to_fields(), result, attempt)


@lru_cache(maxsize=2)
def _plan(sweep_toml: str) -> Plan:
    return Plan(sweeps.parse(sweep_toml, "the driver's sweep"))


_prepared: set[Loop] = set()
"""event loops that this process has"""


def _prepare(loop: Loop) -> float:
    """Seconds to get an event loop ready; 0 if this process has it already."""
    if loop in _prepared:
        return 0.0
    import workers

    started = time.perf_counter()
    workers.prepare(*loop)
    _prepared.add(loop)
    return time.perf_counter() - started


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
