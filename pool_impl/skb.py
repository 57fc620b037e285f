"""skbs: making, marking, copying and freeing them (spec 6).

An skb is an index; 0 means none. For each page in it, head or fragment, it holds either one share of the
page or one plain reference. Which one is not stored: it is decided when the page is dropped, by the skb's
mark and the page's own signature (spec 6.1).
"""

from typing import Any

from pool_impl import page_alloc, pool
from pool_impl.jit import compiled
from pool_impl.layout import (
    BH_DISABLED,
    FCLONE_CLONE,
    FCLONE_NONE,
    FCLONE_ORIGINAL,
    NET_SKB_PAD,
    PFMEMALLOC,
    PROCESS,
    SHARED_INFO_BYTES,
    SKB_BYTES,
    Buffers,
)
from pool_impl.observe import SHARED_INFO, SKB, SLAB_HEAD
from pool_impl.page_frag import aligned

DATAREF_SHIFT = 16
DATAREF_MASK = (1 << DATAREF_SHIFT) - 1
"""``dataref``: users of the data in the low bits, those without the header part in the high ones"""

SMALLEST_PAGE_HEAD_BYTES = 1024
"""part of a page that a head from napi_alloc_skb takes at least"""


# Sizes


@compiled()
def truesize_of(end: int) -> int:
    """Memory of an skb whose head ends there, without fragments (``SKB_TRUESIZE``)."""
    return end + SKB_BYTES + SHARED_INFO_BYTES


@compiled()
def head_bytes(buffers: Buffers, length: int) -> int:
    """Bytes of slab memory for a head of ``length`` bytes and its shared info: one size for small ones
    where the release has it, else the allocator's bucket."""
    needed = aligned(length) + SHARED_INFO_BYTES
    if needed <= buffers.rules.small_head_bytes:
        return int(buffers.rules.small_head_bytes)
    bucket = 512  # the shared info alone needs more than the next smaller ones
    while bucket < needed:
        bucket *= 2
    return bucket


@compiled()
def headlen(record: Any) -> int:
    """Bytes in the linear part."""
    return int(record.len - record.data_len)


@compiled()
def tailroom(buffers: Buffers, skb: int) -> int:
    """Bytes free behind the linear part; 0 when there is paged data (``skb_tailroom``)."""
    record = buffers.skbs[skb]
    if record.data_len != 0:
        return 0
    return int(buffers.shared[record.shared].end - record.headroom - record.len)


# Sharing


@compiled()
def is_cloned(buffers: Buffers, skb: int) -> bool:
    """Whether the data has another holder; the bit alone stays when that one is gone (``skb_cloned``)."""
    record = buffers.skbs[skb]
    return bool(record.cloned and buffers.shared[record.shared].dataref & DATAREF_MASK != 1)


@compiled()
def is_header_cloned(buffers: Buffers, skb: int) -> bool:
    """Whether another holder needs the header part (``skb_header_cloned``)."""
    record = buffers.skbs[skb]
    if not record.cloned:
        return False
    dataref = buffers.shared[record.shared].dataref
    return bool((dataref & DATAREF_MASK) - (dataref >> DATAREF_SHIFT) != 1)


@compiled()
def header_release(buffers: Buffers, skb: int) -> None:
    """This holder, the only one so far, does not need the header part (``__skb_header_release``)."""
    record = buffers.skbs[skb]
    record.nohdr = 1
    buffers.shared[record.shared].dataref = 1 + (1 << DATAREF_SHIFT)


@compiled()
def get(buffers: Buffers, skb: int) -> None:
    """One more user of the skb itself (``skb_get``)."""
    buffers.skbs[skb].users += 1


# Records


