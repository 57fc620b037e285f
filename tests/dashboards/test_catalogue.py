"""The names of exported metrics."""

import pytest

from dashboards import answers, catalogue, health
from workers.books.histogram import bucket_low_ps
from workers.config import fields
from workers.measures import MEASURES

MADE_BY_QUERIES = frozenset(
    ("sweep", "instance", "job", "recycling", "cell", "le", "curve", "what", "quantile", "seeds", "signature")
)

METRICS = {metric.name: metric for metric in catalogue.result_metrics()}


def test_names_are_in_base_units_and_keep_the_kernels_names() -> None:
    assert {
        measure: catalogue.result_name(measure).removeprefix("pagepool_farm_")
        for measure in (
            "measured_seconds",
            "packets_missed",
            "packets_queued",
            "packets_handled_rate",
            "busy_ns_per_packet",
            "latency_p99_ns",
            "drop_ratio",
            "busy_ratio_queue_cpu",
            "memory_peak_bytes",
            "pages_inflight",
            "pages_allocated",
            "alloc_fast",
            "recycle_ring_full",
            "dma_map_ns_per_packet",
            "pages_in_rx_ring",
            "slow_held",
            "cache_hit_skb",
        )
    } == {
        "measured_seconds": "measured_seconds",
        "packets_missed": "packets_missed_per_second",
        "packets_queued": "packets_queued",
        "packets_handled_rate": "packets_handled_per_second",
        "busy_ns_per_packet": "busy_seconds_per_packet",
        "latency_p99_ns": "latency_p99_seconds",
        "drop_ratio": "drop_ratio",
        "busy_ratio_queue_cpu": "busy_queue_cpu_ratio",
        "memory_peak_bytes": "memory_peak_bytes",
        "pages_inflight": "pages_inflight",
        "pages_allocated": "pages_allocated_per_second",
        "alloc_fast": "alloc_fast_per_second",
        "recycle_ring_full": "recycle_ring_full_per_second",
        "dma_map_ns_per_packet": "busy_by_category_seconds_per_packet",
        "pages_in_rx_ring": "pages_by_location",
        "slow_held": "slow_pages_per_second",
        "cache_hit_skb": "cache_hit_ratio",
    }


def test_every_measure_is_exported_once() -> None:
    exported = [
        source.measure
        for metric in METRICS.values()
        if metric.statistic == "median"
        for source in metric.sources
    ]
    assert sorted(exported) == sorted(measure.name for measure in MEASURES)


def test_names_are_unique_and_prefixed() -> None:
    own = (*health.STORE_METRICS, *health.LIVE_METRICS, *answers.ANSWER_METRICS)
    names = [metric.name for metric in (*catalogue.result_metrics(), *own)]
    assert len(set(names)) == len(names)
    assert all(name.startswith(catalogue.PREFIX) for name in names)


def test_labels_of_fields_are_distinct_and_clear_of_other_labels() -> None:
    labels = [catalogue.axis_label(field.name) for field in fields()]
    others = {metric.label for metric in METRICS.values()} | MADE_BY_QUERIES
    assert len(set(labels)) == len(labels)
    assert not others & set(labels)


def test_cell_fields_are_fields_of_a_trial() -> None:
    assert set(catalogue.CELL_FIELDS) <= {field.name for field in fields()}


def test_values_are_converted_to_base_units_and_rates() -> None:
    measures = {"measured_seconds": 0.5, "busy_ns_per_packet": 125.0, "alloc_fast": 40.0, "slow_held": 3.0}

    def value(name: str, part: str = "") -> float | None:
        metric = METRICS[f"pagepool_farm_{name}"]
        return metric.value(next(s for s in metric.sources if s.part == part), measures)

    assert value("busy_seconds_per_packet") == 1.25e-7
    assert value("alloc_fast_per_second") == 80.0
    assert value("slow_pages_per_second", "held") == 6.0


@pytest.mark.parametrize("measures", [{}, {"alloc_fast": 4.0}, {"alloc_fast": 4.0, "measured_seconds": 0.0}])
def test_what_a_cell_lacks_is_missing_and_not_zero(measures: dict[str, float]) -> None:
    metric = METRICS["pagepool_farm_alloc_fast_per_second"]
    assert metric.value(metric.sources[0], measures) is None


def test_help_says_rate_statistic_and_direction() -> None:
    assert METRICS["pagepool_farm_packets_missed_per_second"].help == (
        "packets that found no free descriptor, per simulated second (median over seeds, lower is better)"
    )
    assert METRICS["pagepool_farm_busy_seconds_per_packet_high"].help == (
        "CPU time per packet taken from the receive ring, or page of a loop "
        "(highest of the seeds, lower is better)"
    )


def test_series_per_cell_counts_every_part() -> None:
    # buckets up to each bound and above the last, sum and count; pool size and seeds
    others = 2 * (21 + 3) + 2
    assert catalogue.series_per_cell("some") == len(MEASURES) + 2 + others
    assert catalogue.series_per_cell("all") == 3 * len(MEASURES) + others


def test_bucket_bounds_are_where_buckets_of_a_record_end() -> None:
    for first_above, bound in catalogue.bucket_bounds():
        low_ps = bucket_low_ps(first_above)
        assert bound == (low_ps - 1) / 1e12
        assert bucket_low_ps(first_above - 1) < low_ps
