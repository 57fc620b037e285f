"""What runs in a Ray worker."""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from farm.execution.batch import Job, run_batch
from farm.execution.progress import MOST_BATCH_SECONDS
from farm.store.results import Results
from farm.store.rows import Outcome

NAMESPACE = "page-pool-farm"
"""of what workers leave in Ray's key-value store"""


class Work(Protocol):
    """Runs a batch, one trial after the other."""

    def __call__(self, job: Job, numbers: range, executor: str, retries: int) -> Iterable[Outcome]: ...


class Done(NamedTuple):
    """A batch that came back."""

    results: Results | None
    left: range
    """trials that it did not get to within its time"""
    seconds: float
    """that the worker had it"""


def work(
    run: Work, job: Job, inputs: Mapping[str, bytes], numbers: range, executor: str, retries: int
) -> Done:
    """Run a batch for as long as a batch may take.

    Args:
        inputs: contents by SHA-256, for a node that does not see the run's directory.
    """
    started = time.monotonic()
    outcomes: list[Outcome] = []
    for outcome in run(_with_inputs(job, inputs), numbers, executor, retries):
        outcomes.append(outcome)
        if outcome.attempt.compile_seconds:
            started += outcome.attempt.compile_seconds
        if time.monotonic() - started > MOST_BATCH_SECONDS:
            break
    results = Results.of(outcomes).packed() if outcomes else None
    return Done(results, numbers[len(outcomes) :], time.monotonic() - started)


def run_here(job: Job, numbers: range, executor: str, retries: int) -> Iterable[Outcome]:
    """What runs a batch in a worker: a trial that cannot be stopped ends the worker, which leaves a note."""
    key = note_key(job, numbers, retries)
    return run_batch(job, numbers, executor, retries, lambda _job, number: end_worker(key, number))


def note_key(job: Job, numbers: range, retries: int) -> bytes:
    """Under which a worker that ends itself leaves the number of the trial. Two drivers may use one cluster,
    but not for one run."""
    run = hashlib.sha256(job.inputs_directory.encode()).hexdigest()[:16]
    return f"{run}-{numbers.start}-{numbers.stop}-{retries}".encode()


def end_worker(key: bytes, number: int) -> None:
    """End this process, for a trial that does not stop."""
    from ray.experimental.internal_kv import _internal_kv_put

    # without the note the driver finds the trial by splitting the batch
    with suppress(Exception):
        _internal_kv_put(key, str(number).encode(), namespace=NAMESPACE)
    os._exit(1)


def _with_inputs(job: Job, inputs: Mapping[str, bytes]) -> Job:
    """The job with a directory of inputs that this node sees."""
    directory = Path(job.inputs_directory)
    if all((directory / sha256).is_file() for sha256 in inputs):
        return job
    import platformdirs

    directory = Path(platformdirs.user_cache_dir("page-pool-farm")) / "inputs"
    directory.mkdir(parents=True, exist_ok=True)
    for sha256, content in inputs.items():
        if not (directory / sha256).is_file():
            # several workers of a node may write it at once
            with tempfile.NamedTemporaryFile(dir=directory, prefix=".", delete=False) as aside:
                aside.write(content)
            Path(aside.name).replace(directory / sha256)
    return replace(job, inputs_directory=str(directory))
