"""Moving data between skbs: coalescing, GRO, shift and split (spec 6.4, 6.5), and the copy into pool memory.

A fragment that moves takes its share or reference along, so both skbs must agree about the mark.
"""

import errno

from pool_impl import fragments, page_alloc, pool
from pool_impl import skb as buffer
from pool_impl.jit import compiled
from pool_impl.layout import MAX_SKB_FRAGS, PFMEMALLOC, SHARED_INFO_BYTES, SKB_BYTES, Buffers
from pool_impl.page_frag import aligned
from pool_impl.release import REFERENCE, REFUSE
from pool_impl.skb_change import pull, unclone_keeptruesize

GRO_MAX_BYTES = 65536
"""a merged packet stays below"""

MERGED, STOLEN_HEAD, KEPT = 1, 2, 0
"""what GRO leaves of the merged skb: all of it to free, its shell only, or a member of the frag_list"""


@compiled(inline=False)
def try_coalesce(buffers: Buffers, to: int, source: int) -> tuple[bool, bool, int]:
    """Append the data of one skb to another (``skb_try_coalesce``).

    Returns whether it did, whether it stole the head of ``source`` (whose shell alone is to be freed then)
    and the bytes of memory that moved.
    """
    target = buffers.skbs[to]
    record = buffers.skbs[source]
    is_cloned = buffer.is_cloned(buffers, source)
    if buffer.is_cloned(buffers, to) or target.pp_recycle != record.pp_recycle:
        return False, False, 0
    if record.pp_recycle and is_cloned and buffers.rules.coalesce_marked_clone == REFUSE:
        return False, False, 0
    length = record.len
    if length <= buffer.tailroom(buffers, to):
        target.len += length
        return True, False, 0
    into = buffers.shared[target.shared]
    parts = buffers.shared[record.shared]
    if into.frag_list != 0 or parts.frag_list != 0:
        return False, False, 0
    together = into.nr_frags + parts.nr_frags
    steals = buffer.headlen(record) != 0
    if steals:
        if together >= MAX_SKB_FRAGS or not parts.head_frag or is_cloned:
            return False, False, 0
        moved = record.truesize - SKB_BYTES
        buffer.fill_head_page(buffers, to, into.nr_frags, source, 0)
        into.nr_frags += 1
        if buffers.host.pages[parts.head_page].magic & PFMEMALLOC:
            target.pfmemalloc = 1
    else:
        if together > MAX_SKB_FRAGS:
            return False, False, 0
        moved = record.truesize - buffer.truesize_of(parts.end)
    _append_frags(buffers, source, to, record.pp_recycle != 0, is_cloned)
    target.truesize += moved
    target.len += length
    target.data_len += length
    return True, steals, moved


@compiled(inline=False)
def _append_frags(buffers: Buffers, source: int, to: int, marked: bool, is_cloned: bool) -> None:
    """Move the fragments, or, if others hold them as well, take a share or a reference of each."""
    into = buffers.shared[buffers.skbs[to].shared]
    parts = buffers.shared[buffers.skbs[source].shared]
    by_reference = not marked or buffers.rules.coalesce_marked_clone == REFERENCE
    for position in range(parts.nr_frags):
        buffer.copy_frag(parts, position, into, into.nr_frags)
        into.nr_frags += 1
        if is_cloned:
            page = parts.frag_page[position]
            if by_reference or not pool.is_pool_page(buffers.host, page):
                page_alloc.get_page(buffers.host, page)
            else:
                pool.add_share(buffers.host, page)
    if not is_cloned:
        parts.nr_frags = 0


