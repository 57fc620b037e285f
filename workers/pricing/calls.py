"""How many function calls an operation takes: what return mitigation makes longer.

Prices of a profile hold the calls that they were measured with. Where a call takes longer, an operation takes
so much longer for each of its calls (:func:`lengthen`); nothing else changes. The numbers
belong to the kernel's code and not to a machine.

Those of the pool and of the page allocator are functions that return on the way, as the kernel's sources of
5.14 to 6.12 call them, inlined and tail calls left out. One pair of published runs says whether they are
right: EPYC 9684X, 1.36 ns a call without and 5.70 ns with safe-ret. It gives 2.4 calls for a page from and to
the cache, 5.5 through the ring, 14.8 through the page allocator, 23.9 for a page without a pool, and exactly
2 for a lock. The others are counted in the same way, and no published figure checks them.
"""

from typing import Any

from pool_impl import observe
from workers.pricing import cost

CALLS: dict[int, int] = {
    observe.POOL_ALLOC: 1,  # page_pool_alloc_pages
    observe.POOL_PUT: 1,  # page_pool_put_unrefed_page
    observe.RING_PRODUCE: 1,  # page_pool_recycle_in_ring
    observe.RING_CONSUME: 0,  # within the refill
    observe.PRODUCER_LOCK: 2,  # lock, unlock
    observe.CONSUMER_LOCK: 2,
    observe.PAGE_ADOPT: 1,  # page_pool_set_pp_info
    observe.PAGE_RELEASE: 2,  # page_pool_return_page, __page_pool_release_page_dma
    observe.PAGE_BULK_ALLOC: 3,  # __rmqueue_pcplist, prep_new_page, post_alloc_hook
    observe.PAGE_BULK_CALL: 14,  # what a page asked for alone has more, once for all of them
    observe.PAGE_SINGLE_ALLOC: 17,  # from alloc_pages over policy, zone list and watermark to those three
    observe.PAGE_FREE: 7,  # __folio_put, free_unref_page, prepare, block's flags, trylock, commit, unlock
    observe.BUDDY_PAGE: 3,  # __rmqueue_smallest, expand, accounting; or __free_one_page
    observe.DMA_MAP: 3,  # dma_map_page_attrs, dma_direct_map_page, dma_capable
    observe.DMA_UNMAP: 2,
    cost.INTERRUPT: 15,  # entry, flow handler, driver's handler, __napi_schedule, softirq, net_rx_action
    cost.CONTEXT_SWITCH: 20,  # try_to_wake_up with its run queue, schedule, switch
    cost.POLL: 6,  # __napi_poll, driver's poll, napi_complete_done and what it calls
    cost.DRIVER: 2,
    cost.SKB_ALLOC: 4,  # napi_build_skb, slab, __build_skb_around
    cost.SKB_FREE: 6,  # skb_release_all, head state, data, head, kmem_cache_free
    cost.PROTOCOL: 10,  # napi_gro_receive, dev_gro_receive, eth_type_trans, receive core, ip_rcv, hook, drop
    cost.GRO: 3,
    cost.RAW_DROP: 0,  # those of PROTOCOL go as far
    cost.UDP: 15,  # ip_rcv_finish, route, ip_local_deliver, hook, udp_rcv, lookup, queue
    cost.TCP: 30,
    cost.FORWARD: 25,
    cost.SOCKET: 8,  # sock_queue, memory accounting, wake-up
    cost.RECEIVE: 20,  # system call, sock_recvmsg, udp_recvmsg, dequeue, iterator
    cost.BH_TOGGLE: 1,
    cost.XDP_PROGRAM: 2,  # program and helper
    cost.XDP_REDIRECT: 6,
    cost.TARGET_SLOT: 0,
    cost.TRANSMIT: 5,
    cost.TRANSMIT_CLEAN: 3,
    cost.BACKLOG: 6,
    cost.IPI: 3,
    cost.DEFER: 2,
    cost.PAGE_FRAGMENT: 1,
    cost.PAGE_CACHE: 0,  # inline in mlx5
}
"""by kind of work; those that are missing are atomics or have no calls of their own"""

SYNC_CALLS = 1
"""of a DMA sync: dma_sync_single_for_cpu or _for_device"""
IOMMU_MAP_CALLS = 9
"""iommu_dma_map_page, its IOVA from the per-CPU cache, iommu_map down to the page table"""
IOMMU_UNMAP_CALLS = 9
"""likewise"""
INVALIDATION_CALLS = 4
"""iommu_iotlb_sync, the driver's, submitting to the queue, its lock"""
SWIOTLB_SLOT_CALLS = 5
"""swiotlb_tbl_map_single or _unmap_single, the search, its lock"""


def lengthen(meter: Any, longer_ns: float) -> None:
    """Let each call of all that a METER record prices take so much longer."""
    for kind, calls in CALLS.items():
        meter.price_ps[kind] += cost.picoseconds(calls * longer_ns)
    for name, calls in (
        ("map_ps", IOMMU_MAP_CALLS),
        ("unmap_ps", IOMMU_UNMAP_CALLS),
        ("invalidate_ps", INVALIDATION_CALLS),
    ):
        if meter.dma.translates:
            meter.dma[name] += cost.picoseconds(calls * longer_ns)
    if meter.dma.bounces:
        for kind in (observe.DMA_MAP, observe.DMA_UNMAP):
            meter.price_ps[kind] += cost.picoseconds(SWIOTLB_SLOT_CALLS * longer_ns)
    meter.sync_call_ps += cost.picoseconds(SYNC_CALLS * longer_ns)
