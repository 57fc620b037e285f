"""The store: nothing half-written, nothing altered, damage named in one line."""

import hashlib
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pyarrow
import pyarrow.parquet
import pytest

from farm.errors import StoreError
from farm.execution import driver
from farm.plan import Plan
from farm.store import runs as store
from farm.store import writer as writing
from farm.store.rows import Attempt, Failure, Outcome
from farm.store.runs import Run
from farm.store.writer import Writer
from farm.sweep import parse
from workers.measures import MEASURES

ATTEMPT = Attempt("host", "serial", "2026-01-01T00:00:00.000+00:00", 0.1, 0.0, 0.1, 10, "digest", "{}", 0)


def outcome(plan: Plan, number: int, broken: bool = False) -> Outcome:
    record = {measure.name: float(number) for measure in MEASURES}
    result = Failure("CheckError", "1 != 2") if broken else record
    return Outcome(number, plan.trial_id(number), plan.config(number).to_fields(), result, ATTEMPT)


@pytest.fixture
def plan(small: str) -> Plan:
    return Plan(parse(small, "x"))


@pytest.fixture
def created(tmp_path: Path, plan: Plan) -> tuple[Run, Writer]:
    return writing.create_run(tmp_path / "runs", plan.sweep, {}, {"model_digest": "digest"})


def contents(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_new_run_holds_its_sweep_its_inputs_and_a_manifest(tmp_path: Path, plan: Plan) -> None:
    run, _ = writing.create_run(tmp_path / "runs", plan.sweep, {"abc": b"x = 1"}, {"host": "here"})
    assert run.path.parent == tmp_path / "runs" / "small"
    assert run.sweep == plan.sweep
    assert (run.inputs_directory / "abc").read_text() == "x = 1"
    assert run.manifests() == [{"format": 2, "host": "here"}]
    assert run.read_records() == []
    assert run.counts() == (0, 0)


def test_writing_leaves_everything_there_as_it_was(created: tuple[Run, Writer], plan: Plan) -> None:
    run, writer = created
    writer.write([outcome(plan, 0)])
    before = contents(run.path)
    writer.write([outcome(plan, 1), outcome(plan, 2, broken=True)])
    again = writing.reopen_run(run, {})
    again.write([outcome(plan, 3)])
    after = contents(run.path)
    assert before.items() <= after.items()
    assert len(run.manifests()) == 2
    assert not list(run.path.rglob(".*"))


def test_records_come_sorted_and_each_trial_once(created: tuple[Run, Writer], plan: Plan) -> None:
    run, writer = created
    writer.write([outcome(plan, 1), outcome(plan, 0)])
    writer.write([outcome(plan, 1), outcome(plan, 2)])
    ids = [row["trial_id"] for row in run.read_records()]
    assert ids == sorted({plan.trial_id(number) for number in (0, 1, 2)})
    paths = [str(path) for path in run.parts("records")]
    assert duckdb.sql(f"SELECT count(*) FROM read_parquet({paths})").fetchall() == [(4,)]


def test_equal_records_are_equal_bytes_however_they_were_batched(tmp_path: Path, plan: Plan) -> None:
    outcomes = [outcome(plan, number) for number in range(6)]
    one, writer = writing.create_run(tmp_path / "one", plan.sweep, {}, {})
    writer.write(outcomes)
    many, writer = writing.create_run(tmp_path / "many", plan.sweep, {}, {})
    for each in reversed(outcomes):
        writer.write([each])
    assert one.canonical_records() == many.canonical_records() != b""
    writer.write([outcome(plan, 6)])
    assert one.canonical_records() != many.canonical_records()


def test_a_record_has_every_field_and_every_measure(created: tuple[Run, Writer], plan: Plan) -> None:
    run, writer = created
    writer.write([outcome(plan, 5)])
    (row,) = run.read_records()
    config = plan.config(5).to_fields()
    expected = config | {name: str(config[name]) for name in ("traffic.packet_size", "machine.clock_mhz")}
    assert {name: row[name] for name in config} == expected
    assert {measure.name: row[measure.name] for measure in MEASURES} == dict.fromkeys(
        (measure.name for measure in MEASURES), 5.0
    )


def test_failed_trials_are_done_and_kept_apart(created: tuple[Run, Writer], plan: Plan) -> None:
    run, writer = created
    writer.write([outcome(plan, 0), outcome(plan, 1, broken=True), outcome(plan, 2, broken=True)])
    writer.write([outcome(plan, 2)])
    assert run.counts() == (2, 1)
    (failure,) = run.failures()
    assert failure["trial_id"] == plan.trial_id(1)
    assert (failure["kind"], failure["message"]) == ("CheckError", "1 != 2")
    assert json.loads(failure["config"]) == plan.config(1).to_fields()


def test_a_trial_is_done_when_its_record_or_failure_is_there(
    created: tuple[Run, Writer], plan: Plan, tmp_path: Path
) -> None:
    run, writer = created
    writer.write([outcome(plan, 0), outcome(plan, 1, broken=True)])
    writer.write([outcome(plan, 2), outcome(plan, 3, broken=True)])
    writer.write([outcome(plan, 4, broken=True)])
    assert set(run.done()["trial_number"].to_pylist()) == {0, 1, 2, 3, 4}
    # as a driver leaves it that is killed between two parts
    run.parts("records")[-1].unlink()
    assert set(run.done()["trial_number"].to_pylist()) == {0, 1, 3, 4}
    assert run.counts() == (1, 3)
    run.parts("failures")[-1].unlink()
    assert set(run.done()["trial_number"].to_pylist()) == {0, 1, 3}
    again = writing.reopen_run(run, {})
    again.write([outcome(plan, number) for number in (1, 2, 4)])
    assert sorted(run.done()["trial_number"].to_pylist()) == [0, 1, 1, 2, 3, 4]
    assert run.counts() == (4, 1)
    assert run.duplicates() is None
    again.write([outcome(plan, 0)])
    assert run.duplicates() == store.Duplicates(1, (writer_of(run, 0), writer_of(run, -1)))
    assert len(run.query("attempts", "SELECT * FROM attempts")) == 5


def writer_of(run: Run, part: int) -> str:
    return run.part_names("records")[part].rpartition("-")[0]


def test_a_part_under_its_temporary_name_is_not_read(created: tuple[Run, Writer], plan: Plan) -> None:
    run, writer = created
    writer.write([outcome(plan, 0)])
    (run.path / "records" / ".half.parquet").write_bytes(b"PAR1 half")
    assert len(run.read_records()) == 1


def break_part(run: Run) -> Path:
    path = run.parts("records")[0]
    path.write_bytes(path.read_bytes()[:100])
    return path


def break_sweep(run: Run) -> Path:
    path = run.path / "sweep.toml"
    path.write_text("name = [")
    return path


def break_sweep_field(run: Run) -> Path:
    path = run.path / "sweep.toml"
    path.write_text(path.read_text().replace("pool.size", "pool.siez"))
    return path


def remove_sweep(run: Run) -> Path:
    path = run.path / "sweep.toml"
    path.unlink()
    return path


def break_manifest(run: Run) -> Path:
    path = next((run.path / "manifests").iterdir())
    path.write_text("[1]")
    return path


def remove_manifests(run: Run) -> Path:
    next((run.path / "manifests").iterdir()).unlink()
    return run.path / "manifests"


DAMAGE = [break_part, break_sweep, break_sweep_field, remove_sweep, break_manifest, remove_manifests]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda function: function.__name__)
def test_damage_is_named_in_one_line(
    created: tuple[Run, Writer], plan: Plan, damage: Callable[[Run], Path]
) -> None:
    run, writer = created
    writer.write([outcome(plan, 0)])
    path = damage(run)
    with pytest.raises(StoreError) as refused:
        store.find(run.path.parent.parent, run.name).read_records()
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    assert "restore" in message


