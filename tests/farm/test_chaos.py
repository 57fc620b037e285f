"""Sweeps during which workers, nodes and drivers are killed at random moments: no record changes or is lost.

Every process that is killed was started here. It is stopped first, and looked at: a kill counts if a worker
had a batch in hand that cannot have come back any more.
"""

import contextlib
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from farm.plan import Plan
from farm.store import runs as store
from farm.store.runs import Run
from farm.sweep import parse
from tests.farm.cluster import Cluster, cluster, has_batch

SWEEP = """
name = "chaos"
seeds = 20
[fixed]
duration_ms = 400
traffic.rate_pps = 1_000_000
traffic.kind = "poisson"
[grid]
arch = ["broadwell-ep", "armada-3720"]
app.reader = ["fast", "slow"]
pool.recycle = [true, false]
"""
"""160 trials of a tenth of a second"""

KILLS = {"worker": 34, "node": 8, "driver": 10}


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    with cluster(nodes=2) as found:
        yield found


@pytest.mark.long
@pytest.mark.parametrize("seed", [2026])
def test_kills_at_random_moments_change_no_record(
    nodes: Cluster, tmp_path: Path, runner: Callable[..., Run], seed: int
) -> None:
    """Runs of the sweep until there have been enough kills; each is resumed to its end."""
    serial = runner(tmp_path / "serial", SWEEP)
    chaos = Chaos(nodes, tmp_path, random.Random(seed))
    wanted = Counter(KILLS)
    kills: Counter[str] = Counter()
    rounds = 0
    while kills < wanted:
        run, found = chaos.round(wanted - kills)
        kills += found
        rounds += 1
        assert run.canonical_records() == serial.canonical_records()
        assert run.failures() == []
    trials = Plan(parse(SWEEP, "x")).trials
    print(
        f"{kills.total()} kills ({dict(kills)}) each lost a trial in flight; {rounds} runs of {trials} "
        f"trials with equal records; {chaos.poisoned} trials taken for poison and run again"
    )
    assert kills.total() >= 50


class Chaos:
    """Kills processes of a cluster and drivers on it."""

    def __init__(self, nodes: Cluster, directory: Path, draws: random.Random) -> None:
        self._nodes = nodes
        self._directory = directory
        self._draws = draws
        self._path = directory / "chaos.toml"
        self._path.write_text(SWEEP)
        self.poisoned = 0

    def round(self, wanted: "Counter[str]") -> "tuple[Run, Counter[str]]":
        """One run from its start to its end, whatever happens to its drivers."""
        kills: Counter[str] = Counter()
        before = set(store.runs(self._directory / "runs"))
        name = None
        retry: list[str] = []
        while True:
            what = [str(self._path)] if name is None else ["--resume", name, *retry]
            driver = self._nodes.farm(
                *("run", *what, "--store", "runs", "--address", self._nodes.address), cwd=self._directory
            )
            said = self._kill_while_it_runs(driver, wanted - kills, kills)
            new = set(store.runs(self._directory / "runs")) - before
            if new:
                [run] = new
                name = run.name
            if driver.returncode == 3 and name is not None:
                # killed so often while alone in its batch that it looks like poison
                self.poisoned += len(run.failures())
                retry = ["--retry-failures"]
                continue
            if driver.returncode == 0:
                return run, kills
            assert driver.returncode in (5, 130, -9), said

    def _kill_while_it_runs(
        self, driver: "subprocess.Popen[str]", wanted: "Counter[str]", kills: "Counter[str]"
    ) -> str:
        while driver.poll() is None:
            time.sleep(self._draws.uniform(0.1, 1.0))
            left = wanted - kills
            if not left:
                break
            [what] = self._draws.choices([*left], [*left.values()])
            kills[what] += getattr(self, f"_{what}")(driver)
        return driver.communicate()[1]

    def _worker(self, _supervisor: "subprocess.Popen[str]") -> bool:
        """Kill a worker that has a batch, if there is one; says whether there was."""
        with self._stopped_batch() as found:
            if found is not None:
                found[1].kill()
            return found is not None

    def _node(self, _supervisor: "subprocess.Popen[str]") -> bool:
        """Kill a node with a batch, likewise; another takes its place."""
        with self._stopped_batch() as found:
            if found is None:
                return False
            self._nodes.kill_node(found[0])
        self._nodes.add_node()
        return True

    def _driver(self, supervisor: "subprocess.Popen[str]") -> bool:
        """Kill a driver while a worker has a batch of it: itself, or the process outside."""
        children = psutil.Process(supervisor.pid).children()
        with self._stopped_batch() as found:
            if found is None or not children:
                return False
            (children[0] if self._draws.random() < 0.5 else supervisor).kill()
            supervisor.wait()
            # the result of the batch would have nowhere to go
            gone, _ = psutil.wait_procs(children, timeout=30)
            return len(gone) == len(children)

    @contextlib.contextmanager
    def _stopped_batch(self) -> Iterator[tuple[int, psutil.Process] | None]:
        """A worker that has a batch and its node; it is stopped in the block, and goes on after it."""
        found = None
        for number in self._draws.sample([*self._nodes.nodes], len(self._nodes.nodes)):
            for worker in self._nodes.workers(number):
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.suspend()
                    if has_batch(worker):
                        found = number, worker
                        break
                    worker.resume()
            if found:
                break
        try:
            yield found
        finally:
            if found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    found[1].resume()


