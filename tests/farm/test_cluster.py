"""Clusters of several nodes: the same records as serially, and what goes wrong said in a line."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from farm.errors import ExecutorError
from farm.plan import Plan
from farm.ray.address import check_versions, refused
from farm.ray.nodes import Need, check_need, differences, need_of
from farm.store import runs as store
from farm.store.runs import Run
from farm.sweep import parse
from tests.farm.cluster import Cluster, cluster

SECOND = """
name = "second"
seeds = 8
[fixed]
duration_ms = 150
traffic.rate_pps = 1_000_000
traffic.kind = "poisson"
app.reader = "fast"
[grid]
pool.size = [64, 1024]
"""
"""trials of some tenths of a second"""


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    with cluster(nodes=2) as found:
        yield found


def finished(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def only_run(root: Path) -> Run:
    [run] = store.runs(root)
    return run


def wait_for(there: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "how",
    [
        "head",
        pytest.param("client", marks=pytest.mark.long),
        pytest.param("auto", marks=pytest.mark.long),
    ],
)
def test_a_cluster_yields_the_same_bytes(
    two_nodes: Cluster, tmp_path: Path, small_file: str, small_run: Run, how: str
) -> None:
    addresses = {
        "head": two_nodes.address,
        "client": f"ray://{two_nodes.ip}:{two_nodes.client_port}",
        "auto": "auto",
    }
    # what Ray tells a job that runs on it
    two_nodes.environment["RAY_ADDRESS"] = two_nodes.address
    command = ["run", small_file, "--store", "runs", "--address", addresses[how], "--json"]
    code, out, err = finished(two_nodes.farm(*command, cwd=tmp_path))
    assert code == 0, err
    assert json.loads(out)["sweep"] == "small"
    assert only_run(tmp_path / "runs").canonical_records() == small_run.canonical_records()


def test_a_lost_worker_and_a_lost_node_change_no_record(
    two_nodes: Cluster, tmp_path: Path, runner: Callable[..., Run]
) -> None:
    path = tmp_path / "second.toml"
    path.write_text(SECOND)
    process = two_nodes.farm(
        "run", str(path), "--store", "runs", "--address", two_nodes.address, cwd=tmp_path
    )
    first, second = two_nodes.nodes
    wait_for(lambda: bool(two_nodes.workers(first)))
    two_nodes.workers(first)[0].kill()
    wait_for(lambda: bool(two_nodes.workers(second)))
    two_nodes.kill_node(second)
    code, _, err = finished(process)
    two_nodes.add_node()
    assert code == 0, err
    serial = runner(tmp_path / "serial", SECOND)
    run = only_run(tmp_path / "runs")
    assert run.canonical_records() == serial.canonical_records()
    [retried] = run.query("attempts", "SELECT max(retries) AS most FROM attempts")
    assert retried["most"] >= 1


def test_a_need_that_no_node_has_is_said_before_anything_starts(
    two_nodes: Cluster, tmp_path: Path, small_file: str
) -> None:
    need = ["--need", "bench=1"]
    command = ["run", small_file, "--store", "runs", "--address", two_nodes.address, *need]
    code, out, err = finished(two_nodes.farm(*command, cwd=tmp_path))
    assert (code, out) == (2, "")
    assert err.startswith("farm: cluster of 3 nodes: a trial takes bench=1, no node has more than 0; ")
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("key", "version", "says"),
    [
        ("ray_version", "2.9.3", "the cluster has Ray 2.9.3, here is Ray "),
        ("python_version", "3.9.2", "the cluster has Python 3.9.2, here is "),
    ],
)
def test_another_version_is_named(
    two_nodes: Cluster, tmp_path: Path, small_file: str, key: str, version: str, says: str
) -> None:
    """What the cluster says of itself is replaced; the rest is as with a cluster of that version."""
    change = """
