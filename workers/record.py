"""What a finished trial measured, as a record of every measure of the catalogue."""

from typing import Any

import numpy as np

from pool_impl.layout import COUNT_MASK, RECYCLE_DECLINED, bare, plain
from workers.arrivals.traffic import PS_PER_SECOND
from workers.books.histogram import merged, packed, quantile_ns
from workers.measures import (
    CATEGORIES,
    COUNTERS,
    HISTOGRAMS,
    LISTS,
    LOCATIONS,
    MEASURES,
    OBJECTS,
    PAGE_CACHE_COUNTERS,
    QUANTILES,
    SLOW_CAUSES,
    TIME_BY_CPU,
)
from workers.pricing.cache import KIND_OF_OBJECT
from workers.pricing.cost import PS_PER_NS
from workers.state import FIRST_UNPOOLED, Trial
from workers.walk import idle_pages, inflight

DMA_COUNTS = ("maps", "unmaps", "syncs", "sync_bytes")
"""what the device counts, by the names of its record and, with ``dma_`` before, of measures"""

Record = dict[str, Any]
"""a trial's measures, numbers, or None where there was nothing to measure, such as a latency without a
packet; then its lists of integers, see workers.measures.LISTS"""


def counts(trial: Trial) -> dict[str, Any]:
    """All that is counted from the start of a trial, so that the warm-up can be subtracted."""
    host, tally = trial.host, plain(trial.tally)
    meter, caches, pools = host.observer.meter, host.observer.caches, bare(host.pools)
    recycled = pools["recycle"].sum(axis=(0, 1))
    alloc = [sum(pools[name].tolist()) for name in COUNTERS if name.startswith("alloc_")]
    return {
        "ledger": meter["ledger"].copy(),
        "counters": np.array([*alloc, *recycled[: len(COUNTERS) - len(alloc)]]),
        "declined": int(recycled[RECYCLE_DECLINED]),
        "read": tally.read,
        "interrupts": tally.interrupts,
        "pages_allocated": tally.pages_allocated,
        "pages_taken": tally.pages_taken,
        "page_cache": np.array([getattr(tally, name) for name in PAGE_CACHE_COUNTERS]),
        "hold": pools["hold"].copy(),
        "iommu_invalidations": int(meter["dma"]["invalidations"]),
        "dma": np.array([host.device[name] for name in DMA_COUNTS]),
        "page_ps": tally.page_ps.copy(),
        "slow": tally.slow.copy(),
        "socket_page_ps": bare(trial.readers)["page_ps"].copy(),
        "gro": np.array([tally.gro_packets, tally.gro_skbs]),
        "buffers": np.array([tally.buffers_far_from_cpu, tally.buffers_far_from_nic, tally.buffers_written]),
        "touches": caches["touches"].copy(),
        "misses": caches["misses"].copy(),
    }


