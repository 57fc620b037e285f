"""The network stack above the driver: protocol work, and where a packet goes from there."""

from pool_impl.jit import compiled
from workers.books import hold, latency
from workers.device import hardware_gro
from workers.net import backlog, forwarding, gro, sockets, taps
from workers.pricing import cost
from workers.state import Trial


@compiled()
def deliver(trial: Trial, number: int, skb: int) -> int:
    """Carry an skb that a driver has built through the stack, in softirq on the CPU of its queue
    ``number``; the skb to free now, or 0."""
    hold.begin(trial, skb)
    if trial.stack.special:
        return _deliver_specially(trial, number, skb)
    trial.host.observer.work(cost.PROTOCOL, 1)
    if trial.stack.drops:
        trial.tally.dropped_early += latency.consumed(trial, skb)
        return skb
    if trial.stack.forwards:
        return forwarding.forward(trial, skb)
    return sockets.enqueue(trial, skb)


@compiled(inline=False)
def _deliver_specially(trial: Trial, number: int, skb: int) -> int:
    """Where there is more than the shortest way."""
    if trial.nic.contexts:
        hardware_gro.adopt(trial, number, skb)
    if trial.stack.gro:
        if trial.nic.contexts:
            _make_way(trial, number, skb)
        skb = gro.receive(trial, number, skb)
        if skb == 0:
            return 0
    return pass_up(trial, number, skb)


@compiled(inline=False)
def _make_way(trial: Trial, number: int, skb: int) -> None:
    """Pass up what GRO holds before what the NIC has merged, where it does not merge both."""
    held = gro.make_way(trial, number, skb)
    if held != 0:
        held = pass_up(trial, number, held)
    if held != 0:
        hold.free(trial, held)


@compiled(inline=False)
def pass_up(trial: Trial, number: int, skb: int) -> int:
    """From the driver or GRO to the CPU that is to receive it; the skb to free now, or 0."""
    if trial.stack.backlogs:
        return backlog.enqueue(trial, number, skb)
    return receive(trial, skb)


@compiled(inline=False)
def receive(trial: Trial, skb: int) -> int:
    """Protocol work on the CPU that runs; the skb to free now, or 0."""
    stack = trial.stack
    trial.host.observer.work(cost.PROTOCOL, 1)
    if stack.tap_percent:
        taps.capture(trial, skb)
    if stack.drops:
        if stack.raw:
            trial.host.observer.work(cost.RAW_DROP, 1)
        elif stack.no_port:
            trial.host.observer.work(cost.UDP, 1)
        trial.tally.dropped_early += latency.consumed(trial, skb)
        return skb
    if stack.forwards:
        return forwarding.forward(trial, skb)
    if stack.tcp:
        return sockets.enqueue_segment(trial, skb)
    return sockets.enqueue(trial, skb)
