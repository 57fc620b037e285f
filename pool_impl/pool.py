"""page_pool: creation, allocation, returning pages, fragments, end of life.

All functions take the host and a POOL record. Allocation, refill and everything that touches the cache
belong to the pool's one consumer; returns to the ring may come from anywhere (spec 1.7).
"""

import errno
from typing import Any, NamedTuple

from pool_impl import page_alloc, ring
from pool_impl.errors import CreateError
from pool_impl.jit import compiled
from pool_impl.layout import (
    CACHE_CAPACITY,
    COUNT_MASK,
    DEFAULT_RING_SIZE,
    DMA_BIDIRECTIONAL,
    DMA_FROM_DEVICE,
    FLAG_DMA_MAP,
    FLAG_DMA_SYNC_DEV,
    FLAG_PAGE_FRAG,
    NO_CPU,
    NO_NAPI,
    NO_NODE,
    NO_POOL,
    PFMEMALLOC,
    PROCESS,
    RECYCLE_CACHE_FULL,
    RECYCLE_CACHED,
    RECYCLE_DECLINED,
    RECYCLE_RELEASED_REFCNT,
    RECYCLE_RING,
    RECYCLE_RING_FULL,
    RING_BATCH,
    SIGNATURE,
    SIGNATURE_MASK,
    Host,
)
from pool_impl.observe import (
    CONSUMER_LOCK,
    DMA_MAP,
    DMA_SYNC_FOR_DEVICE,
    DMA_UNMAP,
    PAGE_ADOPT,
    PAGE_RELEASE,
    POOL_ALLOC,
    POOL_CONSUMER,
    POOL_ENTERED,
    POOL_HANDED_OUT,
    POOL_LEFT,
    POOL_PRODUCER,
    POOL_PUT,
    POOL_RETURNED,
    PRODUCER_LOCK,
    RELEASE_COUNT,
    SHARE_COUNT,
    SHARES,
    STRUCT_PAGE,
)
from pool_impl.variant import CACHE, RELEASE

PAGE_BYTES = 4096
"""size of a page where a host is not made with another (``page_bytes`` of its page allocator)"""

STALL_SECONDS = 60
"""between two warnings that a destroyed pool still waits for pages"""

WHOLE = -1
"""sync length that means all of the page: the kernel's -1 as an unsigned number"""


class PoolParams(NamedTuple):
    """Parameters of a pool, as ``struct page_pool_params`` (spec 1.3)."""

    pool_size: int = 0
    """ring capacity in pages; 0 means 1024"""
    flags: int = 0
    """FLAG_DMA_MAP | FLAG_DMA_SYNC_DEV | FLAG_PAGE_FRAG or FLAG_SYSTEM_POOL"""
    order: int = 0
    """pages of ``page_bytes << order`` bytes"""
    nid: int = NO_NODE
    """preferred node; -1: that of the allocating CPU"""
    dma_dir: int = DMA_BIDIRECTIONAL
    max_len: int = 0
    """most bytes that one sync for the device covers"""
    offset: int = 0
    """where in the page the device starts to write, bytes"""
    napi: int = NO_NAPI
    """the NAPI instance that alone allocates from the pool"""
    cpuid: int = NO_CPU
    """the CPU that alone allocates from the pool (``page_pool_create_percpu``)"""
    nosync: int = 0
    """1: the device is coherent and needs no syncs"""
    slow_batch: int = 0
    """most pages of one bulk fill; 0: as many as a refill may bring; 1: single allocations, as before 5.13"""


