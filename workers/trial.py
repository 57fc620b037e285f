"""One trial from configuration to record."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pool_impl.jit import entry
from pool_impl.layout import (
    CACHE_CAPACITY,
    FLAG_DMA_MAP,
    FLAG_DMA_SYNC_DEV,
    RECYCLE_DECLINED,
    records,
    words,
    words_of,
)
from pool_impl.pool import PAGE_BYTES, PoolParams, create
from pool_impl.release import rules_of
from workers import arch, audit, capture, engine, loop_trial, variants
from workers.cache import KIND_OF_OBJECT
from workers.config import KERNEL_VARIANT, NIC_WORKLOAD, TrialConfig
from workers.cost import PS_PER_NS
from workers.drivers import HEADROOM_BYTES, MOST_BYTES, TRUESIZE_BYTES
from workers.errors import ConfigError
from workers.machine import checked_variant, new_machine
from workers.measures import CATEGORIES, COUNTERS, LOCATIONS, MEASURES, OBJECTS, SLOW_CAUSES
from workers.model import MODEL_DIGEST
from workers.stack import BUCKETS, bucket_low_ns
from workers.state import DESCRIPTOR, NAPI, NIC, READER, SKB, TALLY, Trial
from workers.traffic import PS_PER_SECOND, last_arrival_ps, new_arrivals, work_key

PS_PER_MS = 10**9

DMA_COUNTS = ("maps", "unmaps", "syncs", "sync_bytes")
"""what the device counts, by the names of its record and, with ``dma_`` before, of measures"""

Record = dict[str, int | float | None]
"""a trial's measures; None where there was nothing to measure, such as a latency without a packet"""


class Input(NamedTuple):
    """A file that a trial reads, by content."""

    name: str
    """as the configuration names it"""
    sha256: str
    """of :meth:`content`"""
    path: Path

    def content(self) -> bytes:
        """What has to be kept to run the trial elsewhere: the bytes of a capture or variant, a profile with
        its parents resolved."""
        if self.path.suffix == ".toml":
            return arch.load(str(self.path)).canonical.encode()
        return self.path.read_bytes()


def inputs(config: TrialConfig) -> tuple[Input, ...]:
    """The files whose content decides a trial's record: the profile, the variant unless it is the
    kernel's, and the capture if one is replayed.

    Raises:
        ProfileError, ConfigError, CaptureError: a file is missing or unusable.
    """
    profile = arch.load(config.arch)
    found = [Input(config.arch, profile.digest, profile.path)]
    written = variants.source(config.pool.variant)
    if written is not None:
        checked_variant(config)
        found.append(Input(config.pool.variant, written.sha256, written.path))
    if config.traffic.kind == "capture":
        name = config.traffic.capture
        _captured(config)
        path = capture.resolve(name)
        found.append(Input(name, capture.digest(path), path))
    return tuple(found)


def locate(config: TrialConfig, directory: Path, sha256: Mapping[str, str]) -> TrialConfig:
    """The same trial, reading its inputs from a directory that holds them by SHA-256.

    Args:
        directory: has a file for each input, named by its digest.
        sha256: digest by the name that the configuration uses.
    """
    fields = config.to_fields()
    for name in ("arch", "traffic.capture"):
        if fields[name] in sha256:
            fields[name] = str(directory / sha256[str(fields[name])])
    variant = config.pool.variant
    if variant in sha256:
        fields["pool.variant"] = variants.stored_name(variant, directory / sha256[variant])
    return TrialConfig.unchecked(fields)


def trial_id(config: TrialConfig) -> str:
    """Hash of all that decides the record: resolved fields, content of the inputs, model digest; 32 hex
    digits. File names are not part of it.

    Raises:
        ProfileError, ConfigError, CaptureError: a file is missing or unusable.
    """
    fields = config.to_fields()
    content = {entry.name: entry.sha256 for entry in inputs(config)}
    fields["arch"] = content[config.arch]
    fields["pool.variant"] = variants.load(config.pool.variant).identity
    if config.traffic.kind == "capture":
        fields["traffic.capture"] = content[config.traffic.capture]
    resolved = json.dumps({"model": MODEL_DIGEST, "fields": fields}, sort_keys=True)
    return hashlib.sha256(resolved.encode()).hexdigest()[:32]


