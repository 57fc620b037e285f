"""Enough seeds: the rule against SciPy's intervals, and the same records whatever the order of results."""

import math
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from farm import seeds
from farm.errors import SweepError
from farm.execution import driver
from farm.execution.batch import Job
from farm.execution.batches import Batches
from farm.execution.execute import SerialExecutor
from farm.execution.progress import Progress
from farm.execution.rounds import Rounds, trials_of
from farm.plan import Plan
from farm.ray.executor import RayExecutor
from farm.seeds import Until
from farm.store import runs as store
from farm.store import writer as writing
from farm.store.results import Results
from farm.store.rows import KINDS, Attempt, Failure, Outcome, table
from farm.store.runs import Run
from farm.sweep import parse
from workers.measures import MEASURES

MEASURE = "busy_ns_per_packet"

SWEEP = """
name = "enough"
seeds = { until = "busy_ns_per_packet", relative_ci = 0.05, min = 3, max = 9 }
[grid]
traffic.kind = ["poisson", "constant", "bursts"]
pool.size = [64, 128, 256, 512]
[[include]]
traffic.kind = "ramp"
pool.size = [64, 1024]
"""
"""14 cells, four of them with traffic that no seed changes"""

ATTEMPT = Attempt("h", "serial", "", 0.1, 0.0, 0.1, 10, "digest", "{}", 0)


def test_student_t_is_that_of_published_tables() -> None:
    # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2: upper critical values for 0.975
    published = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 29: 2.045, 49: 2.010, 100: 1.984}
    assert {n: round(seeds.student_t(n), 3) for n in published} == published


@given(st.lists(st.floats(1, 1000), min_size=2, max_size=20))
@settings(deadline=None)
def test_the_interval_is_scipys(values: list[float]) -> None:
    mean, error = sum(values) / len(values), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, mean, error) if error else (mean, mean)
    assert seeds.half_width(values) == pytest.approx((high - low) / 2, rel=1e-5, abs=1e-9)


def test_a_cell_has_enough_when_the_interval_is_narrow_or_there_are_no_more() -> None:
    until = Until(MEASURE, 0.1, 3, 5)
    assert not until.enough([10.0, 10.0])
    assert until.enough([10.0, 10.0, 10.0])
    # half widths of 4.303 * 0.5 / sqrt(3) = 1.24 and, with a fourth value, 3.182 * 0.408 / 2 = 0.65
    assert not until.enough([9.5, 10.0, 10.5])
    assert until.enough([9.5, 10.0, 10.5, 10.0])
    assert not until.enough([5.0, 10.0, 20.0, 40.0])
    assert until.enough([5.0, 10.0, 20.0, 40.0, 80.0])
    # a failed seed counts as a seed and not as a value
    assert not until.enough([10.0, None, None])
    assert until.enough([10.0, None, 10.0])
    assert until.enough([None, None, None])
    assert not until.enough([-1.0, 0.0, 1.0])


def made_up(number: int) -> float | None:
    """The value of a trial; None where it fails. Cells differ in their spread."""
    draw = random.Random(number)
    if draw.random() < 0.1:
        return None
    return 100 + draw.gauss(0, 1 + number // 9 % 5 * 3)


def made_up_outcome(plan: Plan, number: int) -> Outcome:
    value = made_up(number)
    result = (
        Failure("CheckError", "1 != 2") if value is None else dict.fromkeys(NAMES, 0.0) | {MEASURE: value}
    )
    return Outcome(number, f"id-{number}", plan.fields(number), result, ATTEMPT)


NAMES = [measure.name for measure in MEASURES]


@cache
def expected(text: str) -> set[int]:
    """The trials that are stored, by the definition: seeds of a cell one after the other until SciPy says
    that there are enough."""
    plan, found = Plan(parse(text, "x")), set()
    cells: dict[str, list[int]] = {}
    for number in range(plan.trials):
        cell = {name: value for name, value in plan.fields(number).items() if name != "seed"}
        cells.setdefault(repr(cell), []).append(number)
    for numbers in cells.values():
        for count in range(1, len(numbers) + 1):
            found.add(numbers[count - 1])
            values = [value for number in numbers[:count] if (value := made_up(number)) is not None]
            if count < 3:
                continue
            if not values:
                break
            mean = sum(values) / len(values)
            wide = math.inf
            if len(values) > 1 and stats.sem(values):
                wide = stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values))[1] - mean
            if wide <= 0.05 * abs(mean):
                break
    return found


