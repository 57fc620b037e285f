"""Operations on pools and pages that Python calls, by number, in one compiled entry."""

from typing import Any

from pool_impl import fragments, page_alloc, page_frag, pool, xdp
from pool_impl.jit import POOL_IMPL_DIGEST, entry
from pool_impl.layout import Host

(
    ALLOC,
    ALLOC_FRAG,
    FRAG_BYTES,
    PUT,
    PUT_DEFRAGGED,
    PUT_BULK,
    RETURN_SKB_PAGE,
    RELEASE_PAGE,
    GET_PAGE,
    PUT_PAGE,
    PAGE_ALLOC,
    SET_SHARES,
    ADD_SHARE,
    DROP_SHARES,
    UPDATE_NID,
    DISABLE_DIRECT,
    DESTROY,
    RELEASE_TICK,
    INFLIGHT,
) = range(19)


@entry(POOL_IMPL_DIGEST)
def step(host: Host, code: int, numbers: Any) -> int:
    """One operation of the compiled allocator; all in one entry, so that there is one compilation."""
    first = numbers[0]
    if code == ALLOC:
        return pool.alloc(host, host.pools[first])
    if code == ALLOC_FRAG:
        return fragments.alloc_frag(host, host.pools[first], numbers[1])
    if code == FRAG_BYTES:
        return fragments.frag_bytes(host, first)
    if code == PUT:
        pool.put(host, host.pools[numbers[3]], first, numbers[1], numbers[2] != 0)
    elif code == PUT_DEFRAGGED:
        pool.put_defragged(host, host.pools[numbers[3]], first, numbers[1], numbers[2] != 0)
    elif code == PUT_BULK:
        pool.put_bulk(host, host.pools[first], numbers[1:], numbers.shape[0] - 1)
    elif code == RETURN_SKB_PAGE:
        return int(pool.return_skb_page(host, first))
    elif code == RELEASE_PAGE:
        pool.release_page(host, host.pools[numbers[1]], first)
    elif code == GET_PAGE:
        page_alloc.get_page(host, first)
    elif code == PUT_PAGE:
        page_alloc.put_page(host, first)
    elif code == PAGE_ALLOC:
        return page_alloc.alloc(host, -1, first)
    elif code == SET_SHARES:
        fragments.set_shares(host, first, numbers[1])
    elif code == ADD_SHARE:
        pool.add_share(host, first)
    elif code == DROP_SHARES:
        return pool.drop_shares(host, first, numbers[1])
    elif code == UPDATE_NID:
        pool.update_nid(host, host.pools[first], numbers[1])
    elif code == DISABLE_DIRECT:
        pool.disable_direct(host, host.pools[first])
    elif code == DESTROY:
        pool.destroy(host, host.pools[first])
    elif code == RELEASE_TICK:
        pool.release_tick(host, host.pools[first])
    elif code == INFLIGHT:
        return pool.inflight(host.pools[first])
    return 0


@entry(POOL_IMPL_DIGEST)
def alloc_any(host: Host, number: int, size: int, granted: Any) -> int:
    """Page; offset and size go into ``granted``."""
    page, granted[0], granted[1] = fragments.alloc_any(host, host.pools[number], size)
    return page


FRAG_CACHE_ALLOC, FRAG_CACHE_FREE, FRAG_CACHE_DRAIN = range(3)


@entry(POOL_IMPL_DIGEST)
def frag_cache(host: Host, caches: Any, code: int, number: int, granted: Any) -> int:
    """Fragments that no pool has: cut off one of ``number`` bytes, whose offset goes into ``granted``, give
    back one of page ``number``, or empty the cache."""
    page = 0
    if code == FRAG_CACHE_ALLOC:
        page, granted[0] = page_frag.alloc(host, caches, number)
    elif code == FRAG_CACHE_FREE:
        page_frag.free(host, number)
    else:
        page_frag.drain(host, caches)
    return page


XDP_FRAME, XDP_FRAME_RX_NAPI, XDP_FRAME_BULK, XDP_FLUSH = range(4)


@entry(POOL_IMPL_DIGEST)
def return_frame(host: Host, memory: Any, bulk: Any, code: int, page: int, identity: int) -> None:
    """A page of an XDP frame comes back, or what was collected of them goes out."""
    if code == XDP_FRAME:
        xdp.return_frame(host, memory, page, identity)
    elif code == XDP_FRAME_RX_NAPI:
        xdp.return_frame_rx_napi(host, memory, page, identity)
    elif code == XDP_FRAME_BULK:
        xdp.return_frame_bulk(host, memory, bulk, page, identity)
    else:
        xdp.flush_bulk(host, memory, bulk)
