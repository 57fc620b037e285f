"""Receive patterns of drivers: one page for each descriptor, an skb built around it.

Page per packet, as in mvneta (spec 7.1), refills empty descriptors after the poll. Replace before pass, as in
mvpp2 (spec 7.2), has a page for the descriptor before it lets go of the packet's: a packet without one is
dropped, and its page posted again.
"""

from pool_impl import pool
from pool_impl import skb as buffer
from pool_impl.jit import compiled
from pool_impl.layout import SHARED_INFO_BYTES, SKB_BYTES
from pool_impl.observe import SHARED_INFO, SKB, STRUCT_PAGE
from workers import cost, xdp
from workers.cache import DESCRIPTOR, HEADER
from workers.drivers.buffers import allocate, post
from workers.state import Trial

HEADROOM_BYTES = 256
"""XDP_PACKET_HEADROOM, where the device starts to write"""
MOST_BYTES = pool.PAGE_BYTES - HEADROOM_BYTES - SHARED_INFO_BYTES
"""what a sync for the device covers: all that the device may have written"""

TRUESIZE_BYTES = pool.PAGE_BYTES + SKB_BYTES
"""what a packet counts against a socket's limit: its page and its sk_buff"""


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
    skb = buffer.build(trial.buffers, page, 0, pool.PAGE_BYTES)
    observer.touch(SKB, skb, True)
    cost.store(observer, SHARED_INFO, page)
    buffer.extend(trial.buffers, skb, descriptor.frame_bytes)
    packet = trial.packets[skb]
    packet.arrival_ps = descriptor.arrival_ps
    packet.flow_hash = descriptor.flow_hash
    if nic.replaces:
        replacement = allocate(trial, number)
        post(trial, queue, page if replacement == 0 else replacement)
        if replacement == 0:
            trial.tally.dropped_driver += 1 if packet.arrival_ps >= trial.tally.measure_from_ps else 0
            buffer.free_stolen(trial.buffers, skb)
            return 0
    if nic.recycle:
        buffer.mark_for_recycle(trial.buffers, skb)
        if not host.rules.pool_sets_owner:
            observer.touch(STRUCT_PAGE, page, True)
            buffer.store_mem_info(trial.buffers, page, host.pools[queue.pool])
    else:
        pool.release_page(host, host.pools[queue.pool], page)
    return int(skb)


@compiled(inline=False)
def _replace(trial: Trial, number: int) -> None:
    """Post a page in place of one that the XDP program kept from the stack; without one, the refill after the
    poll tries again."""
    page = allocate(trial, number)
    if page != 0:
        post(trial, trial.queues[number], page)


@compiled(inline=False)
def refill(trial: Trial, number: int, limit: int) -> None:
    """Post a page for each empty descriptor, oldest first, up to a limit; stop when there is no page."""
    queue = trial.queues[number]
    meter = trial.host.observer.meter
    left = limit
    while left > 0 and queue.posted - queue.read <= trial.nic.ring_mask:
        page = allocate(trial, number)
        if page == 0:
            break
        post(trial, queue, page)
        left -= 1
    if queue.unannounced:
        cost.charge(meter, queue.cpu, cost.DEVICE_REGISTER, meter.register_write_ps)
        queue.unannounced = 0
