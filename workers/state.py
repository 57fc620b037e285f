"""What one trial works on: record types and the NamedTuple that holds them all."""

from typing import Any, NamedTuple

import numpy as np

from pool_impl.layout import Host
from workers.cache import CPUS
from workers.measures import LOCATIONS, SLOW_CAUSES
from workers.traffic import Arrivals


def _words(*names: str) -> np.dtype[Any]:
    return np.dtype([(name, "<i8") for name in names], align=True)


QUEUE_CPU = 0
NAPI = 0
"""the receive queue's NAPI instance, which its pool belongs to"""

NO_SKB = -1

DOWN, IDLE, POLLING, YIELDED = range(4)
"""phases of the receive queue: not started, interrupt armed, in NAPI poll, poll waiting for the reader"""

NIC = _words(
    "next_arrival_ps",
    "chunk_position",
    "chunk_packets",
    "phase",
    "polled",  # packets of this poll
    "poll_started_ps",
    "reader_turn_ps",  # time that the reader may take before the next poll (same CPU)
    "dma",  # descriptors filled, read and posted since the start; index = count & mask
    "read",
    "posted",
    "mask",
    "recycle",
    "driver_syncs",  # 1: the pool leaves syncs for the device to the driver
    "replaces",  # 1: a page takes the packet's place in the descriptor before the packet is passed on
    "unannounced",  # descriptors posted since the device was last told
    "budget",
    "rx_usecs_ps",
    "saturated",
    "end_ps",  # what arrives before it is offered, also if no poll sees it
)
"""the receive queue"""

DESCRIPTOR = _words("page", "frame_bytes", "arrival_ps", "status")

SKB = _words("page", "frame_bytes", "arrival_ps", "pp_recycle")

READER = _words(
    "cpu",
    "drops",  # 1: no socket, packets are dropped in the stack
    "wake_ps",
    "work_ps",
    "work_varies",  # 1: work_ps is the mean of an exponential distribution
    "key",  # of the reader's own random numbers, and how many it has drawn
    "draws",
    "head",  # packets dequeued and enqueued since the start; index = count & mask
    "tail",
    "mask",
    "truesize",
    "limit_bytes",
    "free_skbs",
)
"""socket and application"""

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
                "read",  # all packets taken from the receive ring, by time
                "pages_allocated",
                "overflow_seen",  # ring_full, waive and declined counts already blamed for slow allocations
                "waive_seen",
                "declined_seen",
                "latency_max_ps",
                "latency_sum_ps",
                "integrated_to_ps",
                "used_page_ps",
            )
        ),
        ("busy_ps", "<i8", (CPUS,)),
        ("page_ps", "<i8", (len(LOCATIONS),)),
        ("slow", "<i8", (len(SLOW_CAUSES),)),
    ],
    align=True,
)
"""what is counted; ``busy_ps`` is the time that the steps of each CPU took, ``page_ps`` and
``used_page_ps`` are pages integrated over time"""

NOT_RECYCLED, OVERFLOW, WRONG_NODE, DECLINED, HELD = range(len(SLOW_CAUSES))
IN_CACHE, IN_RING, IN_RX_RING, IN_SOCKET = range(len(LOCATIONS))


class Trial(NamedTuple):
    """Everything a trial's compiled loop sees."""

    host: Host
    nic: Any
    descriptors: Any
    reader: Any
    skbs: Any
    free_skbs: Any
    """stack of free SKB indices, as the slab hands out the newest first"""
    socket: Any
    """SKB indices in order of arrival"""
    arrivals: Arrivals
    tally: Any
    latency: Any
    """histogram, see workers.engine.latency_bucket"""
