"""Each difference between releases, by a scenario that comes out differently.

For 5.14 there are no recordings: these tests are what it is checked by, each after a rule of the
specification.
"""

import errno
from typing import Any

import numpy as np
import pytest

from pool_impl import coalesce, fragments, page_alloc, pool, skb, skb_change
from pool_impl.errors import CreateError
from pool_impl.host import new_buffers, new_host
from pool_impl.jit import POOL_IMPL_DIGEST, entry
from pool_impl.layout import (
    BH_DISABLED,
    FLAG_DMA_MAP,
    FLAG_DMA_SYNC_DEV,
    FLAG_PAGE_FRAG,
    NO_CPU,
    NO_POOL,
    PROCESS,
    RECYCLE_CACHED,
    RECYCLE_RING,
    SERVING_SOFTIRQ,
    Buffers,
    Host,
)
from pool_impl.release import RELEASES, SKB_RELEASES

ALL = tuple(RELEASES)

ALLOC, PUT, PUT_DIRECT, DESTROY, TICK, ALLOC_FRAG, RETURN, RELEASE, DROP = range(9)


@entry(POOL_IMPL_DIGEST)
def do(host: Host, what: int, page: int) -> int:
    owner = host.pools[0]
    if what == ALLOC:
        return pool.alloc(host, owner)
    if what == PUT:
        pool.put(host, owner, page, pool.WHOLE, False)
    elif what == PUT_DIRECT:
        pool.put(host, owner, page, pool.WHOLE, True)
    elif what == DESTROY:
        return int(pool.destroy(host, owner))
    elif what == TICK:
        return int(pool.release_tick(host, owner))
    elif what == ALLOC_FRAG:
        return fragments.alloc_frag(host, owner, page)
    elif what == RETURN:
        return int(pool.return_skb_page(host, page))
    elif what == RELEASE:
        pool.release_page(host, owner, page)
    elif what == DROP:
        page_alloc.put_page(host, page)
    return 0


def machine(release: str, **params: Any) -> Host:
    host = new_host(RELEASES[release], pages=1024)
    pool.create(host, 0, pool.PoolParams(pool_size=64, **params))
    host.context.in_softirq = SERVING_SOFTIRQ
    return host


def recycled(host: Host, column: int) -> int:
    return int(host.pools[0].recycle[:, column].sum())


@pytest.mark.parametrize(
    ("release", "expected"),
    [("5.14", (0, 0, 1)), ("6.1", (0, 1, 1)), ("6.12", (1, 1, 1))],
)
def test_where_a_direct_return_may_use_the_cache(release: str, expected: tuple[int, ...]) -> None:
    """Spec 3.5: only while a softirq is served; with bottom halves disabled, too; trusted anywhere."""
    found = []
    for context in (PROCESS, BH_DISABLED, SERVING_SOFTIRQ):
        host = machine(release)
        page = do(host, ALLOC, 0)
        host.context.in_softirq = context
        do(host, PUT_DIRECT, page)
        found.append(recycled(host, RECYCLE_CACHED))
        assert recycled(host, RECYCLE_CACHED) + recycled(host, RECYCLE_RING) == 1
    assert tuple(found) == expected


@pytest.mark.parametrize(("release", "cached"), [("5.14", 0), ("6.1", 0), ("6.12", 1)])
def test_whether_a_return_on_the_pools_cpu_is_direct(release: str, cached: int) -> None:
    host = machine(release, cpuid=0)
    do(host, PUT, do(host, ALLOC, 0))
    assert recycled(host, RECYCLE_CACHED) == cached


def test_a_ring_above_32768_is_refused_by_5_14_only() -> None:
    for release in ALL:
        host = new_host(RELEASES[release], pages=1)
        if release == "5.14":
            pool.create(host, 0, pool.PoolParams(pool_size=32768))
            assert host.pools[0].ring_size == 32768
            with pytest.raises(CreateError, match="E2BIG: pool_size = 32769") as raised:
                pool.create(host, 0, pool.PoolParams(pool_size=32769))
            assert raised.value.errno == errno.E2BIG
        else:
            pool.create(host, 0, pool.PoolParams(pool_size=40000))
            assert host.pools[0].ring_size == 16384


def test_an_unknown_flag_is_refused_before_an_oversized_ring() -> None:
    """Spec 1.5: the first failing check wins."""
    host = new_host(RELEASES["5.14"], pages=1)
    with pytest.raises(CreateError, match="EINVAL: flags"):
        pool.create(host, 0, pool.PoolParams(pool_size=40000, flags=FLAG_PAGE_FRAG))


def test_5_14_has_no_fragments() -> None:
    host = machine("5.14")
    assert do(host, ALLOC_FRAG, 2048) == 0
    assert host.context.warnings == 1
    assert host.page_allocator.used_pages.sum() == 0


