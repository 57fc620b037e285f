"""Cutting a merged skb up into segments, each an skb of its own (``skb_segment``, spec 6.4).

As for a device that gathers fragments and computes checksums, but does not cut packets up itself. Headers and
linear payload are copied into a head in slab memory. Fragments, and head pages of members of the frag_list,
are shared by plain reference, so these segments are unmarked. A segment that begins with a member's linear
data is made of a clone of that member and has its mark, until it is trimmed or wants more headroom: that
gives it data of its own, unmarked too.

Whoever frees the skb before its segments drops shares of pages that have further references: such pages leave
their pool (``released_refcnt``).
"""

from pool_impl import page_alloc
from pool_impl import skb as buffer
from pool_impl.jit import compiled
from pool_impl.layout import MAX_SKB_FRAGS, Buffers
from pool_impl.skb_change import cow_head, free_list, pull_tail, trim


@compiled(inline=False)
def segment(buffers: Buffers, skb: int, headers: int, size: int) -> int:
    """Cut up what follows ``headers`` bytes into pieces of ``size`` bytes, the last with what is left.

    Returns the first segment, each names the one after it by ``next``; 0 without memory or where a segment
    would have more fragments than an skb can. ``skb`` stays the caller's; headers in its fragments have
    become linear.
    """
    record = buffers.skbs[skb]
    linear_bytes = buffer.headlen(record)
    if linear_bytes < headers:
        if not pull_tail(buffers, skb, headers - linear_bytes):
            return 0
        linear_bytes = headers
    # where the next fragment begins, whose it is, and which one; -1: the head of that member
    position = linear_bytes
    source = skb
    part = 0
    member = buffers.shared[record.shared].frag_list
    first = last = 0
    offset = headers
    while offset < record.len:
        until = min(offset + size, record.len)
        made = 0
        used_up = part >= buffers.shared[buffers.skbs[source].shared].nr_frags
        if used_up and offset >= linear_bytes and member != 0 and buffer.headlen(buffers.skbs[member]) > 0:
            source = member
            member = buffers.skbs[source].next
            position += buffer.headlen(buffers.skbs[source])
            part = 0
            parts = buffers.shared[buffers.skbs[source].shared]
            while part < parts.nr_frags and position + parts.frag_size[part] <= until:
                position += parts.frag_size[part]
                part += 1
            made = _of_member(buffers, source, headers, until - offset, record.headroom)
        else:
            copied = max(0, min(until, linear_bytes) - offset)
            made = buffer.alloc(buffers, copied + headers + record.headroom)
            if made != 0:
                buffer.reserve(buffers, made, record.headroom)
                buffer.extend(buffers, made, headers + copied)
            target = buffers.shared[buffers.skbs[made].shared]
            while made != 0 and position < until:
                if part >= buffers.shared[buffers.skbs[source].shared].nr_frags:
                    source = member
                    member = buffers.skbs[source].next
                    part = -1 if buffer.headlen(buffers.skbs[source]) > 0 else 0
                number = target.nr_frags
                if number == MAX_SKB_FRAGS:
                    buffer.free_rarely(buffers, made)
                    made = 0
                    continue
                _share(buffers, source, part, made)
                end = position + target.frag_size[number]
                if position < offset:
                    target.frag_offset[number] += offset - position
                    target.frag_size[number] -= offset - position
                if end > until:
                    target.frag_size[number] -= end - until
                    break
                part += 1
                position = end
            if made != 0:
                buffers.skbs[made].data_len = until - offset - copied
                buffers.skbs[made].len += until - offset - copied
                buffers.skbs[made].truesize += until - offset - copied
        if made == 0:
            free_list(buffers, first)
            return 0
        buffers.skbs[made].next = 0
        if first == 0:
            first = made
        else:
            buffers.skbs[last].next = made
        last = made
        offset = until
    return int(first)


@compiled(inline=False)
def _of_member(buffers: Buffers, member: int, headers: int, length: int, headroom: int) -> int:
    """A segment of so many bytes from the start of a member, whose headers go in front; 0 without memory."""
    made = buffer.clone(buffers, member)
    if made == 0:
        return 0
    if not trim(buffers, made, length) or not cow_head(buffers, made, headers + headroom):
        buffer.free_rarely(buffers, made)
        return 0
    buffers.skbs[made].headroom -= headers
    buffers.skbs[made].len += headers
    return int(made)


@compiled(inline=False)
def _share(buffers: Buffers, source: int, part: int, made: int) -> None:
    """Append a fragment of ``source``, or for -1 its head, to a segment, by plain reference."""
    target = buffers.shared[buffers.skbs[made].shared]
    number = target.nr_frags
    if part < 0:
        buffer.fill_head_page(buffers, made, number, source, 0)
    else:
        buffer.copy_frag(buffers.shared[buffers.skbs[source].shared], part, target, number)
    page_alloc.get_page(buffers.host, target.frag_page[number])
    target.nr_frags = number + 1


@compiled(inline=False)
def member_bytes(buffers: Buffers, skb: int, headers: int, segment_bytes: int) -> int:
    """Payload of the pieces into which an skb with a frag_list is cut for a device that cuts up the rest:
    whole members of that list, if all have as much as the skb itself, the last perhaps less. Else, and
    where a member's head is no page, ``segment_bytes``."""
    length = buffers.skbs[skb].len - headers
    member = buffers.shared[buffers.skbs[skb].shared].frag_list
    if member == 0:
        return segment_bytes
    of_member = buffers.skbs[member].len
    while member != 0:
        record = buffers.skbs[member]
        if record.len != of_member and record.next != 0:
            return segment_bytes
        if buffer.headlen(record) > 0 and not buffers.shared[record.shared].head_frag:
            return segment_bytes
        length -= record.len
        member = record.next
    if length != of_member:
        return segment_bytes
    return int(max(1, of_member // segment_bytes) * segment_bytes)
