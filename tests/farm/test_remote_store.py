"""A store on an object server: the same runs, one put for each part, and what a server that refuses does."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farm.errors import StoreError
from farm.execution import driver
from farm.execution.progress import Progress
from farm.metrics.collector import StoreCollector
from farm.plan import Plan
from farm.store import mirror, place
from farm.store import runs as store
from farm.store import writer as writing
from farm.store.runs import Run
from farm.store.writer import Writer
from farm.sweep import parse
from tests.farm.s3_server import BUCKET, Proxy, disk_full, error, objects, put, s3_server
from tests.farm.test_store import outcome

KEY, SECRET = "AKIATESTINGTESTING", "a-secret-that-nobody-may-print"

Farm = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(mirror, "_copies", lambda: tmp_path / "copies")


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    with s3_server() as proxy:
        yield proxy


@pytest.fixture
def proxy(server: Proxy) -> Proxy:
    server.reply = lambda request: None
    server.requests.clear()
    return server


@pytest.fixture
def root(proxy: Proxy, request: pytest.FixtureRequest) -> str:
    return uri(proxy, f"{BUCKET}/{''.join(filter(str.isalnum, request.node.name))}")


@pytest.fixture
def plan(small: str) -> Plan:
    return Plan(parse(small, "x"))


def uri(proxy: Proxy, path: str) -> str:
    return f"s3://{path}?scheme=http&endpoint_override=127.0.0.1:{proxy.port}&region=us-east-1"


def created(root: str, plan: Plan, told: list[str], patience_seconds: float) -> tuple[Run, Writer]:
    run, _ = writing.create_run(root, plan.sweep, {}, {"model_digest": "digest"})
    return run, Writer(run, run.name, patience_seconds, told.append)


def ids(plan: Plan, *numbers: int) -> list[str]:
    return sorted(plan.trial_id(number) for number in numbers)


def stored_ids(run: Run) -> list[str]:
    return [str(row["trial_id"]) for row in run.read_records()]


def test_a_run_on_a_server_is_the_run_on_a_disk(
    root: str, proxy: Proxy, farm: Farm, small_file: str, small_run: Run
) -> None:
    code, out, err = farm("run", small_file, "--executor", "serial", "--store", root)
    assert code == 0, err
    [run] = store.runs(root)
    assert out.splitlines()[-1] == f"Stored in {run.place}"
    assert run.canonical_records() == small_run.canonical_records()
    assert {name.rsplit("/", 1)[1] for name in objects(proxy) if f"{run.name}/inputs/" in name} == set(
        run.manifests()[0]["inputs"].values()
    )
    [listed] = json.loads(farm("list", "--store", root, "--json")[1])
    assert (listed["run"], listed["records"], listed["trials"]) == (run.name, 24, 24)
    for name in (run.name, "last", "small", str(run.place)):
        assert json.loads(farm("show", name, "--store", root, "--json")[1])["run"] == str(run.place)
    on_disk = farm("compare", str(small_run.path), "--axis", "pool.recycle")[1]
    assert farm("compare", "last", "--axis", "pool.recycle", "--store", root)[1] == on_disk
    code, out, _ = farm("run", "--resume", "last", "--executor", "serial", "--store", root)
    assert code == 0
    assert run.counts() == (24, 0)
    secrets = [name for name, content in objects(proxy).items() if SECRET.encode() in content]
    assert secrets == []
    assert SECRET not in out + err


def test_each_part_is_one_put_and_is_fetched_once(root: str, proxy: Proxy, plan: Plan) -> None:
    run, writer = created(root, plan, [], 0.0)
    writer.write([outcome(plan, 0), outcome(plan, 1, broken=True)])
    writer.write([outcome(plan, 2)])
    puts = [line.split("?")[0].split("/", 1)[1].split()[0] for line in proxy.uploads(run.name)]
    assert len(puts) == len(set(puts))
    assert sorted(name for name in objects(proxy) if run.name in name) == sorted(
        name.removeprefix(f"{BUCKET}/") for name in puts
    )
    assert stored_ids(run) == ids(plan, 0, 2)
    proxy.requests.clear()
    assert stored_ids(run) == ids(plan, 0, 2)
    assert [line for line in proxy.requests if line.startswith("GET") and ".parquet" in line] == []


@pytest.mark.parametrize("times", [1, 7])
def test_a_dropped_connection_loses_nothing(root: str, proxy: Proxy, plan: Plan, times: int) -> None:
    run, writer = created(root, plan, told := [], 60.0)
    proxy.lost_answers = times
    writer.write([outcome(plan, 0), outcome(plan, 1)])
    assert proxy.lost_answers == 0
    assert stored_ids(run) == ids(plan, 0, 1)
    assert run.duplicates() is None
    # the library repeats a request some times itself
    assert len(told) in (0, 2)


def goes_down(proxy: Proxy) -> Callable[[], None]:
    proxy.stop()
    return proxy.start


def fills_up(proxy: Proxy) -> Callable[[], None]:
    proxy.reply = disk_full
    return lambda: setattr(proxy, "reply", lambda request: None)


@pytest.mark.parametrize(
    ("fault", "says"), [(goes_down, "check that the server answers"), (fills_up, "free some space")]
)
def test_a_store_that_comes_back_goes_on_and_one_that_does_not_keeps_what_it_has(
    root: str, proxy: Proxy, plan: Plan, fault: Callable[[Proxy], Callable[[], None]], says: str
) -> None:
    told: list[str] = []
    run, writer = created(root, plan, told, 0.0)
    writer.write([outcome(plan, 0)])
    comes_back = fault(proxy)

    def tell(line: str) -> None:
        told.append(line)
        if len(told) == 1:
            comes_back()

    patient = Writer(run, "20260101T000000.000Z-0001", 60.0, tell)
    patient.write([outcome(plan, 1)])
    assert says in told[0]
    assert told[1:] == ["the store takes parts again"]
    comes_back = fault(proxy)
    with pytest.raises(StoreError, match="all that was stored before is safe") as refused:
        writer.write([outcome(plan, 2)])
    comes_back()
    message = str(refused.value)
    assert says in message
    assert f"farm run --resume {run.name} --store '{root}'" in message
    assert "\n" not in message
    assert SECRET not in message + "".join(told)
    assert stored_ids(run) == ids(plan, 0, 1)
    # what could not be stored is tried once more at the end
    writer.flush()
    assert stored_ids(run) == ids(plan, 0, 1, 2)


def test_a_driver_whose_store_stays_full_ends_with_the_remedy(
    root: str,
    proxy: Proxy,
    farm: Farm,
    small_file: str,
    small_run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "LEAST_WRITE_SECONDS", 0.0)
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.0)
    add = Writer.add

    def add_and_lose(self: Writer, one: object) -> None:
        add(self, one)  # type: ignore[arg-type]
        if len(proxy.uploads("/records/")) == 3:
            proxy.reply = disk_full

    monkeypatch.setattr(Writer, "add", add_and_lose)
    code, out, err = farm("run", small_file, "--executor", "serial", "--store", root)
    assert (code, out) == (2, "")
    [last] = [line for line in err.splitlines() if "--resume" in line]
    assert "free some space" in last
    assert "Traceback" not in err
    proxy.reply = lambda request: None
    monkeypatch.setattr(Writer, "add", add)
    [run] = store.runs(root)
    assert run.counts() == (3, 0)
    assert farm("run", "--resume", run.name, "--executor", "serial", "--store", root)[0] == 0
    assert run.canonical_records() == small_run.canonical_records()


def test_two_drivers_on_one_run_waste_work_and_show_says_so(
    root: str, proxy: Proxy, small: str, farm: Farm, plan: Plan
) -> None:
    first = driver.start(plan, root, "serial")
    _, second = driver.resume(first.run, None, "serial")
    first.writer.write([outcome(plan, 0), outcome(plan, 1)])
    second.writer.write([outcome(plan, 1), outcome(plan, 2)])
    assert stored_ids(first.run) == ids(plan, 0, 1, 2)
    starts = sorted(name.removesuffix(".json") for name in (first.run.place / "manifests").files(".json"))
    assert first.run.duplicates() == store.Duplicates(1, tuple(starts))
    out = farm("show", "last", "--store", root)[1]
    assert "1 trial was stored more than once" in out
    assert all(start in out for start in starts)
    duplicates = json.loads(farm("show", "last", "--store", root, "--json")[1])["duplicates"]
    assert duplicates == {"trials": 1, "starts": starts}


def test_a_run_that_was_not_completed_is_not_there(root: str, proxy: Proxy, plan: Plan) -> None:
    proxy.reply = lambda request: disk_full(request) if b"sweep.toml" in request else None
    with pytest.raises(StoreError, match="free some space"):
        writing.create_run(root, plan.sweep, {"abc": b"1"}, {})
    assert any("/inputs/abc" in name for name in objects(proxy))
    assert store.runs(root) == []


def test_bad_roots_are_refused_in_one_line(proxy: Proxy, farm: Farm, small_file: str) -> None:
    put(proxy, "taken/by/others", b"x")
    bad = {
        uri(proxy, f"{BUCKET}/taken"): "is no store, it holds 'by' and no run",
        f"s3://{KEY}:{SECRET}@bucket/x": "a root must not hold credentials",
        "s3://": "names no bucket",
        "s3://bucket/x?nonsense=1": "nonsense",
        "zz://bucket/x": "use a path, s3://BUCKET/PATH",
    }
    for root, says in bad.items():
        for verb in (["run", small_file, "--executor", "serial"], ["list"], ["show", "last"]):
            code, out, err = farm(*verb, "--store", root)
            assert (code, out) == (2, ""), (root, verb)
            assert says in err, (root, verb)
            assert err.count("\n") == 1
            assert SECRET not in err
    code, out, err = farm("list", "--store", f"s3://{BUCKET}?scheme=http&endpoint_override=127.0.0.1:1")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "check that the server answers" in err
    err = farm("run", small_file, "--executor", "serial", "--store", uri(proxy, "nobucket/x"))[2]
    assert "make the bucket, or name another" in err
    assert err.count("\n") == 1


def test_wrong_credentials_are_named_and_not_shown(
    proxy: Proxy, farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.reply = lambda _: error("403 Forbidden", "InvalidAccessKeyId", f"{SECRET} is not in our records.")
    code, out, err = farm("list", "--store", uri(proxy, f"{BUCKET}/x"))
    assert (code, out) == (2, "")
    assert "check the credentials in the environment" in err
    assert err.count("\n") == 1
    assert SECRET not in err


def test_a_run_of_a_newer_version_is_not_read(root: str, proxy: Proxy, plan: Plan, farm: Farm) -> None:
    run, _ = created(root, plan, [], 0.0)
    place_of_manifests = run.place / "manifests"
    [name] = place_of_manifests.files(".json")
    newer = json.loads(place_of_manifests.read(name)) | {"format": 99}
    place_of_manifests.put(name, json.dumps(newer).encode())
    code, out, err = farm("show", "last", "--store", root)
    assert (code, out) == (2, "")
    assert "format 99 is of a newer version" in err
    assert "install the version that wrote it" in err


def test_copies_that_nobody_used_for_a_month_are_removed(
    root: str, proxy: Proxy, plan: Plan, tmp_path: Path
) -> None:
    run, writer = created(root, plan, [], 0.0)
    writer.write([outcome(plan, 0)])
    old = tmp_path / "copies" / "old"
    old.mkdir(parents=True)
    month_ago = time.time() - 31 * 24 * 3600
    os.utime(old, (month_ago, month_ago))
    assert stored_ids(run) == ids(plan, 0)
    assert not old.exists()
    assert list((tmp_path / "copies").rglob("*.parquet"))


def test_metrics_are_those_of_a_run_on_a_disk(root: str, proxy: Proxy, plan: Plan, tmp_path: Path) -> None:
    outcomes = [outcome(plan, number) for number in range(plan.trials)]
    found = []
    for place_of_store in (root, str(tmp_path / "disk")):
        _, writer = writing.create_run(place_of_store, plan.sweep, {}, {})
        writer.write(outcomes)
        collector = StoreCollector(place_of_store)
        families = {family.name: family.samples for family in collector.collect()}
        found.append({name: samples for name, samples in families.items() if "busy" in name})
        proxy.requests.clear()
        list(collector.collect())
        # what there is to know of a run is kept until it has new files
        assert not [line for line in proxy.requests if line.startswith("GET") and ".parquet" in line]
    assert found[0] == found[1] != {}


def test_workers_fetch_inputs_by_content(
    root: str, proxy: Proxy, small: str, finisher: Callable[..., Progress], tmp_path: Path
) -> None:
    from farm.execution.execute import job_of

    plan = Plan(parse(small, "x"))
    started = driver.start(plan, root, "serial")
    job = job_of(started.run)
    assert job.inputs_directory == str(started.run.place / "inputs")
    config = job.stored_config(0)
    here = Path(config.arch)
    assert here.is_file()
    assert here.is_relative_to(tmp_path / "copies")
    assert here.name == job.inputs["broadwell-ep"]
    assert place.place_of(job.inputs_directory).read(here.name) == here.read_bytes()
