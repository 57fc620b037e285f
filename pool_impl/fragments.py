"""Fragments: pages cut up for several users, each of whom holds a share (spec 2.4).

Like whole pages they belong to the pool's one consumer; returns are those of pool_impl.pool.
"""

from typing import Any

from pool_impl.jit import compiled
from pool_impl.layout import FLAG_DMA_SYNC_DEV, FLAG_PAGE_FRAG, PFMEMALLOC, Host
from pool_impl.observe import SHARES_SET, STRUCT_PAGE
from pool_impl.pool import WHOLE, alloc, drop_shares, release, sync_for_device


@compiled(inline=False)
def alloc_frag(host: Host, pool: Any, size: int) -> int:
    """A share of the current page (``page_pool_alloc_frag``); its offset is left in
    ``frag_offset - frag_bytes(size)``.

    Returns the page, 0 when there is none or the size does not fit (with a kernel warning).
    """
    page_bytes = host.page_allocator.page_bytes << pool.order
    if (host.rules.frag_flag_needed and not pool.pool_flags & FLAG_PAGE_FRAG) or size > page_bytes:
        host.context.warnings += 1
        return 0
    rounded = frag_bytes(host, size)
    page = pool.frag_page
    if page != 0 and pool.frag_offset + rounded > page_bytes:
        page = _drain_frag_page(host, pool, page)
        if page != 0:
            pool.alloc_fast += 1
            return _start_frag_page(host, pool, page, rounded)
    if page == 0:
        page = alloc(host, pool)
        if page == 0:
            pool.frag_page = 0
            return 0
        return _start_frag_page(host, pool, page, rounded)
    pool.frag_users += 1
    pool.frag_offset += rounded
    pool.alloc_fast += 1
    return int(page)


@compiled(inline=False)
def alloc_any(host: Host, pool: Any, size: int) -> tuple[int, int, int]:
    """A fragment, or a whole page when two of this size do not fit into one (``page_pool_alloc``).

    Returns page, offset and granted bytes: the last fragment of a page is given the rest of it. Page 0
    when there is none.
    """
    page_bytes = host.page_allocator.page_bytes << pool.order
    if 2 * size > page_bytes:
        return alloc(host, pool), 0, page_bytes
    page = alloc_frag(host, pool, size)
    offset = pool.frag_offset - frag_bytes(host, size)
    if page != 0 and pool.frag_offset + size > page_bytes:
        pool.frag_offset = page_bytes
        return page, offset, page_bytes - offset
    return page, offset, size


@compiled()
def frag_bytes(host: Host, size: int) -> int:
    """Bytes that a fragment of this size takes up."""
    align = host.rules.frag_align_bytes
    return int((size + align - 1) // align * align)


@compiled()
def _start_frag_page(host: Host, pool: Any, page: int, rounded: int) -> int:
    pool.frag_page = page
    pool.frag_users = 1
    pool.frag_offset = rounded
    set_shares(host, page, host.rules.frag_bias)
    return int(page)


@compiled()
def set_shares(host: Host, page: int, number: int) -> None:
    """Set the fragment count of a page that the caller owns alone (``page_pool_fragment_page``)."""
    host.observer.touch(STRUCT_PAGE, page, True)
    host.observer.own(SHARES_SET, page, number)
    host.pages[page].frag_count = number


@compiled(inline=False)
def _drain_frag_page(host: Host, pool: Any, page: int) -> int:
    """Give up the shares never handed out; the page again if nobody has any, else 0."""
    if drop_shares(host, page, host.rules.frag_bias - pool.frag_users) != 0:
        return 0
    record = host.pages[page]
    if record.refcount == 1 and not record.magic & PFMEMALLOC:
        if pool.pool_flags & FLAG_DMA_SYNC_DEV:
            sync_for_device(host, pool, WHOLE)
        return page
    release(host, pool, page)
    return 0
