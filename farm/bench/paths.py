"""How fast the pool and the farm are, on the machine they run on.

Figures of one machine are compared by ratios within one run: a packet's price as multiples of the ring
path, the paths as multiples of an atomic.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from farm.bench.cpu import cpu_seconds, expect_success
from farm.store.runs import runs

SHARE_OVERRIDES = ("duration_ms=2000", "seeds=20")
"""makes the quickstart a sweep of half a minute, so that starting Ray is not most of it"""


class PoolBench(NamedTuple):
    """The pool's paths with real atomics and locks."""

    loop_ns: dict[str, float]
    """nanoseconds for one turn of each loop of workers.micro"""
    handover_ns: float
    """for each page that one thread allocates and another returns"""


TRIALS: dict[str, dict[str, int | float | str | bool]] = {
    "early drop": {"traffic.kind": "saturation", "duration_ms": 200},
    "socket, reader on another CPU": {
        "traffic.rate_pps": 1_000_000,
        "app.reader": "fast",
        "duration_ms": 500,
    },
    "eight queues, GRO, a capture": {
        "nic.queues": 8,
        "nic.link_gbps": 100,
        "traffic.kind": "capture",
        "traffic.speed": 20.0,
        "traffic.loops": 4000,
        "stack.gro": True,
        "app.protocol": "tcp",
        "app.reader": "fast",
        "app.readers": 8,
        "duration_ms": 2000,
    },
}
"""what simulated packets are counted in"""


class SimulatedBench(NamedTuple):
    """How fast one trial is."""

    packets_per_second: float
    """simulated on one core"""
    packet_ring_paths: float
    """time of one simulated packet, in ring paths of the same run"""
    memory_bytes: int
    """of all tables of the trial"""


class TrialBench(NamedTuple):
    """The trial's loop, without the farm around it."""

    trials: dict[str, SimulatedBench]
    """by the names of TRIALS"""
    compile_seconds: float
    """to the first step of a process, nothing compiled yet"""
    load_seconds: float
    """the same with the code cached"""


class FarmBench(NamedTuple):
    """One run of the farm's own benchmark; see the field's comments for units."""

    first_record_cold_seconds: float
    """from ``farm run`` to the first record, nothing compiled yet"""
    first_record_warm_seconds: float
    trial_cpu_share: float
    """CPU seconds inside trials over CPU seconds of all processes of a sweep on a local Ray"""
    trial_cpu_seconds: float
    all_cpu_seconds: float


def bench_pool() -> PoolBench:
    """Measure the pool's paths; some seconds."""
    from workers.host.pool_loops import handover_ns, micro_ns

    return PoolBench(micro_ns(turns=100_000, repeats=200), handover_ns(turns=100_000, repeats=100))


def bench_trial(ring_ns: float) -> TrialBench:
    """Measure the loop of trials; under a minute.

    Args:
        ring_ns: the pool's ring path, measured in the same run.
    """
    found = {name: _simulated(fields, ring_ns) for name, fields in TRIALS.items()}
    with tempfile.TemporaryDirectory(prefix="farm-bench-") as directory:
        compiling, loading = (_prepare_seconds(Path(directory)) for _ in range(2))
    return TrialBench(found, compiling, loading)


def _simulated(fields: Mapping[str, int | float | str | bool], ring_ns: float) -> SimulatedBench:
    from workers import run_trial
    from workers.assemble import new_trial
    from workers.config import TrialConfig

    config = TrialConfig.from_fields({"warmup_ms": 0, **fields})
    run_trial(config)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        packets = run_trial(config)["packets_offered"] or 0
        best = max(best, packets / (time.perf_counter() - start))
    return SimulatedBench(best, 1e9 / best / ring_ns, _table_bytes(new_trial(config)))


def _table_bytes(trial: Any) -> int:
    """Memory of all tables in nested NamedTuples, some of which have tables in common."""
    return sum({table.ctypes.data: table.nbytes for table in _tables(trial)}.values())


def _tables(part: Any) -> Iterator[Any]:
    if isinstance(part, tuple):
        for inner in part:
            yield from _tables(inner)
    elif hasattr(part, "nbytes"):
        # a record is part of its table
        yield part if hasattr(part, "ctypes") else part.base


def _prepare_seconds(scratch: Path) -> float:
    command = [sys.executable, "-c", "from workers import prepare; prepare()"]
    start = time.perf_counter()
    done = subprocess.run(command, env=_environment(scratch), capture_output=True, text=True, check=False)
    expect_success(done.returncode, done.stderr)
    return time.perf_counter() - start


