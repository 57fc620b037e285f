"""The pool as Python sees it: counters of the golden vectors, and every misuse an error."""

import errno
import subprocess
import sys
from types import ModuleType

import pytest

import pool_impl
from pool_impl import (
    FLAG_DMA_MAP,
    FLAG_PAGE_FRAG,
    CreateError,
    Leak,
    LeakError,
    PagePool,
    PoolError,
    PoolParams,
    Skb,
)
from pool_impl.release import RELEASES

ALL = pytest.mark.parametrize("kernel", list(RELEASES))


def counted(pool: PagePool) -> dict[str, int]:
    return {name: value for name, value in pool.stats().items() if value}


# Counters


def test_g2_a_thousand_direct_returns() -> None:
    with PagePool(PoolParams(1024, FLAG_DMA_MAP)) as pool:
        for _ in range(1000):
            pool.put(pool.alloc(), direct=True)
        expected = {"alloc_fast": 999, "alloc_slow": 1, "alloc_empty": 1, "recycle_cached": 1000}
        assert counted(pool) == expected
        assert (pool.cached, pool.in_ring, pool.inflight) == (64, 0, 64)


def test_g3_a_thousand_returns_to_the_ring() -> None:
    with PagePool(PoolParams(1024, FLAG_DMA_MAP)) as pool:
        for _ in range(1000):
            pool.put(pool.alloc())
        assert counted(pool) == {
            "alloc_fast": 984,
            "alloc_slow": 1,
            "alloc_empty": 1,
            "alloc_refill": 15,
            "recycle_ring": 1000,
        }
        assert (pool.cached, pool.in_ring, pool.inflight) == (24, 40, 64)


def test_g4_pages_with_another_reference_are_not_recycled() -> None:
    with PagePool(PoolParams(1024, FLAG_DMA_MAP)) as pool:
        for _ in range(1000):
            page = pool.alloc()
            pool.get_page(page)
            pool.put(page)
            pool.put_page(page)
        assert pool.stats()["recycle_released_refcnt"] == 1000
        assert pool.inflight == 24


def test_the_counters_have_the_kernels_names_and_order() -> None:
    with PagePool() as pool:
        assert list(pool.stats()) == [
            *("alloc_fast", "alloc_slow", "alloc_slow_high_order", "alloc_empty", "alloc_refill"),
            *("alloc_waive", "recycle_cached", "recycle_cache_full", "recycle_ring", "recycle_ring_full"),
            "recycle_released_refcnt",
        ]


def test_f1_fragments_share_a_page() -> None:
    with PagePool(PoolParams(flags=FLAG_PAGE_FRAG)) as pool:
        parts = [pool.alloc_frag(2048) for _ in range(3)]
        assert [(part.offset, part.size) for part in parts] == [(0, 2048), (2048, 2048), (0, 2048)]
        assert parts[0].id == parts[1].id != parts[2].id
        pool.put(parts[0])
        assert pool.in_ring == 0
        pool.put(parts[1])
        assert pool.in_ring == 1
        pool.put(parts[2])


@ALL
def test_a_page_comes_back_on_every_release(kernel: str) -> None:
    with PagePool(kernel=kernel) as pool:
        pool.put(pool.alloc(), direct=True)
        pool.put(pool.alloc())
        skb = Skb.build(pool.alloc(), length=100)
        skb.mark_for_recycle()
        skb.free()
        assert counted(pool)["recycle_ring"] == 2
        assert counted(pool)["recycle_cached"] == 1
    assert pool.freed


# Misuse


def leave(pool: PagePool) -> None:
    with pool:
        pass


def test_leaving_the_block_lists_the_pages_that_are_out() -> None:
    pool = PagePool()
    first, second = pool.alloc(), pool.alloc()
    pool.get_page(second)
    with pytest.raises(LeakError) as caught:
        leave(pool)
    assert caught.value.leaks == tuple(
        sorted(
            [
                Leak(first.id, 0, 1, "caller"),
                Leak(second.id, 0, 2, "caller"),
                Leak(second.id, 0, 2, "reference"),
            ]
        )
    )
    assert f"page {first.id} at 0 (refcount 1, caller)" in str(caught.value)
    assert pool.closed


def test_pages_of_an_skb_that_lives_are_leaks_once() -> None:
    pool = PagePool(PoolParams(flags=FLAG_PAGE_FRAG))
    skb = Skb.alloc(pool)
    parts = [pool.alloc_frag(1024), pool.alloc_frag(1024)]
    for part in parts:
        skb.add_rx_frag(part)
    skb.clone()
    assert pool.leaks() == [Leak(parts[0].id, 0, 1, "skb"), Leak(parts[0].id, 1024, 1, "skb")]


