"""What a sweep costs beside its trials: CPU time of the farm and of Ray, the driver's memory, and how that
compares with a loop over plain Ray tasks.
"""

import contextlib
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from farm.bench import cpu as bench_cpu
from farm.bench.cpu import cpu_seconds, expect_success
from farm.execution import driver
from farm.execution.batch import Job, run_batch
from farm.execution.batches import Batches
from farm.execution.execute import execute, job_of
from farm.execution.progress import MOST_BATCH_SECONDS, Progress
from farm.plan import Plan
from farm.store.results import Results
from farm.store.runs import runs
from farm.sweep import Sweep, parse

TRIAL_SECONDS = 0.05
"""of the trials whose share is measured"""

SERIAL_TRIALS = 1000
RAY_TRIALS = 2400
"""a minute each: starting is a part of what is measured, as it is of a sweep that one waits for"""

PLAIN_TRIALS = 2000
"""of the sweep that is run both ways; as short as trials get"""

SINGLE_BATCHES = 500
"""batches of one trial, to see what a batch costs the driver"""

DRIVER_TRIALS = 1_000_000
FLAT_FROM = 20_000
"""trials after which the driver's memory is to stay as it is"""

MADE_UP_FROM = 200
"""real trials whose results are yielded again and again to the driver of a million"""

MEASURED = """
name = "bench-{name}"
seeds = {seeds}
[fixed]
traffic.kind = "poisson"
traffic.rate_pps = 1_000_000
app.reader = "fast"
warmup_ms = 0
duration_ms = {duration_ms}
[grid]
pool.size = [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768]
pool.recycle = [true, false]
"""
CELLS = 20


class Share(NamedTuple):
    """How much of a sweep's CPU time is inside its trials."""

    trials: int
    trial_seconds: float
    """inside one trial, of its worker's CPU time"""
    inside_seconds: float
    process_seconds: dict[str, float]
    """of all processes by kind, trials included"""

    @property
    def share(self) -> float:
        """The figure: CPU seconds inside trials over those of all processes."""
        return self.inside_seconds / sum(self.process_seconds.values())


class DriverCost(NamedTuple):
    """A real driver, plan, progress and writer, whose executor yields at once what was made up from results
    of some real trials."""

    trials: int
    cpu_us_per_trial: float
    batches: int
    flat_from_bytes: int
    """resident memory when FLAT_FROM trials were in"""
    most_bytes: int
    """resident memory at its most"""


class BatchCost(NamedTuple):
    """What a batch costs the driver on Ray."""

    cpu_ms: float
    """of all threads of the driver's process, for sending a batch and taking in its result"""
    outcome_bytes: float
    """that travel to the driver for each trial of a batch of many"""


class AgainstPlain(NamedTuple):
    """The same grid as one Ray task for each trial, whose records are kept in memory, and by the farm, whose
    records are in the store."""

    trials: int
    plain_seconds: float
    farm_seconds: float
    plain_cpu_seconds: float
    """of all processes: on a busy machine these say more"""
    farm_cpu_seconds: float

    @property
    def speedup(self) -> float:
        """By the clock."""
        return self.plain_seconds / self.farm_seconds

    @property
    def cpu_ratio(self) -> float:
        """By CPU time: what the speedup is where nothing else runs and all cores are busy."""
        return self.plain_cpu_seconds / self.farm_cpu_seconds


class SweepBench(NamedTuple):
    """All of it."""

    serial: Share
    ray: Share
    driver: DriverCost
    batch: BatchCost
    plain: AgainstPlain


def bench_sweep(report: Callable[[str], None]) -> SweepBench:
    """Measure; about four minutes on two idle cores.

    Args:
        report: hears what is measured next.

    Raises:
        FarmError: a sweep failed.
    """
    import workers

    workers.prepare()
    with tempfile.TemporaryDirectory(prefix="farm-bench-") as directory:
        scratch = Path(directory)
        duration_ms = _duration_ms()
        report("serial sweep")
        serial = _share(scratch, "serial", SERIAL_TRIALS, duration_ms)
        report("sweep on a local Ray")
        ray = _share(scratch, "ray", RAY_TRIALS, duration_ms)
        report("driver of a million trials")
        cost = _driver_cost(DRIVER_TRIALS)
        report("plain Ray tasks, and the farm")
        batch, plain = _against_plain(scratch)
    return SweepBench(serial, ray, cost, batch, plain)