@pytest.mark.parametrize(("release", "count"), [("5.14", 0), ("6.1", 0), ("6.12", 1)])
def test_the_fragment_count_of_a_page_that_enters(release: str, count: int) -> None:
    host = machine(release)
    assert host.pages[do(host, ALLOC, 0)].frag_count == count


@pytest.mark.parametrize("release", ALL)
def test_who_names_a_pages_pool(release: str) -> None:
    """Spec 6.2: in 5.14 the driver, for each packet; freeing the packet takes the name away."""
    host = machine(release)
    page = do(host, ALLOC, 0)
    assert host.pages[page].pp == (NO_POOL if release == "5.14" else 0)
    host.pages[page].pp = 0  # page_pool_store_mem_info
    assert do(host, RETURN, page) == 1
    assert recycled(host, RECYCLE_RING) == 1
    assert host.pages[page].pp == (NO_POOL if release == "5.14" else 0)


@pytest.mark.parametrize("release", ALL)
def test_leaving_a_pool_clears_the_name_where_the_pool_set_it(release: str) -> None:
    host = machine(release)
    page = do(host, ALLOC, 0)
    host.pages[page].pp = 0
    do(host, RELEASE, page)
    assert host.pages[page].magic == 0
    assert host.pages[page].pp == (0 if release == "5.14" else NO_POOL)


@pytest.mark.parametrize("release", ["5.14", "6.1", "6.12"])
@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_how_many_pages_a_slow_allocation_asks_for(release: str, batch: int) -> None:
    """One alone is no bulk: it comes from the pool's node in all releases, as before 5.13."""
    host = machine(release, nid=1, slow_batch=batch)
    page = do(host, ALLOC, 0)
    assert host.pages[page].nid == (0 if release == "5.14" and batch > 1 else 1)
    assert host.pools[0].hold == host.pools[0].cache_count + 1 == batch
    assert host.pools[0].alloc_slow == 1
    assert host.page_allocator.used_pages.sum() == batch


def test_a_single_slow_allocation_may_fail() -> None:
    host = machine("6.1", slow_batch=1)
    host.page_allocator.fail_count = 1
    assert do(host, ALLOC, 0) == 0
    assert host.pools[0].hold == host.pools[0].alloc_slow == 0
    assert do(host, ALLOC, 0) != 0


@pytest.mark.parametrize(("release", "nid"), [("5.14", 0), ("6.1", 1), ("6.12", 1)])
def test_whether_a_bulk_fill_honours_the_pools_node(release: str, nid: int) -> None:
    host = machine(release, nid=1)
    assert host.pages[do(host, ALLOC, 0)].nid == nid


def test_pages_of_a_pinned_pool_of_5_14_are_all_waived() -> None:
    """Spec 9.2: with refill always wrong, every slow fill was empty or waived before."""
    host = machine("5.14", nid=1)
    for _ in range(20):
        pages = [do(host, ALLOC, 0) for _ in range(64)]
        for page in pages:
            do(host, PUT, page)
    owner = host.pools[0]
    assert owner.alloc_refill == 0
    assert owner.alloc_slow == owner.alloc_empty + owner.alloc_waive == 20


@pytest.mark.parametrize(("release", "locks"), [("5.14", 1), ("6.1", 0), ("6.12", 0)])
def test_whether_refill_takes_the_consumer_lock(release: str, locks: int) -> None:
    assert RELEASES[release].refill_locks_ring == locks
    host = machine(release)
    pages = [do(host, ALLOC, 0) for _ in range(64)]
    for page in pages:
        do(host, PUT, page)
    # with or without it a refill hands out the last page that it took
    assert do(host, ALLOC, 0) == pages[-1]
    assert host.pools[0].alloc_refill == 1


@pytest.mark.parametrize(("release", "goes_on"), [("5.14", 1), ("6.1", 0), ("6.12", 0)])
def test_the_deferred_release_with_more_pages_gone_than_came(release: str, goes_on: int) -> None:
    """Spec 4.2: 5.14 stops on exactly 0; all try once more after the first pass, and warn in each."""
    host = machine(release)
    page = do(host, ALLOC, 0)
    do(host, RELEASE, page)
    host.pools[0].release += 1
    assert do(host, DESTROY, 0) == 1
    assert host.context.warnings == 1
    assert do(host, TICK, 0) == goes_on
    assert host.context.warnings == 2
    assert host.pools[0].freed == 0


@pytest.mark.parametrize(("release", "unmapped"), [("5.14", 63), ("6.1", 63), ("6.12", 64)])
def test_what_destroy_unmaps(release: str, unmapped: int) -> None:
    host = machine(release, flags=FLAG_DMA_MAP | FLAG_DMA_SYNC_DEV, max_len=4096)
    page = do(host, ALLOC, 0)
    assert do(host, DESTROY, 0) == 1
    assert host.device.unmaps == unmapped
    syncs = int(host.device.syncs)
    host.pages[page].pp = 0
    do(host, PUT, page)
    assert host.device.syncs == syncs + (release != "6.12")
    assert do(host, TICK, 0) == 0
    assert host.device.unmaps == 64
    assert host.pools[0].freed == 1


