"""Conservation: what every trial has to prove before it may become a record."""

from collections import Counter
from typing import Any

import numpy as np

from pool_impl.layout import COUNT_MASK, MAX_SKB_FRAGS, SIGNATURE, SIGNATURE_MASK, Buffers, Host
from workers.errors import CheckError
from workers.state import (
    FRAGMENTS,
    HEADER_SPLIT,
    OWN_FRAGMENTS,
    OWN_PAGES,
    UNIT_BYTES,
    UNITS_OF_A_PAGE,
    Trial,
)


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


def check_idle_pool(host: Host) -> None:
    """Check that all pages of a pool are idle, and no others in use.

    Raises:
        CheckError: naming the two sides that differ.
    """
    owner = host.pools[0]
    inflight = int(owner.hold - owner.release) & COUNT_MASK
    idle = len(_idle_pages(host, owner))
    _equal("pages in flight", inflight, "pages in cache and ring", idle)
    _equal("pages in use", int(host.page_allocator.used_pages.sum()), "pages in flight", inflight)


def queued_packets(trial: Trial) -> int:
    """Counted packets that wait in the receive ring or the socket."""
    since = trial.tally.measure_from_ps
    filled = _descriptors(trial, "dma")
    in_ring = (filled.arrival_ps >= since) & (filled.ends != 0)
    in_socket = trial.packets[_in_sockets(trial)].arrival_ps >= since
    return int(in_ring.sum() + in_socket.sum())


def _descriptors(trial: Trial, until: str) -> Any:
    """Descriptors of all queues that have not been read, up to those counted by a field of QUEUE."""
    mask = trial.nic.ring_mask
    indices = [queue.first + (np.arange(queue.read, queue[until]) & mask) for queue in trial.queues]
    return trial.descriptors[np.concatenate(indices)]


def _in_sockets(trial: Trial) -> Any:
    """Skbs that wait in sockets."""
    slots = [reader.first + (np.arange(reader.head, reader.tail) & reader.mask) for reader in trial.readers]
    return trial.socket_slots[np.concatenate([*slots, np.arange(0)])]


def _fates(trial: Trial) -> None:
    tally = trial.tally
    fates = tally.delivered + tally.dropped_early + tally.missed + tally.dropped_socket + tally.dropped_driver
    _equal("packets offered", int(tally.offered), "their fates", int(fates) + queued_packets(trial))


def _places(trial: Trial) -> None:
    """Pages by location add up, over time and now."""
    tally, nic = trial.tally, trial.nic
    whole, rest = divmod(int(tally.unit_ps.sum()), UNITS_OF_A_PAGE)
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
        held = int((trial.descriptors.page != 0).sum()) * UNITS_OF_A_PAGE
        held += int((trial.descriptors.header_page != 0).sum()) * int(nic.part_units)
    _equal("parts of pages in descriptors", held, "those counted", counted)
    in_sockets = int(trial.packets[_in_sockets(trial)].units.sum())
    _equal("parts of pages in sockets", in_sockets, "those counted", int(trial.readers.queued_units.sum()))
    _equal("parts of pages in skbs", _units_in_skbs(trial), "parts of pages in sockets", in_sockets)
    if nic.buffer_units != UNITS_OF_A_PAGE:
        _buffers_are_apart(trial)


def _units_in_skbs(trial: Trial) -> int:
    """Parts of pages that the data of all skbs takes, by the number of their buffers."""
    shared = trial.buffers.shared[np.unique(_live_skbs(trial.buffers).shared)]
    heads = int(((shared.head_frag != 0) & (shared.head_page != 0)).sum())
    units_of_frag = UNITS_OF_A_PAGE if trial.nic.pattern == HEADER_SPLIT else int(trial.nic.part_units)
    return heads * int(trial.nic.part_units) + int(shared.nr_frags.sum()) * units_of_frag


