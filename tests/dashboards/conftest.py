"""A store of made-up records, and a real Prometheus that scrapes its metrics."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from farm.answers.advise import advise, target_of
from farm.answers.compare import compare_axis
from farm.execution import driver
from farm.execution.execute import SerialExecutor, execute
from farm.execution.progress import Progress
from farm.metrics.collector import StoreCollector
from farm.metrics.server import MetricsServer
from farm.plan import Plan
from farm.store import writer as writing
from farm.store.rows import Attempt, Failure, Outcome
from farm.store.runs import Run
from farm.sweep import parse
from tests.dashboards import decided
from workers.fields.groups import Value
from workers.measures import HISTOGRAMS, MEASURES

PATIENCE_SECONDS = 30.0

SWEEP = """
name = "made-up"
seeds = 3
[grid]
arch = ["broadwell-ep", "armada-8040"]
traffic.kind = ["poisson", "bursts"]
pool.size = [64, 256, 1024]
pool.recycle = [true, false]
app.work_ns = [0, 2500]
"""

OTHER_SWEEP = """
name = "other"
[fixed]
arch = "armada-3720"
traffic.kind = "constant"
[grid]
pool.recycle = [true, false]
"""

SIMULATED_SWEEP = """
name = "simulated"
seeds = 2
[fixed]
duration_ms = 6
traffic.kind = "bursts"
app.reader = "slow"
[grid]
arch = ["broadwell-ep", "armada-3720"]
pool.size = [64, 1024]
pool.recycle = [true, false]
nic.rx_ring = [256, 512]
"""


def made_up_measures(salt: str, fields: dict[str, Value]) -> dict[str, float]:
    """Irregular numbers that depend on everything about a trial."""
    measures: dict[str, float] = {}
    for measure in MEASURES:
        draw = zlib.crc32(repr((salt, measure.name, sorted(fields.items()))).encode())
        measures[measure.name] = draw / 2**32 if measure.unit == "ratio" else float(draw % 100_003 + 1)
    if not draw % 3:
        # nothing has come back to a pool that has gone
        del measures["drain_forecast_seconds"]
    return measures | {"measured_seconds": 0.018}


def made_up_histograms(salt: str, fields: dict[str, Value]) -> dict[str, list[int]]:
    """Packets of irregular times between a quarter of a microsecond and a second, by bucket of a record."""
    found = {}
    for name in HISTOGRAMS:
        draw = zlib.crc32(repr((salt, name, sorted(fields.items()))).encode())
        octaves = range(12 + draw % 3, 36, 1 + draw % 4)
        found[name] = [n for o in octaves for n in ((o << 6) + 32 + (draw * o) % 32, 1 + (draw >> o) % 999)]
    return found


def store_made_up_run(root: Path, text: str, salt: str, *, leave_out: int = 0) -> Run:
    """Store a run; its trial number 5 breaks, and the last ``leave_out`` ones are still to come."""
    plan = Plan(parse(text, "test"))
    run, writer = writing.create_run(root, plan.sweep, {}, {"model_digest": f"digest-{salt}"})
    outcomes = []
    for number in range(plan.trials - leave_out):
        fields = plan.fields(number)
        attempt = Attempt(
            host=f"node-{number % 3}",
            executor="serial",
            started_at="2026-01-01T00:00:00.000+00:00",
            wall_seconds=0.1 + number / 64,
            compile_seconds=number / 8,
            cpu_seconds=0.1,
            packets=100 + number,
            model_digest=f"digest-{salt}",
            versions=json.dumps({"page-pool-farm": "0.1.0", "python": "3.11.7", "numba": "0.68.1"}),
            retries=int(number % 7 == 0),
        )
        broken = Failure("CheckError", "made up")
        record = made_up_measures(salt, fields) | made_up_histograms(salt, fields)
        result = broken if number == 5 else record
        outcomes.append(Outcome(number, f"{salt}-{number:06d}", fields, result, attempt))
    half = len(outcomes) // 2
    for part in (outcomes[:half], outcomes[half:]):
        writer.write(part)
    return run


@pytest.fixture(scope="session")
def made_up_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A store and the run of it that the tests look at: the newest of two, beside another sweep."""
    root = tmp_path_factory.mktemp("store")
    store_made_up_run(root, SWEEP, "older")
    store_made_up_run(root, OTHER_SWEEP, "other")
    # trials of the last cells are missing, so that some cells have no partner to compare with
    run = store_made_up_run(root, SWEEP, "newest", leave_out=10)
    decided.keep(root, compare_axis(run, "pool.size"), decided.made_up_advice(), "made-up", run)
    return root, run


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str, time: float | None = None) -> list[dict[str, Any]]:
        """The result of an instant query, now or at a time."""
        at = {} if time is None else {"time": time}
        parameters = urllib.parse.urlencode({"query": expression} | at)
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{parameters}", timeout=10) as answer:
            data = json.load(answer)["data"]
        result: list[dict[str, Any]] = data["result"]
        return result


@pytest.fixture(scope="session")
def simulated_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A store with one small run of real trials."""
    root = tmp_path_factory.mktemp("simulated")
    plan = Plan(parse(SIMULATED_SWEEP, "test"))
    started = driver.start(plan, root, "serial")
    executor = SerialExecutor()
    progress = Progress(plan.trials, 0, executor.slots)
    execute(plan, started.run, started.writer, executor, started.done, progress, lambda progress: None)
    few = ["pool.recycle=true", "nic.rx_ring=256", "seeds=1"]
    advice = advise(parse(SIMULATED_SWEEP, "test", few), [target_of("recycle_ratio>=0.5")])
    decided.keep(root, compare_axis(started.run, "nic.rx_ring"), advice, plan.sweep.name, started.run)
    return root, started.run


def find_program(name: str) -> str:
    """Where a program is; without it the test is skipped, but fails where everything has to be tested."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="session")
def run_prometheus() -> Callable[..., AbstractContextManager[Prometheus]]:
    """Called with a store, an empty directory and perhaps a history: a Prometheus that has scraped it."""
    return prometheus_of


@pytest.fixture(scope="session")
def promtool() -> str:
    """Where promtool is."""
    return find_program("promtool")


@contextmanager
def prometheus_of(root: Path, directory: Path, history: str | None = None) -> Iterator[Prometheus]:
    """Serve a store's metrics and run a Prometheus that has scraped them at least once, and holds a history
    given as OpenMetrics."""
    program = find_program("prometheus")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if history is not None:
        blocks = directory / "history.om"
        blocks.write_text(history, encoding="utf-8")
        command = [find_program("promtool"), "tsdb", "create-blocks-from", "openmetrics"]
        subprocess.run([*command, str(blocks), str(directory / "data")], check=True, capture_output=True)
    with MetricsServer(StoreCollector(root), 0, "127.0.0.1") as server:
        config = directory / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            "scrape_configs:\n"
            "  - job_name: page-pool-farm\n"
            f"    static_configs: [{{targets: ['127.0.0.1:{server.port}']}}]\n"
        )
        command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            # blocks of a history may be older than the default of 15 days
            "--storage.tsdb.retention.time=10y",
        ]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            prometheus = Prometheus(f"http://127.0.0.1:{port}")
            wait_for_scrape(prometheus, process, directory / "log")
            yield prometheus
        finally:
            process.terminate()
            process.wait(10)


def wait_for_scrape(prometheus: Prometheus, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if [one["value"][1] for one in prometheus.query("up")] == ["1"]:
                return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.1)
    pytest.fail(f"no scrape by Prometheus in {PATIENCE_SECONDS} s: {log.read_text()}")