@compiled()
def _new_skb(buffers: Buffers) -> int:
    """An unmarked skb without data, 0 when there is no room."""
    memory = buffers.memory
    skb = memory.skb_free
    if skb != 0:
        memory.skb_free = buffers.skbs[skb].next
    elif memory.skb_fresh < memory.skb_end:
        skb = memory.skb_fresh
        memory.skb_fresh = skb + 1
    else:
        return 0
    record = buffers.skbs[skb]
    record.users = 1
    record.len = 0
    record.data_len = 0
    record.headroom = 0
    record.cloned = 0
    record.nohdr = 0
    record.pp_recycle = 0
    record.pfmemalloc = 0
    record.fclone = FCLONE_NONE
    record.companion = 0
    return int(skb)


@compiled()
def free_shell(buffers: Buffers, skb: int) -> None:
    """Free the skb but not its data, which went elsewhere or has been released."""
    buffers.host.observer.touch(SKB, skb, True)
    record = buffers.skbs[skb]
    if record.companion != 0:
        buffers.skbs[record.companion].companion = 0
    record.users = 0
    record.next = buffers.memory.skb_free
    buffers.memory.skb_free = skb


@compiled()
def new_shared(buffers: Buffers, end: int) -> int:
    """Slab memory for a head and its shared info, with one holder; 0 when there is no room."""
    memory = buffers.memory
    shared = memory.shared_free
    if shared != 0:
        memory.shared_free = buffers.shared[shared].next
    elif memory.shared_fresh < memory.shared_end:
        shared = memory.shared_fresh
        memory.shared_fresh = shared + 1
    else:
        return 0
    record = buffers.shared[shared]
    record.dataref = 1
    record.end = end
    record.head_frag = 0
    record.head_page = 0
    record.head_offset = 0
    record.gso_size = 0
    record.nr_frags = 0
    record.frag_list = 0
    return int(shared)


@compiled()
def free_shared(buffers: Buffers, shared: int) -> None:
    """The shared info is no longer used; the head has been freed or went elsewhere."""
    buffers.shared[shared].next = buffers.memory.shared_free
    buffers.memory.shared_free = shared


# Making


@compiled()
def _around(buffers: Buffers, head: int) -> int:
    """An skb around a head of so many bytes, of which the shared info takes the last."""
    skb = _new_skb(buffers)
    if skb == 0:
        return 0
    end = head - SHARED_INFO_BYTES
    shared = new_shared(buffers, end)
    if shared == 0:
        free_shell(buffers, skb)
        return 0
    buffers.skbs[skb].shared = shared
    buffers.skbs[skb].truesize = truesize_of(end)
    return skb


@compiled()
def build(buffers: Buffers, page: int, offset: int, size: int) -> int:
    """An unmarked skb whose head is part of a page (``build_skb``, ``napi_build_skb``); it takes over the
    caller's share or reference. 0 when there is no memory: the page is still the caller's then."""
    skb = _around(buffers, size)
    if skb != 0:
        record = buffers.shared[buffers.skbs[skb].shared]
        record.head_frag = 1
        record.head_page = page
        record.head_offset = offset
        _note_reserves(buffers, skb, page)
    return skb


@compiled(inline=False)
def alloc(buffers: Buffers, size: int) -> int:
    """An skb with a head of at least ``size`` bytes of slab memory, 0 without memory (``alloc_skb``)."""
    return _around(buffers, head_bytes(buffers, size))


@compiled(inline=False)
def alloc_fclone(buffers: Buffers, size: int) -> int:
    """The same with room for one clone beside it (``alloc_skb_fclone``)."""
    skb = alloc(buffers, size)
    if skb != 0:
        buffers.skbs[skb].fclone = FCLONE_ORIGINAL
    return skb


