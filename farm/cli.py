"""The command ``farm``. A verb parses its arguments, calls the rest, prints.

Exit codes: 0 done; 1 a check said no; 2 bad usage or input (one line, no traceback); 3 some trials
failed; 4 incomparable or nothing to compare; 130 interrupted, with the partial results safe.

Heavy packages are imported inside the verbs, so that ``farm --help`` answers at once.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from farm.errors import FarmError, IncomparableError, SweepError
from pool_impl.errors import PoolError
from workers.errors import TrialError

if TYPE_CHECKING:
    from farm.execute import Executor
    from farm.query import Cell
    from farm.store import Run

EXIT_CHECK_SAID_NO = 1
EXIT_USAGE = 2
EXIT_FAILED_TRIALS = 3
EXIT_INCOMPARABLE = 4
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="farm",
    help="Load-test and benchmark Linux page_pool and skb recycling on simulated architectures.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)
arch_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


app.add_typer(arch_app, name="arch", help="Architecture profiles and where their numbers come from.")


class ExecutorName(StrEnum):
    """Where trials run."""

    RAY = "ray"
    SERIAL = "serial"


class BenchName(StrEnum):
    """What is measured."""

    POOL = "pool"
    TRIAL = "trial"
    ALL = "all"


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Store = Annotated[
    Path | None,
    typer.Option("--store", metavar="ROOT", help="Directory of runs; default $FARM_STORE, else ./runs."),
]
SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A TOML file, or a bundled sweep.")]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Name, its unique start, a directory, a sweep for its latest run, or 'last'."
    ),
]
Where = Annotated[ExecutorName, typer.Option("--executor", help="Ray (local without --address) or serial.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Set a field, or an axis: pool.size=64,256; also seeds=N, name=X."
    ),
]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    from farm.terminal import say

    try:
        code = app(arguments, standalone_mode=False)
    except typer.TyperException as error:
        # asking for a verb without one is answered with help, already in the message
        text = error.format_message()
        if "\n" in text:
            print(text, file=sys.stderr)
        else:
            say(" ".join(text.split()))
        code = EXIT_USAGE
    except IncomparableError as error:
        say(str(error))
        code = EXIT_INCOMPARABLE
    except (FarmError, TrialError, PoolError) as error:
        say(str(error))
        code = EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        code = EXIT_INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


@app.command()
def plan(
    sweep: SweepName,
    overrides: Overrides = None,
    executor: Where = ExecutorName.RAY,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Say what a sweep would run, how long that takes, and how many metric series it makes."""
    import os

    import dashboards
    from farm import sweep as sweeps
    from farm import tables
    from farm.estimate import estimate
    from farm.plan import Plan
    from farm.store import default_root, runs
    from farm.terminal import print_json

    planned = Plan(sweeps.load(sweep, overrides or []))
    planned.inputs()
    slots = 1 if executor is ExecutorName.SERIAL else os.cpu_count() or 1
    cost = estimate(planned, runs(store or default_root()), slots)
    series = planned.cells * dashboards.series_per_cell()
    axes = planned.sweep.axes()
    if as_json:
        print_json(
            {
                "sweep": planned.sweep.name,
                "axes": {name: list(values) for name, values in axes.items()},
                "cells": planned.cells,
                "trials": planned.trials,
                "seeds_collapsed": planned.collapsed,
                "metric_series": series,
                "slots": slots,
                **cost._asdict(),
            }
        )
        return
    rate = tables.in_unit("per second", cost.packets_per_second)
    show = [
        ("sweep", planned.sweep.name),
        *((f"  {name}", ", ".join(map(tables.word, values))) for name, values in axes.items()),
        ("cells", f"{planned.cells:,}"),
        ("trials", f"{planned.trials:,}, {planned.collapsed:,} more collapsed: their seed cannot matter"),
        ("packets", f"about {tables.in_unit('per second', cost.packets)}"),
        (
            "time",
            f"about {tables.duration(cost.seconds)} on {slots} CPUs, "
            f"at {rate} packets/s each from {cost.rate_source}",
        ),
        ("series", f"{series:,} in Prometheus"),
    ]
    tables.console().print(tables.rows(["", ""], show, text_columns=2))


