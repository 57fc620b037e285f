"""Conservation: what every trial has to prove before it may become a record."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pool_impl.layout import COUNT_MASK, MAX_SKB_FRAGS, SIGNATURE, SIGNATURE_MASK, Buffers, Host
from workers.backlog import SLOTS
from workers.deferred import MOST_SKBS
from workers.errors import CheckError
from workers.state import GRO_BUCKET_SKBS, GRO_BUCKETS, Trial

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
    _equal(
        "pages over time, by location",
        int(trial.tally.page_ps.sum()),
        "pages in use over time",
        int(trial.tally.used_page_ps),
    )


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
    since = trial.tally.measure_from_ps
    in_ring = _descriptors(trial, "dma").arrival_ps >= since
    waiting = np.concatenate([_in_sockets(trial), _in_gro(trial), _in_backlogs(trial)])
    in_stack = sum(int(arrival_ps >= since) for skb in waiting for arrival_ps in _arrivals(trial, int(skb)))
    in_frames = _frames(trial).arrival_ps >= since
    return int(in_ring.sum() + in_frames.sum()) + in_stack


def _arrivals(trial: Trial, skb: int) -> Iterator[int]:
    """When each wire packet of an skb arrived."""
    yield int(trial.packets[skb].arrival_ps)
    number = trial.holds[trial.buffers.skbs[skb].shared].merged
    while number != 0:
        yield int(trial.merged[number].arrival_ps)
        number = trial.merged[number].next


def _descriptors(trial: Trial, until: str) -> Any:
    """Descriptors of all queues that have not been read, up to those counted by a field of QUEUE."""
    mask = trial.nic.ring_mask
    indices = [queue.first + (np.arange(queue.read, queue[until]) & mask) for queue in trial.queues]
    return trial.descriptors[np.concatenate(indices)]


def _frames(trial: Trial) -> Any:
    """Frames in all frame queues."""
    slots = [queue.first + (np.arange(queue.head, queue.tail) & queue.mask) for queue in trial.frame_queues]
    return trial.frames[np.concatenate([*slots, np.arange(0)])]


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


def _pages(trial: Trial) -> None:
    """Walk every place where a page can be; each page is in one place, and none is missing."""
    host = trial.host
    skbs = _live_skbs(trial.buffers)
    frames = _frames(trial)
    places = (_in_sockets, _in_tap, _in_gro, _in_backlogs, _kept, _deferred)
    listed = np.concatenate([*(place(trial) for place in places), frames.skb[frames.skb != 0]])
    members = [member for skb in listed for member in _members(trial.buffers, int(skb))]
    _equal("skbs in use", len(skbs), "skbs found", len(listed) + len(members))
    booked = trial.holds[np.unique(skbs.shared)].pages.sum() - _in_members(trial, members)
    _equal("pages of skbs", len(_data_pages(trial.buffers, skbs)), "pages booked for them", int(booked))
    in_frames = frames.page[frames.page != 0]
    held = np.concatenate([_descriptors(trial, "posted").page, _data_pages(trial.buffers, skbs), in_frames])
    pooled = (host.pages[held].magic & SIGNATURE_MASK) == SIGNATURE
    found = np.concatenate([held[pooled], *(idle_pages(host, owner) for owner in host.pools)])
    in_flight = sum(inflight(owner) for owner in host.pools)
    _equal("pages in flight", in_flight, "pages found", len(found))
    _equal("pages found", len(found), "different pages found", len(np.unique(found)))
    used = int(host.page_allocator.used_pages.sum())
    outside = int((~pooled).sum())
    _equal("pages in use", used, "pages in flight and of no pool", in_flight + outside)


def _members(buffers: Buffers, skb: int) -> Iterator[int]:
    """Skbs in the frag_list of another."""
    member = int(buffers.shared[buffers.skbs[skb].shared].frag_list)
    while member != 0:
        yield member
        member = int(buffers.skbs[member].next)


def _in_members(trial: Trial, members: list[int]) -> int:
    """Pages booked for list members, which are in the books of the skb that lists them."""
    return int(trial.holds[np.unique(trial.buffers.skbs[members].shared)].pages.sum()) if members else 0


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
    _equal("pages allocated", int(trial.tally.pages_allocated), "alloc counters", int(served.sum()))
    for owner in pools:
        if owner.alloc_waive > owner.alloc_refill + owner.alloc_slow:
            raise CheckError(f"waive {owner.alloc_waive} exceeds refill + slow")


def _equal(left_name: str, left: int, right_name: str, right: int) -> None:
    if left != right:
        raise CheckError(f"{left_name}: {left}, but {right_name}: {right}; please report this trial")