def create(host: Host, index: int, params: PoolParams) -> None:
    """Create pool number ``index`` (spec 1.5; the first failing check wins).

    Raises:
        CreateError: as ``page_pool_create`` fails, with its errno.
    """
    if params.flags & ~host.rules.known_flags:
        raise CreateError(errno.EINVAL, "flags", params.flags, f"use bits of {host.rules.known_flags:#x}")
    refused_above = host.rules.ring_size_refused_above
    if refused_above and params.pool_size > refused_above:
        raise CreateError(errno.E2BIG, "pool_size", params.pool_size, f"use at most {refused_above}")
    if params.flags & FLAG_DMA_MAP and params.dma_dir not in (DMA_FROM_DEVICE, DMA_BIDIRECTIONAL):
        raise CreateError(errno.EINVAL, "dma_dir", params.dma_dir, "use 2 (from device) or 0 (both ways)")
    if params.flags & FLAG_DMA_SYNC_DEV:
        if not params.flags & FLAG_DMA_MAP:
            raise CreateError(errno.EINVAL, "flags", params.flags, "syncing needs FLAG_DMA_MAP")
        if params.max_len == 0:
            raise CreateError(errno.EINVAL, "max_len", 0, "syncing needs the bytes to sync")
    size = min(params.pool_size or DEFAULT_RING_SIZE, host.rules.ring_size_limit)
    if size < 0:
        raise CreateError(errno.ENOMEM, "pool_size", params.pool_size, "use 0 or more")

    pool = host.pools[index]
    base = pool.ring_base
    created = pool.created + 1
    host.pools[index : index + 1].view("u1")[:] = 0
    host.slots[base : base + size] = 0
    pool.index = index
    pool.ring_base = base
    pool.created = created
    pool.ring_size = size
    pool.ring_batch = RING_BATCH if size // 2 >= RING_BATCH else 1
    pool.pool_flags = params.flags
    pool.order = params.order
    pool.nid = params.nid
    pool.max_len = params.max_len
    pool.offset = params.offset
    pool.napi = params.napi
    pool.cpuid = params.cpuid
    pool.slow_batch = params.slow_batch
    pool.user_cnt = 1
    if params.nosync:
        pool.pool_flags &= ~FLAG_DMA_SYNC_DEV


# Allocation


@compiled()
def alloc(host: Host, pool: Any) -> int:
    """A page with the pool's base reference, 0 when memory is exhausted (``page_pool_alloc_pages``)."""
    count = pool.cache_count
    if count > 0:
        host.observer.work(POOL_ALLOC, 1)
        pool.alloc_fast += 1
        pool.cache_count = count - 1
        return _handed_out(host, pool, pool.cache[count - 1])
    page = _refill(host, pool)
    if page != 0:
        return page
    if pool.order > 0:
        return _alloc_high_order(host, pool)
    return _alloc_bulk(host, pool)


@compiled(inline=False)
def _refill(host: Host, pool: Any) -> int:
    host.observer.touch(POOL_CONSUMER, pool.index, True)
    if ring.is_empty(host, pool):
        pool.alloc_empty += 1
        return 0
    if not host.rules.refill_locks_ring:
        return _take_from_ring(host, pool)
    host.observer.work(CONSUMER_LOCK, 1)
    host.access.lock_consumer(pool)
    page = _take_from_ring(host, pool)
    host.access.unlock_consumer(pool)
    return page


@compiled()
def _take_from_ring(host: Host, pool: Any) -> int:
    wanted = host.context.nid if pool.nid == NO_NODE else pool.nid
    limit = _refill_limit(host, pool)
    count = 0
    head = pool.ring_head
    tail = pool.ring_tail
    while count < limit:
        page, head, tail = ring.consume_at(host, pool, head, tail)
        if page == 0:
            break
        host.observer.touch(STRUCT_PAGE, page, False)
        if host.pages[page].nid != wanted:
            # one page only: the allocation goes on with what there is, or in the page allocator
            release(host, pool, page)
            pool.alloc_waive += 1
            break
        pool.cache[count] = page
        count += 1
    pool.ring_head = head
    pool.ring_tail = tail
    if count == 0:
        return 0
    pool.alloc_refill += 1
    pool.cache_count = count - 1
    return _handed_out(host, pool, pool.cache[count - 1])


