"""TCP senders that stop at the receiver's window: a closed loop, in which reads make arrivals.

Each flow has a sender with more to send than there is time for, and at most a window of segments outstanding:
sent, and not yet read by the application. As a read begins it opens the window for what it takes; the sender
hears of it, and its next segment can arrive, a round trip later. All senders are behind one link, which
carries one segment at a time. Those that may send have their turns in the order in which they became able
to, up to a train of segments each. All segments have one size.

A segment that is dropped anywhere is sent again when the sender hears of the next one of its flow that was
read, or, if none is on its way to the reader, after a retransmission timeout. The window is what the receiver
allows or less: it begins with ten segments, grows by each segment that is read (slow start) up to a
threshold, and from there on and after a loss as CUBIC's at the round trips of a local network, where that is
in its Reno-friendly region: down to 7/10, once in a window's segments, and up by 9/17 in each window that is
read. After a timeout it begins with one segment.

Not modelled: that the reader waits for a lost segment (it reads past the gap), timeouts that grow, HyStart,
pacing, delayed ACKs and the sender's own limits.
"""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from pool_impl.jit import compiled
from pool_impl.layout import records, words
from workers.arrivals.rss import HASH_BITS
from workers.arrivals.traffic import FOREVER, PS_PER_MS, PS_PER_US, Arrivals, flow_hashes
from workers.config import TrialConfig
from workers.fields.derived import WIRE_OVERHEAD_BYTES, draws_flows, keeps_to_windows, segment_bytes

INITIAL_SEGMENTS = 10
"""RFC 6928, TCP_INIT_CWND"""

KEPT_TENTHS = 7
"""of a window after a loss: beta of RFC 9438"""
GROWTH, OF_WINDOWS = 9, 17
"""segments that a window grows by in so many windows that are read: alpha of RFC 9438, 3 (1 - beta) /
(1 + beta)"""
LEAST_THRESHOLD = 2
"""RFC 5681, segments"""

SENDING = np.dtype(
    [
        (name, "<i8")
        for name in (
            "next_ps",  # when the next segment arrives, FOREVER if nobody knows
            "coming",  # 1: that is a segment; 0 before the first one
            "link_free_ps",
            "frame_bytes",
            "wire_ps",  # of a frame on the link
            "train",
            "train_left",  # that the first in turn may send before the next one's turn
            "head",  # turns ended and begun since the start; slot of ``turns`` = count & mask
            "tail",
            "mask",
            "senders",
        )
    ],
    align=True,
)
"""the link, and whose turn it is"""

SENDER = np.dtype(
    [
        (name, "<i8")
        for name in (
            "flow_hash",
            "allowed",  # by the receiver; this and all that follows in segments
            "window",
            "threshold",  # up to which it grows by slow start
            "credit",  # read since it last grew, beyond the threshold, times GROWTH
            "recovering",  # to be read until a loss makes it smaller again
            "debt",  # by which it has become smaller and that are still out
            "room",  # that may be sent now
            "flying",  # sent, and not yet read or dropped
            "missing",  # dropped, and nothing of the flow has been read since
        )
    ],
    align=True,
)
"""a flow; room, flying, missing and what notices grant are its window and debt"""

AFTER_RTT, AFTER_RTO = range(2)
"""when a sender hears something"""

NOTICES = np.dtype([(name, "<i8") for name in ("first", "head", "tail", "mask", "delay_ps")], align=True)
"""a FIFO of NOTICE records, which is by time: slot = first + (count & mask)"""

NOTICE = np.dtype([(name, "<i8") for name in ("at_ps", "sender", "segments")], align=True)
"""so many segments may be sent from then on"""


class Windows(NamedTuple):
    """The senders, as compiled code sees them; there are none where traffic is of another kind."""

    sending: Any
    """SENDING record"""
    senders: Any
    """SENDER records by ascending hash"""
    turns: Any
    """slots: senders that have room"""
    notices: Any
    """NOTICES records, AFTER_RTT and AFTER_RTO"""
    notice_slots: Any
    """slots of both, NOTICE records"""


