"""Changing skbs: room for headers, private data, shorter or linear data (spec 6.4).

Whatever gives an skb data of its own while others hold the old data takes plain references and clears its
mark: shares stay with the others.
"""

from pool_impl import skb as buffer
from pool_impl.jit import compiled
from pool_impl.layout import NET_SKB_PAD, SHARED_INFO_BYTES, Buffers
from pool_impl.page_frag import aligned

PULL_RESERVE_BYTES = 128
"""extra room when pulling needs a new head, for further pulls"""


@compiled(inline=False)
def expand_head(buffers: Buffers, skb: int, nhead: int, ntail: int) -> bool:
    """A new private head in slab memory with more room at its ends; False without memory
    (``pskb_expand_head``).

    Data with another holder stay as they are, and this skb takes plain references. Else the fragments move
    to the new shared info, and an old head page goes back at once.
    """
    record = buffers.skbs[skb]
    old = record.shared
    before = buffers.shared[old].end
    size = buffer.head_bytes(buffers, before + nhead + ntail)
    new = buffer.new_shared(buffers, size - SHARED_INFO_BYTES)
    if new == 0:
        return False
    source = buffers.shared[old]
    target = buffers.shared[new]
    for position in range(source.nr_frags):
        buffer.copy_frag(source, position, target, position)
    target.nr_frags = source.nr_frags
    target.frag_list = source.frag_list
    target.gso_size = source.gso_size
    if buffer.is_cloned(buffers, skb):
        for position in range(source.nr_frags):
            buffer.ref_frag(buffers, skb, position)
        buffer.get_members(buffers, source.frag_list)
        buffer.release_data(buffers, skb)
    else:
        buffer.free_head(buffers, skb)
    record.shared = new
    record.headroom += nhead
    record.cloned = 0
    record.nohdr = 0
    record.truesize += target.end - before
    return True


@compiled()
def unclone(buffers: Buffers, skb: int) -> bool:
    """Make sure that the data have no other holder (``skb_unclone``)."""
    return not buffer.is_cloned(buffers, skb) or expand_head(buffers, skb, 0, 0)


@compiled(inline=False)
def unclone_keeptruesize(buffers: Buffers, skb: int) -> bool:
    """The same, but the truesize stays, and the end of the head as far as the release does that
    (``skb_unclone_keeptruesize``)."""
    if not buffer.is_cloned(buffers, skb):
        return True
    record = buffers.skbs[skb]
    truesize = record.truesize
    end = buffers.shared[record.shared].end
    if not expand_head(buffers, skb, 0, 0):
        return False
    record.truesize = truesize
    shared = buffers.shared[record.shared]
    # the end tells how a small head is freed, so it must not become or stop being that of one
    small_end = buffers.rules.small_head_bytes - SHARED_INFO_BYTES
    if buffers.rules.unclone_restores_end and end != small_end and shared.end != small_end:
        shared.end = end
    return True


@compiled()
def realloc_headroom(buffers: Buffers, skb: int, headroom: int) -> int:
    """A copy with at least that headroom: partial, or a clone with a new head (``skb_realloc_headroom``).
    0 without memory."""
    missing = headroom - buffers.skbs[skb].headroom
    if missing <= 0:
        return buffer.partial_copy(buffers, skb)
    copied = buffer.clone(buffers, skb)
    if copied != 0 and not expand_head(buffers, copied, aligned(missing), 0):
        buffer.free_rarely(buffers, copied)
        return 0
    return copied


@compiled()
def cow(buffers: Buffers, skb: int, headroom: int) -> bool:
    """Make sure of headroom and private data (``skb_cow``)."""
    return _cow(buffers, skb, headroom, buffer.is_cloned(buffers, skb))


@compiled()
def cow_head(buffers: Buffers, skb: int, headroom: int) -> bool:
    """Make sure of headroom and a private header part (``skb_cow_head``)."""
    return _cow(buffers, skb, headroom, buffer.is_header_cloned(buffers, skb))


