"""Runs submitted to a real cluster: a head of the test's own, on loopback, that asks for a token."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import workers
from farm.store.place import LocalPlace
from farm.store.runs import Run

Farm = Callable[..., tuple[int, str, str]]

TOKEN = "a-token-of-this-test-0123456789abcdef"

OWN = """
name = "own"
[fixed]
duration_ms = 3
warmup_ms = 1
traffic.kind = "capture"
traffic.capture = "mine.pcap.gz"
traffic.capture_destination = "10.77.0.2"
app.reader = "fast"
arch = "mine.toml"
[grid]
pool.size = [64, 1024]
pool.recycle = [true, false]
"""

MANY = """
name = "many"
seeds = 500
[fixed]
duration_ms = 60
warmup_ms = 1
traffic.kind = "poisson"
traffic.rate_pps = 300_000
app.reader = "fast"
[grid]
pool.recycle = [true, false]
"""


class Cluster(NamedTuple):
    url: str
    store: Path
    """``FARM_STORE`` of its nodes"""


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ExitStack() as stack:
        # a short path: Ray makes Unix sockets in it
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fj", dir="/tmp")))
        port = _free_port()
        ports = ("port", "dashboard-agent-listen-port", "metrics-export-port", "ray-client-server-port")
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            # an address of its own on loopback; Ray puts 127.0.0.1 on the machine's interface
            *("--node-ip-address", f"127.0.0.{os.getpid() % 200 + 20}", "--num-cpus", "2"),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(port)),
            *("--temp-dir", str(place / "r"), "--object-store-memory", str(80 << 20)),
            *(f"--{name}={_free_port()}" for name in ports),
        ]
        # the nodes' settings, and nothing that the test's own process may have set for Ray
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "FARM_STORE": str(place / "store"),
        }
        with (place / "head.log").open("w") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        stack.callback(_end, process)
        url = f"http://127.0.0.1:{port}"
        _await_answer(url, process)
        yield Cluster(url, place / "store")


def _await_answer(url: str, process: "subprocess.Popen[bytes]") -> None:
    request = urllib.request.Request(f"{url}/api/version", headers={"Authorization": f"Bearer {TOKEN}"})
    for _ in range(240):
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "the head ended"
            time.sleep(0.25)
    raise AssertionError("the head does not answer")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=15)
    with suppress(ProcessLookupError):
        # of the session that this test started, whatever outlives its head
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def own_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A profile and a capture of the user's own, in the working directory."""
    monkeypatch.chdir(tmp_path)
    package = Path(workers.__file__).parent
    profile, capture = tmp_path / "mine.toml", tmp_path / "mine.pcap.gz"
    shutil.copy(package / "archs" / "armada-3720.toml", profile)
    shutil.copy(package / "captures" / "tcp_bulk.pcap.gz", capture)
    return profile, capture


@pytest.fixture
def submit(cluster: Cluster, farm: Farm, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Call a verb on the cluster, with the token from the environment; what it prints as JSON."""
    monkeypatch.setenv("FARM_ADDRESS", cluster.url)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)

    def call(*arguments: str) -> dict[str, Any]:
        code, out, err = farm(*arguments, "--json")
        assert code == 0, err
        assert TOKEN not in out + err
        found: dict[str, Any] = json.loads(out)
        return found

    return call


def _ended(call: Callable[..., dict[str, Any]], run: str) -> dict[str, Any]:
    # long enough to compile the event loop on a busy machine
    for _ in range(1500):
        now = call("status", run)
        if now["state"] not in ("pending", "running"):
            return now
        time.sleep(0.3)
    raise AssertionError(f"run {run} does not end")


def test_a_submitted_run_needs_nothing_more_of_the_machine_that_sent_it(
    cluster: Cluster,
    own_inputs: tuple[Path, Path],
    submit: Callable[..., dict[str, Any]],
    farm: Farm,
    runner: Callable[..., Run],
    tmp_path: Path,
) -> None:
    serial = runner(tmp_path / "serial", OWN).canonical_records()
    (tmp_path / "own.toml").write_text(OWN)
    sent = submit("submit", "own.toml", "--python", sys.executable)
    for path in (*own_inputs, tmp_path / "own.toml"):
        path.unlink()
    assert (sent["outcome"], sent["trials"], sent["differences"]) == ("started", 4, "")
    ended = _ended(submit, sent["run"])
    assert (ended["state"], ended["done"], ended["store"]) == ("done", 4, str(cluster.store))

    fetched = submit("fetch", "own")
    assert (fetched["stored"], fetched["trials"]) == (4, 4)
    run = Run(LocalPlace(tmp_path / "runs" / "own" / sent["run"]))
    assert run.canonical_records() == serial
    assert Run(LocalPlace(cluster.store / "own" / sent["run"])).canonical_records() == serial
    assert submit("fetch", sent["run"])["new_files"] == 0

    code, log, _ = farm("logs", sent["run"])
    assert code == 0
    assert f"Stored in {cluster.store}" in log
    assert TOKEN not in log


@pytest.mark.parametrize("token", ["", "another-token-0123456789abcdef012345"])
def test_a_wrong_token_is_refused_and_not_printed(
    token: str, cluster: Cluster, farm: Farm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    arguments = ["status", "--address", cluster.url]
    if token:
        (tmp_path / "token").write_text(f"{token}\n")
        arguments += ["--token-file", str(tmp_path / "token")]
    code, out, err = farm(*arguments)
    assert code == 2
    assert "asks for a token" in err
    assert err.count("\n") == 1
    assert not token or token not in out + err


def test_a_run_that_the_cluster_does_not_know_is_refused(
    submit: Callable[..., dict[str, Any]], farm: Farm
) -> None:
    for verb in ("status", "logs", "cancel", "fetch"):
        code, _, err = farm(verb, "onw")
        assert code == 2
        assert err.startswith("farm: run 'onw': not among the cluster's jobs; ")
        assert err.count("\n") == 1


@pytest.mark.long
def test_a_cancelled_run_goes_on_when_it_is_submitted_again(
    cluster: Cluster, submit: Callable[..., dict[str, Any]], runner: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "many.toml").write_text(MANY)
    arguments = ("submit", str(tmp_path / "many.toml"), "--python", sys.executable)
    first = submit(*arguments)
    assert submit(*arguments)["outcome"] == "already running"
    run = Run(LocalPlace(cluster.store / "many" / first["run"]))
    while not run.parts("records"):
        time.sleep(0.1)
    cancelled = submit("cancel", first["run"])
    assert cancelled["state"] == "cancelled"
    before = run.counts()[0]
    assert 0 < before < 1000
    # the driver had time to store what it had and to say so
    assert (cancelled["done"], "interrupted" in cancelled["said"]) == (before, True)

    again = submit(*arguments)
    assert (again["run"], again["outcome"], again["jobs"]) == (first["run"], "resumed", 2)
    assert _ended(submit, first["run"])["state"] == "done"
    assert run.canonical_records() == runner(tmp_path / "serial", MANY).canonical_records()
    [times] = run.query("attempts", "SELECT count(*) AS trials FROM attempts WHERE retries > 0")
    assert times["trials"] == 0
    assert submit(*arguments)["outcome"] == "complete"
