"""What things cost: the observer that turns touches and work into time and categories.

Time is an integer in picoseconds. Every price comes from the architecture's profile; this file says only
which parameter prices which kind of work. Per CPU, the ledger's categories add up to its busy time.
"""

from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np

from pool_impl import observe
from pool_impl.jit import compiled, methods
from pool_impl.layout import MAX_CPUS, MAX_NODES, REFILL, records
from workers.measures import CATEGORIES
from workers.pricing.cache import (
    CACHES,
    DRAM,
    DRAM_FAR,
    KINDS,
    L1,
    L2,
    LLC,
    OTHER_CPU,
    OTHER_CPU_FAR,
    STAMP,
    find,
)
from workers.pricing.dma import DMA, invalidations_for, wait_for_queue
from workers.pricing.dma import forget as forget_dma
from workers.pricing.idle import IDLE, settle_pool

PS_PER_NS = 1000

# kinds of work beside the allocator's own
INTERRUPT = observe.FIRST_OWN_WORK
POLL = observe.FIRST_OWN_WORK + 1
DRIVER = observe.FIRST_OWN_WORK + 2
SKB_ALLOC = observe.FIRST_OWN_WORK + 3
SKB_FREE = observe.FIRST_OWN_WORK + 4
PROTOCOL = observe.FIRST_OWN_WORK + 5
UDP = observe.FIRST_OWN_WORK + 6
SOCKET = observe.FIRST_OWN_WORK + 7
RECEIVE = observe.FIRST_OWN_WORK + 8
BH_TOGGLE = observe.FIRST_OWN_WORK + 9
SYNC_FOR_CPU = observe.FIRST_OWN_WORK + 10  # bytes; each report is one call
COPY = observe.FIRST_OWN_WORK + 11  # bytes
CONTEXT_SWITCH = observe.FIRST_OWN_WORK + 12
XDP_PROGRAM = observe.FIRST_OWN_WORK + 13
XDP_REDIRECT = observe.FIRST_OWN_WORK + 14
TRANSMIT = observe.FIRST_OWN_WORK + 15
TRANSMIT_CLEAN = observe.FIRST_OWN_WORK + 16
FORWARD = observe.FIRST_OWN_WORK + 17
TARGET_SLOT = observe.FIRST_OWN_WORK + 18  # entries of a CPU map's queue, put in or taken out
GRO = observe.FIRST_OWN_WORK + 19
TCP = observe.FIRST_OWN_WORK + 20
BACKLOG = observe.FIRST_OWN_WORK + 21
IPI = observe.FIRST_OWN_WORK + 22
DEFER = observe.FIRST_OWN_WORK + 23
PAGE_FRAGMENT = observe.FIRST_OWN_WORK + 24
PAGE_CACHE = observe.FIRST_OWN_WORK + 25  # entries of a driver's page cache, looked at or put in
RAW_DROP = observe.FIRST_OWN_WORK + 26
KINDS_OF_WORK = observe.FIRST_OWN_WORK + 27

