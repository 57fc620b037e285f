"""A packet socket that captures a share of all packets, as AF_PACKET does without a ring of its own.

Each captured packet is cloned before protocol work, so that its pages stay until both are freed.
"""

from pool_impl import skb as buffer
from pool_impl.jit import compiled
from workers.arrivals.traffic import below
from workers.net import sockets
from workers.pricing import cost
from workers.state import NOBODY, Trial


@compiled(inline=False)
def capture(trial: Trial, skb: int) -> None:
    """Perhaps give a clone of an skb to the tap (``packet_rcv``: full is what has reached its limit)."""
    if below(trial.tap, 100) >= trial.stack.tap_percent:
        return
    tap = trial.readers[trial.stack.readers]
    if tap.queued_bytes >= tap.limit_bytes:
        trial.tally.captures_dropped += (
            1 if trial.packets[skb].arrival_ps >= trial.tally.measure_from_ps else 0
        )
        return
    trial.host.observer.work(cost.SKB_ALLOC, 1)
    clone = buffer.clone(trial.buffers, skb)
    packet = trial.packets[clone]
    packet.arrival_ps = trial.packets[skb].arrival_ps
    packet.flow_hash = trial.packets[skb].flow_hash
    packet.cpu = NOBODY
    sockets.put(trial, tap, clone)
