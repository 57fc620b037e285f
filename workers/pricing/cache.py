"""Cache residency by fill clocks.

Each cache level counts the bytes that were filled into it. An object is still resident in a level when
the fills since its last touch are below the level's capacity: O(1) for each touch, close to least
recently used, and right for hot sets, which a plain byte counter is not. A device's writes have a
clock of their own: the part of the last-level cache that they may fill, or memory.

Each memory node has a last-level cache of its own. An object is in that of the CPU that touched it last, and
in memory on its home node: a page, and what the kernel keeps about it, on the page's; other objects on that
of their kind. The device fills the cache of its own node, and only with what lies in the memory there.
"""

from typing import Any

import numpy as np

from pool_impl.jit import compiled
from pool_impl.layout import CACHE_LINE_BYTES, MAX_CPUS, MAX_NODES, SHARED_INFO_BYTES, SKB_BYTES
from pool_impl.observe import (
    FIRST_OWN_OBJECT,
    POOL_CONSUMER,
    POOL_PRODUCER,
    RING_SLOT,
    SHARED_INFO,
    SKB,
    SLAB_HEAD,
    STRUCT_PAGE,
)

# kinds of objects beside the allocator's own, and what index means
HEADER = FIRST_OWN_OBJECT  # part of a page: first line of what the device wrote there
PAYLOAD = FIRST_OWN_OBJECT + 1  # part of a page: all behind that line
DESCRIPTOR = FIRST_OWN_OBJECT + 2  # receive descriptor
KINDS = FIRST_OWN_OBJECT + 3

KIND_OF_OBJECT = {
    "struct_page": STRUCT_PAGE,
    "header": HEADER,
    "payload": PAYLOAD,
    "shared_info": SHARED_INFO,
    "ring_slot": RING_SLOT,
    "descriptor": DESCRIPTOR,
    "skb": SKB,
}
"""kinds by the name that measures use"""

MISSES = {
    "struct_page": (STRUCT_PAGE,),
    "packet": (HEADER, PAYLOAD),
    "ring": (RING_SLOT, POOL_CONSUMER, POOL_PRODUCER),
    "descriptor": (DESCRIPTOR,),
    "skb": (SKB, SLAB_HEAD, SHARED_INFO),
}
"""all kinds, by what a what-if may take the price of misses from"""

# by kind, as constants that the compiler can fold
LINE_SHIFT = np.zeros(KINDS, np.int64)
"""8-byte slots and 32-byte descriptors share 64-byte lines; other objects have lines of their own"""
LINE_SHIFT[RING_SLOT] = 3
LINE_SHIFT[DESCRIPTOR] = 1

LINES = np.ones(KINDS, np.int64)
"""lines that a miss fills"""
LINES[SKB] = SKB_BYTES // CACHE_LINE_BYTES
LINES[SLAB_HEAD] = SHARED_INFO_BYTES // CACHE_LINE_BYTES

BY_KIND, BY_PAGE, BY_PART = range(3)
PLACE = np.zeros(KINDS, np.int64)
"""which node an object lies on: the same for all of the kind, or that of the page that it is about or in"""
PLACE[[STRUCT_PAGE, SHARED_INFO]] = BY_PAGE
PLACE[[HEADER, PAYLOAD]] = BY_PART

NOBODY = 0
DEVICE = -1
"""values of a stamp's ``owner``; a CPU is its number plus one"""

STAMP = np.dtype([(name, "<i8") for name in ("owner", "l1", "l2", "llc")], align=True)
"""who touched an object last, and the fill clocks after that"""

L1, L2, LLC, OTHER_CPU, DRAM, DRAM_FAR, OTHER_CPU_FAR = range(7)
LEVELS = 7
"""where an object was found: in the CPU's own caches, in those of another CPU or of the device's node, or in
memory; far: on another node. What is found in memory or far fills the last-level cache, too"""

CACHES = np.dtype(
    [
        ("l1_fills", "<i8", (MAX_CPUS,)),
        ("l2_fills", "<i8", (MAX_CPUS,)),
        ("llc_fills", "<i8", (MAX_NODES,)),
        ("device_fills", "<i8"),
        ("device_node", "<i8"),
        *((name, "<i8") for name in ("line_bytes", "l1_bytes", "l2_bytes", "llc_bytes", "ddio_bytes")),
        ("latency_ps", "<i8", (LEVELS,)),
        ("exposed_ps", "<i8", (KINDS, LEVELS)),
        ("touches", "<i8", (KINDS,)),
        ("misses", "<i8", (KINDS,)),  # neither in L1 nor in L2
        ("first_stamp", "<i8", (KINDS,)),
        *((name, "<i8") for name in ("parts_shift", "part_bytes_shift")),
        ("node", "<i8", (MAX_CPUS,)),
        ("home", "<i8", (KINDS,)),
    ],
    align=True,
)
"""fill clocks, capacities and latencies by level, and the place of each kind's stamps; ``exposed_ps`` is
the part of a latency that execution does not hide; ``llc_bytes`` is 0 where there is no cache beyond L2.
A page has ``1 << parts_shift`` parts of ``1 << part_bytes_shift`` bytes, each for one packet at a time.
``node`` is that of each CPU, ``home`` that of each kind but those of pages"""