@compiled(inline=False)
def gro_receive(buffers: Buffers, to: int, source: int, headers: int) -> tuple[int, int]:
    """Merge a packet behind its ``headers`` bytes into the first one of its flow (``skb_gro_receive``).

    Returns 0 or a negative errno, and what is left of ``source``.
    """
    first = buffers.skbs[to]
    record = buffers.skbs[source]
    if buffers.rules.gro_compares_marks and first.pp_recycle != record.pp_recycle:
        return -errno.ETOOMANYREFS, KEPT
    payload = record.len - headers
    if first.len + payload >= GRO_MAX_BYTES:
        return -errno.E2BIG, KEPT
    last = _last_member(buffers, to)
    into = buffers.shared[buffers.skbs[last].shared]
    parts = buffers.shared[record.shared]
    linear = buffer.headlen(record)
    together = into.nr_frags + parts.nr_frags
    if linear <= headers and together <= MAX_SKB_FRAGS:
        skip = headers - linear
        parts.frag_offset[0] += skip
        parts.frag_size[0] -= skip
        for position in range(parts.nr_frags):
            buffer.copy_frag(parts, position, into, into.nr_frags)
            into.nr_frags += 1
        parts.nr_frags = 0
        left = buffer.truesize_of(parts.end)
        moved = record.truesize - left
        record.truesize = left
        record.len = linear
        record.data_len = 0
        _account(buffers, to, last, payload, moved)
        return 0, MERGED
    if linear > headers and parts.head_frag and together + 1 <= MAX_SKB_FRAGS:
        buffer.fill_head_page(buffers, last, into.nr_frags, source, headers)
        into.nr_frags += 1
        for position in range(parts.nr_frags):
            buffer.copy_frag(parts, position, into, into.nr_frags)
            into.nr_frags += 1
        _account(buffers, to, last, payload, record.truesize - SKB_BYTES)
        return 0, STOLEN_HEAD
    if buffers.rules.gro_limits_list_heads and linear - headers > buffers.shared[first.shared].gso_size:
        return -errno.E2BIG, KEPT
    if headers > linear:
        eaten = headers - linear
        parts.frag_offset[0] += eaten
        parts.frag_size[0] -= eaten
        record.data_len -= eaten
        record.len -= eaten
        headers = linear
    pull(buffers, source, headers)
    append_member(buffers, to, source)
    buffer.header_release(buffers, source)
    _account(buffers, to, to, payload, record.truesize)
    return 0, KEPT


@compiled()
def _last_member(buffers: Buffers, to: int) -> int:
    """The last skb of the frag_list, or the skb itself."""
    last = to
    member = buffers.shared[buffers.skbs[to].shared].frag_list
    while member != 0:
        last = member
        member = buffers.skbs[member].next
    return last


@compiled()
def append_member(buffers: Buffers, to: int, member: int) -> None:
    """Put an skb at the end of the frag_list, not accounting for it."""
    last = _last_member(buffers, to)
    if last == to:
        buffers.shared[buffers.skbs[to].shared].frag_list = member
    else:
        buffers.skbs[last].next = member
    buffers.skbs[member].next = 0


@compiled()
def _account(buffers: Buffers, to: int, last: int, payload: int, moved: int) -> None:
    """More paged data, for the first skb and for the member that took it."""
    grow(buffers, to, payload, moved)
    if last != to:
        grow(buffers, last, payload, moved)


@compiled()
def grow(buffers: Buffers, skb: int, payload: int, truesize: int) -> None:
    """Account for more paged data."""
    record = buffers.skbs[skb]
    record.data_len += payload
    record.truesize += truesize
    record.len += payload


@compiled(inline=False)
def shift(buffers: Buffers, target: int, source: int, length: int) -> int:
    """Move ``length`` bytes of fragments from the front of ``source`` to the end of ``target``
    (``skb_shift``); returns the bytes moved: all or none. Marks are not looked at."""
    if buffer.headlen(buffers.skbs[source]) != 0:
        return 0
    into = buffers.shared[buffers.skbs[target].shared]
    parts = buffers.shared[buffers.skbs[source].shared]
    to = into.nr_frags
    merges = to > 0 and (
        parts.frag_page[0] == into.frag_page[to - 1]
        and parts.frag_page[0] != 0
        and parts.frag_offset[0] == into.frag_offset[to - 1] + into.frag_size[to - 1]
    )
    taken = 1 if merges else 0
    remaining = length - parts.frag_size[0] if merges else length
    whole = remaining >= 0 and length == buffers.skbs[source].len
    if whole and parts.nr_frags - taken > MAX_SKB_FRAGS - to:
        return 0
    if not (unclone_keeptruesize(buffers, source) and unclone_keeptruesize(buffers, target)):
        return 0
    into = buffers.shared[buffers.skbs[target].shared]
    parts = buffers.shared[buffers.skbs[source].shared]
    if remaining < 0:
        into.frag_size[to - 1] += length
        _cut_front(parts, length)
        _shift_lengths(buffers, target, source, length)
        return length
    while remaining > 0 and taken < parts.nr_frags:
        if to == MAX_SKB_FRAGS:
            return 0
        buffer.copy_frag(parts, taken, into, to)
        to += 1
        if remaining < parts.frag_size[taken]:
            buffer.ref_frag(buffers, source, taken)
            into.frag_size[to - 1] = remaining
            parts.frag_offset[taken] += remaining
            parts.frag_size[taken] -= remaining
            break
        remaining -= parts.frag_size[taken]
        taken += 1
    merged = into.nr_frags - 1
    into.nr_frags = to
    if merges:
        into.frag_size[merged] += parts.frag_size[0]
        buffer.drop_frag(buffers, source, 0)
    count = parts.nr_frags
    for position in range(taken, count):
        buffer.copy_frag(parts, position, parts, position - taken)
    parts.nr_frags = count - taken
    _shift_lengths(buffers, target, source, length)
    return length


