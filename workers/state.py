"""What one trial works on: record types and the NamedTuple that holds them all."""

from typing import Any, NamedTuple

import numpy as np

from pool_impl.layout import MAX_CPUS, MAX_SKB_FRAGS, Buffers, Host
from workers.arrivals.traffic import Arrivals
from workers.arrivals.window import Windows
from workers.measures import LOCATIONS, PAGE_CACHE_COUNTERS, SLOW_CAUSES


def _words(*names: str) -> np.dtype[Any]:
    return np.dtype([(name, "<i8") for name in names], align=True)


NOBODY = -1

DOWN, IDLE, POLLING, YIELDED, FLUSHING = range(5)
"""phases of a receive queue: not started, interrupt armed, in NAPI poll, poll to go on after others' turn,
poll that passes up what GRO still holds; a backlog has those of them that it needs"""

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
    "page_bytes",
    "page_shift",  # 1 << it are page_bytes; to shift, as a division takes longer than all else there
    "page_units",  # in a page, see UNIT_BYTES
    "page_units_shift",
    "buffer_bytes",  # what the device may write to the buffer of one descriptor
    "buffer_units",  # of pages that a descriptor's buffers take, see UNIT_BYTES
    "part_units",  # of a page that a buffer takes which is cut off it
    "first_header_pool",  # the header pool of a queue is as far from it as the queue's own from the first
    "split_bytes",  # headers that the device writes to a buffer of their own, 0: none
    "head_units",  # of a head that lies in a page
    "copies_heads",  # 1: the first bytes of a packet in split pages go to a head of its own
    "copybreak_bytes",  # packets up to this are copied
    "wanted",  # descriptors that the next packet on the wire needs
    "budget",
    "refill_limit",  # descriptors filled after one poll at the most
    "adaptive",  # interrupt moderation
    "poll_context",  # value of in_softirq that polls run in
    "slice_ps",  # least time of polls before the readers of their CPU have as much
    "thread_wakes",  # context switches that an interrupt costs before the poll runs
    "saturated",
    "end_ps",  # what arrives before it is offered, also if no poll sees it
    "page_parts",  # buffers that a driver that keeps pages splits one into
    "references",  # 1: it keeps them by plain references, and maps them itself
    "page_cache_mask",  # slots of a queue's page cache less one, 0: it has none
    "first_page_cache_slot",  # counted over all rings, those of pools come first
    "whole_pages",  # 1: see WHOLE_PAGE_PATTERNS
    "rest_location",  # of what is in no buffer, where it is not so
    "program",  # 1: an XDP program is attached
    "frame_queues",
    "transmits",  # 1: each receive queue has a transmit ring beside it
    "tso",  # 1: it cuts merged packets up as it sends them
    "updates_pool",  # 1: drivers tell their pools where polls run
    "contexts",  # flows of a queue that hardware GRO merges at a time, 0 without it
    "context_ps",  # how long it merges
    "postponed_ps",  # not 0: the next arrival, while next_arrival_ps is when an aggregate's time is over
    "windows",  # 1: senders stop at the receiver's window
)
"""the wire, and what all receive queues share"""

QUEUE = _words(
    "cpu",
    "pool",
    "phase",
    "event_ps",  # when the interrupt fires, FOREVER while nothing has come in; when the last poll yielded
    "polled",  # packets of this poll
    "poll_started_ps",
    "first",  # descriptor
    "dma",  # descriptors filled, read and posted since the start; index = first + (count & mask)
    "read",
    "posted",
    "starved",  # 1: the last page asked for was not there
    "unannounced",  # descriptors posted since the device was last told
    "usecs_ps",  # the interrupt fires so long after the first packet,
    "frames",  # or when so many wait, 0 for never
    "waiting_frames",
    *("interrupts", "interval_from_ps", "read_before"),  # since the last decision of adaptive moderation
    *("packets_before", "interrupts_before", "profile", "search"),
    *("steps_right", "steps_left", "tired"),
    "memory_id",  # the pool's, where an XDP program is attached
    "to_clean",  # sent frames of the transmit ring that this poll has yet to clean
    "kept_units",  # of pages in descriptors that have been read and not posted again
    "settled_ps",  # until when the pages in its descriptors have been added up
    "irq_cpu",  # to which its interrupt goes: that of the next poll
    "merging",  # descriptors that hardware GRO has filled and not completed, beyond ``dma``
    "split_page",  # page that is being split, 0: none; where its next buffer starts, bytes
    "split_offset",
    "first_cached_page",  # slot of the page cache
    "cached_head",  # pages taken out of it and put in since the start; slot = first + (count & mask)
    "cached_tail",
)
"""a receive queue; its NAPI instance has its number, and at first its pool"""