@app.command()
def run(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SWEEP [KEY=VALUE]...",
            help="A TOML file or a bundled sweep; then fields to set, pool.size=64,256 for an axis.",
        ),
    ] = None,
    executor: Where = ExecutorName.RAY,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Head of a Ray cluster; else a local Ray.")
    ] = None,
    store: Store = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Run what this run misses; SWEEP may be left out.")
    ] = None,
    bundled: Annotated[bool, typer.Option("--list", help="Name the bundled sweeps and stop.")] = False,
    as_json: Json = False,
) -> int:
    """Run a sweep and show what it found."""
    from farm import driver, query
    from farm import sweep as sweeps
    from farm.execute import Progress, execute
    from farm.plan import Plan
    from farm.store import default_root, find
    from farm.terminal import progress_shown, reserved_stdout, say

    if bundled:
        return _print_bundled(as_json)
    if address is not None and executor is not ExecutorName.RAY:
        raise SweepError(f"--address {address}: only --executor ray goes to a cluster; leave one out")
    root = store or default_root()
    given = sweeps.load(arguments[0], arguments[1:]) if arguments else None
    if resume is not None:
        planned, started = driver.resume(find(root, resume), given, executor)
    elif given is not None:
        planned, started = Plan(given), None
        planned.inputs()
    else:
        raise SweepError("SWEEP: name a TOML file, a bundled sweep, or --resume RUN")
    with reserved_stdout(), _executor(executor, address) as place:
        if started is None:
            started = driver.start(planned, root, executor)
        progress = Progress(planned.trials, int(started.done.sum()), place.slots)
        try:
            with progress_shown() as report:
                execute(planned, started.run, started.writer, place, started.done, progress, report)
        except KeyboardInterrupt:
            option = f" --store {store}" if store else ""
            say(
                f"interrupted with {progress.done} of {progress.trials} trials stored in "
                f"{started.run.path}; go on with: farm run --resume {started.run.name}{option}"
            )
            return EXIT_INTERRUPTED
    if progress.compile_seconds >= 1:
        say(f"a worker took {progress.compile_seconds:.0f} s to compile or load the event loop")
    return _print_result(started.run, query.cells(started.run), as_json)


