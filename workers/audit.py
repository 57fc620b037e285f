"""Conservation: what every trial has to prove before it may become a record."""

from typing import Any

import numpy as np

from pool_impl.layout import COUNT_MASK, MAX_SKB_FRAGS, SIGNATURE, SIGNATURE_MASK, Buffers, Host
from workers.errors import CheckError
from workers.state import Trial


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
    """Counted packets that wait in a receive ring, a socket, a transmit ring or for a redirect target."""
    since = trial.tally.measure_from_ps
    in_ring = _descriptors(trial, "dma").arrival_ps >= since
    in_socket = trial.packets[_in_sockets(trial)].arrival_ps >= since
    waiting = _frames(trial).arrival_ps >= since
    return int(in_ring.sum() + in_socket.sum() + waiting.sum())


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
    """Skbs that wait in sockets."""
    slots = [reader.first + (np.arange(reader.head, reader.tail) & reader.mask) for reader in trial.readers]
    return trial.socket_slots[np.concatenate([*slots, np.arange(0)])]


def _fates(trial: Trial) -> None:
    tally = trial.tally
    fates = tally.delivered + tally.dropped_early + tally.missed + tally.dropped_socket + tally.dropped_driver
    fates += tally.dropped_xdp + tally.transmitted + tally.redirected + tally.dropped_tx
    _equal("packets offered", int(tally.offered), "their fates", int(fates) + queued_packets(trial))


def _pages(trial: Trial) -> None:
    """Walk every place where a page can be; each page is in one place, and none is missing."""
    host = trial.host
    skbs = _live_skbs(trial.buffers)
    frames = _frames(trial)
    waiting = len(_in_sockets(trial)) + int((frames.skb != 0).sum())
    _equal("skbs in use", len(skbs), "skbs in sockets and transmit rings", waiting)
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
