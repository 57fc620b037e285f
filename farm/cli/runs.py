"""Verbs that make results: plan, run, search."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.options import (
    EXIT_INTERRUPTED,
    ExecutorName,
    Json,
    Overrides,
    Store,
    SweepName,
    Where,
)
from farm.cli.results import print_result
from farm.errors import SweepError

if TYPE_CHECKING:
    from farm.execute import Executor


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
    from farm.execute import execute
    from farm.plan import Plan
    from farm.progress import Progress
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
    return print_result(started.run, query.cells(started.run), as_json)


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
