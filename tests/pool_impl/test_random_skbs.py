"""Random operations on pools and skbs keep the books, in each release.

A failure shows the operations as lines of a recording.
"""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_impl import ownership
from pool_impl.host import new_buffers, new_host
from pool_impl.layout import CACHE_SIZE, SERVING_SOFTIRQ
from pool_impl.release import RELEASES, SKB_RELEASES
from pool_impl.replay_skbs import OPERATIONS, SkbReplay
from pool_impl.skb import DATAREF_MASK


class Machine:
    """A machine that does only what the kernel's callers may do, and remembers it."""

    def __init__(self, release: str) -> None:
        host = new_host(RELEASES[release], pages=4096, pools=2)
        self.release = release
        self.buffers = new_buffers(host, SKB_RELEASES[release], skbs=512)
        self.host = host
        self.replay = SkbReplay(self.buffers)
        self.lines: list[str] = []
        self.next = 1
        later = {"napi": -1, "cpuid": 0, "nosync": 0} if host.rules.local_recycling else {}
        for number in range(2):
            params = {
                "pool_size": 8,
                "flags": 0,
                "order": 0,
                "nid": -1,
                "dma_dir": 0,
                "max_len": 0,
                "offset": 0,
            }
            self.do("create", pool=number, **params, **later)

    def do(self, name: str, **arguments: Any) -> Any:
        self.host.context.in_softirq = SERVING_SOFTIRQ
        self.lines.append(json.dumps({"op": name, "ctx": "softirq", **arguments}))
        return OPERATIONS[name](self.replay, arguments)

    def fresh(self) -> int:
        self.next += 1
        return self.next

    def page(self, choice: int) -> int:
        handle = self.fresh()
        self.do("alloc", pool=choice % 2, h=handle)
        if not self.host.rules.pool_sets_owner:
            page = self.replay.handles[handle].page
            self.host.pages[page].pp = choice % 2
        return handle

    def reference(self, choice: int) -> int:
        """An ordinary page, or one more reference to a pool's."""
        handle = self.fresh()
        self.do("page_alloc", h=handle, order=0)
        return handle

    def skb(self, choice: int) -> int | None:
        skbs = sorted(self.replay.skbs)
        return skbs[choice % len(skbs)] if skbs else None

    def record(self, handle: int) -> Any:
        return self.buffers.skbs[self.replay.skbs[handle]]

    def cloned(self, handle: int) -> bool:
        record = self.record(handle)
        return bool(record.cloned and self.buffers.shared[record.shared].dataref & DATAREF_MASK != 1)

    # Programs

    def make(self, first: int, second: int) -> None:
        """An skb: its head a page or not, marked with pages of a pool or plain with ordinary ones."""
        handle = self.fresh()
        take = self.page if first % 2 else self.reference
        own = 1 if first % 2 else 0
        if second % 2:
            size = 2048 if second % 4 == 1 else 4096
            self.do(
                "build_skb", s=handle, h=take(second), off=0, size=size, headroom=64, len=200, napi=0, own=own
            )
        else:
            self.do("alloc_skb", s=handle, kind=second % 3, size=256, headroom=64, len=second % 5 * 20)
        if own:
            self.do("mark_for_recycle", s=handle)
        for _ in range(second % 4):
            self.do("add_rx_frag", s=handle, h=take(second), off=0, len=1000, truesize=4096, own=own)

    def free(self, first: int, _second: int) -> None:
        handle = self.skb(first)
        if handle is not None:
            self.do("kfree_skb", s=handle)

    def copy(self, first: int, second: int) -> None:
        handle = self.skb(first)
        if handle is None or len(self.replay.skbs) > 20:
            return
        name = ("skb_clone", "skb_clone", "skb_clone", "pskb_copy", "skb_copy", "skb_realloc_headroom")[
            second % 6
        ]
        more = {"headroom": second % 200} if name == "skb_realloc_headroom" else {}
        self.do(name, s=handle, new=self.fresh(), **more)

    def change(self, first: int, second: int) -> None:
        handle = self.skb(first)
        if handle is None or self.record(handle).users != 1:
            return
        length = int(self.record(handle).len)
        name, arguments = (
            ("pskb_expand_head", {"nhead": second % 100, "ntail": 0}),
            ("skb_unclone", {}),
            ("skb_cow_head", {"headroom": second % 200}),
            ("pskb_trim", {"len": second * 37 % (length + 1)}),
            ("skb_linearize", {}),
            ("skb_unclone_keeptruesize", {}),
        )[second % 6]
        self.do(name, s=handle, **arguments)  # type: ignore[arg-type]

    def pull_tail(self, first: int, second: int) -> None:
        handle = self.skb(first)
        if handle is not None and self.record(handle).users == 1 and self.record(handle).data_len:
            self.do("pskb_pull_tail", s=handle, delta=1 + second * 53 % int(self.record(handle).data_len))

    def coalesce(self, first: int, second: int) -> None:
        to, source = self.skb(first), self.skb(second)
        if to is None or source is None or to == source or self.record(source).users != 1:
            return
        if self.release == "5.14" and self.cloned(source):
            return  # takes references that are dropped as shares: the fault repaired later
        self.do("try_coalesce", **{"to": to, "from": source})

    def gro(self, first: int, second: int) -> None:
        to, source = self.skb(first), self.skb(second)
        if to is None or source is None or to == source:
            return
        records = [self.record(handle) for handle in (to, source)]
        if any(record.users != 1 or self.cloned(h) for record, h in zip(records, (to, source), strict=True)):
            return
        shared = [self.buffers.shared[record.shared] for record in records]
        same = records[0].pp_recycle == records[1].pp_recycle
        if shared[1].frag_list or not records[1].len or (self.release == "5.14" and not same):
            return
        # what was merged before stays with the list, so its members must be alone as well
        self.do("gro_receive", **{"to": to, "from": source, "hdr": 0})

    def put(self, first: int, second: int) -> None:
        handle = self.page(first)
        if second % 3 == 0:
            self.do("get_page", h=handle)
        self.do("put_full", h=handle, direct=second % 2)

    PROGRAM = (make, make, free, free, copy, change, pull_tail, coalesce, gro, put)

    # Books

    def check(self) -> None:
        holders = ownership.Owned(Counter(), Counter())
        for handle in self.replay.handles.values():
            holders.references[handle.page] += handle.references
            holders.shares[handle.page] += int(handle.share)
        problems = ownership.faults(self.buffers, holders, Counter())
        for number in range(2):
            problems += self.pool_faults(number)
        assert not problems, "\n".join([*problems, *self.lines])

    def pool_faults(self, number: int) -> list[str]:
        """Invariants 1 to 4 of the specification."""
        pool = self.host.pools[number]
        cache = pool.cache[: int(pool.cache_count)].tolist()
        slots = self.host.slots[pool.ring_base : pool.ring_base + pool.ring_size]
        live = []
        position = int(pool.ring_head)
        while slots[position] and len(live) < pool.ring_size - (pool.ring_head - pool.ring_tail):
            live.append(int(slots[position]))
            position = (position + 1) % int(pool.ring_size)
        idle = cache + live
        found = []
        if not 0 <= pool.cache_count <= CACHE_SIZE:
            found.append(f"pool {number}: {pool.cache_count} entries in the cache")
        if len(set(idle)) != len(idle):
            found.append(f"pool {number}: a page is idle twice: {idle}")
        for page in idle:
            record = self.host.pages[page]
            if record.refcount != 1:
                found.append(f"pool {number}: idle page {page} has refcount {record.refcount}")
        out = {page for page in self.outside() if self.host.pages[page].pp == number}
        inflight = int(pool.hold) - int(pool.release)
        if inflight != len(idle) + len(out):
            found.append(f"pool {number}: {inflight} in flight, {len(idle)} idle, {len(out)} outside")
        return found

    def outside(self) -> set[int]:
        held = ownership.held_by_skbs(self.buffers).shares
        return set(held) | {handle.page for handle in self.replay.handles.values() if handle.share}


