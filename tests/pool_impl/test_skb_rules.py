"""Rules of skbs as short scenarios: sizes, records, and what is left when memory is short (spec 6.1-6.4)."""

from typing import Any

import pytest

from pool_impl import skb as buffer
from pool_impl import skb_calls
from pool_impl.jit import POOL_IMPL_DIGEST, entry
from pool_impl.layout import FCLONE_CLONE, FCLONE_NONE, FCLONE_ORIGINAL, PFMEMALLOC, PROCESS, Buffers
from pool_impl.release import RELEASES
from tests.pool_impl.skb_books import Skbs, cut
from tests.pool_impl.trace import Trace

ALL = pytest.mark.parametrize("kernel", list(RELEASES))
SLAB, FCLONE, NETDEV, NAPI = range(4)
"""kinds of ``alloc_skb``"""


def page_of(trace: Trace, *handles: int) -> None:
    """A page of the pool, which names it where the release wants that, for each handle."""
    trace.alloc(*handles)
    for handle in handles:
        trace.op("store_mem_info", h=handle, pool=0)


def packet(kernel: str = "6.12", *, clone: bool = True) -> Trace:
    """skb 10: 300 bytes in a head page, three fragments of 1000; skb 11 is its clone."""
    trace = Trace(kernel)
    page_of(trace, 1, 2, 3, 4)
    trace.op("build_skb", s=10, h=1, off=0, size=1024, headroom=64, len=300, napi=0, own=1)
    trace.op("mark_for_recycle", s=10)
    for handle in (2, 3, 4):
        trace.op("add_rx_frag", s=10, h=handle, off=100, len=1000, truesize=2048, own=1)
    if clone:
        trace.op("skb_clone", s=10, new=11)
    return trace


def new_skb(trace: Trace, handle: int, *, length: int = 0, kind: int = SLAB, size: int = 256) -> Any:
    """An skb without pages; returns its record."""
    trace.op("alloc_skb", s=handle, kind=kind, size=size, headroom=64, len=length)
    return trace.buffers.skbs[trace.skbs[handle]]


# Sizes


HEADS = [
    # release, kind, bytes asked for, end of the head, whether it is part of a page
    *((kernel, SLAB, 192, 192, 0) for kernel in ("5.14", "6.1")),
    *((kernel, SLAB, 193, 704, 0) for kernel in ("5.14", "6.1")),
    *((kernel, SLAB, size, 384, 0) for kernel, size in (("6.12", 1), ("6.12", 193), ("6.12", 384))),
    *((kernel, SLAB, 704, 704, 0) for kernel in RELEASES),
    *((kernel, SLAB, 705, 1728, 0) for kernel in RELEASES),
    # network buffers have 64 bytes of headroom more
    *((kernel, NETDEV, 640, 704, 0) for kernel in ("5.14", "6.1")),
    *((kernel, NETDEV, 641, 768, 1) for kernel in ("5.14", "6.1")),
    ("6.12", NETDEV, 320, 384, 0),
    ("6.12", NETDEV, 321, 448, 1),
    *((kernel, NETDEV, 3712, 3776, 1) for kernel in RELEASES),
    *((kernel, NETDEV, 3713, 7872, 0) for kernel in RELEASES),
    *((kernel, NAPI, 1, 704, 1) for kernel in RELEASES),
    *((kernel, NAPI, 640, 704, 1) for kernel in RELEASES),
    *((kernel, NAPI, 641, 768, 1) for kernel in RELEASES),
    *((kernel, NAPI, 3713, 7872, 0) for kernel in RELEASES),
]


@pytest.mark.parametrize(("kernel", "kind", "size", "end", "in_page"), HEADS)
def test_where_the_head_of_a_buffer_ends(kernel: str, kind: int, size: int, end: int, in_page: int) -> None:
    """Heads are rounded to cache lines, then to the allocator's bucket or cut from a page (alloc_skb,
    __netdev_alloc_skb, napi_alloc_skb); the shared info behind the end takes 320 bytes, the skb 256."""
    trace = Trace(kernel)
    record = new_skb(trace, 1, kind=kind, size=size)
    state = trace.look(1)
    assert (state["end"], state["head_frag"], record.truesize) == (end, in_page, end + 576)
    assert (record.headroom, record.len, state["tailroom"]) == (64, 0, end - 64)


