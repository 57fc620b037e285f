"""What lies between the device and memory: an IOMMU, or bounce buffers. Costs nothing where there is neither.

Behind an IOMMU that translates, mapping and unmapping take an I/O virtual address and page tables beside what
they cost anyway. An unmapped address must not be used again until the device's cached translation is
invalidated. In strict mode each unmapping does that and waits for it; in lazy mode the address waits in the
CPU's flush queue until that is full, or for 10 ms, and one invalidation is for all. The invalidation queue is
one for all CPUs: it is held while an invalidation is waited for, and others wait for it.

Facts of the kernel's IOVA flush queues: a ring of 256 slots for each CPU, one of which stays empty. Before a
CPU puts an address in, it takes out what any invalidation since has covered. The timer starts with the first
address; when it runs out, one invalidation covers the queues of all CPUs. What it costs is charged to the CPU
that unmaps next, since nothing happens between. Device-side effects (translations that miss) are not here.

Bounce buffers (swiotlb, with a device that does not reach the memory): a mapping takes a slot, and the CPU
copies in place of the device. Received bytes are copied at their sync for the CPU, or at the unmapping where
that includes one; bytes to send at the mapping, and at syncs for the device where a mapping is for both
directions. From 5.18 on a mapping for receiving copies the buffer too, so that what the device does not
overwrite is not lost. Copies go at the profile's rate; what they do to the caches beside is not modelled.
"""

from typing import Any

import numpy as np

from pool_impl.jit import compiled
from pool_impl.layout import MAX_CPUS

QUEUED_MOST = 255
"""addresses in a CPU's flush queue: IOVA_DEFAULT_FQ_SIZE less one"""

FLUSH_AFTER_PS = 10 * 10**9
"""IOVA_DEFAULT_FQ_TIMEOUT"""

DMA = np.dtype(
    [
        *(
            (name, "<i8")
            for name in (
                "translates",  # 1: there is an IOMMU, lazy or strict
                "lazy",
                "bounces",  # 1: through bounce buffers
                "map_ps",
                "unmap_ps",
                "invalidate_ps",
                "map_copies_bytes",  # at each mapping of a receive buffer
                "queue_free_ps",  # when the invalidation queue is free
                "invalidations",
                "flushes",  # of flush queues
                "flush_at_ps",  # when the timer runs out, 0: it is off
            )
        ),
        ("queued", "<i8", (MAX_CPUS,)),
        ("flushes_seen", "<i8", (MAX_CPUS,)),
    ],
    align=True,
)
"""``queued`` addresses wait in each CPU's flush queue since it has ``flushes_seen``"""


@compiled()
def forget(dma: Any) -> None:
    """Start anew, with what is mapped as it is."""
    dma.queue_free_ps = dma.invalidations = dma.flushes = dma.flush_at_ps = 0
    for cpu in range(MAX_CPUS):
        dma.queued[cpu] = dma.flushes_seen[cpu] = 0


@compiled()
def invalidations_for(dma: Any, cpu: int, now_ps: int) -> int:
    """How many invalidations a CPU has to wait for as it unmaps a page; they are counted."""
    if not dma.lazy:
        dma.invalidations += 1
        return 1
    found = 0
    if dma.flush_at_ps != 0 and dma.flush_at_ps <= now_ps:
        dma.flush_at_ps = 0
        dma.flushes += 1
        found += 1
    if dma.flushes_seen[cpu] != dma.flushes:
        dma.flushes_seen[cpu] = dma.flushes
        dma.queued[cpu] = 0
    if dma.queued[cpu] == QUEUED_MOST:
        dma.flushes += 1
        dma.flushes_seen[cpu] = dma.flushes
        dma.queued[cpu] = 0
        found += 1
    dma.queued[cpu] += 1
    if dma.flush_at_ps == 0:
        dma.flush_at_ps = now_ps + FLUSH_AFTER_PS
    dma.invalidations += found
    return found


@compiled()
def wait_for_queue(dma: Any, now_ps: int) -> int:
    """How long the invalidation queue is another CPU's still; then it is held for one invalidation."""
    waited_ps = max(0, dma.queue_free_ps - now_ps)
    dma.queue_free_ps = now_ps + waited_ps + dma.invalidate_ps
    return int(waited_ps)