def unwritable_roots(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "file"
    file.write_text("")
    yield file
    yield file / "below"
    yield Path("/proc/runs")


def test_a_root_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path, plan: Plan) -> None:
    for root in unwritable_roots(tmp_path):
        with pytest.raises(StoreError, match="name a writable directory") as refused:
            writing.create_run(root, plan.sweep, {}, {})
        assert str(root) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_run_that_cannot_be_completed_does_not_appear(tmp_path: Path, plan: Plan) -> None:
    with pytest.raises(StoreError):
        writing.create_run(tmp_path / "runs", plan.sweep, {"no/directory": b""}, {})
    assert store.runs(tmp_path / "runs") == []
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]


def test_a_run_is_found_by_what_a_user_would_type(
    created: tuple[Run, Writer], plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    monkeypatch.setattr(writing, "new_name", lambda: "29991231T000000.000Z-beef")
    later, _ = writing.create_run(root, plan.sweep, {}, {})
    earlier, _ = created
    for name in (earlier.name, f"small/{earlier.name}", earlier.name[:8], str(earlier.path)):
        assert store.find(root, name) == earlier
    assert store.find(root, "last") == store.find(root, "small") == later
    assert [run.name for run in store.runs(root)] == [earlier.name, later.name]
    for name, says in (("2", "matches 2 runs"), ("nope", "farm list")):
        with pytest.raises(StoreError, match=says):
            store.find(root, name)
    with pytest.raises(StoreError, match="holds no run"):
        store.find(tmp_path / "elsewhere", "last")


def test_the_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_STORE", "/somewhere")
    assert store.default_root() == "/somewhere"
    monkeypatch.delenv("FARM_STORE")
    assert store.default_root() == "runs"
    assert "FARM_STORE" not in os.environ


def test_a_disk_that_takes_no_more_is_tried_again_and_then_named(
    created: tuple[Run, Writer], plan: Plan, request: pytest.FixtureRequest
) -> None:
    run, first = created
    first.write([outcome(plan, 0)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))
    told: list[str] = []

    def full() -> None:
        # the kernel writes the start of a part, then refuses
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    def tell(line: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        told.append(line)

    full()
    Writer(run, "20260101T000000.000Z-0001", 60.0, tell).write([outcome(plan, 1)])
    assert "free some space" in told[0]
    assert told[1:] == ["the store takes parts again"]
    full()
    with pytest.raises(StoreError, match="free some space, then go on with: farm run --resume") as refused:
        Writer(run, "20260101T000000.000Z-0002", 0.0, told.append).write([outcome(plan, 2)])
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run.name in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [row["trial_id"] for row in run.read_records()] == sorted(map(plan.trial_id, (0, 1)))
    assert not list(run.path.rglob(".*"))


def test_parts_come_each_second_at_first_and_rarer_in_a_long_run(
    created: tuple[Run, Writer], plan: Plan
) -> None:
    run, _ = created
    now = 0.0
    writer = Writer(run, "20260101T000000.000Z-0001", clock=lambda: now)
    times: list[float] = []
    writer.write_rows = lambda rows: times.append(now)  # type: ignore[method-assign]
    while now < 12 * 3600:
        now += 0.5
        writer.add_rows({})
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert max(gaps[:20]) <= 1.5
    assert all(gap <= max(1.5, 0.02 * time + 1.5) for gap, time in zip(gaps, times[1:], strict=True))
    assert max(gaps) <= 60.5
    # 50 at first, 50 ln(60) until the gap is a minute, one a minute after that
    assert len(times) < 1000


def test_a_root_that_is_something_else_is_refused(tmp_path: Path, plan: Plan) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.c").write_text("")
    for use in (lambda: store.runs(tmp_path), lambda: writing.create_run(tmp_path, plan.sweep, {}, {})):
        with pytest.raises(StoreError, match="is no store, it holds 'src' and no run") as refused:
            use()
        assert str(tmp_path) in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def in_the_first_format(run: Run) -> None:
    """As the first version wrote it: no numbers in the parts, and 1 in the manifest."""
    for kind in ("records", "attempts", "failures"):
        for path in run.parts(kind):
            table = pyarrow.parquet.read_table(path)
            pyarrow.parquet.write_table(table.drop_columns("trial_number"), path)
    [manifest] = (run.path / "manifests").iterdir()
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))


