"""A run watched while it is on: its own metrics, and its marks on a Grafana."""

import json
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dashboards.boards import all_dashboards
from farm.execution import driver
from farm.execution.execute import SerialExecutor, execute
from farm.execution.progress import Progress
from farm.metrics.live import LiveCollector
from farm.metrics.server import MetricsServer
from farm.plan import Plan
from farm.store import runs as store
from farm.sweep import parse
from tests.dashboards.grafana_double import SECRET, Grafana, Reply, Request

Farm = Callable[..., tuple[int, str, str]]


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    with Grafana() as server:
        yield server


def scraped(url: str) -> dict[str, dict[str, float]]:
    """Values by the last label's value, by name of the sample."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.labels.get("state") or sample.labels.get("sweep", "")
            found.setdefault(sample.name, {})[key] = sample.value
    return found


def test_a_run_that_is_on_says_how_far_it_is(tmp_path: Path, small: str) -> None:
    plan = Plan(parse(small, "test"))
    now = 1_000.0
    collector = LiveCollector(tmp_path, lambda: now)
    with MetricsServer(collector, 0, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.port}/metrics"
        assert scraped(url) == {}
        started = driver.start(plan, tmp_path, "serial")
        executor = SerialExecutor()
        progress = Progress(plan.trials, 0, executor.slots)
        collector.begin(started.run, progress)
        seen: list[dict[str, dict[str, float]]] = [scraped(url)]

        def report(progress: Progress) -> None:
            nonlocal now
            now += 1
            collector.note(progress)
            if progress.done in (1, 10):
                seen.append(scraped(url))

        execute(plan, started.run, started.writer, executor, started.done, progress, report)
        seen.append(scraped(url))
    live = "pagepool_farm_live"
    assert [one[f"{live}_trials"] for one in seen] == [
        {"done": done, "failed": 0, "planned": 24} for done in (0, 1, 10, 24)
    ]
    assert [one[f"{live}_last_batch_timestamp_seconds"]["small"] for one in seen] == [1000, 1001, 1010, 1024]
    assert [one[f"{live}_batches_total"]["small"] for one in seen] == [0, 1, 10, 24]
    assert f"{live}_left_seconds" not in seen[0]
    assert seen[-1][f"{live}_left_seconds"]["small"] == 0
    [sums] = started.run.query(
        "attempts", "SELECT sum(packets)::INT AS packets, sum(wall_seconds) AS seconds FROM attempts"
    )
    assert seen[-1][f"{live}_simulated_packets_total"]["small"] == sums["packets"] > 0
    assert seen[-1][f"{live}_trial_seconds_total"]["small"] == pytest.approx(sums["seconds"])
    # what is stored is there beside, under the names that farm serve gives it
    assert seen[-1]["pagepool_farm_trials"] == {"recorded": 24, "failed": 0, "planned": 24}
    assert seen[-1]["pagepool_farm_busy_seconds_per_packet"]["small"] > 0


def test_farm_run_serves_its_metrics_and_marks_itself(
    farm: Farm, small_file: str, tmp_path: Path, grafana: Grafana, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", SECRET)
    code, out, err = farm(
        "run", small_file, "--executor", "serial", "--metrics-port", "0", "--annotate", grafana.url, "--json"
    )
    assert code == 0
    json.loads(out)
    assert re.search(r"^farm: this run's metrics are at http://127\.0\.0\.1:\d+/metrics$", err, re.MULTILINE)
    (run,) = store.runs(tmp_path / "runs")
    (mark,) = grafana.annotations.values()
    assert mark["tags"] == ["page-pool-farm", "run", "small"]
    assert mark["dashboardUID"] == "page-pool-farm-overview"
    assert mark["text"] == f"sweep small: run {run.name}, 24 of 24 trials, 0 failed"
    assert mark["timeEnd"] >= mark["time"] > 1.7e12
    assert SECRET not in out + err


def test_a_grafana_that_goes_away_does_not_stop_the_run(
    farm: Farm, small_file: str, grafana: Grafana, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: Request) -> Reply | None:
        return Reply(403, {"message": f"no {SECRET}"}) if request.method == "POST" else None

    grafana.overrule = refuse
    monkeypatch.setenv("GRAFANA_TOKEN", SECRET)
    code, _, err = farm("run", small_file, "--executor", "serial", "--annotate", grafana.url)
    assert code == 0
    assert "farm: not marked: " in err
    assert SECRET not in err


@pytest.mark.parametrize("token", ["", "glsa_refused"])
def test_without_a_good_token_nothing_is_run(
    farm: Farm, small_file: str, tmp_path: Path, grafana: Grafana, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", token)
    code, _, err = farm("run", small_file, "--executor", "serial", "--annotate", grafana.url)
    assert code == 2
    assert ("401: the token is not accepted" if token else "GRAFANA_TOKEN: empty") in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    assert not token or token not in err


def test_with_a_port_in_use_nothing_is_run(farm: Farm, small_file: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = farm("run", small_file, "--executor", "serial", "--metrics-port", str(port))
    assert code == 2
    assert err == (
        f"farm: port {port} of '127.0.0.1': Address already in use; choose another with --metrics-port, "
        "or 0 for any free one\n"
    )
    assert not (tmp_path / "runs").exists()


def test_farm_dashboards_push_says_what_it_did(
    farm: Farm, grafana: Grafana, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", SECRET)
    # beside the dashboards a data source and a folder
    parts = len(all_dashboards()) + 2
    arguments = ("dashboards", "push", "--url", grafana.url, "--folder", "Farm", "--json")
    code, out, err = farm(*arguments, "--dry-run")
    assert (code, err, grafana.writes) == (0, "", [])
    code, out, _ = farm(*arguments)
    assert code == 0
    assert [one["change"] for one in json.loads(out)] == ["created"] * parts
    assert grafana.folders["page-pool-farm"]["title"] == "Farm"
    code, out, _ = farm(*arguments, "--prune")
    assert [one["change"] for one in json.loads(out)] == ["unchanged"] * parts
    grafana.dashboards["page-pool-farm-pages"]["dashboard"]["title"] = "mine"
    code, _, err = farm(*arguments)
    assert code == 2
    assert "'page-pool-farm-pages' is newer on the server" in err
    assert farm(*arguments, "--force")[0] == 0
    monkeypatch.delenv("GRAFANA_TOKEN")
    assert farm(*arguments)[0] == 2
    assert threading.active_count() < 20
