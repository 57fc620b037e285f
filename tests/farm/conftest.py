"""Small sweeps, a way to run the command line, and one Ray for all tests that need it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from farm.cli import main
from farm.execution import driver
from farm.execution.execute import Executor, SerialExecutor, execute
from farm.execution.progress import Progress
from farm.plan import Plan
from farm.ray.executor import RayExecutor
from farm.store import runs as store
from farm.store.runs import Run
from farm.sweep import parse

SMALL = """
name = "small"
seeds = 2
[fixed]
duration_ms = 3
warmup_ms = 1
traffic.rate_pps = 200_000
app.reader = "fast"
[grid]
arch = ["broadwell-ep", "armada-3720"]
traffic.kind = ["constant", "poisson"]
pool.size = [64, 1024]
pool.recycle = [true, false]
"""
"""16 cells; 24 trials, since the seed cannot matter to constant traffic"""

RunCommand = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees a store or a setting of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(("FARM_", "GRAFANA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FARM_STORE", str(tmp_path / "runs"))


@pytest.fixture
def small() -> str:
    return SMALL


@pytest.fixture
def small_file(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture
def farm(capfd: pytest.CaptureFixture[str]) -> RunCommand:
    """Run the command line in this process: exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        out, err = capfd.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, out, err

    return run


@pytest.fixture
def farm_process() -> Iterator[Callable[[Sequence[str]], subprocess.Popen[str]]]:
    """Start the command line in a process of its own; what still runs at the end is killed."""
    with ExitStack() as started:

        def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "farm.cli", *arguments]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield start


@pytest.fixture(scope="session")
def ray_executor() -> Iterator[RayExecutor]:
    with RayExecutor() as executor:
        yield executor


def run_all(root: Path, text: str, executor: Executor | None = None) -> Run:
    """A new run of a sweep, all of it."""
    executor = executor or SerialExecutor()
    plan = Plan(parse(text, "test"))
    started = driver.start(plan, root, executor.name)
    finish(plan, started, executor)
    return started.run


def finish(plan: Plan, started: driver.Started, executor: Executor) -> Progress:
    """Run what a started run misses."""
    progress = Progress(started.trials, started.stored, executor.slots)
    arguments = (plan, started.run, started.writer, executor, started.done, progress, lambda _: None)
    execute(*arguments, rounds=started.rounds)
    return progress


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the small sweep; tests only read it."""
    return run_all(tmp_path_factory.mktemp("store"), SMALL)


@pytest.fixture
def runner() -> Callable[..., Run]:
    return run_all


@pytest.fixture
def finisher() -> Callable[..., Progress]:
    return finish


@pytest.fixture
def last_run(tmp_path: Path) -> Callable[[], Run]:
    """The latest run of the test's own store."""
    return lambda: sorted(store.runs(tmp_path / "runs"), key=lambda run: run.name)[-1]