@compiled()
def _cache_limit(host: Host, pool: Any) -> int:
    return int(min(host.variant.cache_limit(host, pool), CACHE_CAPACITY))


@compiled()
def _refill_limit(host: Host, pool: Any) -> int:
    """At least one page, or an allocation could not be served."""
    return int(max(1, min(host.variant.refill_limit(host, pool), _cache_limit(host, pool))))


@compiled(inline=False)
def _alloc_bulk(host: Host, pool: Any) -> int:
    got = _from_page_allocator(host, pool)
    count = 0
    for position in range(got):
        page = pool.cache[position]
        if pool.pool_flags & FLAG_DMA_MAP and not _dma_map(host, pool, page):
            page_alloc.put_page(host, page)
            continue
        _adopt(host, pool, page)
        pool.cache[count] = page
        count += 1
    if count == 0:
        return 0
    pool.alloc_slow += 1
    pool.cache_count = count - 1
    return _handed_out(host, pool, pool.cache[count - 1])


@compiled()
def _from_page_allocator(host: Host, pool: Any) -> int:
    """Fill the empty cache with new pages; returns how many."""
    if pool.slow_batch == 1:
        pool.cache[0] = page_alloc.alloc(host, pool.nid, 0)
        return 1 if pool.cache[0] != 0 else 0
    count = _refill_limit(host, pool)
    if pool.slow_batch != 0:
        count = min(count, pool.slow_batch)
    node = pool.nid if host.rules.bulk_honours_nid else NO_NODE
    return page_alloc.alloc_bulk(host, node, count, pool.cache)


@compiled(inline=False)
def _alloc_high_order(host: Host, pool: Any) -> int:
    page = page_alloc.alloc(host, pool.nid, pool.order)
    if page == 0:
        return 0
    if pool.pool_flags & FLAG_DMA_MAP and not _dma_map(host, pool, page):
        page_alloc.put_page(host, page)
        return 0
    pool.alloc_slow_high_order += 1
    _adopt(host, pool, page)
    return _handed_out(host, pool, page)


@compiled()
def _adopt(host: Host, pool: Any, page: int) -> None:
    host.observer.work(PAGE_ADOPT, 1)
    host.observer.touch(STRUCT_PAGE, page, True)
    record = host.pages[page]
    if host.rules.pool_sets_owner:
        record.pp = pool.index
    record.magic |= SIGNATURE  # not stored: the pfmemalloc bit has to survive
    record.frag_count = host.rules.idle_shares
    host.observer.own(POOL_ENTERED, page, pool.index)
    pool.hold = (pool.hold + 1) & COUNT_MASK


@compiled()
def _handed_out(host: Host, pool: Any, page: int) -> int:
    """The page comes with one share, but for releases that want it to be set first (spec 2.4)."""
    is_set_later = host.rules.frag_flag_needed and pool.pool_flags & FLAG_PAGE_FRAG
    host.observer.own(POOL_HANDED_OUT, page, 0 if is_set_later else 1)
    return int(page)


@compiled(inline=False)
def update_nid(host: Host, pool: Any, nid: int) -> None:
    """Prefer another node from now on; pages in the cache leave, those in the ring do at their refill."""
    pool.nid = nid
    while pool.cache_count > 0:
        pool.cache_count -= 1
        release(host, pool, pool.cache[pool.cache_count])


# DMA


@compiled(inline=False)
def _dma_map(host: Host, pool: Any, page: int) -> bool:
    device = host.device
    host.observer.work(DMA_MAP, 1)
    if device.fail_skip > 0:
        device.fail_skip -= 1
    elif device.fail_count > 0:
        device.fail_count -= 1
        return False
    host.access.count_map(device)
    host.pages[page].dma_addr = page
    if pool.pool_flags & FLAG_DMA_SYNC_DEV:
        sync_for_device(host, pool, WHOLE)
    return True


