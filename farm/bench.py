"""How fast the farm itself is, on the machine it runs on.

Figures of one machine are compared by ratios within one run: a packet's price as multiples of the ring
path, the paths as multiples of an atomic.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from farm.errors import FarmError
from farm.store import runs

SET_CHILD_SUBREAPER = 36
"""prctl: orphans below a process become its children"""

SHARE_OVERRIDES = ("duration_ms=2000", "seeds=20")
"""makes the quickstart a sweep of half a minute, so that starting Ray is not most of it"""

SAMPLE_SECONDS = 0.05
"""a process's CPU time is missed from its last sample to its end"""


class Bench(NamedTuple):
    """One run of the benchmark; see the field's comments for units."""

    micro_ns: dict[str, float]
    """nanoseconds for one turn of each loop of workers.micro"""
    packets_per_second: float
    """simulated on one core, early drop at saturation"""
    packet_ring_paths: float
    """time of one simulated packet, in ring paths of the same run"""
    first_record_cold_seconds: float
    """from ``farm run`` to the first record, nothing compiled yet"""
    first_record_warm_seconds: float
    trial_cpu_share: float
    """CPU seconds inside trials over CPU seconds of all processes of a sweep on a local Ray"""
    trial_cpu_seconds: float
    all_cpu_seconds: float


def bench(sweep: str = "quickstart") -> Bench:
    """Measure everything; about two minutes on two idle cores."""
    from workers import run_trial
    from workers.config import TrialConfig
    from workers.host import micro_ns

    loops = micro_ns(turns=5_000_000, repeats=5)
    early_drop = TrialConfig.from_fields({"traffic.kind": "saturation", "duration_ms": 200, "warmup_ms": 0})
    run_trial(early_drop)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        packets = run_trial(early_drop)["packets_offered"] or 0
        best = max(best, packets / (time.perf_counter() - start))
    with tempfile.TemporaryDirectory(prefix="farm-bench-") as directory:
        scratch = Path(directory)
        cold = _first_record_seconds(scratch, "cold", sweep)
        warm = _first_record_seconds(scratch, "warm", sweep)
        inside, everything = _cpu_seconds(scratch, sweep)
    return Bench(
        micro_ns=loops,
        packets_per_second=best,
        packet_ring_paths=1e9 / best / loops["pool_ring"],
        first_record_cold_seconds=cold,
        first_record_warm_seconds=warm,
        trial_cpu_share=inside / everything,
        trial_cpu_seconds=inside,
        all_cpu_seconds=everything,
    )


def table(found: Bench) -> list[tuple[str, str, str]]:
    """Rows for the terminal: figure, value, and the value in multiples of something of the same run."""
    from workers.micro import LOOPS

    atomic = found.micro_ns["atomic"]
    rows = [
        (
            loop.description,
            f"{found.micro_ns[loop.name]:.2f} ns",
            f"{found.micro_ns[loop.name] / atomic:.2f} atomics",
        )
        for loop in LOOPS
    ]
    return [
        *rows,
        (
            "simulated packets on one core, early drop",
            f"{found.packets_per_second / 1e6:.2f} M/s",
            f"{found.packet_ring_paths:.1f} ring paths each",
        ),
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
    _expect_success(process.returncode, errors)
    return elapsed


def _cpu_seconds(scratch: Path, sweep: str) -> tuple[float, float]:
    """CPU seconds inside the trials of a sweep, and of all processes that it started."""
    # a small supervisor adopts what Ray leaves behind, and reports what all of it used
    supervisor = "import sys; from farm.bench import supervise; supervise(sys.argv[1:])"
    command = [sys.executable, "-c", supervisor, *_farm_run(scratch, "share", sweep, *SHARE_OVERRIDES)]
    done = subprocess.run(command, env=_environment(scratch), capture_output=True, text=True, check=False)
    _expect_success(done.returncode, done.stderr)
    everything = float(done.stdout.splitlines()[-1])
    [run] = runs(scratch / "share")
    [inside] = run.query("attempts", "SELECT sum(cpu_seconds) AS seconds FROM attempts")
    return float(inside["seconds"]), everything


def supervise(command: list[str]) -> None:
    """Run a command and print the CPU seconds of all processes below it, whoever started them.

    They are sampled: Ray's daemons ignore the ends of their children, whose time is then in nobody's sum.
    """
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    used: dict[tuple[int, float], float] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = child.cpu_times()
                    used[child.pid, child.create_time()] = times.user + times.system
            time.sleep(SAMPLE_SECONDS)
    print(sum(used.values()))
    sys.exit(process.returncode)


def _expect_success(code: int, errors: str) -> None:
    if code != 0:
        last = errors.strip().splitlines()[-1:] or ["no message"]
        raise FarmError(f"bench: farm run ended with exit code {code}: {last[0]}")
