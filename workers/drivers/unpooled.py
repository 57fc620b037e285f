"""Buffers of drivers that have no pool: each is mapped when it is posted and unmapped before it is passed on.

Either a page from the page allocator, or part of a block that the network core cuts up (``napi_alloc_frag``).
Mapping includes a sync of the whole buffer for the device and unmapping one for the CPU, whatever the packet
filled of it; so does an unmapping where a driver with a pool syncs the packet only. What the caches know of a
block has one stamp for the shared info of all its parts, so misses on it come out too low.
"""

from pool_impl import page_alloc, page_frag
from pool_impl.jit import compiled
from pool_impl.layout import NO_NODE
from pool_impl.observe import DMA_MAP, DMA_SYNC_FOR_DEVICE, DMA_UNMAP
from workers.pricing import cost
from workers.state import OWN_PAGES, UNIT_BYTES, Trial


@compiled(inline=False)
def allocate(trial: Trial) -> tuple[int, int]:
    """A mapped buffer: its page, and its offset in bytes; page 0 if there is none."""
    host = trial.host
    if trial.nic.pattern == OWN_PAGES:
        page = page_alloc.alloc(host, NO_NODE, 0)
        offset = 0
        taken = 1
    else:
        page, offset, taken = _cut(trial, trial.nic.buffer_units * UNIT_BYTES)
    if page == 0:
        return 0, 0
    trial.tally.pages_taken += taken
    trial.tally.pages_allocated += 1
    host.observer.work(DMA_MAP, 1)
    host.access.count_map(host.device)
    cost.maintain(host.observer, DMA_SYNC_FOR_DEVICE, trial.nic.buffer_bytes)
    return page, offset


@compiled()
def _cut(trial: Trial, size: int) -> tuple[int, int, int]:
    """Part of this CPU's block, and how many pages were taken for it."""
    host, caches = trial.host, trial.frag_caches
    allocator = host.page_allocator
    host.observer.work(cost.PAGE_FRAGMENT, 1)
    serial = allocator.serial
    page, offset = page_frag.alloc(host, caches, size)
    if allocator.serial == serial:
        return page, offset, 0
    return page, offset, caches[host.context.cpu].block_bytes >> trial.nic.page_shift


@compiled()
def unmap(trial: Trial) -> None:
    """A buffer is the CPU's from now on."""
    host = trial.host
    host.observer.work(DMA_UNMAP, 1)
    host.access.count_unmap(host.device)
    cost.maintain(host.observer, cost.SYNC_FOR_CPU, trial.nic.buffer_bytes)


@compiled()
def sync_for_device(trial: Trial) -> None:
    """A buffer that stays mapped is the device's again."""
    host = trial.host
    host.observer.work(DMA_SYNC_FOR_DEVICE, trial.nic.buffer_bytes)
    host.access.count_sync(host.device, trial.nic.buffer_bytes)
