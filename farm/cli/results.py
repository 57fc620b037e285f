"""Verbs that read results: list, show, report; and what there is to set and to measure."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli.options import EXIT_FAILED_TRIALS, Json, RunName, Store
from farm.errors import FarmError, SweepError
from workers.errors import TrialError

if TYPE_CHECKING:
    from farm.query import Cell
    from farm.store.runs import Run


def list_(store: Store = None, as_json: Json = False) -> None:
    """List the runs of the store, oldest first."""
    from farm import tables
    from farm.execution import rounds
    from farm.plan import Plan
    from farm.store.runs import default_root, runs
    from farm.terminal import print_json

    found: list[dict[str, Any]] = []
    for one in sorted(runs(store or default_root()), key=lambda one: one.name):
        row: dict[str, Any] = {"run": one.name, "sweep": one.sweep_name, "problem": ""}
        try:
            manifests, (records, failures) = one.manifests(), one.counts()
            row |= {
                "trials": rounds.trials_of(Plan(one.sweep), one),
                "records": records,
                "failures": failures,
            }
            row |= {"executor": manifests[-1].get("executor", "")}
        except (FarmError, TrialError) as error:
            row["problem"] = str(error)
        found.append(row)
    if as_json:
        print_json(found)
        return
    heads = ("run", "sweep", "executor", "trials", "records", "failures")
    body = [[str(row.get(head, "damaged")) for head in heads] for row in found]
    tables.console().print(tables.rows(heads, body, text_columns=3) if body else "no runs")


def show(
    run: RunName,
    cpus: Annotated[
        bool, typer.Option("--cpus", help="Show on which CPU the time of a packet is spent, and on what.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw gains and curves too; with --json the points of the curves.")
    ] = False,
    store: Store = None,
    as_json: Json = False,
) -> int:
    """Show what a run found."""
    from farm import query
    from farm.store.runs import default_root, find

    found = find(store or default_root(), run)
    if cpus and plot:
        raise SweepError("--plot: draws the result, not --cpus; leave one out")
    if cpus:
        return _print_cpus(found, as_json)
    return print_result(found, query.cells(found), as_json, plot)


def report(
    run: RunName,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Page to write; one there is replaced.")
    ] = Path("report.html"),
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Write what a run found as one HTML page that opens offline; --json prints what it shows instead."""
    from farm.report import data, page
    from farm.store.runs import default_root, find
    from farm.terminal import print_json

    found = find(store or default_root(), run)
    document = data.report(found)
    if as_json:
        print_json(document)
        return
    page.write(output, page.render(document))
    print(f"{document['answer'][0]}\nWritten to {output}")


def fields(
    measures: Annotated[bool, typer.Option("--measures", help="List measures instead of fields.")] = False,
    as_json: Json = False,
) -> None:
    """List every field of a trial: type, default, meaning."""
    from farm import tables
    from farm.terminal import print_json
    from workers import config
    from workers.measures import MEASURES

    if measures:
        found = [measure._asdict() for measure in MEASURES]
        heads = ["measure", "unit", "better", "meaning"]
        body = [[m.name, m.unit, m.better, m.description] for m in MEASURES]
    else:
        known = config.fields()
        found = [
            {"name": f.name, "kind": f.kind, "default": f.default, "description": f.description}
            for f in known
        ]
        heads = ["field", "values", "default", "meaning"]
        body = [[f.name, f.kind, tables.word(f.default), f.description] for f in known]
    if as_json:
        print_json(found)
    else:
        tables.console().print(tables.rows(heads, body, text_columns=4))


def print_result(run: "Run", cells: "list[Cell]", as_json: bool, plot: bool = False) -> int:
    """Print what a run found; the exit code says whether some trials failed."""
    from farm import plots, profiles, query, tables
    from farm.terminal import print_json, say

    failures, duplicates = run.failures(), run.duplicates()
    estimates = profiles.estimates(dict.fromkeys(str(cell.fields["arch"]) for cell in cells))
    if as_json:
        print_json(
            {
                "run": str(run.place),
                "sweep": run.sweep_name,
                "cells": [
                    {
                        "fields": dict(cell.fields),
                        "seeds": cell.seeds,
                        "median": dict(cell.measures),
                        "low": dict(cell.low),
                        "high": dict(cell.high),
                    }
                    for cell in cells
                ],
                "gains": [
                    {"fields": _common(gain.on), "gain_ratio": gain.gain} for gain in query.gains(cells)
                ],
                "estimates": estimates,
                "failures": failures,
                "duplicates": duplicates._asdict() if duplicates else None,
                **({"curves": [curve._asdict() for curve in plots.curves(cells)]} if plot else {}),
            }
        )
    else:
        console = tables.console()
        console.print(tables.result(cells))
        if plot:
            print(plots.drawn(cells, console.width, coloured=console.is_terminal))
        if estimates:
            console.print(f"\n{tables.estimates(estimates)}")
        if duplicates:
            print(f"\n{tables.duplicates(duplicates)}")
        # not through the console, which would break a long path
        print(f"\nStored in {run.place}")
    if failures:
        first = failures[0]
        say(f"{len(failures)} trials failed; the first: {first['kind']}: {first['message']}")
        return EXIT_FAILED_TRIALS
    return 0


def _print_cpus(run: "Run", as_json: bool) -> int:
    from farm import query, tables
    from farm.terminal import print_json

    cells, times = query.cells(run), query.times_by_cpu(run)
    if as_json:
        pairs = zip(cells, times, strict=True)
        print_json([{"fields": dict(cell.fields), "ns_per_packet": by_cpu} for cell, by_cpu in pairs])
    else:
        tables.console().print(tables.cpus(cells, times))
    return 0


def _common(cell: "Cell") -> dict[str, Any]:
    return {name: cell.fields[name] for name in cell.axes if name != "pool.recycle"}
