"""What a finished trial measured, as a record of every measure of the catalogue."""

from typing import Any

import numpy as np

from pool_impl.layout import COUNT_MASK, RECYCLE_DECLINED
from pool_impl.pool import PAGE_BYTES
from workers import audit
from workers.cache import KIND_OF_OBJECT
from workers.cost import PS_PER_NS
from workers.latency import bucket_low_ns
from workers.measures import CATEGORIES, COUNTERS, LOCATIONS, MEASURES, OBJECTS, SLOW_CAUSES
from workers.state import OWN_PAGES, Trial
from workers.traffic import PS_PER_SECOND

DMA_COUNTS = ("maps", "unmaps", "syncs", "sync_bytes")
"""what the device counts, by the names of its record and, with ``dma_`` before, of measures"""

Record = dict[str, int | float | None]
"""a trial's measures; None where there was nothing to measure, such as a latency without a packet"""


def counts(trial: Trial) -> dict[str, Any]:
    """All that is counted from the start of a trial, so that the warm-up can be subtracted."""
    host, tally = trial.host, trial.tally
    meter, caches = host.observer.meter, host.observer.caches
    recycled = host.pools.recycle.sum(axis=(0, 1))
    alloc = [int(host.pools[name].sum()) for name in COUNTERS if name.startswith("alloc_")]
    return {
        "ledger": meter.ledger[:, : len(CATEGORIES)].copy(),
        "counters": np.array([*alloc, *recycled[: len(COUNTERS) - len(alloc)]]),
        "declined": int(recycled[RECYCLE_DECLINED]),
        "read": int(tally.read),
        "pages_allocated": int(tally.pages_allocated),
        "pages_taken": int(tally.pages_taken),
        "hold": host.pools.hold.copy(),
        "dma": np.array([host.device[name] for name in DMA_COUNTS]),
        "page_ps": tally.page_ps.copy(),
        "slow": tally.slow.copy(),
        "touches": caches.touches.copy(),
        "misses": caches.misses.copy(),
    }


def record_of(trial: Trial, before: dict[str, Any], window_ps: int) -> Record:
    """The record of a finished trial.

    Args:
        before: :func:`counts` at the end of the warm-up.
        window_ps: measured time.
    """
    tally, pools = trial.tally, trial.host.pools
    now = counts(trial)
    delta = {name: now[name] - before[name] for name in now}
    busy_ps = delta["ledger"].sum(axis=1)
    packets = delta["read"]
    seconds = window_ps / PS_PER_SECOND
    handled = int(tally.delivered + tally.dropped_early)
    lost = int(tally.missed + tally.dropped_socket + tally.dropped_driver)
    allocated = delta["pages_allocated"]
    pooled = trial.nic.pattern < OWN_PAGES
    entered = int((delta["hold"] & COUNT_MASK).sum()) if pooled else delta["pages_taken"]
    record: Record = {
        "measured_seconds": seconds,
        "packets_offered": int(tally.offered),
        "packets_delivered": int(tally.delivered),
        "packets_dropped_early": int(tally.dropped_early),
        "packets_missed": int(tally.missed),
        "packets_dropped_socket": int(tally.dropped_socket),
        "packets_dropped_driver": int(tally.dropped_driver),
        "packets_queued": audit.queued_packets(trial),
        "packets_handled_rate": handled / seconds,
        "drop_ratio": _ratio(lost, int(tally.offered)),
        "busy_ns_per_packet": _ratio(int(busy_ps.sum()), packets * PS_PER_NS),
        "latency_mean_ns": _ratio(int(tally.latency_sum_ps), handled * PS_PER_NS),
        "latency_p50_ns": _quantile(trial.latency, 50),
        "latency_p90_ns": _quantile(trial.latency, 90),
        "latency_p99_ns": _quantile(trial.latency, 99),
        "latency_max_ns": int(tally.latency_max_ps) // PS_PER_NS if handled else None,
        "busy_ratio_queue_cpu": int(busy_ps[trial.queues.cpu].max()) / window_ps,
        "busy_ratio_reader_cpu": int(busy_ps[_own_cpus_of_readers(trial)].max(initial=0)) / window_ps,
        # a bulk fill at the edge of the window may bring in more pages than were allocated
        "recycle_ratio": max(0.0, 1 - entered / allocated) if allocated and pooled else None,
        "pages_allocated": allocated,
        "pages_from_page_allocator": entered,
        "pages_inflight": int(((pools.hold - pools.release) & COUNT_MASK).sum()),
        "memory_peak_bytes": int(trial.host.page_allocator.peak_pages) * PAGE_BYTES,
    }
    record |= zip((f"dma_{name}" for name in DMA_COUNTS), delta["dma"].tolist(), strict=True)
    record |= zip(COUNTERS, delta["counters"].tolist(), strict=True)
    record["returns_declined"] = delta["declined"]
    for name, spent in zip(CATEGORIES, delta["ledger"].sum(axis=0).tolist(), strict=True):
        record[f"{name}_ns_per_packet"] = _ratio(spent, packets * PS_PER_NS)
    for name, page_ps in zip(LOCATIONS, delta["page_ps"].tolist(), strict=True):
        record[f"pages_in_{name}"] = page_ps / window_ps
    for name, pages in zip(SLOW_CAUSES, delta["slow"].tolist(), strict=True):
        record[f"slow_{name}"] = pages
    for name in OBJECTS:
        kind = KIND_OF_OBJECT[name]
        touches = int(delta["touches"][kind])
        record[f"cache_hit_{name}"] = _ratio(touches - int(delta["misses"][kind]), touches)
    assert list(record) == [measure.name for measure in MEASURES]
    return record


def _own_cpus_of_readers(trial: Trial) -> list[int]:
    """CPUs that have readers and no queue."""
    return sorted({int(cpu) for cpu in trial.readers.cpu} - {int(cpu) for cpu in trial.queues.cpu})


def _ratio(part: int, whole: int) -> float | None:
    """Quotient; None where there is nothing to divide by."""
    return part / whole if whole else None


def _quantile(histogram: Any, percent: int) -> int | None:
    """Latency that this share of packets does not exceed by more than a bucket, nanoseconds; None without
    packets."""
    total = int(histogram.sum())
    if total == 0:
        return None
    rank = -(-total * percent // 100)
    return bucket_low_ns(int(np.searchsorted(np.cumsum(histogram), rank)))
