"""Receive patterns whose skbs are put together: copied, from fragments, or from several buffers.

A packet up to the copybreak is copied into a head of its own, and its buffer is posted again. A larger one
takes its buffers along. Whole pages, as in mvneta (spec 7.1): the skb is built around the first, the others
are its fragments. Fragments of pages, as in hns3 (spec 7.3): the headers are copied into a head of their own,
all buffers are the skb's fragments. Without a pool: as with whole pages, but unmapped and unmarked.

Each descriptor of a packet counts against the budget. A packet that was begun is finished, whatever is left.
"""

from typing import Any

from pool_impl import pool
from pool_impl import skb as buffer
from pool_impl.jit import compiled
from pool_impl.layout import PFMEMALLOC
from pool_impl.observe import SHARED_INFO, SKB, SLAB_HEAD, STRUCT_PAGE
from workers.drivers import page, unpooled
from workers.drivers.buffers import post
from workers.pricing import cost
from workers.pricing.cache import DESCRIPTOR, HEADER, PAYLOAD, part_of_page, stream
from workers.state import FRAGMENTS, KEPT_PAGES, OWN_PAGES, UNIT_BYTES, Trial

HEAD_BYTES = 256
"""room for data in a head that is not part of a buffer (spec 7.3)"""
HEADERS_BYTES = 42
"""what a driver copies, or a device writes apart, of a packet: Ethernet 14, IPv4 20, UDP 8"""


@compiled(inline=False)
def receive_packet(trial: Trial, number: int) -> int:
    """Take the next packet from a queue's ring and make an skb; returns the skb, or 0 if it was dropped."""
    nic = trial.nic
    queue = trial.queues[number]
    first = trial.descriptors[queue.first + (queue.read & nic.ring_mask)]
    if first.frame_bytes <= nic.copybreak_bytes:
        return copy_packet(trial, number)
    if nic.pattern == FRAGMENTS:
        return _gather_fragments(trial, number)
    if nic.pattern >= OWN_PAGES:
        return _gather_unpooled(trial, number)
    ends = first.ends
    skb = page.receive_packet(trial, number)
    while not ends:
        taken = take(trial, queue, False)
        queue.polled += 1
        page.pass_on(trial, number, taken.page)
        add_buffer(trial, skb, taken.page, page.HEADROOM_BYTES, taken.frame_bytes)
        taken.page = 0
        ends = taken.ends
    return skb


@compiled()
def take(trial: Trial, queue: Any, unmaps: bool) -> Any:
    """The next descriptor of the ring, with what the driver does for each one: its buffer, or what was
    written to it, is the CPU's then."""
    observer = trial.host.observer
    index = queue.first + (queue.read & trial.nic.ring_mask)
    queue.read += 1
    descriptor = trial.descriptors[index]
    observer.work(cost.DRIVER, 1)
    observer.touch(DESCRIPTOR, index, False)
    if unmaps:
        unpooled.unmap(trial)
    else:
        observer.work(cost.SYNC_FOR_CPU, descriptor.frame_bytes)
    return descriptor


@compiled()
def _new_skb(trial: Trial, descriptor: Any, size: int) -> int:
    """An skb with a head of its own for the packet that begins there."""
    observer = trial.host.observer
    observer.work(cost.SKB_ALLOC, 1)
    skb = buffer.alloc_netdev(trial.buffers, size, True)
    observer.touch(SKB, skb, True)
    cost.store(observer, SLAB_HEAD, trial.buffers.skbs[skb].shared)
    _name_packet(trial, skb, descriptor)
    return int(skb)


@compiled()
def _name_packet(trial: Trial, skb: int, descriptor: Any) -> None:
    packet = trial.packets[skb]
    packet.arrival_ps = descriptor.arrival_ps
    packet.flow_hash = descriptor.flow_hash
    packet.units = 0


@compiled()
def _copy(trial: Trial, skb: int, descriptor: Any, length: int) -> None:
    """Copy the first bytes of a buffer to the linear part."""
    observer = trial.host.observer
    part = part_of_page(observer.caches, descriptor.page, descriptor.offset)
    observer.touch(HEADER, part, False)
    if length > observer.caches.line_bytes:
        observer.touch(PAYLOAD, part, False)
    observer.work(cost.COPY, length)
    stream(observer.caches, trial.host.context.cpu, 2 * length)
    buffer.extend(trial.buffers, skb, length)


