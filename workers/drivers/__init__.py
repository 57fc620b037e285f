"""What the driver of a NIC does in its poll, by pattern.

A pattern takes the next packet from a queue's ring and builds an skb, and posts buffers to empty descriptors.
"""

from pool_impl.jit import compiled
from workers.drivers import gather, header_split, page, split
from workers.drivers.refill import refill as refill
from workers.drivers.unpooled import unmap as unmap
from workers.state import HEADER_SPLIT, KEPT_PAGES, OWN_KEPT_PAGES, PAGE_ALONE, Trial

REFILL_LIMIT = 64
"""descriptors refilled after one poll at the most (spec 7.1)"""


@compiled()
def receive_packet(trial: Trial, number: int) -> int:
    """Take the next packet from a queue's ring and build an skb; returns the skb, or 0 if it was dropped."""
    if trial.nic.pattern == PAGE_ALONE:
        return page.receive_packet(trial, number)
    if trial.nic.pattern == HEADER_SPLIT:
        return header_split.receive_packet(trial, number)
    if trial.nic.pattern == KEPT_PAGES or trial.nic.pattern == OWN_KEPT_PAGES:
        return split.receive_packet(trial, number)
    return gather.receive_packet(trial, number)
