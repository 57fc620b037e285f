"""The catalogue of outputs: every measure of a record, defined once.

The store, the command line, the metrics and the dashboards read names, units and directions here.
This module is plain data, so that reading it costs no compiler.
"""

from functools import cache
from typing import Literal, NamedTuple

Unit = Literal["packets", "events", "ns", "ratio", "pages", "bytes", "per second", "seconds"]
Better = Literal["higher", "lower", "neither"]


class Measure(NamedTuple):
    """One column of a record."""

    name: str
    unit: Unit
    better: Better
    description: str


CATEGORIES = (
    "interrupt",
    "poll",
    "busy_poll",
    "driver",
    "pool_alloc",
    "pool_refill",
    "pool_put",
    "pool_release",
    "ring_lock",
    "page_alloc",
    "page_free",
    "zone_lock",
    "dma_map",
    "dma_unmap",
    "iommu_map",
    "iommu_unmap",
    "iommu_invalidate",
    "iommu_queue",
    "swiotlb_copy",
    "sync_for_cpu",
    "sync_for_device",
    "device_register",
    "xdp",
    "skb_alloc",
    "skb_free",
    "gro",
    "steering",
    "protocol",
    "socket",
    "transmit",
    "copy",
    "application",
    "cache_misses",
)
"""what busy time is spent on; per CPU they add up to its busy time; ``zone_lock`` and
``iommu_queue`` are spent waiting: for the lock, and for other CPUs' invalidations"""

COUNTERS = (
    "alloc_fast",
    "alloc_slow",
    "alloc_slow_high_order",
    "alloc_empty",
    "alloc_refill",
    "alloc_waive",
    "recycle_cached",
    "recycle_cache_full",
    "recycle_ring",
    "recycle_ring_full",
    "recycle_released_refcnt",
)
"""the kernel's page_pool statistics, under its names, in its order"""

_COUNTER_HELP = (
    "allocations served from the cache",
    "bulk fills from the page allocator, one for up to 64 pages",
    "pages of order above 0 from the page allocator",
    "refills that found the ring empty",
    "refills of the cache that returned a page",
    "ring pages released at refill for being on another node",
    "pages returned to the cache",
    "direct returns that found the cache full",
    "pages returned to the ring",
    "returns that found the ring full",
    "returns refused for other references or emergency pages",
)

PAGE_CACHE_COUNTERS = (
    "page_cache_reuse",
    "page_cache_empty",
    "page_cache_busy",
    "page_cache_full",
    "page_cache_waive",
)
"""statistics of a driver's page cache, as mlx5 had them (``rx_cache_reuse``, ...)"""

_PAGE_CACHE_HELP = (
    "pages that the driver's page cache gave back to the receive ring",
    "allocations that found the page cache empty",
    "allocations that found the oldest page of the page cache still held by the stack",
    "pages that found the page cache full",
    "emergency pages that the page cache did not take",
)

LOCATIONS = (
    "cache",
    "ring",
    "rx_ring",
    "gro",
    "backlog",
    "socket",
    "application",
    "deferred",
    "tap",
    "tx",
    "target",
    "fragments",
    "page_cache",
)
"""where a page taken from the page allocator can be; a packet in the driver's or reader's hands counts
to where it came from; ``deferred`` is read and left to its CPU to be freed, ``tap`` only a clone holds. Of a
page in several buffers each part counts to where its buffer is, and those that are in no descriptor and no
packet, not yet or no longer, to ``fragments``; to ``page_cache`` where the driver has one, whose pages
count there only if the stack has let go of them"""

SLOW_CAUSES = ("not_recycled", "overflow", "wrong_node", "declined", "held")
"""why an allocation went to the page allocator"""

_SLOW_HELP = (
    "the packets before it left the pool for good (recycling off, frames that became skbs before 6.4, or "
    "packets forwarded as segments that share their pages)",
    "a full ring had given its pages away before",
    "pages of another node had been given away before",
    "the pool's variant had not wanted pages back before",
    "every page was held outside the pool",
)

OBJECTS = ("struct_page", "header", "payload", "shared_info", "ring_slot", "descriptor", "skb")
"""the objects whose cache residency is tracked"""