BLAMED = _words(
    *("overflow", "node", "declined", "empty", "flushed", "detached", "detached_seen", "referenced")
)
"""of a pool: ring_full, declined and other nodes' pages already blamed for slow allocations, and empty rings;
pages that left its cache when it was told of another node; pages that left it with a frame that became an
skb, and those already blamed; those blamed of pages to which segments had references"""

(
    PAGE_ALONE,
    PAGES,
    FRAGMENTS,
    HEADER_SPLIT,
    KEPT_PAGES,
    OWN_KEPT_PAGES,
    OWN_PAGES,
    OWN_FRAGMENTS,
) = range(8)
"""receive patterns: a page for each packet and nothing else; pages also for packets that are copied or
take several; fragments of a pool's pages; headers in fragments and payload in pages; pages of a pool that the
driver keeps until their last buffer has been used; the same without a pool, and pages or parts of the network
core's blocks that it does not keep"""

FIRST_UNPOOLED = OWN_KEPT_PAGES
"""receive patterns from this one on have no pool"""
WHOLE_PAGE_PATTERNS = (PAGE_ALONE, PAGES, OWN_PAGES)
"""receive patterns in which a page is in one buffer or idle"""

UNIT_BYTES = 64
"""in which parts of a page are counted: all buffers are multiples of a cache line"""

DESCRIPTOR = _words(
    "page",
    "offset",  # of the buffer in it, bytes
    "frame_bytes",  # that the device wrote to this buffer
    "ends",  # 1: the packet's last descriptor
    "header_page",
    "header_offset",
    "header_bytes",
    "spent_page",  # the last buffer of a page was here; its pool gets the rest at the next refill
    "arrival_ps",
    "flow_hash",
)

AGGREGATE = np.dtype(
    [
        *(
            (name, "<i8")
            for name in (
                "next",  # in the list of free ones, or of those that are completed
                "flow_hash",
                "arrival_ps",  # of its first packet
                "segment_bytes",  # payload of that
                "payload_bytes",  # of all
                "header_page",
                "header_offset",
                "header_bytes",
                "pages",
                "merged",  # further packets, as in HOLD
                "last_merged",
                "merged_count",
            )
        ),
        ("page", "<i8", (MAX_SKB_FRAGS,)),
        ("frame_bytes", "<i8", (MAX_SKB_FRAGS,)),
    ],
    align=True,
)
"""packets of a flow that hardware GRO merges: the first one's headers, and the payload of all, page after
page; buffers are here from when the device fills them until the driver takes them"""

AGGREGATES = _words(
    "open",  # that take in packets; the oldest first in context_slots
    "first_completed",
    "last_completed",
    "taken",  # the last one that the driver took
)
"""the aggregates of a receive queue"""

FREE_AGGREGATES = _words("first", "fresh")
"""list of AGGREGATE records, and the first never used"""

PACKET = _words(
    "arrival_ps",
    "flow_hash",
    "units",  # of pages that its buffers take
    "cpu",  # that made the skb; NOBODY for a tap's clone
)
"""what the trial knows of an skb's packet beside the skb itself, by the skb's number"""

HOLD = _words(
    "built_ps",
    "units",  # of pages: heads and fragments, those of list members included
    "left",  # 1: the skb that brought the data is gone, only a tap's clone is left
    "merged",  # further packets: first and last MERGED record, and how many
    "last_merged",
    "merged_count",
)
"""what the data of an skb hold and since when, by the number of their SHARED record: clones have it in
common"""

MERGED = _words(
    "arrival_ps",
    "built_ps",  # of the page that came along, NO_PAGE where the data were copied
    "next",
)
"""a wire packet that was merged into the skb of another; made at a merge, freed with the data"""

NO_PAGE = -1

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
    "limit_bytes",
    "units",  # of pages: in the socket, and held by the application after it has read them
    "held_units",
    "page_ps",  # both, integrated, in pages, until settled_ps
    "settled_ps",
    "stall_ps",  # 0: never; else it does not read for that long at the end of every every_ps
    "every_ps",
    "keeps",  # packets that the application keeps before it frees them
    "kept_first",  # slot of the oldest; slots as those of the socket
    "kept_head",
    "kept_tail",
    "kept_mask",
)
"""a socket and its application; the tap, where there is one, comes after the others"""