def test_an_error_in_the_block_is_not_covered_by_the_report() -> None:
    pool = PagePool()
    pool.alloc()
    with pytest.raises(KeyError), pool:
        raise KeyError
    assert pool.closed


def test_many_leaks_are_counted_in_one_line() -> None:
    pool = PagePool()
    for _ in range(20):
        pool.alloc()
    with pytest.raises(LeakError, match=r"^20 not returned: .*, 12 more$"):
        leave(pool)


@ALL
def test_a_page_put_twice_is_refused(kernel: str) -> None:
    with PagePool(kernel=kernel) as pool:
        page = pool.alloc()
        pool.put(page, direct=True)
        with pytest.raises(PoolError, match=f"put: <Page {page.id}: .*: its share was used up before"):
            pool.put(page)


def test_an_old_handle_of_a_page_that_came_again_is_refused() -> None:
    with PagePool() as pool:
        old = pool.alloc()
        pool.put(old, direct=True)
        new = pool.alloc()
        assert new.id == old.id
        with pytest.raises(PoolError, match="used up"):
            pool.put(old)
        pool.put(new)


def test_a_page_of_another_pool_is_refused() -> None:
    with PagePool() as pool, PagePool() as other:
        page = other.alloc()
        skb = Skb.alloc(pool)
        for use in (pool.put, pool.get_page, pool.put_page, pool.release_page, skb.add_rx_frag):
            with pytest.raises(PoolError, match="belongs to another pool"):
                use(page)
        other.put(page)
        skb.free()


def test_a_share_count_below_zero_is_refused() -> None:
    pool = PagePool(PoolParams(flags=FLAG_PAGE_FRAG))
    with pytest.raises(PoolError, match="share count would fall below zero"):
        pool.put(pool.alloc())


@pytest.mark.parametrize("size", [2048, 4096])
def test_a_page_that_the_pool_cuts_up_does_not_leave_it(size: int) -> None:
    with PagePool(kernel="6.12") as pool:
        page = pool.alloc_frag(size)
        with pytest.raises(PoolError, match="have parts of it"):
            pool.release_page(page)
        pool.put(page)


def test_a_destroyed_pool_gives_no_pages() -> None:
    pool = PagePool(PoolParams(flags=FLAG_PAGE_FRAG))
    pool.close()
    pool.close()
    for use in (pool.alloc, lambda: pool.alloc_frag(64), lambda: Skb.alloc(pool)):
        with pytest.raises(PoolError, match="the pool is destroyed"):
            use()


def test_a_destroyed_pool_waits_for_its_pages() -> None:
    pool = PagePool()
    page = pool.alloc()
    with pytest.raises(PoolError, match="release_tick: the pool is in use"):
        pool.release_tick()
    pool.close()
    assert repr(pool) == "<PagePool 6.1, ring of 1024: destroyed, 1 in flight, 0 cached, 0 in ring>"
    assert not pool.release_tick()
    with pytest.raises(PoolError, match="return pages with direct=False"):
        pool.put(page, direct=True)
    pool.put(page)
    assert pool.release_tick()
    assert repr(pool) == "<PagePool 6.1, ring of 1024: freed>"


def test_memory_ends() -> None:
    pool = PagePool(pages=3)
    for _ in range(3):
        pool.alloc()
    with pytest.raises(PoolError, match="no page left"):
        pool.alloc()


def test_sizes_and_releases_that_do_not_exist_are_refused() -> None:
    with pytest.raises(PoolError, match=r"use one of 5.14, 6.1, 6.12"):
        PagePool(kernel="4.4")
    with pytest.raises(PoolError, match=r"6.1 needs FLAG_PAGE_FRAG"):
        PagePool().alloc_frag(64)
    with pytest.raises(PoolError, match="size = 4097: use 1 to 4096"):
        PagePool(kernel="6.12").alloc_frag(4097)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        (PoolParams(flags=64), "flags"),
        (PoolParams(nid=4), "nid"),
        (PoolParams(order=11), "order"),
        (PoolParams(napi=32), "napi"),
    ],
)
def test_creation_fails_with_errno_and_field(params: PoolParams, field: str) -> None:
    with pytest.raises(CreateError) as caught:
        PagePool(params)
    assert (caught.value.errno, caught.value.field) == (errno.EINVAL, field)


# State


