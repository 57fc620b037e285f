"""Fragments of pages that no pool has: the per-CPU cache behind ``napi_alloc_frag`` (``page_frag_cache``).

A block of 32 KiB, or a page where pages are larger, is cut up from its end downwards. The cache takes more
references to the block than there can be fragments, once, and gives one away with each fragment: cutting
touches no ``struct page``. A fragment is freed by dropping its reference, on any CPU. When the block is used
up, the references that are left are given up together. If nobody has others, all fragments have come back
and the block is used again.

Rules from public descriptions of the kernel; the specification does not cover them.
"""

from typing import Any

from pool_impl import page_alloc
from pool_impl.jit import compiled
from pool_impl.layout import CACHE_LINE_BYTES, NO_NODE, PFMEMALLOC, Host

LEAST_BLOCK_BYTES = 32768
"""size of a block; where pages are larger, theirs (``PAGE_FRAG_CACHE_MAX_SIZE``)"""


@compiled()
def _references_of_a_block(host: Host) -> int:
    """One for each byte, and the last one stays with the cache: they cannot run out."""
    return int(max(LEAST_BLOCK_BYTES, host.page_allocator.page_bytes)) + 1


@compiled()
def aligned(length: int) -> int:
    """Bytes rounded up to cache lines (``SKB_DATA_ALIGN``)."""
    return int((length + CACHE_LINE_BYTES - 1) // CACHE_LINE_BYTES * CACHE_LINE_BYTES)


@compiled()
def alloc(host: Host, caches: Any, size: int) -> tuple[int, int]:
    """Cut a fragment off this CPU's block (``napi_alloc_frag``).

    Args:
        caches: PAGE_FRAG_CACHE records by CPU, from :func:`pool_impl.host.new_frag_caches`.
        size: bytes; 1 or more.

    Returns the block's page, of which the caller has one plain reference now, and the offset in it, bytes.
    Page 0 when memory is exhausted or the fragment is larger than the block that was to be had.
    """
    cache = caches[host.context.cpu]
    taken = aligned(size)
    if cache.offset < taken and not _renew(host, cache, taken):
        return 0, 0
    cache.offset -= taken
    cache.references -= 1
    return int(cache.page), int(cache.offset)


@compiled()
def free(host: Host, page: int) -> None:
    """Give a fragment back; the last reference of all frees the block (``page_frag_free``)."""
    page_alloc.put_page(host, page)


@compiled(inline=False)
def drain(host: Host, caches: Any) -> None:
    """Leave this CPU's block to those who have fragments of it (``page_frag_cache_drain``)."""
    cache = caches[host.context.cpu]
    if cache.page != 0 and page_alloc.drop_references(host, cache.page, cache.references):
        page_alloc.free(host, cache.page)
    _forget(cache)


@compiled(inline=False)
def _renew(host: Host, cache: Any, taken: int) -> bool:
    """A block from its end again: the old one if all of it came back, else another one. False when there is
    none, or it is too small; then it is kept."""
    if cache.page != 0 and not _is_free_again(host, cache):
        _forget(cache)
    if cache.page == 0 and not _take_block(host, cache):
        return False
    cache.offset = cache.block_bytes
    return bool(taken <= cache.block_bytes)


@compiled()
def _is_free_again(host: Host, cache: Any) -> bool:
    """Give up what is left of the references; True when nobody has a fragment and the block is the cache's
    again. One from the emergency reserves is not kept for ordinary traffic."""
    page = cache.page
    if not page_alloc.drop_references(host, page, cache.references):
        return False
    if host.pages[page].magic & PFMEMALLOC:
        page_alloc.free(host, page)
        return False
    references = _references_of_a_block(host)
    page_alloc.take_references(host, page, references)
    cache.references = references
    return True


@compiled()
def _take_block(host: Host, cache: Any) -> bool:
    """A new block, or one page where there is no block; False without memory."""
    page_bytes = host.page_allocator.page_bytes
    order = 0
    while page_bytes << order < LEAST_BLOCK_BYTES:
        order += 1
    cache.block_bytes = page_bytes << order
    cache.page = page_alloc.alloc(host, NO_NODE, order)
    if cache.page == 0 and order > 0:
        cache.block_bytes = page_bytes
        cache.page = page_alloc.alloc(host, NO_NODE, 0)
    if cache.page == 0:
        return False
    references = _references_of_a_block(host)
    # it comes with one reference already
    page_alloc.take_references(host, cache.page, references - 1)
    cache.references = references
    return True


@compiled()
def _forget(cache: Any) -> None:
    cache.page = 0
    cache.offset = 0
    cache.references = 0
