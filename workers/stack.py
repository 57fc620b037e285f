"""The network stack above the driver: protocol work, the early drop, the socket, the reader."""

from typing import Any

from pool_impl.jit import bit_length, compiled
from pool_impl.observe import SHARED_INFO, SKB
from workers import cost
from workers.cache import HEADER, PAYLOAD, stream
from workers.rss import HASH_BITS
from workers.schedule import refresh
from workers.state import Trial
from workers.traffic import exponential

SUB_BUCKET_BITS = 6
"""significant bits that a bucket of the latency histogram keeps: quantiles are at most 1/32 too low"""
BUCKETS = (64 - SUB_BUCKET_BITS) << SUB_BUCKET_BITS


@compiled()
def deliver(trial: Trial, skb: int) -> int:
    """Carry an skb through the stack, in softirq on its queue's CPU; the skb to free now, or 0."""
    host = trial.host
    observer = host.observer
    packet = trial.packets[skb]
    counted = 1 if packet.arrival_ps >= trial.tally.measure_from_ps else 0
    observer.work(cost.PROTOCOL, 1)
    if trial.stack.drops:
        trial.tally.dropped_early += counted
        if counted:
            _count_latency(trial, cost.clock(observer.meter, host.context.cpu) - packet.arrival_ps)
        return skb
    # by the upper bits, as reciprocal_scale() picks a socket of a SO_REUSEPORT group: RSS took the lower ones
    reader = trial.readers[(packet.flow_hash * trial.stack.readers) >> HASH_BITS]
    observer.work(cost.UDP, 1)
    truesize = trial.buffers.skbs[skb].truesize
    if reader.queued_bytes + truesize > reader.limit_bytes:
        trial.tally.dropped_socket += counted
        return skb
    observer.work(cost.SOCKET, 1)
    trial.sockets[reader.first + (reader.tail & reader.mask)] = skb
    reader.tail += 1
    reader.queued_bytes += truesize
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
    skb = trial.sockets[reader.first + (reader.head & reader.mask)]
    reader.head += 1
    if reader.head == reader.tail:
        trial.cpus[reader.cpu].waiting -= 1
    packet = trial.packets[skb]
    record = trial.buffers.skbs[skb]
    page = trial.buffers.shared[record.shared].head_page
    reader.queued_bytes -= record.truesize
    observer.work(cost.RECEIVE, 1)
    observer.touch(SKB, skb, False)
    observer.touch(SHARED_INFO, page, False)
    observer.touch(HEADER, page, False)
    observer.touch(PAYLOAD, page, False)
    observer.work(cost.COPY, packet.frame_bytes)
    stream(observer.caches, reader.cpu, 2 * packet.frame_bytes)
    if packet.arrival_ps >= trial.tally.measure_from_ps:
        trial.tally.delivered += 1
        _count_latency(trial, cost.clock(observer.meter, reader.cpu) - packet.arrival_ps)
    observer.work(cost.BH_TOGGLE, 1)
    return int(skb)


@compiled()
def work_on_packet(trial: Trial, reader: Any) -> None:
    """What the application does with a packet that it has received."""
    work_ps = reader.work_ps
    if reader.work_varies:
        work_ps = exponential(reader, trial.arrivals.exponential, work_ps)
    cost.charge(trial.host.observer.meter, reader.cpu, cost.APPLICATION, work_ps)


@compiled()
def _count_latency(trial: Trial, latency_ps: int) -> None:
    trial.latency[latency_bucket(latency_ps // cost.PS_PER_NS)] += 1
    trial.tally.latency_sum_ps += latency_ps
    trial.tally.latency_max_ps = max(trial.tally.latency_max_ps, latency_ps)


@compiled()
def latency_bucket(latency_ns: int) -> int:
    """Bucket of the log-linear histogram: exact below 64 ns, then 32 buckets for each octave."""
    octave = max(0, bit_length(latency_ns) - SUB_BUCKET_BITS)
    return int((octave << SUB_BUCKET_BITS) + (latency_ns >> octave))


def bucket_low_ns(bucket: int) -> int:
    """Smallest latency that falls into a bucket, nanoseconds."""
    octave, rest = bucket >> SUB_BUCKET_BITS, bucket & ((1 << SUB_BUCKET_BITS) - 1)
    return rest << octave
