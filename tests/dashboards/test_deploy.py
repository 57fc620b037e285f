"""What is deployed beside the farm: deploy/compose.yaml and the configuration of Prometheus and Grafana.

No container engine runs here: the compose file is checked against its specification, and the commands and
files of exporter and Prometheus are run as plain processes.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from dashboards import external, publish
from dashboards.boards import FOLDER, OVERVIEW_UID, all_dashboards
from farm.store.runs import Run

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose.yaml"

Json = dict[str, Any]

PATIENCE_SECONDS = 60.0


def services() -> dict[str, Json]:
    found: dict[str, Json] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def mounts(service: str) -> dict[str, str]:
    """What a service sees of the repository or a volume, by path in its container."""
    found = {}
    for mount in services()[service].get("volumes", []):
        source, target, *_ = mount.split(":")
        found[target] = source
    return found


def test_the_compose_file_is_one_by_its_specification() -> None:
    options = compose_spec.PyOptions()
    options.apply_merge = True
    parsed = options.from_yaml(COMPOSE.read_text(encoding="utf-8"))
    parsed.validate()
    assert set(parsed.service_names()) == {"head", "worker", "driver", "exporter", "prometheus", "grafana"}


def test_ports_are_open_to_this_machine_only() -> None:
    published = {name: service.get("ports", []) for name, service in services().items()}
    assert published.pop("grafana") == ["127.0.0.1:3000:3000"]
    assert published.pop("prometheus") == ["127.0.0.1:9090:9090"]
    assert not any(published.values())


def test_secrets_come_from_the_environment_and_have_no_default() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    required = set(re.findall(r"\$\{(\w+):\?[^}]+\}", text))
    assert required == {"GRAFANA_ADMIN_PASSWORD", "RAY_AUTH_TOKEN"}
    assert len(re.findall(r"\$\{", text)) == len(required)
    for service in services().values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN", name):
                assert value.startswith("${")
    assert services()["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"


def test_everything_that_is_mounted_is_there() -> None:
    volumes = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["volumes"]
    for name in services():
        for source in mounts(name).values():
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                assert source in volumes


def test_grafana_gets_the_data_source_and_the_dashboards_without_a_click() -> None:
    provisioning = DEPLOY / mounts("grafana")["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "page-pool-farm.yml").read_text())[
        "datasources"
    ]
    assert source["uid"] == publish.DATA_SOURCE_UID
    assert source["isDefault"] is True
    host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
    assert f"--web.listen-address=0.0.0.0:{port}" in services()[host]["command"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "page-pool-farm.yml").read_text())[
        "providers"
    ]
    assert provider["folderUid"] == publish.FOLDER_UID
    assert (DEPLOY / mounts("grafana")[provider["options"]["path"]]).resolve() == FOLDER
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{OVERVIEW_UID}.json"


@pytest.mark.parametrize("folder", ["targets", "targets-compose"])
def test_every_target_is_a_port_that_something_serves(folder: str) -> None:
    files = {path.name for path in (DEPLOY / "prometheus" / folder).glob("*.yml")}
    named = re.findall(r"files: \[targets/(\S+)\]", (DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert files == set(named)
    targets = [
        target
        for name in files
        for group in yaml.safe_load((DEPLOY / "prometheus" / folder / name).read_text())
        for target in group["targets"]
    ]
    commands = {name: service.get("command", "") for name, service in services().items()}
    for target in targets:
        host, port = target.split(":")
        serving = commands.values() if host == "localhost" else [commands[host]]
        assert any(re.search(rf"-port[= ]{port}\b", command) for command in serving), target


def test_promtool_accepts_the_configuration(promtool: str) -> None:
    command = [promtool, "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def answered(url: str) -> Json:
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: Json = json.load(answer)["data"]
    return found


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process and its children, ended together."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=os.environ | environment, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def test_the_commands_of_exporter_and_prometheus_fill_a_dashboard(
    made_up_store: tuple[Path, Run], promtool: str, tmp_path: Path
) -> None:
    """As in the compose file, but for addresses and paths."""
    root, run = made_up_store
    exporter_port, prometheus_port = free_port(), free_port()
    exporter = services()["exporter"]["command"]
    exporter = exporter.replace("9464", str(exporter_port)).replace("0.0.0.0", "127.0.0.1")
    for target, source in mounts("prometheus").items():
        if source.startswith("."):
            inside, original = tmp_path / target.removeprefix("/"), DEPLOY / source
            inside.parent.mkdir(parents=True, exist_ok=True)
            for file in [original] if original.is_file() else sorted(original.iterdir()):
                copy = inside if original.is_file() else inside / file.name
                copy.parent.mkdir(exist_ok=True)
                text = file.read_text().replace("exporter:9464", f"127.0.0.1:{exporter_port}")
                # nobody waits for a quarter of a minute here; what runs nowhere is asked of a closed port
                text = re.sub(r'"(\w+):(8080|9465)"', '"127.0.0.1:9"', text)
                copy.write_text(
                    text.replace("15s", "1s").replace("scrape_timeout: 10s", "scrape_timeout: 1s")
                )
    prometheus = services()["prometheus"]["command"]
    prometheus = prometheus.replace("0.0.0.0:9090", f"127.0.0.1:{prometheus_port}")
    prometheus = prometheus.replace("=/", f"={tmp_path}/")
    server = str(Path(promtool).with_name("prometheus"))
    verb, *arguments = shlex.split(exporter)
    assert verb == "farm"
    url = f"http://127.0.0.1:{prometheus_port}/api/v1"
    query = f'max by (state) (pagepool_farm_trials{{sweep="{run.sweep_name}"}})'
    asked = f"{url}/query?query={urllib.request.quote(query)}"  # type: ignore[attr-defined]
    with (
        running([sys.executable, "-m", "farm.cli", *arguments], tmp_path / "exporter", FARM_STORE=str(root)),
        running([server, *shlex.split(prometheus)], tmp_path / "prometheus.log") as process,
    ):
        deadline = time.monotonic() + PATIENCE_SECONDS
        found: list[Json] = []
        while not found and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
            with suppress(urllib.error.URLError, ConnectionError):
                found = answered(asked)["result"]
        assert found, (tmp_path / "prometheus.log").read_text()
        groups = answered(f"{url}/rules")["groups"]
        targets = answered(f"{url}/targets?state=active")["activeTargets"]
    states = {one["metric"]["state"]: one["value"][1] for one in found}
    assert states == {"recorded": "133", "failed": "1", "planned": "144"}
    assert sum(len(group["rules"]) for group in groups) == 9
    assert {target["labels"]["job"] for target in targets} == {"page-pool-farm", "page-pool-farm-run", "ray"}


def test_dashboards_are_those_of_the_folder() -> None:
    titles = {json.loads(path.read_text())["title"] for path in FOLDER.glob("*.json")}
    assert titles == {dashboard["title"] for dashboard in all_dashboards()}


@pytest.mark.long
def test_the_commands_of_head_worker_and_driver_run_a_sweep(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As in the compose file, but on loopback, on ports of its own and with a small sweep."""
    store, log = tmp_path / "runs", tmp_path / "log"
    head_port, head_metrics, worker_metrics, run_metrics = (free_port() for _ in range(4))
    here = ["--node-ip-address=127.0.0.1"]
    head, worker = (shlex.split(services()[name]["command"]) for name in ("head", "worker"))
    moved = {
        "--port=6379": f"--port={head_port}",
        "--address=head:6379": f"--address=127.0.0.1:{head_port}",
        "head:6379": f"127.0.0.1:{head_port}",
        "9465": str(run_metrics),
        "0.0.0.0": "127.0.0.1",
    }
    driver = [moved.get(word, word) for word in shlex.split(services()["driver"]["command"])]
    head = [moved.get(word, word).replace("8080", str(head_metrics)) for word in head]
    worker = [moved.get(word, word).replace("8080", str(worker_metrics)) for word in worker]
    beside = str(Path(sys.executable).with_name("ray"))
    # short: sockets lie below it
    temporary = tempfile.mkdtemp(prefix="ppf")
    request.addfinalizer(lambda: shutil.rmtree(temporary, ignore_errors=True))
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-only-0123456789abcdef",
        "RAY_USAGE_STATS_ENABLED": "0",
        "FARM_STORE": str(store),
    }
    small = ["duration_ms=3", "seeds=1", "arch=broadwell-ep", "pool.size=64", "traffic.kind=bursts"]
    with (
        running([beside, *head[1:], *here, f"--temp-dir={temporary}"], tmp_path / "head", **environment),
        waiting_for_port(head_port, tmp_path / "head"),
        running([beside, *worker[1:], *here, "--num-cpus=1"], tmp_path / "worker", **environment),
        log.open("wb") as file,
    ):
        command = [sys.executable, "-m", "farm.cli", *driver[1:3], *small, *driver[3:], "--json"]
        ran = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=file,
            env=os.environ | environment,
            timeout=300,
            check=False,
        )
        # nodes have metrics with ray[default] only, which the image has
        has_metrics = find_spec("aiohttp") is not None
        exposed = metrics_of(head_metrics) | metrics_of(worker_metrics) if has_metrics else set()
    assert ran.returncode == 0, log.read_text() + (tmp_path / "worker").read_text()
    assert json.loads(ran.stdout)
    # what Farm health asks of Ray is what Ray calls it
    asked = {name for name in external.LABELS if name.startswith("ray_")}
    assert asked <= exposed or not has_metrics
    assert f"http://127.0.0.1:{run_metrics}/metrics" in log.read_text()
    (run,) = (path for path in (store / "quickstart").iterdir() if not path.name.startswith("."))
    assert list(run.glob("records/*.parquet"))


def metrics_of(port: int) -> set[str]:
    """Names of the samples that Ray exposes, once it has counted its tasks."""
    names: set[str] = set()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while external.RAY_CPU_PERCENT not in names and time.monotonic() < deadline:
        with (
            suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer,
        ):
            names = set(re.findall(r"^(\w+)\{", answer.read().decode(), re.MULTILINE))
        time.sleep(0.5)
    return names


@contextmanager
def waiting_for_port(port: int, log: Path) -> Iterator[None]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.2)
    else:
        pytest.fail(f"nothing listens: {log.read_text()}")
    yield
