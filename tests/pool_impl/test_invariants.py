"""Invariants and corner cases of the specification (sections 11 and 12), each as a short scenario.

``test_specification`` says which test is for which of them.
"""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_impl.layout import DMA_FROM_DEVICE, FLAG_DMA_MAP, NO_POOL, PFMEMALLOC, SIGNATURE
from pool_impl.release import RELEASES
from tests.pool_impl.trace import FRAGS, SYNCED, Trace

ALL = pytest.mark.parametrize("kernel", list(RELEASES))


def filled_ring(pages: int, **params: Any) -> Trace:
    """So many pages in the ring, none in the cache."""
    trace = Trace(pool_size=1024, **params)
    trace.alloc(*range(1, pages + 1))
    for handle in range(pages + 1, 1000):
        if trace.pool.cache_count == 0:
            break
        trace.alloc(handle)
        trace.op("get_page", h=handle)
        trace.put(handle)
    trace.put(*range(1, pages + 1))
    return trace


# Allocation


@ALL
def test_the_first_page_has_a_number_above_0(kernel: str) -> None:
    trace = Trace(kernel)
    trace.alloc(1)
    assert trace.handles[1].page > 0


def test_a_refill_moves_64_pages_and_leaves_63() -> None:
    trace = filled_ring(100)
    before = trace.counters()
    trace.alloc(1)
    assert trace.moved(before) == {"refill": 1, "cache": 63, "in_ring": -64}


def test_a_refill_hands_out_the_last_page_first_and_releases_none() -> None:
    trace = Trace()
    trace.alloc(*range(1, 65))
    pages = trace.numbers(*range(1, 65))
    trace.put(*range(1, 65))
    trace.alloc(*range(65, 129))
    assert trace.numbers(*range(65, 129)) == pages[::-1]
    assert "release" not in trace.counters()


def test_a_ring_with_uncleared_slots_is_empty_when_all_is_consumed() -> None:
    trace = filled_ring(20)
    trace.alloc(*range(1, 21))
    owner = trace.pool
    assert owner.ring_head - owner.ring_tail == 4
    before = trace.counters()
    trace.alloc(21)
    assert trace.moved(before) == {"empty": 1, "slow": 1, "hold": 64, "cache": 63}


@pytest.mark.parametrize("foreign", [1, 10])
def test_pages_of_another_node_leave_one_for_each_refill(foreign: int) -> None:
    """With all pages on the wrong node, never more of them leave than allocations were made."""
    trace = filled_ring(foreign, nid=0)
    trace.op("update_nid", pool=0, nid=1)
    for number in range(foreign):
        while trace.pool.cache_count:
            trace.alloc(900)
        before = trace.counters()
        trace.alloc(900)
        moved = trace.moved(before)
        assert (moved["waive"], moved["release"], moved["in_ring"], moved["slow"]) == (1, 1, -1, 1), number
        assert "empty" not in moved


def test_pages_before_one_of_another_node_are_kept() -> None:
    trace = filled_ring(3)
    trace.host.pages[trace.host.slots[1 + trace.pool.ring_head]].nid = 1
    before = trace.counters()
    trace.alloc(1)
    assert trace.moved(before) == {"waive": 1, "refill": 1, "release": 1, "in_ring": -2}


def test_without_a_node_of_its_own_a_pool_goes_by_the_cpu_that_refills() -> None:
    trace = filled_ring(3)
    trace.host.context.nid = 1
    before = trace.counters()
    trace.alloc(1)
    assert trace.moved(before)["waive"] == 1
    assert trace.page(1).nid == 1


def test_node_0_is_a_node_like_others() -> None:
    trace = Trace(nid=0)
    trace.host.context.nid = 1
    trace.alloc(1)
    assert trace.page(1).nid == 0


