"""Running a plan: batches, progress, failures, interruption and resume."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workers
from farm.errors import ExecutorError, StoreError, SweepError
from farm.execution import driver
from farm.execution.batch import Job, run_batch
from farm.execution.batches import Batches, missing
from farm.execution.execute import SerialExecutor
from farm.execution.progress import Progress
from farm.plan import Plan
from farm.store import runs as store
from farm.store.results import Results, together
from farm.store.rows import Attempt, Failure, Outcome
from farm.store.runs import Run
from farm.sweep import parse
from workers.arrivals import capture
from workers.config import TrialConfig
from workers.errors import CheckError
from workers.profiles import arch
from workers.stopper import Stopper


@given(st.lists(st.booleans()), st.integers(1, 5))
def test_batches_hold_exactly_the_missing_trials_in_order(done: list[bool], size: int) -> None:
    batches = list(missing(numpy.array(done, dtype=bool), lambda: size))
    assert [number for batch in batches for number in batch] == [i for i, d in enumerate(done) if not d]
    assert all(1 <= len(batch) <= size for batch in batches)


class Interrupted:
    """A serial executor that is interrupted after so many trials."""

    name = "serial"
    slots = 1

    def __init__(self, after: int) -> None:
        self._after = after

    def run(self, job: Job, batches: Batches) -> Iterator[Results]:
        for count, result in enumerate(SerialExecutor().run(job, batches)):
            if count == self._after:
                raise KeyboardInterrupt
            yield result


def test_an_interrupted_run_is_resumed_where_it_stopped(
    tmp_path: Path, small: str, small_run: Run, finisher: Callable[..., Progress]
) -> None:
    plan = Plan(parse(small, "x"))
    started = driver.start(plan, tmp_path, "serial")
    with pytest.raises(KeyboardInterrupt):
        finisher(plan, started, Interrupted(after=7))
    assert len(started.run.read_records()) == 7
    plan, resumed = driver.resume(store.find(tmp_path, "last"), None, "serial")
    assert resumed.done.sum() == 7
    progress = finisher(plan, resumed, SerialExecutor())
    assert progress.done == plan.trials
    assert started.run.canonical_records() == small_run.canonical_records()
    attempts = started.run.query("attempts", "SELECT count(*) AS n FROM attempts")
    assert attempts == [{"n": plan.trials}]


CAPTURED = """
name = "captured"
[fixed]
traffic.kind = "capture"
traffic.capture = "own.pcap.gz"
warmup_ms = 1
[grid]
arch = ["own.toml", "armada-3720"]
pool.size = [64, 128]
"""


def test_a_run_keeps_its_inputs(
    tmp_path: Path,
    finisher: Callable[..., Progress],
    runner: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "before").mkdir()
    monkeypatch.chdir(tmp_path / "before")
    shutil.copy(capture.resolve("tcp_bulk"), "own.pcap.gz")
    text = arch.BUNDLED.joinpath("broadwell-ep.toml").read_text()
    Path("parent.toml").write_text(text)
    Path("own.toml").write_text('title = "t"\ndescription = "d"\nparent = "parent.toml"\n')
    whole = runner(tmp_path / "runs", CAPTURED)
    plan = Plan(parse(CAPTURED, "x"))
    started = driver.start(plan, tmp_path / "runs", "serial")
    with pytest.raises(KeyboardInterrupt):
        finisher(plan, started, Interrupted(after=1))
    for path in started.run.inputs_directory.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    (tmp_path / "after").mkdir()
    monkeypatch.chdir(tmp_path / "after")
    plan, resumed = driver.resume(started.run, None, "serial")
    assert resumed.done.sum() == 1
    finisher(plan, resumed, SerialExecutor())
    assert started.run.canonical_records() == whole.canonical_records()
    assert {row["arch"] for row in whole.read_records()} == {"own.toml", "armada-3720"}


def test_a_finished_run_has_nothing_left_to_resume(tmp_path: Path, small_run: Run) -> None:
    plan = Plan(small_run.sweep)
    rows = small_run.query("records", "SELECT trial_id, trial_number FROM records")
    numbers = {row["trial_id"]: row["trial_number"] for row in rows}
    assert numbers == {plan.trial_id(number): number for number in range(plan.trials)}
    shutil.copytree(small_run.path, tmp_path / "small" / small_run.name)
    assert driver.resume(store.find(tmp_path, "last"), None, "serial")[1].done.all()


@pytest.mark.parametrize("error", [CheckError("1 != 2"), ZeroDivisionError("by\nzero")])
def test_a_broken_trial_becomes_a_failure_and_the_others_go_on(
    tmp_path: Path, small: str, error: Exception, runner: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = workers.run_trial

    def run_trial(config: TrialConfig, stopper: Stopper, *, alone: bool) -> workers.Record:
        if config.pool.size == 64 and config.seed == 1:
            raise error
        return real(config, stopper, alone=alone)

    monkeypatch.setattr(workers, "run_trial", run_trial, raising=False)
    run = runner(tmp_path, small)
    failures = run.failures()
    assert len(failures) == 4
    assert {(row["kind"], row["message"]) for row in failures} == {
        (type(error).__name__, str(error).replace("\n", " "))
    }
    assert len(run.read_records()) == 20


def test_another_model_in_the_worker_is_refused(small: str) -> None:
    with pytest.raises(ExecutorError, match="install the same version on every node"):
        next(iter(run_batch(Job(small, "", {}, "another"), range(1), "serial")))


def test_a_run_of_another_model_or_sweep_is_not_resumed(
    tmp_path: Path, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = driver.start(Plan(parse(small, "x")), tmp_path, "serial")
    with pytest.raises(SweepError, match="leave out SWEEP"):
        driver.resume(started.run, parse(small, "x", ["nic.budget=32"]), "serial")
    assert driver.resume(started.run, parse(small, "x"), "serial")[0].trials == 24
    monkeypatch.setattr(workers, "model_digest", lambda: "another", raising=False)
    with pytest.raises(StoreError, match="start a new run"):
        driver.resume(started.run, None, "serial")


def results(seconds: float, packets: int, compile_seconds: float = 0.0, broken: bool = False) -> Results:
    attempt = Attempt("h", "serial", "", seconds, compile_seconds, seconds, packets, "", "", 0)
    return Results.of([Outcome(0, "id", {}, Failure("E", "m") if broken else {}, attempt)])


def test_progress_counts_and_foresees() -> None:
    now = 100.0
    progress = Progress(trials=100, stored=10, slots=2, clock=lambda: now)
    assert (progress.done, progress.seconds_left, progress.packets_per_second) == (10, None, 0.0)
    assert progress.batch_trials == 1
    now = 101.0
    progress.add(results(0.5, 1000, compile_seconds=3.0))
    now = 101.5
    progress.add(results(0.5, 1000, broken=True))
    assert (progress.done, progress.failed, progress.packets) == (12, 1, 2000)
    assert progress.packets_per_second == 2000 / 1.0
    assert progress.seconds_left == 88 * 0.5 / 2
    assert progress.compile_seconds == 3.0


@pytest.mark.parametrize(
    ("trial_seconds", "slots", "unsent", "trials"),
    [
        (0.1, 2, 10_000, 30),  # three seconds of work
        (0.1, 400, 10**6, 40),  # four where many slots ask
        (0.1, 10**5, 10**9, 50),  # but five at most
        (60.0, 2, 10_000, 1),
        (1e-9, 2, 10**9, 4_000),  # bounded for memory
        (0.1, 2, 20, 5),  # the end is shared
        (0.1, 2, 3, 1),
        (0.001, 2, 3, 50),  # but not down to trials that cost less than their batch
    ],
)
def test_batches_take_seconds_and_shrink_toward_the_end(
    trial_seconds: float, slots: int, unsent: int, trials: int
) -> None:
    progress = Progress(trials=unsent + 8, stored=0, slots=slots, clock=lambda: 0.0)
    progress.under_way = 8
    progress.add(results(trial_seconds, 1))
    assert progress.batch_trials == trials


def test_what_a_worker_did_not_get_to_is_sent_again_in_smaller_parts() -> None:
    progress = Progress(trials=100, stored=0, slots=1, clock=lambda: 0.0)
    batches = Batches(iter([range(10), range(10, 100)]), progress)
    assert next(batches) == range(10)
    assert progress.under_way == 10
    progress.add(results(0.5, 1))
    batches.give_back(range(1, 10))
    batches.give_back(range(0))
    assert progress.under_way == 0
    assert list(batches) == [range(1, 7), range(7, 10), range(10, 100)]
    assert progress.under_way == 99


def test_rows_are_the_same_after_their_way_to_another_process(small: str) -> None:
    job = Job(small, "", {}, workers.model_digest())
    outcomes = list(run_batch(job, range(3), "serial"))
    broken = Outcome(0, "id", dict(outcomes[0].fields), Failure("E", "m"), outcomes[0].attempt)
    whole = Results.of([*outcomes, broken])
    assert together([whole]) == together([Results.of(outcomes).packed(), Results.of([broken]).packed()])
    assert {kind: rows.num_rows for kind, rows in together([whole]).items()} == {
        "records": 3,
        "attempts": 4,
        "failures": 1,
    }


def test_a_trial_beyond_its_deadline_is_a_failure_and_the_others_go_on(small: str) -> None:
    plan = Plan(parse(small, "x", ["duration_ms=3,10_000", "traffic.rate_pps=10_000_000"]))
    job = Job(plan.sweep.to_toml(), "", {}, workers.model_digest(), deadline_seconds=0.3)
    endless = next(n for n in range(plan.trials) if plan.fields(n)["duration_ms"] == 10_000)
    short = next(n for n in range(plan.trials) if plan.fields(n)["duration_ms"] == 3)
    [broken] = run_batch(job, range(endless, endless + 1), "serial")
    [whole] = run_batch(job, range(short, short + 1), "serial")
    assert broken.result == Failure(
        "DeadlineExceeded", "took longer than 0.3 s; raise --deadline or lower duration_ms"
    )
    assert not isinstance(whole.result, Failure)
