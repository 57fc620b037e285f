"""Verbs about the host that this runs on, or another one's counters."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import kept
from farm.cli.kept import Keep
from farm.cli.options import Json, Store
from farm.errors import CountersError

if TYPE_CHECKING:
    from farm.answers.doctor.counters import Snapshot
    from farm.answers.doctor.regimes import Regime


def doctor(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="ethtool -S of one interface, or netlink dumps page-pool-stats-get and page-pool-get as "
            "JSON.",
        ),
    ] = None,
    then: Annotated[
        list[Path] | None,
        typer.Option("--then", metavar="FILE", help="The same of a later moment; once for each file."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0.001, help="Between the two moments; with --live how long to wait."),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Read this host's pools over netlink, twice.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="Write a sweep that reproduces what was found.")
    ] = None,
    arch: Annotated[str, typer.Option("--arch", help="Profile of that sweep.")] = "broadwell-ep",
    keep: Keep = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Say from a real host's page_pool counters what its pools do, and why."""
    from farm.answers import keeping
    from farm.answers.doctor import counters, report
    from farm.terminal import print_json

    before: Snapshot | None
    if live == bool(files):
        raise CountersError("FILE: name files of counters, or --live for those of this host, not both")
    if live:
        if then:
            raise CountersError("--then: --live reads both moments itself; leave it out")
        before, after, seconds = _live(seconds or 10.0)
    else:
        before, after = None, counters.read(files or [])
        if then:
            before, after = after, counters.read(then)
    found = report.examine(before, after, seconds)
    if output is not None:
        _write_sweep(output, found.together.regime, arch)
    if keep:
        kept.keep(keeping.of_diagnosis(found, _source(files)), store)
    if as_json:
        print_json(report.as_json(found))
        return
    for line in report.lines(found):
        print(line)
    if output is not None:
        print(f"\nWritten to {output}; farm run {output} runs it.")


def _source(files: list[Path] | None) -> str:
    """Whose counters they are: the files by name, or this host."""
    import socket

    return ", ".join(path.name for path in files) if files else socket.gethostname()


def _live(seconds: float) -> "tuple[Snapshot, Snapshot, float]":
    import time

    from farm.answers.doctor import netlink
    from farm.terminal import say

    before = netlink.snapshot()
    started = time.monotonic()
    if before.states:
        say(f"{len(before.states)} pools; looking again in {seconds:g} s")
        time.sleep(seconds)
    return before, netlink.snapshot(), max(time.monotonic() - started, 0.001)


def _write_sweep(path: Path, regime: "Regime", arch: str) -> None:
    from farm import sweep
    from farm.answers.doctor.reproduce import sweep_of
    from farm.errors import OutputError
    from farm.plan import Plan

    text = sweep_of(regime, arch)
    if not text:
        raise CountersError(
            f"-o {path}: there is nothing to reproduce in the regime {regime!r}; leave it out"
        )
    Plan(sweep.parse(text, str(path)))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OutputError(f"-o {path}: exists; name another file") from None
    except OSError as error:
        raise OutputError(f"-o {path}: {error.strerror}; name another file") from None