@compiled()
def _dma_unmap(host: Host, page: Any) -> None:
    """Unless the end of the pool has done it already."""
    if page.dma_addr == 0:
        return
    host.observer.work(DMA_UNMAP, 1)
    host.access.count_unmap(host.device)
    if host.device.removed:
        host.access.count_late_unmap(host.device)
    page.dma_addr = 0


@compiled()
def sync_for_device(host: Host, pool: Any, length: int) -> None:
    """Sync ``min(length, max_len)`` bytes from the pool's offset on; the offset does not shorten them."""
    device = host.device
    covered = pool.max_len if length == WHOLE else min(length, pool.max_len)
    host.observer.work(DMA_SYNC_FOR_DEVICE, covered)
    host.access.count_sync(device, covered)
    device.last_off = pool.offset
    device.last_len = covered


# Returning pages


@compiled()
def put(host: Host, pool: Any, page: int, length: int, direct: bool) -> None:
    """Return one share of a page (``page_pool_put_page``).

    Args:
        length: bytes that the device or the CPU may have touched, for the sync; WHOLE for all.
        direct: the caller is the consumer and the page may go to the cache.
    """
    if is_last_share(host, pool, page):
        put_defragged(host, pool, page, length, direct)


@compiled()
def is_last_share(host: Host, pool: Any, page: int) -> bool:
    """Give up one share; True when no share is left. Without fragments every page has one."""
    if host.rules.frag_flag_needed and not pool.pool_flags & FLAG_PAGE_FRAG:
        host.observer.own(SHARES, page, -1)
        return True
    return drop_shares(host, page, 1) == 0


@compiled(inline=False)
def drop_shares(host: Host, page: int, number: int) -> int:
    """Subtract from the fragment count and return what is left (``page_pool_defrag_page``, later
    ``page_pool_unref_page``).

    Who holds all that is left need no atomic: the count stays and is set anew at the next use, or is
    reset here where pages go idle with one share.
    """
    record = host.pages[page]
    host.observer.touch(STRUCT_PAGE, page, False)
    host.observer.own(SHARES, page, -number)
    if record.frag_count == number:
        if number != 1 and host.rules.idle_shares:
            host.observer.touch(STRUCT_PAGE, page, True)
            record.frag_count = host.rules.idle_shares
        return 0
    host.observer.work(SHARE_COUNT, 1)
    host.observer.touch(STRUCT_PAGE, page, True)
    left = host.access.add_share(record, -number)
    if left < 0:
        host.context.warnings += 1
    elif left == 0 and host.rules.idle_shares:
        record.frag_count = host.rules.idle_shares
    return int(left)


@compiled()
def add_share(host: Host, page: int) -> None:
    """One more share of a page that the caller has a share of (``page_pool_ref_page``)."""
    host.observer.work(SHARE_COUNT, 1)
    host.observer.touch(STRUCT_PAGE, page, True)
    host.observer.own(SHARES, page, 1)
    host.access.add_share(host.pages[page], 1)


@compiled()
def is_local(host: Host, pool: Any) -> bool:
    """Whether this code runs where the pool's consumer would, so that the cache is safe (spec 3.5)."""
    context = host.context
    if not host.rules.local_recycling or context.in_softirq == PROCESS:
        return False
    if pool.cpuid == context.cpu:
        return True
    return bool(pool.napi != NO_NAPI and host.device.napi_owner[pool.napi] == context.cpu)


@compiled()
def put_defragged(host: Host, pool: Any, page: int, length: int, direct: bool) -> None:
    """Return a page whose last share is known to be the caller's (``page_pool_put_unrefed_page``)."""
    if not _recycle(host, pool, page, length, direct):
        return
    host.observer.work(PRODUCER_LOCK, 1)
    host.observer.touch(POOL_PRODUCER, pool.index, True)
    index = host.access.lock_producer(pool)
    produced = ring.produce(host, pool, index, page)
    if produced:
        pool.recycle[host.context.cpu, RECYCLE_RING] += 1
        index = ring.following(pool, index)
    host.access.unlock_producer(pool, index)
    if not produced:
        pool.recycle[host.context.cpu, RECYCLE_RING_FULL] += 1
        release(host, pool, page)


