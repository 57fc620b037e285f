"""The Ray executor: the same records as the serial one, whatever happens to a worker."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from farm import driver
from farm.batch import Job
from farm.batch import run_batch as run_batch_here
from farm.errors import ExecutorError
from farm.plan import Plan
from farm.progress import Progress
from farm.ray_executor import RayExecutor
from farm.rows import Outcome
from farm.store import Run
from farm.sweep import parse


def test_ray_and_serial_yield_the_same_bytes(
    tmp_path: Path, small: str, small_run: Run, ray_executor: RayExecutor, runner: Callable[..., Run]
) -> None:
    run = runner(tmp_path, small, ray_executor)
    assert run.canonical_records() == small_run.canonical_records()
    executors = run.query("attempts", "SELECT DISTINCT executor, retries FROM attempts")
    assert executors == [{"executor": "ray", "retries": 0}]


def test_a_trial_that_kills_its_worker_is_isolated(
    tmp_path: Path,
    small: str,
    small_run: Run,
    ray_executor: RayExecutor,
    finisher: Callable[..., Progress],
) -> None:
    deadly = 5

    def work(job: Job, numbers: range, executor: str, retries: int) -> Iterable[Outcome]:
        if deadly in numbers:
            os._exit(1)
        return run_batch_here(job, numbers, executor, retries)

    class TwoBatches:
        name = "ray"
        slots = 2

        def run(self, job: Job, batches: Iterator[range]) -> Iterator[Outcome]:
            list(batches)
            return ray_executor.with_work(work).run(job, iter([range(0, 8), range(8, 24)]))

    plan = Plan(parse(small, "x"))
    started = driver.start(plan, tmp_path, "ray")
    progress = finisher(plan, started, TwoBatches())
    assert (progress.done, progress.failed) == (24, 1)
    (failure,) = started.run.failures()
    assert failure["trial_id"] == plan.trial_id(deadly)
    assert failure["kind"] == "WorkerDied"
    whole = {row["trial_id"]: row for row in small_run.read_records()}
    del whole[plan.trial_id(deadly)]
    assert {row["trial_id"]: row for row in started.run.read_records()} == whole


def test_an_error_of_the_farm_in_a_worker_ends_the_run(ray_executor: RayExecutor, small: str) -> None:
    with pytest.raises(ExecutorError, match="install the same version on every node"):
        list(ray_executor.run(Job(small, "", {}, "another"), iter([range(1)])))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "nothing answers"),
        ("127.0.0.1:99999", "nothing answers"),
        ("head", "use host:port"),
        ("ray://head:10001", "use host:port"),
        ("auto", "use host:port"),
    ],
)
def test_an_unreachable_address_is_refused_at_once(address: str, says: str) -> None:
    with pytest.raises(ExecutorError, match=says) as refused:
        RayExecutor(address)
    assert f"address {address!r}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_only_the_result_reaches_standard_output(
    small_file: str, farm_process: Callable[[list[str]], object], tmp_path: Path
) -> None:
    process = farm_process(["run", small_file, "pool.size=64", "arch=armada-3720", "seeds=1", "--json"])
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert len(result["cells"]) == 4
    assert Path(result["run"]).parent == tmp_path / "runs" / "small"
