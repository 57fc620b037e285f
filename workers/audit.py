"""Conservation: what every trial has to prove before it may become a record."""

from typing import Any

import numpy as np

from pool_impl.layout import COUNT_MASK, SIGNATURE, SIGNATURE_MASK, Host
from workers.errors import CheckError
from workers.state import Trial


def check(trial: Trial) -> None:
    """Check the books of a finished trial.

    Raises:
        CheckError: naming the two sides that differ.
    """
    _fates(trial)
    _pages(trial)
    _counters(trial.host.pools[0], trial)
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
    inflight = int(owner.hold - owner.release) & COUNT_MASK
    idle = len(_idle_pages(host, owner))
    _equal("pages in flight", inflight, "pages in cache and ring", idle)
    _equal("pages in use", int(host.page_allocator.used_pages.sum()), "pages in flight", inflight)


def queued_packets(trial: Trial) -> int:
    """Counted packets that wait in the receive ring or the socket."""
    nic, reader, since = trial.nic, trial.reader, trial.tally.measure_from_ps
    waiting = np.arange(nic.read, nic.dma) & nic.mask
    in_ring = trial.descriptors[waiting].arrival_ps >= since
    socket = trial.socket[np.arange(reader.head, reader.tail) & reader.mask]
    in_socket = trial.skbs[socket].arrival_ps >= since
    return int(in_ring.sum() + in_socket.sum())


def _fates(trial: Trial) -> None:
    tally = trial.tally
    fates = tally.delivered + tally.dropped_early + tally.missed + tally.dropped_socket + tally.dropped_driver
    _equal("packets offered", int(tally.offered), "their fates", int(fates) + queued_packets(trial))


def _pages(trial: Trial) -> None:
    """Walk every place where a page can be; each page is in one place, and none is missing."""
    host, nic, reader = trial.host, trial.nic, trial.reader
    owner = host.pools[0]
    in_socket = trial.skbs[trial.socket[np.arange(reader.head, reader.tail) & reader.mask]].page
    places = [
        _idle_pages(host, owner),
        trial.descriptors[np.arange(nic.read, nic.posted) & nic.mask].page,
    ]
    if nic.recycle:
        places.append(in_socket)
    found = np.concatenate(places)
    inflight = int(owner.hold - owner.release) & COUNT_MASK
    _equal("pages in flight", inflight, "pages found", len(found))
    _equal("pages found", len(found), "different pages found", len(np.unique(found)))
    signed = int(((host.pages[found].magic & SIGNATURE_MASK) == SIGNATURE).sum())
    _equal("pages with the pool's signature", signed, "pages found", len(found))
    outside = 0 if nic.recycle else len(in_socket)
    used = int(host.page_allocator.used_pages.sum())
    _equal("pages in use", used, "pages in flight and in unmarked skbs", inflight + outside)


def _idle_pages(host: Host, owner: Any) -> Any:
    """Pages in the cache and the ring of a pool."""
    slots = host.slots[owner.ring_base : owner.ring_base + owner.ring_size]
    live = (np.arange(owner.ring_size) + owner.ring_head) % owner.ring_size
    consumed = (owner.ring_head - owner.ring_tail) % owner.ring_size
    in_ring = slots[live[: owner.ring_size - consumed]]
    return np.concatenate([owner.cache[: owner.cache_count], in_ring[in_ring != 0]])


def _counters(owner: Any, trial: Trial) -> None:
    """Identities of spec 8.2."""
    served = int(owner.alloc_fast + owner.alloc_slow + owner.alloc_slow_high_order + owner.alloc_refill)
    _equal("pages allocated", int(trial.tally.pages_allocated), "alloc counters", served)
    if owner.alloc_waive > owner.alloc_refill + owner.alloc_slow:
        raise CheckError(f"waive {owner.alloc_waive} exceeds refill + slow")


def _equal(left_name: str, left: int, right_name: str, right: int) -> None:
    if left != right:
        raise CheckError(f"{left_name}: {left}, but {right_name}: {right}; please report this trial")
