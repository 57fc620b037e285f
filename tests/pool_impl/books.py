"""What must hold between any two operations on pools and skbs, and what one operation may change.

Numbers are those of the invariants in section 11 of the specification.
"""

from collections import Counter
from typing import Any, NoReturn

import numpy as np

from pool_impl import audit, ownership
from pool_impl.conformance import Replay, Step, written
from pool_impl.layout import CACHE_SIZE, FLAG_DMA_MAP, FLAG_DMA_SYNC_DEV, PFMEMALLOC, SHARED, SKB
from tests.pool_impl import skb_books

POOLS = 2
NONSENSE = -(1 << 40)
"""in all words of a free record: no index of anything"""
COUNTERS = ("fast", "slow", "slow_high_order", "empty", "refill", "waive")
RECYCLED = ("cached", "cache_full", "ring", "ring_full", "released_refcnt")


class BooksError(AssertionError):
    """An invariant does not hold."""


class Books:
    """A debug build of the machine with two pools, the operations done, and checks."""

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.replay = Replay(kernel, POOLS, pages=1024, skbs=512, audit=True)
        self.buffers = self.replay.buffers
        self.host = self.replay.host
        self.steps: list[Step] = []
        self.destroyed: set[int] = set()
        self.bytes: dict[int, skb_books.Runs] = {}
        """where those of each skb lie"""
        self.queued: list[int] = []
        """pages in the XDP bulk queue"""

    def fail(self, *problems: str) -> NoReturn:
        """With the operations as a recording."""
        text = written("failure", self.kernel, POOLS, self.steps)
        raise BooksError("\n".join([*problems, "", "the operations as a recording:", text]))

    def check(self) -> None:
        """What must hold between any two operations (spec 11: 1-5, 34, 36, 42, 44, 47-49)."""
        problems = audit.faults(self.host) + skb_books.Skbs(self.buffers).faults()
        holders = ownership.Owned(Counter(self.queued), Counter())
        for handle in self.replay.handles.values():
            holders.references[handle.page] += handle.references
            holders.shares[handle.page] += int(handle.share)
        unused: Counter[int] = Counter()
        for owner in self.host.pools:
            if owner.frag_page:
                unused[int(owner.frag_page)] = int(self.host.rules.frag_bias - owner.frag_users)
        problems += ownership.faults(self.buffers, holders, unused)
        problems += self.share_faults(holders, unused)
        for number in range(POOLS):
            problems += self.pool_faults(number)
        device = self.host.device
        mapped = int((self.host.pages.dma_addr != 0).sum())
        if device.maps - device.unmaps != mapped:
            problems.append(f"{device.maps} maps, {device.unmaps} unmaps, {mapped} pages mapped")
        if problems:
            self.fail(*problems)

    def share_faults(self, holders: ownership.Owned, unused: Counter[int]) -> list[str]:
        """The shadow counters against all holders, also where pages count no shares."""
        held = ownership.held_by_skbs(self.buffers)
        shadows = self.host.observer.shadows
        found = []
        for page in (np.flatnonzero(shadows.owner | shadows.references)[1:]).tolist():
            shares = held.shares[page] + holders.shares[page] + unused[page]
            references = held.references[page] + holders.references[page]
            if (shadows[page].shares, shadows[page].references) != (shares, references):
                found.append(f"page {page}: {shadows[page]}, but {shares} and {references} are held")
        return found

    def pool_faults(self, number: int) -> list[str]:
        pool = self.host.pools[number]
        cache = audit.cached(self.host, number)
        ring = audit.in_ring(self.host, number)
        found = []
        if not 0 <= pool.cache_count <= CACHE_SIZE:
            found.append(f"invariant 1: {pool.cache_count} entries in the cache")
        for page in cache + ring:
            record = self.host.pages[page]
            if record.refcount != 1 or record.magic & PFMEMALLOC:
                found.append(f"invariant 2: idle page {page}: refcount {record.refcount}")
        batch = int(pool.ring_batch)
        if not 0 <= pool.ring_head - pool.ring_tail < batch:
            found.append(f"invariant 34: head {pool.ring_head}, tail {pool.ring_tail}, batch {batch}")
        if pool.pool_flags & FLAG_DMA_MAP and number not in self.destroyed:
            mapped = int(
                (self.host.pages.dma_addr[self.host.observer.shadows.owner == number + 1] != 0).sum()
            )
            if mapped != int(pool.hold - pool.release):
                found.append(f"invariant 5: {mapped} pages mapped")
        return found

    def counters(self) -> list[dict[str, int]]:
        """Of each pool."""
        found = []
        for owner in self.host.pools:
            recycled = owner.recycle.sum(axis=0)
            values = {name: int(owner[f"alloc_{name}"]) for name in COUNTERS}
            values |= {name: int(recycled[column]) for column, name in enumerate(RECYCLED)}
            values |= {"hold": int(owner.hold), "release": int(owner.release)}
            values |= {"frag": int(owner.frag_page), "syncs": int(self.host.device.syncs)}
            values |= {"cache": int(owner.cache_count), "head": int(owner.ring_head)}
            found.append(values)
        return found

    def check_bytes(self, name: str, arguments: dict[str, Any], results: dict[str, Any]) -> None:
        """No byte of a packet is lost or moved by an operation, but those that it is asked to."""
        before = self.bytes
        skbs = skb_books.Skbs(self.buffers)
        self.bytes = {handle: skbs.bytes_of(skb) for handle, skb in self.replay.skbs.items()}
        heads = {handle: skbs.heads(skb) for handle, skb in self.replay.skbs.items()}
        self.spoil()
        problems = skb_books.byte_faults(name, arguments, results, before, self.bytes, heads)
        if problems:
            self.fail(*problems)

    def spoil(self) -> None:
        """Who reads a record that is free, or uses one without setting it up, finds nonsense."""
        memory = self.buffers.memory
        for words, free, following in (
            (self.replay.skb_words, memory.skb_free, SKB.fields["next"][1] // 8),
            (self.replay.shared_words, memory.shared_free, SHARED.fields["next"][1] // 8),
        ):
            record = int(free)
            while record != 0:
                after = int(words[record, following])
                words[record, :] = NONSENSE
                words[record, following] = after
                record = after

    def check_step(
        self,
        name: str,
        context: str,
        arguments: dict[str, Any],
        results: dict[str, Any],
        before: list[dict[str, int]],
    ) -> None:
        """What one operation may change (spec 11: 6, 9-19, 21, 24, 26-29)."""
        for number, was in enumerate(before):
            now = self.counters()[number]
            moved = {key: now[key] - was[key] for key in now}
            problems = []
            taken = sum(moved[key] for key in ("fast", "refill", "slow", "slow_high_order"))
            if name == "alloc" and arguments["pool"] == number:
                got = int(results["ret"] != 0)
                if taken != got or moved["empty"] > 1 or moved["waive"] > 1:
                    problems.append("invariants 9-13")
                if moved["empty"] and moved["refill"]:
                    problems.append("invariant 11")
                if moved["hold"] and not (moved["slow"] or moved["slow_high_order"]):
                    problems.append("invariants 6 and 29")
                if (moved["refill"] or moved["slow"]) and now["cache"] > 63:
                    problems.append("invariant 1")
                if moved["slow_high_order"] and now["cache"]:
                    problems.append("invariant 27")
            if name in ("put", "put_full", "put_defragged", "return_skb_page"):
                ways = sum(moved[key] for key in ("cached", "ring", "ring_full", "released_refcnt"))
                if ways > 1 or (moved["cache_full"] and not moved["ring"] + moved["ring_full"]):
                    problems.append("invariants 16 and 17")
                if moved["release"] != moved["ring_full"] + moved["released_refcnt"]:
                    problems.append("invariants 7 and 19")
                local = self.host.rules.local_recycling
                if moved["cached"] + moved["cache_full"] and not arguments.get("direct") and not local:
                    problems.append("invariant 15")
                flags = int(self.host.pools[number].pool_flags)
                synced = ways - moved["released_refcnt"] if flags & FLAG_DMA_SYNC_DEV else 0
                if ways and moved["syncs"] != synced:
                    problems.append("invariant 22")
            if name == "put_bulk" and moved["ring_full"] > 1:
                problems.append("invariant 18")
            emptied = name in ("update_nid", "nid_changed") and arguments["pool"] == number
            if emptied and (moved["release"] != -moved["cache"] or moved["head"] or moved["ring"]):
                problems.append("invariant 26")
            if moved["hold"] < 0 or moved["release"] < 0:
                problems.append("counts do not fall")
            if problems:
                self.fail(*(f"{problem}: pool {number}: {moved}" for problem in problems))
