"""Verbs about architecture profiles."""

from pathlib import Path
from typing import Annotated

import typer

from farm.cli.options import EXIT_USAGE, Address, ExecutorName, Json

ArchName = Annotated[str, typer.Argument(metavar="ARCH", help="A bundled architecture, or a .toml file.")]


def list_(as_json: Json = False) -> None:
    """List the bundled architectures, and how many numbers of each are how certain."""
    from farm import profiles, tables
    from farm.terminal import print_json
    from workers.profiles import arch
    from workers.profiles.parameters import CERTAINTIES

    found = [arch.load(name) for name in arch.names()]
    if as_json:
        print_json(
            [
                {"name": p.name, "title": p.title, "description": p.description, "counts": profiles.counts(p)}
                for p in found
            ]
        )
        return
    # what is measured on a machine does not come with the package
    shown = [certainty for certainty in CERTAINTIES if certainty != "measured"]
    counts = {p.name: profiles.counts(p) for p in found}
    body = [[p.name, p.title, *(str(counts[p.name][certainty]) for certainty in shown)] for p in found]
    heads = ("arch", "machine", *(certainty[:3] for certainty in shown))
    console = tables.console()
    console.print(tables.rows(heads, body, text_columns=2, unbroken=1))
    console.print(f"\nNumbers: {', '.join(shown)}; see farm arch show.")


def show(name: ArchName, as_json: Json = False) -> None:
    """Show a profile: every number with its range, its certainty and its source."""
    from farm import profiles, tables
    from farm.terminal import print_json
    from workers.profiles import arch

    profile = arch.load(name)
    parameters = profile.parameters.values()
    counts = profiles.counts(profile)
    if as_json:
        print_json(
            {
                "name": profile.name,
                "title": profile.title,
                "description": profile.description,
                "counts": counts,
                "parameters": [parameter._asdict() for parameter in parameters],
            }
        )
        return
    body = [
        [
            p.name,
            profiles.number(p.value),
            f"{profiles.number(p.low)}..{profiles.number(p.high)}" if p.low < p.high else "",
            f"{profiles.MARKS[p.certainty]:2} {p.certainty}",
            # how an estimate was made is in its note
            p.note if p.certainty == "estimate" and p.note else p.source,
        ]
        for p in parameters
    ]
    legend = (
        "~ another machine or author, ? to be checked, ?? no source: the range says how far off it may be"
    )
    console = tables.console()
    console.print(f"{profile.title}\n{profile.description}")
    console.print(", ".join(f"{number} {certainty}" for certainty, number in counts.items()))
    console.print(f"{legend}\n")
    console.print(
        tables.rows(("parameter", "value", "range", "certainty", "source"), body, text_columns=5, unbroken=4)
    )


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A bundled architecture, or a .toml file.")],
    second: Annotated[str, typer.Argument(metavar="B", help="What it is compared with.")],
    as_json: Json = False,
) -> None:
    """Show which numbers of two profiles differ and by how much, the largest ratio first."""
    from farm import profiles, tables
    from farm.terminal import print_json
    from workers.profiles import arch

    left, right = arch.load(first), arch.load(second)
    found = profiles.differences(left, right)
    if as_json:
        print_json(
            [{"first": d.first._asdict(), "second": d.second._asdict(), "ratio": d.ratio} for d in found]
        )
        return
    marks = profiles.MARKS
    body = [
        [
            d.first.name,
            f"{profiles.number(d.first.value)} {marks[d.first.certainty]:2}",
            f"{profiles.number(d.second.value)} {marks[d.second.certainty]:2}",
            "-" if d.ratio is None else f"{d.ratio:.3g}",
        ]
        for d in found
    ]
    heads = ("parameter", left.name, right.name, "ratio")
    tables.console().print(tables.rows(heads, body, text_columns=1) if body else "no number differs")


def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[ARCH]...", help="What to check; default all bundled.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Check that profiles are complete, well-formed and possible."""
    from farm import profiles
    from farm.terminal import print_json, say
    from workers.profiles import arch

    found = profiles.problems(names or arch.names())
    wrong = [problem for problem in found.values() if problem]
    if as_json:
        print_json([{"arch": name, "problem": problem} for name, problem in found.items()])
    for problem in wrong:
        say(problem)
    if not as_json and not wrong:
        print(f"{len(found)} profile{'s' if len(found) > 1 else ''}: complete and possible")
    return EXIT_USAGE if wrong else 0


def calibrate(
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Profile to write, by default named after the CPU; a directory with --executor ray.",
        ),
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option(
            "--parent",
            metavar="ARCH",
            help="Profile with what cannot be measured; default: the nearest bundled one.",
        ),
    ] = None,
    executor: Annotated[
        ExecutorName, typer.Option("--executor", help="serial: this machine; ray: one node of each kind.")
    ] = ExecutorName.SERIAL,
    address: Address = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    as_json: Json = False,
) -> None:
    """Measure the machine and write a profile of it; some 20 seconds."""
    from farm import calibrate as calibrating
    from farm import tables
    from farm.errors import SweepError
    from farm.terminal import print_json, reserved_stdout, say

    if executor is ExecutorName.SERIAL:
        if address is not None:
            raise SweepError(f"--address {address}: only --executor ray goes to a cluster; leave one out")
        written = [calibrating.here(output, parent, force, say)]
    else:
        from farm.ray.executor import RayExecutor

        with reserved_stdout(), RayExecutor(address) as ray:
            written = calibrating.on_nodes(output, parent, force, ray, say)
    if as_json:
        print_json([calibrating.as_json(one) for one in written])
        return
    for one in written:
        tables.console().print(
            tables.rows(calibrating.HEADINGS, calibrating.table(one), text_columns=1), calibrating.words(one)
        )
