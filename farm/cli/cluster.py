"""Verbs for a Ray cluster that is elsewhere: submit, status, logs, cancel, fetch; and what runs there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.options import Json, Overrides, Store, SweepName
from farm.errors import SweepError

if TYPE_CHECKING:
    from farm.jobs.runs import Status, Submission
    from farm.jobs.server import JobServer

Address = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="FARM_ADDRESS",
        help="Head of the cluster, its dashboard and job server: http://HOST:8265.",
        show_envvar=True,
    ),
]
TokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Holds the cluster's token; default $RAY_AUTH_TOKEN.")
]
SubmittedRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Name of a submitted run, its unique start, a sweep for its latest run, or 'last'.",
    ),
]
ClusterStore = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="ROOT",
        help="Store as every node reaches it: a shared directory or a URL; default the nodes' $FARM_STORE.",
    ),
]


def submit(
    sweep: SweepName,
    address: Address,
    overrides: Overrides = None,
    store: ClusterStore = None,
    python: Annotated[
        str, typer.Option(metavar="PATH", help="Interpreter that has the farm on the head.")
    ] = "python",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Run a sweep on a cluster as a Ray job that needs this machine no longer; again: resume it."""
    from farm import sweep as sweeps
    from farm.jobs import runs as jobs
    from farm.jobs.bundle import Bundle
    from farm.jobs.drive import checked_root
    from farm.jobs.server import JobServer
    from farm.plan import Plan
    from farm.terminal import print_json, say

    planned = Plan(sweeps.load(sweep, overrides or []))
    if store is not None:
        checked_root(store)
    bundle = Bundle.of(planned)
    server = JobServer(address, token_file)
    found = jobs.submit(server, bundle, planned.sweep.name, store, python)
    if found.differences:
        say(found.differences)
    if as_json:
        print_json(
            {
                **found.status._asdict(),
                "outcome": found.outcome,
                "differences": found.differences,
            }
        )
        return
    print(f"run {found.status.run} {found.outcome}: {_words(found.status)}")
    print(f"follow it with: farm status {found.status.run} --address {address}")


def status(
    address: Address,
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="As for farm logs; without it, all runs of the cluster."),
    ] = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Say how far submitted runs are."""
    from farm import tables
    from farm.jobs import runs as jobs
    from farm.jobs.server import JobServer
    from farm.terminal import print_json

    server = JobServer(address, token_file)
    known = jobs.submissions(server)
    if run is not None:
        one = jobs.status(server, jobs.find(known, run))
        if as_json:
            print_json(one._asdict())
        else:
            show = [("run", one.run), ("sweep", one.sweep), ("state", _words(one)), ("store", one.store)]
            show += [("job", one.job)]
            tables.console().print(tables.rows(["", ""], show, text_columns=2))
        return
    latest = {submission.run: submission for submission in known}
    found = [jobs.status(server, submission) for submission in latest.values()]
    if as_json:
        print_json([one._asdict() for one in found])
    elif found:
        body = [(one.run, one.sweep, _words(one)) for one in found]
        tables.console().print(tables.rows(("run", "sweep", "state"), body, text_columns=3))
    else:
        print("no runs")


def logs(
    run: SubmittedRun,
    address: Address,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run ends.")] = False,
    token_file: TokenFile = None,
) -> None:
    """Print what the driver of a submitted run printed."""
    server, found = _found(address, token_file, run)
    if not follow:
        print(server.log(found.job.id), end="")
        return
    for piece in server.follow(found.job.id):
        print(piece, end="", flush=True)


def cancel(run: SubmittedRun, address: Address, token_file: TokenFile = None, as_json: Json = False) -> None:
    """Stop a submitted run; what it has is stored, and submitting it again goes on."""
    from farm.jobs import runs as jobs
    from farm.terminal import print_json

    server, found = _found(address, token_file, run)
    ended = found.job.ended
    now = jobs.status(server, jobs.cancel(server, found))
    if as_json:
        print_json(now._asdict())
    elif ended:
        print(f"run {now.run} had ended: {_words(now)}")
    else:
        print(f"run {now.run} {_words(now)}; submit it again to go on")


def fetch(
    run: SubmittedRun,
    address: Address,
    store: Store = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Copy a submitted run into the store here, through the cluster; again: add what has come since."""
    from farm.errors import ExecutorError
    from farm.jobs import fetch as fetching
    from farm.jobs import runs as jobs
    from farm.store.place import LocalPlace
    from farm.store.runs import Run, default_root
    from farm.terminal import print_json

    root = fetching.local_root(store or default_root())
    server, found = _found(address, token_file, run)
    now = jobs.status(server, found)
    if not now.store:
        raise ExecutorError(f"run {now.run}: {now.state}, and nothing stored yet; farm logs tells more")
    command = ["pack", f"{now.sweep}/{now.run}", "--store", now.store]
    log = jobs.printed_by(server, found, command, fetching.PRINT_SECONDS)
    new = fetching.written(fetching.unprinted(log), root, now.sweep, now.run)
    here = Run(LocalPlace(root / now.sweep / now.run))
    stored = sum(here.counts())
    if as_json:
        print_json({"run": str(here.path), "new_files": new, "stored": stored, "trials": now.trials})
    else:
        print(f"{stored} of {now.trials} trials of run {now.run} are in {here.path}; {new} files were new")


def drive(
    sweep: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="A TOML file, or a bundled sweep.")
    ] = None,
    overrides: Overrides = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What farm submit sent, in place of SWEEP.")
    ] = None,
    store: ClusterStore = None,
) -> None:
    """What a Ray job runs: start a sweep on the job's cluster, or resume its run of the same content."""
    from farm import sweep as sweeps
    from farm.jobs import drive as driving
    from farm.plan import Plan

    address = driving.head_address()
    driving.become_job()
    root = driving.store_root(store)
    plan: Plan
    if bundle is not None:
        sent = driving.bundled_plan(bundle)
        plan, name = sent, sent.head.run
    elif sweep is not None:
        plan, name = Plan(sweeps.load(sweep, overrides or [])), ""
    else:
        raise SweepError("SWEEP: name a TOML file, a bundled sweep, or --bundle DIR")
    accepted = driving.start_or_resume(plan, root, "ray", name)
    print(accepted.line(), flush=True)
    driving.become_run(accepted, address)


def pack(run: Annotated[str, typer.Argument(metavar="SWEEP/RUN")], store: ClusterStore = None) -> None:
    """Print the files of a run as text, for farm fetch."""
    from farm.jobs import drive as driving
    from farm.jobs.fetch import printed
    from farm.store.runs import find

    for line in printed(find(driving.store_root(store), run)):
        print(line)


def _found(address: str, token_file: Path | None, run: str) -> "tuple[JobServer, Submission]":
    from farm.jobs import runs as jobs
    from farm.jobs.server import JobServer

    server = JobServer(address, token_file)
    return server, jobs.find(jobs.submissions(server), run)


def _words(status: "Status") -> str:
    """State and progress in one line."""
    words = status.state
    if status.done is not None:
        words += f", {status.done} of {status.trials} trials"
    if status.state == "failed":
        words += f" ({status.said})"
    return words
