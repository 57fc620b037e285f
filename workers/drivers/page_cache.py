"""A driver's private cache of mapped pages before the pool or the page allocator, as mlx5 had until 6.3.

A ring, first in, first out, of pages that the stack may still hold. A page enters when the driver is done
with it, whoever has references. The oldest is used again if the driver's reference is the only one left; if
it is not, all behind it wait, free or not (commit 4415a0319f92). One slot stays empty, which tells a full
ring from an empty one.
"""

from typing import Any

from pool_impl.jit import compiled
from pool_impl.layout import PFMEMALLOC
from pool_impl.observe import RING_SLOT, STRUCT_PAGE
from workers.pricing import cost
from workers.state import Trial


@compiled(inline=False)
def take(trial: Trial, number: int) -> int:
    """The oldest page if nobody else has it, still mapped; else 0."""
    queue = trial.queues[number]
    if queue.cached_head == queue.cached_tail:
        trial.tally.page_cache_empty += 1
        return 0
    page = trial.page_cache_slots[_looked_at(trial, queue, queue.cached_head)]
    trial.host.observer.touch(STRUCT_PAGE, page, False)
    if trial.host.pages[page].refcount != 1:
        trial.tally.page_cache_busy += 1
        return 0
    queue.cached_head += 1
    trial.tally.page_cache_reuse += 1
    return int(page)


@compiled(inline=False)
def put(trial: Trial, number: int, page: int) -> bool:
    """Keep a page; False if there is no room, or it is an emergency page or one of another node."""
    host = trial.host
    queue = trial.queues[number]
    if queue.cached_tail - queue.cached_head == trial.nic.page_cache_mask:
        trial.tally.page_cache_full += 1
        return False
    record = host.pages[page]
    host.observer.touch(STRUCT_PAGE, page, False)
    if record.magic & PFMEMALLOC or record.nid != host.context.nid:
        trial.tally.page_cache_waive += 1
        return False
    trial.page_cache_slots[_looked_at(trial, queue, queue.cached_tail)] = page
    queue.cached_tail += 1
    return True


@compiled()
def _looked_at(trial: Trial, queue: Any, position: int) -> int:
    """The slot of a position, with what it costs to read or write it."""
    slot = queue.first_cached_page + (position & trial.nic.page_cache_mask)
    trial.host.observer.touch(RING_SLOT, trial.nic.first_page_cache_slot + slot, True)
    trial.host.observer.work(cost.PAGE_CACHE, 1)
    return int(slot)