def bench_farm(sweep: str = "quickstart") -> FarmBench:
    """Measure the farm; about two minutes on two idle cores."""
    with tempfile.TemporaryDirectory(prefix="farm-bench-") as directory:
        scratch = Path(directory)
        cold = _first_record_seconds(scratch, "cold", sweep)
        warm = _first_record_seconds(scratch, "warm", sweep)
        inside, everything = _cpu_seconds(scratch, sweep)
    return FarmBench(
        first_record_cold_seconds=cold,
        first_record_warm_seconds=warm,
        trial_cpu_share=inside / everything,
        trial_cpu_seconds=inside,
        all_cpu_seconds=everything,
    )


POOL_HEADINGS = ("", "ns", "cycles", "atomics", "locks", "kernel ns", "atomics", "locks")
"""``locks`` are pairs of lock and unlock; the kernel's columns are of another machine, see workers.micro"""


def pool_table(found: PoolBench) -> list[tuple[str, ...]]:
    """Rows for the terminal: each loop as multiples of its run's baselines, and the kernel's likewise."""
    from workers.micro import LOOPS

    measured = found.loop_ns
    published = {loop.name: loop.kernel_ns for loop in LOOPS}
    rows: list[tuple[str, ...]] = []
    for name, description, kernel_ns in (
        *((loop.name, loop.description, loop.kernel_ns) for loop in LOOPS),
        ("", "pool: two threads", None),
    ):
        ns = measured.get(name, found.handover_ns)
        rows.append(
            (
                description,
                f"{ns:.2f}",
                f"{2 * ns / measured['two_cycles']:.1f}",
                *_multiples(ns, measured),
                *(
                    ("", "", "")
                    if kernel_ns is None
                    else (f"{kernel_ns:.1f}", *_multiples(kernel_ns, published))
                ),
            )
        )
    return rows


def _multiples(ns: float, of: Mapping[str, float | None]) -> tuple[str, str]:
    return f"{ns / (of['atomic'] or 1):.2f}", f"{ns / (of['lock_unlock'] or 1):.2f}"


TRIAL_HEADINGS = ("", "M packets/s", "ring paths", "MB")


def trial_table(found: TrialBench) -> list[tuple[str, ...]]:
    """Rows for the terminal: simulated packets on one core, each packet in ring paths, tables' memory."""
    return [
        (
            name,
            f"{trial.packets_per_second / 1e6:.2f}",
            f"{trial.packet_ring_paths:.1f}",
            f"{trial.memory_bytes / 1e6:.1f}",
        )
        for name, trial in found.trials.items()
    ]


def farm_table(found: FarmBench) -> list[tuple[str, ...]]:
    """Rows for the terminal: figure, value, and the value in multiples of something of the same run."""
    return [
        ("farm run to first record, cold", f"{found.first_record_cold_seconds:.1f} s", ""),
        ("farm run to first record, warm", f"{found.first_record_warm_seconds:.1f} s", ""),
        (
            "CPU inside trials",
            f"{found.trial_cpu_seconds:.1f} s",
            f"{100 * found.trial_cpu_share:.0f}% of all {found.all_cpu_seconds:.1f} s",
        ),
    ]


def _farm_run(scratch: Path, store: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "farm.cli", "run", *arguments, "--store", str(scratch / store), "--json"]


def _environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(scratch / "cache")}


def _first_record_seconds(scratch: Path, store: str, sweep: str) -> float:
    """Start a sweep and wait until its first records lie in the store."""
    command = _farm_run(scratch, store, sweep)
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=_environment(scratch), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not any((scratch / store).glob("*/*/records/*.parquet")):
            time.sleep(0.01)
        elapsed = time.perf_counter() - start
        _output, errors = process.communicate()
    expect_success(process.returncode, errors)
    return elapsed


def _cpu_seconds(scratch: Path, sweep: str) -> tuple[float, float]:
    """CPU seconds inside the trials of a sweep, and of all processes that it started."""
    command = _farm_run(scratch, "share", sweep, *SHARE_OVERRIDES)
    everything = sum(cpu_seconds(command, _environment(scratch)).values())
    [run] = runs(scratch / "share")
    [inside] = run.query("attempts", "SELECT sum(cpu_seconds) AS seconds FROM attempts")
    return float(inside["seconds"]), everything
