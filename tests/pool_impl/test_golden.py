"""Counters of whole scenarios, against the golden vectors of the specification (section 13).

Those were computed by an independent model of the rules.
"""

from typing import Any

import numpy as np
import pytest

from pool_impl import page_alloc, pool
from pool_impl.host import new_host
from pool_impl.jit import POOL_IMPL_DIGEST, entry
from pool_impl.layout import FLAG_DMA_MAP, Host
from pool_impl.release import RELEASES

DIRECT, RING, EXTRA_REFERENCE, RELEASE_FIRST = range(4)


@entry(POOL_IMPL_DIGEST)
def alloc_many(host: Host, pages: Any) -> None:
    for position in range(pages.shape[0]):
        pages[position] = pool.alloc(host, host.pools[0])


@entry(POOL_IMPL_DIGEST)
def give_back(host: Host, pages: Any, how: int) -> None:
    owner = host.pools[0]
    for position in range(pages.shape[0]):
        page = pages[position]
        if how == EXTRA_REFERENCE:
            page_alloc.get_page(host, page)
        if how == RELEASE_FIRST:
            pool.release_page(host, owner, page)
        else:
            pool.put(host, owner, page, pool.WHOLE, how == DIRECT)
        if how in (EXTRA_REFERENCE, RELEASE_FIRST):
            page_alloc.put_page(host, page)


@entry(POOL_IMPL_DIGEST)
def give_back_bulk(host: Host, pages: Any) -> None:
    pool.put_bulk(host, host.pools[0], pages, pages.shape[0])


@entry(POOL_IMPL_DIGEST)
def change_node(host: Host, nid: int) -> None:
    pool.update_nid(host, host.pools[0], nid)


class Scenario:
    """A pool with DMA_MAP on node 0 and what happened to it."""

    def __init__(self, ring: int) -> None:
        self.host = new_host(RELEASES["6.1"], pages=4096)
        pool.create(self.host, 0, pool.PoolParams(ring, FLAG_DMA_MAP))
        self.host.context.in_softirq = 1

    def alloc(self, count: int) -> Any:
        pages = np.zeros(count, np.int64)
        alloc_many(self.host, pages)
        return pages

    def counters(self) -> dict[str, int]:
        """All that is not 0."""
        owner = self.host.pools[0]
        recycled = owner.recycle.sum(axis=0)
        names = ("cached", "cache_full", "ring", "ring_full", "released_refcnt")
        found = {name: int(recycled[column]) for column, name in enumerate(names)}
        found |= {
            name: int(owner[f"alloc_{name}"])
            for name in ("fast", "slow", "slow_high_order", "empty", "refill", "waive")
        }
        found |= {"hold": int(owner.hold), "release": int(owner.release), "cache": int(owner.cache_count)}
        return {name: value for name, value in found.items() if value}


def test_g1_alloc_then_ring_then_alloc() -> None:
    scenario = Scenario(1024)
    pages = scenario.alloc(64)
    assert scenario.counters() == {"fast": 63, "slow": 1, "empty": 1, "hold": 64}
    give_back(scenario.host, pages, RING)
    scenario.alloc(64)
    assert scenario.counters() == {"fast": 126, "slow": 1, "empty": 1, "refill": 1, "ring": 64, "hold": 64}


def one_at_a_time(how: int) -> Scenario:
    scenario = Scenario(1024)
    for _ in range(1000):
        give_back(scenario.host, scenario.alloc(1), how)
    return scenario


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (DIRECT, {"fast": 999, "slow": 1, "empty": 1, "cached": 1000, "hold": 64, "cache": 64}),
        (
            RING,
            {"fast": 984, "slow": 1, "empty": 1, "refill": 15, "ring": 1000, "hold": 64, "cache": 24},
        ),
        (
            EXTRA_REFERENCE,
            {
                "fast": 984,
                "slow": 16,
                "empty": 16,
                "released_refcnt": 1000,
                "hold": 1024,
                "release": 1000,
                "cache": 24,
            },
        ),
        (
            RELEASE_FIRST,
            {"fast": 984, "slow": 16, "empty": 16, "hold": 1024, "release": 1000, "cache": 24},
        ),
    ],
    ids=["g2_direct", "g3_ring", "g4_extra_reference", "g5_release_page"],
)
def test_a_thousand_turns(how: int, expected: dict[str, int]) -> None:
    scenario = one_at_a_time(how)
    assert scenario.counters() == expected
    entered = expected["hold"]
    device = scenario.host.device
    assert (device.maps, device.unmaps) == (entered, expected.get("release", 0))


def test_g6_single_returns_overflow_the_ring_one_by_one() -> None:
    scenario = Scenario(64)
    give_back(scenario.host, scenario.alloc(200), RING)
    assert scenario.counters() == {
        "fast": 196,
        "slow": 4,
        "empty": 4,
        "ring": 64,
        "ring_full": 136,
        "hold": 256,
        "release": 136,
        "cache": 56,
    }


def test_g7_bulk_returns_count_an_overflow_once_each() -> None:
    scenario = Scenario(64)
    pages = scenario.alloc(200)
    for start in range(0, 200, 16):
        give_back_bulk(scenario.host, pages[start : start + 16].copy())
    counters = scenario.counters()
    assert (counters["ring"], counters["ring_full"], counters["release"]) == (64, 9, 136)


def test_g8_direct_returns_fill_the_cache_then_the_ring() -> None:
    scenario = Scenario(1024)
    give_back(scenario.host, scenario.alloc(200), DIRECT)
    counters = scenario.counters()
    found = [counters[name] for name in ("cached", "cache_full", "ring", "cache")]
    assert found == [72, 128, 128, 128]


def test_g9_pages_of_the_old_node_leave_one_for_each_refill() -> None:
    scenario = Scenario(1024)
    give_back(scenario.host, scenario.alloc(64), RING)
    change_node(scenario.host, 1)
    scenario.alloc(3)
    assert scenario.counters() == {
        "fast": 65,
        "slow": 2,
        "empty": 1,
        "waive": 1,
        "ring": 64,
        "hold": 128,
        "release": 1,
        "cache": 61,
    }


def test_g10_a_receive_ring_that_is_freed_before_its_refill_never_maps_again() -> None:
    scenario = Scenario(1024)
    posted = list(scenario.alloc(512))
    filled = scenario.counters()
    assert (filled["fast"], filled["slow"], filled["empty"]) == (504, 8, 8)
    for _ in range(100):
        polled, posted = posted[:64], posted[64:]
        give_back(scenario.host, np.array(polled), RING)
        posted += list(scenario.alloc(64))
    counters = scenario.counters()
    assert (counters["fast"], counters["slow"], counters["refill"], counters["ring"]) == (6804, 8, 100, 6400)
    assert scenario.host.device.maps == 512


def test_counts_near_the_wrap_of_32_bits_change_nothing() -> None:
    """Invariant 8: starting both counts at 2**32 - 10 must not change any behaviour."""
    plain, near = Scenario(64), Scenario(64)
    near.host.pools[0].hold = near.host.pools[0].release = (1 << 32) - 10
    for scenario in (plain, near):
        give_back(scenario.host, scenario.alloc(200), RING)
    assert inflight(near.host) == inflight(plain.host) == 120


@entry(POOL_IMPL_DIGEST)
def inflight(host: Host) -> int:
    return pool.inflight(host.pools[0])