@ALL
def test_a_new_node_empties_the_cache_only(kernel: str) -> None:
    trace = Trace(kernel, flags=FLAG_DMA_MAP)
    trace.alloc(*range(1, 11))
    for handle in range(1, 11):
        trace.op("store_mem_info", h=handle, pool=0)
    trace.put(*range(1, 11))
    before = trace.counters()
    trace.op("nid_changed", pool=0, nid=-1)
    assert trace.moved(before) == {}
    trace.op("update_nid", pool=0, nid=1)
    assert trace.moved(before) == {"cache": -54, "release": 54, "unmaps": 54}
    assert trace.pool.nid == 1


def test_large_pages_come_one_at_a_time() -> None:
    trace = Trace(order=2)
    for number in range(1, 4):
        trace.alloc(number)
        assert trace.counters() == {"slow_high_order": number, "empty": number, "hold": number}
    assert trace.host.page_allocator.used_pages.sum() == 12
    trace.put(1, direct=1)
    trace.alloc(4)
    assert trace.counters()["fast"] == 1


@pytest.mark.parametrize(("pages", "failing"), [(64, 0), (64, 10), (20, 0), (20, 19), (20, 20), (0, 0)])
def test_a_fill_with_missing_pages_and_failing_maps(pages: int, failing: int) -> None:
    trace = Trace(flags=FLAG_DMA_MAP)
    trace.op("page_fail", skip=pages, count=1)
    trace.op("dma_fail", skip=0, count=failing)
    got = trace.op("alloc", pool=0, h=1)["ret"]
    kept = pages - failing
    expected = (
        {"empty": 1, "slow": 1, "hold": kept, "cache": kept - 1, "maps": kept} if kept else {"empty": 1}
    )
    assert trace.counters() == {name: value for name, value in expected.items() if value}
    assert bool(got) == bool(kept)
    assert trace.host.page_allocator.used_pages.sum() == kept


def test_a_failing_map_of_a_large_page_leaves_nothing() -> None:
    trace = Trace(flags=FLAG_DMA_MAP, order=1)
    trace.op("dma_fail", skip=0, count=1)
    assert trace.op("alloc", pool=0, h=1) == {"ret": 0}
    assert trace.counters() == {"empty": 1}
    assert trace.host.page_allocator.used_pages.sum() == 0
    trace.op("page_fail", skip=0, count=1)
    assert trace.op("alloc", pool=0, h=1) == {"ret": 0}
    trace.alloc(1)
    assert trace.counters() == {"empty": 3, "slow_high_order": 1, "hold": 1, "maps": 1}


def test_a_fill_that_came_short_leaves_nothing_for_the_next() -> None:
    """Failures injected after 10 pages: one request has those, the next none, then all is well."""
    trace = Trace()
    trace.op("page_fail", skip=10, count=2)
    trace.alloc(*range(1, 11))
    assert trace.op("alloc", pool=0, h=11) == {"ret": 0}
    trace.alloc(11)
    assert trace.counters()["hold"] == 74


def test_allocations_are_numbered_in_their_order() -> None:
    """So that two uses of a page can be told apart, also by those who look on."""
    bulk = Trace()
    bulk.alloc(1)
    filled = bulk.host.pages[bulk.pool.cache[:63]].next
    assert [*filled, bulk.page(1).next] == list(range(1, 65))
    single = Trace(order=1)
    single.alloc(1, 2, 3)
    assert [single.page(handle).next for handle in (1, 2, 3)] == [1, 2, 3]


def test_a_long_list_of_a_cpu_gives_its_oldest_pages_away() -> None:
    """Freed pages come back newest first; three of eight go to the lists that all CPUs share."""
    trace = Trace()
    trace.host.page_allocator.pcp_high = 8
    trace.host.page_allocator.pcp_batch = 3
    for handle in range(1, 10):
        trace.op("page_alloc", h=handle, order=0)
    pages = trace.numbers(*range(1, 10))
    for handle in range(1, 9):
        trace.op("put_page", h=handle)
    assert trace.host.page_allocator.pcp_count[0, 0] == 5
    for handle in range(11, 19):
        trace.op("page_alloc", h=handle, order=0)
    again = trace.numbers(*range(11, 19))
    assert again[:5] == pages[3:8][::-1]
    assert sorted(again[5:]) == sorted(pages[:3])
    assert trace.host.page_allocator.fresh == 10


