"""Operations on skbs that Python calls, by number, in compiled entries; the same for pages is page_calls."""

from typing import Any

from pool_impl import coalesce, skb_change
from pool_impl import skb as buffer
from pool_impl.jit import POOL_IMPL_DIGEST, entry
from pool_impl.layout import Buffers

(
    BUILD,
    ALLOC,
    MARK,
    SET_GSO_SIZE,
    ADD_RX_FRAG,
    FREE,
    FREE_WHOLE,
    FREE_STOLEN,
    FREE_DEFERRED,
    GET,
    CLONE,
    COPY,
    PARTIAL_COPY,
    COPY_EXPAND,
    REALLOC_HEADROOM,
    PP_COW_DATA,
    EXPAND_HEAD,
    UNCLONE,
    UNCLONE_KEEPTRUESIZE,
    COW,
    COW_HEAD,
    TRIM,
    LINEARIZE,
    PULL_TAIL,
    PULL,
    HEADER_RELEASE,
    FRAG_REF,
    FRAG_UNREF,
) = range(28)


@entry(POOL_IMPL_DIGEST)
def step(buffers: Buffers, code: int, numbers: Any) -> int:
    """One operation on one skb."""
    first, second, third = numbers[0], numbers[1], numbers[2]
    if code == BUILD:
        skb = buffer.build(buffers, first, second, third)
        buffer.reserve(buffers, skb, numbers[3])
        buffer.extend(buffers, skb, numbers[4])
        return skb
    if code == ALLOC:
        if first >= 2:
            skb = buffer.alloc_netdev(buffers, second, first == 3)
        else:
            skb = buffer.alloc_fclone(buffers, second) if first else buffer.alloc(buffers, second)
            buffer.reserve(buffers, skb, third)
        buffer.extend(buffers, skb, numbers[3])
        return skb
    if code == MARK:
        buffer.mark_for_recycle(buffers, first)
    elif code == SET_GSO_SIZE:
        buffers.shared[buffers.skbs[first].shared].gso_size = second
    elif code == ADD_RX_FRAG:
        buffer.add_rx_frag(buffers, first, second, third, numbers[3], numbers[4])
    elif code == FREE:
        return int(buffer.free(buffers, first))
    elif code == FREE_WHOLE:
        buffer.free_whole(buffers, first)
    elif code == FREE_STOLEN:
        buffer.free_stolen(buffers, first)
    elif code == FREE_DEFERRED:
        buffer.free_deferred(buffers, first)
    elif code == GET:
        buffer.get(buffers, first)
    elif code == FRAG_REF:
        return buffer.ref_frag(buffers, first, second)
    elif code == FRAG_UNREF:
        buffer.drop_page(buffers, first, second != 0)
    elif code < EXPAND_HEAD:
        return _copy_step(buffers, code, first, second, third)
    else:
        return _change_step(buffers, code, first, second, third)
    return 0


@entry(POOL_IMPL_DIGEST)
def _copy_step(buffers: Buffers, code: int, skb: int, first: int, second: int) -> int:
    if code == CLONE:
        return buffer.clone(buffers, skb)
    if code == COPY:
        return buffer.copy(buffers, skb)
    if code == PARTIAL_COPY:
        return buffer.partial_copy(buffers, skb)
    if code == COPY_EXPAND:
        return buffer.copy_expand(buffers, skb, first, first + buffers.skbs[skb].len + second)
    if code == REALLOC_HEADROOM:
        return skb_change.realloc_headroom(buffers, skb, first)
    return coalesce.pp_cow_data(buffers, skb, first, second)


@entry(POOL_IMPL_DIGEST)
def _change_step(buffers: Buffers, code: int, skb: int, first: int, second: int) -> int:
    if code == EXPAND_HEAD:
        return int(skb_change.expand_head(buffers, skb, first, second))
    if code == UNCLONE:
        return int(skb_change.unclone(buffers, skb))
    if code == UNCLONE_KEEPTRUESIZE:
        return int(skb_change.unclone_keeptruesize(buffers, skb))
    if code == COW:
        return int(skb_change.cow(buffers, skb, first))
    if code == COW_HEAD:
        return int(skb_change.cow_head(buffers, skb, first))
    if code == TRIM:
        return int(skb_change.trim(buffers, skb, first))
    if code == LINEARIZE:
        return int(skb_change.linearize(buffers, skb))
    if code == PULL_TAIL:
        return int(skb_change.pull_tail(buffers, skb, first))
    if code == PULL:
        skb_change.pull(buffers, skb, first)
    else:
        buffer.header_release(buffers, skb)
    return 0


TRY_COALESCE, GRO_RECEIVE, SHIFT, SPLIT, FRAG_LIST_ADD = range(5)


@entry(POOL_IMPL_DIGEST)
def pair_step(buffers: Buffers, code: int, to: int, source: int, number: int, results: Any) -> None:
    """One operation on two skbs."""
    if code == TRY_COALESCE:
        merged, stolen, delta = coalesce.try_coalesce(buffers, to, source)
        results[0] = merged
        results[1] = stolen
        results[2] = delta
    elif code == GRO_RECEIVE:
        results[0], results[1] = coalesce.gro_receive(buffers, to, source, number)
    elif code == SHIFT:
        results[0] = coalesce.shift(buffers, to, source, number)
    elif code == SPLIT:
        coalesce.split(buffers, to, source, number)
    elif code == FRAG_LIST_ADD:
        coalesce.append_member(buffers, to, source)
        record = buffers.skbs[source]
        coalesce.grow(buffers, to, record.len, record.truesize)