PRICES: dict[int, tuple[str, str]] = {
    observe.POOL_ALLOC: ("pool_alloc", "pool_alloc_ns"),
    observe.POOL_PUT: ("pool_put", "pool_put_ns"),
    observe.RING_CONSUME: ("pool_refill", "ring_slot_ns"),
    observe.RING_PRODUCE: ("pool_put", "ring_slot_ns"),
    observe.PRODUCER_LOCK: ("ring_lock", "lock_unlock_ns"),
    observe.CONSUMER_LOCK: ("ring_lock", "lock_unlock_ns"),
    observe.PAGE_ADOPT: ("pool_refill", "page_adopt_ns"),
    observe.PAGE_RELEASE: ("pool_release", "page_release_ns"),
    observe.RELEASE_COUNT: ("pool_release", "atomic_ns"),
    observe.SHARE_COUNT: ("pool_put", "atomic_ns"),
    observe.PAGE_BULK_ALLOC: ("page_alloc", "page_bulk_alloc_ns"),
    observe.PAGE_SINGLE_ALLOC: ("page_alloc", "page_single_alloc_ns"),
    observe.PAGE_REF: ("page_free", "atomic_ns"),
    observe.PAGE_FREE: ("page_free", "page_free_ns"),
    observe.BUDDY_PAGE: ("page_alloc", "buddy_page_ns"),
    observe.DMA_MAP: ("dma_map", "dma_map_ns"),
    observe.DMA_UNMAP: ("dma_unmap", "dma_unmap_ns"),
    observe.DMA_SYNC_FOR_DEVICE: ("sync_for_device", "dma_sync_line_ns"),
    PAGE_FRAGMENT: ("page_alloc", "page_fragment_ns"),
    INTERRUPT: ("interrupt", "interrupt_ns"),
    POLL: ("poll", "poll_ns"),
    CONTEXT_SWITCH: ("interrupt", "context_switch_ns"),
    DRIVER: ("driver", "driver_ns"),
    SKB_ALLOC: ("skb_alloc", "skb_alloc_ns"),
    SKB_FREE: ("skb_free", "skb_free_ns"),
    PROTOCOL: ("protocol", "protocol_ns"),
    RAW_DROP: ("protocol", "raw_drop_ns"),
    UDP: ("protocol", "udp_ns"),
    SOCKET: ("socket", "socket_ns"),
    RECEIVE: ("application", "receive_ns"),
    BH_TOGGLE: ("ring_lock", "bh_toggle_ns"),
    SYNC_FOR_CPU: ("sync_for_cpu", "dma_sync_line_ns"),
    XDP_PROGRAM: ("xdp", "xdp_program_ns"),
    XDP_REDIRECT: ("xdp", "xdp_redirect_ns"),
    TRANSMIT: ("transmit", "transmit_ns"),
    TRANSMIT_CLEAN: ("transmit", "transmit_clean_ns"),
    FORWARD: ("protocol", "forward_ns"),
    TARGET_SLOT: ("xdp", "ring_slot_ns"),
    GRO: ("gro", "gro_ns"),
    TCP: ("protocol", "tcp_ns"),
    BACKLOG: ("steering", "backlog_ns"),
    IPI: ("steering", "ipi_ns"),
    DEFER: ("skb_free", "lock_unlock_ns"),
    PAGE_CACHE: ("driver", "page_cache_ns"),
}
"""category and profile parameter of each kind of work; COPY is priced by bandwidth, a zone's lock by the time
until it is free, PAGE_BULK_CALL by the difference between two of these"""

CATEGORY = np.zeros(KINDS_OF_WORK, np.int64)
"""of each kind of work, as constants that the compiler can fold"""
CATEGORY[COPY] = CATEGORIES.index("copy")
CATEGORY[observe.PAGE_BULK_CALL] = CATEGORIES.index("page_alloc")
CATEGORY[[observe.ZONE_LOCK, observe.ZONE_UNLOCK]] = CATEGORIES.index("zone_lock")
for _kind, (_category, _) in PRICES.items():
    CATEGORY[_kind] = CATEGORIES.index(_category)

CACHE_MISSES = CATEGORIES.index("cache_misses")
APPLICATION = CATEGORIES.index("application")
BUSY_POLL = CATEGORIES.index("busy_poll")
DEVICE_REGISTER = CATEGORIES.index("device_register")
IOMMU_MAP = CATEGORIES.index("iommu_map")
IOMMU_UNMAP = CATEGORIES.index("iommu_unmap")
IOMMU_INVALIDATE = CATEGORIES.index("iommu_invalidate")
IOMMU_QUEUE = CATEGORIES.index("iommu_queue")
SWIOTLB_COPY = CATEGORIES.index("swiotlb_copy")