@pytest.mark.parametrize("order", [0, 2])
def test_pages_fail_after_those_that_are_still_given(order: int) -> None:
    trace = Trace()
    trace.op("page_fail", skip=2, count=2)
    got = []
    for handle in range(1, 7):
        trace.op("page_alloc", h=handle, order=order)
        got.append(trace.handles[handle].page != 0)
    assert got == [True, True, False, False, True, True]


def test_the_peak_of_pages_is_that_of_all_cpus() -> None:
    """A page may come back on another CPU than it was taken on."""
    trace = Trace()
    allocator, context = trace.host.page_allocator, trace.host.context
    trace.op("page_alloc", h=1, order=2)
    context.cpu = 1
    trace.op("page_alloc", h=2, order=0)
    trace.op("put_page", h=1)
    trace.op("page_alloc", h=3, order=0)
    assert (allocator.peak_pages, allocator.used_pages.sum()) == (5, 2)


def test_a_fill_keeps_the_pages_whose_map_did_not_fail() -> None:
    trace = Trace(flags=FLAG_DMA_MAP)
    trace.op("dma_fail", skip=0, count=1)
    trace.alloc(*range(1, 64))
    assert len(set(trace.numbers(*range(1, 64)))) == 63
    assert all(trace.page(handle).dma_addr for handle in range(1, 64))


def test_a_page_from_the_reserves_stays_known_as_one() -> None:
    """The signature is added to the word, and found in it whatever the low bits are."""
    trace = Trace()
    trace.host.pages.magic[1:] = PFMEMALLOC
    trace.alloc(1, 2)
    assert trace.page(1).magic == SIGNATURE | PFMEMALLOC
    trace.packet(1, 1)
    trace.op("kfree_skb", s=1)
    trace.put(2)
    counters = trace.counters()
    assert (counters["released_refcnt"], counters["release"]) == (2, 2)


def test_pages_are_emergency_ones_while_the_reserves_are_in_use() -> None:
    trace = Trace()
    trace.host.page_allocator.reserves = 1
    trace.alloc(1)
    assert trace.page(1).magic == SIGNATURE | PFMEMALLOC
    trace.host.page_allocator.reserves = 0
    trace.put(1)
    while trace.pool.cache_count:
        trace.alloc(2)
        trace.put(2)
    trace.alloc(3)
    trace.put(3, direct=1)
    counters = trace.counters()
    assert (counters["released_refcnt"], counters["slow"], counters["cached"]) == (64, 2, 1)


# Return


OUTCOMES = [
    (0, 0, 1, 0, {"cached": 1, "cache": 1, "syncs": 1}),
    (0, 0, 1, 1, {"cache_full": 1, "ring": 1, "in_ring": 1, "syncs": 1}),
    (0, 0, 1, 2, {"cache_full": 1, "ring_full": 1, "syncs": 1, "unmaps": 1, "release": 1}),
    (0, 0, 0, 0, {"ring": 1, "in_ring": 1, "syncs": 1}),
    (0, 0, 0, 2, {"ring_full": 1, "syncs": 1, "unmaps": 1, "release": 1}),
    (0, 1, 0, 0, {"released_refcnt": 1, "unmaps": 1, "release": 1}),
    (0, 1, 1, 0, {"released_refcnt": 1, "unmaps": 1, "release": 1}),
    (1, 0, 0, 0, {"released_refcnt": 1, "unmaps": 1, "release": 1}),
    (1, 0, 1, 0, {"released_refcnt": 1, "unmaps": 1, "release": 1}),
]