@pytest.mark.parametrize("release", RELEASES)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
@given(
    program=st.lists(
        st.tuples(st.integers(0, len(Machine.PROGRAM) - 1), st.integers(0, 99), st.integers(0, 99)),
        min_size=5,
        max_size=60,
    )
)
def test_no_page_is_lost_or_used_after_its_return(release: str, program: list[tuple[int, int, int]]) -> None:
    """Invariant 42: for any sequence of clone, copy, expand, trim, pull, coalesce, GRO and frees."""
    machine = Machine(release)
    for what, first, second in program:
        Machine.PROGRAM[what](machine, first, second)
        machine.check()
    for handle in sorted(machine.replay.skbs):
        machine.do("kfree_skb", s=handle)
        machine.check()
    for handle, held in sorted(machine.replay.handles.items()):
        for _ in range(held.references):
            machine.do("put_page", h=handle)
    machine.check()
    assert not np.any(machine.buffers.skbs.users > 0)
    for number in range(2):
        machine.do("destroy", pool=number)
        assert machine.host.pools[number].freed, "\n".join(machine.lines)
    assert machine.host.page_allocator.used_pages.sum() == 0


@pytest.mark.parametrize("release", RELEASES)
def test_the_books_notice_a_page_that_lost_its_mark(release: str) -> None:
    """An skb unmarked while it holds shares would lose its pages to the pool (spec 6.1, rule 5)."""
    machine = Machine(release)
    machine.make(1, 3)
    machine.check()
    for handle in machine.replay.skbs:
        machine.record(handle).pp_recycle = 0
    with pytest.raises(AssertionError, match="refcount 1, but 2 references"):
        machine.check()


def test_the_books_notice_the_coalescing_of_5_14() -> None:
    """The fault repaired in 5.18: plain references enter a marked skb (spec 6.6)."""
    machine = Machine("5.14")
    machine.make(1, 10)
    machine.make(1, 10)
    to, source = sorted(machine.replay.skbs)
    machine.do("skb_clone", s=source, new=99)
    machine.do("try_coalesce", **{"to": to, "from": source})
    with pytest.raises(AssertionError, match="refcount 2, but 1 references"):
        machine.check()