METER = np.dtype(
    [
        ("clock_ps", "<i8", (MAX_CPUS,)),
        ("drained_at", "<i8", (MAX_CPUS,)),
        ("ledger", "<i8", (MAX_CPUS, len(CATEGORIES))),
        ("price_ps", "<i8", (KINDS_OF_WORK,)),
        *((name, "<i8") for name in ("sync_call_ps", "copy_ps_per_kib", "ordered_atomic_drains")),
        *((name, "<i8") for name in ("register_write_ps", "register_writes_per_buffer")),
        *((name, "<i8") for name in ("bounce_to_cpu_ps_per_kib", "bounce_to_device_ps_per_kib")),
        ("line_shift", "<i8"),
        ("zone_free_ps", "<i8", (MAX_NODES,)),
        ("caches", CACHES),
        ("dma", DMA),
    ],
    align=True,
)
"""each CPU's time, what it has spent by category, and the prices; ``drained_at`` is when the stores and
register writes that a CPU has issued so far are done, ``zone_free_ps`` when each node's zone lock is free;
the bounces' prices are 0 where syncs copy nothing"""


class Pricing(NamedTuple):
    """Observer that charges the CPU which runs."""

    meter: Any
    """METER record"""
    caches: Any
    """CACHES record"""
    stamps: Any
    """workers.pricing.cache.STAMP records"""
    pages: Any
    """the host's pages, which know their node"""
    context: Any
    """the host's context: its cpu is charged"""
    idle: Any
    """IDLE record"""
    pools: Any
    """the host's"""
    slots: Any
    """the host's"""

    def has_nodes(self) -> bool:
        """Whether there are several memory nodes."""
        return False

    def has_layers(self) -> bool:
        """Whether anything may lie between device and memory, see workers.pricing.dma."""
        return False

    def touch(self, kind: int, index: int, _write: bool) -> None:
        """Wait for the exposed part of a miss. Written lines are read before, so writes wait too."""
        cpu = self.context.cpu
        level = find(self.caches, self.stamps, self.pages, self.has_nodes(), cpu, kind, index)
        if level != L1:
            charge(self.meter, cpu, CACHE_MISSES, self.caches.exposed_ps[kind, level])

    def own(self, change: int, _page: int, number: int) -> None:
        """Costs nothing; but before a page comes back, its pool's idle ones are added up."""
        if change == observe.POOL_RETURNED:
            settle_pool(self.idle, self.pools[number], self.slots)

    def work(self, kind: int, amount: int) -> None:
        """Charge an operation."""
        meter = self.meter
        cpu = self.context.cpu
        price = meter.price_ps[kind]
        if kind == observe.DMA_SYNC_FOR_DEVICE or kind == SYNC_FOR_CPU:
            lines = (amount + self.caches.line_bytes - 1) >> meter.line_shift
            price = meter.sync_call_ps + price * lines
            if self.has_layers() and kind == SYNC_FOR_CPU:
                charge(meter, cpu, SWIOTLB_COPY, (amount * meter.bounce_to_cpu_ps_per_kib) >> 10)
            if (
                self.has_layers()
                and kind == observe.DMA_SYNC_FOR_DEVICE
                and meter.bounce_to_device_ps_per_kib != 0
            ):
                charge(meter, cpu, SWIOTLB_COPY, (amount * meter.bounce_to_device_ps_per_kib) >> 10)
        elif kind == COPY:
            price = (amount * meter.copy_ps_per_kib) >> 10
        elif kind == observe.ZONE_LOCK:
            # CPUs come in the order in which their steps began, not in that of the moments when they lock it
            price = max(0, meter.zone_free_ps[amount] - clock(meter, cpu))
        elif kind == observe.ZONE_UNLOCK:
            meter.zone_free_ps[amount] = clock(meter, cpu)
            price = 0
        elif kind == observe.RELEASE_COUNT:
            # an ordered atomic waits for all that this core has stored, where the core is built so
            if meter.ordered_atomic_drains:
                price += max(0, meter.drained_at[cpu] - clock(meter, cpu))
        else:
            price *= amount
        charge(meter, cpu, CATEGORY[kind], price)
        if self.has_layers() and kind == observe.DMA_MAP:
            _mapped(meter, cpu, meter.dma.map_copies_bytes)
        if self.has_layers() and kind == observe.DMA_UNMAP:
            _unmapped(meter, cpu)


