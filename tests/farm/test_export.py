"""``farm serve``: what a store looks like to Prometheus."""

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from dashboards import catalogue, health
from farm.errors import FarmError
from farm.metrics.collector import StoreCollector, serve
from farm.metrics.results import label_value
from farm.metrics.server import MetricsServer
from farm.plan import Plan
from farm.store import writer as writing
from farm.store.rows import Attempt, Failure, Outcome
from farm.store.runs import Run
from farm.store.writer import Writer
from farm.sweep import parse
from workers.measures import MEASURES

SWEEP = """
name = "{name}"
seeds = 3
[grid]
pool.recycle = [true, false]
app.work_ns = [0, 2500]
"""

BUSY = "pagepool_farm_busy_seconds_per_packet"

LEAST_SERIES = catalogue.series_per_cell("some")
"""of a cell, with the intervals of some measures"""

Labels = frozenset[tuple[str, str]]
Series = dict[tuple[str, Labels], float]


def bucket_of(ps: int) -> int:
    """The bucket that a time falls into: its octave, and its highest 6 bits."""
    octave = max(0, ps.bit_length() - 6)
    return (octave << 6) + (ps >> octave)


HISTOGRAMS = {
    # 1, 2 and 4 packets of 0.5, 2.1 and 33.6 us; 3 of 0.9 s, beyond the last bound
    "latency_histogram": [
        bucket
        for ps, packets in ((500_000, 1), (2_100_000, 2), (33_600_000, 4), (900_000_000_000, 3))
        for bucket in (bucket_of(ps), packets)
    ],
    "hold_histogram": [bucket_of(1 << 20), 5, bucket_of((1 << 20) - 1), 2],
}


def outcome(plan: Plan, number: int, *, broken: bool = False, **measures: float) -> Outcome:
    """A trial whose every measure is 1000 + its number, but for those given."""
    attempt = Attempt(
        host="node",
        executor="serial",
        started_at="2026-01-01T00:00:00.000+00:00",
        wall_seconds=0.1,
        compile_seconds=0.0,
        cpu_seconds=0.1,
        packets=100,
        model_digest="0123abcd",
        versions=json.dumps({"page-pool-farm": "0.1.0", "python": "3.11.7", "numba": "0.68.1"}),
        retries=0,
    )
    record: dict[str, object] = {measure.name: 1000.0 + number for measure in MEASURES}
    record |= {"measured_seconds": 0.5} | HISTOGRAMS | measures
    result = Failure("CheckError", "made up") if broken else record
    return Outcome(number, f"trial-{number:04d}", plan.fields(number), result, attempt)


def start_run(root: Path, name: str = "small", text: str = SWEEP) -> tuple[Plan, Run, Writer]:
    plan = Plan(parse(text.replace("{name}", name), "test"))
    return plan, *writing.create_run(root, plan.sweep, {}, {})


def store_run(root: Path, name: str = "small", **measures: float) -> Run:
    plan, run, writer = start_run(root, name)
    writer.write([outcome(plan, number, **measures) for number in range(plan.trials)])
    return run


def series_of(collector: StoreCollector) -> Series:
    registry = CollectorRegistry()
    registry.register(collector)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def values(series: Series, name: str, label: str = "sweep") -> dict[str, float]:
    """Values of a health metric by one of its labels."""
    return {dict(labels)[label]: value for (found, labels), value in series.items() if found == name}


def labels(recycle: str, work_ns: str, **more: str) -> Labels:
    cell = {
        "sweep": "small",
        "arch": "broadwell-ep",
        "kernel": "6.1",
        "pool_size": "1024",
        "pool_recycle": recycle,
        "traffic_kind": "poisson",
        "machine_iommu": "off",
        "app_work_ns": work_ns,
    }
    return frozenset((cell | more).items())


