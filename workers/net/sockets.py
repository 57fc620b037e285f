"""Sockets with a limit in bytes, UDP or TCP, and the applications that read them."""

from typing import Any

from pool_impl import skb as buffer
from pool_impl.coalesce import try_coalesce
from pool_impl.jit import compiled
from pool_impl.observe import SHARED_INFO, SKB, SLAB_HEAD
from workers.arrivals.rss import HASH_BITS
from workers.arrivals.traffic import exponential
from workers.books import hold, latency
from workers.books.occupancy import settle_reader
from workers.device import flow_control
from workers.fields.derived import TCP_HEADERS_BYTES
from workers.net import deferred, retention
from workers.pricing import cost
from workers.pricing.cache import HEADER, PAYLOAD, part_of_page, stream
from workers.schedule import refresh
from workers.state import Trial


@compiled()
def enqueue(trial: Trial, skb: int) -> int:
    """Queue an skb for the reader of its flow, and wake a reader that sleeps; the skb to free now, or 0."""
    reader = trial.readers[_socket_of(trial, skb)]
    trial.host.observer.work(cost.UDP, 1)
    if reader.queued_bytes + trial.buffers.skbs[skb].truesize > reader.limit_bytes:
        trial.tally.dropped_socket += flow_control.dropped(trial, skb)
        return skb
    settle_reader(trial, reader)
    reader.units += hold.units_of(trial, skb)
    put(trial, reader, skb)
    return 0


@compiled()
def _socket_of(trial: Trial, skb: int) -> int:
    """By the upper bits of the hash, as reciprocal_scale() picks a socket of a SO_REUSEPORT group: RSS took
    the lower ones."""
    return int((trial.packets[skb].flow_hash * trial.stack.readers) >> HASH_BITS)


@compiled()
def put(trial: Trial, reader: Any, skb: int) -> None:
    """Append an skb to a socket, and wake a reader that sleeps."""
    host = trial.host
    host.observer.work(cost.SOCKET, 1)
    trial.socket_slots[reader.first + (reader.tail & reader.mask)] = skb
    reader.tail += 1
    reader.queued_bytes += trial.buffers.skbs[skb].truesize
    if reader.tail - reader.head == 1:
        reader.wake_ps = _not_stalled(reader, cost.clock(host.observer.meter, host.context.cpu))
        trial.cpus[reader.cpu].waiting += 1
        refresh(trial, reader.cpu)


@compiled()
def _not_stalled(reader: Any, now_ps: int) -> int:
    """When a reader goes on: now, or at the end of its stall."""
    if reader.stall_ps != 0:
        left_ps = reader.every_ps - now_ps % reader.every_ps
        if left_ps <= reader.stall_ps:
            return int(now_ps + left_ps)
    return now_ps


@compiled(inline=False)
def enqueue_segment(trial: Trial, skb: int) -> int:
    """The same on a TCP socket, whose last skb takes in what follows it in its flow
    (``tcp_queue_rcv``)."""
    reader = trial.readers[_socket_of(trial, skb)]
    trial.host.observer.work(cost.TCP, 1)
    record = trial.buffers.skbs[skb]
    if reader.queued_bytes + record.truesize > reader.limit_bytes:
        trial.tally.dropped_socket += flow_control.dropped(trial, skb)
        return skb
    settle_reader(trial, reader)
    headers = min(TCP_HEADERS_BYTES, buffer.headlen(record))
    record.len -= headers
    record.headroom += headers
    if reader.tail != reader.head:
        last = trial.socket_slots[reader.first + ((reader.tail - 1) & reader.mask)]
        if trial.packets[last].flow_hash == trial.packets[skb].flow_hash and hold.can_join(trial, skb):
            left = _coalesce(trial, reader, last, skb)
            if left != REFUSED:
                return left
    reader.units += hold.units_of(trial, skb)
    put(trial, reader, skb)
    return 0


REFUSED = -1


@compiled(inline=False)
def _coalesce(trial: Trial, reader: Any, last: int, skb: int) -> int:
    """Append an skb to the last one of a socket (``tcp_try_coalesce``): as bytes, where they fit behind its
    data, or with its pages. Returns the skb to free now, 0, or REFUSED.

    Fragments that a clone has as well are not shared, which a release would do: where a page is, is then in
    one place only.
    """
    buffers = trial.buffers
    record = buffers.skbs[skb]
    length = record.len
    fits = length <= buffer.tailroom(buffers, last)
    if not fits and buffer.is_cloned(buffers, skb):
        return REFUSED
    units = hold.units_of(trial, skb)
    joined, stolen, moved = try_coalesce(buffers, last, skb)
    if not joined:
        return REFUSED
    if fits:
        trial.host.observer.work(cost.COPY, length)
        hold.join(trial, last, skb, 0, True)
        return skb
    reader.queued_bytes += moved
    if stolen:
        hold.join(trial, last, skb, units, False)
        reader.units += units
        buffer.free_stolen(buffers, skb)
        return 0
    # fragments without a head: the head is left
    units -= trial.nic.head_units if buffers.shared[record.shared].head_page != 0 else 0
    hold.join(trial, last, skb, units, False)
    reader.units += units
    buffer.free_deferred(buffers, skb)
    return 0