def new_windows(config: TrialConfig) -> Windows:
    """Nothing has been sent."""
    sending = records(SENDING, 1)[0]
    notices = records(NOTICES, 2)
    if not keeps_to_windows(config):
        return Windows(sending, records(SENDER, 1), words(1), notices, records(NOTICE, 1))
    traffic = config.traffic
    sending.frame_bytes = traffic.packet_size
    sending.wire_ps = (int(traffic.packet_size) + WIRE_OVERHEAD_BYTES) * 8000 // config.nic.link_gbps
    sending.train = sending.train_left = traffic.train_packets
    # what there is room for does not follow from the seed: two flows may have the same hash
    flows = traffic.flows if draws_flows(config) else 1
    sending.mask = _mask(flows)
    notices.mask = _mask(_most_allowed(config, flows))
    notices[AFTER_RTO].first = notices[AFTER_RTT].mask + 1
    notices.delay_ps = [traffic.rtt_us * PS_PER_US, traffic.rto_ms * PS_PER_MS]
    windows = Windows(
        sending=sending,
        senders=records(SENDER, flows),
        turns=words(int(sending.mask) + 1),
        notices=notices,
        notice_slots=records(NOTICE, 2 * int(notices[AFTER_RTO].first)),
    )
    set_senders(windows, config)
    return windows


def set_senders(windows: Windows, config: TrialConfig) -> None:
    """Let the senders, none of whom has sent anything, be those of the flows of the configuration's seed."""
    if not keeps_to_windows(config):
        return
    hashes = sorted(set(flow_hashes(config)))
    count = len(hashes)
    windows.senders.view("u1")[:] = 0
    windows.turns[:] = 0
    senders = windows.senders[:count]
    senders.flow_hash = hashes
    senders.allowed = senders.threshold = _allowed(config, hashes)
    senders.window = senders.room = np.minimum(senders.allowed, INITIAL_SEGMENTS)
    windows.turns[:count] = range(count)
    windows.sending.senders = windows.sending.tail = count


