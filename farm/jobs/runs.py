"""Runs as Ray jobs that outlive the machine that submitted them: submit, find, follow, cancel, fetch.

Everything that a run needs travels once, as the package of its job (:mod:`farm.jobs.bundle`): the submitting
machine need not reach the store, and is not asked again. A job's id is ``farm-SWEEP-RUN-N``, the Nth job of a
run, and its metadata say the rest, so the cluster itself tells which runs it has; nothing is kept here.

A run is known by a digest of its content, whose start its name ends with. Submitting the same content again
finds it, here among the jobs and on the cluster in the store, and does what is missing.
"""

import difflib
import json
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from farm.errors import ExecutorError
from farm.jobs.bundle import Bundle, tail
from farm.jobs.drive import Accepted, version_words
from farm.jobs.server import Job, JobServer
from farm.store.writer import new_name

ACCEPT_SECONDS = 60.0
"""how long a submission waits for the driver to say that it has the run"""

STOP_SECONDS = 40.0
"""how long a cancellation waits; :data:`farm.jobs.server.STOP` says when Ray kills a driver"""

POLL_SECONDS = 0.5

PYTHON = "python"
"""the interpreter on the head; the image of deploy/ has the farm's first on its PATH"""

_FAILED_TRIALS = 3
"""exit code of farm run"""

_PROGRESS = re.compile(r"^farm: (?:.*\bwith )?(\d+) of (\d+) trials\b.*", flags=re.MULTILINE)
"""what farm run says of its progress, and how far it was when it was interrupted"""


class Submission(NamedTuple):
    """A job that drives a run."""

    job: Job
    run: str
    sweep: str
    digest: str
    number: int
    """of the jobs of this run, from 1"""

    @property
    def state(self) -> str:
        """In words: pending, running, done, done with failures, cancelled or failed."""
        if self.job.status == "FAILED":
            return "done with failures" if self.job.exit_code == _FAILED_TRIALS else "failed"
        known = {"PENDING": "pending", "RUNNING": "running", "SUCCEEDED": "done", "STOPPED": "cancelled"}
        return known[self.job.status]


class Status(NamedTuple):
    """How far a run is."""

    run: str
    sweep: str
    state: str
    done: int | None
    """trials stored, as its driver last said; None before it says anything"""
    trials: int | None
    said: str
    """the last line about its progress, or why it failed"""
    store: str
    """as the nodes reach it"""
    job: str
    jobs: int
    """how often it was submitted"""


class Submitted(NamedTuple):
    """What came of a submission."""

    status: Status
    outcome: str
    """started; resumed, since the store held some of its trials; complete, since it held all; already
    running, so that nothing was started; or not yet started, since the cluster is slow"""
    differences: str
    """versions that differ between the two sides, in words; empty if none do"""


def submissions(server: JobServer) -> list[Submission]:
    """The jobs of the cluster that drive runs, oldest first."""
    found = []
    for job in server.jobs():
        about = job.metadata
        if about.get("farm_kind") == "run":
            number = int(job.id.rpartition("-")[2])
            found.append(
                Submission(job, about["farm_run"], about["farm_sweep"], about["farm_digest"], number)
            )
    return found


def find(known: Sequence[Submission], name: str) -> Submission:
    """The latest job of a run, by the run's name or its unique start, its digest, the name of a sweep for
    its latest run, or ``last``.

    Raises:
        ExecutorError: no such run, or more than one.
    """
    exact = [one for one in known if name in (one.run, f"{one.sweep}/{one.run}", one.job.id, one.digest)]
    # the cluster may have found the run under an earlier time
    exact = exact or [one for one in known if name.endswith(f"Z-{tail(one.digest)}")]
    found = (
        exact
        or [one for one in known if name in ("last", one.sweep)][-1:]
        or [one for one in known if one.run.startswith(name)]
    )
    runs = list(dict.fromkeys(one.run for one in found))
    if len(runs) > 1:
        raise ExecutorError(
            f"run {name!r}: matches {len(runs)} runs ({', '.join(runs[:4])}); write more of it"
        )
    if not runs:
        names = list(dict.fromkeys(text for one in known for text in (one.run, one.sweep)))
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "farm status lists what it has"
        raise ExecutorError(
            f"run {name!r}: not among the cluster's jobs; "
            + (hint if known else "it has none of the farm; was it started anew?")
        )
    return max(found, key=lambda one: one.number)


def submit(
    server: JobServer,
    bundle: Bundle,
    sweep: str,
    store: str | None,
    python: str = PYTHON,
    seconds: float = ACCEPT_SECONDS,
) -> Submitted:
    """Start a job for the run of this content, or resume it; wait until its driver has taken it.

    Args:
        store: as the nodes reach it; their ``$FARM_STORE`` by default.
        python: interpreter that has the farm on the head.
        seconds: how long to wait for the driver. A cluster that is slower goes on by itself.

    Raises:
        ExecutorError: the cluster refuses, or its driver does; the message has its reason.
    """
    digest = bundle.head.digest
    same = [one for one in submissions(server) if one.digest == digest]
    active = [one for one in same if not one.job.ended]
    if active:
        return Submitted(status(server, active[-1]), "already running", differences="")
    run = same[-1].run if same else new_name(tail(digest))
    number = 1 + max((one.number for one in same), default=0)
    job_id = f"farm-{sweep}-{run}-{number}"
    # safe path (-P): the bundle's directory is the working directory, and is nothing to import from
    command = [python, "-P", "-m", "farm.cli", "drive", "--bundle", ".", *_store_option(store)]
    metadata = {
        "farm_kind": "run",
        "farm_run": run,
        "farm_sweep": sweep,
        "farm_digest": digest,
        "farm_python": python,
    }
    with tempfile.TemporaryDirectory(prefix="farm-bundle-") as directory:
        bundle.for_run(run).write(Path(directory))
        server.submit(job_id, shlex.join(command), metadata, Path(directory))
    accepted = _accepted(server, job_id, seconds)
    started = find(submissions(server), job_id)
    theirs = {"ray": server.ray_version, **(accepted.versions if accepted else {})}
    return Submitted(
        status(server, started),
        _outcome(accepted),
        differences=differences(json.loads(bundle.head.versions), theirs),
    )