@compiled(inline=False)
def alloc_netdev(buffers: Buffers, size: int, napi: bool) -> int:
    """A receive buffer with headroom of its own (``__netdev_alloc_skb``, ``napi_alloc_skb``).

    Its head is part of a page that nobody follows, unless it is too large for that or, without ``napi``,
    small enough for the slab.
    """
    wanted = size + NET_SKB_PAD
    if wanted > buffers.host.page_allocator.page_bytes - SHARED_INFO_BYTES or (
        not napi and wanted <= buffers.rules.page_head_above_bytes
    ):
        skb = alloc(buffers, wanted)
    else:
        head = aligned(wanted) + SHARED_INFO_BYTES
        skb = build(buffers, 0, 0, max(head, SMALLEST_PAGE_HEAD_BYTES) if napi else head)
    if skb != 0:
        reserve(buffers, skb, NET_SKB_PAD)
    return skb


@compiled()
def reserve(buffers: Buffers, skb: int, length: int) -> None:
    """Headroom for an empty skb (``skb_reserve``)."""
    buffers.skbs[skb].headroom += length


@compiled()
def extend(buffers: Buffers, skb: int, length: int) -> None:
    """Data at the end of the linear part (``skb_put``)."""
    buffers.skbs[skb].len += length


@compiled()
def mark_for_recycle(buffers: Buffers, skb: int) -> None:
    """Its pool pages go back to their pool when it is freed (``skb_mark_for_recycle``). On releases
    whose pools do not name themselves the caller does it with :func:`store_mem_info`."""
    buffers.skbs[skb].pp_recycle = 1


@compiled()
def store_mem_info(buffers: Buffers, page: int, owner: Any) -> None:
    """Name a page's pool for one packet (``page_pool_store_mem_info``, spec 6.2)."""
    buffers.host.pages[page].pp = owner.index


@compiled()
def add_rx_frag(buffers: Buffers, skb: int, page: int, offset: int, length: int, truesize: int) -> None:
    """Append part of a page, with the caller's share or reference (``skb_add_rx_frag``).

    ``truesize`` is the buffer that this part uses up, not the payload.
    """
    record = buffers.skbs[skb]
    shared = buffers.shared[record.shared]
    set_frag(shared, shared.nr_frags, page, offset, length)
    shared.nr_frags += 1
    _note_reserves(buffers, skb, page)
    record.len += length
    record.data_len += length
    record.truesize += truesize


@compiled()
def set_frag(shared: Any, position: int, page: int, offset: int, length: int) -> None:
    """Write one fragment of a SHARED record."""
    shared.frag_page[position] = page
    shared.frag_offset[position] = offset
    shared.frag_size[position] = length


@compiled()
def copy_frag(source: Any, position: int, target: Any, target_position: int) -> None:
    """Copy one fragment; no reference is taken."""
    set_frag(
        target,
        target_position,
        source.frag_page[position],
        source.frag_offset[position],
        source.frag_size[position],
    )


@compiled()
def _note_reserves(buffers: Buffers, skb: int, page: int) -> None:
    if buffers.host.pages[page].magic & PFMEMALLOC:
        buffers.skbs[skb].pfmemalloc = 1


@compiled()
def fill_head_page(buffers: Buffers, skb: int, position: int, source: int, skip: int) -> None:
    """The head page of ``source``, from ``skip`` bytes into its data on, becomes a fragment; the source's
    share or reference goes with it."""
    record = buffers.skbs[source]
    head = buffers.shared[record.shared]
    offset = head.head_offset + record.headroom + skip
    set_frag(
        buffers.shared[buffers.skbs[skb].shared], position, head.head_page, offset, headlen(record) - skip
    )


# Dropping pages


@compiled()
def drop_page(buffers: Buffers, page: int, recycle: bool) -> None:
    """Drop one share or one plain reference, see :func:`pool_impl.pool.drop_skb_page`."""
    pool.drop_skb_page(buffers.host, page, recycle)


@compiled()
def drop_frag(buffers: Buffers, skb: int, position: int) -> None:
    """Drop one fragment's page (``skb_frag_unref``)."""
    record = buffers.skbs[skb]
    drop_page(buffers, buffers.shared[record.shared].frag_page[position], record.pp_recycle != 0)


