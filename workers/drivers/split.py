"""Receive pattern of drivers that keep a page until its last buffer has been used, as mlx5 (spec 7.4).

The driver takes a whole page and splits it itself into buffers for successive descriptors. The skb is built
around a packet's first buffer and has others as fragments. Or the packet's first 256 bytes are copied to a
head of its own (``MLX5E_RX_MAX_HEAD`` of mlx5's striding queues) and all buffers are fragments, which then
need neither headroom nor room for shared info. How driver and skbs share a page:

* by shares (recycling on, as from 6.4 on): the driver sets the page's count to a bias, each buffer in an skb
  is one share, and what is left of the bias goes back when the descriptor of the last buffer is posted again.
  By then skbs that were dropped in the poll are gone: the driver's is the last share, and the page takes the
  direct way to the cache.
* by plain references (recycling off, as before): each buffer in an skb is a reference beside the driver's.
  The page is the driver's to map, and it lets go of it with the last buffer: into its page cache, or else,
  unmapped, to the pool, which keeps it only if no skb has it any more, or to the page allocator.

Drivers with a page for each packet that have a page cache are the case of one buffer.

When the device goes down, a page whose buffers were used in part is given up at once, with the shares that
are left of its bias or the one reference; what skbs have of it comes back from them.

Unlike fragments of a pool, buffers are cut without asking the pool for each, and a page has one last user in
the driver. As with the network core's blocks, buffers of a page have one stamp for their shared info.
"""

from typing import Any

from pool_impl import fragments, page_alloc, pool
from pool_impl import skb as buffer
from pool_impl.jit import compiled
from pool_impl.layout import NO_NODE
from pool_impl.observe import DMA_MAP, DMA_SYNC_FOR_DEVICE, DMA_UNMAP
from workers.drivers import gather, page_cache
from workers.drivers.buffers import take_page
from workers.net import xdp
from workers.pricing import cost
from workers.pricing.cache import HEADER, part_of_page
from workers.state import KEPT_PAGES, UNIT_BYTES, Trial

BIAS = 1024
"""shares of a page that is being split: more than it can have buffers, also of 64 KiB"""


@compiled(inline=False)
def receive_packet(trial: Trial, number: int) -> int:
    """Take the next packet from a queue's ring and make an skb; returns the skb, or 0 if it was dropped."""
    nic = trial.nic
    queue = trial.queues[number]
    observer = trial.host.observer
    index = queue.first + (queue.read & nic.ring_mask)
    if trial.descriptors[index].frame_bytes <= nic.copybreak_bytes:
        # its buffer is posted again at once, to a descriptor that may have had the last of a page
        give_back(trial, number, 1)
        return gather.copy_packet(trial, number)
    if nic.copies_heads:
        return _receive_with_head_apart(trial, number)
    descriptor = gather.take(trial, queue, False)
    observer.touch(HEADER, part_of_page(observer.caches, descriptor.page, descriptor.offset), False)
    if nic.program and not xdp.passes(trial, number, index, descriptor.page):
        _use(trial, number, descriptor)
        return 0
    skb = gather.around_buffer(trial, descriptor)
    _share(trial, number, descriptor)
    while not descriptor.ends:
        queue.polled += 1
        descriptor = gather.take(trial, queue, False)
        gather.add_buffer(trial, skb, descriptor.page, descriptor.offset, descriptor.frame_bytes)
        _share(trial, number, descriptor)
    if not nic.references:
        buffer.mark_for_recycle(trial.buffers, skb)
    return skb


@compiled(inline=False)
def _receive_with_head_apart(trial: Trial, number: int) -> int:
    """The next packet, of more than a head's bytes: those are copied, and all its buffers are fragments."""
    queue = trial.queues[number]
    copied = gather.HEAD_BYTES
    descriptor = gather.take(trial, queue, False)
    skb = gather.with_head_apart(trial, descriptor, copied)
    while True:
        offset = descriptor.offset + copied
        gather.add_buffer(trial, skb, descriptor.page, offset, descriptor.frame_bytes - copied)
        _share(trial, number, descriptor)
        if descriptor.ends:
            break
        queue.polled += 1
        copied = 0
        descriptor = gather.take(trial, queue, False)
    if not trial.nic.references:
        buffer.mark_for_recycle(trial.buffers, skb)
    return skb


@compiled()
def _share(trial: Trial, number: int, descriptor: Any) -> None:
    """The buffer is an skb's, with a share that was set aside for it or with a reference."""
    if trial.nic.references:
        page_alloc.get_page(trial.host, descriptor.page)
    _use(trial, number, descriptor)


@compiled(inline=False)
def _use(trial: Trial, number: int, descriptor: Any) -> None:
    """The descriptor's buffer is used; so is its page if that was the last one."""
    page = descriptor.page
    descriptor.page = 0
    trial.parts_used[page] += 1
    if trial.parts_used[page] < trial.nic.page_parts:
        return
    if trial.nic.references:
        _let_go(trial, number, page)
    else:
        descriptor.spent_page = page