@compiled()
def _recycle(host: Host, pool: Any, page: int, length: int, direct: bool) -> bool:
    """Cache, release, or True: the page is for the ring."""
    context = host.context
    record = host.pages[page]
    host.observer.work(POOL_PUT, 1)
    host.observer.touch(STRUCT_PAGE, page, False)
    host.observer.own(POOL_RETURNED, page, pool.index)
    if record.refcount != 1 or record.magic & PFMEMALLOC:
        pool.recycle[context.cpu, RECYCLE_RELEASED_REFCNT] += 1
        release(host, pool, page)
        return False
    allowed = (direct and context.in_softirq >= host.rules.direct_context) or is_local(host, pool)
    destination = host.variant.destination(host, pool, page, allowed)
    if destination == RELEASE:
        pool.recycle[context.cpu, RECYCLE_DECLINED] += 1
        release(host, pool, page)
        return False
    if pool.pool_flags & FLAG_DMA_SYNC_DEV:
        sync_for_device(host, pool, length)
    if destination == CACHE and allowed:
        held = pool.cache_count
        if held < _cache_limit(host, pool):
            pool.cache[held] = page
            pool.cache_count = held + 1
            pool.recycle[context.cpu, RECYCLE_CACHED] += 1
            return False
        pool.recycle[context.cpu, RECYCLE_CACHE_FULL] += 1
    return True


@compiled(inline=False)
def put_bulk(host: Host, pool: Any, pages: Any, count: int) -> None:
    """Return ``pages[:count]`` under one lock; the array is scratch afterwards.

    Pages that find the ring full leave the pool, but count ``ring_full`` once together.
    """
    kept = 0
    for position in range(count):
        page = pages[position]
        if is_last_share(host, pool, page) and _recycle(host, pool, page, WHOLE, False):
            pages[kept] = page
            kept += 1
    if kept == 0:
        return
    cpu = host.context.cpu
    host.observer.work(PRODUCER_LOCK, 1)
    host.observer.touch(POOL_PRODUCER, pool.index, True)
    index = host.access.lock_producer(pool)
    produced = 0
    while produced < kept and ring.produce(host, pool, index, pages[produced]):
        index = ring.following(pool, index)
        produced += 1
    pool.recycle[cpu, RECYCLE_RING] += produced
    if produced < kept:
        pool.recycle[cpu, RECYCLE_RING_FULL] += 1
    host.access.unlock_producer(pool, index)
    for position in range(produced, kept):
        release(host, pool, pages[position])


@compiled(inline=False)
def release_page(host: Host, pool: Any, page: int) -> None:
    """The page leaves the pool; the caller keeps its reference, now a plain one."""
    host.observer.work(PAGE_RELEASE, 1)
    host.observer.touch(STRUCT_PAGE, page, True)
    host.observer.own(POOL_LEFT, page, pool.index)
    record = host.pages[page]
    if pool.pool_flags & FLAG_DMA_MAP:
        _dma_unmap(host, record)
    record.magic = 0
    if host.rules.pool_sets_owner:
        record.pp = NO_POOL
    host.observer.work(RELEASE_COUNT, 1)
    host.access.count_release(pool)


@compiled(inline=False)
def release(host: Host, pool: Any, page: int) -> None:
    """The page leaves the pool, which drops its base reference."""
    release_page(host, pool, page)
    page_alloc.put_page(host, page)


@compiled()
def is_pool_page(host: Host, page: int) -> bool:
    """Whether the page carries the signature; the low bits have other meanings. Whoever asks goes on to
    touch the page."""
    return bool((host.pages[page].magic & SIGNATURE_MASK) == SIGNATURE)