@pytest.mark.long
def test_a_node_without_memory_costs_no_record(
    nodes: Cluster, tmp_path: Path, runner: Callable[..., Run]
) -> None:
    """Ray's memory monitor of one node believes that there is none left, and ends every worker there."""
    path = tmp_path / "chaos.toml"
    path.write_text(SWEEP)
    [first, *_] = nodes.nodes
    nodes.kill_node(first)
    monitor = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    poor = nodes.add_node(environment=monitor)
    command = ["run", str(path), "--store", "runs", "--address", nodes.address]
    driver = nodes.farm(*command, cwd=tmp_path)
    err = driver.communicate(timeout=300)[1]
    assert driver.returncode in (0, 3), err
    [run] = store.runs(tmp_path / "runs")
    [retried] = run.query("attempts", "SELECT max(retries) AS most FROM attempts")
    assert retried["most"] >= 1, "nothing was ended"
    assert {row["kind"] for row in run.failures()} <= {"OutOfMemory"}
    serial = runner(tmp_path / "serial", SWEEP)
    assert set(map(repr, run.read_records())) <= set(map(repr, serial.read_records()))
    nodes.kill_node(poor)
    again = ["run", "--resume", run.name, "--retry-failures", *command[2:]]
    driver = nodes.farm(*again, cwd=tmp_path)
    err = driver.communicate(timeout=300)[1]
    assert driver.returncode == 0, err
    assert run.canonical_records() == serial.canonical_records()


@pytest.mark.long
def test_a_node_lost_while_the_driver_writes_costs_no_record(
    nodes: Cluster, tmp_path: Path, runner: Callable[..., Run]
) -> None:
    path = tmp_path / "chaos.toml"
    path.write_text(SWEEP)
    driver = nodes.farm("run", str(path), "--store", "runs", "--address", nodes.address, cwd=tmp_path)
    # a part that is being written has a name with a dot
    while not any((tmp_path / "runs").glob("chaos/*/*/.*.parquet")):
        assert driver.poll() is None, driver.communicate()[1]
    [first, *_] = nodes.nodes
    nodes.kill_node(first)
    err = driver.communicate(timeout=300)[1]
    assert driver.returncode == 0, err
    [run] = store.runs(tmp_path / "runs")
    serial = runner(tmp_path / "serial", SWEEP)
    assert run.canonical_records() == serial.canonical_records()


@pytest.mark.long
def test_halves_on_different_executors_make_the_same_run(
    nodes: Cluster, tmp_path: Path, runner: Callable[..., Run], farm: Callable[..., tuple[int, str, str]]
) -> None:
    """Begun on a cluster, interrupted, gone on with on a local Ray, interrupted, ended in process."""
    path = tmp_path / "chaos.toml"
    path.write_text(SWEEP)
    serial = runner(tmp_path / "serial", SWEEP)
    what = [str(path)]
    stored = 0
    for where in (["--address", nodes.address], []):
        driver = nodes.farm("run", *what, "--store", "runs", *where, cwd=tmp_path)
        while not store.runs(tmp_path / "runs") or len(only(tmp_path).read_records()) <= stored:
            assert driver.poll() is None, driver.communicate()[1]
            time.sleep(0.1)
        driver.terminate()
        err = driver.communicate(timeout=60)[1]
        assert driver.returncode == 130, err
        assert "go on with: farm run --resume" in err
        stored = len(only(tmp_path).read_records())
        assert stored < len(serial.read_records())
        what = ["--resume", "last"]
    assert farm("run", "--resume", str(only(tmp_path).path), "--executor", "serial")[0] == 0
    assert only(tmp_path).canonical_records() == serial.canonical_records()


def only(directory: Path) -> Run:
    [run] = store.runs(directory / "runs")
    return run