class PricingOfNodes(Pricing):
    """The same on several memory nodes; another type, so that one node costs nothing for it."""

    def has_nodes(self) -> bool:
        return True

    def has_layers(self) -> bool:
        return True


class PricingOfLayers(Pricing):
    """The same on one node with something between device and memory, a type of its own likewise."""

    def has_layers(self) -> bool:
        return True


methods(Pricing, "has_nodes", "has_layers")


@compiled()
def clock(meter: Any, cpu: int) -> int:
    """A CPU's time: what it has spent and idled."""
    return int(meter.clock_ps[cpu])


@compiled()
def charge(meter: Any, cpu: int, category: int, duration_ps: int) -> None:
    """Let a CPU spend time."""
    meter.ledger[cpu, category] += duration_ps
    meter.clock_ps[cpu] += duration_ps


@compiled()
def idle(meter: Any, cpu: int, duration_ps: int) -> None:
    """Let a CPU wait."""
    meter.clock_ps[cpu] += duration_ps


@compiled()
def forget(meter: Any) -> None:
    """Set all clocks and books back to the start."""
    forget_dma(meter.dma)
    for node in range(MAX_NODES):
        meter.zone_free_ps[node] = 0
    for cpu in range(MAX_CPUS):
        meter.clock_ps[cpu] = 0
        meter.drained_at[cpu] = 0
        for category in range(len(CATEGORIES)):
            meter.ledger[cpu, category] = 0


@compiled()
def maintain(pricing: Pricing, kind: int, size_bytes: int) -> None:
    """Cache maintenance as part of another call: what a sync of that kind costs by line."""
    meter = pricing.meter
    lines = (size_bytes + pricing.caches.line_bytes - 1) >> meter.line_shift
    charge(meter, pricing.context.cpu, CATEGORY[kind], meter.price_ps[kind] * lines)
    if pricing.has_layers() and kind == SYNC_FOR_CPU:
        charge(meter, pricing.context.cpu, SWIOTLB_COPY, (size_bytes * meter.bounce_to_cpu_ps_per_kib) >> 10)


@compiled()
def map_to_send(pricing: Pricing, size_bytes: int) -> None:
    """Map a buffer that the device is to read, its cache lines written back where software has to. Bounced
    bytes are copied now, whatever syncs copy."""
    meter = pricing.meter
    cpu = pricing.context.cpu
    charge(meter, cpu, CATEGORY[observe.DMA_MAP], meter.price_ps[observe.DMA_MAP])
    if pricing.has_layers():
        _mapped(meter, cpu, size_bytes)
    charge(meter, cpu, CATEGORY[observe.DMA_SYNC_FOR_DEVICE], meter.sync_call_ps)
    maintain(pricing, observe.DMA_SYNC_FOR_DEVICE, size_bytes)


@compiled(inline=False)
def _mapped(meter: Any, cpu: int, copied_bytes: int) -> None:
    """What a mapping costs behind an IOMMU, or through a bounce buffer whose slot is in the price."""
    if meter.dma.translates:
        charge(meter, cpu, IOMMU_MAP, meter.dma.map_ps)
    if meter.dma.bounces:
        charge(meter, cpu, SWIOTLB_COPY, (copied_bytes * meter.copy_ps_per_kib) >> 10)


@compiled(inline=False)
def _unmapped(meter: Any, cpu: int) -> None:
    """What an unmapping costs behind an IOMMU. CPUs come to its queue in the order in which their steps
    began, as they come to a zone's lock."""
    dma = meter.dma
    if not dma.translates:
        return
    charge(meter, cpu, IOMMU_UNMAP, dma.unmap_ps)
    for _ in range(invalidations_for(dma, cpu, clock(meter, cpu))):
        charge(meter, cpu, IOMMU_QUEUE, wait_for_queue(dma, clock(meter, cpu)))
        charge(meter, cpu, IOMMU_INVALIDATE, dma.invalidate_ps)


