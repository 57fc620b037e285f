"""What a Ray job runs: start the run of a sweep in the store, or resume the one that is there.

A run is known by content. Where the store holds a run of the same sweep, inputs and model, that one goes on;
so a job that is submitted again, or that Kubernetes starts again, does only what is missing.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from farm.errors import ExecutorError, StoreError
from farm.execution import driver
from farm.execution.batch import versions
from farm.jobs.bundle import BundledPlan, Head, content_digest, tail
from farm.plan import Plan
from farm.store import runs as store
from farm.store.place import Root
from farm.store.runs import Run
from farm.store.writer import new_name

ACCEPTED = "farm: accepted "
"""starts the line of the log that says, as JSON, which run it is; see :class:`Accepted`"""

_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class Accepted(NamedTuple):
    """What the driver says before it runs a trial."""

    run: str
    sweep: str
    store: str
    stored: int
    """trials that the store held already"""
    trials: int
    versions: Mapping[str, str]
    """Python and packages of the cluster"""

    def line(self) -> str:
        """For the log."""
        return ACCEPTED + json.dumps(self._asdict(), sort_keys=True)

    @classmethod
    def in_log(cls, log: str) -> "Accepted | None":
        """What a log says; None if the driver has not come to it."""
        for line in log.splitlines():
            if line.startswith(ACCEPTED):
                return cls(**json.loads(line.removeprefix(ACCEPTED)))
        return None


def check_model(head: Head) -> None:
    """Refuse a bundle that was made by another version of the model.

    Raises:
        ExecutorError: it was; the message names the versions on both sides.
    """
    import workers

    if head.model_digest != workers.model_digest():
        raise ExecutorError(
            f"the cluster's model {workers.model_digest()[:12]} is not the submitting machine's "
            f"{head.model_digest[:12]}: there {version_words(json.loads(versions()))}, "
            f"here {version_words(json.loads(head.versions))}; install the same wheel on both"
        )


def version_words(found: Mapping[str, str]) -> str:
    """The versions that decide whether two sides fit, in words."""
    names = {"page-pool-farm": "page-pool-farm", "ray": "Ray", "python": "Python"}
    return ", ".join(f"{word} {found.get(name, 'unknown')}" for name, word in names.items())


def store_root(given: str | None) -> Root:
    """The store as this node reaches it: the one named, else ``$FARM_STORE``.

    Raises:
        StoreError: neither is there, or it is relative: a job's working directory is temporary.
    """
    text = given or os.environ.get("FARM_STORE", "")
    if not text:
        raise StoreError("no store: set FARM_STORE on the nodes of the cluster, or submit with --store ROOT")
    return checked_root(text)


def checked_root(text: str) -> str:
    """A root that means the same on every node.

    Raises:
        StoreError: it is relative.
    """
    if "://" not in text and not text.startswith("/"):
        raise StoreError(f"store {text!r}: a relative path; name it as every node reaches it, such as /runs")
    return text


def start_or_resume(plan: Plan, root: Root, executor: str, name: str = "") -> Accepted:
    """Find the run of a plan in the store, or make it.

    Args:
        name: for a new run; by default the time and the digest of its content.

    Raises:
        StoreError: the store cannot be read or written.
        SweepError, workers.errors.TrialError: an input is missing or malformed.
    """
    run = same_content(plan, root)
    if run is None:
        run = driver.start(plan, root, executor, name or _name(plan)).run
    stored = sum(run.counts())
    return Accepted(run.name, run.sweep_name, str(root), stored, plan.trials, json.loads(versions()))


def same_content(plan: Plan, root: Root) -> Run | None:
    """The latest run of the store with this sweep, these inputs and this model.

    Raises:
        StoreError: the store cannot be read. Damaged runs are passed over.
    """
    import workers

    wanted = {
        "inputs": {name: found.sha256 for name, found in plan.inputs().items()},
        "model_digest": workers.model_digest(),
    }
    latest = None
    for run in sorted(store.runs(root), key=lambda run: run.name):
        if run.sweep_name != plan.sweep.name:
            continue
        try:
            manifest = run.manifests()[0]
            if all(manifest.get(key) == value for key, value in wanted.items()) and run.sweep == plan.sweep:
                latest = run
        except StoreError:
            continue
    return latest


def _name(plan: Plan) -> str:
    import workers

    inputs = {name: found.sha256 for name, found in plan.inputs().items()}
    return new_name(tail(content_digest(plan.sweep.to_toml(), inputs, workers.model_digest())))


def head_address() -> str:
    """Where the head of the cluster is that runs this job.

    Raises:
        ExecutorError: this is not a job.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        raise ExecutorError("RAY_ADDRESS: not set, so this is no Ray job; use farm run, or farm submit")
    return address


def become_job() -> None:
    """Behave as the driver of a job: the signal that stops it interrupts, even where the head was started
    with that signal ignored, as shells do in the background; and the job's environment is the driver's alone.

    Else every worker of the job would download the bundle; and raylets that share a machine, as in tests,
    unpack it over one another, which pulls the directory from under the driver.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    text = os.environ.get(_JOB_CONFIG)
    if text:
        config: dict[str, Any] = json.loads(text)
        config["runtime_env"] = {}
        os.environ[_JOB_CONFIG] = json.dumps(config)


def become_run(accepted: Accepted, address: str) -> NoReturn:
    """Replace this process by ``farm run --resume``: from here a submitted run is like any other."""
    run = f"{accepted.sweep}/{accepted.run}"
    arguments = ["run", "--resume", run, "--store", accepted.store, "--address", address]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "farm.cli", *arguments])


def bundled_plan(directory: Path) -> BundledPlan:
    """The plan of a bundle that fits this cluster's model.

    Raises:
        SweepError: no bundle, or a damaged one.
        ExecutorError: it was made by another version of the model.
    """
    plan = BundledPlan(directory)
    check_model(plan.head)
    return plan
