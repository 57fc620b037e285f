"""Verbs that check or measure the farm itself."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.options import EXIT_CHECK_SAID_NO, Address, ExecutorName, Json
from farm.errors import SweepError


class BenchName(StrEnum):
    """What is measured."""

    POOL = "pool"
    TRIAL = "trial"
    SWEEP = "sweep"
    ALL = "all"
    HOST = "host"
    STORE = "store"


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


def bench(
    what: Annotated[
        BenchName,
        typer.Argument(
            help="pool: its paths; trial: simulated packets too; all: the farm too; sweep: what one costs "
            "beside its trials; store: plan, resume, query a million records; host: two real threads beside "
            "what a profile of this machine predicts."
        ),
    ] = BenchName.ALL,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", metavar="ARCH", help="For host: this machine's, by default calibrated first."
        ),
    ] = None,
    executor: Annotated[
        ExecutorName,
        typer.Option("--executor", help="For host: this machine, or with ray one of each kind of a cluster."),
    ] = ExecutorName.SERIAL,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Measure how fast pool and farm are here: pool paths, simulated packets, start-up, overhead."""
    if executor is ExecutorName.SERIAL and address is not None:
        raise SweepError(f"--address {address}: only --executor ray goes to a cluster; leave one out")
    if what is BenchName.HOST:
        if executor is ExecutorName.RAY and profile is not None:
            raise SweepError(f"--profile {profile}: on a cluster each machine is calibrated; leave it out")
        return _bench_host(profile, executor, address, as_json)
    if profile is not None:
        raise SweepError(f"--profile {profile}: only bench host predicts; leave it out")
    if executor is ExecutorName.RAY:
        raise SweepError("--executor ray: only bench host goes to a cluster; leave it out")
    if what is BenchName.SWEEP:
        return _bench_sweep(as_json)
    if what is BenchName.STORE:
        return _bench_store(as_json)
    from farm import tables
    from farm.bench import paths as benchmark
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


def _bench_sweep(as_json: bool) -> None:
    from farm import tables
    from farm.bench import sweep as benchmark
    from farm.terminal import print_json, reserved_stdout, say

    with reserved_stdout():
        found = benchmark.bench_sweep(say)
    if as_json:
        print_json(benchmark.as_json(found))
        return
    tables.console().print(tables.rows(("", "", ""), benchmark.table(found), text_columns=3, unbroken=2))


def _bench_host(profile: str | None, executor: ExecutorName, address: str | None, as_json: bool) -> None:
    from farm import tables
    from farm.bench import host as benchmark
    from farm.terminal import print_json, reserved_stdout, say

    if executor is ExecutorName.SERIAL:
        results = [benchmark.bench_host(profile, say)]
    else:
        from farm.ray.executor import RayExecutor

        with reserved_stdout(), RayExecutor(address) as ray:
            results = benchmark.bench_kinds(ray, say)
    if as_json:
        found = [benchmark.as_json(one) for one in results]
        print_json(found[0] if executor is ExecutorName.SERIAL else found)
        return
    console = tables.console()
    for one in results:
        console.print(
            f"ns per packet between two threads on {one.machine}, and predicted with: {one.profile}"
        )
        console.print(tables.rows(benchmark.HEADINGS, benchmark.table(one), text_columns=0))
        console.print(*benchmark.summary(one), sep="\n")


def _bench_store(as_json: bool) -> None:
    from farm import tables
    from farm.bench import store as benchmark
    from farm.terminal import print_json, say

    say(f"writes {benchmark.RECORDS:,} made-up records to a temporary directory; takes minutes")
    found = benchmark.bench_store()
    if as_json:
        print_json(found._asdict())
    else:
        tables.console().print(tables.rows(("", "", ""), benchmark.table(found), text_columns=1))