def expected_packets(config: TrialConfig) -> int:
    """About how many packets a trial will simulate, for estimates."""
    if config.workload != NIC_WORKLOAD:
        return loop_trial.TURNS
    traffic = config.traffic
    if traffic.kind == "capture":
        arrivals = _captured(config).arrival_ns
        until_ns = config.duration_ms * 10**6 * traffic.speed
        pass_ns = int(arrivals[-1]) * len(arrivals) / max(1, len(arrivals) - 1)
        passes = min(traffic.loops - 1, int(until_ns / pass_ns)) if pass_ns else 0
        return passes * len(arrivals) + int(np.searchsorted(arrivals, until_ns - passes * pass_ns))
    rate = 5_000_000 if traffic.kind == "saturation" else traffic.rate_pps
    if traffic.kind == "ramp":
        rate = (traffic.rate_pps + traffic.ramp_to_pps) // 2
    return rate * config.duration_ms // 1000


def _captured(config: TrialConfig) -> capture.Capture:
    traffic = config.traffic
    return capture.load(traffic.capture, traffic.capture_destination, traffic.capture_source)


def run_trial(config: TrialConfig) -> Record:
    """Simulate one trial.

    Args:
        config: checked, as :meth:`TrialConfig.from_fields` gives it.

    Returns:
        Every measure of the catalogue, in its order. The same configuration, inputs and model digest
        give the same record on any machine.

    Raises:
        TrialError: an input is unusable, or the books of the trial do not balance.
    """
    if config.workload != NIC_WORKLOAD:
        return loop_trial.run(config)
    trial = _new_trial(config)
    end_ps = int(trial.nic.end_ps)
    warmup_ps = config.warmup_ms * PS_PER_MS
    if warmup_ps >= end_ps:
        raise ConfigError(
            "warmup_ms",
            config.warmup_ms,
            f"the capture ends after {end_ps / PS_PER_MS:.3g} ms at traffic.speed = "
            f"{config.traffic.speed:g}; lower one of them",
        )
    trial.tally.measure_from_ps = warmup_ps
    loop = _loop(variants.load(config.pool.variant).code)
    loop(trial, warmup_ps)
    before = _counts(trial)
    loop(trial, end_ps)
    audit.check(trial)
    return _record(trial, before, end_ps - warmup_ps)


def prepare(variant: str = KERNEL_VARIANT) -> None:
    """Compile the loop for a variant, or load it from the code cache.

    Raises:
        ConfigError: there is no such variant, or it is unusable.
    """
    trial = _new_trial(TrialConfig.unchecked({"pool.variant": variant}))
    _loop(variants.load(variant).code)(trial, 0)


@cache
def _loop(code: str) -> Callable[[Trial, int], None]:
    """The compiled loop; that of a variant is cached in a place of its own, since whoever reads an index of
    cached code needs every class that is named in it."""
    return entry(f"{MODEL_DIGEST}-{code}" if code else MODEL_DIGEST)(_steps)


def _steps(trial: Trial, until_ps: int) -> None:
    engine.run(trial, until_ps)


_run = _loop("")
"""the loop for the kernel's own pool"""