MEASURES = (
    Measure("measured_seconds", "seconds", "neither", "simulated time after the warm-up"),
    Measure("packets_offered", "packets", "neither", "packets that arrived on the wire"),
    Measure("packets_delivered", "packets", "higher", "packets received by the application"),
    Measure("packets_dropped_early", "packets", "neither", "packets dropped in the stack on purpose"),
    Measure("packets_missed", "packets", "lower", "packets that found no free descriptor"),
    Measure("packets_missed_without_page", "packets", "lower", "of these, while there was no page to post"),
    Measure("packets_dropped_socket", "packets", "lower", "packets that found the socket full"),
    Measure("packets_dropped_driver", "packets", "lower", "packets without a page to replace theirs"),
    Measure(
        "packets_dropped_backlog",
        "packets",
        "lower",
        "packets that found an RPS CPU's backlog full, or their device down",
    ),
    Measure("packets_dropped_xdp", "packets", "neither", "packets dropped by the XDP program on purpose"),
    Measure("packets_transmitted", "packets", "higher", "packets sent again, by XDP_TX or forwarded"),
    Measure(
        "packets_redirected",
        "packets",
        "higher",
        "frames that another device has sent or an AF_XDP socket has got",
    ),
    Measure(
        "packets_dropped_tx",
        "packets",
        "lower",
        "packets that a transmit ring or target had no room for, or lost as its device went down",
    ),
    Measure("packets_queued", "packets", "lower", "packets still queued at the end"),
    Measure(
        "packets_handled_rate",
        "per second",
        "higher",
        "packets delivered, dropped on purpose, sent again or redirected, per second",
    ),
    Measure("drop_ratio", "ratio", "lower", "lost anywhere over packets offered"),
    Measure(
        "busy_ns_per_packet",
        "ns",
        "lower",
        "CPU time per packet taken from the receive ring, or page of a loop",
    ),
    Measure("latency_mean_ns", "ns", "lower", "wire to consumer, mean, exact"),
    Measure("latency_p50_ns", "ns", "lower", "wire to consumer, median"),
    Measure("latency_p90_ns", "ns", "lower", "wire to consumer, 90th percentile"),
    Measure("latency_p99_ns", "ns", "lower", "wire to consumer, 99th percentile"),
    Measure("latency_max_ns", "ns", "lower", "wire to consumer, slowest packet"),
    Measure("hold_p50_ns", "ns", "lower", "skb built until its page goes back, median by wire packet"),
    Measure("hold_p99_ns", "ns", "lower", "skb built until its page goes back, 99th percentile"),
    Measure("hold_max_ns", "ns", "lower", "skb built until its page goes back, longest"),
    Measure("socket_share_max", "ratio", "lower", "pages in use that one socket's reader holds, the most"),
    Measure("gro_packets_per_skb", "packets", "higher", "wire packets in an skb that GRO or the NIC merged"),
    Measure("packets_captured", "packets", "neither", "skbs that the tap's reader received as clones"),
    Measure("captures_dropped", "packets", "lower", "clones that found the tap's socket full"),
    Measure("busy_ratio_queue_cpu", "ratio", "lower", "busy share of the CPU of the receive queue"),
    Measure("busy_ratio_reader_cpu", "ratio", "lower", "busy share of the CPU of the reader, 0 if shared"),
    Measure("busy_ratio_target_cpu", "ratio", "lower", "busy share of the busiest CPU of a redirect target"),
    Measure("interrupts", "events", "lower", "interrupts that started a poll"),
    Measure("recycle_ratio", "ratio", "higher", "1 - pages from the page allocator / pages allocated"),
    Measure("pages_allocated", "pages", "neither", "pages, or parts of pages, handed to the driver"),
    Measure(
        "pages_from_page_allocator",
        "pages",
        "lower",
        "pages that entered the pool, or the driver took without one",
    ),
    Measure("pages_inflight", "pages", "neither", "pages of the pool at the end, idle ones included"),
    Measure("memory_peak_bytes", "bytes", "lower", "most memory taken from the page allocator at a time"),
    Measure("pages_left_behind", "pages", "lower", "pages in flight when the device had gone down"),
    Measure("pages_not_returned", "pages", "lower", "of these, outside of their pools still at the end"),
    Measure("drain_seconds", "seconds", "lower", "from then until the last of its pools was gone"),
    Measure(
        "drain_forecast_seconds",
        "seconds",
        "lower",
        "the same at the pace so far, if pages are still out; none if none has come back: a leak or a stall",
    ),
    Measure(
        "buffers_far_from_cpu_ratio",
        "ratio",
        "lower",
        "received buffers on another node than the CPU that polls, none on a machine of one node",
    ),
    Measure("buffers_far_from_nic_ratio", "ratio", "lower", "the same, on another node than the NIC"),
    Measure("dma_maps", "events", "lower", "DMA mappings made"),
    Measure("dma_unmaps", "events", "lower", "DMA mappings undone"),
    Measure(
        "iommu_invalidations",
        "events",
        "lower",
        "IOTLB invalidations: one for an unmapping if strict, for a flush queue if lazy, none without IOMMU",
    ),
    Measure("dma_syncs", "events", "lower", "syncs for the device, by the pool or the driver"),
    Measure("dma_sync_bytes", "bytes", "lower", "bytes that they covered"),
    *(Measure(n, "events", "neither", t) for n, t in zip(COUNTERS, _COUNTER_HELP, strict=True)),
    Measure("returns_declined", "events", "neither", "returns that the pool's variant did not want back"),
    *(Measure(n, "pages", "neither", t) for n, t in zip(PAGE_CACHE_COUNTERS, _PAGE_CACHE_HELP, strict=True)),
    *(Measure(f"{n}_ns_per_packet", "ns", "lower", f"busy time per packet: {n}") for n in CATEGORIES),
    *(Measure(f"pages_in_{n}", "pages", "neither", f"pages in the {n}, time average") for n in LOCATIONS),
    *(
        Measure(f"slow_{n}", "pages", "lower", f"pages from the page allocator because {t}")
        for n, t in zip(SLOW_CAUSES, _SLOW_HELP, strict=True)
    ),
    *(Measure(f"cache_hit_{n}", "ratio", "higher", f"touches of the {n} found in L1 or L2") for n in OBJECTS),
)

HISTOGRAMS = {
    "latency_histogram": "wire to consumer, wire packets by bucket",
    "hold_histogram": "skb built until its page goes back, wire packets by bucket",
}
"""so that quantiles of several trials can be had together"""

TIME_BY_CPU = "time_by_cpu_ps"

LISTS = {
    **HISTOGRAMS,
    TIME_BY_CPU: "busy picoseconds by CPU and category: of CPU c and the k-th category at c * categories + k",
}
"""what a record holds beside its measures: index and number in turn, of those that are not 0"""

QUANTILES = {
    **{f"latency_p{percent}_ns": ("latency_histogram", percent) for percent in (50, 90, 99)},
    **{f"hold_p{percent}_ns": ("hold_histogram", percent) for percent in (50, 99)},
}
"""measures that are quantiles: of which histogram, and percent"""


@cache
def by_name() -> dict[str, Measure]:
    """The catalogue by name."""
    return {measure.name: measure for measure in MEASURES}
