"""``farm export openmetrics``: an older run, loaded into a real Prometheus and found again by query."""

from pathlib import Path
from typing import Any

import duckdb
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from farm.metrics import history
from farm.store import runs as store
from farm.store.runs import Run

ENDED = 1767225600
"""2026-01-01 in UTC, when the trials of the made-up runs start"""


def older_run(made_up_store: tuple[Path, Run]) -> Run:
    root, newest = made_up_store
    (older,) = (run for run in store.runs(root) if run.sweep_name == newest.sweep_name and run != newest)
    return older


def test_an_older_run_is_found_again_by_query(
    made_up_store: tuple[Path, Run], tmp_path: Path, run_prometheus: Any
) -> None:
    root, _ = made_up_store
    run = older_run(made_up_store)
    text = history.openmetrics(run)
    assert text.endswith("# EOF\n")
    with run_prometheus(root, tmp_path, text) as prometheus:
        # within Prometheus' five minutes of the last trial, and long after it
        at_its_end = prometheus.query("pagepool_farm_busy_seconds_per_packet", ENDED + 60)
        later = prometheus.query("last_over_time(pagepool_farm_busy_seconds_per_packet[2d])", ENDED + 86_400)
        packets = prometheus.query("pagepool_farm_simulated_packets_total", ENDED + 60)
        (info,) = prometheus.query("pagepool_farm_run_info", ENDED + 60)
        (p99,) = prometheus.query(
            "histogram_quantile(1, sum by (le) (pagepool_farm_hold_seconds_bucket))", ENDED + 60
        )
    sql = """
        SELECT arch, "traffic.kind" AS traffic_kind, "pool.size"::VARCHAR AS pool_size,
               "pool.recycle"::VARCHAR AS pool_recycle, "app.work_ns"::VARCHAR AS app_work_ns,
               median(busy_ns_per_packet) / 1e9 AS value
        FROM read_parquet($records) GROUP BY ALL
    """
    records = str(run.path / "records" / "*.parquet")
    with duckdb.connect() as connection:
        rows = connection.execute(sql, {"records": records}).fetchall()
        (sent,) = connection.execute(
            "SELECT sum(packets)::INT FROM read_parquet($attempts)",
            {"attempts": str(run.path / "attempts" / "*.parquet")},
        ).fetchall()
    names = ("arch", "traffic_kind", "pool_size", "pool_recycle", "app_work_ns")
    wanted = {row[:-1]: row[-1] for row in rows}
    for found in (at_its_end, later):
        values = {tuple(one["metric"][n] for n in names): float(one["value"][1]) for one in found}
        assert values == pytest.approx(wanted)
    assert [float(one["value"][1]) for one in packets] == [sent[0]]
    assert info["metric"]["run"] == run.name
    assert float(p99["value"][1]) > 0


def test_every_sample_has_the_time_of_the_last_trial(made_up_store: tuple[Path, Run]) -> None:
    text = history.openmetrics(older_run(made_up_store))
    times = {
        float(sample.timestamp)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    # the last of 144 trials takes 143 / 64 s longer than the tenth of a second of the first
    (time,) = times
    assert time == pytest.approx(ENDED + 0.1, abs=143 / 64 + 0.01)