@app.command()
def search(
    sweep: SweepName,
    overrides: Overrides = None,
    drop_ratio: Annotated[
        float, typer.Option(min=0, max=1, help="Share of packets that may be dropped.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Find the highest packet rate of each cell of a sweep that drops nothing, or little."""
    from farm import sweep as sweeps
    from farm import tables
    from farm.search import no_drop_rates
    from farm.terminal import print_json

    given = sweeps.load(sweep, overrides or [])
    found = list(no_drop_rates(given, drop_ratio))
    axes = list(given.axes())
    if as_json:
        print_json(
            [
                {
                    "cell": {name: one.fields[name] for name in axes},
                    "rate_pps": one.rate_pps,
                    "link_pps": one.link_pps,
                }
                for one in found
            ]
        )
        return
    body = [
        (
            *(tables.word(one.fields[name]) for name in axes),
            tables.in_unit("per second", one.rate_pps),
            "the link's" if one.rate_pps == one.link_pps else "",
        )
        for one in found
    ]
    heads = (*axes, "packets/s", "limit")
    tables.console().print(tables.rows(heads, body, text_columns=len(axes)))


@app.command("list")
def list_(store: Store = None, as_json: Json = False) -> None:
    """List the runs of the store, oldest first."""
    from farm import tables
    from farm.plan import Plan
    from farm.store import default_root, runs
    from farm.terminal import print_json

    found: list[dict[str, Any]] = []
    for one in sorted(runs(store or default_root()), key=lambda one: one.name):
        row: dict[str, Any] = {"run": one.name, "sweep": one.sweep_name, "problem": ""}
        try:
            row |= {"trials": Plan(one.sweep).trials, "records": len(one.done()) - len(one.failures())}
            row |= {"failures": len(one.failures()), "executor": one.manifests()[-1].get("executor", "")}
        except (FarmError, TrialError) as error:
            row["problem"] = str(error)
        found.append(row)
    if as_json:
        print_json(found)
        return
    heads = ("run", "sweep", "executor", "trials", "records", "failures")
    body = [[str(row.get(head, "damaged")) for head in heads] for row in found]
    tables.console().print(tables.rows(heads, body, text_columns=3) if body else "no runs")


@app.command()
def show(run: RunName, store: Store = None, as_json: Json = False) -> int:
    """Show what a run found."""
    from farm import query
    from farm.store import default_root, find

    found = find(store or default_root(), run)
    return _print_result(found, query.cells(found), as_json)


@app.command()
def compare(
    run: RunName,
    axis: Annotated[str, typer.Option(help="The field whose values are compared, such as pool.recycle.")],
    base: Annotated[
        str | None, typer.Option(help="Value to compare with; default false, else the first.")
    ] = None,
    measure: Annotated[
        list[str] | None, typer.Option(help="Measure to show; may be given again. Default: a few.")
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Compare the sides of one axis of a run: same configuration, same seed, exact differences."""
    from farm import compare as comparing
    from farm import query, tables
    from farm.store import default_root, find
    from farm.terminal import print_json
    from workers.config import field
    from workers.measures import by_name

    measures = measure or list(tables.COMPARED)
    for name in measures:
        if name not in by_name():
            raise SweepError(f"--measure {name}: no such measure; farm fields --measures lists them")
    found = find(store or default_root(), run)
    value = None if base is None else field(axis).parse(base)
    pairs = comparing.compare(found, axis, value)
    if as_json:
        chosen = measure or list(by_name())
        print_json(
            [
                {
                    "axis": pair.axis,
                    "base": pair.base,
                    "other": pair.other,
                    "fields": dict(pair.fields),
                    "seed": pair.seed,
                    "measures": {
                        name: pair.measures[name]._asdict() for name in chosen if name in pair.measures
                    },
                }
                for pair in pairs
            ]
        )
        return
    tables.console().print(tables.comparison(pairs, query.cells(found), measures))


@app.command()
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


@arch_app.command("list")
def arch_list(as_json: Json = False) -> None:
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


@arch_app.command("show")
def arch_show(
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


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.")] = 9464,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    run: Annotated[
        list[str] | None, typer.Option(help="Run to expose in place of its sweep's newest; may be repeated.")
    ] = None,
    series_budget: Annotated[
        int | None, typer.Option(metavar="N", help="Metric series at most; default 50000.")
    ] = None,
    store: Store = None,
) -> None:
    """Expose stored results and the farm's own health as Prometheus metrics."""
    from farm import export
    from farm.store import default_root, find

    root = store or default_root()
    chosen = [find(root, name) for name in run or []]
    budget = export.SERIES_BUDGET if series_budget is None else series_budget
    export.serve(root, port, address, chosen=chosen, series_budget=budget)


@app.command()
def publish(
    url: Annotated[str, typer.Argument(metavar="URL", help="The Grafana, http://HOST:PORT/PATH.")],
    prometheus: Annotated[
        str, typer.Option(metavar="URL", help="Where that Grafana finds Prometheus.")
    ] = "http://localhost:9090",
    folder: Annotated[str, typer.Option(metavar="TITLE", help="Title of the folder.")] = "page_pool farm",
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds the token; default $GRAFANA_TOKEN.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put the data source and the dashboards on a Grafana."""
    import os

    from dashboards import panels
    from dashboards.publish import Publisher, PublishError, read_token
    from farm import tables
    from farm.terminal import print_json

    try:
        with Publisher(url, read_token(os.environ, token_file)) as publisher:
            published = publisher.publish(
                panels.all_dashboards(), prometheus_url=prometheus, folder_title=folder
            )
    except PublishError as error:
        raise FarmError(str(error)) from None
    if as_json:
        print_json([thing._asdict() for thing in published])
        return
    tables.console().print(tables.rows(("kind", "uid", "change"), published, text_columns=3))


@app.command()
def conformance(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Recordings (.jsonl, .jsonl.gz) or directories of them."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="List what is deliberately not compared, and why.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Replay recordings of a real kernel and compare the state after every operation."""
    from farm import tables
    from farm.terminal import print_json
    from pool_impl import conformance as replaying
    from pool_impl import recording

    if explain:
        tables.console().print(tables.rows(("not compared", "why"), replaying.NOT_COMPARED, text_columns=2))
        if not paths:
            return 0
    if not paths:
        raise SweepError("PATH: name recordings or directories of them")
    results = []
    for path in recording.find(paths):
        result = replaying.replay(recording.read(path))
        results.append(result)
        if result.first is not None and not as_json:
            print(f"{path}: {result.first}")
    divergences = sum(result.divergences for result in results)
    if as_json:
        print_json([result.summary() for result in results])
    else:
        operations = sum(result.operations for result in results)
        print(f"{len(results)} traces, {operations} operations, {divergences} divergences")
    return EXIT_CHECK_SAID_NO if divergences else 0


@app.command()
def bench(
    what: Annotated[
        BenchName, typer.Argument(help="pool: its paths; trial: simulated packets too; all: the farm too.")
    ] = BenchName.ALL,
    as_json: Json = False,
) -> None:
    """Measure how fast pool and farm are here: pool paths, simulated packets, start-up, overhead."""
    from farm import bench as benchmark
    from farm import tables
    from farm.terminal import print_json

    pool = benchmark.bench_pool()
    trial = None if what is BenchName.POOL else benchmark.bench_trial(pool.loop_ns["pool_ring"])
    farm = benchmark.bench_farm() if what is BenchName.ALL else None
    if as_json:
        trials = trial and {**trial._asdict(), "trials": {n: t._asdict() for n, t in trial.trials.items()}}
        print_json({"pool": pool._asdict(), "trial": trials, "farm": farm and farm._asdict()})
        return
    console = tables.console()
    console.print(
        tables.rows(benchmark.POOL_HEADINGS, benchmark.pool_table(pool), text_columns=1),
        "kernel: 6.13-rc6 on a Xeon E5-1650 v4, 3.6 GHz, as published",
    )
    if trial:
        console.print(
            tables.rows(benchmark.TRIAL_HEADINGS, benchmark.trial_table(trial), text_columns=1),
            f"simulated on one core; compiled in {trial.compile_seconds:.1f} s, "
            f"loaded from the code cache in {trial.load_seconds:.1f} s",
        )
    if farm:
        console.print(tables.rows(("", "", ""), benchmark.farm_table(farm), text_columns=1))


def _print_bundled(as_json: bool) -> int:
    from farm import sweep as sweeps
    from farm import tables
    from farm.terminal import print_json

    found = {name: sweeps.summary(name) for name in sweeps.bundled()}
    if as_json:
        print_json(found)
    else:
        tables.console().print(tables.rows(("sweep", ""), found.items(), text_columns=2))
    return 0


def _executor(name: ExecutorName, address: str | None) -> "AbstractContextManager[Executor]":
    if name is ExecutorName.SERIAL:
        from farm.execute import SerialExecutor

        return nullcontext(SerialExecutor())
    from farm.ray_executor import RayExecutor

    return RayExecutor(address)


def _print_result(run: "Run", cells: "list[Cell]", as_json: bool) -> int:
    """Print what a run found; the exit code says whether some trials failed."""
    from farm import query, tables
    from farm.terminal import print_json, say

    failures = run.failures()
    if as_json:
        print_json(
            {
                "run": str(run.path),
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
                "failures": failures,
            }
        )
    else:
        console = tables.console()
        console.print(tables.result(cells))
        # not through the console, which would break a long path
        print(f"\nStored in {run.path}")
    if failures:
        first = failures[0]
        say(f"{len(failures)} trials failed; the first: {first['kind']}: {first['message']}")
        return EXIT_FAILED_TRIALS
    return 0


def _common(cell: "Cell") -> dict[str, Any]:
    return {name: cell.fields[name] for name in cell.axes if name != "pool.recycle"}


if __name__ == "__main__":
    main()