@compiled()
def store(pricing: Pricing, kind: int, index: int) -> None:
    """Write an object without reading it: the core goes on, but the store is in flight until then."""
    cpu = pricing.context.cpu
    level = find(pricing.caches, pricing.stamps, pricing.pages, pricing.has_nodes(), cpu, kind, index)
    if level != L1:
        in_flight(pricing.meter, cpu, pricing.caches.latency_ps[level])


@compiled()
def write_register(pricing: Pricing) -> None:
    """A posted write to a device register."""
    in_flight(pricing.meter, pricing.context.cpu, pricing.meter.register_write_ps)


@compiled()
def in_flight(meter: Any, cpu: int, duration_ps: int) -> None:
    """Something leaves the core ``duration_ps`` from now."""
    meter.drained_at[cpu] = max(meter.drained_at[cpu], clock(meter, cpu) + duration_ps)


class Parameters(Protocol):
    """Values by parameter of a profile, in the unit of its name."""

    def __getitem__(self, parameter: str, /) -> float: ...


def new_pricing(profile: Parameters, context: Any, pages: Any, stamps_of_kind: dict[int, int]) -> Pricing:
    """The observer for one trial on an architecture; ``stamps_of_kind`` from cache.stamps_needed. Nothing
    lies between its device and memory."""
    meter = records(METER, 1)[0]
    caches = meter.caches
    stamps = _lay_out_stamps(caches, stamps_of_kind)
    meter.price_ps[[*PRICES]] = [picoseconds(profile[parameter]) for _, parameter in PRICES.values()]
    _price_bulk_call(meter)
    meter.sync_call_ps = picoseconds(profile["dma_sync_call_ns"])
    meter.copy_ps_per_kib = round(1024 * PS_PER_NS / profile["copy_bytes_per_ns"])
    meter.ordered_atomic_drains = int(profile["ordered_atomic_drains"])
    meter.register_write_ps = picoseconds(profile["register_write_ns"])
    meter.register_writes_per_buffer = int(profile["register_writes_per_buffer"])
    caches.line_bytes = int(profile["cache_line_bytes"])
    meter.line_shift = int(profile["cache_line_bytes"]).bit_length() - 1
    for name in ("l1_bytes", "l2_bytes", "llc_bytes", "ddio_bytes"):
        caches[name] = int(profile[name])
    latency_ps, exposed_ps = caches.latency_ps, caches.exposed_ps
    for level, parameter in (
        (L2, "l2_ns"),
        (LLC, "llc_ns"),
        (DRAM, "dram_ns"),
        (DRAM_FAR, "dram_far_ns"),
        (OTHER_CPU, "line_transfer_ns"),
        (OTHER_CPU_FAR, "line_transfer_far_ns"),
    ):
        latency_ps[level] = picoseconds(profile[parameter])
        exposed_ps[:, level] = picoseconds(profile[parameter] * profile["miss_exposed_ratio"])
    return Pricing(meter, caches, stamps, pages, context, records(IDLE, 1)[0], None, None)


def _price_bulk_call(meter: Any) -> None:
    """A bulk costs beside its pages what a page asked for alone costs more than one of them. The price of a
    page in bulk is that of one of 64, so it holds a 64th of the call."""
    single_ps, of_64_ps = meter.price_ps[observe.PAGE_SINGLE_ALLOC], meter.price_ps[observe.PAGE_BULK_ALLOC]
    share_ps = round((single_ps - of_64_ps) / (REFILL - 1))
    meter.price_ps[observe.PAGE_BULK_ALLOC] -= share_ps
    meter.price_ps[observe.PAGE_BULK_CALL] = REFILL * share_ps


def _lay_out_stamps(caches: Any, stamps_of_kind: dict[int, int]) -> Any:
    """Lay the stamps of all kinds out one after the other."""
    ends = list(accumulate(stamps_of_kind[kind] for kind in range(KINDS)))
    caches.first_stamp[:] = [0, *ends[:-1]]
    return records(STAMP, ends[-1])


def picoseconds(nanoseconds: float) -> int:
    """Integer picoseconds."""
    return round(nanoseconds * PS_PER_NS)
