"""Receive patterns of drivers: one page for each descriptor, an skb built around it.

Page per packet, as in mvneta (spec 7.1), refills empty descriptors after the poll. Replace before pass, as in
mvpp2 (spec 7.2), has a page for the descriptor before it lets go of the packet's: a packet without one is
dropped, and its page posted again.
"""

from pool_impl import pool
from pool_impl import skb as buffer
from pool_impl.jit import compiled
from pool_impl.layout import SHARED_INFO_BYTES
from pool_impl.observe import SHARED_INFO, SKB, STRUCT_PAGE
from workers.device import flow_control
from workers.drivers.buffers import allocate_page, post
from workers.fields.derived import BESIDE_DATA_BYTES
from workers.net import xdp
from workers.pricing import cost
from workers.pricing.cache import DESCRIPTOR, HEADER
from workers.state import Trial

HEADROOM_BYTES = 256
"""XDP_PACKET_HEADROOM, where the device starts to write"""
assert HEADROOM_BYTES + SHARED_INFO_BYTES == BESIDE_DATA_BYTES


@compiled()
def receive_packet(trial: Trial, number: int) -> int:
    """Take the next packet from a queue's ring and build an skb; returns the skb's index, or 0."""
    nic = trial.nic
    queue = trial.queues[number]
    host = trial.host
    observer = host.observer
    index = queue.first + (queue.read & nic.ring_mask)
    queue.read += 1
    descriptor = trial.descriptors[index]
    page = descriptor.page
    descriptor.page = 0
    observer.work(cost.DRIVER, 1)
    observer.touch(DESCRIPTOR, index, False)
    observer.work(cost.SYNC_FOR_CPU, descriptor.frame_bytes)
    observer.touch(HEADER, page, False)
    if nic.program and not xdp.passes(trial, number, index, page):
        if nic.replaces:
            _replace(trial, number)
        return 0

    observer.work(cost.SKB_ALLOC, 1)
    skb = buffer.build(trial.buffers, page, 0, nic.page_bytes)
    observer.touch(SKB, skb, True)
    cost.store(observer, SHARED_INFO, page)
    buffer.extend(trial.buffers, skb, descriptor.frame_bytes)
    packet = trial.packets[skb]
    packet.arrival_ps = descriptor.arrival_ps
    packet.flow_hash = descriptor.flow_hash
    packet.units = nic.page_units
    if nic.replaces:
        replacement = allocate_page(trial, number)
        post(trial, queue, page if replacement == 0 else replacement, 0)
        if replacement == 0:
            trial.tally.dropped_driver += 1 if packet.arrival_ps >= trial.tally.measure_from_ps else 0
            flow_control.lost(trial, packet.flow_hash, 1)
            buffer.free_stolen(trial.buffers, skb)
            return 0
    if nic.recycle:
        buffer.mark_for_recycle(trial.buffers, skb)
    pass_on(trial, number, page)
    return int(skb)


@compiled()
def pass_on(trial: Trial, number: int, page: int) -> None:
    """The page goes with an skb: it will come back to the pool, which it names where the release wants that
    (spec 6.2), or leaves it for good (spec 7.7)."""
    host = trial.host
    if not trial.nic.recycle:
        pool.release_page(host, host.pools[trial.queues[number].pool], page)
    elif not host.rules.pool_sets_owner:
        host.observer.touch(STRUCT_PAGE, page, True)
        buffer.store_mem_info(trial.buffers, page, host.pools[trial.queues[number].pool])


@compiled(inline=False)
def _replace(trial: Trial, number: int) -> None:
    """Post a page in place of one that the XDP program kept from the stack; without one, the refill after the
    poll tries again."""
    page = allocate_page(trial, number)
    if page != 0:
        post(trial, trial.queues[number], page, 0)