@pytest.mark.parametrize(
    ("scheduled", "owner", "warnings"), [(1, NO_CPU, 0), (0, NO_CPU, 1), (1, 0, 1), (0, 0, 2)]
)
def test_a_napi_instance_should_be_disabled_and_idle_at_destroy(
    scheduled: int, owner: int, warnings: int
) -> None:
    """Spec 4.2 and 6.6: direct permission is revoked before the pool is emptied."""
    host = machine("6.12", napi=3)
    host.device.napi_scheduled[3] = scheduled
    host.device.napi_owner[3] = owner
    page = do(host, ALLOC, 0)
    do(host, DESTROY, 0)
    assert host.context.warnings == warnings
    do(host, PUT, page)
    assert (recycled(host, RECYCLE_CACHED), recycled(host, RECYCLE_RING)) == (0, 1)


# skbs


@entry(POOL_IMPL_DIGEST)
def merge(buffers: Buffers, pages: Any, marks: Any, gro: bool) -> int:
    """Coalesce a cloned skb of one fragment onto another, or merge it by GRO uncloned."""
    to = skb.alloc(buffers, 100)
    source = skb.alloc(buffers, 100)
    skb.add_rx_frag(buffers, to, pages[0], 0, 1000, 4096)
    skb.add_rx_frag(buffers, source, pages[1], 0, 1000, 4096)
    if marks[0]:
        skb.mark_for_recycle(buffers, to)
    if marks[1]:
        skb.mark_for_recycle(buffers, source)
    if gro:
        return coalesce.gro_receive(buffers, to, source, 0)[0]
    skb.clone(buffers, source)
    return int(coalesce.try_coalesce(buffers, to, source)[0])


def two_skbs(release: str, marks: tuple[int, int], *, gro: bool) -> tuple[int, Any]:
    host = machine(release)
    buffers = new_buffers(host, SKB_RELEASES[release], skbs=8)
    pages = np.array([do(host, ALLOC, 0), do(host, ALLOC, 0)])
    return merge(buffers, pages, np.array(marks), gro), host.pages[pages[1]]


@pytest.mark.parametrize(
    ("release", "merged", "refcount", "more_shares"), [("5.14", 1, 2, 0), ("6.1", 0, 1, 0), ("6.12", 1, 1, 1)]
)
def test_coalescing_from_a_marked_clone(release: str, merged: int, refcount: int, more_shares: int) -> None:
    """Spec 6.5: 5.14 takes plain references and drops them as shares later; then that was refused; then
    shares were taken."""
    found, page = two_skbs(release, (1, 1), gro=False)
    assert (found, page.refcount) == (merged, refcount)
    assert page.frag_count - RELEASES[release].idle_shares == more_shares


@pytest.mark.parametrize("release", ALL)
def test_coalescing_needs_equal_marks(release: str) -> None:
    assert two_skbs(release, (1, 0), gro=False)[0] == 0


@pytest.mark.parametrize(
    ("release", "result"), [("5.14", 0), ("6.1", -errno.ETOOMANYREFS), ("6.12", -errno.ETOOMANYREFS)]
)
def test_gro_with_unequal_marks(release: str, result: int) -> None:
    assert two_skbs(release, (1, 0), gro=True)[0] == result


@entry(POOL_IMPL_DIGEST)
def unclone_kept(buffers: Buffers, page: int) -> int:
    """Change of the head's end when a clone of an odd-sized buffer is uncloned."""
    first = skb.build(buffers, page, 0, 2048 - 320)
    end = buffers.shared[buffers.skbs[first].shared].end
    other = skb.clone(buffers, first)
    skb_change.unclone_keeptruesize(buffers, other)
    return buffers.shared[buffers.skbs[other].shared].end - end


@pytest.mark.parametrize(("release", "grown"), [("5.14", 320), ("6.1", 0), ("6.12", 0)])
def test_whether_uncloning_keeps_the_end(release: str, grown: int) -> None:
    host = machine(release)
    buffers = new_buffers(host, SKB_RELEASES[release], skbs=8)
    assert unclone_kept(buffers, do(host, ALLOC, 0)) == grown


@entry(POOL_IMPL_DIGEST)
def head_end(buffers: Buffers, size: int) -> int:
    return buffers.shared[buffers.skbs[skb.alloc(buffers, size)].shared].end


@pytest.mark.parametrize(("release", "end"), [("5.14", 192), ("6.1", 192), ("6.12", 384)])
def test_heads_of_small_skbs(release: str, end: int) -> None:
    buffers = new_buffers(machine(release), SKB_RELEASES[release], skbs=8)
    assert head_end(buffers, 100) == end
    assert head_end(buffers, 500) == 704