def record_of(trial: Trial, before: dict[str, Any], window_ps: int, queued: int) -> Record:
    """The record of a finished trial.

    Args:
        before: :func:`counts` at the end of the warm-up.
        window_ps: measured time.
        queued: packets that :func:`workers.audit.check` found waiting.
    """
    tally, nic, pools = plain(trial.tally), plain(trial.nic), bare(trial.host.pools)
    now = counts(trial)
    delta = {name: now[name] - before[name] for name in now}
    busy_ps = delta["ledger"].sum(axis=1)
    packets = delta["read"]
    seconds = window_ps / PS_PER_SECOND
    on_purpose = tally.dropped_early + tally.dropped_xdp
    handled = int(tally.delivered + on_purpose + tally.transmitted + tally.redirected)
    in_driver = tally.missed + tally.dropped_driver
    lost = int(in_driver + tally.dropped_backlog + tally.dropped_socket + tally.dropped_tx)
    hold_times = bare(trial.hold_times)
    held = int(hold_times.sum())
    allocated = delta["pages_allocated"]
    pooled = nic.pattern < FIRST_UNPOOLED
    recycles = pooled or nic.page_cache_mask
    entered = int((delta["hold"] & COUNT_MASK).sum()) if pooled else delta["pages_taken"]
    record: Record = {
        "measured_seconds": seconds,
        "packets_offered": tally.offered,
        "packets_delivered": tally.delivered,
        "packets_dropped_early": tally.dropped_early,
        "packets_missed": tally.missed,
        "packets_missed_without_page": tally.missed_without_page,
        "packets_dropped_socket": tally.dropped_socket,
        "packets_dropped_driver": tally.dropped_driver,
        "packets_dropped_backlog": tally.dropped_backlog,
        "packets_dropped_xdp": tally.dropped_xdp,
        "packets_transmitted": tally.transmitted,
        "packets_redirected": tally.redirected,
        "packets_dropped_tx": tally.dropped_tx,
        "packets_queued": queued,
        "packets_handled_rate": handled / seconds,
        "drop_ratio": _ratio(lost, tally.offered),
        "busy_ns_per_packet": _ratio(int(busy_ps.sum()), packets * PS_PER_NS),
        "latency_mean_ns": _ratio(tally.latency_sum_ps, handled * PS_PER_NS),
        "latency_p50_ns": None,
        "latency_p90_ns": None,
        "latency_p99_ns": None,
        "latency_max_ns": tally.latency_max_ps // PS_PER_NS if handled else None,
        "hold_p50_ns": None,
        "hold_p99_ns": None,
        "hold_max_ns": tally.hold_max_ps // PS_PER_NS if held else None,
        "socket_share_max": _ratio(int(delta["socket_page_ps"].max(initial=0)), int(delta["page_ps"].sum())),
        "gro_packets_per_skb": _ratio(int(delta["gro"][0]), int(delta["gro"][1])),
        "packets_captured": tally.captured,
        "captures_dropped": tally.captures_dropped,
        "busy_ratio_queue_cpu": int(busy_ps[_cpus_of_queues(trial)].max()) / window_ps,
        "busy_ratio_reader_cpu": int(busy_ps[_own_cpus_of_readers(trial)].max(initial=0)) / window_ps,
        "busy_ratio_target_cpu": int(busy_ps[trial.targets["cpu"]].max(initial=0)) / window_ps,
        "interrupts": delta["interrupts"],
        # a bulk fill at the edge of the window may bring in more pages than were allocated
        "recycle_ratio": max(0.0, 1 - entered / allocated) if allocated and recycles else None,
        "pages_allocated": allocated,
        "pages_from_page_allocator": entered,
        "pages_inflight": int(((pools["hold"] - pools["release"]) & COUNT_MASK).sum()),
        "memory_peak_bytes": int(trial.host.page_allocator.peak_pages) * nic.page_bytes,
    }
    record |= _drain(trial, tally.integrated_to_ps)
    for name, far in zip(("cpu", "nic"), delta["buffers"].tolist(), strict=False):
        record[f"buffers_far_from_{name}_ratio"] = _ratio(far, int(delta["buffers"][-1]))
    of_device = dict(zip((f"dma_{name}" for name in DMA_COUNTS), delta["dma"].tolist(), strict=True))
    record |= {name: of_device[name] for name in ("dma_maps", "dma_unmaps")}
    record["iommu_invalidations"] = delta["iommu_invalidations"]
    record |= of_device
    record |= zip(COUNTERS, delta["counters"].tolist(), strict=True)
    record["returns_declined"] = delta["declined"]
    record |= zip(PAGE_CACHE_COUNTERS, delta["page_cache"].tolist(), strict=True)
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
    record |= {"latency_histogram": packed(bare(trial.latency)), "hold_histogram": packed(hold_times)}
    counted = {name: merged([record[name]]) for name in HISTOGRAMS}
    for name, (histogram, percent) in QUANTILES.items():
        record[name] = quantile_ns(counted[histogram], percent)
    record[TIME_BY_CPU] = packed(delta["ledger"].ravel())
    assert list(record) == [*(measure.name for measure in MEASURES), *LISTS]
    return record


def _drain(trial: Trial, end_ps: int) -> Record:
    """What became of the pages of pools that were destroyed as the device went down."""
    life = trial.life
    left = int(life.pages_left)
    drain: Record = dict.fromkeys(("pages_left_behind", "pages_not_returned"), 0)
    drain |= dict.fromkeys(("drain_seconds", "drain_forecast_seconds"))
    if life.down_at_ps == 0:
        return drain
    pools = trial.host.pools[trial.host.pools.destroy_cnt != 0]
    out = sum(inflight(owner) - len(idle_pages(trial.host, owner)) for owner in pools)
    elapsed = int(end_ps - life.down_at_ps) / PS_PER_SECOND
    drain["pages_left_behind"], drain["pages_not_returned"] = left, out
    if life.drained_at_ps:
        drain["drain_seconds"] = int(life.drained_at_ps - life.down_at_ps) / PS_PER_SECOND
    elif 0 < out < left:
        drain["drain_forecast_seconds"] = elapsed * left / (left - out)
    return drain


def _cpus_of_queues(trial: Trial) -> list[int]:
    """CPUs that queues are polled on, or were."""
    return sorted({*range(len(trial.queues)), *trial.queues["cpu"].tolist()})


def _own_cpus_of_readers(trial: Trial) -> list[int]:
    """CPUs that have readers and no queue."""
    readers = trial.readers["cpu"][: trial.stack.readers]
    return sorted({*readers.tolist()} - {*_cpus_of_queues(trial)})


def _ratio(part: int, whole: int) -> float | None:
    """Quotient; None where there is nothing to divide by."""
    return part / whole if whole else None