def get(url: str, headers: Mapping[str, str] | None = None) -> tuple[bytes, Mapping[str, str]]:
    request = urllib.request.Request(url, headers=dict(headers or {}))
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read(), dict(answer.headers)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Where the metrics of a store with one run are served."""
    store_run(tmp_path)
    with MetricsServer(StoreCollector(tmp_path), 0, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.port}"


def test_a_cell_is_the_median_over_its_seeds_labelled_by_axes(tmp_path: Path) -> None:
    store_run(tmp_path)
    series = series_of(StoreCollector(tmp_path))
    busy = {found: value for (name, found), value in series.items() if name == BUSY}
    assert busy == {
        labels("true", "0"): 1001 / 1e9,
        labels("true", "2500"): 1004 / 1e9,
        labels("false", "0"): 1007 / 1e9,
        labels("false", "2500"): 1010 / 1e9,
    }
    cell = labels("true", "2500")
    assert series[f"{BUSY}_low", cell] == 1003 / 1e9
    assert series[f"{BUSY}_high", cell] == 1005 / 1e9
    assert series["pagepool_farm_alloc_fast_per_second", cell] == 2008.0
    assert series["pagepool_farm_packets_queued", cell] == 1004.0
    assert series["pagepool_farm_pages_by_location", labels("true", "2500", location="ring")] == 1004.0
    assert series["pagepool_farm_slow_pages_per_second", labels("true", "2500", cause="held")] == 2008.0


def test_every_cell_has_all_series_that_a_plan_announces(tmp_path: Path) -> None:
    store_run(tmp_path)
    own = {metric.name for metric in health.STORE_METRICS}
    results = [name for name, _ in series_of(StoreCollector(tmp_path)) if name not in own]
    assert len(results) == 4 * catalogue.series_per_cell()


def test_histograms_count_exactly_what_lies_up_to_each_bound(tmp_path: Path) -> None:
    store_run(tmp_path)
    series = series_of(StoreCollector(tmp_path))

    def buckets(name: str) -> dict[float, float]:
        return {
            float(dict(found)["le"]): value
            for (sample, found), value in series.items()
            if sample == f"pagepool_farm_{name}_seconds_bucket"
            and labels("true", "0") == found - {("le", dict(found)["le"])}
        }

    latency = buckets("latency")
    # three seeds, each with the same packets
    times_ps = {500_000: 3, 2_100_000: 6, 33_600_000: 12, 900_000_000_000: 9}
    assert len(latency) == 22
    for bound, count in latency.items():
        assert count == sum(n for ps, n in times_ps.items() if ps <= bound * 1e12), bound
    # what lies a picosecond apart, on both sides of a bound
    hold = buckets("hold")
    below, at = ((1 << 20) - 1) / 1e12, ((1 << 21) - 1) / 1e12
    assert (hold[below], hold[at], hold[float("inf")]) == (6, 21, 21)
    cell = labels("true", "0")
    assert series["pagepool_farm_latency_seconds_count", cell] == 30
    # seeds have means of 1000, 1001 and 1002 ns over 10 packets each
    assert series["pagepool_farm_latency_seconds_sum", cell] == pytest.approx(30 * 1001e-9)
    low_end_ps = 15 * (1 << 20) + 6 * (63 << 14)
    assert series["pagepool_farm_hold_seconds_sum", cell] == pytest.approx(low_end_ps / 1e12)


def test_large_sweeps_have_the_intervals_of_some_measures_only(tmp_path: Path) -> None:
    store_run(tmp_path)
    every = 4 * catalogue.series_per_cell()
    for budget, has_all in ((every, True), (every - 1, False)):
        series = series_of(StoreCollector(tmp_path, series_budget=budget))
        assert values(series, "pagepool_farm_all_intervals") == {"small": has_all}
        assert (f"{BUSY}_low", labels("true", "0")) in series
        assert (("pagepool_farm_alloc_fast_per_second_high", labels("true", "0")) in series) == has_all


def test_effort_is_that_of_the_attempts(tmp_path: Path) -> None:
    plan, _, writer = start_run(tmp_path)
    writer.write([outcome(plan, number, broken=number == 3) for number in range(5)])
    series = series_of(StoreCollector(tmp_path))
    assert values(series, "pagepool_farm_simulated_packets_total") == {"small": 500}
    assert values(series, "pagepool_farm_nodes") == {"small": 1}
    assert values(series, "pagepool_farm_failed_trials", "kind") == {"CheckError": 1}
    assert values(series, "pagepool_farm_timed_trials_total", "arch") == {"broadwell-ep": 4}
    seconds = values(series, "pagepool_farm_trial_seconds_total", "traffic_kind")
    assert seconds == {"poisson": pytest.approx(0.4)}
    # 2026-01-01 in UTC, and the tenth of a second that a trial took
    last = values(series, "pagepool_farm_last_trial_timestamp_seconds")
    assert last == {"small": pytest.approx(1767225600.1)}


HOSTILE = 'a"b\\c\nd<script>alert(1)</script>\x00\r{le="1"} ' + "x" * 10_000


def test_hostile_strings_cannot_leave_their_label(tmp_path: Path) -> None:
    assert label_value(HOSTILE) != label_value(HOSTILE + "x")
    assert len(label_value(HOSTILE)) == 120
    plan, _, writer = start_run(tmp_path)
    first, second = outcome(plan, 0), outcome(plan, 1, broken=True)
    for one, tail in ((first, "1"), (second, "2")):
        object.__setattr__(one.attempt, "model_digest", HOSTILE + tail)
        object.__setattr__(one.attempt, "versions", json.dumps({"python": HOSTILE}))
    object.__setattr__(second.result, "kind", HOSTILE)
    writer.write([first, second])
    with MetricsServer(StoreCollector(tmp_path), 0, "127.0.0.1") as server:
        text, _ = get(f"http://127.0.0.1:{server.port}/metrics")
    families = {family.name: family for family in parse_text(text.decode())}
    digests = {s.labels["model_digest"] for s in families["pagepool_farm_run_info"].samples}
    assert digests == {label_value(HOSTILE + "1"), label_value(HOSTILE + "2")}
    (failed,) = families["pagepool_farm_failed_trials"].samples
    assert failed.labels["kind"] == label_value(HOSTILE)
    assert b"\x00" not in text
    assert b"\r" not in text


def test_every_named_metric_is_exposed_and_no_other(tmp_path: Path) -> None:
    store_run(tmp_path)
    named = {metric.name for metric in (*catalogue.result_metrics(), *health.STORE_METRICS)}
    named |= set(catalogue.CELL_METRICS)
    for histogram in catalogue.HISTOGRAM_METRICS:
        named |= {f"{histogram.name}_{part}" for part in ("bucket", "sum", "count")}
    # no trial has failed
    named.remove("pagepool_farm_failed_trials")
    assert {name for name, _ in series_of(StoreCollector(tmp_path))} == named


def test_only_the_newest_run_of_a_sweep_is_exposed(tmp_path: Path) -> None:
    older = store_run(tmp_path, busy_ns_per_packet=1.0)
    store_run(tmp_path, busy_ns_per_packet=2.0)
    store_run(tmp_path, "another", busy_ns_per_packet=3.0)
    series = series_of(StoreCollector(tmp_path))
    assert values(series, BUSY) == {"small": 2e-9, "another": 3e-9}
    assert values(series, "pagepool_farm_runs") == {"small": 2, "another": 1}
    chosen = series_of(StoreCollector(tmp_path, chosen=[older]))
    assert values(chosen, BUSY) == {"small": 1e-9, "another": 3e-9}


def test_trials_are_counted_by_state(tmp_path: Path) -> None:
    plan, _, writer = start_run(tmp_path)
    writer.write([outcome(plan, 0), outcome(plan, 1, broken=True), outcome(plan, 2)])
    # a second driver that did the same work again, and what broke before
    writer.write([outcome(plan, 0), outcome(plan, 3, broken=True), outcome(plan, 3)])
    series = series_of(StoreCollector(tmp_path))
    assert values(series, "pagepool_farm_trials", "state") == {"recorded": 3, "failed": 1, "planned": 12}


def test_provenance_names_run_model_and_versions(tmp_path: Path) -> None:
    run = store_run(tmp_path)
    (found,) = [key for name, key in series_of(StoreCollector(tmp_path)) if name == "pagepool_farm_run_info"]
    assert dict(found) == {
        "sweep": "small",
        "run": run.name,
        "model_digest": "0123abcd",
        "farm_version": "0.1.0",
        "python_version": "3.11.7",
        "numba_version": "0.68.1",
    }


def test_store_bytes_are_those_of_all_files(tmp_path: Path) -> None:
    store_run(tmp_path)
    store_run(tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert series_of(StoreCollector(tmp_path))["pagepool_farm_store_bytes", frozenset()] == size


def test_new_parts_show_at_the_next_scrape(tmp_path: Path) -> None:
    plan, _, writer = start_run(tmp_path)
    collector = StoreCollector(tmp_path)
    assert BUSY not in {name for name, _ in series_of(collector)}
    writer.write([outcome(plan, 0)])
    assert values(series_of(collector), "pagepool_farm_trials", "state")["recorded"] == 1
    writer.write([outcome(plan, 1)])
    assert values(series_of(collector), "pagepool_farm_trials", "state")["recorded"] == 2


def test_unchanged_parts_are_not_read_again(tmp_path: Path) -> None:
    run = store_run(tmp_path)
    collector = StoreCollector(tmp_path)
    before = series_of(collector)
    for part in run.parts("records"):
        part.write_bytes(b"\0" * part.stat().st_size)
    after = series_of(collector)
    for moving in ("pagepool_farm_collect_seconds", "pagepool_farm_store_free_bytes"):
        key = (moving, frozenset[tuple[str, str]]())
        assert after.pop(key) > 0 < before.pop(key)
    assert after == before


@pytest.mark.parametrize("missing", ["absent", "."])
def test_a_store_without_runs_has_only_its_own_health(tmp_path: Path, missing: str) -> None:
    series = series_of(StoreCollector(tmp_path / missing))
    assert {name for name, _ in series} - {
        "pagepool_farm_store_free_bytes",
        "pagepool_farm_store_capacity_bytes",
    } == {
        "pagepool_farm_series_budget",
        "pagepool_farm_store_bytes",
        "pagepool_farm_collect_seconds",
    }


@pytest.mark.parametrize("damaged", ["sweep.toml", "records"])
def test_a_damaged_run_is_named_once_and_left_out(tmp_path: Path, damaged: str) -> None:
    run = store_run(tmp_path)
    store_run(tmp_path, "healthy")
    file = run.parts("records")[0] if damaged == "records" else run.path / damaged
    file.write_bytes(b"damaged")
    said: list[str] = []
    collector = StoreCollector(tmp_path, warn=said.append)
    collector.check()
    series = series_of(collector)
    assert values(series, "pagepool_farm_unreadable_runs") == {"small": 1, "healthy": 0}
    assert set(values(series, BUSY)) == {"healthy"}
    (message,) = said
    assert message.startswith(f"{file}: ")
    assert "\n" not in message


def test_the_series_budget_refuses_plainly(tmp_path: Path) -> None:
    store_run(tmp_path)
    needed = 4 * catalogue.series_per_cell("some")
    StoreCollector(tmp_path, series_budget=needed).check()
    message = f"^sweep 'small': its {needed} series do not fit into the budget of {needed - 1} for all sweeps"
    with pytest.raises(FarmError, match=message):
        StoreCollector(tmp_path, series_budget=needed - 1).check()


def test_a_run_beyond_the_budget_is_left_out_while_serving(tmp_path: Path) -> None:
    said: list[str] = []
    needed = 4 * catalogue.series_per_cell("some")
    collector = StoreCollector(tmp_path, series_budget=needed, warn=said.append)
    store_run(tmp_path, "first")
    assert set(values(series_of(collector), BUSY)) == {"first"}
    store_run(tmp_path, "second")
    for _ in range(2):
        series = series_of(collector)
        assert set(values(series, BUSY)) == {"second"}
        assert values(series, "pagepool_farm_refused_series") == {"first": needed, "second": 0}
    assert len(said) == 1
    assert said[0].startswith("sweep 'first': ")


def test_a_sweep_of_millions_of_cells_is_refused_without_reading_it(tmp_path: Path) -> None:
    sizes = ", ".join(str(size) for size in range(1, 3001))
    text = f'name = "huge"\n[grid]\npool.size = [{sizes}]\napp.work_ns = [{sizes}]\n'
    plan, _, writer = start_run(tmp_path, text=text)
    writer.write([outcome(plan, 0)])
    with pytest.raises(FarmError, match=f"its {9_000_000 * LEAST_SERIES} series do not fit"):
        StoreCollector(tmp_path).check()


def test_promtool_finds_no_fault_with_the_metrics(url: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        message = "promtool is not installed: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    text, _ = get(f"{url}/metrics")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_text_and_openmetrics_say_the_same(url: str) -> None:
    text, headers = get(f"{url}/metrics")
    open_text, open_headers = get(f"{url}/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert open_headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    plain, opened = (
        {
            (s.name, frozenset(s.labels.items())): s.value
            for family in families
            for s in family.samples
            if s.name not in ("pagepool_farm_collect_seconds", "pagepool_farm_store_free_bytes")
        }
        for families in (parse_text(text.decode()), parse_openmetrics(open_text.decode()))
    )
    assert plain == opened
    assert len(plain) > 4 * catalogue.series_per_cell()


def test_metrics_are_compressed_on_request(url: str) -> None:
    compressed, headers = get(f"{url}/metrics", {"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert BUSY.encode() in gzip.decompress(compressed)


def test_other_paths_point_to_the_metrics(url: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        get(f"{url}/other")
    with caught.value as answer:
        assert answer.read() == b"see /metrics\n"


def test_a_store_that_cannot_be_read_is_a_failed_scrape(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with MetricsServer(StoreCollector(root), 0, "127.0.0.1") as server:
        root.write_text("a file")
        with pytest.raises(urllib.error.HTTPError, match="503") as caught:
            get(f"http://127.0.0.1:{server.port}/metrics")
        with caught.value as answer:
            assert answer.read().decode().startswith(f"store '{root}': ")


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            FarmError,
            match=f"^port {port} of '127.0.0.1': Address already in use; choose another with --port",
        ):
            serve(tmp_path, port)


@pytest.mark.parametrize(
    ("port", "address", "message"),
    [
        (70_000, "127.0.0.1", "^port 70000 of '127.0.0.1': "),
        (0, "203.0.113.7", "^port 0 of '203.0.113.7': Cannot assign requested address"),
    ],
)
def test_a_place_that_cannot_be_listened_on_is_one_line(
    tmp_path: Path, port: int, address: str, message: str
) -> None:
    with pytest.raises(FarmError, match=message):
        serve(tmp_path, port, address)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    store_run(tmp_path)
    code = "from pathlib import Path; from farm.metrics.collector import serve; "
    code += f"serve(Path({str(tmp_path)!r}), 0)"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        url = line.partition(" at ")[2].partition(";")[0]
        text, _ = get(url)
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    assert BUSY in text.decode()