def _new_trial(config: TrialConfig) -> Trial:
    replay = None
    if config.traffic.kind == "capture":
        replay = _captured(config)
    rules = rules_of(config.kernel)
    drops = config.app.reader == "drop"
    socket_packets = 1 if drops else config.app.socket_bytes // TRUESIZE_BYTES + 1
    ring_slots = min(config.pool.size or 1024, rules.ring_size_limit)
    skbs = socket_packets + 1
    pages = config.nic.rx_ring + ring_slots + socket_packets + 5 * CACHE_CAPACITY
    host = new_machine(config, pages=pages, descriptors=config.nic.rx_ring, skbs=skbs)
    driver_syncs = config.driver.sync == "driver"
    params = PoolParams(
        pool_size=config.pool.size,
        flags=FLAG_DMA_MAP if driver_syncs else FLAG_DMA_MAP | FLAG_DMA_SYNC_DEV,
        dma_dir=2,
        max_len=MOST_BYTES,
        offset=HEADROOM_BYTES,
        napi=NAPI,
    )
    create(host, 0, params)

    nic = records(NIC, 1)[0]
    nic.mask = config.nic.rx_ring - 1
    nic.recycle = int(config.pool.recycle)
    nic.driver_syncs = int(driver_syncs)
    nic.replaces = int(config.driver.model == "replace-before-pass")
    nic.budget = config.nic.budget
    nic.rx_usecs_ps = config.nic.rx_usecs * 1000 * PS_PER_NS
    nic.saturated = int(config.traffic.kind == "saturation")
    arrivals = new_arrivals(config, replay)
    nic.end_ps = config.duration_ms * PS_PER_MS
    if replay is not None:
        nic.chunk_packets = len(arrivals.gaps_ps)
        nic.end_ps = min(nic.end_ps, last_arrival_ps(arrivals) + 1)
    nic.chunk_position = -1

    reader = records(READER, 1)[0]
    reader.cpu = int(config.app.reader_cpu == "other" and not drops)
    reader.drops = int(drops)
    reader.work_ps = config.app.work_ns * PS_PER_NS if config.app.reader == "slow" else 0
    reader.work_varies = int(config.app.work_distribution == "exponential")
    reader.key = work_key(config.seed)
    capacity = 1 << socket_packets.bit_length()
    reader.mask = capacity - 1
    reader.truesize = TRUESIZE_BYTES
    reader.limit_bytes = config.app.socket_bytes
    reader.free_skbs = skbs
    return Trial(
        host=host,
        nic=nic,
        descriptors=records(DESCRIPTOR, config.nic.rx_ring),
        reader=reader,
        skbs=records(SKB, skbs),
        free_skbs=words_of(range(skbs - 1, -1, -1)),
        socket=words(capacity),
        arrivals=arrivals,
        tally=records(TALLY, 1)[0],
        latency=words(BUCKETS),
    )


def _counts(trial: Trial) -> dict[str, Any]:
    """All that is counted from the start of a trial, so that the warm-up can be subtracted."""
    owner, host, tally = trial.host.pools[0], trial.host, trial.tally
    meter, caches = host.observer.meter, host.observer.caches
    recycled = owner.recycle.sum(axis=0)
    alloc = [owner[name] for name in COUNTERS if name.startswith("alloc_")]
    return {
        "ledger": meter.ledger[:, : len(CATEGORIES)].copy(),
        "counters": np.array([*alloc, *recycled[: len(COUNTERS) - len(alloc)]]),
        "declined": int(recycled[RECYCLE_DECLINED]),
        "read": int(tally.read),
        "pages_allocated": int(tally.pages_allocated),
        "hold": int(owner.hold),
        "dma": np.array([host.device[name] for name in DMA_COUNTS]),
        "page_ps": tally.page_ps.copy(),
        "slow": tally.slow.copy(),
        "touches": caches.touches.copy(),
        "misses": caches.misses.copy(),
    }


def _record(trial: Trial, before: dict[str, Any], window_ps: int) -> Record:
    tally, owner = trial.tally, trial.host.pools[0]
    now = _counts(trial)
    delta = {name: now[name] - before[name] for name in now}
    busy_ps = delta["ledger"].sum(axis=1)
    packets = delta["read"]
    seconds = window_ps / PS_PER_SECOND
    handled = int(tally.delivered + tally.dropped_early)
    lost = int(tally.missed + tally.dropped_socket + tally.dropped_driver)
    allocated = delta["pages_allocated"]
    entered = delta["hold"] & 0xFFFFFFFF
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
        "busy_ratio_queue_cpu": int(busy_ps[0]) / window_ps,
        "busy_ratio_reader_cpu": int(busy_ps[1]) / window_ps,
        # a bulk fill at the edge of the window may bring in more pages than were allocated
        "recycle_ratio": max(0.0, 1 - entered / allocated) if allocated else None,
        "pages_allocated": allocated,
        "pages_from_page_allocator": entered,
        "pages_inflight": int(owner.hold - owner.release) & 0xFFFFFFFF,
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