def status(server: JobServer, submission: Submission) -> Status:
    """How far a run is, as its latest driver says."""
    log = server.log(submission.job.id)
    accepted = Accepted.in_log(log)
    done = accepted.stored if accepted else None
    trials = accepted.trials if accepted else None
    lines = list(_PROGRESS.finditer(log))
    said = ""
    if lines:
        done, trials = int(lines[-1][1]), int(lines[-1][2])
        said = lines[-1][0].removeprefix("farm: ")
    if submission.state in ("done", "done with failures"):
        done, said = trials, ""
    elif submission.state == "failed":
        said = _reason(submission.job, log)
    return Status(
        run=accepted.run if accepted else submission.run,
        sweep=submission.sweep,
        state=submission.state,
        done=done,
        trials=trials,
        said=said,
        store=accepted.store if accepted else "",
        job=submission.job.id,
        jobs=submission.number,
    )


def cancel(server: JobServer, submission: Submission) -> Submission:
    """Stop the job of a run and wait for its end; what came back is stored.

    Raises:
        ExecutorError: it does not end.
    """
    if submission.job.ended:
        return submission
    server.stop(submission.job.id)
    job = _wait(server, submission.job.id, STOP_SECONDS, lambda job: job.ended)
    if not job.ended:
        raise ExecutorError(f"job {job.id}: does not end; look at the head, or cancel again")
    return submission._replace(job=job)


def printed_by(server: JobServer, submission: Submission, command: Sequence[str], seconds: float) -> str:
    """What a command of the farm prints on the head, run as a job of its own that is forgotten after.

    Raises:
        ExecutorError: it fails, or takes longer.
    """
    about = submission.job.metadata
    job_id = f"farm-fetch-{new_name()}"
    python = about.get("farm_python", PYTHON)
    server.submit(job_id, shlex.join([python, "-P", "-m", "farm.cli", *command]), {"farm_kind": "fetch"})
    job = _wait(server, job_id, seconds, lambda job: job.ended)
    if not job.ended:
        server.stop(job_id)
        raise ExecutorError(f"job {job_id}: not done after {seconds:.0f} s; is the cluster busy?")
    log = server.log(job_id)
    if job.status != "SUCCEEDED":
        raise ExecutorError(f"job {job_id}: {_reason(job, log)}")
    server.forget(job_id)
    return log


def _outcome(accepted: Accepted | None) -> str:
    if accepted is None:
        return "not yet started"
    if not accepted.stored:
        return "started"
    return "complete" if accepted.stored == accepted.trials else "resumed"


def _store_option(store: str | None) -> list[str]:
    return ["--store", store] if store else []


def _accepted(server: JobServer, job_id: str, seconds: float) -> Accepted | None:
    """What the driver says when it has taken the run; None if it has not come to it in time."""
    found: Accepted | None = None

    def heard(job: Job) -> bool:
        nonlocal found
        if job.status != "PENDING":
            found = Accepted.in_log(server.log(job_id))
        return found is not None or job.ended

    job = _wait(server, job_id, seconds, heard)
    if found is None and job.ended:
        raise ExecutorError(f"job {job_id}: {_reason(job, server.log(job_id))}")
    return found


def _wait(server: JobServer, job_id: str, seconds: float, enough: Callable[[Job], bool]) -> Job:
    until = time.monotonic() + seconds
    while True:
        job = server.job(job_id)
        if enough(job) or time.monotonic() > until:
            return job
        time.sleep(POLL_SECONDS)


def _reason(job: Job, log: str) -> str:
    """Why a job failed: the farm's own last word, else the last line, else what Ray says."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Running entrypoint for job")]
    own = [line for line in lines if line.startswith("farm: ") and not _PROGRESS.match(line)]
    own = [line for line in own if not Accepted.in_log(line)]
    if own:
        return own[-1].removeprefix("farm: ")
    if lines:
        return f"{lines[-1][:200]} (exit code {job.exit_code}); farm logs has all, --python names another one"
    return " ".join(job.message.split())[:200] or f"failed with exit code {job.exit_code}"


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Versions that differ between this side and the cluster, in words; empty if none of importance do.

    Only what a model consists of must not differ, and the driver refuses that: nothing else than data
    travels between the two sides.
    """
    names = ("page-pool-farm", "ray", "python")
    if all(ours.get(name) == theirs.get(name) or name not in theirs for name in names):
        return ""
    return f"the cluster has {version_words(theirs)}; here {version_words(ours)}"
