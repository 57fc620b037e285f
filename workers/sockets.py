"""Sockets with a limit in bytes, and the applications that read them."""

from typing import Any

from pool_impl.jit import compiled
from pool_impl.observe import SHARED_INFO, SKB, SLAB_HEAD
from workers import cost, latency
from workers.cache import HEADER, PAYLOAD, part_of_page, stream
from workers.rss import HASH_BITS
from workers.schedule import refresh
from workers.state import Trial
from workers.traffic import exponential


@compiled()
def enqueue(trial: Trial, skb: int) -> int:
    """Queue an skb for the reader of its flow, and wake a reader that sleeps; the skb to free now, or 0."""
    host = trial.host
    observer = host.observer
    packet = trial.packets[skb]
    # by the upper bits, as reciprocal_scale() picks a socket of a SO_REUSEPORT group: RSS took the lower ones
    reader = trial.readers[(packet.flow_hash * trial.stack.readers) >> HASH_BITS]
    observer.work(cost.UDP, 1)
    truesize = trial.buffers.skbs[skb].truesize
    if reader.queued_bytes + truesize > reader.limit_bytes:
        trial.tally.dropped_socket += 1 if packet.arrival_ps >= trial.tally.measure_from_ps else 0
        return skb
    observer.work(cost.SOCKET, 1)
    trial.socket_slots[reader.first + (reader.tail & reader.mask)] = skb
    reader.tail += 1
    reader.queued_bytes += truesize
    reader.queued_units += packet.units
    if reader.tail - reader.head == 1:
        reader.wake_ps = cost.clock(observer.meter, host.context.cpu)
        trial.cpus[reader.cpu].waiting += 1
        refresh(trial, reader.cpu)
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
    packet = trial.packets[skb]
    record = trial.buffers.skbs[skb]
    reader.queued_bytes -= record.truesize
    reader.queued_units -= packet.units
    observer.work(cost.RECEIVE, 1)
    observer.touch(SKB, skb, False)
    _touch_data(trial, record.shared)
    observer.work(cost.COPY, record.len)
    stream(observer.caches, reader.cpu, 2 * record.len)
    if packet.arrival_ps >= trial.tally.measure_from_ps:
        trial.tally.delivered += 1
        latency.count(trial, packet.arrival_ps)
    observer.work(cost.BH_TOGGLE, 1)
    return int(skb)


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


@compiled()
def work_on_packet(trial: Trial, reader: Any) -> None:
    """What the application does with a packet that it has received."""
    work_ps = reader.work_ps
    if reader.work_varies:
        work_ps = exponential(reader, trial.arrivals.exponential, work_ps)
    cost.charge(trial.host.observer.meter, reader.cpu, cost.APPLICATION, work_ps)
