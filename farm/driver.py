"""Starting and resuming a run: everything is checked before anything is written."""

import hashlib
import os
import platform
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy

from farm import store
from farm.batch import versions
from farm.errors import StoreError, SweepError
from farm.execute import done_trials
from farm.plan import Plan
from farm.store import Run, Writer
from farm.sweep import Sweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers import Input


class Started(NamedTuple):
    """A run that is ready for :func:`farm.execute.execute`."""

    run: Run
    writer: Writer
    done: "NDArray[numpy.bool_]"
    """by trial number: need not run again"""


def start(plan: Plan, root: Path, executor: str) -> Started:
    """Make a run for a plan.

    Raises:
        StoreError: the store cannot be written.
        workers.errors.TrialError: an input of some trial is missing or malformed.
    """
    inputs = plan.inputs()
    contents = {found.sha256: _content(found) for found in inputs.values()}
    digests = {name: found.sha256 for name, found in inputs.items()}
    run, writer = store.create_run(root, plan.sweep, contents, _manifest(plan, digests, executor))
    return Started(run, writer, done_trials(plan, run))


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
    plan = Plan(run.sweep)
    first = run.manifests()[0]
    if first.get("model_digest") != workers.model_digest():
        raise StoreError(f"run {run.name}: made by another version of the model; start a new run")
    done = done_trials(plan, run, retry_failures)
    writer = store.reopen_run(run, _manifest(plan, first.get("inputs", {}), executor))
    return plan, Started(run, writer, done)


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
