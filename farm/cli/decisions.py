"""Verbs that turn results into an answer: compare, gate, advise."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import kept
from farm.cli.kept import Keep
from farm.cli.options import EXIT_CHECK_SAID_NO, Json, Overrides, Store, SweepName
from farm.errors import IncomparableError, SweepError

if TYPE_CHECKING:
    from farm.answers.compare import Comparison
    from farm.store.runs import Run

MOST_BROKEN = 20
"""differences that a gate prints; all are in its JSON"""

Across = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHAT",
        help="What the sides may differ in: model, inputs (profiles, captures), a field, or a condition of "
        "measured samples such as machine; again for more.",
    ),
]
Measures = Annotated[
    list[str] | None, typer.Option("--measure", help="Measure to show; may be given again. Default: a few.")
]
OneSide = Annotated[
    str, typer.Argument(metavar="RUN", help="A run as for farm show, or a .json file of measured samples.")
]


def compare(
    run: OneSide,
    other: Annotated[
        str | None, typer.Argument(metavar="[OTHER]", help="The other side; without one give --axis.")
    ] = None,
    axis: Annotated[
        str | None, typer.Option(help="The field whose values are compared, such as pool.recycle.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Value to compare with; default false, else the first.")
    ] = None,
    across: Across = None,
    measure: Measures = None,
    least_change: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Of measured samples: smaller changes, as part of the base, do not matter [0.05]."
        ),
    ] = None,
    least_difference: Annotated[
        float | None, typer.Option(min=0.0, help="Likewise, in the measure's unit [0].")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of text.")] = False,
    keep: Keep = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Compare two runs, the sides of one axis, or two files of samples that a clock measured.

    Records are paired by cell and seed, and exact. Samples of farm bench host --json are put to a rank test
    and a bootstrap.
    """
    from farm import tables
    from farm.answers import comparison_tables
    from farm.answers.samples import is_file_of_samples
    from farm.terminal import print_json

    if (other is None) == (axis is None):
        raise SweepError("compare: name a second run, or --axis FIELD for the sides of one run")
    runs: list[Run] = []
    if is_file_of_samples(run):
        if other is None:
            raise SweepError(f"--axis {axis}: files of samples have none; name a second file")
        found = [_samples(run, other, across, measure, least_change, least_difference)]
        measures = list(found[0].units)
    else:
        for name, limit in (("change", least_change), ("difference", least_difference)):
            if limit is not None:
                raise SweepError(f"--least-{name} {limit:g}: records are exact; it is for files of samples")
        measure = _known_measures(measure)
        measures = measure or list(comparison_tables.SHOWN)
        if axis is not None:
            found, runs = _sides(run, axis, base, measure, store)
        else:
            one, runs = _runs(run, other or "", across, measure, store)
            found = [one]
    if keep:
        from farm.answers import keeping

        kept.keep(keeping.of_comparison(found, measures, runs), store, runs)
    if as_json:
        print_json(comparison_tables.as_json(found))
    elif markdown:
        print(comparison_tables.as_markdown(found, measures))
    else:
        tables.console().print(comparison_tables.as_text(found, measures))


def gate(
    run: OneSide,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The side that has to be as good.")],
    rule: Annotated[
        Path | None,
        typer.Option(
            "--rule",
            metavar="FILE",
            help="Rules; default: no record may differ but for the better, no sample may be shown to.",
        ),
    ] = None,
    across: Across = None,
    keep: Keep = False,
    store: Store = None,
    as_json: Json = False,
) -> int:
    """Say whether a run is as good as an earlier one: exit code 0 yes, 1 no, 4 nothing to compare."""
    from farm.answers import comparison_tables
    from farm.answers import gate as gating
    from farm.answers.samples import is_file_of_samples
    from farm.terminal import print_json

    runs: list[Run] = []
    if is_file_of_samples(run):
        found = _samples(run, other, across, None, None, None)
        rules = gating.load(rule, found) if rule is not None else gating.STRICT
    else:
        rules = gating.load(rule) if rule is not None else gating.STRICT
        found, runs = _runs(run, other, across, None, store, complete=True)
    broken = gating.broken(found, rules)
    if keep:
        from farm.answers import keeping

        kept.keep(keeping.of_gate(found, broken, runs), store, runs)
    if as_json:
        print_json(comparison_tables.gate_as_json(found, broken))
    else:
        for line in comparison_tables.broken_lines(found, broken, MOST_BROKEN):
            print(line)
        for line in comparison_tables.caveats(found):
            print(line)
        print(comparison_tables.gate_sentence(found, broken))
    return EXIT_CHECK_SAID_NO if broken else 0