@compiled()
def _let_go(trial: Trial, number: int, page: int) -> None:
    """Give up the driver's reference to a page."""
    host = trial.host
    if trial.nic.page_cache_mask != 0 and page_cache.put(trial, number, page):
        return
    host.observer.work(DMA_UNMAP, 1)
    host.access.count_unmap(host.device)
    if trial.nic.pattern == KEPT_PAGES:
        pool.put(host, host.pools[trial.queues[number].pool], page, pool.WHOLE, True)
    else:
        page_alloc.put_page(host, page)


@compiled(inline=False)
def give_back(trial: Trial, number: int, limit: int) -> None:
    """Give the pool the shares that are left of pages whose last buffer was in one of the descriptors to be
    posted next, up to a limit."""
    host = trial.host
    queue = trial.queues[number]
    owner = host.pools[queue.pool]
    until = min(queue.posted + limit, queue.read + trial.nic.ring_mask + 1)
    for position in range(queue.posted, until):
        descriptor = trial.descriptors[queue.first + (position & trial.nic.ring_mask)]
        page = descriptor.spent_page
        if page == 0:
            continue
        descriptor.spent_page = 0
        if pool.drop_shares(host, page, BIAS - trial.nic.page_parts) == 0:
            pool.put_defragged(host, owner, page, pool.WHOLE, True)


@compiled(inline=False)
def give_up_all(trial: Trial, number: int) -> None:
    """Give up all pages that the driver has for a queue, as its device goes down: those in descriptors, the
    one that is being split, and its page cache (``mlx5e_free_rx_descs``)."""
    nic = trial.nic
    queue = trial.queues[number]
    for position in range(queue.read, queue.read + nic.ring_mask + 1):
        descriptor = trial.descriptors[queue.first + (position & nic.ring_mask)]
        _give_up(trial, number, descriptor.page)
        _give_up(trial, number, descriptor.spent_page)
        descriptor.page = descriptor.spent_page = 0
    _give_up(trial, number, queue.split_page)
    queue.split_page = 0
    while queue.cached_head != queue.cached_tail:
        slot = queue.first_cached_page + (queue.cached_head & nic.page_cache_mask)
        _forget(trial, number, trial.page_cache_slots[slot])
        queue.cached_head += 1


@compiled(inline=False)
def _give_up(trial: Trial, number: int, page: int) -> None:
    """Give up what the driver has of a page, whose buffers may be used in part: the shares that it has not
    handed out, or its reference. A page that it has in several descriptors goes with the first."""
    used = trial.parts_used[page]
    if page == 0 or used == BIAS:
        return
    trial.parts_used[page] = BIAS
    if trial.nic.references:
        _forget(trial, number, page)
        return
    host = trial.host
    if pool.drop_shares(host, page, BIAS - used) == 0:
        pool.put_defragged(host, host.pools[trial.queues[number].pool], page, pool.WHOLE, True)


@compiled()
def _forget(trial: Trial, number: int, page: int) -> None:
    """Unmap a page and give up the driver's reference; it leaves its pool, if it has one, whoever else has it
    (spec 7.4)."""
    host = trial.host
    host.observer.work(DMA_UNMAP, 1)
    host.access.count_unmap(host.device)
    if trial.nic.pattern == KEPT_PAGES:
        pool.release_page(host, host.pools[trial.queues[number].pool], page)
    page_alloc.put_page(host, page)


@compiled(inline=False)
def next_buffer(trial: Trial, number: int) -> tuple[int, int]:
    """The next buffer of the page that is being split, or of another one: page and offset in bytes; page 0 if
    there is none."""
    queue = trial.queues[number]
    page = queue.split_page
    if page == 0:
        page = _own_page(trial, number) if trial.nic.references else _shared_page(trial, number)
        if page == 0:
            return 0, 0
        trial.parts_used[page] = 0
        queue.split_page = page
        queue.split_offset = 0
    offset = queue.split_offset
    taken = trial.nic.buffer_units * UNIT_BYTES
    queue.split_offset += taken
    if queue.split_offset == trial.nic.page_bytes:
        queue.split_page = 0
    if trial.nic.driver_syncs:
        pool.sync_for_device(trial.host, trial.host.pools[queue.pool], taken)
    return page, offset


@compiled(inline=False)
def _shared_page(trial: Trial, number: int) -> int:
    """A page of the pool with its bias, 0 if there is none."""
    page = take_page(trial, number)
    if page != 0:
        fragments.set_shares(trial.host, page, BIAS)
    return page


@compiled(inline=False)
def _own_page(trial: Trial, number: int) -> int:
    """A page that the driver has mapped, from its page cache if the oldest one there is free; 0 if there is
    none."""
    host = trial.host
    tally = trial.tally
    if trial.nic.page_cache_mask != 0:
        page = page_cache.take(trial, number)
        if page != 0:
            tally.pages_allocated += 1
            pool.sync_for_device(host, host.pools[trial.queues[number].pool], pool.WHOLE)
            return page
    if trial.nic.pattern == KEPT_PAGES:
        page = take_page(trial, number)
    else:
        page = page_alloc.alloc(host, NO_NODE, 0)
        trial.queues[number].starved = 1 if page == 0 else 0
        if page != 0:
            tally.pages_taken += 1
            tally.pages_allocated += 1
    if page != 0:
        host.observer.work(DMA_MAP, 1)
        host.access.count_map(host.device)
        cost.maintain(host.observer, DMA_SYNC_FOR_DEVICE, host.pools[trial.queues[number].pool].max_len)
    return page