@compiled()
def _cow(buffers: Buffers, skb: int, headroom: int, is_shared: bool) -> bool:
    missing = max(0, headroom - buffers.skbs[skb].headroom)
    if missing == 0 and not is_shared:
        return True
    return expand_head(buffers, skb, (missing + NET_SKB_PAD - 1) // NET_SKB_PAD * NET_SKB_PAD, 0)


@compiled()
def pull(buffers: Buffers, skb: int, length: int) -> None:
    """Drop bytes at the front of the linear part (``__skb_pull``)."""
    record = buffers.skbs[skb]
    record.len -= length
    record.headroom += length


@compiled(inline=False)
def pull_tail(buffers: Buffers, skb: int, length: int) -> bool:
    """Move the first bytes of the paged data into the linear part; False without memory
    (``__pskb_pull_tail``). Fragments that become empty are dropped, members of a frag_list freed."""
    current = skb
    buffers.skbs[skb].walk_up = 0
    # down: into the member that is eaten in part, if its own paged data are needed
    while True:
        if not _prepare_pull(buffers, current, length):
            _give_up_pull(buffers, current)
            return False
        record = buffers.skbs[current]
        member = record.walk_member
        if member == 0:
            break
        paged = record.walk_length - buffer.headlen(buffers.skbs[member])
        if paged <= 0:
            break
        buffers.skbs[member].walk_up = current
        current = member
        length = paged
    # and up again: nothing can fail any more
    while current != 0:
        _finish_pull(buffers, current)
        current = buffers.skbs[current].walk_up
    return True


@compiled(inline=False)
def _prepare_pull(buffers: Buffers, skb: int, length: int) -> bool:
    """Room in the linear part, and what of the frag_list is eaten: ``walk_member`` is the skb of which
    ``walk_length`` bytes are, a clone (``walk_fork``) if it has other users. 0: no member in part."""
    record = buffers.skbs[skb]
    record.walk_member = 0
    record.walk_fork = 0
    linear_end = record.headroom + buffer.headlen(record)
    missing = linear_end + length - buffers.shared[record.shared].end
    if missing > 0 or buffer.is_cloned(buffers, skb):
        room = missing + PULL_RESERVE_BYTES if missing > 0 else 0
        if not expand_head(buffers, skb, 0, room):
            return False
    shared = buffers.shared[record.shared]
    record.walk_bytes = length
    for position in range(shared.nr_frags):
        length -= shared.frag_size[position]
    member = shared.frag_list
    while length > 0 and member != 0:
        listed = buffers.skbs[member]
        if listed.len <= length:
            length -= listed.len
            member = listed.next
            continue
        record.walk_length = length
        record.walk_member = member
        if listed.users != 1:
            record.walk_fork = buffer.clone(buffers, member)
            record.walk_member = record.walk_fork
            record.walk_stop = listed.next
            return bool(record.walk_fork != 0)
        break
    record.walk_stop = member
    return True


@compiled(inline=False)
def _give_up_pull(buffers: Buffers, skb: int) -> None:
    while skb != 0:
        record = buffers.skbs[skb]
        if record.walk_fork != 0:
            buffer.free_rarely(buffers, record.walk_fork)
        skb = record.walk_up


@compiled(inline=False)
def _finish_pull(buffers: Buffers, skb: int) -> None:
    record = buffers.skbs[skb]
    shared = buffers.shared[record.shared]
    remaining = record.walk_bytes
    if record.walk_member != 0:
        pull(buffers, record.walk_member, record.walk_length)
    while shared.frag_list != record.walk_stop:
        eaten = shared.frag_list
        shared.frag_list = buffers.skbs[eaten].next
        buffer.free_rarely(buffers, eaten)
    if record.walk_fork != 0:
        buffers.skbs[record.walk_fork].next = shared.frag_list
        shared.frag_list = record.walk_fork
    kept = 0
    for position in range(shared.nr_frags):
        size = shared.frag_size[position]
        if size <= remaining:
            buffer.drop_frag(buffers, skb, position)
            remaining -= size
        else:
            buffer.copy_frag(shared, position, shared, kept)
            shared.frag_offset[kept] += remaining
            shared.frag_size[kept] -= remaining
            remaining = 0
            kept += 1
    shared.nr_frags = kept
    record.data_len -= record.walk_bytes


@compiled()
def linearize(buffers: Buffers, skb: int) -> bool:
    """Make all data linear (``skb_linearize``)."""
    paged = buffers.skbs[skb].data_len
    return paged == 0 or pull_tail(buffers, skb, paged)


@compiled(inline=False)
def trim(buffers: Buffers, skb: int, length: int) -> bool:
    """Cut data off at the end; False without memory (``pskb_trim``). Only paged data need a private copy."""
    if length >= buffers.skbs[skb].len:
        return True
    current = skb
    buffers.skbs[skb].walk_up = 0
    # down: into the member of the frag_list that is cut
    while True:
        if not _prepare_trim(buffers, current, length):
            return False
        record = buffers.skbs[current]
        member = record.walk_member
        if member == 0 or record.walk_length >= buffers.skbs[member].len:
            break
        buffers.skbs[member].walk_up = current
        length = record.walk_length
        current = member
    while current != 0:
        above = buffers.skbs[current].walk_up
        _finish_trim(buffers, current)
        current = above
    return True


@compiled(inline=False)
def _prepare_trim(buffers: Buffers, skb: int, length: int) -> bool:
    """Cut the fragments; ``walk_member`` is the last skb of the frag_list to stay, with its first
    ``walk_length`` bytes. 0: the list was cut off or there is none."""
    record = buffers.skbs[skb]
    record.walk_member = 0
    record.walk_bytes = length
    if record.data_len == 0:
        return True
    if not unclone(buffers, skb):
        return False
    shared = buffers.shared[record.shared]
    offset = buffer.headlen(record)
    kept = 0
    while kept < shared.nr_frags and offset < length:
        size = shared.frag_size[kept]
        if offset + size >= length:
            shared.frag_size[kept] = length - offset
        offset += size
        kept += 1
    if offset < length:
        return _find_last_member(buffers, skb, length - offset)
    count = shared.nr_frags
    shared.nr_frags = kept
    for position in range(kept, count):
        buffer.drop_frag(buffers, skb, position)
    members = shared.frag_list
    shared.frag_list = 0
    free_list(buffers, members)
    return True


@compiled(inline=False)
def _find_last_member(buffers: Buffers, skb: int, length: int) -> bool:
    """Up to it, members with other users are replaced by clones."""
    record = buffers.skbs[skb]
    shared = buffers.shared[record.shared]
    previous = 0
    member = shared.frag_list
    while member != 0:
        if buffers.skbs[member].users != 1:
            replacement = buffer.clone(buffers, member)
            if replacement == 0:
                return False
            buffers.skbs[replacement].next = buffers.skbs[member].next
            buffer.free_rarely(buffers, member)
            member = replacement
            if previous == 0:
                shared.frag_list = member
            else:
                buffers.skbs[previous].next = member
        if buffers.skbs[member].len >= length:
            record.walk_member = member
            record.walk_length = length
            return True
        length -= buffers.skbs[member].len
        previous = member
        member = buffers.skbs[member].next
    return True


@compiled(inline=False)
def _finish_trim(buffers: Buffers, skb: int) -> None:
    record = buffers.skbs[skb]
    length = record.walk_bytes
    if record.data_len == 0:
        record.len = length
        return
    last = record.walk_member
    if last != 0:
        rest = buffers.skbs[last].next
        buffers.skbs[last].next = 0
        free_list(buffers, rest)
    linear = buffer.headlen(record)
    record.len = length
    record.data_len = max(0, length - linear)
    _condense(buffers, skb)


@compiled(inline=False)
def free_list(buffers: Buffers, skb: int) -> None:
    """Free an skb and all after it (``kfree_skb_list``)."""
    while skb != 0:
        following = buffers.skbs[skb].next
        buffer.free_rarely(buffers, skb)
        skb = following


@compiled()
def _condense(buffers: Buffers, skb: int) -> None:
    """Give fragments back early if their data fit into the head (``skb_condense``)."""
    record = buffers.skbs[skb]
    end = buffers.shared[record.shared].end
    if record.data_len != 0:
        free = end - record.headroom - buffer.headlen(record)
        if record.data_len > free or buffer.is_cloned(buffers, skb):
            return
        pull_tail(buffers, skb, record.data_len)
    # fragments do not tell their share of the truesize, so now it can be set right
    record.truesize = buffer.truesize_of(end)
