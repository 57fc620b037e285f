"""A batch of trials, run where its worker is: what it needs to know, and what each trial yields."""

import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path

from farm import sweep as sweeps
from farm.errors import ExecutorError, StoreError
from farm.execution import code_cache
from farm.execution.watchdog import DEADLINE_SECONDS, Watchdog
from farm.plan import Plan
from farm.store.rows import Attempt, Failure, Outcome
from workers.config import TrialConfig
from workers.errors import StoppedError
from workers.fields.derived import loop_of

FETCH_PATIENCE_SECONDS = 30.0
"""who cannot reach a remote store tries for this long"""


@dataclass(frozen=True)
class Job:
    """What every batch of a run has in common."""

    sweep_toml: str
    """the resolved sweep, from which each worker makes the plan again"""
    inputs_directory: str
    """where the run keeps profiles and captures by content: a path or a URI"""
    inputs: Mapping[str, str]
    """SHA-256 by the name that the sweep uses"""
    model_digest: str
    """what the driver computed; a worker with another model refuses"""
    deadline_seconds: float = DEADLINE_SECONDS
    """a trial that takes longer is a failure"""

    def config(self, number: int) -> TrialConfig:
        """A trial as the sweep has it."""
        return _plan(self.sweep_toml).config(number)

    def stored_config(self, number: int) -> TrialConfig:
        """The same trial, reading its inputs from the run: they need not exist where it runs, and
        may have changed since it started."""
        return self.stored(self.config(number))

    def stored(self, config: TrialConfig) -> TrialConfig:
        """As :meth:`stored_config`, of a trial as the sweep has it."""
        import workers

        if not self.inputs:
            return config
        directory = inputs_here(self.inputs_directory, tuple(self.inputs.values()))
        return workers.locate(config, directory, self.inputs)


def run_batch(
    job: Job,
    numbers: range,
    executor: str,
    retries: int = 0,
    give_up: Callable[[Job, int], None] | None = None,
) -> Iterator[Outcome]:
    """Run these trials in this process. A trial that breaks or takes too long yields a failure.

    Arguments:
        give_up: called in another thread for a trial that cannot be stopped; ends the process. Default: one
            that says so.

    Raises:
        ExecutorError: this process has another model than the driver.
    """
    import workers

    if workers.model_digest() != job.model_digest:
        raise ExecutorError(
            f"node {socket.gethostname()}: its model {workers.model_digest()[:12]} is not the driver's "
            f"{job.model_digest[:12]}; install the same version on every node"
        )
    with Watchdog(job.deadline_seconds, lambda number: (give_up or _end_process)(job, number)) as watchdog:
        for number in numbers:
            yield _run_trial(job, number, executor, retries, watchdog)


def lost(job: Job, number: int, executor: str, retries: int, failure: Failure) -> Outcome:
    """The failure of a trial that took its process along."""
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
    trial_id = workers.trial_id(job.stored_config(number))
    return Outcome(number, trial_id, job.config(number).to_fields(), failure, attempt)


def too_long(job: Job, ended: str = "") -> Failure:
    """The failure of a trial beyond its deadline."""
    return Failure(
        "DeadlineExceeded",
        f"took longer than {job.deadline_seconds:g} s{ended}; raise --deadline or lower duration_ms",
    )


@cache
def versions() -> str:
    """Versions of Python and of the packages that a result can depend on, as JSON."""
    names = ("page-pool-farm", "numba", "llvmlite", "numpy", "ray", "pyarrow")
    found = {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
    return json.dumps(found, sort_keys=True)


def _run_trial(job: Job, number: int, executor: str, retries: int, watchdog: Watchdog) -> Outcome:
    import workers

    asked = job.config(number)
    config = job.stored(asked)
    trial_id = workers.trial_id(config)
    compile_seconds = 0.0
    started_at = _now()
    wall, cpu = time.perf_counter(), time.process_time()
    result: dict[str, int | float | None] | Failure
    try:
        compile_seconds = code_cache.prepare(loop_of(config))
        # from here the trial alone
        started_at = _now()
        wall, cpu = time.perf_counter(), time.process_time()
        with watchdog.watching(number) as stopper:
            result = workers.run_trial(config, stopper, alone=_plan(job.sweep_toml).sweep.seeds == 1)
    except StoppedError:
        result = too_long(job)
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
    return Outcome(number, trial_id, asked.to_fields(), result, attempt)


@lru_cache(maxsize=2)
def _plan(sweep_toml: str) -> Plan:
    return Plan(sweeps.parse(sweep_toml, "the driver's sweep"))


@lru_cache(maxsize=2)
def inputs_here(directory: str, sha256: tuple[str, ...]) -> Path:
    """A directory of this machine that holds the inputs of a run by content.

    Raises:
        StoreError: they cannot be fetched.
    """
    from farm.store.mirror import local_copies
    from farm.store.place import place_of, reason, remedy

    try:
        return local_copies(place_of(directory), sha256, FETCH_PATIENCE_SECONDS)
    except OSError as error:
        raise StoreError(
            f"inputs {directory!r} cannot be fetched ({reason(error)}); "
            + remedy(error, f"let {socket.gethostname()} reach the store")
        ) from None


def _end_process(job: Job, number: int) -> None:
    from farm.terminal import say

    message = too_long(job, " and cannot be stopped").message
    say(f"trial {number} {message}; or use --executor ray, which goes on")
    os._exit(2)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