def _sweep(name: str, trials: int, duration_ms: int) -> Sweep:
    return parse(MEASURED.format(name=name, seeds=trials // CELLS, duration_ms=duration_ms), "bench")


def _duration_ms() -> int:
    """Simulated time of a trial of TRIAL_SECONDS on this machine."""
    from workers import run_trial

    plan = Plan(_sweep("x", CELLS, 100))
    seconds = []
    for number in range(plan.trials):
        start = time.process_time()
        run_trial(plan.config(number))
        seconds.append(time.process_time() - start)
    return max(1, round(100 * TRIAL_SECONDS * len(seconds) / sum(seconds)))


def _share(scratch: Path, executor: str, trials: int, duration_ms: int) -> Share:
    path, root = scratch / f"{executor}.toml", scratch / executor
    path.write_text(MEASURED.format(name="share", seeds=trials // CELLS, duration_ms=duration_ms))
    farm = [sys.executable, "-m", "farm.cli", "run", str(path), "--store", str(root)]
    found = cpu_seconds([*farm, "--executor", executor, "--json"])
    [run] = runs(root)
    [inside] = run.query("attempts", "SELECT count(*) AS trials, sum(cpu_seconds) AS cpu FROM attempts")
    return Share(inside["trials"], inside["cpu"] / inside["trials"], inside["cpu"], found)


def _driver_cost(trials: int) -> DriverCost:
    """In a process of its own, whose memory is the driver's."""
    code = f"from farm.bench.sweep import drive; drive({trials})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    expect_success(done.returncode, done.stderr)
    return DriverCost(**json.loads(done.stdout.splitlines()[-1]))


def drive(trials: int) -> None:
    """Drive a sweep of so many trials, none of which is run, and print a :class:`DriverCost` as JSON."""
    # a driver on Ray has that in memory too
    import ray  # noqa: F401

    process = psutil.Process()
    flat_from = most = 0

    def look(progress: Progress) -> None:
        nonlocal flat_from, most
        resident = process.memory_info().rss
        most = max(most, resident)
        if not flat_from and progress.done >= FLAT_FROM:
            flat_from = resident

    with tempfile.TemporaryDirectory(prefix="farm-bench-") as directory:
        scratch = Path(directory)
        executor = InstantExecutor(_made_elsewhere(scratch / "results"))
        start = time.process_time()
        plan = Plan(_sweep("driver", trials, 1))
        started = driver.start(plan, scratch / "runs", "instant")
        progress = Progress(plan.trials, 0, InstantExecutor.slots)
        execute(plan, started.run, started.writer, executor, started.done, progress, look)
        spent = time.process_time() - start
    found = DriverCost(plan.trials, 1e6 * spent / plan.trials, executor.batches, flat_from, most)
    print(json.dumps(found._asdict()))


def _made_elsewhere(path: Path) -> dict[int, Results]:
    """Results by the number of trials in a batch, from real trials of another process: to run them takes
    memory that a driver does not need."""
    code = f"from farm.bench.sweep import make; make({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    expect_success(done.returncode, done.stderr)
    found: dict[int, Results] = pickle.loads(path.read_bytes())
    return found


def make(path: str) -> None:
    """Run MADE_UP_FROM trials and write batches of one to as many as a batch will have, as they travel."""
    import workers

    text = _sweep("driver", DRIVER_TRIALS, 1).to_toml()
    job = Job(text, "", {}, workers.model_digest())
    real = list(run_batch(job, range(MADE_UP_FROM), InstantExecutor.name))
    most = int(MOST_BATCH_SECONDS / TRIAL_SECONDS) + 1
    packed = {
        count: replace(Results.of(real[:count]).packed(), wall_seconds=count * TRIAL_SECONDS)
        for count in range(1, most + 1)
    }
    Path(path).write_bytes(pickle.dumps(packed))


class InstantExecutor:
    """Yields results at once: those of a few real trials, again and again, as they would come from a cluster
    of this size if each trial took TRIAL_SECONDS."""

    name = "instant"
    slots = 64

    def __init__(self, packed: Mapping[int, Results]) -> None:
        self._packed = packed
        self.batches = 0

    def run(self, job: Job, batches: Batches) -> Iterator[Results]:
        """Run nothing."""
        for numbers in batches:
            self.batches += 1
            yield self._packed[len(numbers)]


def _against_plain(scratch: Path) -> tuple[BatchCost, AgainstPlain]:
    """Both on the same Ray, whose workers are warm."""
    from farm.ray.executor import RayExecutor

    plan = Plan(_sweep("plain", PLAIN_TRIALS, 1))
    with RayExecutor() as executor:
        started = driver.start(plan, scratch / "warm", executor.name)
        job = job_of(started.run)
        warm = [range(i, i + 1) for i in range(8 * executor.slots)]
        list(executor.run(job, _fixed(warm)))
        _plain_loop(plan, range(len(warm)))
        plain_seconds, plain_cpu = _timed(lambda: _plain_loop(plan, range(plan.trials)))
        farm_seconds, farm_cpu = _timed(lambda: _by_farm(plan, scratch / "farm", executor))
        process = psutil.Process()
        before = sum(process.cpu_times()[:2])
        singles = [range(i, i + 1) for i in range(SINGLE_BATCHES)]
        list(executor.run(job, _fixed(singles)))
        cpu_ms = 1e3 * (sum(process.cpu_times()[:2]) - before) / SINGLE_BATCHES
        [large] = executor.run(job, _fixed([range(100)]))
    return (
        BatchCost(cpu_ms, large.nbytes / large.trials),
        AgainstPlain(plan.trials, plain_seconds, farm_seconds, plain_cpu, farm_cpu),
    )


def _fixed(numbers: Iterable[range]) -> Batches:
    return Batches(iter(list(numbers)), Progress(0, 0, 1))


def _plain_loop(plan: Plan, numbers: range) -> None:
    import ray

    def trial(fields: Mapping[str, Any]) -> Any:
        from workers import run_trial
        from workers.config import TrialConfig

        return run_trial(TrialConfig.from_fields(fields))

    task = ray.remote(num_cpus=1)(trial)
    records = ray.get([task.remote(plan.fields(number)) for number in numbers])
    assert len(records) == len(numbers)


def _by_farm(plan: Plan, root: Path, executor: Any) -> None:
    started = driver.start(plan, root, executor.name)
    progress = Progress(plan.trials, 0, executor.slots)
    execute(plan, started.run, started.writer, executor, started.done, progress, lambda _: None)


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and CPU seconds of this process and all that it has started."""
    start, before = time.perf_counter(), _used()
    work()
    seconds, after = time.perf_counter() - start, _used()
    return seconds, sum(used - before.get(process, 0.0) for process, used in after.items())


def _used() -> dict[tuple[int, float], float]:
    found = {}
    process = psutil.Process()
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found[one.pid, one.create_time()] = sum(one.cpu_times()[:2])
    return found


def table(found: SweepBench) -> list[tuple[str, ...]]:
    """Rows for the terminal: figure, value, what it consists of."""
    rows: list[tuple[str, ...]] = []
    for name, share in (("serial", found.serial), ("a local Ray", found.ray)):
        everything = sum(share.process_seconds.values())
        rows.append(
            (
                f"CPU time inside trials, {name}",
                f"{share.share:.0%}",
                f"{share.trials} trials of {1e3 * share.trial_seconds:.0f} ms; {everything:.1f} s in all",
            )
        )
        rows += [("", f"{seconds / everything:.1%}", kind) for kind, seconds in explained(share).items()]
    cost, batch, plain = found.driver, found.batch, found.plain
    per_batch = cost.trials / cost.batches
    rows += [
        (
            "driver, results and store",
            f"{cost.cpu_us_per_trial:.1f} us",
            f"a trial, CPU time, over {cost.trials:,} trials that are not run: results made up from "
            f"{MADE_UP_FROM} real ones",
        ),
        (
            "driver, memory",
            f"{cost.most_bytes / 1e6:.0f} MB",
            f"{cost.flat_from_bytes / 1e6:.0f} MB at 20,000",
        ),
        ("driver, a batch on Ray", f"{batch.cpu_ms:.2f} ms", "CPU time to send it and take it in"),
        (
            "driver, all of it",
            f"{cost.cpu_us_per_trial + 1e3 * batch.cpu_ms / per_batch:.1f} us",
            f"a trial in batches of {per_batch:.0f}, as for {1e3 * TRIAL_SECONDS:.0f} ms a trial",
        ),
        ("to the driver", f"{batch.outcome_bytes / 1e3:.1f} kB", "a trial"),
        (
            "against one Ray task a trial",
            f"{plain.speedup:.1f} x",
            f"{plain.trials} trials: {plain.plain_seconds:.2f} s plain, {plain.farm_seconds:.2f} s stored",
        ),
        (
            "",
            f"{plain.cpu_ratio:.1f} x",
            f"in CPU time: {plain.plain_cpu_seconds:.2f} s, {plain.farm_cpu_seconds:.2f} s",
        ),
    ]
    return rows


def explained(share: Share) -> dict[str, float]:
    """Where the CPU seconds outside trials went, by name."""
    rest = dict(share.process_seconds)
    if bench_cpu.WORKERS in rest:
        rest[bench_cpu.WORKERS] -= share.inside_seconds
        names = {
            bench_cpu.WORKERS: "workers: start, loading the event loop, trial ids, rows",
            bench_cpu.DRIVER: "driver: start, plan, batches, store",
        }
    else:
        rest[bench_cpu.DRIVER] -= share.inside_seconds
        names = {bench_cpu.DRIVER: "start, loading the event loop, plan, trial ids, rows, store"}
    return {names.get(kind, kind): seconds for kind, seconds in rest.items()}


def as_json(found: SweepBench) -> dict[str, Any]:
    """The same for a program."""
    return {
        **{name: part._asdict() for name, part in found._asdict().items()},
        "shares": {"serial": found.serial.share, "ray": found.ray.share},
        "speedup": found.plain.speedup,
        "cpu_ratio": found.plain.cpu_ratio,
    }
