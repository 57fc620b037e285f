"""Verbs about what the model predicts, and why."""

from pathlib import Path
from typing import Annotated

import typer

from farm.cli.options import Json, Store


def validate(
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="More files of cases.")
    ] = None,
    cases: Annotated[
        list[Path] | None,
        typer.Option("--cases", metavar="FILE...", help="Files of cases in place of those that ship."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw predicted against published values.")
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity", help="Vary every uncertain constant over its range: which conclusions change?"
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Predict published measurements: what comes out, in which band, and the score.

    A score is no gate: the exit code is 0 whatever it is.
    """
    from farm.tables import console
    from farm.terminal import print_json
    from farm.validation import cases as case_files
    from farm.validation import tables
    from farm.validation import validate as validation

    known = case_files.load([*(cases or []), *(more or [])])
    if plot is not None:
        from farm.svg import check

        check(plot)
    records = validation.run(validation.trials(known))
    found = validation.predictions(known.cases, records)
    if plot is not None:
        from farm.validation.plot import write

        write(found, plot)
    effects = None
    if sensitivity:
        from farm.validation.sensitivity import effects_of

        effects = effects_of(known)
    if as_json:
        print_json(tables.as_json(known, found, records, effects))
    else:
        console().print(tables.result(known, found, records))
        if effects is not None:
            console().print(tables.sensitivity(effects))


def explain(
    place: Annotated[
        str, typer.Argument(metavar="SWEEP|RUN", help="A TOML file, a bundled sweep, or a stored run.")
    ],
    cell_a: Annotated[
        str,
        typer.Argument(metavar="CELL_A", help="Fields of one cell: 'pool.recycle=true', several by space."),
    ],
    cell_b: Annotated[str, typer.Argument(metavar="CELL_B", help="Fields of the other cell.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Fields that both have; every axis needs a value."),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Say why two cells differ: busy time per packet by mechanism, each switched off in turn."""
    from farm.answers import explain as explaining
    from farm.tables import console
    from farm.terminal import print_json

    pair = explaining.cells(place, cell_a, cell_b, fields or [], store)
    found = explaining.explain(pair)
    if as_json:
        print_json(found.as_json())
    else:
        console().print(explaining.table(found))
