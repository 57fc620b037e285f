"""The network stack above the driver: protocol work, the early drop, the socket, the reader."""

from pool_impl.jit import bit_length, compiled
from pool_impl.layout import PROCESS, SERVING_SOFTIRQ
from pool_impl.observe import SHARED_INFO, SKB
from workers import cost
from workers.cache import HEADER, PAYLOAD, stream
from workers.state import NO_SKB, QUEUE_CPU, Trial
from workers.traffic import FOREVER, exponential

SUB_BUCKET_BITS = 6
"""significant bits that a bucket of the latency histogram keeps: quantiles are at most 1/32 too low"""
BUCKETS = (64 - SUB_BUCKET_BITS) << SUB_BUCKET_BITS


@compiled()
def deliver(trial: Trial, number: int) -> int:
    """Carry an skb through the stack, in softirq on the queue's CPU; the skb to free now, or NO_SKB."""
    observer = trial.host.observer
    reader = trial.reader
    skb = trial.skbs[number]
    counted = 1 if skb.arrival_ps >= trial.tally.measure_from_ps else 0
    observer.work(cost.PROTOCOL, 1)
    if reader.drops:
        trial.tally.dropped_early += counted
        if counted:
            _count_latency(trial, cost.clock(observer.meter, QUEUE_CPU) - skb.arrival_ps)
        return number
    observer.work(cost.UDP, 1)
    queued = reader.tail - reader.head
    if (queued + 1) * reader.truesize > reader.limit_bytes:
        trial.tally.dropped_socket += counted
        return number
    observer.work(cost.SOCKET, 1)
    trial.socket[reader.tail & reader.mask] = number
    reader.tail += 1
    if queued == 0:
        reader.wake_ps = cost.clock(observer.meter, QUEUE_CPU)
    return NO_SKB


@compiled()
def reader_ready_ps(trial: Trial, now: int) -> int:
    """When the reader can take the next packet, FOREVER while there is none."""
    reader = trial.reader
    if reader.head == reader.tail:
        return FOREVER
    return int(max(reader.wake_ps, now))


@compiled()
def wake_reader(trial: Trial) -> bool:
    """Let a reader that sleeps wait until it is woken; whether it slept."""
    reader = trial.reader
    meter = trial.host.observer.meter
    early = reader.wake_ps - cost.clock(meter, reader.cpu)
    meter.idle_ps[reader.cpu] += max(0, early)
    return bool(early > 0)


@compiled()
def read_packet(trial: Trial, slept: bool) -> int:
    """The application receives one packet, in process context; the skb to free, before it works on it."""
    host = trial.host
    observer = host.observer
    reader = trial.reader
    meter = observer.meter
    context = host.context
    context.cpu = reader.cpu
    context.in_softirq = PROCESS
    if slept:
        # an interrupt of its CPU woke it
        observer.work(cost.INTERRUPT, 1)
    number = trial.socket[reader.head & reader.mask]
    reader.head += 1
    skb = trial.skbs[number]
    observer.work(cost.RECEIVE, 1)
    observer.touch(SKB, number, False)
    observer.touch(SHARED_INFO, skb.page, False)
    observer.touch(HEADER, skb.page, False)
    observer.touch(PAYLOAD, skb.page, False)
    observer.work(cost.COPY, skb.frame_bytes)
    stream(observer.caches, reader.cpu, 2 * skb.frame_bytes)
    if skb.arrival_ps >= trial.tally.measure_from_ps:
        trial.tally.delivered += 1
        _count_latency(trial, cost.clock(meter, reader.cpu) - skb.arrival_ps)
    observer.work(cost.BH_TOGGLE, 1)
    return int(number)


@compiled()
def work_on_packet(trial: Trial) -> None:
    """What the application does with a packet that it has received; the softirq's context comes back."""
    context = trial.host.context
    reader = trial.reader
    work_ps = reader.work_ps
    if reader.work_varies:
        work_ps = exponential(reader, trial.arrivals.exponential, work_ps)
    cost.charge(trial.host.observer.meter, context.cpu, cost.APPLICATION, work_ps)
    context.cpu = QUEUE_CPU
    context.in_softirq = SERVING_SOFTIRQ


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