def _buffers_are_apart(trial: Trial) -> None:
    """No two descriptors and skbs hold the same part of a page."""
    size = int(trial.nic.part_units) * UNIT_BYTES
    ring = trial.descriptors
    shared = trial.buffers.shared[np.unique(_live_skbs(trial.buffers).shared)]
    used = np.arange(MAX_SKB_FRAGS) < shared.nr_frags[:, np.newaxis]
    heads = (shared.head_frag != 0) & (shared.head_page != 0)
    pages = np.concatenate([ring.page, ring.header_page, shared.frag_page[used], shared.head_page[heads]])
    parts = np.concatenate(
        [ring.offset, ring.header_offset, shared.frag_offset[used], shared.head_offset[heads]]
    )
    parts = parts[pages != 0] // size
    pages = pages[pages != 0]
    found = np.unique(np.stack([pages, parts]), axis=1)
    _equal("buffers in descriptors and skbs", len(pages), "different parts of pages", found.shape[1])


def _pages(trial: Trial) -> None:
    """Walk every place where a page can be; each page is in one place, and none is missing."""
    host = trial.host
    skbs = _live_skbs(trial.buffers)
    _equal("skbs in use", len(skbs), "skbs in sockets", len(_in_sockets(trial)))
    descriptors = trial.descriptors
    in_descriptors = np.concatenate([descriptors.page, descriptors.header_page])
    held = np.concatenate([in_descriptors[in_descriptors != 0], _data_pages(trial.buffers, skbs)])
    if trial.nic.pattern in (FRAGMENTS, HEADER_SPLIT):
        held = _cut_pages(trial, held)
    elif trial.nic.pattern == OWN_FRAGMENTS:
        held = _cut_blocks(trial, held)
    pooled = (host.pages[held].magic & SIGNATURE_MASK) == SIGNATURE
    found = np.concatenate([held[pooled], *(_idle_pages(host, owner) for owner in host.pools)])
    inflight = int(((host.pools.hold - host.pools.release) & COUNT_MASK).sum())
    _equal("pages in flight", inflight, "pages found", len(found))
    _equal("pages found", len(found), "different pages found", len(np.unique(found)))
    used = int(host.page_allocator.used_pages.sum())
    outside = int((1 << host.pages[held[~pooled]].order).sum())
    _equal("pages in use", used, "pages in flight and of no pool", inflight + outside)


def _cut_pages(trial: Trial, held: Any) -> Any:
    """The pages behind shares that descriptors and skbs hold, with those that pools are cutting up; the count
    of each page is the shares held and those not handed out yet. Pages of payload pools are not cut up."""
    host = trial.host
    is_cut = (host.pages[held].pp >= trial.nic.queues) | (trial.nic.pattern == FRAGMENTS)
    whole = held[~is_cut]
    held = held[is_cut]
    current = {int(owner.frag_page): owner for owner in host.pools if owner.frag_page != 0}
    shares = Counter(held.tolist())
    for page in sorted(shares.keys() | current.keys()):
        unused = host.rules.frag_bias - current[page].frag_users if page in current else 0
        counted = int(host.pages[page].frag_count)
        _equal(f"fragment count of page {page}", counted, "its shares", shares[page] + int(unused))
    return np.concatenate([whole, np.array(sorted(shares.keys() | current.keys()), np.int64)])


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


def _idle_pages(host: Host, owner: Any) -> Any:
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
    if trial.nic.pattern < OWN_PAGES:
        _equal("pages allocated", int(trial.tally.pages_allocated), "alloc counters", int(served.sum()))
    else:
        maps = int(trial.host.device.maps)
        _equal("buffers allocated", int(trial.tally.pages_allocated), "mappings", maps)
    for owner in pools:
        if owner.alloc_waive > owner.alloc_refill + owner.alloc_slow:
            raise CheckError(f"waive {owner.alloc_waive} exceeds refill + slow")


def _equal(left_name: str, left: int, right_name: str, right: int) -> None:
    if left != right:
        raise CheckError(f"{left_name}: {left}, but {right_name}: {right}; please report this trial")
