"""Verbs that make results: plan, run, search."""

import shlex
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.options import (
    EXIT_INTERRUPTED,
    EXIT_LOST,
    Address,
    ExecutorName,
    Json,
    Overrides,
    Store,
    SweepName,
    Where,
    current_command,
)
from farm.cli.results import print_result
from farm.errors import LostError, SweepError

if TYPE_CHECKING:
    from collections.abc import Callable

    from farm.execution.execute import Executor
    from farm.store.place import Root
    from farm.watch import Watch


def plan(
    sweep: SweepName,
    overrides: Overrides = None,
    executor: Where = ExecutorName.RAY,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Say what a sweep would run, how long that takes, and how many metric series it makes."""
    import os

    from dashboards.catalogue import series_per_cell
    from farm import sweep as sweeps
    from farm import tables
    from farm.estimate import estimate
    from farm.plan import Plan
    from farm.store.runs import default_root, runs
    from farm.terminal import print_json

    planned = Plan(sweeps.load(sweep, overrides or []))
    planned.inputs()
    slots = 1 if executor is ExecutorName.SERIAL else os.cpu_count() or 1
    cost = estimate(planned, runs(store or default_root()), slots)
    series = planned.cells * series_per_cell()
    axes = planned.sweep.axes()
    if as_json:
        print_json(
            {
                "sweep": planned.sweep.name,
                "axes": {name: list(values) for name, values in axes.items()},
                "cells": planned.cells,
                "trials": planned.trials,
                "trials_at_least": planned.least_trials,
                "seeds_collapsed": planned.collapsed,
                "metric_series": series,
                "slots": slots,
                **cost._asdict(),
            }
        )
        return
    trials, most = f"{planned.trials:,}", "about"
    if planned.sweep.until:
        trials, most = f"at least {planned.least_trials:,}, at most {planned.trials:,}", "at most about"
    time = cost.rate_source
    if cost.seconds is not None and cost.packets_per_second is not None:
        rate = tables.in_unit("per second", cost.packets_per_second)
        time = f"{most} {tables.duration(cost.seconds)} on {slots} CPUs, at {rate} packets/s each from {time}"
    show = [
        ("sweep", planned.sweep.name),
        *((f"  {name}", tables.listed(values)) for name, values in axes.items()),
        ("cells", f"{planned.cells:,}"),
        ("trials", f"{trials}, {planned.collapsed:,} more collapsed: their seed cannot matter"),
        ("packets", f"{most} {tables.in_unit('per second', cost.packets)}"),
        ("time", time),
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
    address: Address = None,
    store: Store = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Run what this run misses; SWEEP may be left out.")
    ] = None,
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="With --resume: run the trials that failed again.")
    ] = False,
    deadline: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.01, help="A trial that takes longer is a failure.")
    ] = 600.0,
    need: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=AMOUNT",
            help="What a trial takes of a node beside one CPU, such as memory=2000000000; may be repeated.",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Serve this run's metrics; 0: on any free port.")
    ] = None,
    metrics_address: Annotated[str, typer.Option(help="Address to serve them on.")] = "127.0.0.1",
    annotate: Annotated[
        str | None, typer.Option(metavar="URL", help="Mark start and end on this Grafana; $GRAFANA_TOKEN.")
    ] = None,
    bundled: Annotated[bool, typer.Option("--list", help="Name the bundled sweeps and stop.")] = False,
    as_json: Json = False,
) -> int:
    """Run a sweep and show what it found."""
    from farm.execution import supervisor
    from farm.watch import watched

    if bundled:
        return _print_bundled(as_json)
    for option, given in (("--address", address), ("--need", need)):
        if given and executor is not ExecutorName.RAY:
            raise SweepError(f"{option} {given}: only --executor ray goes to a cluster; leave one out")
    if retry_failures and resume is None:
        raise SweepError("--retry-failures: a new run has none; name the run with --resume RUN")
    watching = partial(watched, metrics_port=metrics_port, metrics_address=metrics_address, annotate=annotate)
    settings = (arguments or [], executor, address, store, resume, retry_failures, deadline, need or [])
    arrange = partial(_run, *settings, watching, as_json)
    if address is None:
        return arrange()
    if supervisor.supervised():
        with supervisor.in_driver():
            return arrange()
    code = supervisor.supervise(current_command(), address)
    return EXIT_LOST if code is None else code


def _run(
    arguments: list[str],
    executor: ExecutorName,
    address: str | None,
    store: str | None,
    resume: str | None,
    retry_failures: bool,
    deadline_seconds: float,
    need: list[str],
    watching: "Callable[[Root], AbstractContextManager[Watch]]",
    as_json: bool,
) -> int:
    from farm import query
    from farm import sweep as sweeps
    from farm.cli.progress import progress_shown
    from farm.execution import driver, supervisor
    from farm.execution.execute import execute
    from farm.execution.progress import Progress
    from farm.plan import Plan
    from farm.store.runs import default_root, find
    from farm.terminal import reserved_stdout, say, terminated_like_interrupted

    root = store or default_root()
    given = sweeps.load(arguments[0], arguments[1:]) if arguments else None
    if resume is not None:
        planned, started = driver.resume(find(root, resume), given, executor, retry_failures)
    elif given is not None:
        planned, started = Plan(given), None
        planned.inputs()
    else:
        raise SweepError("SWEEP: name a TOML file, a bundled sweep, or --resume RUN")
    with (
        reserved_stdout(),
        watching(root) as watch,
        _executor(executor, address, need) as place,
    ):
        if started is None:
            started = driver.start(planned, root, executor)
        supervisor.report(started.run)
        progress = Progress(started.trials, started.stored, place.slots)
        progress.may_need_fewer = started.rounds is not None
        try:
            with terminated_like_interrupted(), progress_shown() as report:
                watch.begin(started.run, progress)
                watch.along.append(report)
                execute(
                    planned,
                    started.run,
                    started.writer,
                    place,
                    started.done,
                    progress,
                    watch.note,
                    started.rounds,
                    deadline_seconds,
                )
        except (KeyboardInterrupt, LostError) as error:
            options = f" --store {shlex.quote(store)}" if store else ""
            options += f" --address {address}" if address else ""
            say(
                f"{error if isinstance(error, LostError) else 'interrupted'}, with {progress.done} of "
                f"{progress.trials} trials stored in {started.run.place}; go on with: "
                f"farm run --resume {started.run.name}{options}"
            )
            return EXIT_LOST if isinstance(error, LostError) else EXIT_INTERRUPTED
    if progress.compile_seconds >= 1:
        say(
            f"the event loop was ready after {progress.compile_seconds:.0f} s: one worker of a node compiles "
            "it, the others load it"
        )
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
    from farm.answers.search import no_drop_rates
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


def _executor(name: ExecutorName, address: str | None, need: list[str]) -> "AbstractContextManager[Executor]":
    if name is ExecutorName.SERIAL:
        from farm.execution.execute import SerialExecutor

        return nullcontext(SerialExecutor())
    from farm.ray.executor import RayExecutor
    from farm.ray.nodes import need_of

    return RayExecutor(address, need_of(need))