def test_the_plan_knows_the_cell_of_a_trial() -> None:
    plan = Plan(parse(SWEEP, "x"))
    assert (plan.cells, plan.trials, plan.least_trials) == (14, 10 * 9 + 4, 10 * 3 + 4)
    for number in range(plan.trials):
        first, count = plan.cell(number)
        cell = [plan.fields(n) | {"seed": 0} for n in range(first, first + count)]
        assert cell == [plan.fields(number) | {"seed": 0}] * count
        assert plan.fields(first)["seed"] == 0
        assert count == (1 if cell[0]["traffic.kind"] == "constant" else 9)


def drive(
    plan: Plan, rounds: Rounds, stop: int | None, draw: random.Random
) -> Iterator[tuple[list[int], list[int]]]:
    """Run rounds with results in any order and several batches in flight; yields trials run and stored."""
    in_flight: list[range] = []
    run = 0
    while True:
        while len(in_flight) < 4 and (numbers := next(rounds, None)) is not None:
            in_flight.append(numbers)
        if not in_flight or (stop is not None and run >= stop):
            return
        numbers = in_flight.pop(draw.randrange(len(in_flight)))
        outcomes = [made_up_outcome(plan, number) for number in numbers]
        draw.shuffle(outcomes)
        run += len(outcomes)
        kept = rounds.take({kind: table(kind, outcomes) for kind in KINDS})
        stored = [
            n
            for kind in ("records", "failures")
            if kind in kept
            for n in kept[kind]["trial_number"].to_pylist()
        ]
        assert sorted(kept["attempts"]["trial_number"].to_pylist() if kept else []) == sorted(stored)
        yield list(numbers), stored