def _most_allowed(config: TrialConfig, flows: int) -> int:
    """Not less than the windows of all flows together, whichever reader each of them has, in segments."""
    size = segment_bytes(config)
    if config.traffic.window_bytes:
        return flows * (config.traffic.window_bytes // size)
    return flows + min(flows, config.app.readers) * (config.app.socket_bytes // 2 // size)


def _allowed(config: TrialConfig, hashes: list[int]) -> list[int]:
    """The receiver's window of each flow, in segments."""
    size = segment_bytes(config)
    if config.traffic.window_bytes:
        return [config.traffic.window_bytes // size] * len(hashes)
    readers = [(flow_hash * config.app.readers) >> HASH_BITS for flow_hash in hashes]
    sharing = Counter(readers)
    return [max(1, config.app.socket_bytes // 2 // sharing[reader] // size) for reader in readers]


def _mask(slots: int) -> int:
    """Of the power of two that holds so many."""
    return (1 << (slots - 1).bit_length()) - 1


# In the loop: the link


@compiled(inline=False)
def next_segment(windows: Windows, arrivals: Arrivals) -> None:
    """The next arrival's time and flow, as a chunk of one packet; that before, if any, has arrived."""
    sending = windows.sending
    before_ps = sending.next_ps
    if sending.coming:
        _hear(windows, before_ps)
        _send(windows, before_ps)
    sending.coming = 1
    arrivals.frame_bytes[0] = sending.frame_bytes
    _choose(windows, arrivals)
    arrivals.gaps_ps[0] = sending.next_ps - before_ps


@compiled()
def _hear(windows: Windows, now_ps: int) -> None:
    """What the senders have heard by now."""
    while True:
        notices = windows.notices[_earliest(windows)]
        notice = windows.notice_slots[notices.first + (notices.head & notices.mask)]
        if notices.head == notices.tail or notice.at_ps > now_ps:
            return
        notices.head += 1
        sender = windows.senders[notice.sender]
        if sender.room == 0:
            _take_turn(windows, notice.sender)
        sender.room += notice.segments


@compiled()
def _send(windows: Windows, now_ps: int) -> None:
    """The first in turn has sent a segment; the next one's turn begins if it may send no more."""
    sending = windows.sending
    number = windows.turns[sending.head & sending.mask]
    sender = windows.senders[number]
    sender.room -= 1
    sender.flying += 1
    sending.train_left -= 1
    sending.link_free_ps = now_ps + sending.wire_ps
    if sender.room != 0 and sending.train_left != 0:
        return
    sending.head += 1
    sending.train_left = sending.train
    if sender.room != 0:
        _take_turn(windows, number)


@compiled()
def _take_turn(windows: Windows, number: int) -> None:
    sending = windows.sending
    windows.turns[sending.tail & sending.mask] = number
    sending.tail += 1


@compiled()
def _choose(windows: Windows, arrivals: Arrivals) -> None:
    """Who sends next, and when its segment arrives: as soon as the link is free, or when the first of all
    senders hears that it may."""
    sending = windows.sending
    if sending.head != sending.tail:
        number = windows.turns[sending.head & sending.mask]
        sending.next_ps = sending.link_free_ps
    else:
        kind = _earliest(windows)
        notices = windows.notices[kind]
        number = windows.notice_slots[notices.first + (notices.head & notices.mask)].sender
        sending.next_ps = max(sending.link_free_ps, _first_ps(windows, kind))
    arrivals.flow_hash[0] = windows.senders[number].flow_hash


@compiled()
def _earliest(windows: Windows) -> int:
    """Where the earliest notice is, AFTER_RTT among equals; any if there is none."""
    return AFTER_RTO if _first_ps(windows, AFTER_RTO) < _first_ps(windows, AFTER_RTT) else AFTER_RTT


@compiled(inline=False)
def _first_ps(windows: Windows, kind: int) -> int:
    notices = windows.notices[kind]
    if notices.head == notices.tail:
        return FOREVER
    return int(windows.notice_slots[notices.first + (notices.head & notices.mask)].at_ps)


# In the loop: the windows. What changes one is decided at the receiver, in the order of what happens there,
# in which the sender hears of it.


@compiled(inline=False)
def read(windows: Windows, arrivals: Arrivals, nic: Any, flow_hash: int, segments: int, now_ps: int) -> None:
    """The application reads segments of a flow."""
    number = _sender_of(windows, flow_hash)
    sender = windows.senders[number]
    sender.flying -= segments
    sender.recovering = max(0, sender.recovering - segments)
    granted = segments + sender.missing
    if sender.recovering == 0:
        if sender.missing != 0:
            sender.recovering = sender.window
            sender.threshold = max(LEAST_THRESHOLD, sender.window * KEPT_TENTHS // 10)
            _shrink(sender, min(sender.window, sender.threshold))
        elif sender.debt == 0:
            granted += _grow(sender, segments)
    sender.missing = 0
    _grant(windows, arrivals, nic, number, granted, AFTER_RTT, now_ps)


@compiled(inline=False)
def lose(
    windows: Windows,
    arrivals: Arrivals,
    nic: Any,
    flow_hash: int,
    segments: int,
    now_ps: int,
    arriving: int,
) -> None:
    """Segments of a flow are dropped; ``arriving``: of these, that :func:`next_segment` does not know yet to
    have been sent."""
    number = _sender_of(windows, flow_hash)
    sender = windows.senders[number]
    sender.flying -= segments
    sender.missing += segments
    if sender.flying + arriving == 0:
        granted = sender.missing
        sender.missing = sender.recovering = sender.credit = 0
        sender.threshold = max(LEAST_THRESHOLD, sender.window * KEPT_TENTHS // 10)
        _shrink(sender, 1)
        _grant(windows, arrivals, nic, number, granted, AFTER_RTO, now_ps)


@compiled()
def _shrink(sender: Any, window: int) -> None:
    sender.debt += sender.window - window
    sender.window = window


@compiled()
def _grow(sender: Any, segments: int) -> int:
    """By how many segments a window grows as so many were read."""
    if sender.window < sender.threshold:
        grown = segments
    else:
        sender.credit += GROWTH * segments
        grown = sender.credit // (OF_WINDOWS * sender.window)
        sender.credit -= grown * OF_WINDOWS * sender.window
    grown = min(grown, sender.allowed - sender.window)
    sender.window += grown
    return int(grown)


@compiled(inline=False)
def _grant(
    windows: Windows, arrivals: Arrivals, nic: Any, number: int, segments: int, kind: int, now_ps: int
) -> None:
    """A sender will hear that it may send so many segments, but for its debt; an arrival that waits for some
    sender may be due sooner."""
    sender = windows.senders[number]
    paid = min(sender.debt, segments)
    sender.debt -= paid
    if segments == paid:
        return
    notices = windows.notices[kind]
    notice = windows.notice_slots[notices.first + (notices.tail & notices.mask)]
    notices.tail += 1
    notice.at_ps = now_ps + notices.delay_ps
    notice.sender = number
    notice.segments = segments - paid
    _choose(windows, arrivals)
    if nic.postponed_ps != 0:
        nic.postponed_ps = windows.sending.next_ps
        nic.next_arrival_ps = min(nic.next_arrival_ps, nic.postponed_ps)
    else:
        nic.next_arrival_ps = windows.sending.next_ps


@compiled()
def _sender_of(windows: Windows, flow_hash: int) -> int:
    """Whose flow it is: by binary search."""
    low, high = 0, windows.sending.senders - 1
    while low < high:
        middle = (low + high) >> 1
        if windows.senders[middle].flow_hash < flow_hash:
            low = middle + 1
        else:
            high = middle
    return int(low)