@compiled()
def part_of_page(caches: Any, page: int, offset_bytes: int) -> int:
    """Index of the header or payload at this place of a page: a page that several packets share has stamps
    for each."""
    return int((page << caches.parts_shift) + (offset_bytes >> caches.part_bytes_shift))


def stamps_needed(pages: int, slots: int, descriptors: int, skbs: int, parts: int = 1) -> dict[int, int]:
    """Stamps of each kind for so many objects, and for so many parts of each page."""
    objects = {
        STRUCT_PAGE: pages,
        RING_SLOT: slots,
        POOL_CONSUMER: 1,
        POOL_PRODUCER: 1,
        HEADER: pages * parts,
        PAYLOAD: pages * parts,
        SHARED_INFO: pages,
        DESCRIPTOR: descriptors,
        SKB: skbs,
        SLAB_HEAD: skbs,
    }
    return {kind: (n >> int(LINE_SHIFT[kind])) + 1 for kind, n in objects.items()}


@compiled()
def find(caches: Any, stamps: Any, pages: Any, nodes: bool, cpu: int, kind: int, index: int) -> int:
    """Touch an object and say in which level it was; it is in L1 then. ``nodes``: there are several; a
    constant, since this is most of a trial's work."""
    stamp = stamps[caches.first_stamp[kind] + (index >> LINE_SHIFT[kind])]
    caches.touches[kind] += 1
    owner = stamp.owner
    node = caches.node[cpu] if nodes else 0
    if owner == cpu + 1:
        if caches.l1_fills[cpu] - stamp.l1 < caches.l1_bytes:
            stamp.l1 = caches.l1_fills[cpu]
            stamp.l2 = caches.l2_fills[cpu]
            return L1
        if caches.l2_fills[cpu] - stamp.l2 < caches.l2_bytes:
            level = L2
        else:
            level = LLC if caches.llc_fills[node] - stamp.llc < caches.llc_bytes else DRAM
    elif owner == DEVICE:
        level = DRAM
        if caches.device_fills - stamp.llc < caches.ddio_bytes:
            level = LLC if not nodes or node == caches.device_node else OTHER_CPU_FAR
    elif owner == NOBODY:
        level = DRAM
    else:
        # still in the other CPU's caches, or in the level that its node shares
        had = caches.node[owner - 1] if nodes else 0
        level = DRAM
        if caches.llc_fills[had] - stamp.llc < max(caches.llc_bytes, caches.l2_bytes):
            level = OTHER_CPU if node == had else OTHER_CPU_FAR
    filled = LINES[kind] * caches.line_bytes
    caches.l1_fills[cpu] += filled
    if level != L2:
        caches.misses[kind] += 1
        caches.l2_fills[cpu] += filled
    if level >= DRAM:
        caches.llc_fills[node] += filled
        if nodes and level == DRAM and _home(caches, pages, kind, index) != node:
            level = DRAM_FAR
    stamp.owner = cpu + 1
    stamp.l1 = caches.l1_fills[cpu]
    stamp.l2 = caches.l2_fills[cpu]
    stamp.llc = caches.llc_fills[node]
    return level


@compiled()
def _home(caches: Any, pages: Any, kind: int, index: int) -> int:
    """The node in whose memory an object lies."""
    if PLACE[kind] == BY_PAGE:
        return int(pages[index].nid)
    if PLACE[kind] == BY_PART:
        return int(pages[index >> caches.parts_shift].nid)
    return int(caches.home[kind])


@compiled()
def device_write(caches: Any, stamps: Any, kind: int, index: int, size_bytes: int) -> None:
    """The device wrote an object: CPUs have lost their copies."""
    stamp = stamps[caches.first_stamp[kind] + (index >> LINE_SHIFT[kind])]
    caches.device_fills += size_bytes
    stamp.owner = DEVICE
    stamp.llc = caches.device_fills


@compiled()
def device_write_past_caches(caches: Any, stamps: Any, kind: int, index: int) -> None:
    """The same where the object lies on another node than the device: no cache has it then."""
    stamps[caches.first_stamp[kind] + (index >> LINE_SHIFT[kind])].owner = NOBODY


@compiled()
def stream(caches: Any, cpu: int, size_bytes: int) -> None:
    """Bytes that passed through a CPU's caches and are not looked at again, such as a copy."""
    caches.l1_fills[cpu] += size_bytes
    caches.l2_fills[cpu] += size_bytes
    caches.llc_fills[caches.node[cpu]] += size_bytes