@compiled()
def _cut_front(parts: object, length: int) -> None:
    parts.frag_offset[0] += length  # type: ignore[attr-defined]
    parts.frag_size[0] -= length  # type: ignore[attr-defined]


@compiled()
def _shift_lengths(buffers: Buffers, target: int, source: int, length: int) -> None:
    grow(buffers, target, length, length)
    grow(buffers, source, -length, -length)


@compiled(inline=False)
def split(buffers: Buffers, skb: int, rest: int, length: int) -> None:
    """Move all behind the first ``length`` bytes to the empty skb ``rest`` (``skb_split``).

    Fragments move whole; one that is cut in two gets a plain reference. Marks are not looked at.
    """
    record = buffers.skbs[skb]
    second = buffers.skbs[rest]
    parts = buffers.shared[record.shared]
    into = buffers.shared[second.shared]
    linear = buffer.headlen(record)
    count = parts.nr_frags
    if length < linear:
        second.len += linear - length + record.data_len
        second.data_len = record.data_len
        record.data_len = 0
        parts.nr_frags = 0
    else:
        second.len = record.len - length
        second.data_len = second.len
        record.data_len = length - linear
        parts.nr_frags = 0
    record.len = length
    moved = 0
    offset = linear
    for position in range(count):
        size = parts.frag_size[position]
        if offset + size <= length:
            parts.nr_frags += 1
        else:
            buffer.copy_frag(parts, position, into, moved)
            if offset < length:
                buffer.ref_frag(buffers, skb, position)
                into.frag_offset[0] += length - offset
                into.frag_size[0] -= length - offset
                parts.frag_size[position] = length - offset
                parts.nr_frags += 1
            moved += 1
        offset += size
    into.nr_frags = moved


@compiled(inline=False)
def pp_cow_data(buffers: Buffers, skb: int, number: int, headroom: int) -> int:
    """A marked copy in memory of pool ``number``, as linear as one page allows (``skb_pp_cow_data``).

    Returns the copy, in whose favour the caller's user of ``skb`` is dropped, or 0 when there is no memory
    or the data need too many fragments; ``skb`` is as it was then.
    """
    host = buffers.host
    record = buffers.skbs[skb]
    page_bytes = host.page_allocator.page_bytes
    largest = page_bytes - headroom - SHARED_INFO_BYTES
    length = record.len
    if length > largest + MAX_SKB_FRAGS * page_bytes:
        return 0
    linear = min(length, largest)
    wanted = aligned(linear) + SHARED_INFO_BYTES + headroom
    page, offset, granted = fragments.alloc_any(host, host.pools[number], wanted)
    if page == 0:
        return 0
    copied = buffer.build(buffers, page, offset, granted)
    if copied == 0:
        pool.put(host, host.pools[number], page, pool.WHOLE, True)
        return 0
    buffer.reserve(buffers, copied, headroom)
    buffer.extend(buffers, copied, linear)
    buffer.mark_for_recycle(buffers, copied)
    buffers.shared[buffers.skbs[copied].shared].gso_size = buffers.shared[record.shared].gso_size
    remaining = length - linear
    while remaining > 0:
        size = min(remaining, page_bytes)
        page, offset, granted = fragments.alloc_any(host, host.pools[number], size)
        if page == 0:
            buffer.free_rarely(buffers, copied)
            return 0
        buffer.add_rx_frag(buffers, copied, page, offset, size, granted)
        remaining -= size
    buffer.free_rarely(buffers, skb)
    return copied
