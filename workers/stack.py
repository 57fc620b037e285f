"""The network stack above the driver: protocol work, and where a packet goes from there."""

from pool_impl.jit import compiled
from workers import cost, latency, sockets, transmit
from workers.state import Trial


@compiled()
def deliver(trial: Trial, skb: int) -> int:
    """Carry an skb through the stack, in softirq on its queue's CPU; the skb to free now, or 0."""
    trial.host.observer.work(cost.PROTOCOL, 1)
    if trial.stack.drops:
        packet = trial.packets[skb]
        counted = 1 if packet.arrival_ps >= trial.tally.measure_from_ps else 0
        trial.tally.dropped_early += counted
        if counted:
            latency.count(trial, packet.arrival_ps)
        return skb
    if trial.stack.forwards:
        return transmit.forward(trial, skb)
    return sockets.enqueue(trial, skb)