@given(st.integers(0, 1 << 30), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_the_trials_stored_follow_from_the_definition_in_any_order(seed: int, batch_trials: int) -> None:
    plan, draw = Plan(parse(SWEEP, "x")), random.Random(seed)
    rounds = Rounds(plan, None, batch_trials=lambda: batch_trials)
    run: list[int] = []
    stored: list[int] = []
    for numbers, kept in drive(plan, rounds, None, draw):
        run += numbers
        stored += kept
    assert len(run) == len(set(run))
    assert len(stored) == len(set(stored))
    assert set(stored) == expected(SWEEP)
    assert rounds.done.all()
    assert rounds.most_trials == rounds.done_trials == len(stored)
    # what is run for nothing is less than what is stored
    assert len(run) < 2 * len(stored)


@given(st.integers(0, 1 << 30), st.lists(st.integers(1, 30), max_size=3))
@settings(max_examples=10, deadline=None)
def test_a_resumed_run_ends_with_the_same_trials(
    tmp_path_factory: pytest.TempPathFactory, seed: int, stops: list[int]
) -> None:
    plan, draw = Plan(parse(SWEEP, "x")), random.Random(seed)
    run, writer = writing.create_run(tmp_path_factory.mktemp("runs"), plan.sweep, {}, {})
    rounds = Rounds(plan, None)
    for stop in (*stops, None):
        in_progress = Rounds(plan, run, batch_trials=lambda: draw.randint(1, 4))
        assert in_progress.stored == len(run.numbers("records")) + len(run.numbers("failures"))
        outcomes = []
        for _, stored in drive(plan, in_progress, stop, draw):
            outcomes += [made_up_outcome(plan, number) for number in stored]
        writer.write(outcomes)
    found = [*run.numbers("records").tolist(), *run.numbers("failures").tolist()]
    assert len(found) == len(set(found))
    assert set(found) == expected(SWEEP)
    assert rounds.most_trials == plan.trials
    assert trials_of(plan, run) == len(found)


def test_a_record_lost_between_two_parts_is_run_again(tmp_path: Path) -> None:
    plan = Plan(parse(SWEEP, "x"))
    run, writer = writing.create_run(tmp_path / "runs", plan.sweep, {}, {})
    cell = next(
        first for first in range(0, plan.trials, 9) if {first + seed for seed in range(5)} <= expected(SWEEP)
    )
    # a later seed is there, an earlier one is not
    writer.write([made_up_outcome(plan, cell + seed) for seed in (0, 2, 3)])
    rounds = Rounds(plan, run)
    for _, stored in drive(plan, rounds, None, random.Random(1)):
        writer.write([made_up_outcome(plan, number) for number in stored])
    found = [*run.numbers("records").tolist(), *run.numbers("failures").tolist()]
    assert sorted(found) == sorted(expected(SWEEP))


REAL = """
name = "real"
seeds = { until = "busy_ns_per_packet", relative_ci = 0.02, max = 8 }
[fixed]
duration_ms = 2
warmup_ms = 1
traffic.rate_pps = 200_000
app.reader = "fast"
[grid]
traffic.kind = ["constant", "poisson", "bursts"]
pool.size = [64, 1024]
"""


class Interrupted:
    """A serial executor that is interrupted after so many trials."""

    name = "serial"
    slots = 1

    def run(self, job: Job, batches: Batches) -> Iterator[Results]:
        for count, result in enumerate(SerialExecutor().run(job, batches)):
            if count == 11:
                raise KeyboardInterrupt
            yield result


def test_serial_ray_and_resumed_runs_end_with_the_same_records(
    tmp_path: Path,
    runner: Callable[..., Run],
    finisher: Callable[..., Progress],
    ray_executor: RayExecutor,
    farm: Callable[..., tuple[int, str, str]],
) -> None:
    serial = runner(tmp_path / "serial", REAL)
    count, _ = serial.counts()
    assert 4 * 3 + 2 < count < 4 * 8 + 2
    assert runner(tmp_path / "ray", REAL, ray_executor).canonical_records() == serial.canonical_records()
    plan = Plan(parse(REAL, "x"))
    started = driver.start(plan, tmp_path / "runs", "serial")
    with pytest.raises(KeyboardInterrupt):
        finisher(plan, started, Interrupted())
    assert 0 < started.run.counts()[0] <= 11
    plan, resumed = driver.resume(store.find(tmp_path / "runs", "last"), None, "serial")
    progress = finisher(plan, resumed, SerialExecutor())
    assert started.run.canonical_records() == serial.canonical_records()
    assert progress.trials == count
    assert trials_of(plan, started.run) == count
    assert f" {count} " in farm("list")[1]


def test_the_plan_says_at_least_and_at_most(
    farm: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "real.toml"
    path.write_text(REAL)
    out = " ".join(farm("plan", str(path), "--executor", "serial")[1].split())
    assert "at least 14, at most 34" in out


def test_the_resolved_sweep_is_the_same_sweep() -> None:
    sweep = parse(SWEEP, "x")
    assert sweep.until == Until(MEASURE, 0.05, 3, 9)
    assert parse(sweep.to_toml(), "y") == sweep
    assert parse(SWEEP, "x", ["seeds=4"]).until is None


@pytest.mark.parametrize(
    ("given_seeds", "says"),
    [
        (
            '{ until = "busy_ns", relative_ci = 0.01 }',
            "until = 'busy_ns': no such measure; did you mean busy_",
        ),
        (
            '{ until = "busy_ns_per_packet" }',
            "relative_ci = None: use a share of the mean above 0 and below 1",
        ),
        ('{ until = "busy_ns_per_packet", relative_ci = 1.5 }', "relative_ci = 1.5"),
        ('{ until = "busy_ns_per_packet", relative_ci = 0.1, min = 1 }', "min = 1: use an integer 2.."),
        (
            '{ until = "busy_ns_per_packet", relative_ci = 0.1, min = 5, max = 4 }',
            "max = 4: use an integer 5..",
        ),
        ('{ until = "busy_ns_per_packet", relative_c = 0.1 }', "'relative_c'; did you mean relative_ci?"),
        ('"many"', "use an integer 1..1000000, or a table such as"),
    ],
)
def test_bad_seeds_are_refused_with_the_remedy(given_seeds: str, says: str) -> None:
    with pytest.raises(SweepError) as refused:
        parse(f'name = "s"\nseeds = {given_seeds}', "x")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
