"""Buffers for the device: a page from the pool, and giving it to a descriptor."""

from typing import Any

from pool_impl import pool
from pool_impl.jit import compiled
from pool_impl.layout import COUNT_MASK, RECYCLE_DECLINED
from pool_impl.layout import RECYCLE_RING_FULL as RING_FULL
from workers import cost
from workers.cache import DESCRIPTOR
from workers.nic import descriptor_posted
from workers.state import DECLINED, HELD, NOT_RECYCLED, OVERFLOW, WRONG_NODE, Trial


@compiled()
def allocate(trial: Trial, number: int) -> int:
    """A page that the device may write to, 0 if there is none."""
    host = trial.host
    owner = host.pools[trial.queues[number].pool]
    held_before = owner.hold
    page = pool.alloc(host, owner)
    entered = (owner.hold - held_before) & COUNT_MASK
    if entered != 0:
        _blame(trial, number, entered)
    trial.queues[number].starved = 1 if page == 0 else 0
    if page != 0:
        trial.tally.pages_allocated += 1
        if trial.nic.driver_syncs:
            # all that the device may write; who used the page before, and how much of it, nobody knows here
            pool.sync_for_device(host, owner, pool.WHOLE)
    return int(page)


@compiled()
def post(trial: Trial, queue: Any, page: int) -> None:
    """Give a page to the next descriptor. The device learns of it at once where each buffer has a register
    write, else by the one after the poll."""
    observer = trial.host.observer
    index = queue.first + (queue.posted & trial.nic.ring_mask)
    trial.descriptors[index].page = page
    observer.touch(DESCRIPTOR, index, True)
    if observer.meter.register_writes_per_buffer:
        cost.write_register(observer)
    descriptor_posted(trial, queue)
    queue.unannounced += 1


@compiled(inline=False)
def _blame(trial: Trial, number: int, pages: int) -> None:
    """Say why so many pages had to come from the page allocator."""
    tally = trial.tally
    queue = trial.queues[number]
    owner = trial.host.pools[queue.pool]
    if not trial.nic.recycle:
        tally.slow[NOT_RECYCLED] += pages
        return
    overflowed = 0
    declined = 0
    for cpu in range(trial.machine.cpus):
        overflowed += owner.recycle[cpu, RING_FULL]
        declined += owner.recycle[cpu, RECYCLE_DECLINED]
    by_overflow = min(pages, overflowed - queue.overflow_seen)
    queue.overflow_seen += by_overflow
    by_node = min(pages - by_overflow, owner.alloc_waive - queue.waive_seen)
    queue.waive_seen += by_node
    by_variant = min(pages - by_overflow - by_node, declined - queue.declined_seen)
    queue.declined_seen += by_variant
    by_frame = min(pages - by_overflow - by_node - by_variant, queue.detached - queue.detached_seen)
    queue.detached_seen += by_frame
    tally.slow[NOT_RECYCLED] += by_frame
    tally.slow[OVERFLOW] += by_overflow
    tally.slow[WRONG_NODE] += by_node
    tally.slow[DECLINED] += by_variant
    tally.slow[HELD] += pages - by_overflow - by_node - by_variant - by_frame