def test_repr_shows_the_state() -> None:
    with PagePool(PoolParams(256)) as pool:
        page = pool.alloc()
        assert repr(page) == f"<Page {page.id}: 4096 bytes at 0, refcount 1>"
        assert repr(pool) == "<PagePool 6.1, ring of 256: 64 in flight, 63 cached, 0 in ring>"
        skb = Skb.build(page, headroom=64, length=1000)
        assert repr(page) == f"<Page {page.id}: 4096 bytes at 0, given away>"
        skb.mark_for_recycle()
        assert repr(skb) == "<Skb 1: 1000 bytes, 0 frags, marked, dataref 1>"
        skb.free()
        assert repr(skb) == "<Skb 1: freed>"


def test_returns_on_the_cpu_that_polls_are_direct_in_6_12() -> None:
    with PagePool(PoolParams(napi=3), kernel="6.12") as pool:
        pool.put(pool.alloc())
        assert pool.stats()["recycle_cached"] == 1


# skbs


@ALL
def test_the_last_free_of_clones_returns_the_page(kernel: str) -> None:
    with PagePool(kernel=kernel) as pool:
        skb = Skb.build(pool.alloc(), length=100)
        skb.mark_for_recycle()
        clone = skb.clone()
        assert (clone.len, clone.pp_recycle, clone.dataref) == (100, True, 2)
        skb.free()
        assert pool.in_ring == 0
        clone.free()
        assert pool.in_ring == 1


def test_fragments_go_back_with_the_skb() -> None:
    with PagePool(PoolParams(flags=FLAG_PAGE_FRAG)) as pool:
        skb = Skb.alloc(pool, length=64)
        parts = [pool.alloc_frag(2048) for _ in range(2)]
        for part in parts:
            skb.add_rx_frag(part, length=1000, offset=64)
        page = parts[0].id
        assert skb.frags == ((page, 64, 1000), (page, 2112, 1000))
        assert (skb.len, skb.data_len) == (2064, 2000)
        skb.mark_for_recycle()
        following = pool.alloc_frag(4096)  # the pool has no more of the first page
        skb.free()
        assert pool.in_ring == 1
        pool.put(following)


def test_an_skb_that_would_lose_a_page_is_not_freed() -> None:
    with PagePool() as pool:
        page = pool.alloc()
        skb = Skb.build(page)
        with pytest.raises(PoolError, match=f"page {page.id} would be lost"):
            skb.free()
        skb.mark_for_recycle()
        skb.free()


def test_a_page_that_left_the_pool_goes_with_an_unmarked_skb() -> None:
    with PagePool() as pool:
        page = pool.alloc()
        pool.release_page(page)
        Skb.build(page).free()
        assert (page.refcount, pool.inflight) == (0, 63)


def test_an_skb_is_refused_what_it_may_not_do() -> None:
    with PagePool() as pool:
        skb = Skb.build(pool.alloc())
        skb.mark_for_recycle()
        page = pool.alloc()
        with pytest.raises(PoolError, match="use at most 3776 bytes"):
            Skb.build(page, length=4096)
        with pytest.raises(PoolError, match="use at most 4096 bytes"):
            skb.add_rx_frag(page, length=4097)
        clone = skb.clone()
        with pytest.raises(PoolError, match="a clone has the same data"):
            skb.add_rx_frag(page)
        clone.free()
        for _ in range(17):
            skb.add_rx_frag(pool.alloc())
        with pytest.raises(PoolError, match="17 fragments are the most"):
            skb.add_rx_frag(page)
        pool.put(page)
        skb.free()
        for use in (skb.free, skb.clone, skb.mark_for_recycle, lambda: skb.len, lambda: skb.frags):
            with pytest.raises(PoolError, match="Skb 1: freed"):
                use()


def test_room_for_skbs_ends() -> None:
    pool = PagePool(skbs=1)
    Skb.alloc(pool)
    page = pool.alloc()
    with pytest.raises(PoolError, match="all 1 skbs are in use"):
        Skb.build(page)
    pool.put(page)


# The package


def test_what_is_exported_is_what_is_visible() -> None:
    for name in pool_impl.__all__:
        assert getattr(pool_impl, name)
    visible = {
        name
        for name, value in vars(pool_impl).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert visible - {"TYPE_CHECKING", "Any"} <= set(pool_impl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'alloc'"):
        pool_impl.alloc  # noqa: B018


def test_importing_the_package_costs_no_compiler() -> None:
    code = "import sys, pool_impl, workers.config; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