EXACT = [
    # operation that makes a new head, its arguments, and the bytes that its bucket must have room for
    ("skb_unclone", {}, 704),
    ("skb_unclone_keeptruesize", {}, 704),
    ("skb_cow", {"headroom": 0}, 704),
    ("skb_cow_head", {"headroom": 64}, 704),
    ("pskb_expand_head", {"nhead": 0, "ntail": 0}, 704),
    ("skb_realloc_headroom", {"headroom": 65, "new": 12}, 768),
    ("skb_cow_head", {"headroom": 65}, 768),
    ("skb_cow_head", {"headroom": 128}, 768),
    ("skb_cow", {"headroom": 129}, 832),
    ("skb_cow", {"headroom": 1000}, 1664),
    ("skb_cow", {"headroom": 1088}, 1728),
    ("skb_realloc_headroom", {"headroom": 1088, "new": 12}, 1728),
    ("skb_cow", {"headroom": 1089}, 1792),
    ("pskb_expand_head", {"nhead": 1000, "ntail": 24}, 1728),
    ("pskb_expand_head", {"nhead": 1000, "ntail": 25}, 1729),
]


@ALL
@pytest.mark.parametrize(("name", "arguments", "needed"), EXACT)
def test_a_new_head_has_the_next_bucket(
    kernel: str, name: str, arguments: dict[str, int], needed: int
) -> None:
    """pskb_expand_head: the old end and what is asked for, no byte more; 704 and 1728 fill their buckets.
    Missing headroom is rounded up to cache lines by those who ask for it."""
    trace = packet(kernel)
    result = trace.op(name, s=10, **arguments)
    assert result.get("ret", 0) == 0
    state = trace.look(arguments.get("new", 10))
    assert state["end"] == (704 if needed <= 704 else 1728 if needed <= 1728 else 3776)
    room = max(0, arguments.get("headroom", 0) - 64)
    assert state["headroom"] == 64 + arguments.get("nhead", (room + 63) // 64 * 64)
    assert (state["cloned"], state["nohdr"], state["dataref"]) == (0, 0, 1)


@ALL
@pytest.mark.parametrize(("delta", "end"), [(484, 704), (485, 1728)])
def test_a_pull_leaves_room_for_further_pulls(kernel: str, delta: int, end: int) -> None:
    """__pskb_pull_tail: 128 bytes behind what it needs; 64 + 28 + 484 + 128 are 704."""
    trace = Trace(kernel)
    page_of(trace, 1)
    new_skb(trace, 10, length=28, size=192)
    trace.op("add_rx_frag", s=10, h=1, off=0, len=1000, truesize=4096, own=1)
    assert trace.op("pskb_pull_tail", s=10, delta=delta) == {"ret": 1}
    state = trace.look(10)
    assert (state["end"], state["len"], state["data_len"]) == (end, 1028, 1000 - delta)
    assert state["frags"][0][1:] == [delta, 1000 - delta]


@ALL
@pytest.mark.parametrize(("delta", "end"), [(339, 704), (340, 704), (341, 1728)])
def test_a_pull_into_a_private_head_takes_no_more_room_than_it_needs(
    kernel: str, delta: int, end: int
) -> None:
    """A clone's new head has more room only if the old end is too near: 704 - 64 - 300 are 340."""
    trace = packet(kernel)
    assert trace.op("pskb_pull_tail", s=10, delta=delta) == {"ret": 1}
    state = trace.look(10)
    assert (state["end"], state["len"], state["data_len"]) == (end, 3300, 3000 - delta)
    assert Skbs(trace.buffers).faults() == []


@ALL
@pytest.mark.parametrize(("delta", "moved"), [(292, False), (293, True)])
def test_a_pull_that_fits_into_the_head_leaves_it_where_it_is(kernel: str, delta: int, moved: bool) -> None:
    """A head page goes back only when a new head is needed: 704 - 64 - 348 are 292."""
    trace = Trace(kernel)
    page_of(trace, 1, 2)
    trace.op("build_skb", s=10, h=1, off=0, size=1024, headroom=64, len=348, napi=0, own=1)
    trace.op("mark_for_recycle", s=10)
    trace.op("add_rx_frag", s=10, h=2, off=0, len=1000, truesize=4096, own=1)
    before = trace.counters()
    assert trace.op("pskb_pull_tail", s=10, delta=delta) == {"ret": 1}
    assert trace.moved(before) == ({"ring": 1, "in_ring": 1} if moved else {})
    assert trace.look(10)["head_frag"] == 1 - moved


@ALL
@pytest.mark.parametrize(
    ("length", "left"), [(301, 0), (640, 0), (641, 641 - 300), (1400, 1100), (3300, 3000), (9999, 3000)]
)
def test_a_trim_gives_fragments_back_that_fit_into_the_head(kernel: str, length: int, left: int) -> None:
    """skb_condense: 640 bytes have room in the head behind its headroom. Only then is the truesize right."""
    trace = packet(kernel, clone=False)
    before = trace.look(10)["truesize"]
    assert trace.op("pskb_trim", s=10, len=length) == {"ret": 0}
    state = trace.look(10)
    assert (state["len"], state["data_len"]) == (min(3300, length), left)
    assert state["truesize"] == (before if left else 704 + 576)
    assert sum(frag[2] for frag in state["frags"]) == left
    assert trace.counters().get("ring", 0) == 3 - len(state["frags"])


@ALL
def test_a_trim_within_linear_data_leaves_clones_alone(kernel: str) -> None:
    """Without pages nothing is private that was not: the skb's own length is enough."""
    trace = Trace(kernel)
    record = new_skb(trace, 10, length=100)
    trace.op("skb_clone", s=10, new=11)
    assert trace.op("pskb_trim", s=10, len=60) == {"ret": 0}
    assert (record.len, trace.look(11)["len"]) == (60, 100)
    assert trace.look(10)["dataref"] == 2


@ALL
def test_linear_data_are_linear(kernel: str) -> None:
    """skb_linearize has nothing to do, also for a clone; with one byte in a page it has."""
    trace = Trace(kernel)
    page_of(trace, 1)
    new_skb(trace, 10, length=100)
    trace.op("skb_clone", s=10, new=11)
    with trace.slab(0, 0):
        assert trace.op("skb_linearize", s=10) == {"ret": 0}
    new_skb(trace, 12, length=100)
    trace.op("add_rx_frag", s=12, h=1, off=0, len=1, truesize=4096, own=1)
    assert trace.op("skb_linearize", s=12) == {"ret": 0}
    assert (trace.look(12)["len"], trace.look(12)["data_len"], trace.look(12)["frags"]) == (101, 0, [])


@ALL
def test_a_head_lies_where_its_part_of_the_page_does(kernel: str) -> None:
    """build_skb on the second half of a page; a fragment made of it begins with the data."""
    trace = Trace(kernel)
    page_of(trace, 1, 2)
    trace.op("build_skb", s=10, h=1, off=2048, size=2048, headroom=64, len=100, napi=0, own=1)
    assert trace.look(10)["head"][1] == 2048
    new_skb(trace, 11)
    trace.op("add_rx_frag", s=11, h=2, off=0, len=1000, truesize=4096, own=1)
    trace.op("try_coalesce", **{"to": 11, "from": 10})
    assert trace.look(11)["frags"][1][1:] == [2048 + 64, 100]


# Records


@ALL
def test_a_used_record_is_as_new(kernel: str) -> None:
    """Whatever it was before: memory from the slab has old content."""
    trace = Trace(kernel)
    new_skb(trace, 1, kind=FCLONE)
    memory = trace.buffers.memory
    skb, shared = trace.skbs[1], int(trace.buffers.skbs[trace.skbs[1]].shared)
    trace.op("kfree_skb", s=1)
    assert (memory.skb_free, memory.shared_free) == (skb, shared)
    for records, number in ((trace.buffers.skbs, skb), (trace.buffers.shared, shared)):
        for name in records.dtype.names:
            if name != "next":
                records[number][name] = 3
    record = new_skb(trace, 2, length=100)
    assert trace.skbs[2] == skb
    data = trace.buffers.shared[record.shared]
    fresh = new_skb(trace, 3, length=100)
    for name in fresh.dtype.names:
        if name not in ("shared", "next") and not name.startswith("walk_"):
            assert record[name] == fresh[name], name
    names = ("dataref", "end", "head_frag", "head_page", "head_offset", "gso_size", "nr_frags", "frag_list")
    assert [data[name] for name in names] == [1, fresh_end(trace, 3), 0, 0, 0, 0, 0, 0]


def fresh_end(trace: Trace, handle: int) -> int:
    return int(trace.look(handle)["end"])


@ALL
def test_records_come_back_in_any_way_of_freeing(kernel: str) -> None:
    """Members of lists, stolen heads, replaced heads and pairs: nothing is lost, and nothing free twice."""
    trace = packet(kernel)
    for handle in (20, 21, 22):
        new_skb(trace, handle, length=50)
    trace.op("frag_list_add", s=20, child=21)
    trace.op("skb_clone", s=22, new=23)
    trace.op("frag_list_add", s=20, child=22)
    trace.op("pskb_expand_head", s=20, nhead=10, ntail=0)
    new_skb(trace, 30, kind=FCLONE)
    trace.op("skb_clone", s=30, new=31)
    assert Skbs(trace.buffers).faults() == []
    trace.op("kfree_skb", s=20)
    assert Skbs(trace.buffers).faults() == []
    for handle in (10, 30, 31, 23, 11):
        trace.op("kfree_skb", s=handle)
        assert Skbs(trace.buffers).faults() == []
    assert Skbs(trace.buffers).used == []


def test_memory_for_skbs_has_an_end() -> None:
    trace = Trace()
    assert (trace.buffers.memory.skb_end, trace.buffers.memory.shared_end) == (65, 65)
    for handle in range(1, 65):
        new_skb(trace, handle)
    assert sorted(trace.skbs.values()) == list(range(1, 65))
    assert sorted(trace.buffers.skbs.shared[1:].tolist()) == list(range(1, 65))
    for kind in (SLAB, FCLONE, NETDEV, NAPI):
        trace.op("alloc_skb", s=99, kind=kind, size=100, headroom=0, len=0)
        assert trace.skbs.pop(99) == 0
    assert trace.buffers.skbs[0].headroom == trace.buffers.skbs[0].fclone == 0
    trace.op("kfree_skb", s=7)
    trace.op("skb_clone", s=8, new=7)
    assert len(set(trace.skbs.values())) == 64


def test_a_head_from_a_page_stays_the_callers_without_memory() -> None:
    """build_skb returns nothing then, and has not touched the page."""
    trace = Trace()
    page_of(trace, 1)
    for skbs, heads in ((0, 1), (1, 0)):
        with trace.slab(skbs, heads):
            assert trace.skb(skb_calls.BUILD, trace.handles[1].page, 0, 2048, 0, 0) == 0
        assert Skbs(trace.buffers).faults() == []
    before = trace.counters()
    trace.put(1)
    assert trace.moved(before) == {"ring": 1, "in_ring": 1}


def test_a_pair_serves_one_clone_at_a_time() -> None:
    """skb_clone takes the other half of alloc_skb_fclone's pair while it is free."""
    trace = Trace()
    first = new_skb(trace, 1, kind=FCLONE)
    assert (first.fclone, first.companion) == (FCLONE_ORIGINAL, 0)
    for number in (2, 3):
        trace.op("skb_clone", s=1, new=number)
    second, third = (trace.buffers.skbs[trace.skbs[number]] for number in (2, 3))
    assert (second.fclone, third.fclone) == (FCLONE_CLONE, FCLONE_NONE)
    assert (first.companion, second.companion, third.companion) == (trace.skbs[2], trace.skbs[1], 0)
    trace.op("kfree_skb", s=2)
    assert first.companion == 0
    trace.op("skb_clone", s=3, new=4)
    assert trace.buffers.skbs[trace.skbs[4]].fclone == FCLONE_NONE
    trace.op("skb_clone", s=1, new=5)
    fifth = trace.buffers.skbs[trace.skbs[5]]
    assert (fifth.fclone, first.companion) == (FCLONE_CLONE, trace.skbs[5])
    trace.op("kfree_skb", s=1)
    assert fifth.companion == 0


@pytest.mark.parametrize(("kind", "where"), [(SLAB, "cached"), (FCLONE, "ring")])
def test_deferred_freeing_of_a_pair_is_no_softirq(kind: int, where: str) -> None:
    """skb_attempt_defer_free frees an skb of a pair at once, where it is; others in the softirq of the CPU
    that allocated them, which is local to a pool of this CPU."""
    trace = Trace("6.12", cpuid=0)
    trace.alloc(1)
    trace.op("alloc_skb", s=1, kind=kind, size=256, headroom=64, len=0)
    trace.op("add_rx_frag", s=1, h=1, off=0, len=1000, truesize=4096, own=1)
    trace.op("mark_for_recycle", s=1)
    before = trace.counters()
    trace.op("defer_free", "process", s=1)
    assert trace.moved(before) == {where: 1, "cache" if where == "cached" else "in_ring": 1}
    assert trace.host.context.in_softirq == PROCESS


@entry(POOL_IMPL_DIGEST)
def name_pool(buffers: Buffers, page: int, number: int) -> None:
    buffer.store_mem_info(buffers, page, buffers.host.pools[number])


@ALL
def test_a_packets_pool_can_be_named_by_its_driver(kernel: str) -> None:
    """page_pool_store_mem_info, as a driver for releases without names in pages uses it (spec 6.2)."""
    trace = Trace(kernel)
    trace.alloc(1)
    trace.page(1).pp = 1
    name_pool(trace.buffers, trace.handles[1].page, 0)
    assert trace.page(1).pp == 0


# Data


@ALL
@pytest.mark.parametrize("name", ["skb_copy", "pskb_copy", "skb_copy_expand", "pskb_expand_head"])
def test_a_copy_keeps_the_size_of_its_segments(kernel: str, name: str) -> None:
    """gso_size lies in the shared info, which is new then."""
    trace = packet(kernel)
    trace.op("set_gso_size", s=10, size=1448)
    more = {"headroom": 64, "tailroom": 0} if name == "skb_copy_expand" else {"new": 12}
    more = {"nhead": 0, "ntail": 64} if name == "pskb_expand_head" else more | {"new": 12}
    trace.op(name, s=10, **more)
    copied = trace.buffers.skbs[trace.skbs[more.get("new", 10)]]
    assert trace.buffers.shared[copied.shared].gso_size == 1448
    assert copied.shared != trace.buffers.skbs[trace.skbs[11]].shared


@ALL
def test_a_private_copy_of_the_head_has_room_for_it(kernel: str) -> None:
    """pskb_copy copies the head with its headroom and takes a reference of each fragment: 10 of the
    headroom and 641 bytes need the bucket of 2048."""
    trace = Trace(kernel)
    page_of(trace, 1)
    page = trace.page(1)
    new_skb(trace, 10, length=641, size=705)
    trace.op("add_rx_frag", s=10, h=1, off=0, len=1000, truesize=4096, own=1)
    trace.op("pskb_copy", s=10, new=11)
    state = trace.look(11)
    assert (state["end"], state["headroom"], state["len"], state["data_len"]) == (1728, 64, 1641, 1000)
    assert state["truesize"] == 1728 + 576 + 1000
    assert page.refcount == 2


@ALL
def test_uncloning_with_the_truesize_kept(kernel: str) -> None:
    """The new head may be another size, but the socket has accounted for the old one."""
    trace = Trace(kernel)
    page_of(trace, 1)
    trace.op("build_skb", s=10, h=1, off=0, size=1728, headroom=64, len=300, napi=0, own=1)
    for number in (11, 12):
        trace.op("skb_clone", s=10, new=number)
    before = trace.look(10)["truesize"]
    trace.op("skb_unclone_keeptruesize", s=11)
    trace.op("skb_unclone", s=12)
    found = [trace.look(number)["truesize"] - before for number in (10, 11, 12)]
    assert found == [0, 0, 320]
    assert [trace.look(number)["dataref"] for number in (10, 11, 12)] == [1, 1, 1]


@pytest.mark.parametrize(("size", "end"), [(620, 384), (1024, 704)])
def test_a_head_that_became_small_is_freed_as_one(size: int, end: int) -> None:
    """6.12 keeps the end of an uncloned head, unless the new one is from the cache of small heads."""
    trace = Trace("6.12")
    page_of(trace, 1)
    trace.op("build_skb", s=10, h=1, off=0, size=size, headroom=0, len=100, napi=0, own=1)
    trace.op("skb_clone", s=10, new=11)
    trace.op("skb_unclone_keeptruesize", s=11)
    assert trace.look(11)["end"] == end


@ALL
def test_a_new_head_is_of_all_users(kernel: str) -> None:
    """A holder without the header part (__skb_header_release) has all of its own new data."""
    trace = Trace(kernel)
    new_skb(trace, 10, length=100)
    trace.op("header_release", s=10)
    assert (trace.look(10)["nohdr"], trace.look(10)["dataref"]) == (1, 0x10001)
    trace.op("skb_clone", s=10, new=11)
    assert trace.look(11)["dataref"] == 0x10002
    trace.op("pskb_expand_head", s=10, nhead=0, ntail=0)
    assert (trace.look(10)["nohdr"], trace.look(10)["dataref"]) == (0, 1)
    assert trace.look(11)["dataref"] == 1
    assert Skbs(trace.buffers).faults() == []


@ALL
@pytest.mark.parametrize(("asked", "shared"), [(63, False), (64, False), (65, True), (200, True)])
def test_a_copy_with_more_headroom_is_a_clone_with_a_new_head(kernel: str, asked: int, shared: bool) -> None:
    """skb_realloc_headroom: pskb_copy where the headroom is enough, a clone with a new head where not; the
    headroom that is missing is rounded to cache lines."""
    trace = packet(kernel, clone=False)
    trace.op("skb_realloc_headroom", s=10, headroom=asked, new=11)
    missing = (max(0, asked - 64) + 63) // 64 * 64
    assert trace.look(11)["headroom"] == 64 + missing
    # a clone leaves the bit behind that the data has had another holder
    assert (trace.look(10)["cloned"], trace.look(10)["dataref"]) == (int(shared), 1)
    assert trace.look(11)["frags"] == trace.look(10)["frags"]
    assert not trace.marked(11)


@ALL
def test_a_page_of_the_reserves_marks_the_skb(kernel: str) -> None:
    """skb_add_rx_frag, build_skb and whoever takes such a page over: only sockets that free memory may have
    it."""
    trace = Trace(kernel)
    page_of(trace, 1, 2, 3)
    trace.op("pfmemalloc", h=1, on=1)
    trace.op("build_skb", s=10, h=1, off=0, size=2048, headroom=64, len=100, napi=0, own=1)
    new_skb(trace, 11)
    trace.op("add_rx_frag", s=11, h=2, off=0, len=1000, truesize=4096, own=1)
    assert (trace.look(10)["pfmemalloc"], trace.look(11)["pfmemalloc"]) == (1, 0)
    for handle in (10, 11):
        trace.op("mark_for_recycle", s=handle)
    trace.op("try_coalesce", **{"to": 11, "from": 10})
    assert trace.look(11)["pfmemalloc"] == 1
    assert trace.look(11)["frags"][1][1:] == [64, 100]
    data = trace.buffers.shared[trace.buffers.skbs[trace.skbs[11]].shared]
    assert trace.host.pages[data.frag_page[1]].magic & PFMEMALLOC


# Memory runs out


OUT_OF_MEMORY = [
    # operation, arguments, and how many skbs and heads there is memory for
    ("skb_clone", {"new": 99}, 0, 9),
    ("skb_copy", {"new": 99}, 0, 9),
    ("skb_copy", {"new": 99}, 9, 0),
    ("skb_copy_expand", {"headroom": 64, "tailroom": 0, "new": 99}, 9, 0),
    ("pskb_copy", {"new": 99}, 0, 9),
    ("pskb_copy", {"new": 99}, 9, 0),
    ("skb_realloc_headroom", {"headroom": 10, "new": 99}, 9, 0),
    ("skb_realloc_headroom", {"headroom": 500, "new": 99}, 0, 9),
    ("skb_realloc_headroom", {"headroom": 500, "new": 99}, 9, 0),
    ("pskb_expand_head", {"nhead": 10, "ntail": 0}, 9, 0),
    ("skb_unclone", {}, 9, 0),
    ("skb_unclone_keeptruesize", {}, 9, 0),
    ("skb_cow", {"headroom": 10}, 9, 0),
    ("skb_cow_head", {"headroom": 10}, 9, 0),
    ("skb_linearize", {}, 9, 0),
    ("pskb_pull_tail", {"delta": 10}, 9, 0),
    ("pskb_trim", {"len": 1500}, 9, 0),
]


@ALL
@pytest.mark.parametrize(("name", "arguments", "skbs", "heads"), OUT_OF_MEMORY)
def test_without_memory_nothing_changes(
    kernel: str, name: str, arguments: dict[str, int], skbs: int, heads: int
) -> None:
    """Each operation on cloned data fails as a whole, and what it had taken already is free again."""
    trace = packet(kernel)
    before = trace.all_skbs()
    with trace.slab(skbs, heads):
        result = trace.op(name, s=10, **arguments)
    if "new" in arguments:
        assert trace.skbs.pop(99) == 0
    else:
        assert result == {"ret": 0 if name == "pskb_pull_tail" else -12}
    assert trace.all_skbs() == before
    assert Skbs(trace.buffers).faults() == []
    assert Skbs(trace.buffers).used == sorted(trace.skbs.values())


def nested(kernel: str, *, shared: bool = True) -> Trace:
    """skb 10 with a list of 20 (100 linear bytes and a list of 30: 100) and 40 (100); 10 itself has 640
    bytes, which fill its head. If shared, all have other users as well, by a partial copy."""
    trace = Trace(kernel)
    for handle in (40, 20, 30) if shared else (20, 30, 40):
        new_skb(trace, handle, length=100)
    new_skb(trace, 10, length=640, size=704)
    trace.op("frag_list_add", s=20, child=30)
    if shared:
        trace.op("pskb_copy", s=20, new=21)
    for child in (20, 40):
        trace.op("frag_list_add", s=10, child=child)
    if shared:
        trace.op("pskb_copy", s=10, new=11)
    return trace


@ALL
@pytest.mark.parametrize(
    ("name", "arguments", "skbs", "heads"),
    [
        ("pskb_pull_tail", {"delta": 50}, 0, 9),  # the member that is eaten in part needs a clone
        ("pskb_pull_tail", {"delta": 150}, 0, 9),
        ("pskb_pull_tail", {"delta": 150}, 1, 0),  # and that one a head of its own, to pull its list into
        ("pskb_pull_tail", {"delta": 150}, 1, 1),  # and the list's member a clone
        ("pskb_trim", {"len": 690}, 0, 9),
    ],
)
def test_a_pull_that_fails_in_a_list_changes_nothing(
    kernel: str, name: str, arguments: dict[str, int], skbs: int, heads: int
) -> None:
    trace = nested(kernel)
    before = {handle: Skbs(trace.buffers).bytes_of(skb) for handle, skb in trace.skbs.items()}
    used = Skbs(trace.buffers).used
    with trace.slab(skbs, heads):
        result = trace.op(name, s=10, **arguments)
    assert result == {"ret": 0 if name == "pskb_pull_tail" else -12}
    assert Skbs(trace.buffers).faults() == []
    assert Skbs(trace.buffers).used == used
    assert {handle: Skbs(trace.buffers).bytes_of(skb) for handle, skb in trace.skbs.items()} == before


@ALL
@pytest.mark.parametrize(("delta", "holders"), [(99, 2), (100, 2), (101, 1)])
def test_a_member_becomes_private_only_for_its_pages(kernel: str, delta: int, holders: int) -> None:
    """Its linear bytes are skipped in the skb itself; for a byte of its fragment the data must be its own."""
    trace = Trace(kernel)
    page_of(trace, 1)
    new_skb(trace, 10, length=200)
    new_skb(trace, 20, length=100)
    trace.op("add_rx_frag", s=20, h=1, off=0, len=1000, truesize=4096, own=1)
    trace.op("skb_clone", s=20, new=21)
    trace.op("frag_list_add", s=10, child=20)
    assert trace.op("pskb_pull_tail", s=10, delta=delta) == {"ret": 1}
    assert trace.look(21)["dataref"] == holders
    assert (trace.look(10)["data_len"], trace.look(21)["len"]) == (1100 - delta, 1100)
    assert Skbs(trace.buffers).faults() == []


@ALL
@pytest.mark.parametrize(
    ("delta", "lengths"),
    [
        (1, [199, 100]),
        (50, [150, 100]),
        (100, [100, 100]),
        (150, [50, 100]),
        (200, [100]),
        (201, [99]),
        (250, [50]),
        (300, []),
    ],
)
@pytest.mark.parametrize("steps", [1, 2])
def test_a_pull_leaves_the_rest_of_a_list(kernel: str, delta: int, lengths: list[int], steps: int) -> None:
    """Members with other users are cloned before they are eaten into: the other list stays. In steps it is
    the same as at once."""
    trace = nested(kernel)
    for part in (delta,) if steps == 1 else (min(50, delta - 1), max(delta - 50, 1)):
        assert part == 0 or trace.op("pskb_pull_tail", s=10, delta=part) == {"ret": 1}
        assert Skbs(trace.buffers).faults() == []
    state = trace.look(10)
    assert (state["len"], state["data_len"]) == (940, 300 - delta)
    assert [member[0] for member in state["frag_list"]] == lengths
    # two lists have what was not eaten into
    assert trace.look(11)["frag_list"] == [[200, 0, 1, 0], [100, 0, 2 if delta <= 200 else 1, 0]]
    assert Skbs(trace.buffers).faults() == []
    for handle in (10, 11, 21):
        trace.op("kfree_skb", s=handle)
    assert Skbs(trace.buffers).used == []


@ALL
@pytest.mark.parametrize(
    ("delta", "frags", "lengths"),
    [
        (999, [[999, 1]], [200, 100]),
        (1000, [], [200, 100]),
        (1001, [], [199, 100]),
        (1200, [], [100]),
        (1300, [], []),
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_fragments_are_eaten_before_the_list(
    kernel: str, delta: int, frags: list[list[int]], lengths: list[int], shared: bool
) -> None:
    trace = Trace(kernel)
    page_of(trace, 1)
    for handle, length in ((20, 200), (40, 100), (10, 50)):
        new_skb(trace, handle, length=length)
    trace.op("add_rx_frag", s=10, h=1, off=0, len=1000, truesize=4096, own=1)
    for child in (20, 40):
        trace.op("frag_list_add", s=10, child=child)
    if shared:
        trace.op("pskb_copy", s=10, new=11)
    assert trace.op("pskb_pull_tail", s=10, delta=delta) == {"ret": 1}
    state = trace.look(10)
    assert [frag[1:] for frag in state["frags"]] == frags
    assert [member[0] for member in state["frag_list"]] == lengths
    assert (state["len"], state["data_len"]) == (1350, 1300 - delta)
    assert Skbs(trace.buffers).faults() == []


@ALL
@pytest.mark.parametrize(
    ("kept", "lengths"),
    [
        *((-50, []), (0, []), (1, [1]), (50, [50]), (100, [100]), (101, [101]), (150, [150])),
        *((200, [200]), (201, [200, 1]), (250, [200, 50]), (299, [200, 99]), (300, [200, 100])),
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_a_trim_leaves_the_beginning_of_a_list(
    kernel: str, kept: int, lengths: list[int], shared: bool
) -> None:
    """Members with other users are cloned as far as they stay: the other list is as it was."""
    trace = nested(kernel, shared=shared)
    assert trace.op("pskb_trim", s=10, len=640 + kept) == {"ret": 0}
    state = trace.look(10)
    assert (state["len"], state["data_len"]) == (640 + kept, max(0, kept))
    assert [member[0] for member in state["frag_list"]] == lengths
    if shared:
        assert [member[0] for member in trace.look(11)["frag_list"]] == [200, 100]
        assert trace.look(11)["len"] == 940
    assert Skbs(trace.buffers).faults() == []
    for handle in list(trace.skbs):
        trace.op("kfree_skb", s=handle)
    assert Skbs(trace.buffers).used == []


@ALL
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "lengths", [(890, 790, 690), (890, 600), (750, 640, 639), (940, 939, 938), (641, 640)]
)
def test_a_packet_may_be_trimmed_again(kernel: str, lengths: tuple[int, ...], shared: bool) -> None:
    trace = nested(kernel, shared=shared)
    for length in lengths:
        before = Skbs(trace.buffers).bytes_of(trace.skbs[10])
        assert trace.op("pskb_trim", s=10, len=length) == {"ret": 0}
        assert Skbs(trace.buffers).bytes_of(trace.skbs[10]) == cut(before, 0, length)
        assert trace.look(10)["len"] == length
        assert Skbs(trace.buffers).faults() == []


@ALL
@pytest.mark.parametrize(("length", "holders"), [(640 + 1099, 1), (640 + 1100, 2), (640 + 1150, 2)])
def test_a_member_that_stays_whole_is_not_made_private(kernel: str, length: int, holders: int) -> None:
    trace = Trace(kernel)
    page_of(trace, 1)
    new_skb(trace, 10, length=640, size=704)
    new_skb(trace, 20, length=100)
    trace.op("add_rx_frag", s=20, h=1, off=0, len=1000, truesize=4096, own=1)
    trace.op("skb_clone", s=20, new=21)
    new_skb(trace, 40, length=100)
    for child in (20, 40):
        trace.op("frag_list_add", s=10, child=child)
    assert trace.op("pskb_trim", s=10, len=length) == {"ret": 0}
    assert trace.look(21)["dataref"] == holders
    assert (trace.look(10)["len"], trace.look(21)["len"]) == (length, 1100)
    assert Skbs(trace.buffers).faults() == []


@ALL
@pytest.mark.parametrize("length", [3300, 3301])
def test_a_trim_to_no_less_does_nothing(kernel: str, length: int) -> None:
    trace = packet(kernel)
    before = trace.all_skbs()
    assert trace.op("pskb_trim", s=10, len=length) == {"ret": 0}
    assert trace.all_skbs() == before


@ALL
@pytest.mark.parametrize(
    ("length", "sizes"),
    [
        (1299, [999]),
        (1300, [1000]),
        (1301, [1000, 1]),
        (2300, [1000, 1000]),
        (3299, [1000, 1000, 999]),
    ],
)
def test_a_trim_leaves_the_beginning_of_the_fragments(kernel: str, length: int, sizes: list[int]) -> None:
    """The others go back to the pool, of which nobody has a clone."""
    trace = packet(kernel, clone=False)
    assert trace.op("pskb_trim", s=10, len=length) == {"ret": 0}
    assert [frag[1:] for frag in trace.look(10)["frags"]] == [[100, size] for size in sizes]
    assert trace.counters().get("ring", 0) == 3 - len(sizes)
    assert trace.look(10)["data_len"] == length - 300


@ALL
def test_fragments_that_were_eaten_are_forgotten(kernel: str) -> None:
    """What lies behind the last fragment in the shared info is old."""
    trace = Trace(kernel)
    page_of(trace, 1)
    new_skb(trace, 10, length=50)
    trace.op("add_rx_frag", s=10, h=1, off=0, len=1000, truesize=4096, own=1)
    for child in (20, 30, 40):
        new_skb(trace, child, length=640, size=704)
        trace.op("frag_list_add", s=10, child=child)
    assert trace.op("pskb_pull_tail", s=10, delta=1000) == {"ret": 1}
    assert trace.op("pskb_trim", s=10, len=2050) == {"ret": 0}
    state = trace.look(10)
    assert (state["len"], state["data_len"]) == (2050, 1000)
    assert [member[0] for member in state["frag_list"]] == [640, 360]
    assert Skbs(trace.buffers).faults() == []


@ALL
def test_a_record_forgets_the_list_it_was_in(kernel: str) -> None:
    """Trimming goes down into a list and up again; a later packet in the same record is in none."""
    trace = nested(kernel, shared=False)
    assert trace.op("pskb_trim", s=10, len=690) == {"ret": 0}
    trace.op("kfree_skb", s=10)
    for handle in (50, 51, 52, 53):
        new_skb(trace, handle, length=100)
    assert sorted(trace.skbs.values()) == [1, 2, 3, 4]
    for done, handle in enumerate((53, 52, 51, 50), start=1):
        assert trace.op("pskb_trim", s=handle, len=60) == {"ret": 0}
        assert [trace.look(number)["len"] for number in (53, 52, 51, 50)] == [60] * done + [100] * (4 - done)


@ALL
def test_a_pull_after_a_trim_takes_from_the_front(kernel: str) -> None:
    """The skb where the trim ended has nothing to do with it."""
    trace = Trace(kernel)
    page_of(trace, 1)
    for handle in (20, 40, 10):
        new_skb(trace, handle, length=640, size=704)
    trace.op("add_rx_frag", s=10, h=1, off=0, len=1000, truesize=4096, own=1)
    for child in (20, 40):
        trace.op("frag_list_add", s=10, child=child)
    assert trace.op("pskb_trim", s=10, len=640 + 1000 + 300) == {"ret": 0}
    assert trace.op("pskb_pull_tail", s=10, delta=500) == {"ret": 1}
    state = trace.look(10)
    assert [frag[1:] for frag in state["frags"]] == [[500, 500]]
    assert [member[0] for member in state["frag_list"]] == [300]
    assert Skbs(trace.buffers).faults() == []
