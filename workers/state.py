"""What one trial works on: record types and the NamedTuple that holds them all."""

from typing import Any, NamedTuple

import numpy as np

from pool_impl.layout import MAX_CPUS, Buffers, Host
from workers.measures import LOCATIONS, SLOW_CAUSES
from workers.traffic import Arrivals


def _words(*names: str) -> np.dtype[Any]:
    return np.dtype([(name, "<i8") for name in names], align=True)


NOBODY = -1

DOWN, IDLE, POLLING, YIELDED = range(4)
"""phases of a receive queue: not started, interrupt armed, in NAPI poll, poll to go on after others' turn"""

NIC = _words(
    "queues",
    "up",  # 0 until the rings have been filled
    "next_arrival_ps",
    "chunk_position",
    "chunk_packets",
    "ring_mask",
    "recycle",
    "driver_syncs",  # 1: the pool leaves syncs for the device to the driver
    "replaces",  # 1: a page takes the packet's place in the descriptor before the packet is passed on
    "pattern",
    "buffer_bytes",  # what the device may write to the buffer of one descriptor
    "buffer_units",  # of pages that a descriptor's buffers take, see UNIT_BYTES
    "part_units",  # of a page that a buffer takes which is cut off it
    "split_bytes",  # headers that the device writes to a buffer of their own, 0: none
    "pools",  # payload pools of all queues, then their header pools
    "copybreak_bytes",  # packets up to this are copied
    "wanted",  # descriptors that the next packet on the wire needs
    "budget",
    "rx_usecs_ps",
    "saturated",
    "end_ps",  # what arrives before it is offered, also if no poll sees it
)
"""the wire, and what all receive queues share"""

QUEUE = _words(
    "cpu",
    "phase",
    "event_ps",  # when the interrupt fires, FOREVER while nothing has come in; when the last poll yielded
    "polled",  # packets of this poll
    "poll_started_ps",
    "first",  # descriptor
    "dma",  # descriptors filled, read and posted since the start; index = first + (count & mask)
    "read",
    "posted",
    "unannounced",  # descriptors posted since the device was last told
    "kept_units",  # of pages in descriptors that have been read and not posted again
)
"""a receive queue; its pool and its NAPI instance have its number"""

BLAMED = _words("overflow", "waive", "declined")
"""of a pool: ring_full, waive and declined counts already blamed for slow allocations"""

PAGE_ALONE, PAGES, FRAGMENTS, HEADER_SPLIT, OWN_PAGES, OWN_FRAGMENTS = range(6)
"""receive patterns: a page for each packet and nothing else; pages also for packets that are copied or
take several; fragments of a pool's pages; headers in fragments and payload in pages; without a pool, pages or
parts of the network core's blocks"""

UNIT_BYTES = 64
"""in which parts of a page are counted: all buffers are multiples of a cache line"""
UNITS_SHIFT = 6
UNITS_OF_A_PAGE = 1 << UNITS_SHIFT

DESCRIPTOR = _words(
    "page",
    "offset",  # of the buffer in it, bytes
    "frame_bytes",  # that the device wrote to this buffer
    "ends",  # 1: the packet's last descriptor
    "header_page",
    "header_offset",
    "header_bytes",
    "arrival_ps",
    "flow_hash",
)

PACKET = _words("arrival_ps", "flow_hash", "units")
"""what the trial knows of an skb's packet beside the skb itself, by the skb's number; ``units`` of pages that
its buffers take"""

SOCKET = _words(
    "cpu",
    "wake_ps",
    "work_ps",
    "work_varies",  # 1: work_ps is the mean of an exponential distribution
    "key",  # of the reader's own random numbers, and how many it has drawn
    "draws",
    "first",  # slot of the socket
    "head",  # packets dequeued and enqueued since the start; slot = first + (count & mask)
    "tail",
    "mask",
    "queued_bytes",  # truesize of the packets in the socket
    "queued_units",  # of pages that their buffers take
    "limit_bytes",
)
"""a socket and its application"""

STACK = _words("readers", "drops")
"""what is above the driver; ``drops`` is 1 where packets are dropped without a socket"""

CPU = _words(
    "now_ps",
    "due_ps",  # when its next step may start, and whose it is: see workers.schedule
    "due_actor",
    "poller",  # the queue in its NAPI poll, or NOBODY
    "reader_turn_ps",  # time that readers may take before the next poll
    "waiting",  # readers with packets to read
    "first_actor",
    "actors",
)
"""a CPU that takes part in the trial"""

MACHINE = _words("cpus")
"""how many take part"""

POLL, READER = range(2)
"""kinds of actors"""

ACTOR = _words("kind", "number")
"""who takes steps on a CPU: a queue's poll, or a reader, by its number; in the order of CPUs, polls first"""

TALLY = np.dtype(
    [
        *(
            (name, "<i8")
            for name in (
                "measure_from_ps",  # packets that arrive from then on are counted
                "offered",
                "delivered",
                "dropped_early",
                "missed",
                "dropped_socket",
                "dropped_driver",
                "read",  # all packets taken from the receive rings, by time
                "pages_allocated",
                "pages_taken",  # from the page allocator by a driver that has no pool
                "latency_max_ps",
                "latency_sum_ps",
                "integrated_to_ps",
                "used_page_ps",
            )
        ),
        ("busy_ps", "<i8", (MAX_CPUS,)),
        ("page_ps", "<i8", (len(LOCATIONS),)),
        ("unit_ps", "<i8", (len(LOCATIONS),)),
        ("slow", "<i8", (len(SLOW_CAUSES),)),
    ],
    align=True,
)
"""what is counted; ``busy_ps`` is the time that the steps of each CPU took, ``page_ps`` and
``used_page_ps`` are pages integrated over time, ``unit_ps`` is what is left of units that make no page"""

NOT_RECYCLED, OVERFLOW, WRONG_NODE, DECLINED, HELD = range(len(SLOW_CAUSES))
IN_CACHE, IN_RING, IN_RX_RING, IN_SOCKET, IN_FRAGMENTS = range(len(LOCATIONS))


class Trial(NamedTuple):
    """Everything a trial's compiled loop sees; tables unless it says record."""

    host: Host
    buffers: Buffers
    """the same host, and its skbs"""
    machine: Any
    """record"""
    cpus: Any
    actors: Any
    nic: Any
    """record"""
    queues: Any
    indirection: Any
    """queue by the low bits of a flow's hash"""
    descriptors: Any
    """of all queues"""
    blamed: Any
    """by pool"""
    stack: Any
    """record"""
    readers: Any
    packets: Any
    socket_slots: Any
    """slots of all sockets: skbs in order of arrival"""
    frag_caches: Any
    """of the network core, by CPU"""
    arrivals: Arrivals
    tally: Any
    """record"""
    latency: Any
    """histogram, see workers.latency.latency_bucket"""