STACK = _words(
    "readers",
    "drops",
    "special",  # 1: one of the following is not 0, or packets come to IP before they are dropped
    "raw",
    "no_port",
    "forwards",
    "gro",
    "tcp",
    "defers",  # CPUs that skbs are left to: those of queues, from the first, of the CPU map, and those that
    "defers_to_queues",  # interrupts can move to; or none
    "defers_from_cpu",  # the first that is no queue's, the others are after it
    "backlogs",
    "tap_percent",
    "keeps",  # 1: readers may not free at once what they have read
    "retains_percent",  # share of skbs that they keep for retains_ps
    "retains_ps",
    "merged_free",  # list of free MERGED records, the first never used, and how many there are of both
    "merged_fresh",
    "merged_room",
    "gro_units",
    "backlog_units",
    "deferred_units",
    "tap_units",
)
"""what is above the driver; ``drops`` is 1 where packets are dropped without a socket, ``forwards`` where
they are sent again; ``backlogs`` is the number of RPS CPUs"""

TAP = _words("draws", "key")
"""the draws of the packets that are captured; in this order, as numba takes a record that another one begins
with for its base class"""

RETAINED = _words(
    "event_ps",  # when the oldest is to be freed
    "first",  # slot
    "head",  # skbs freed and kept since the start; slot = first + (count & mask)
    "tail",
    "key",  # of the draws that pick them
    "draws",
)
"""skbs that an application keeps for a long time"""

RETAINED_SLOT = _words("skb", "until_ps")

GRO_BUCKETS = 8
GRO_BUCKET_SKBS = 8

GRO = np.dtype([("held", "<i8"), ("count", "<i8", (GRO_BUCKETS,))], align=True)
"""what GRO holds of a queue, in all and by bucket; the skbs of a bucket, oldest first, are in gro_slots"""

BACKLOG = _words(
    "cpu",
    "phase",
    "event_ps",
    "polled",
    "kicked_by",  # queue whose poll has to send the IPI, or NOBODY
    "first",  # slot
    "head",  # packets taken, moved to the process queue, and enqueued since the start
    "spliced",
    "tail",
)
"""an RPS CPU's queue of packets, and its NAPI instance"""

DEFERRED = _words("count", "event_ps", "cpu")
"""skbs that readers on other CPUs left to the CPU that made them, and when its softirq was raised for them;
by queue, then by kthread of the CPU map, then by CPU that interrupts can move to"""

FRAME = _words(
    "page",
    "skb",
    "memory_id",
    "frame_bytes",
    "arrival_ps",
    "flow_hash",
    "sent_ps",
    "descriptors",  # that an skb takes of a transmit ring; an XDP frame takes one
)
"""an XDP frame, or an skb that is sent (``page`` is 0 then): where it is, whose the page is, when its last
byte will have left the wire"""

FRAME_QUEUE = _words(
    "first",  # slot
    "mask",
    "limit",  # frames, or descriptors of a transmit ring
    "head",  # frames taken out, announced and put in since the start; slot = first + (count & mask)
    "announced",
    "tail",
    "link",  # that a transmit ring sends on
    "location",  # IN_TX or IN_TARGET
    "more_descriptors",  # that skbs take beyond one for each frame
    "more_units",  # of pages that skbs hold beyond one page for each frame; may be less than none
)
"""a FIFO of frames: first the transmit ring of each receive queue, then the queue of each redirect target,
then what each receive queue has collected for each target"""

LINK = _words("gbps", "free_ps")
"""a device's wire for sending: its rate, and when all that was announced will have left"""

XDP = _words(
    "key",
    "draws",
    "drawn",  # 0: all packets get the same verdict, nothing is drawn
    "drop_below",  # draws of 0..99 below these get the verdict
    "tx_below",
    "redirect_below",
    "redirect_to",
    "targets",
    "first_target",  # frame queue of the first target, and of the first collection
    "first_bulk",
)
"""the XDP program, and where it redirects to"""

TO_NOWHERE, TO_DEVICE, TO_CPUMAP, TO_AF_XDP = range(4)
"""kinds of redirect targets"""

TARGET = _words("cpu", "event_ps", "to_clean", "polls", "usecs_ps")
"""a redirect target with a CPU of its own: the NAPI that cleans a transmit ring of the other device, or a
kthread of the CPU map; its queue is ``first_target`` and its number. ``usecs_ps`` is from a sent frame to the
interrupt"""

CPU = _words(
    "now_ps",
    "due_actor",  # whose the next step is: see workers.schedule
    "poller",  # the queue in its NAPI poll, or NOBODY
    "polls_turn_ps",  # time that polls have taken since readers had a turn, or since one found the ring empty
    "reader_turn_ps",  # time that readers may take before the next poll
    "waiting",  # readers with packets to read
    "spins",  # 1: busy polling takes the time that it would idle
    "first_actor",
    "actors",
)
"""a CPU that takes part in the trial"""

