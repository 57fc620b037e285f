"""Starting and resuming a run: everything is checked before anything is written."""

import hashlib
import os
import platform
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy

from farm.errors import StoreError, SweepError
from farm.execution.batch import versions
from farm.execution.execute import job_of
from farm.execution.rounds import Rounds
from farm.plan import Plan
from farm.store import writer as writing
from farm.store.place import Root
from farm.store.rows import NUMBER
from farm.store.runs import FORMAT, Run
from farm.store.writer import Writer
from farm.sweep import Sweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers import Input

CHECKED_TRIALS = 64
"""stored trials whose id is computed again when a run is resumed: whether numbers still mean the same"""


class Started(NamedTuple):
    """A run that is ready for :func:`farm.execution.execute.execute`."""

    run: Run
    writer: Writer
    done: "NDArray[numpy.bool_]"
    """by trial number: need not run again"""
    trials: int
    """of the whole run, at most"""
    stored: int
    """of these, done before"""
    rounds: Rounds | None
    """of a sweep that says when a cell has enough seeds"""


def start(plan: Plan, root: Root, executor: str, name: str | None = None) -> Started:
    """Make a run for a plan, with a name of its own by default.

    Raises:
        StoreError: the store cannot be written.
        workers.errors.TrialError: an input of some trial is missing or malformed.
    """
    inputs = plan.inputs()
    contents = {found.sha256: _content(found) for found in inputs.values()}
    digests = {path: found.sha256 for path, found in inputs.items()}
    run, writer = writing.create_run(root, plan.sweep, contents, _manifest(plan, digests, executor), name)
    rounds = Rounds(plan, None) if plan.sweep.until else None
    return Started(run, writer, numpy.zeros(plan.trials, dtype=bool), plan.trials, 0, rounds)


def resume(
    run: Run, given: Sweep | None, executor: str, retry_failures: bool = False
) -> tuple[Plan, Started]:
    """Take a run up again where it stopped.

    Arguments:
        given: the sweep that the user named beside the run, which must be the run's own.
        retry_failures: run trials that failed again; those that raised will do so again on the same model.

    Raises:
        SweepError: the sweep named is another one.
        StoreError: the run is damaged, or the model has changed since it started.
    """
    import workers

    if given is not None and given != run.sweep:
        raise SweepError(f"run {run.name}: its sweep is not the one named; to resume, leave out SWEEP")
    first = run.manifests()[0]
    if run.format < FORMAT:
        raise StoreError(
            f"run {run.name}: recorded by an older version (format {run.format}), which can be read and not "
            "resumed; start a new run"
        )
    plan = Plan(run.sweep)
    if first.get("model_digest") != workers.model_digest():
        raise StoreError(f"run {run.name}: made by another version of the model; start a new run")
    done = _done_trials(plan, run, retry_failures)
    trials, stored = plan.trials, int(done.sum())
    rounds = Rounds(plan, run, retry_failures=retry_failures) if plan.sweep.until else None
    if rounds is not None:
        done, trials, stored = rounds.done, rounds.most_trials, rounds.stored
    writer = writing.reopen_run(run, _manifest(plan, first.get("inputs", {}), executor))
    return plan, Started(run, writer, done, trials, stored, rounds)


def _done_trials(plan: Plan, run: Run, retry_failures: bool) -> "NDArray[numpy.bool_]":
    """Which trials need not run again, by number.

    Raises:
        StoreError: the run is damaged, or the numbers in it are not those of the plan.
    """
    import workers

    done = numpy.zeros(plan.trials, dtype=bool)
    job = job_of(run)
    stored = run.done(retry_failures)
    numbers = stored[NUMBER].to_numpy()
    known = bool(((numbers >= 0) & (numbers < plan.trials)).all())
    for row in range(0, len(numbers), max(1, len(numbers) // CHECKED_TRIALS)) if known else ():
        config = job.stored_config(int(numbers[row]))
        known = known and workers.trial_id(config) == stored["trial_id"][row].as_py()
    if not known:
        raise StoreError(
            f"run {run.name}: numbers its trials in another way than this version; "
            "resume it with the version that started it, or start a new run"
        )
    done[run.recorded() if retry_failures else numbers] = True
    return done


def _content(found: "Input") -> bytes:
    """What a run keeps of an input: a capture as it is, a profile with its parents resolved, which is
    the form that its digest is of."""
    from workers.profiles import arch

    content = found.path.read_bytes()
    if hashlib.sha256(content).hexdigest() == found.sha256:
        return content
    return arch.load(found.name).canonical.encode()


def _manifest(plan: Plan, inputs: Mapping[str, str], executor: str) -> dict[str, object]:
    import workers

    return {
        "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "executor": executor,
        "versions": versions(),
        "model_digest": workers.model_digest(),
        "cells": plan.cells,
        "trials": plan.trials,
        "inputs": dict(inputs),
    }