@compiled()
def ref_frag(buffers: Buffers, skb: int, position: int) -> int:
    """One plain reference to a fragment's page, marked or not (``skb_frag_ref``); returns the page."""
    page = buffers.shared[buffers.skbs[skb].shared].frag_page[position]
    page_alloc.get_page(buffers.host, page)
    return int(page)


@compiled()
def free_head(buffers: Buffers, skb: int) -> None:
    """Free the head and its shared info; the skb has no data then."""
    record = buffers.skbs[skb]
    shared = buffers.shared[record.shared]
    if shared.head_frag:
        drop_page(buffers, shared.head_page, record.pp_recycle != 0)
    free_shared(buffers, record.shared)


@compiled()
def _touch_shared_info(buffers: Buffers, shared: int, write: bool) -> None:
    """Report the shared info where it lies: in the head's page, or in an object of the slab."""
    record = buffers.shared[shared]
    if record.head_frag and record.head_page != 0:
        buffers.host.observer.touch(SHARED_INFO, record.head_page, write)
    else:
        buffers.host.observer.touch(SLAB_HEAD, shared, write)


@compiled()
def _is_last_holder(buffers: Buffers, skb: int) -> bool:
    """Give up the data; True when nobody else holds it."""
    record = buffers.skbs[skb]
    shared = buffers.shared[record.shared]
    _touch_shared_info(buffers, record.shared, record.cloned != 0)
    if not record.cloned:
        return True
    shared.dataref -= (1 << DATAREF_SHIFT) + 1 if record.nohdr else 1
    return bool(shared.dataref == 0)


@compiled()
def release_data(buffers: Buffers, skb: int) -> None:
    """Give up the data; its last holder frees it (spec 6.3).

    Fragments go first, then the frag_list, each member as a whole, then the head, behind which the lists
    live. The mark is cleared also if others hold the data still: this skb may go on with data of its own.
    """
    if _is_last_holder(buffers, skb):
        shared = buffers.shared[buffers.skbs[skb].shared]
        if shared.nr_frags != 0 or shared.frag_list != 0:
            _release_lists(buffers, skb)
        free_head(buffers, skb)
    buffers.skbs[skb].pp_recycle = 0


@compiled(inline=False)
def _release_lists(buffers: Buffers, skb: int) -> None:
    """Drop the fragments and the members of the frag_list, with all that is in them."""
    _release_frags(buffers, skb)
    current = skb
    while True:
        record = buffers.skbs[current]
        member = record.walk_member
        if member != 0:
            buffers.host.observer.touch(SKB, member, True)
            listed = buffers.skbs[member]
            record.walk_member = listed.next
            listed.users -= 1
            if listed.users != 0:
                continue
            if _is_last_holder(buffers, member):
                _release_frags(buffers, member)
                listed.walk_up = current
                current = member
            else:
                free_shell(buffers, member)
            continue
        if current == skb:
            break
        free_head(buffers, current)
        member = current
        current = record.walk_up
        free_shell(buffers, member)


@compiled()
def _release_frags(buffers: Buffers, skb: int) -> None:
    """Drop the fragments; the frag_list is next."""
    record = buffers.skbs[skb]
    shared = buffers.shared[record.shared]
    for position in range(shared.nr_frags):
        drop_frag(buffers, skb, position)
    record.walk_member = shared.frag_list


@compiled()
def free_whole(buffers: Buffers, skb: int) -> None:
    """Free the skb whoever else uses it (``__kfree_skb``)."""
    release_data(buffers, skb)
    free_shell(buffers, skb)


@compiled(inline=False)
def free_stolen(buffers: Buffers, skb: int) -> None:
    """Free an skb whose pages all went to another one (``kfree_skb_partial``)."""
    free_shared(buffers, buffers.skbs[skb].shared)
    free_shell(buffers, skb)


