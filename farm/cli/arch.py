"""Verbs about architecture profiles."""

from typing import Annotated

import typer

from farm.cli.options import Json


def list_(as_json: Json = False) -> None:
    """List the bundled architectures."""
    from farm import tables
    from farm.terminal import print_json
    from workers import arch

    found = [arch.load(name) for name in arch.names()]
    if as_json:
        print_json([{"name": p.name, "title": p.title, "description": p.description} for p in found])
        return
    tables.console().print(
        tables.rows(("arch", "machine"), [[p.name, p.title] for p in found], text_columns=2)
    )


def show(
    name: Annotated[str, typer.Argument(metavar="ARCH", help="A bundled architecture, or a .toml file.")],
    as_json: Json = False,
) -> None:
    """Show a profile: every number with its range, its certainty and its source."""
    from farm import tables
    from farm.terminal import print_json
    from workers import arch

    profile = arch.load(name)
    parameters = profile.parameters.values()
    if as_json:
        print_json(
            {
                "name": profile.name,
                "title": profile.title,
                "description": profile.description,
                "parameters": [parameter._asdict() for parameter in parameters],
            }
        )
        return
    console = tables.console()
    console.print(f"{profile.title}\n{profile.description}\n")
    body = [
        [p.name, f"{p.value:g}", f"{p.low:g}..{p.high:g}" if p.low < p.high else "", p.certainty, p.source]
        for p in parameters
    ]
    console.print(tables.rows(("parameter", "value", "range", "certainty", "source"), body, text_columns=5))