@pytest.mark.parametrize(("references", "reserves", "direct", "filling", "expected"), OUTCOMES)
def test_the_outcome_of_one_return(
    references: int, reserves: int, direct: int, filling: int, expected: dict[str, int]
) -> None:
    """Spec 3.9, row by row; filling: nothing, the cache, cache and ring."""
    trace = Trace(flags=SYNCED, max_len=4096, pool_size=4)
    trace.alloc(*range(1, 200))
    if filling:
        trace.put(*range(199, 199 - (128 - int(trace.pool.cache_count)), -1), direct=1)
        trace.op("put_full", "process", h=1, direct=0)
    else:
        trace.put(1)
    if filling == 2:
        trace.put(2, 3, 4)
    if references:
        trace.op("get_page", h=5)
    trace.op("pfmemalloc", h=5, on=reserves)
    page = trace.page(5)
    before = trace.counters()
    trace.put(5, direct=direct)
    assert trace.moved(before) == expected
    if "release" in expected:
        assert (page.refcount, page.magic, page.pp, page.dma_addr) == (references, 0, NO_POOL, 0)
    else:
        assert (page.refcount, page.magic, page.pp) == (1, SIGNATURE, 0)


@pytest.mark.parametrize(("asked", "synced"), [(0, 0), (10, 10), (1500, 1500), (1501, 1500), (-1, 1500)])
def test_a_sync_covers_what_was_asked_up_to_the_limit(asked: int, synced: int) -> None:
    trace = Trace(flags=SYNCED, max_len=1500, offset=64, dma_dir=DMA_FROM_DEVICE)
    trace.alloc(1)
    device = trace.host.device
    assert (device.syncs, device.last_off, device.last_len) == (64, 64, 1500)
    trace.op("put", h=1, sync=asked, direct=0)
    assert (device.syncs, device.last_off, device.last_len) == (65, 64, synced)


@pytest.mark.parametrize("flags", [0, FLAG_DMA_MAP])
def test_without_the_flag_nothing_is_synced(flags: int) -> None:
    trace = Trace(flags=flags, max_len=1500)
    trace.alloc(1)
    trace.put(1)
    assert "syncs" not in trace.counters()


def test_a_bulk_counts_an_overflow_once() -> None:
    trace = Trace(pool_size=4)
    trace.alloc(*range(1, 17))
    before = trace.counters()
    trace.op("put_bulk", pool=0, hs=list(range(1, 17)))
    assert trace.moved(before) == {"ring": 4, "in_ring": 4, "ring_full": 1, "release": 12}


@pytest.mark.parametrize("kernel", ["5.14", "6.1"])
def test_returns_from_skbs_never_use_the_cache(kernel: str) -> None:
    trace = Trace(kernel)
    trace.alloc(1, 2)
    for handle in (1, 2):
        trace.op("store_mem_info", h=handle, pool=0)
    trace.packet(1, 1, 2)
    before = trace.counters()
    trace.op("kfree_skb", s=1)
    assert trace.moved(before) == {"ring": 2, "in_ring": 2}


@ALL
def test_counts_near_the_wrap_of_32_bits_change_nothing(kernel: str) -> None:
    """From 2**32 - 10 on, a run through overflow, releases and the end of the pool is the same."""
    found = []
    for start in (0, (1 << 32) - 10):
        trace = Trace(kernel, pool_size=16)
        trace.pool.hold = trace.pool.release = start
        states = []
        for turn in range(3):
            handles = range(100 * turn + 1, 100 * turn + 81)
            trace.alloc(*handles)
            for handle in handles:
                trace.op("store_mem_info", h=handle, pool=0)
            trace.op("get_page", h=handles[0])
            trace.put(*handles[1:])
            states.append(trace.pool_state(0))
        trace.op("destroy", pool=0)
        trace.put(*(100 * turn + 1 for turn in range(3)))
        states.append(trace.pool_state(0))
        trace.op("release_tick", pool=0)
        states.append(trace.pool_state(0))
        for state in states:
            state["hold"] = (state["hold"] - start) & 0xFFFFFFFF
            state["release"] = (state["release"] - start) & 0xFFFFFFFF
        found.append(states)
    assert found[0] == found[1]
    assert found[0][-1]["freed"]


