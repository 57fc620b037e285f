"""The catalogue of a profile's parameters: what each costs or states, its unit, how certain it can be."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

PARAMETERS: Mapping[str, str] = MappingProxyType(
    {
        "clock_ghz": "core clock",
        "sockets": "most sockets of a machine; each has a memory node and a last-level cache",
        "page_bytes": "size of an order-0 page",
        "cache_line_bytes": "cache line, the unit of misses and of cache maintenance",
        "dma_coherent": "1 if DMA and CPU caches are coherent, else software maintains the caches",
        "l1_bytes": "level 1 data cache",
        "l1_ns": "load that hits in level 1",
        "l2_bytes": "level 2 cache that one core can fill",
        "l2_ns": "load that hits in level 2",
        "llc_bytes": "last-level cache, 0 if there is none",
        "llc_ns": "load that hits in the last-level cache",
        "dram_ns": "load from memory",
        "dram_far_ns": "load from the memory of another socket",
        "line_transfer_ns": "line last written by another core of the same socket",
        "line_transfer_far_ns": "line in a cache of another socket",
        "ddio_bytes": "share of the last-level cache that DMA may fill, 0 if DMA goes to memory",
        "miss_exposed_ratio": "share of a miss latency that execution does not hide",
        "call_ns": "function call and return",
        "mitigated_call_ns": "the same with return mitigation on; equal to call_ns where the part has none",
        "atomic_ns": "uncontended atomic read-modify-write",
        "ordered_atomic_drains": "1 if an ordered atomic waits for stores and register writes in flight",
        "lock_unlock_ns": "uncontended spin lock and unlock",
        "register_write_ns": "posted device register write until it has left the core",
        "register_writes_per_buffer": "1 if giving a buffer back to the device takes a register write",
        "bh_toggle_ns": "disable and enable bottom halves",
        "pool_alloc_ns": "page_pool alloc from the cache, instructions only",
        "pool_put_ns": "page_pool put: decision and cache push, without ring and lock",
        "ring_slot_ns": "produce or consume one ptr_ring entry, without lock and misses",
        "page_adopt_ns": "instructions that bring one page into the pool",
        "page_release_ns": "instructions that make one page leave the pool, without atomic and misses",
        "page_cache_ns": "one page into or out of a driver's own page cache, without misses",
        "page_bulk_alloc_ns": "one page of a bulk of 64 from the per-CPU list",
        "page_single_alloc_ns": "one page asked for alone, from the per-CPU list",
        "page_fragment_ns": "part of a block cut off, as the network core does, without a new block",
        "page_free_ns": "one page to the per-CPU list, the drop of its last reference included",
        "pcp_high_pages": "length of the per-CPU list at which it overflows",
        "pcp_batch_pages": "pages moved at a time between per-CPU list and buddy lists",
        "buddy_page_ns": "extra cost of a page that moves between per-CPU list and buddy lists",
        "dma_map_ns": "map one page, no IOMMU, without cache maintenance",
        "dma_unmap_ns": "unmap one page, no IOMMU, without cache maintenance",
        "iommu_map_ns": "map one page behind an IOMMU: IOVA and page table, on top of dma_map_ns",
        "iommu_unmap_ns": "unmap one page behind an IOMMU: page table and IOVA, without invalidation, on top "
        "of dma_unmap_ns",
        "iommu_invalidate_ns": "issue one IOTLB invalidation and wait for it, while the queue is held",
        "swiotlb_slot_ns": "find or give back a bounce-buffer slot, without the copy",
        "dma_sync_call_ns": "fixed cost of one DMA sync call",
        "dma_sync_line_ns": "cost of a DMA sync per cache line, 0 if coherent",
        "interrupt_ns": "interrupt until the NAPI poll runs",
        "context_switch_ns": "waking a thread until it runs",
        "poll_ns": "fixed cost of one NAPI poll",
        "driver_ns": "driver's receive function, per packet",
        "xdp_program_ns": "run a short XDP program: call, bounds checks, verdict",
        "xdp_redirect_ns": "redirect a frame: map lookup, xdp_frame, bulk queue",
        "skb_alloc_ns": "slab alloc and build_skb",
        "skb_free_ns": "slab free and release of the data",
        "protocol_ns": "eth_type_trans, GRO and receive core, up to the drop point or to IP",
        "gro_ns": "GRO of one packet where it may hold packets back, on top of protocol_ns",
        "raw_drop_ns": "IP and the drop in iptables' raw table, on top of protocol_ns",
        "udp_ns": "IP and UDP up to the socket, on top of protocol_ns",
        "forward_ns": "route, neighbour and queueing discipline of a forwarded skb, on top of protocol_ns",
        "transmit_ns": "driver's transmit function, per frame, without DMA mapping and doorbell",
        "transmit_clean_ns": "clean one sent descriptor, without unmapping and freeing",
        "tcp_ns": "IP and TCP up to the socket, on top of protocol_ns",
        "backlog_ns": "choose an RPS CPU for a packet, put it into that CPU's backlog and take it out there",
        "ipi_ns": "send an interrupt to another CPU, without what it costs there",
        "socket_ns": "enqueue on a socket and wake its reader",
        "receive_ns": "recvmsg of one packet, without copy and misses",
        "copy_bytes_per_ns": "copy to user space, cache-hot or as memcpy",
    }
)
"""every parameter with what it costs or states; the unit stands in the name"""

CERTAINTIES: Mapping[str, str] = MappingProxyType(
    {
        "verified": "read in the source",
        "derived": "arithmetic on verified figures",
        "measured": "measured on the machine itself by farm arch calibrate; its source names a stand-in",
        "secondary": "another author's summary, or a related machine",
        "recalled": "general knowledge, to be checked before relying on it",
        "estimate": "a plausible range",
    }
)
"""how a number was come by, the best first"""

_UNITS = (
    ("_bytes_per_ns", "bytes/ns"),
    ("_per_buffer", "writes/buffer"),
    ("_ghz", "GHz"),
    ("_bytes", "bytes"),
    ("_pages", "pages"),
    ("sockets", "sockets"),
    ("_ratio", "ratio"),
    ("_ns", "ns"),
)

_NOT_OF_THE_CORE = (
    "l1_ns",
    "l2_ns",
    "llc_ns",
    "dram_ns",
    "dram_far_ns",
    "line_transfer_ns",
    "line_transfer_far_ns",
    "register_write_ns",
    "dma_sync_line_ns",
    "iommu_invalidate_ns",
    "interrupt_ns",
    "poll_ns",
    "ipi_ns",
)
"""times that caches, memory, devices or their registers take, not the core's instructions"""


def unit_of(name: str) -> str:
    """Unit of a parameter, empty for a flag and for what is a plain number."""
    return next((unit for suffix, unit in _UNITS if name.endswith(suffix)), "")


CORE_TIMES = tuple(name for name in PARAMETERS if unit_of(name) == "ns" and name not in _NOT_OF_THE_CORE)
"""times that instructions take: they follow the clock, and the kind of core"""

CYCLES_OF_PARENT = "cycles_of_parent"
"""table of a child: cycles that its core takes for the same work, the parent's being 1"""


class Parameter(NamedTuple):
    """One number of a profile, in the unit of its name."""

    name: str
    value: float
    unit: str
    """GHz, bytes, ns, ratio, pages, sockets, bytes/ns, writes/buffer, or empty for a flag (0 or 1)"""
    low: float
    """lower end of the range that the source supports"""
    high: float
    source: str
    certainty: str
    """a key of :data:`CERTAINTIES`"""
    note: str
    row: str = ""
    """row of the table of sources that the value is held inside of, as "machine parameter"; empty: none"""