@compiled()
def free(buffers: Buffers, skb: int) -> bool:
    """Drop one user, the last one frees; True when it is gone. ``kfree_skb``, ``consume_skb`` and
    ``napi_consume_skb`` differ in tracing only (spec 6.7)."""
    buffers.host.observer.touch(SKB, skb, True)
    record = buffers.skbs[skb]
    record.users -= 1
    if record.users != 0:
        return False
    free_whole(buffers, skb)
    return True


@compiled(inline=False)
def free_rarely(buffers: Buffers, skb: int) -> bool:
    """The same for paths that are rarely taken: freeing is most of the code, and compiled for each caller."""
    return free(buffers, skb)


@compiled(inline=False)
def free_deferred(buffers: Buffers, skb: int) -> None:
    """Free where it was allocated, on this CPU (``skb_attempt_defer_free``): with bottom halves disabled,
    unless it is one of a pair."""
    context = buffers.host.context
    before = context.in_softirq
    if before == PROCESS and buffers.skbs[skb].fclone == FCLONE_NONE:
        context.in_softirq = BH_DISABLED
    free_whole(buffers, skb)
    context.in_softirq = before


# Copying


@compiled(inline=False)
def clone(buffers: Buffers, skb: int) -> int:
    """Another skb with the same data and the same mark, 0 without memory (``skb_clone``)."""
    copied = _new_skb(buffers)
    if copied == 0:
        return 0
    source = buffers.skbs[skb]
    target = buffers.skbs[copied]
    if source.fclone == FCLONE_ORIGINAL and source.companion == 0:
        source.companion = copied
        target.companion = skb
        target.fclone = FCLONE_CLONE
    target.len = source.len
    target.data_len = source.data_len
    target.truesize = source.truesize
    target.headroom = source.headroom
    target.shared = source.shared
    target.pp_recycle = source.pp_recycle
    target.pfmemalloc = source.pfmemalloc
    target.cloned = 1
    source.cloned = 1
    buffers.shared[source.shared].dataref += 1
    return copied


@compiled(inline=False)
def copy_expand(buffers: Buffers, skb: int, headroom: int, size: int) -> int:
    """A full copy in slab memory of at least ``size`` bytes, unmarked (``skb_copy_expand``)."""
    copied = alloc(buffers, size)
    if copied != 0:
        reserve(buffers, copied, headroom)
        extend(buffers, copied, buffers.skbs[skb].len)
        _copy_header(buffers, skb, copied)
    return copied


@compiled()
def copy(buffers: Buffers, skb: int) -> int:
    """A full copy with the same headroom (``skb_copy``)."""
    record = buffers.skbs[skb]
    return copy_expand(buffers, skb, record.headroom, buffers.shared[record.shared].end + record.data_len)


@compiled()
def _copy_header(buffers: Buffers, skb: int, copied: int) -> None:
    """What copies take over; the mark is not among it."""
    gso_size = buffers.shared[buffers.skbs[skb].shared].gso_size
    buffers.shared[buffers.skbs[copied].shared].gso_size = gso_size


@compiled(inline=False)
def partial_copy(buffers: Buffers, skb: int) -> int:
    """A copy of the head and plain references to the rest, unmarked (``pskb_copy``)."""
    source = buffers.skbs[skb]
    copied = alloc(buffers, source.headroom + headlen(source))
    if copied == 0:
        return 0
    target = buffers.skbs[copied]
    reserve(buffers, copied, source.headroom)
    target.len = source.len
    target.data_len = source.data_len
    target.truesize += source.data_len
    original = buffers.shared[source.shared]
    private = buffers.shared[target.shared]
    for position in range(original.nr_frags):
        copy_frag(original, position, private, position)
        ref_frag(buffers, skb, position)
    private.nr_frags = original.nr_frags
    private.frag_list = original.frag_list
    get_members(buffers, original.frag_list)
    _copy_header(buffers, skb, copied)
    return copied


@compiled()
def get_members(buffers: Buffers, member: int) -> None:
    """One more user of each skb of a frag_list."""
    while member != 0:
        get(buffers, member)
        member = buffers.skbs[member].next
