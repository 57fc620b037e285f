"""Rules of pages and of the allocator below the pools that have no line in the specification's lists."""

from typing import Any

import pytest

from pool_impl import pool
from pool_impl.jit import POOL_IMPL_DIGEST, entry
from pool_impl.layout import PFMEMALLOC, Host
from pool_impl.release import RELEASES
from tests.pool_impl.trace import FRAGS, Trace


def ordinary(trace: Trace, handle: int, order: int = 0) -> int:
    """A page that is no pool's; its number, 0 if there is none."""
    trace.op("page_alloc", h=handle, order=order)
    return trace.handles[handle].page


@pytest.mark.parametrize("order", [0, 3])
def test_a_page_that_was_freed_is_given_again(order: int) -> None:
    """The newest first, of any order; nothing that was said of it stays."""
    trace = Trace(pages=8)
    first, second = ordinary(trace, 1, order), ordinary(trace, 2, order)
    trace.op("pfmemalloc", h=1, on=1)
    for handle in (2, 1):
        trace.op("put_page", h=handle)
    assert (ordinary(trace, 3, order), ordinary(trace, 4, order)) == (first, second)
    assert [int(trace.page(handle).magic) & PFMEMALLOC for handle in (3, 4)] == [0, 0]
    assert trace.host.page_allocator.used_pages.sum() == 2 << order


@pytest.mark.parametrize("order", [0, 1])
def test_memory_has_an_end(order: int) -> None:
    trace = Trace(pages=5)
    found = [ordinary(trace, handle, order) for handle in range(1, 8)]
    assert sorted(found[:5]) == [1, 2, 3, 4, 5]
    assert found[5:] == [0, 0]
    assert trace.host.page_allocator.used_pages.sum() == 5 << order
    trace.op("put_page", h=3)
    assert ordinary(trace, 9, order) == found[2]


@entry(POOL_IMPL_DIGEST)
def destroy(host: Host, number: int) -> int:
    return int(pool.destroy(host, host.pools[number]))


@entry(POOL_IMPL_DIGEST)
def take_user(host: Host, number: int) -> None:
    host.pools[number].user_cnt += 1


@pytest.mark.parametrize("kernel", RELEASES)
def test_who_asks_for_the_deferred_release(kernel: str) -> None:
    """Whoever drops the last user of a pool with pages out (page_pool_destroy); nobody before."""
    trace = Trace(kernel)
    trace.alloc(1)
    take_user(trace.host, 0)
    assert destroy(trace.host, 0) == 0
    assert (trace.pool.destroy_cnt, trace.pool.release) == (0, 0)
    assert destroy(trace.host, 0) == 1
    assert (trace.pool.destroy_cnt, trace.pool.release) == (1, 63)


@pytest.mark.parametrize("gone", [1, 2, 70])
def test_more_pages_gone_than_came_is_a_negative_number(gone: int) -> None:
    """Of 32 bits (page_pool_inflight): the distance of the counts."""
    trace = Trace()
    trace.pool.release += gone
    assert trace.pool_state(0)["inflight"] == -gone


@pytest.mark.parametrize(("kernel", "left"), [("6.1", 5), ("6.12", 1)])
def test_the_last_shares_are_not_subtracted(kernel: str, left: int) -> None:
    """Who holds all that is left writes nothing in 6.1; 6.12 sets the count of an idle page."""
    params: dict[str, Any] = {"flags": FRAGS} if kernel == "6.1" else {}
    trace = Trace(kernel, **params)
    trace.alloc(1)
    trace.op("fragment", h=1, nr=5, first=2)
    page = trace.page(1)
    assert trace.op("defrag", h=1, nr=5) == {"ret": 0}
    assert page.frag_count == left


def test_which_releases_let_a_driver_keep_a_page() -> None:
    """page_pool_release_page is gone in 6.12: drivers mark what they hand on (spec 3.1)."""
    assert {name: rules.drivers_release_pages for name, rules in RELEASES.items()} == {
        "5.14": 1,
        "6.1": 1,
        "6.12": 0,
    }