@compiled()
def read_packet(trial: Trial, number: int, slept: bool) -> int:
    """The application receives one packet, in process context; the skb to free, before it works on it."""
    host = trial.host
    observer = host.observer
    reader = trial.readers[number]
    if slept:
        # an interrupt of its CPU woke it
        observer.work(cost.INTERRUPT, 1)
    skb = trial.socket_slots[reader.first + (reader.head & reader.mask)]
    reader.head += 1
    if reader.head == reader.tail:
        trial.cpus[reader.cpu].waiting -= 1
    record = trial.buffers.skbs[skb]
    reader.queued_bytes -= record.truesize
    observer.work(cost.RECEIVE, 1)
    observer.touch(SKB, skb, False)
    _touch_data(trial, record.shared)
    observer.work(cost.COPY, record.len)
    stream(observer.caches, reader.cpu, 2 * record.len)
    if number == trial.stack.readers:
        # the tap's, which counts clones and no packets
        trial.tally.captured += 1 if trial.packets[skb].arrival_ps >= trial.tally.measure_from_ps else 0
        observer.work(cost.BH_TOGGLE, 1)
        return int(skb)
    trial.tally.delivered += latency.consumed(trial, skb)
    if trial.nic.windows:
        flow_control.read(trial, skb)
    observer.work(cost.BH_TOGGLE, 1)
    settle_reader(trial, reader)
    reader.units -= hold.units_of(trial, skb)
    return _keep(trial, number, skb) if trial.stack.keeps else int(skb)


@compiled(inline=False)
def _keep(trial: Trial, number: int, skb: int) -> int:
    """The application keeps some packets for long and the last ones, and leaves what it gives up to the CPU
    that made it, where the release does so for TCP; the skb to free now, or 0."""
    reader = trial.readers[number]
    if trial.stack.retains_percent != 0 and retention.retains(trial, number, skb):
        return 0
    if reader.keeps != 0:
        trial.kept_slots[reader.kept_first + (reader.kept_tail & reader.kept_mask)] = skb
        reader.kept_tail += 1
        reader.held_units += hold.units_of(trial, skb)
        if reader.kept_tail - reader.kept_head <= reader.keeps:
            return 0
        skb = trial.kept_slots[reader.kept_first + (reader.kept_head & reader.kept_mask)]
        reader.kept_head += 1
        reader.held_units -= hold.units_of(trial, skb)
    return deferred.defer(trial, skb) if trial.stack.defers else int(skb)


@compiled()
def _touch_data(trial: Trial, number: int) -> None:
    """Look at all data behind a SHARED record."""
    observer = trial.host.observer
    shared = trial.buffers.shared[number]
    if shared.head_frag and shared.head_page != 0:
        observer.touch(SHARED_INFO, shared.head_page, False)
        part = part_of_page(observer.caches, shared.head_page, shared.head_offset)
        observer.touch(HEADER, part, False)
        observer.touch(PAYLOAD, part, False)
    else:
        observer.touch(SLAB_HEAD, number, False)
    for position in range(shared.nr_frags):
        part = part_of_page(observer.caches, shared.frag_page[position], shared.frag_offset[position])
        observer.touch(PAYLOAD, part, False)
    if shared.frag_list != 0:
        _touch_members(trial, shared.frag_list)


@compiled(inline=False)
def _touch_members(trial: Trial, member: int) -> None:
    """Look at the data of a frag_list's members; GRO makes lists of one level."""
    observer = trial.host.observer
    while member != 0:
        observer.touch(SKB, member, False)
        shared = trial.buffers.shared[trial.buffers.skbs[member].shared]
        if shared.head_page != 0:
            part = part_of_page(observer.caches, shared.head_page, shared.head_offset)
            observer.touch(PAYLOAD, part, False)
        for position in range(shared.nr_frags):
            part = part_of_page(observer.caches, shared.frag_page[position], shared.frag_offset[position])
            observer.touch(PAYLOAD, part, False)
        member = trial.buffers.skbs[member].next


@compiled()
def work_on_packet(trial: Trial, reader: Any) -> None:
    """What the application does with a packet that it has received."""
    work_ps = reader.work_ps
    if reader.work_varies:
        work_ps = exponential(reader, trial.arrivals.exponential, work_ps)
    cost.charge(trial.host.observer.meter, reader.cpu, cost.APPLICATION, work_ps)
    if reader.stall_ps != 0:
        reader.wake_ps = _not_stalled(reader, cost.clock(trial.host.observer.meter, reader.cpu))
