"""The benchmark loops run the paths that they are named after."""

import pytest

from pool_impl.layout import RECYCLE_CACHED, RECYCLE_RELEASED_REFCNT, RECYCLE_RING
from workers import host, micro

TURNS = 1000


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("pool_fast", RECYCLE_CACHED),
        ("pool_ring", RECYCLE_RING),
        ("pool_slow", RECYCLE_RELEASED_REFCNT),
    ],
)
def test_every_turn_of_a_pool_loop_returns_a_page_by_its_path(name: str, column: int) -> None:
    machine = micro.bench_host()
    before = machine.pools[0].recycle.sum(axis=0)
    [loop] = [loop for loop in micro.LOOPS if loop.name == name]
    loop.run(machine, TURNS)
    moved = machine.pools[0].recycle.sum(axis=0) - before
    assert moved[column] == moved.sum() == TURNS


def test_a_prepared_pool_holds_its_64_pages_in_the_ring() -> None:
    """As the kernel's benchmark does (spec 9.1)."""
    owner = micro.bench_host().pools[0]
    assert (owner.cache_count, owner.ring_prod - owner.ring_head, owner.hold) == (0, 64, 64)


def test_all_loops_are_measured() -> None:
    measured = host.micro_ns(turns=10_000, repeats=5)
    assert list(measured) == [loop.name for loop in micro.LOOPS]
