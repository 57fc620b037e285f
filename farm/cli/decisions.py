"""Verbs that turn results into an answer: compare, gate, advise."""

from pathlib import Path
from typing import Annotated

import typer

from farm.cli.options import EXIT_CHECK_SAID_NO, Json, Overrides, RunName, Store, SweepName
from farm.errors import IncomparableError, SweepError

MOST_BROKEN = 20
"""differences that a gate prints; all are in its JSON"""

Across = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHAT",
        help="What two runs may differ in: model, inputs (profiles, captures), or a field; again for more.",
    ),
]
Measures = Annotated[
    list[str] | None, typer.Option("--measure", help="Measure to show; may be given again. Default: a few.")
]


def compare(
    run: RunName,
    other: Annotated[
        str | None, typer.Argument(metavar="[OTHER]", help="A second run; without one give --axis.")
    ] = None,
    axis: Annotated[
        str | None, typer.Option(help="The field whose values are compared, such as pool.recycle.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Value to compare with; default false, else the first.")
    ] = None,
    across: Across = None,
    measure: Measures = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of text.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Compare two runs, or the sides of one axis: same cells, same seeds, exact differences."""
    from farm import tables
    from farm.answers import compare as comparing
    from farm.answers import comparison_tables
    from farm.store.runs import default_root, find
    from farm.terminal import print_json
    from workers.config import field
    from workers.measures import by_name

    measures = measure or list(comparison_tables.SHOWN)
    for name in measures:
        if name not in by_name():
            raise SweepError(f"--measure {name}: no such measure; farm fields --measures lists them")
    if (other is None) == (axis is None):
        raise SweepError("compare: name a second run, or --axis FIELD for the sides of one run")
    compared = measure or (list(by_name()) if as_json else measures)
    root = store or default_root()
    found = find(root, run)
    if axis is not None:
        value = None if base is None else field(axis).parse(base)
        comparisons = comparing.compare_axis(found, axis, value, compared)
    else:
        comparisons = [comparing.compare_runs(found, find(root, other or ""), across or (), compared)]
    if as_json:
        print_json(comparison_tables.as_json(comparisons))
    elif markdown:
        print(comparison_tables.as_markdown(comparisons, measures))
    else:
        tables.console().print(comparison_tables.as_text(comparisons, measures))


def gate(
    run: RunName,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The run that has to be as good.")],
    rule: Annotated[
        Path | None,
        typer.Option("--rule", metavar="FILE", help="Rules; default: nothing may differ but better."),
    ] = None,
    across: Across = None,
    store: Store = None,
    as_json: Json = False,
) -> int:
    """Say whether a run is as good as an earlier one: exit code 0 yes, 1 no, 4 nothing to compare."""
    from farm.answers import comparison_tables
    from farm.answers import gate as gating
    from farm.answers.compare import compare_runs
    from farm.store.runs import default_root, find
    from farm.terminal import print_json

    rules = gating.load(rule) if rule is not None else gating.STRICT
    root = store or default_root()
    base, tried = find(root, run), find(root, other)
    for one in (base, tried):
        if failures := one.failures():
            raise IncomparableError(
                f"run {one.name}: {len(failures)} of its trials failed; mend and resume it"
            )
    found = compare_runs(base, tried, across or ())
    broken = gating.broken(found, rules)
    if as_json:
        print_json(
            {
                "passed": not broken,
                "cells": len(found.pairs),
                "broken": comparison_tables.broken_as_json(broken),
            }
        )
        return EXIT_CHECK_SAID_NO if broken else 0
    for line in comparison_tables.broken_lines(broken, MOST_BROKEN):
        print(line)
    print(f"{'FAILED' if broken else 'passed'}: {len(broken)} differences in {len(found.pairs)} cells")
    return EXIT_CHECK_SAID_NO if broken else 0


def advise(
    sweep: SweepName,
    overrides: Overrides = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="MEASURE<=NUMBER",
            help="A limit to keep, in the measure's unit; again for more.",
        ),
    ] = None,
    queues: Annotated[int, typer.Option(min=1, help="Queues of the host, for the price of a step.")] = 64,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw memory against new pages.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Find the smallest pool that meets targets, for each cell of a sweep, and what each step costs."""
    from farm import svg, tables
    from farm import sweep as sweeps
    from farm.answers import advise_output
    from farm.answers.advise import advise as find
    from farm.answers.advise import best, target_of
    from farm.terminal import print_json

    if plot is not None:
        svg.check(plot)
    targets = [target_of(text) for text in target or ()]
    found = find(sweeps.load(sweep, overrides or []), targets)
    chosen = best(found)
    if plot is not None:
        advise_output.plot(found, plot)
    if as_json:
        print_json(advise_output.as_json(found, chosen))
    else:
        console = tables.console()
        for advice in found:
            console.print(advise_output.shown(advice, queues))
            console.print()
        if chosen is not None and len(found) > 1:
            console.print(advise_output.cheapest(chosen))
    return 0 if chosen is not None else EXIT_CHECK_SAID_NO
