"""What the driver of a NIC does in its poll, by pattern.

A pattern takes the next packet from a queue's ring and builds an skb, and posts buffers to empty descriptors.
"""

from pool_impl.jit import compiled
from workers.drivers import buffers, gather, page
from workers.state import PAGE_ALONE, Trial

REFILL_LIMIT = 64
"""descriptors refilled after one poll at the most (spec 7.1)"""


@compiled()
def receive_packet(trial: Trial, number: int) -> int:
    """Take the next packet from a queue's ring and build an skb; returns the skb, or 0 if it was dropped."""
    if trial.nic.pattern == PAGE_ALONE:
        return page.receive_packet(trial, number)
    return gather.receive_packet(trial, number)


@compiled()
def refill(trial: Trial, number: int, limit: int) -> None:
    """Post buffers to empty descriptors of a queue, oldest first, up to a limit; stop when there is none."""
    buffers.refill(trial, number, limit)