import json, sys
from ray._raylet import GcsClient
client = GcsClient(address=sys.argv[1])
key, space = b"CLUSTER_METADATA", b"cluster"
was = client.internal_kv_get(key, space)
client.internal_kv_put(key, json.dumps(json.loads(was) | json.loads(sys.argv[2])).encode(), True, space)
print(was.decode())
"""

    def said(new: str) -> str:
        command = [sys.executable, "-c", change, two_nodes.address, new]
        return subprocess.run(
            command, env=two_nodes.environment, check=True, capture_output=True, text=True
        ).stdout

    was = said(json.dumps({key: version}))
    try:
        command = ["run", small_file, "--store", "runs", "--address", two_nodes.address]
        code, out, err = finished(two_nodes.farm(*command, cwd=tmp_path))
    finally:
        said(was)
    assert (code, out) == (2, "")
    assert f"address '{two_nodes.address}': {says}" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_lost_head_is_told_in_a_line_and_the_run_is_resumed_elsewhere(
    two_nodes: Cluster, tmp_path: Path, runner: Callable[..., Run], farm: Callable[..., tuple[int, str, str]]
) -> None:
    """The last test with this cluster."""
    path = tmp_path / "second.toml"
    path.write_text(SECOND)
    two_nodes.environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "2"
    process = two_nodes.farm(
        "run", str(path), "--store", "runs", "--address", two_nodes.address, cwd=tmp_path
    )
    wait_for(lambda: any((tmp_path / "runs").glob("*/*/records/*.parquet")))
    two_nodes.kill_head()
    code, out, err = finished(process)
    assert (code, out) == (5, "")
    [line] = [line for line in err.splitlines() if "trials, " not in line]
    assert "the driver was ended" in line
    assert f"the head of the cluster at {two_nodes.address} no longer answers" in line
    run = only_run(tmp_path / "runs")
    stored = len(run.read_records())
    assert stored
    assert f"{stored} trials are stored in " in line
    assert "go on with: farm run --resume " in line
    serial = runner(tmp_path / "serial", SECOND)
    # on a fast machine the last trial may have been stored by then
    assert set(map(repr, run.read_records())) <= set(map(repr, serial.read_records()))
    assert farm("run", "--resume", str(run.path), "--executor", "serial")[0] == 0
    assert run.canonical_records() == serial.canonical_records()


def test_a_wrong_token_is_refused_and_no_token_is_printed(tmp_path: Path, small_file: str) -> None:
    right, wrong = "r1ght" * 8, "wr0ng" * 8
    with cluster(nodes=0, environment={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": right}) as found:
        command = ["run", small_file, "--store", "runs", "--address", found.address]
        for mode, token in (("token", wrong), ("disabled", "")):
            found.environment |= {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": token}
            code, out, err = finished(found.farm(*command, cwd=tmp_path))
            assert (code, out) == (2, "")
            assert "does not take this token, or wants one; set RAY_AUTH_MODE=token" in err
            assert err.count("\n") == 1
            assert wrong not in err
            assert right not in err
        # with the right one it gets as far as the nodes, of which there are none
        found.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": right}
        code, _, err = finished(found.farm(*command, cwd=tmp_path))
        assert code == 2
        assert "a trial takes CPU=1, no node has more than 0" in err
        assert right not in err


def test_versions_are_those_of_both_sides() -> None:
    here = {"Ray": metadata.version("ray"), "Python": platform.python_version()}
    check_versions("head:6379", here)
    for name, version in here.items():
        with pytest.raises(ExecutorError, match=f"cluster has {name} 1.2.3, here is {name} {version}; "):
            check_versions("head:6379", here | {name: "1.2.3"})


def test_what_ray_says_of_a_token_is_not_repeated() -> None:
    error = RuntimeError("InvalidAuthToken: the token 0123secret is wrong")
    assert "0123secret" not in str(refused("head:6379", error))


def node(alive: bool = True, **resources: float) -> dict[str, object]:
    return {"Alive": alive, "Resources": resources}


def test_slots_are_what_alive_nodes_have_room_for() -> None:
    nodes = [
        node(CPU=4, memory=5e9),
        node(CPU=2, memory=20e9),
        node(alive=False, CPU=64, memory=1e12),
        node(),
    ]
    assert need_of([]).slots(nodes) == 6
    assert need_of(["memory=2000000000"]).slots(nodes) == 2 + 2
    assert need_of(["CPU=0.5"]).slots(nodes) == 12
    assert need_of(["bench"]).slots(nodes) == 0


@pytest.mark.parametrize(
    ("need", "says"),
    [
        ({"CPU": 8.0}, "a trial takes CPU=8, no node has more than 4"),
        ({"CPU": 1.0, "bench": 1.0}, "a trial takes bench=1, no node has more than 0"),
        ({"CPU": 4.0, "memory": 9e9}, "no node has all of CPU=4, memory=9e+09"),
    ],
)
def test_what_no_node_has_is_named(need: dict[str, float], says: str) -> None:
    with pytest.raises(ExecutorError, match="cluster of 2 nodes") as told:
        check_need(Need(need), [node(CPU=4, memory=5e9), node(CPU=2, memory=20e9)])
    assert says in str(told.value)


@pytest.mark.parametrize(
    "text", ["", "=1", "memory=lots", "CPU=0", "CPU=-1", "CPU=1.5", "memory=inf", "x=nan"]
)
def test_a_malformed_need_is_refused(text: str) -> None:
    with pytest.raises(ExecutorError, match=r"NAME=AMOUNT") as told:
        need_of([text])
    assert repr(text) in str(told.value)


def test_a_node_with_another_version_is_named() -> None:
    driver = {"page-pool-farm": "0.2", "model": "abc"}
    assert differences(driver, {"10.0.0.1": driver, "10.0.0.2": driver}) is None
    older = {"page-pool-farm": "0.1", "model": "abd"}
    wrong = differences(driver, {"10.0.0.1": driver, "10.0.0.2": older})
    assert wrong is not None
    assert wrong.startswith("node 10.0.0.2: page-pool-farm 0.1, the driver has 0.2; ")
    missing = differences(driver, {"10.0.0.3": {"missing": "No module named 'farm'"}})
    assert missing is not None
    assert missing.startswith("node 10.0.0.3: the farm cannot be imported there (No module named 'farm'); ")


def test_a_failed_trial_is_run_again_only_when_asked(
    tmp_path: Path,
    small: str,
    small_file: str,
    small_run: Run,
    farm: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import workers

    with monkeypatch.context() as patched:

        def broken(config: object, stopper: object, *, alone: bool) -> workers.Record:
            raise MemoryError

        patched.setattr(workers, "run_trial", broken, raising=False)
        assert farm("run", small_file, "--executor", "serial")[0] == 3
    run = only_run(tmp_path / "runs")
    plan = Plan(parse(small, "x"))
    assert len(run.failures()) == plan.trials
    assert farm("run", "--resume", "last", "--executor", "serial")[0] == 3
    assert run.read_records() == []
    assert farm("run", "--resume", "last", "--retry-failures", "--executor", "serial")[0] == 0
    assert run.canonical_records() == small_run.canonical_records()
    assert run.failures() == []
    code, _, err = farm("run", small_file, "--retry-failures")
    assert code == 2
    assert "--resume" in err