@compiled()
def return_skb_page(host: Host, page: int) -> bool:
    """Return a page from an skb; False when it belongs to no pool (``page_pool_return_skb_page``, later
    ``napi_pp_put_page``)."""
    host.observer.touch(STRUCT_PAGE, page, False)
    if not is_pool_page(host, page):
        return False
    record = host.pages[page]
    owner = record.pp
    if not host.rules.pool_sets_owner:
        record.pp = NO_POOL
    put(host, host.pools[owner], page, WHOLE, False)
    return True


@compiled()
def drop_skb_page(host: Host, page: int, marked: bool) -> None:
    """Drop what an skb holds of a page: a share if the skb is ``marked`` and the page a pool's, else a plain
    reference (spec 6.1)."""
    if not (host.variant.skb_recycles(host, page, marked) and return_skb_page(host, page)):
        page_alloc.put_page(host, page)


# End of life


@compiled()
def inflight(pool: Any) -> int:
    """Pages that entered and have not left, idle ones included: a signed 32-bit difference."""
    distance = (pool.hold - pool.release) & COUNT_MASK
    return int(distance - ((distance & 0x80000000) << 1))


@compiled(inline=False)
def disable_direct(host: Host, pool: Any) -> None:
    """No return is local any more (``page_pool_disable_direct_recycling``). The NAPI instance should be
    disabled and not be polled, or a local return may be on its way."""
    pool.cpuid = NO_CPU
    if pool.napi == NO_NAPI:
        return
    if not host.device.napi_scheduled[pool.napi]:
        host.context.warnings += 1
    if host.device.napi_owner[pool.napi] != NO_CPU:
        host.context.warnings += 1
    pool.napi = NO_NAPI


@compiled(inline=False)
def destroy(host: Host, pool: Any) -> bool:
    """Drop one user; with the last one the pool gives up its pages and goes, at once or later.

    Returns whether :func:`release_tick` is to run in a second.
    """
    pool.user_cnt -= 1
    if pool.user_cnt != 0:
        return False
    disable_direct(host, pool)
    page = pool.frag_page
    if page != 0:
        pool.frag_page = 0
        if drop_shares(host, page, host.rules.frag_bias - pool.frag_users) == 0:
            release(host, pool, page)
    release_tick(host, pool)
    # the first time also when more pages left than entered
    return bool(pool.freed == 0)


@compiled(inline=False)
def release_tick(host: Host, pool: Any) -> bool:
    """One pass of the deferred release, a second after the one before, until nothing is in flight.

    Returns whether there is to be another one.
    """
    if pool.destroy_cnt == 0:
        # only now: a page that a late direct return puts into the cache stays there
        while pool.cache_count > 0:
            pool.cache_count -= 1
            release(host, pool, pool.cache[pool.cache_count])
        if host.rules.unmaps_at_destroy and pool.pool_flags & FLAG_DMA_MAP:
            _unmap_all(host, pool)
    pool.destroy_cnt += 1
    page = ring.consume(host, pool)
    while page != 0:
        if host.pages[page].refcount != 1:
            host.context.warnings += 1
        release(host, pool, page)
        page = ring.consume(host, pool)
    # a producer may still be inside: the pool may go only after it has left
    host.access.unlock_producer(pool, host.access.lock_producer(pool))
    left = inflight(pool)
    if left == 0:
        pool.freed = 1
        return False
    if left < 0:
        host.context.warnings += 1
        if not host.rules.retries_when_negative:
            return False
    # the first pass is that of the destruction, the others follow one a second
    if pool.destroy_cnt > 1 and (pool.destroy_cnt - 1) % STALL_SECONDS == 0:
        pool.stalls += 1
    return True


@compiled(inline=False)
def _unmap_all(host: Host, pool: Any) -> None:
    """Unmap what is out, since the device may be gone when it comes back; sync no more (spec 4.4)."""
    pool.pool_flags &= ~FLAG_DMA_SYNC_DEV
    for page in range(1, host.page_allocator.fresh):
        if host.pages[page].pp == pool.index:
            _dma_unmap(host, host.pages[page])