MACHINE = np.dtype(
    [("cpus", "<i8"), ("pools", "<i8"), ("stopped", "<i8"), ("due_ps", "<i8", (MAX_CPUS,))], align=True
)
"""how many take part, and when each CPU's next step may start, FOREVER if nobody knows; a queue's first pool
has its number, see QUEUE; pools for headers come last; ``stopped`` is set to 1 by another thread that wants
the trial to end, see :class:`workers.stopper.Stopper`"""

LIFE = _words(
    "queues",  # with these it comes up again,
    "ring_mask",
    "tx_ring",
    "first_pool",
    "stays_down",  # unless this is 1
    "pages_left",  # in flight as it went down
    "down_at_ps",
    "drained_at_ps",  # when the last of its pools was gone
    "first_irq_cpu",  # to which the first queue's interrupt can move; those for the others are after it
)
"""the device before and after a change"""

POLL, BACKLOG_POLL, DEFERRED_FREE, LATE_FREE, READER, TARGET_TURN = range(6)
"""kinds of actors"""

ACTOR = _words("kind", "number")
"""who takes steps on a CPU: a queue's poll, a backlog's, the softirq that frees what readers left, an
application that frees what it has kept for long, a reader or a redirect target, by its number; in the order
of CPUs, softirqs first"""

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
                "missed_without_page",
                "interrupts",
                "dropped_socket",
                "dropped_driver",
                "dropped_xdp",
                "transmitted",
                "redirected",
                "dropped_tx",
                "parts_mapped",  # of skbs, in transmit rings
                "dropped_backlog",
                "captured",
                "captures_dropped",
                "gro_packets",  # that GRO has passed up, and the skbs that they were in
                "gro_skbs",
                "hold_max_ps",
                "read",  # all packets taken from the receive rings, by time
                "pages_allocated",
                "pages_taken",  # from the page allocator by a driver that has no pool
                "buffers_written",  # by the device; counted where there are several nodes
                "buffers_far_from_cpu",  # of these, on another node than the CPU that polls
                "buffers_far_from_nic",
                *PAGE_CACHE_COUNTERS,
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
(
    IN_CACHE,
    IN_RING,
    IN_RX_RING,
    IN_GRO,
    IN_BACKLOG,
    IN_SOCKET,
    IN_APPLICATION,
    IN_DEFERRED,
    IN_TAP,
    IN_TX,
    IN_TARGET,
    IN_FRAGMENTS,
    IN_PAGE_CACHE,
) = range(len(LOCATIONS))


class Trial(NamedTuple):
    """Everything a trial's compiled loop sees; tables unless it says record."""

    host: Host
    buffers: Buffers
    """the same host, and its skbs"""
    machine: Any
    """record"""
    cpus: Any
    actors: Any
    life: Any
    """record"""
    nic: Any
    """record"""
    queues: Any
    indirection: Any
    """queue by the low bits of a flow's hash"""
    descriptors: Any
    """of all queues"""
    aggregates: Any
    aggregates_of: Any
    """by queue"""
    free_aggregates: Any
    """record"""
    context_slots: Any
    """slots of all queues' open aggregates"""
    page_cache_slots: Any
    """slots of all page caches"""
    parts_used: Any
    """by page that a driver keeps: buffers of it that packets have taken"""
    blamed: Any
    """by pool"""
    stack: Any
    """record"""
    readers: Any
    packets: Any
    holds: Any
    merged: Any
    tap: Any
    """record"""
    gro: Any
    """by queue"""
    gro_slots: Any
    backlogs: Any
    backlog_slots: Any
    deferred: Any
    deferred_slots: Any
    socket_slots: Any
    """slots of all sockets: skbs in order of arrival"""
    frames: Any
    """slots of all frame queues"""
    frame_queues: Any
    links: Any
    """of the device and of the one that frames are redirected to"""
    xdp: Any
    """record"""
    targets: Any
    xdp_memory: Any
    """record of memory ids, see pool_impl.xdp"""
    returned: Any
    """record: what a target returns in bulk within a step"""
    kept_slots: Any
    """slots of all applications that keep packets"""
    retained: Any
    """by reader"""
    retained_slots: Any
    frag_caches: Any
    """of the network core, by CPU"""
    arrivals: Arrivals
    windows: Windows
    tally: Any
    """record"""
    latency: Any
    """histogram, see workers.books.latency.latency_bucket"""
    hold_times: Any
    """histogram likewise"""