# Fragments


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(sizes=st.lists(st.integers(1, 4096), min_size=1, max_size=30))
def test_fragments_of_a_page_follow_each_other_and_do_not_overlap(sizes: list[int]) -> None:
    trace = Trace(flags=FRAGS)
    last_page = end = 0
    for handle, size in enumerate(sizes, start=1):
        got = trace.op("alloc_frag", pool=0, h=handle, size=size)
        offset, page = got["off"], trace.handles[handle].page
        assert offset == (end if page == last_page else 0)
        last_page, end = page, offset + (size + 7) // 8 * 8
        assert end <= 4096


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
@pytest.mark.parametrize(("users", "puts"), [(2, 0), (2, 1), (2, 2), (4, 3), (1, 1)])
def test_a_cut_up_page_comes_back_once(kernel: str, users: int, puts: int) -> None:
    """By the last return or when the pool is done with it, whichever sees none left."""
    trace = Trace(kernel, flags=FRAGS if kernel == "6.1" else 0)
    trace.alloc(*range(1, users + 1), name="alloc_frag", size=4096 // users)
    page = trace.page(1)
    (number,) = trace.numbers(1)
    for put in range(1, puts + 1):
        before = trace.counters()
        trace.put(put)
        assert trace.moved(before) == {}
    before = trace.counters()
    trace.alloc(10, name="alloc_frag", size=4096)
    if puts == users:
        # nobody has a part: the same page again, from its start
        assert (trace.numbers(10), trace.handles[10].offset) == ([number], 0)
        assert trace.moved(before) == {"fast": 1}
        return
    assert page.frag_count == users - puts
    before = trace.counters()
    trace.put(*range(puts + 1, users))
    assert trace.moved(before) == {}
    trace.put(users)
    assert trace.moved(before) == {"ring": 1, "in_ring": 1}


def test_a_reused_page_is_synced_whole_and_the_count_of_pages_stays() -> None:
    """Syncs: one for each page that entered, each recyclable return, each reuse."""
    trace = Trace(flags=FRAGS | SYNCED, max_len=4096)
    trace.alloc(1, 2, name="alloc_frag", size=2048)
    page = trace.handles[1].page
    trace.put(1, 2)
    assert trace.counters()["syncs"] == 64
    trace.alloc(3, name="alloc_frag", size=2048)
    assert (trace.handles[3].page, trace.handles[3].offset) == (page, 0)
    assert (trace.counters()["syncs"], trace.counters()["hold"]) == (65, 64)
    trace.alloc(4, name="alloc_frag", size=4096)
    trace.put(3)
    assert trace.counters()["syncs"] == 66


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_a_fragment_larger_than_a_page_changes_nothing(kernel: str) -> None:
    trace = Trace(kernel, flags=FRAGS if kernel == "6.1" else 0)
    trace.alloc(1, name="alloc_frag", size=1000)
    before = trace.pool.tobytes()
    assert trace.op("alloc_frag", pool=0, h=2, size=4097) == {"ret": 0, "warn": 1}
    assert trace.pool.tobytes() == before


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_the_last_return_of_a_cut_up_page_counts_nothing_down(kernel: str) -> None:
    trace = Trace(kernel, flags=FRAGS if kernel == "6.1" else 0)
    trace.alloc(1, 2, name="alloc_frag", size=2048)
    trace.alloc(3, name="alloc_frag", size=4096)
    page = trace.page(1)
    trace.put(1, 2)
    assert page.frag_count == 1


def test_more_shares_given_up_at_once_leave_a_count_of_one() -> None:
    """6.12: who holds all that is left gives it up at once (spec 3.3)."""
    trace = Trace("6.12")
    trace.alloc(1)
    trace.op("fragment", h=1, nr=5, first=2)
    page = trace.page(1)
    assert trace.op("defrag", h=1, nr=2) == {"ret": 3}
    assert page.frag_count == 3
    assert trace.op("defrag", h=1, nr=3) == {"ret": 0}
    assert page.frag_count == 1
    assert trace.op("defrag", h=1, nr=2) == {"ret": -1, "warn": 1}


def test_two_shares_given_up_at_once_leave_a_count_of_one() -> None:
    trace = Trace("6.12")
    trace.alloc(1)
    trace.op("fragment", h=1, nr=2, first=2)
    page = trace.page(1)
    assert trace.op("defrag", h=1, nr=2) == {"ret": 0}
    assert page.frag_count == 1


def test_a_whole_page_of_a_pool_for_fragments_has_no_share() -> None:
    """6.1 leaves the count of such a page as it is, so its return is noticed."""
    trace = Trace(flags=FRAGS)
    trace.alloc(1)
    assert trace.op("put_full", h=1, direct=0) == {"warn": 1}
    assert trace.pool.frag_page == 0


@pytest.mark.parametrize("puts", [0, 1])
def test_the_page_being_cut_up_leaves_at_the_end(puts: int) -> None:
    """Not into the ring; and if somebody has a part of it, when that is returned."""
    trace = Trace(flags=FRAGS)
    trace.alloc(1, name="alloc_frag", size=1000)
    if puts:
        trace.put(1)
    trace.op("destroy", pool=0)
    assert bool(trace.pool.freed) == bool(puts)
    assert "ring" not in trace.counters()
    if not puts:
        trace.put(1)
        trace.op("release_tick", pool=0)
        assert trace.pool.freed


# skbs


@ALL
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_clones_return_the_page_with_the_last_of_them(kernel: str, order: tuple[int, ...]) -> None:
    trace = Trace(kernel)
    trace.alloc(1)
    trace.op("store_mem_info", h=1, pool=0)
    trace.packet(10, 1)
    trace.op("skb_clone", s=10, new=11)
    trace.op("skb_clone", s=11, new=12)
    for number in order:
        assert "ring" not in trace.counters()
        trace.op("kfree_skb", s=10 + number)
    assert trace.counters()["ring"] == 1


@ALL
@pytest.mark.parametrize("first", [10, 11])
def test_a_clone_with_data_of_its_own_has_references_and_no_mark(kernel: str, first: int) -> None:
    """The page is recycled if the reference goes first, else it leaves the pool: both are right."""
    trace = Trace(kernel)
    trace.alloc(1)
    trace.op("store_mem_info", h=1, pool=0)
    page = trace.page(1)
    trace.packet(10, 1)
    trace.op("skb_clone", s=10, new=11)
    trace.op("pskb_expand_head", s=11, nhead=100, ntail=0)
    assert (trace.marked(10), trace.marked(11), page.refcount) == (True, False, 2)
    before = trace.counters()
    trace.op("kfree_skb", s=first)
    trace.op("kfree_skb", s=21 - first)
    expected = {"released_refcnt": 1, "release": 1} if first == 10 else {"ring": 1, "in_ring": 1}
    assert trace.moved(before) == expected


@ALL
def test_a_new_head_without_a_clone_keeps_mark_and_shares(kernel: str) -> None:
    trace = Trace(kernel)
    trace.alloc(1, 2)
    for handle in (1, 2):
        trace.op("store_mem_info", h=handle, pool=0)
    head, fragment = trace.numbers(1, 2)
    trace.op("build_skb", s=10, h=1, off=0, size=2048, headroom=64, len=100, napi=0, own=1)
    trace.op("mark_for_recycle", s=10)
    trace.op("add_rx_frag", s=10, h=2, off=0, len=1000, truesize=4096, own=1)
    trace.op("pskb_expand_head", s=10, nhead=100, ntail=0)
    assert trace.marked(10)
    assert trace.counters()["ring"] == 1
    assert trace.host.pages[fragment].refcount == 1
    trace.op("kfree_skb", s=10)
    # the new head is ordinary memory: only the fragment came, behind the old head
    assert trace.counters()["ring"] == 2
    assert trace.host.slots[:3].tolist() == [head, fragment, 0]


@ALL
def test_fragments_go_back_before_the_head(kernel: str) -> None:
    trace = Trace(kernel)
    trace.alloc(1, 2, 3)
    for handle in (1, 2, 3):
        trace.op("store_mem_info", h=handle, pool=0)
    head, *fragments = trace.numbers(1, 2, 3)
    trace.op("build_skb", s=10, h=1, off=0, size=2048, headroom=64, len=100, napi=0, own=1)
    trace.op("mark_for_recycle", s=10)
    for handle in (2, 3):
        trace.op("add_rx_frag", s=10, h=handle, off=0, len=1000, truesize=4096, own=1)
    trace.op("kfree_skb", s=10)
    assert trace.host.slots[:4].tolist() == [*fragments, head, 0]


@ALL
def test_an_ordinary_page_in_a_marked_skb_is_freed_once(kernel: str) -> None:
    trace = Trace(kernel)
    trace.op("page_alloc", h=1, order=0)
    page = trace.page(1)
    trace.packet(10, 1, own=0)
    trace.op("mark_for_recycle", s=10)
    trace.op("kfree_skb", s=10)
    assert (page.refcount, trace.host.page_allocator.used_pages.sum()) == (0, 0)
    assert trace.counters() == {}


@ALL
@pytest.mark.parametrize("name", ["pskb_copy", "skb_copy", "skb_copy_expand"])
def test_copies_are_not_marked(kernel: str, name: str) -> None:
    trace = Trace(kernel)
    trace.alloc(1)
    trace.op("store_mem_info", h=1, pool=0)
    page = trace.page(1)
    trace.packet(10, 1)
    more = {"headroom": 64, "tailroom": 0} if name == "skb_copy_expand" else {}
    trace.op(name, s=10, new=11, **more)
    assert (trace.marked(10), trace.marked(11)) == (True, False)
    assert page.refcount == (2 if name == "pskb_copy" else 1)


@ALL
def test_a_reference_to_a_fragment_is_a_plain_one(kernel: str) -> None:
    trace = Trace(kernel)
    trace.alloc(1)
    trace.op("store_mem_info", h=1, pool=0)
    page = trace.page(1)
    shares = int(page.frag_count)
    trace.packet(10, 1)
    trace.op("frag_ref", s=10, i=0, h=2)
    assert (page.refcount, page.frag_count) == (2, shares)


def test_the_truesize_is_the_memory_and_not_the_payload() -> None:
    trace = Trace()
    trace.alloc(1)
    trace.packet(10)
    record = trace.buffers.skbs[trace.skbs[10]]
    before = int(record.truesize)
    trace.op("add_rx_frag", s=10, h=1, off=0, len=100, truesize=2048, own=1)
    assert (record.truesize - before, record.len) == (2048, 100)


# End of life


@ALL
def test_a_pool_that_has_all_its_pages_goes_at_once(kernel: str) -> None:
    trace = Trace(kernel, flags=FLAG_DMA_MAP)
    trace.alloc(1, 2)
    for handle in (1, 2):
        trace.op("store_mem_info", h=handle, pool=0)
    trace.put(1)
    trace.put(2, direct=1)
    trace.op("destroy", pool=0)
    assert (trace.pool.freed, trace.pool.destroy_cnt) == (1, 1)
    assert trace.host.device.unmaps == trace.host.device.maps == 64
    assert trace.host.page_allocator.used_pages.sum() == 0


@ALL
def test_a_pool_waits_for_its_pages_and_says_so_every_60_seconds(kernel: str) -> None:
    trace = Trace(kernel)
    trace.alloc(1, 2)
    for handle in (1, 2):
        trace.op("store_mem_info", h=handle, pool=0)
    trace.op("destroy", pool=0)
    stalls = []
    for second in range(1, 125):
        trace.op("release_tick", pool=0)
        stalls.append(int(trace.pool.stalls))
        if second == 100:
            trace.put(1)
            assert (trace.counters()["ring"], trace.pool.freed) == (1, 0)
    assert (stalls[58], stalls[59], stalls[118], stalls[119]) == (0, 1, 1, 2)
    assert (trace.pool.ring_head, trace.pool.release) == (1, 63)
    trace.put(2)
    assert not trace.pool.freed
    trace.op("release_tick", pool=0)
    assert trace.pool.freed
    assert trace.pool.stalls == 2


def test_the_cache_is_emptied_in_the_first_pass_only() -> None:
    """A direct return to a destroyed pool, a driver's fault, is never found again."""
    trace = Trace()
    trace.alloc(1, 2)
    trace.op("destroy", pool=0)
    assert trace.counters()["release"] == 62
    trace.put(1, direct=1)
    trace.put(2)
    trace.op("release_tick", pool=0)
    assert (trace.pool.cache_count, trace.pool.release, trace.pool.freed) == (1, 63, 0)


def test_no_return_is_local_to_a_destroyed_pool_of_a_cpu() -> None:
    """Its cache has been emptied for the last time: the page goes through the ring (spec 4.2)."""
    trace = Trace("6.12", cpuid=0)
    trace.alloc(1, 2)
    trace.put(1)
    assert trace.counters()["cached"] == 1
    trace.op("destroy", pool=0)
    trace.put(2)
    assert (trace.counters()["cached"], trace.counters()["ring"]) == (1, 1)
    trace.op("release_tick", pool=0)
    assert trace.pool.freed


@pytest.mark.parametrize(("kernel", "late"), [("6.1", 1), ("6.12", 0)])
def test_a_page_that_outlives_the_device_is_unmapped_late_up_to_6_1(kernel: str, late: int) -> None:
    """Spec 4.4: an unmap for a device that is gone."""
    trace = Trace(kernel, flags=SYNCED, max_len=4096)
    trace.alloc(1)
    trace.op("destroy", pool=0)
    device = trace.host.device
    device.removed = 1
    syncs = int(device.syncs)
    trace.put(1)
    trace.op("release_tick", pool=0)
    assert (device.late_unmaps, device.unmaps, trace.pool.freed) == (late, device.maps, 1)
    assert device.syncs - syncs == late


@pytest.mark.parametrize(("kernel", "out"), [("6.1", 1), ("6.12", 0)])
def test_pages_that_are_out_at_destroy_stay_mapped_up_to_6_1(kernel: str, out: int) -> None:
    """Also where nothing is synced (spec 4.2)."""
    trace = Trace(kernel, flags=FLAG_DMA_MAP)
    trace.alloc(1)
    trace.op("destroy", pool=0)
    assert trace.host.device.maps - trace.host.device.unmaps == out


def test_a_page_that_got_a_reference_in_the_ring_is_warned_of_at_the_end() -> None:
    """Somebody took it after its return: the pool drops its own reference only."""
    trace = Trace()
    trace.alloc(1, 2)
    taken, other = trace.numbers(1, 2)
    trace.put(1, 2)
    trace.host.pages[taken].refcount = 2
    assert trace.op("destroy", pool=0) == {"warn": 1}
    assert (trace.host.pages[taken].refcount, trace.host.pages[other].refcount) == (1, 0)
    assert trace.pool.freed


@ALL
def test_a_leaked_page_keeps_the_pool_for_ever(kernel: str) -> None:
    """Spec 4.3: its mapping stays too, and the page allocator gives it to others meanwhile. 6.12 does not
    unmap it either, since nothing in the page tells any more that it was mapped."""
    trace = Trace(kernel, flags=FLAG_DMA_MAP)
    trace.alloc(1)
    page = trace.handles[1].page
    trace.op("leak_page", h=1)
    trace.op("destroy", pool=0)
    for _ in range(120):
        trace.op("release_tick", pool=0)
    assert (trace.pool.freed, trace.pool.stalls, trace.pool_state(0)["inflight"]) == (0, 2, 1)
    found = []
    for handle in range(2, 80):
        trace.op("page_alloc", h=handle, order=0)
        found.append(trace.handles[handle].page)
    assert page in found
    assert trace.host.device.maps - trace.host.device.unmaps == 1