def _known_measures(measures: list[str] | None) -> list[str]:
    from workers.measures import by_name

    for name in measures or ():
        if name not in by_name():
            raise SweepError(f"--measure {name}: no such measure; farm fields --measures lists them")
    return list(dict.fromkeys(measures or ()))


def _sides(
    run: str, axis: str, base: str | None, measures: list[str] | None, store: str | None
) -> "tuple[list[Comparison], list[Run]]":
    """The sides of an axis compared, and the run."""
    from farm.answers.compare import compare_axis
    from farm.store.runs import default_root, find
    from workers.config import field

    found = find(store or default_root(), run)
    value = None if base is None else field(axis).parse(base)
    return compare_axis(found, axis, value, measures or ()), [found]


def _runs(
    base: str,
    other: str,
    across: list[str] | None,
    measures: list[str] | None,
    store: str | None,
    complete: bool = False,
) -> "tuple[Comparison, list[Run]]":
    """Two runs compared, and the runs; ``complete`` ones only if it is asked for."""
    from farm.answers.compare import compare_runs
    from farm.answers.samples import is_file_of_samples
    from farm.execution.rounds import trials_of
    from farm.plan import Plan
    from farm.store.runs import default_root, find

    if is_file_of_samples(other):
        raise SweepError(f"{other!r}: a file of samples, and {base!r} is none; name two files or two runs")
    left, right = (find(store or default_root(), name) for name in (base, other))
    for one in (left, right) if complete else ():
        records, failed = one.counts()
        if failed:
            raise IncomparableError(f"run {one.name}: {failed} of its trials failed; mend and resume it")
        if missing := trials_of(Plan(one.sweep), one) - records:
            raise IncomparableError(f"run {one.name}: {missing} of its trials have not run; resume it")
    return compare_runs(left, right, across or (), measures or ()), [left, right]


def _samples(
    base: str,
    other: str,
    across: list[str] | None,
    measures: list[str] | None,
    least_change: float | None,
    least_difference: float | None,
) -> "Comparison":
    from farm.answers.samples import LEAST_CHANGE, compare_samples, is_file_of_samples

    if not is_file_of_samples(other):
        raise SweepError(f"{other!r}: {base} is a file of samples; name a second one, ending in .json")
    return compare_samples(
        Path(base),
        Path(other),
        across or (),
        measures or (),
        least_change=LEAST_CHANGE if least_change is None else least_change,
        least_difference=least_difference or 0.0,
    )


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
    keep: Keep = False,
    store: Store = None,
    as_json: Json = False,
) -> int:
    """Find the smallest pool that meets targets, for each cell of a sweep, and what each step costs."""
    from farm import svg, tables
    from farm import sweep as sweeps
    from farm.answers import advise_output, keeping
    from farm.answers.advise import advise as find
    from farm.answers.advise import best, target_of
    from farm.terminal import print_json

    if plot is not None:
        svg.check(plot)
    if keep:
        kept.check(store)
    targets = [target_of(text) for text in target or ()]
    loaded = sweeps.load(sweep, overrides or [])
    found = find(loaded, targets)
    chosen = best(found)
    if plot is not None:
        advise_output.plot(found, plot)
    if keep:
        kept.keep(keeping.of_advice(found, loaded.name, queues), store)
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