@compiled()
def add_buffer(trial: Trial, skb: int, its_page: int, offset: int, length: int) -> None:
    """A buffer goes with the skb: all that it takes of its page counts, however little is in it."""
    units = trial.nic.buffer_units
    buffer.add_rx_frag(trial.buffers, skb, its_page, offset, length, units * UNIT_BYTES)
    trial.packets[skb].units += units


@compiled(inline=False)
def copy_packet(trial: Trial, number: int) -> int:
    """Copy the next packet of the ring, which is in one buffer, into an skb's own head."""
    queue = trial.queues[number]
    descriptor = take(trial, queue, False)
    skb = _new_skb(trial, descriptor, max(HEAD_BYTES, descriptor.frame_bytes))
    _copy(trial, skb, descriptor, descriptor.frame_bytes)
    its_page = descriptor.page
    descriptor.page = 0
    _post_again(trial, number, its_page, descriptor.offset)
    return skb


@compiled()
def _post_again(trial: Trial, number: int, its_page: int, offset: int) -> None:
    """Nobody else has the buffer: post it, unless its page is the pool's and should not stay (spec 7.3)."""
    host = trial.host
    if trial.nic.pattern >= KEPT_PAGES:
        unpooled.sync_for_device(trial)
        post(trial, trial.queues[number], its_page, offset)
        return
    owner = host.pools[trial.queues[number].pool]
    host.observer.touch(STRUCT_PAGE, its_page, False)
    record = host.pages[its_page]
    if record.nid != host.context.nid or record.magic & PFMEMALLOC:
        pool.put(host, owner, its_page, pool.WHOLE, False)
        return
    if trial.nic.driver_syncs:
        pool.sync_for_device(host, owner, trial.nic.buffer_units * UNIT_BYTES)
    post(trial, trial.queues[number], its_page, offset)


@compiled()
def with_head_apart(trial: Trial, descriptor: Any, copied_bytes: int) -> int:
    """An skb with the first bytes of a packet in a head of its own."""
    skb = _new_skb(trial, descriptor, HEAD_BYTES)
    _copy(trial, skb, descriptor, copied_bytes)
    return skb


@compiled(inline=False)
def _gather_fragments(trial: Trial, number: int) -> int:
    queue = trial.queues[number]
    descriptor = take(trial, queue, False)
    copied = HEADERS_BYTES
    skb = with_head_apart(trial, descriptor, copied)
    while True:
        offset = descriptor.offset + copied
        add_buffer(trial, skb, descriptor.page, offset, descriptor.frame_bytes - copied)
        descriptor.page = 0
        if descriptor.ends:
            break
        queue.polled += 1
        copied = 0
        descriptor = take(trial, queue, False)
    buffer.mark_for_recycle(trial.buffers, skb)
    return skb


@compiled()
def around_buffer(trial: Trial, descriptor: Any) -> int:
    """An skb whose head is the buffer of a packet's first descriptor."""
    units = trial.nic.buffer_units
    observer = trial.host.observer
    observer.work(cost.SKB_ALLOC, 1)
    skb = buffer.build(trial.buffers, descriptor.page, descriptor.offset, units * UNIT_BYTES)
    observer.touch(SKB, skb, True)
    cost.store(observer, SHARED_INFO, descriptor.page)
    buffer.extend(trial.buffers, skb, descriptor.frame_bytes)
    _name_packet(trial, skb, descriptor)
    trial.packets[skb].units = units
    return int(skb)


@compiled(inline=False)
def _gather_unpooled(trial: Trial, number: int) -> int:
    queue = trial.queues[number]
    observer = trial.host.observer
    descriptor = take(trial, queue, True)
    observer.touch(HEADER, part_of_page(observer.caches, descriptor.page, descriptor.offset), False)
    skb = around_buffer(trial, descriptor)
    descriptor.page = 0
    while not descriptor.ends:
        queue.polled += 1
        descriptor = take(trial, queue, True)
        add_buffer(trial, skb, descriptor.page, descriptor.offset, descriptor.frame_bytes)
        descriptor.page = 0
    return skb