def test_a_run_of_the_first_format_is_read_and_not_resumed(created: tuple[Run, Writer], plan: Plan) -> None:
    run, writer = created
    writer.write([outcome(plan, 0), outcome(plan, 1, broken=True)])
    writer.write([outcome(plan, 0), outcome(plan, 2)])
    expected = run.canonical_records()
    in_the_first_format(run)
    old = store.find(run.path.parent.parent, run.name)
    assert old.canonical_records() == expected
    assert old.counts() == (2, 1)
    assert old.duplicates() is None
    assert len(old.failures()) == 1
    with pytest.raises(StoreError, match=r"older version \(format 1\), which can be read and not resumed"):
        driver.resume(old, None, "serial")


def test_a_run_that_numbers_its_trials_otherwise_is_not_resumed(small_run: Run, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "small" / small_run.name)
    run = store.find(tmp_path, "last")
    for path in run.parts("attempts"):
        table = pyarrow.parquet.read_table(path)
        numbers = pyarrow.array([23 - number for number in table["trial_number"].to_pylist()])
        pyarrow.parquet.write_table(table.set_column(1, "trial_number", numbers), path)
    with pytest.raises(StoreError, match="numbers its trials in another way"):
        driver.resume(run, None, "serial")


def test_a_slow_query_prints_nothing_among_the_results() -> None:
    """DuckDB shows a bar after two seconds where Python has no file, as in ``python -c``."""
    script = (
        "from farm.store.runs import connected\n"
        "with connected() as one:\n"
        "    print(one.execute(\"SELECT current_setting('enable_progress_bar')\").fetchall())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[(False,)]\n"
