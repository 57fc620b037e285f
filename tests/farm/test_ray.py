"""The Ray executor: the same records as the serial one, whatever happens to a worker."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import workers
from farm.errors import ExecutorError
from farm.execution import driver
from farm.execution.batch import Job
from farm.execution.batch import run_batch as run_batch_here
from farm.execution.batches import Batches
from farm.execution.execute import job_of
from farm.execution.progress import MOST_BATCH_SECONDS, Progress
from farm.plan import Plan
from farm.ray.executor import RayExecutor
from farm.ray.work import end_worker, note_key
from farm.store.results import Results, together
from farm.store.rows import Outcome, canonical
from farm.store.runs import Run
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

    plan = Plan(parse(small, "x"))
    started = driver.start(plan, tmp_path, "ray")
    progress = finisher(plan, started, InBatches(ray_executor.with_work(work), range(0, 8), range(8, 24)))
    assert (progress.done, progress.failed) == (24, 1)
    (failure,) = started.run.failures()
    assert failure["trial_id"] == plan.trial_id(deadly)
    assert failure["kind"] == "WorkerDied"
    whole = {row["trial_id"]: row for row in small_run.read_records()}
    del whole[plan.trial_id(deadly)]
    assert {row["trial_id"]: row for row in started.run.read_records()} == whole


class InBatches:
    """An executor that is given these batches, whatever the driver would make of the trials."""

    name = "ray"
    slots = 2

    def __init__(self, executor: RayExecutor, *numbers: range) -> None:
        self._executor = executor
        self._numbers = numbers

    def run(self, job: Job, batches: Batches) -> Iterator[Results]:
        list(batches)
        return self._executor.run(job, batches_of(*self._numbers))


def batches_of(*numbers: range) -> Batches:
    return Batches(iter(numbers), Progress(sum(map(len, numbers)), 0, 2))


def test_a_trial_that_cannot_be_stopped_ends_its_worker_and_is_known_at_once(
    small: str, ray_executor: RayExecutor
) -> None:
    """The note that its worker leaves names it: nothing is split, and it is not tried again."""
    stuck = 5

    def work(job: Job, numbers: range, executor: str, retries: int) -> Iterable[Outcome]:
        for number in numbers:
            if number == stuck:
                end_worker(note_key(job, numbers, retries), number)
            yield from run_batch_here(job, range(number, number + 1), executor, retries)

    job = Job(small, "", {}, workers.model_digest())
    found = together(ray_executor.with_work(work).run(job, batches_of(range(8))))
    [failure] = found["failures"].to_pylist()
    assert (failure["kind"], failure["trial_id"]) == (
        "DeadlineExceeded",
        Plan(parse(small, "x")).trial_id(stuck),
    )
    assert "its worker was ended" in failure["message"]
    assert found["records"].num_rows == 7
    # sent again once at the most: what was left of its batch
    assert set(found["attempts"].column("retries").to_pylist()) <= {0, 1}


def test_a_batch_comes_back_in_time_whatever_was_expected(
    small: str, ray_executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(job: Job, numbers: range, executor: str, retries: int) -> Iterable[Outcome]:
        for number in numbers:
            time.sleep(0.4 * MOST_BATCH_SECONDS)
            yield from run_batch_here(job, range(number, number + 1), executor, retries)

    job = Job(small, "", {}, workers.model_digest())
    first = next(iter(ray_executor.with_work(slow).run(job, batches_of(range(24)))))
    assert first.trials == 3


def test_a_node_that_does_not_see_the_run_gets_its_inputs(
    tmp_path: Path, small: str, small_run: Run, ray_executor: RayExecutor
) -> None:
    """The directory is gone when the batch arrives."""
    copy = tmp_path / "inputs"
    shutil.copytree(small_run.inputs_directory, copy)
    job = replace(job_of(small_run), inputs_directory=str(copy))
    batches = batches_of(range(4), range(4, 24))

    def take_away() -> Iterator[range]:
        shutil.rmtree(copy)
        yield from batches

    records = together(ray_executor.run(job, Batches(take_away(), Progress(24, 0, 2))))["records"]
    # what a record is, without the columns that only resume needs
    columns = [*small_run.read_records()[0]]
    rows = sorted(records.select(columns).to_pylist(), key=lambda row: row["trial_id"])
    assert b"".join(canonical(row) + b"\n" for row in rows) == small_run.canonical_records()


def test_an_error_of_the_farm_in_a_worker_ends_the_run(ray_executor: RayExecutor, small: str) -> None:
    with pytest.raises(ExecutorError, match="install the same version on every node"):
        list(ray_executor.run(Job(small, "", {}, "another"), batches_of(range(1))))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "nothing answers"),
        ("127.0.0.1:99999", "nothing answers"),
        ("head", "use host:port"),
        ("ray://head", "use host:port"),
        ("ray://127.0.0.1:1", "nothing answers"),
        ("http://127.0.0.1:1", "use host:port"),
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
