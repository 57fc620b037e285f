"""Forwarding: an skb is routed and sent again by the transmit ring that goes with the CPU.

A merged one is sent as it is where the device cuts it up (``nic.tso``): it takes a descriptor for each part.
Devices take no frag_list: an skb that has one is cut up at its members, if these are of one length
(``skb_segment``). Else, and for a device without TSO, software makes an skb of each packet. It shares the
fragments by plain reference, unmarked; the merged skb is freed as soon as that is done, before its segments
are sent. So its pages leave their pool, which finds references on them, and end in the page allocator
(specification 6.1 and 6.4, row "segment"); only heads, whose payload was copied, are recycled, and what a
marked clone of a member has to itself.

The list of segments has one doorbell, and what follows one that finds the ring full is dropped with it. What
a segment copies are headers and linear payload; checksums are the device's work.
"""

from typing import Any

from pool_impl import skb as buffer
from pool_impl.jit import compiled
from pool_impl.observe import SKB, SLAB_HEAD
from pool_impl.segment import member_bytes, segment
from workers.books import hold
from workers.fields.derived import TCP_HEADERS_BYTES
from workers.net import transmit
from workers.pricing import cost
from workers.pricing.cache import stream
from workers.state import HEADER_SPLIT, NO_PAGE, Trial


@compiled(inline=False)
def forward(trial: Trial, skb: int) -> int:
    """Route an skb and send it; the skb to free now, if the ring is full or its segments are sent, or 0."""
    trial.host.observer.work(cost.FORWARD, 1)
    number = trial.host.context.cpu % trial.nic.queues
    ring = trial.frame_queues[number]
    if transmit.segment_bytes_of(trial, skb) != 0 and _needs_software(trial, skb):
        _cut_up(trial, number, skb)
        return skb
    if not transmit.has_room(trial, ring, skb):
        trial.tally.dropped_tx += hold.counted(trial, skb)
        return skb
    transmit.queue_skb(trial, ring, skb)
    transmit.announce(trial, number)
    return 0


@compiled()
def _needs_software(trial: Trial, skb: int) -> bool:
    """Whether the device cannot send a merged skb as it is."""
    has_list = trial.buffers.shared[trial.buffers.skbs[skb].shared].frag_list != 0
    return bool(has_list or not trial.nic.tso)


@compiled(inline=False)
def _cut_up(trial: Trial, number: int, skb: int) -> None:
    """Send a merged skb as several; itself is still to be freed."""
    buffers = trial.buffers
    ring = trial.frame_queues[number]
    packet_bytes = transmit.segment_bytes_of(trial, skb)
    piece = member_bytes(buffers, skb, TCP_HEADERS_BYTES, packet_bytes) if trial.nic.tso else packet_bytes
    made = segment(buffers, skb, TCP_HEADERS_BYTES, piece)
    if made == 0:
        trial.tally.dropped_tx += hold.counted(trial, skb)
        return
    is_first = fits = True
    queued = 0
    while made != 0:
        following = buffers.skbs[made].next
        _charge(trial, made)
        packets = (buffers.skbs[made].len - TCP_HEADERS_BYTES - 1) // packet_bytes + 1
        buffers.shared[buffers.skbs[made].shared].gso_size = packet_bytes if packets > 1 else 0
        _move_books(trial, skb, made, packets, is_first)
        is_first = False
        fits = fits and transmit.has_room(trial, ring, made)
        if fits:
            if queued != 0:
                _leave_to(trial, ring, queued, made)
            transmit.queue_skb(trial, ring, made)
            queued = made
        else:
            _drop(trial, made)
        made = following
    if queued != 0:
        transmit.announce(trial, number)


@compiled(inline=False)
def _charge(trial: Trial, made: int) -> None:
    """What making a segment costs beside its references: the skb, and what was copied to its head."""
    observer = trial.host.observer
    record = trial.buffers.skbs[made]
    shared = trial.buffers.shared[record.shared]
    observer.work(cost.SKB_ALLOC, 1)
    observer.touch(SKB, made, True)
    copied = TCP_HEADERS_BYTES
    if shared.head_page == 0:
        cost.store(observer, SLAB_HEAD, record.shared)
        copied = buffer.headlen(record)
    observer.work(cost.COPY, copied)
    stream(observer.caches, trial.host.context.cpu, 2 * copied)


@compiled(inline=False)
def _move_books(trial: Trial, skb: int, made: int, packets: int, is_first: bool) -> None:
    """The next so many packets of a merged skb are in a segment now, and held until that is freed. The first
    one's page ends with the merged skb if its payload was copied."""
    source = trial.holds[trial.buffers.skbs[skb].shared]
    target = trial.holds[trial.buffers.skbs[made].shared]
    target.units = _units_in(trial, made)
    target.left = 0
    target.merged = 0
    target.merged_count = 0
    target.built_ps = NO_PAGE
    packet = trial.packets[made]
    packet.flow_hash = trial.packets[skb].flow_hash
    packet.units = target.units
    packet.cpu = trial.host.context.cpu
    left = packets
    if is_first:
        left -= 1
        packet.arrival_ps = trial.packets[skb].arrival_ps
        if target.units != 0:
            target.built_ps = source.built_ps
            source.built_ps = NO_PAGE
    while left > 0 and source.merged != 0:
        record = trial.merged[source.merged]
        arrival_ps = record.arrival_ps
        built_ps = record.built_ps
        hold.remove_first(trial, source)
        if left == packets:
            packet.arrival_ps = arrival_ps
            target.built_ps = built_ps
        else:
            hold.append(trial, target, arrival_ps, built_ps)
        left -= 1


@compiled(inline=False)
def _units_in(trial: Trial, skb: int) -> int:
    """Of pages: all buffers that an skb has a part of."""
    shared = trial.buffers.shared[trial.buffers.skbs[skb].shared]
    found = _units_of(trial, shared.head_page)
    for position in range(shared.nr_frags):
        found += _units_of(trial, shared.frag_page[position])
    return found


@compiled()
def _units_of(trial: Trial, page: int) -> int:
    """Of one buffer in this page."""
    nic = trial.nic
    if page == 0:
        return 0
    if nic.pattern == HEADER_SPLIT and trial.host.pages[page].pp < nic.first_header_pool:
        return int(nic.page_units)
    return int(nic.part_units)


@compiled(inline=False)
def _leave_to(trial: Trial, ring: Any, before: int, made: int) -> None:
    """A buffer that a cut goes through is booked for the segment behind that, which is freed later."""
    first = trial.buffers.shared[trial.buffers.skbs[before].shared]
    second = trial.buffers.shared[trial.buffers.skbs[made].shared]
    if first.nr_frags == 0 or second.nr_frags == 0 or second.head_page != 0:
        return
    last = first.nr_frags - 1
    page = first.frag_page[last]
    end = first.frag_offset[last] + first.frag_size[last]
    if page == second.frag_page[0] and end == second.frag_offset[0]:
        units = _units_of(trial, page)
        trial.holds[trial.buffers.skbs[before].shared].units -= units
        ring.more_units -= units


@compiled(inline=False)
def _drop(trial: Trial, made: int) -> None:
    """Free a segment that has found the ring full."""
    trial.tally.dropped_tx += hold.counted(trial, made)
    held = trial.holds[trial.buffers.skbs[made].shared]
    if held.merged != 0:
        hold.free_merged(trial, held)
    trial.host.observer.work(cost.SKB_FREE, 1)
    buffer.free_deferred(trial.buffers, made)
