"""From the wire to its consumer: a log-linear histogram of picoseconds, the sum and the maximum."""

from pool_impl.jit import bit_length, compiled
from workers.books.histogram import SUB_BUCKET_BITS
from workers.pricing import cost
from workers.state import Trial


@compiled()
def count(trial: Trial, arrival_ps: int) -> None:
    """A packet that arrived then has come to its consumer on the CPU that runs."""
    count_until(trial, arrival_ps, cost.clock(trial.host.observer.meter, trial.host.context.cpu))


@compiled()
def count_until(trial: Trial, arrival_ps: int, end_ps: int) -> None:
    """A packet that arrived then came to its consumer at ``end_ps``."""
    latency_ps = end_ps - arrival_ps
    trial.latency[latency_bucket(latency_ps)] += 1
    trial.tally.latency_sum_ps += latency_ps
    trial.tally.latency_max_ps = max(trial.tally.latency_max_ps, latency_ps)


@compiled()
def consumed(trial: Trial, skb: int) -> int:
    """The same for each wire packet of an skb that arrived after the warm-up; returns how many."""
    found = 0
    packet = trial.packets[skb]
    if packet.arrival_ps >= trial.tally.measure_from_ps:
        found = 1
        count(trial, packet.arrival_ps)
    merged = trial.holds[trial.buffers.skbs[skb].shared].merged
    if merged != 0:
        found += _consumed_merged(trial, merged)
    return found


@compiled(inline=False)
def _consumed_merged(trial: Trial, number: int) -> int:
    found = 0
    while number != 0:
        record = trial.merged[number]
        if record.arrival_ps >= trial.tally.measure_from_ps:
            found += 1
            count(trial, record.arrival_ps)
        number = record.next
    return found


@compiled()
def latency_bucket(latency_ps: int) -> int:
    """Bucket of the log-linear histogram: exact below 64 ps, then 32 buckets for each octave."""
    octave = max(0, bit_length(latency_ps) - SUB_BUCKET_BITS)
    return int((octave << SUB_BUCKET_BITS) + (latency_ps >> octave))
