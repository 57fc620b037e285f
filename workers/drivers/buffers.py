"""Buffers for the device: from the pool, and to the descriptors."""

from typing import Any

from pool_impl import fragments, pool
from pool_impl.jit import compiled
from pool_impl.layout import COUNT_MASK, RECYCLE_DECLINED
from pool_impl.layout import RECYCLE_RELEASED_REFCNT as RELEASED_REFCNT
from pool_impl.layout import RECYCLE_RING_FULL as RING_FULL
from pool_impl.observe import POOL_ALLOC
from workers.device.nic import descriptor_posted
from workers.pricing import cost
from workers.pricing.cache import DESCRIPTOR
from workers.pricing.idle import settle_pool
from workers.state import (
    DECLINED,
    HELD,
    NOT_RECYCLED,
    OVERFLOW,
    UNIT_BYTES,
    WRONG_NODE,
    Trial,
)


@compiled()
def allocate_page(trial: Trial, number: int) -> int:
    """A page that the device may write to, 0 if there is none."""
    page = take_page(trial, number)
    if page != 0 and trial.nic.driver_syncs:
        # all that the device may write; who used the page before, and how much of it, nobody knows here
        pool.sync_for_device(trial.host, trial.host.pools[trial.queues[number].pool], pool.WHOLE)
    return page


@compiled()
def take_page(trial: Trial, number: int) -> int:
    """A page of the pool, whoever has to sync it; 0 if there is none."""
    host = trial.host
    owner = host.pools[trial.queues[number].pool]
    held_before = owner.hold
    settle_pool(host.observer.idle, owner, host.slots)
    page = pool.alloc(host, owner)
    entered = (owner.hold - held_before) & COUNT_MASK
    if entered != 0:
        _blame(trial, owner.index, entered)
    trial.queues[number].starved = 1 if page == 0 else 0
    if page != 0:
        trial.tally.pages_allocated += 1
    return int(page)


@compiled(inline=False)
def allocate_fragment(trial: Trial, number: int) -> tuple[int, int]:
    """Part of a page of a pool that the device may write to, and its offset in bytes; page 0 if there is
    none."""
    host = trial.host
    owner = host.pools[number]
    taken = trial.nic.part_units * UNIT_BYTES
    held_before = owner.hold
    settle_pool(host.observer.idle, owner, host.slots)
    page = fragments.alloc_frag(host, owner, taken)
    entered = (owner.hold - held_before) & COUNT_MASK
    if entered != 0:
        _blame(trial, number, entered)
    if page == 0:
        return 0, 0
    if owner.frag_users > 1:
        # as much work as a page from the cache, which a page's first fragment has paid for
        host.observer.work(POOL_ALLOC, 1)
    trial.tally.pages_allocated += 1
    if trial.nic.driver_syncs:
        pool.sync_for_device(host, owner, taken)
    return page, owner.frag_offset - taken


@compiled()
def post(trial: Trial, queue: Any, page: int, offset: int) -> None:
    """Give a buffer to the next descriptor. The device learns of it at once where each buffer has a register
    write, else by the one after the poll."""
    observer = trial.host.observer
    index = queue.first + (queue.posted & trial.nic.ring_mask)
    descriptor = trial.descriptors[index]
    descriptor.page = page
    descriptor.offset = offset
    observer.touch(DESCRIPTOR, index, True)
    if observer.meter.register_writes_per_buffer:
        cost.write_register(observer)
    descriptor_posted(trial, queue)
    queue.unannounced += 1


@compiled(inline=False)
def _blame(trial: Trial, number: int, pages: int) -> None:
    """Say why so many pages of a pool had to come from the page allocator."""
    tally = trial.tally
    blamed = trial.blamed[number]
    owner = trial.host.pools[number]
    if not trial.nic.recycle:
        tally.slow[NOT_RECYCLED] += pages
        return
    if owner.alloc_empty == blamed.empty:
        # the ring had pages, but one of another node was the first
        tally.slow[WRONG_NODE] += pages
        blamed.node += 1
        return
    blamed.empty = owner.alloc_empty
    overflowed = 0
    declined = 0
    for cpu in range(trial.machine.cpus):
        overflowed += owner.recycle[cpu, RING_FULL]
        declined += owner.recycle[cpu, RECYCLE_DECLINED]
    by_overflow = min(pages, overflowed - blamed.overflow)
    blamed.overflow += by_overflow
    by_node = min(pages - by_overflow, owner.alloc_waive + blamed.flushed - blamed.node)
    blamed.node += by_node
    by_variant = min(pages - by_overflow - by_node, declined - blamed.declined)
    blamed.declined += by_variant
    by_frame = min(pages - by_overflow - by_node - by_variant, blamed.detached - blamed.detached_seen)
    blamed.detached_seen += by_frame
    by_reference = 0
    if trial.stack.forwards:
        others = by_overflow + by_node + by_variant + by_frame
        by_reference = min(pages - others, _referenced(owner, trial.machine.cpus) - blamed.referenced)
        blamed.referenced += by_reference
    tally.slow[NOT_RECYCLED] += by_frame + by_reference
    tally.slow[OVERFLOW] += by_overflow
    tally.slow[WRONG_NODE] += by_node
    tally.slow[DECLINED] += by_variant
    tally.slow[HELD] += pages - by_overflow - by_node - by_variant - by_frame - by_reference


@compiled(inline=False)
def _referenced(owner: Any, cpus: int) -> int:
    """Pages that a pool let go since somebody else had references to them."""
    found = 0
    for cpu in range(cpus):
        found += owner.recycle[cpu, RELEASED_REFCNT]
    return found
