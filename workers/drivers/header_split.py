"""Receive pattern of drivers that have headers and payload apart (spec 7.5).

Each descriptor has a header buffer, part of a page of one pool, and a page of another pool for the payload.
The skb is built around the header buffer and has the payload as fragments; one mark covers both, and each
page knows its own pool. A small packet fits into the header buffer. What a packet leaves unused stays in its
descriptor until that is posted again.

What the NIC has merged (``device.hardware_gro``) is one skb of the first packet's headers and all pages of
payload. It is one completion and one unit of the budget, as in bnxt, where only the end of an aggregate
counts; the work for each buffer is that of a descriptor.

As with the network core's blocks, the header buffers of a page share the stamp of their shared info.
"""

from typing import Any

from pool_impl import skb as buffer
from pool_impl.jit import compiled
from pool_impl.observe import SHARED_INFO, SKB
from workers.device import hardware_gro
from workers.drivers.buffers import allocate_fragment, allocate_page, post
from workers.pricing import cost
from workers.pricing.cache import DESCRIPTOR, HEADER, part_of_page
from workers.state import UNIT_BYTES, Trial


@compiled(inline=False)
def receive_packet(trial: Trial, number: int) -> int:
    """Take the next packet from a queue's ring and make an skb."""
    if trial.nic.contexts:
        return _receive_aggregate(trial, number)
    queue = trial.queues[number]
    observer = trial.host.observer
    descriptor = _take(trial, queue)
    skb = _around_header(trial, descriptor)
    packet = trial.packets[skb]
    while True:
        if descriptor.frame_bytes > 0:
            length = descriptor.frame_bytes
            observer.work(cost.SYNC_FOR_CPU, length)
            buffer.add_rx_frag(trial.buffers, skb, descriptor.page, 0, length, trial.nic.page_bytes)
            packet.units += trial.nic.page_units
            descriptor.page = 0
        else:
            queue.kept_units += trial.nic.page_units
        if descriptor.ends:
            break
        queue.polled += 1
        descriptor = _take(trial, queue)
        queue.kept_units += trial.nic.part_units
    buffer.mark_for_recycle(trial.buffers, skb)
    return skb


@compiled(inline=False)
def _receive_aggregate(trial: Trial, number: int) -> int:
    nic = trial.nic
    queue = trial.queues[number]
    aggregate = hardware_gro.take(trial, number)
    _take(trial, queue)
    skb = _around_header(trial, aggregate)
    for position in range(aggregate.pages):
        if position > 0:
            _take(trial, queue)
            queue.kept_units += trial.nic.part_units
        length = aggregate.frame_bytes[position]
        trial.host.observer.work(cost.SYNC_FOR_CPU, length)
        buffer.add_rx_frag(trial.buffers, skb, aggregate.page[position], 0, length, nic.page_bytes)
        trial.packets[skb].units += nic.page_units
    if aggregate.pages == 0:
        queue.kept_units += nic.page_units
    if aggregate.merged_count > 0:
        trial.buffers.shared[trial.buffers.skbs[skb].shared].gso_size = aggregate.segment_bytes
        trial.tally.read += aggregate.merged_count
    buffer.mark_for_recycle(trial.buffers, skb)
    return skb


@compiled()
def _take(trial: Trial, queue: Any) -> Any:
    """The next descriptor of the ring."""
    observer = trial.host.observer
    index = queue.first + (queue.read & trial.nic.ring_mask)
    queue.read += 1
    observer.work(cost.DRIVER, 1)
    observer.touch(DESCRIPTOR, index, False)
    return trial.descriptors[index]


@compiled()
def _around_header(trial: Trial, descriptor: Any) -> int:
    observer = trial.host.observer
    page = descriptor.header_page
    observer.work(cost.SYNC_FOR_CPU, descriptor.header_bytes)
    part = part_of_page(observer.caches, page, descriptor.header_offset)
    observer.touch(HEADER, part, False)
    observer.work(cost.SKB_ALLOC, 1)
    skb = buffer.build(trial.buffers, page, descriptor.header_offset, trial.nic.part_units * UNIT_BYTES)
    observer.touch(SKB, skb, True)
    cost.store(observer, SHARED_INFO, page)
    buffer.extend(trial.buffers, skb, descriptor.header_bytes)
    packet = trial.packets[skb]
    packet.arrival_ps = descriptor.arrival_ps
    packet.flow_hash = descriptor.flow_hash
    packet.units = trial.nic.part_units
    descriptor.header_page = 0
    return int(skb)


@compiled(inline=False)
def post_new(trial: Trial, number: int) -> bool:
    """Post the next descriptor with what it lacks; False if there is none, and what it has stays there."""
    nic = trial.nic
    queue = trial.queues[number]
    descriptor = trial.descriptors[queue.first + (queue.posted & nic.ring_mask)]
    if descriptor.header_page == 0:
        page, offset = allocate_fragment(trial, nic.first_header_pool + queue.pool)
        if page == 0:
            return False
        descriptor.header_page = page
        descriptor.header_offset = offset
        queue.kept_units += nic.part_units
    page = descriptor.page
    if page == 0:
        page = allocate_page(trial, number)
        if page == 0:
            return False
        queue.kept_units += nic.page_units
    queue.kept_units -= nic.part_units + nic.page_units
    post(trial, queue, page, 0)
    return True
