"""Conservation: what every trial has to prove before it may become a record."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from pool_impl.layout import COUNT_MASK, MAX_SKB_FRAGS, SIGNATURE, SIGNATURE_MASK, Buffers, Host
from workers.drivers.split import BIAS
from workers.errors import CheckError
from workers.net.backlog import SLOTS
from workers.net.deferred import MOST_SKBS
from workers.net.retention import MOST_RETAINED
from workers.state import (
    FIRST_UNPOOLED,
    FRAGMENTS,
    GRO_BUCKET_SKBS,
    GRO_BUCKETS,
    HEADER_SPLIT,
    KEPT_PAGES,
    OWN_FRAGMENTS,
    OWN_KEPT_PAGES,
    UNIT_BYTES,
    Trial,
)

NONE = [np.arange(0)]


def check(trial: Trial) -> None:
    """Check the books of a finished trial.

    Raises:
        CheckError: naming the two sides that differ.
    """
    _fates(trial)
    _pages(trial)
    _counters(trial)
    ledger = trial.host.observer.meter.ledger.sum(axis=1)
    for cpu, busy in enumerate(trial.tally.busy_ps):
        _equal(f"time charged to CPU {cpu}", int(ledger[cpu]), "its busy time", int(busy))
    _places(trial)
    if trial.nic.windows:
        _windows(trial)


def check_idle_pool(host: Host) -> None:
    """Check that all pages of a pool are idle, and no others in use.

    Raises:
        CheckError: naming the two sides that differ.
    """
    owner = host.pools[0]
    idle = len(idle_pages(host, owner))
    _equal("pages in flight", inflight(owner), "pages in cache and ring", idle)
    _equal("pages in use", int(host.page_allocator.used_pages.sum()), "pages in flight", inflight(owner))


def queued_packets(trial: Trial) -> int:
    """Counted packets that wait in a receive ring, the stack, a transmit ring or for a redirect
    target."""
    return _queued_since(trial, int(trial.tally.measure_from_ps))


def _queued_since(trial: Trial, since: int) -> int:
    """Those that arrived at this time or later."""
    if trial.nic.contexts:
        in_ring = np.array([at >= since for found in _aggregates(trial) for at in _merged_in(trial, found)])
    else:
        filled = _descriptors(trial, "dma")
        in_ring = (filled.arrival_ps >= since) & (filled.ends != 0)
    frames = _frames(trial)
    sent = frames.skb[frames.skb != 0]
    waiting = np.concatenate([_in_sockets(trial), _in_gro(trial), _in_backlogs(trial), sent])
    in_stack = sum(int(arrival_ps >= since) for skb in waiting for arrival_ps in _arrivals(trial, int(skb)))
    in_frames = frames.arrival_ps[frames.skb == 0] >= since
    return int(in_ring.sum() + in_frames.sum()) + in_stack


def _arrivals(trial: Trial, skb: int) -> Iterator[int]:
    """When each wire packet of an skb arrived."""
    yield int(trial.packets[skb].arrival_ps)
    yield from _further(trial, trial.holds[trial.buffers.skbs[skb].shared].merged)


def _merged_in(trial: Trial, aggregate: Any) -> Iterator[int]:
    """The same for what the NIC merges."""
    yield int(aggregate.arrival_ps)
    yield from _further(trial, aggregate.merged)


def _further(trial: Trial, number: int) -> Iterator[int]:
    while number != 0:
        yield int(trial.merged[number].arrival_ps)
        number = trial.merged[number].next


def _descriptors(trial: Trial, until: str) -> Any:
    """Descriptors of all queues that have not been read, up to those counted by a field of QUEUE."""
    mask = trial.nic.ring_mask
    indices = [queue.first + (np.arange(queue.read, queue[until]) & mask) for queue in trial.queues]
    return trial.descriptors[np.concatenate(indices)]


def _aggregates(trial: Trial) -> Any:
    """What the NIC merges or has completed, in no order."""
    found = []
    for number, table in enumerate(trial.aggregates_of):
        first = number * trial.nic.contexts
        found += trial.context_slots[first : first + table.open].tolist()
        completed = int(table.first_completed)
        while completed != 0:
            found.append(completed)
            completed = int(trial.aggregates[completed].next)
    return trial.aggregates[np.array(found, np.int64)]


def _merged_pages(aggregates: Any) -> Any:
    """Pages of payload in them."""
    return aggregates["page"][np.arange(MAX_SKB_FRAGS) < aggregates["pages"][:, np.newaxis]]


def _frames(trial: Trial) -> Any:
    """Frames in all frame queues."""
    slots = [queue.first + (np.arange(queue.head, queue.tail) & queue.mask) for queue in trial.frame_queues]
    return trial.frames[np.concatenate([*slots, *NONE])]


def _in_sockets(trial: Trial) -> Any:
    """Skbs that wait in sockets for a reader."""
    return np.concatenate(
        [_in_socket(trial, reader) for reader in trial.readers[: trial.stack.readers]] or NONE
    )


def _in_tap(trial: Trial) -> Any:
    """Clones that wait in the packet socket."""
    return np.concatenate(
        [_in_socket(trial, reader) for reader in trial.readers[trial.stack.readers :]] or NONE
    )


def _in_socket(trial: Trial, reader: Any) -> Any:
    return trial.socket_slots[reader.first + (np.arange(reader.head, reader.tail) & reader.mask)]


def _kept(trial: Trial) -> Any:
    """Skbs that applications have read and not freed."""
    slots = [
        reader.kept_first + (np.arange(reader.kept_head, reader.kept_tail) & reader.kept_mask)
        for reader in trial.readers
    ]
    return trial.kept_slots[np.concatenate([*slots, *NONE])]


def _retained(trial: Trial) -> Any:
    """Those that they keep for a long time."""
    slots = [
        retained.first + (np.arange(retained.head, retained.tail) & (MOST_RETAINED - 1))
        for retained in trial.retained
    ]
    return trial.retained_slots.skb[np.concatenate([*slots, *NONE])]


def _in_gro(trial: Trial) -> Any:
    first = np.arange(len(trial.gro) * GRO_BUCKETS).reshape(-1, GRO_BUCKETS) * GRO_BUCKET_SKBS
    slots = trial.gro_slots[first[..., np.newaxis] + np.arange(GRO_BUCKET_SKBS)]
    return slots[np.arange(GRO_BUCKET_SKBS) < trial.gro["count"][..., np.newaxis]]


def _in_backlogs(trial: Trial) -> Any:
    slots = [
        number * SLOTS + (np.arange(backlog.head, backlog.tail) & (SLOTS - 1))
        for number, backlog in enumerate(trial.backlogs)
    ]
    return trial.backlog_slots[np.concatenate([*slots, *NONE])]


def _deferred(trial: Trial) -> Any:
    slots = [
        number * MOST_SKBS + np.arange(deferred["count"]) for number, deferred in enumerate(trial.deferred)
    ]
    return trial.deferred_slots[np.concatenate([*slots, *NONE])]


def _fates(trial: Trial) -> None:
    tally = trial.tally
    fates = tally.delivered + tally.dropped_early + tally.dropped_xdp + tally.transmitted + tally.redirected
    fates += tally.missed + tally.dropped_driver + tally.dropped_backlog + tally.dropped_socket
    fates += tally.dropped_tx
    _equal("packets offered", int(tally.offered), "their fates", int(fates) + queued_packets(trial))


def _windows(trial: Trial) -> None:
    """What is out of all windows is found: on its way to the reader, lost, or to be sent."""
    senders, slots = trial.windows.senders, trial.windows.notice_slots
    _equal("segments on their way", int(senders.flying.sum()), "those found", _queued_since(trial, 0))
    told = sum(
        int(slots[queue.first + (np.arange(queue.head, queue.tail) & queue.mask)].segments.sum())
        for queue in trial.windows.notices
    )
    found = int((senders.room + senders.flying + senders.missing).sum()) + told
    _equal(
        "segments outstanding or to be sent", found, "in windows", int((senders.window + senders.debt).sum())
    )


def _places(trial: Trial) -> None:
    """Pages by location add up, over time and now."""
    tally, nic = trial.tally, trial.nic
    of_a_page = int(nic.page_units)
    whole, rest = divmod(int(tally.unit_ps.sum()), of_a_page)
    _equal(
        "pages over time, by location",
        int(tally.page_ps.sum()) + whole,
        "pages in use over time",
        int(tally.used_page_ps),
    )
    _equal("parts of pages over time that make no page", rest, "none", 0)
    queues = trial.queues
    counted = int(((queues.posted - queues.read) * nic.buffer_units + queues.kept_units).sum())
    held = int((trial.descriptors.page != 0).sum()) * int(nic.buffer_units)
    if nic.pattern == HEADER_SPLIT:
        held = int((trial.descriptors.page != 0).sum()) * of_a_page
        held += int((trial.descriptors.header_page != 0).sum()) * int(nic.part_units)
        aggregates = _aggregates(trial)
        held += len(_merged_pages(aggregates)) * of_a_page + len(aggregates) * int(nic.part_units)
    _equal("parts of pages in descriptors", held, "those counted", counted)
    shared = trial.buffers.skbs[_in_sockets(trial)].shared
    in_sockets = int(trial.holds[shared].units.sum())
    _equal("parts of pages in sockets", in_sockets, "those counted", int(trial.readers.units.sum()))
    if nic.buffer_units != of_a_page:
        _buffers_are_apart(trial)
    for queue in trial.frame_queues:
        frames = trial.frames[queue.first + (np.arange(queue.head, queue.tail) & queue.mask)]
        frames = frames[frames.skb != 0]
        shared = trial.buffers.shared[trial.buffers.skbs[frames.skb].shared]
        _equal(
            "descriptors of skbs",
            int((shared.nr_frags + 1).sum()),
            "those counted",
            int(queue.more_descriptors) + len(frames),
        )
        booked = int(trial.holds[trial.buffers.skbs[frames.skb].shared].units.sum())
        counted = int(queue.more_units) + len(frames) * int(trial.nic.page_units)
        _equal("parts of pages in transmit rings", booked, "those counted", counted)


def _units_in_skbs(trial: Trial) -> int:
    """Parts of pages that the data of all skbs takes, by the number of their buffers. Headers apart come from
    pools of their own, also when one has become a fragment of another skb."""
    pages = _data_pages(trial.buffers, _live_skbs(trial.buffers))
    part = int(trial.nic.part_units)
    if trial.nic.pattern != HEADER_SPLIT:
        return len(pages) * part
    headers = int((trial.host.pages[pages].pp >= trial.nic.first_header_pool).sum())
    return headers * part + (len(pages) - headers) * int(trial.nic.page_units)


def _buffers_are_apart(trial: Trial) -> None:
    """No two descriptors and skbs hold the same part of a page."""
    size = int(trial.nic.part_units) * UNIT_BYTES
    ring = trial.descriptors
    skbs = _live_skbs(trial.buffers)
    # segments may have parts of one buffer, see _bytes_are_apart
    shared = trial.buffers.shared[np.unique(skbs[~_by_reference(trial, skbs)].shared)]
    used = np.arange(MAX_SKB_FRAGS) < shared.nr_frags[:, np.newaxis]
    heads = (shared.head_frag != 0) & (shared.head_page != 0)
    merging = _aggregates(trial)
    payload = _merged_pages(merging)
    places = (
        (ring.page, ring.offset),
        (ring.header_page, ring.header_offset),
        (merging["header_page"], merging["header_offset"]),
        (payload, np.zeros_like(payload)),
        (shared.frag_page[used], shared.frag_offset[used]),
        (shared.head_page[heads], shared.head_offset[heads]),
    )
    pages = np.concatenate([its_pages for its_pages, _ in places])
    parts = np.concatenate([offsets for _, offsets in places])
    parts = parts[pages != 0] // size
    pages = pages[pages != 0]
    found = np.unique(np.stack([pages, parts]), axis=1)
    _equal("buffers in descriptors and skbs", len(pages), "different parts of pages", found.shape[1])


def _pages(trial: Trial) -> None:
    """Walk every place where a page can be; each page is in one place, and none is missing."""
    host = trial.host
    skbs = _live_skbs(trial.buffers)
    frames = _frames(trial)
    places = (_in_sockets, _in_tap, _in_gro, _in_backlogs, _kept, _retained, _deferred)
    listed = np.concatenate([*(place(trial) for place in places), frames.skb[frames.skb != 0]])
    members = [member for skb in listed for member in _members(trial.buffers, int(skb))]
    _equal("skbs in use", len(skbs), "skbs found", len(listed) + len(members))
    booked = trial.holds[np.unique(skbs.shared)].units.sum() - _in_members(trial, members)
    segments = skbs[_by_reference(trial, skbs)]
    if trial.nic.pattern != HEADER_SPLIT or len(segments) == 0:
        # of a page that has left its pool nobody knows whether it was one for headers
        _equal("parts of pages in skbs", _units_in_skbs(trial), "those booked for them", int(booked))
    referenced = _referenced(trial, segments)
    skbs = skbs[~_by_reference(trial, skbs)]
    aggregates = _aggregates(trial)
    in_nic = (trial.descriptors.page, trial.descriptors.header_page, _merged_pages(aggregates))
    held = np.concatenate([*in_nic, aggregates["header_page"], frames.page, _data_pages(trial.buffers, skbs)])
    held = held[held != 0]
    if trial.nic.pattern in (FRAGMENTS, HEADER_SPLIT):
        held = _cut_pages(trial, held)
    elif trial.nic.pattern in (KEPT_PAGES, OWN_KEPT_PAGES):
        held = _kept_pages(trial, _data_pages(trial.buffers, skbs))
    elif trial.nic.pattern == OWN_FRAGMENTS:
        held = _cut_blocks(trial, held)
    held = np.concatenate([held, np.setdiff1d(referenced, held)])
    pooled = (host.pages[held].magic & SIGNATURE_MASK) == SIGNATURE
    found = np.concatenate([held[pooled], *(idle_pages(host, owner) for owner in host.pools)])
    in_flight = sum(inflight(owner) for owner in host.pools)
    _equal("pages in flight", in_flight, "pages found", len(found))
    _equal("pages found", len(found), "different pages found", len(np.unique(found)))
    used = int(host.page_allocator.used_pages.sum())
    outside = int((1 << host.pages[held[~pooled]].order).sum())
    _equal("pages in use", used, "pages in flight and of no pool", in_flight + outside)


def _by_reference(trial: Trial, skbs: Any) -> Any:
    """Which skbs have plain references to pages of a pool that gives shares to others: segments of a merged
    one. Skbs without pages and those whose page has left its pool for good may be among them."""
    shares = trial.nic.recycle and not trial.nic.references and trial.nic.pattern < FIRST_UNPOOLED
    return (skbs.pp_recycle == 0) & bool(shares)


def _referenced(trial: Trial, skbs: Any) -> Any:
    """The pages that these skbs have plain references to: beside them a page has that of its pool, if it is
    there still."""
    pages = trial.host.pages
    found = Counter(_data_pages(trial.buffers, skbs).tolist())
    for page in sorted(found):
        of_pool = int(pages[page].magic & SIGNATURE_MASK == SIGNATURE)
        holders = found[page] + of_pool
        _equal(f"references of page {page}", int(pages[page].refcount), "its holders", holders)
    _bytes_are_apart(trial, skbs)
    return np.array(sorted(found), np.int64)


def _bytes_are_apart(trial: Trial, skbs: Any) -> None:
    """No two of these skbs have the same byte of a page as a fragment."""
    shared = trial.buffers.shared[np.unique(skbs.shared)]
    used = (np.arange(MAX_SKB_FRAGS) < shared.nr_frags[:, np.newaxis]) & (shared.frag_page != 0)
    start = shared.frag_page[used] * int(trial.nic.page_bytes) + shared.frag_offset[used]
    order = np.argsort(start)
    end = (start + shared.frag_size[used])[order][:-1]
    _equal("fragments in two segments", int((end > start[order][1:]).sum()), "none", 0)


def _members(buffers: Buffers, skb: int) -> Iterator[int]:
    """Skbs in the frag_list of another."""
    member = int(buffers.shared[buffers.skbs[skb].shared].frag_list)
    while member != 0:
        yield member
        member = int(buffers.skbs[member].next)


def _in_members(trial: Trial, members: list[int]) -> int:
    """Parts of pages booked for list members, which are in the books of the skb that lists them."""
    return int(trial.holds[np.unique(trial.buffers.skbs[members].shared)].units.sum()) if members else 0


def _cut_pages(trial: Trial, held: Any) -> Any:
    """The pages behind shares that descriptors and skbs hold, with those that pools are cutting up; the count
    of each page is the shares held and those not handed out yet. Pages of payload pools are not cut up."""
    host = trial.host
    is_cut = (host.pages[held].pp >= trial.nic.first_header_pool) | (trial.nic.pattern == FRAGMENTS)
    whole = held[~is_cut]
    held = held[is_cut]
    current = {int(owner.frag_page): owner for owner in host.pools if owner.frag_page != 0}
    shares = Counter(held.tolist())
    for page in sorted(shares.keys() | current.keys()):
        unused = host.rules.frag_bias - current[page].frag_users if page in current else 0
        counted = int(host.pages[page].frag_count)
        _equal(f"fragment count of page {page}", counted, "its shares", shares[page] + int(unused))
    return np.concatenate([whole, np.array(sorted(shares.keys() | current.keys()), np.int64)])


def _kept_pages(trial: Trial, in_skbs: Any) -> Any:
    """The pages behind buffers of skbs, with those that the driver has; each has a count of who holds it: the
    skbs' references and the driver's own, or their shares and what the driver has not handed out."""
    pages, nic = trial.host.pages, trial.nic
    holders = Counter(in_skbs.tolist())
    slots = [
        queue.first_cached_page + (np.arange(queue.cached_head, queue.cached_tail) & nic.page_cache_mask)
        for queue in trial.queues
    ]
    cached = trial.page_cache_slots[np.concatenate(slots)] if nic.page_cache_mask else NONE[0]
    places = (trial.descriptors.page, trial.descriptors.spent_page, trial.queues.split_page, cached)
    kept = {int(page) for page in np.concatenate(places) if page != 0}
    for page in sorted(holders.keys() | kept):
        own = int(page in kept)
        if nic.references:
            count, name = int(pages[page].refcount), "references"
        else:
            own *= BIAS - int(trial.parts_used[page])
            count, name = int(pages[page].frag_count), "shares"
        _equal(f"{name} of page {page}", count, "its holders", holders[page] + own)
    if nic.references:
        frames = _frames(trial)
        mapped = int(trial.host.device.maps - trial.host.device.unmaps)
        mapped -= int(frames.descriptors[frames.skb != 0].sum())
        _equal("pages that the driver has mapped", mapped, "pages that it has", len(kept))
    return np.array(sorted(holders.keys() | kept), np.int64)


def _cut_blocks(trial: Trial, held: Any) -> Any:
    """The network core's blocks behind references that descriptors and skbs hold, with those being cut up; a
    block has these references and those not given away yet."""
    current = {int(cache.page): int(cache.references) for cache in trial.frag_caches if cache.page != 0}
    holders = Counter(held.tolist())
    blocks = sorted(holders.keys() | current.keys())
    for page in blocks:
        references = holders[page] + current.get(page, 0)
        _equal(f"references of block {page}", int(trial.host.pages[page].refcount), "its holders", references)
    return np.array(blocks, np.int64)


def _live_skbs(buffers: Buffers) -> Any:
    """Records of all skbs that somebody holds."""
    skbs = buffers.skbs[1 : int(buffers.memory.skb_fresh)]
    return skbs[skbs.users > 0]


def _data_pages(buffers: Buffers, skbs: Any) -> Any:
    """Pages of the data of these skbs, heads and fragments; data that clones share count once."""
    shared = buffers.shared[np.unique(skbs.shared)]
    heads = shared.head_page[shared.head_frag != 0]
    frags = shared.frag_page[np.arange(MAX_SKB_FRAGS) < shared.nr_frags[:, np.newaxis]]
    pages = np.concatenate([heads, frags])
    return pages[pages != 0]


def inflight(owner: Any) -> int:
    """Pages that a pool has taken and not released."""
    return int(owner.hold - owner.release) & COUNT_MASK


def idle_pages(host: Host, owner: Any) -> Any:
    """Pages in the cache and the ring of a pool."""
    slots = host.slots[owner.ring_base : owner.ring_base + owner.ring_size]
    live = (np.arange(owner.ring_size) + owner.ring_head) % owner.ring_size
    consumed = (owner.ring_head - owner.ring_tail) % owner.ring_size
    in_ring = slots[live[: owner.ring_size - consumed]]
    return np.concatenate([owner.cache[: owner.cache_count], in_ring[in_ring != 0]])


def _counters(trial: Trial) -> None:
    """Identities of spec 8.2."""
    pools = trial.host.pools
    served = pools.alloc_fast + pools.alloc_slow + pools.alloc_slow_high_order + pools.alloc_refill
    allocated = int(trial.tally.pages_allocated - trial.tally.page_cache_reuse)
    if trial.nic.pattern < FIRST_UNPOOLED:
        _equal("pages allocated", allocated, "alloc counters", int(served.sum()))
    else:
        mapped = int(trial.host.device.maps - trial.tally.parts_mapped)
        _equal("buffers allocated", allocated, "mappings of buffers", mapped)
    for owner in pools:
        if owner.alloc_waive > owner.alloc_refill + owner.alloc_slow:
            raise CheckError(f"waive {owner.alloc_waive} exceeds refill + slow")


def _equal(left_name: str, left: int, right_name: str, right: int) -> None:
    if left != right:
        raise CheckError(f"{left_name}: {left}, but {right_name}: {right}; please report this trial")
