"""The benchmark loops run the paths that they are named after."""

import pytest

from pool_impl.layout import RECYCLE_CACHED, RECYCLE_RELEASED_REFCNT, RECYCLE_RING
from workers import micro
from workers.host import pool_loops

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


@pytest.mark.parametrize(("name", "pages"), [("page_single", TURNS), ("page_bulk", -(-TURNS // 64) * 64)])
def test_a_loop_without_a_pool_takes_and_frees_pages_and_leaves_the_pool_alone(name: str, pages: int) -> None:
    """Serial numbers count the pages that the allocator gave out: one a turn, or 64 every 64th."""
    machine = micro.bench_host()
    allocator, owner = machine.page_allocator, machine.pools[0]
    before = int(allocator.serial), allocator.used_pages.sum(), owner.hold, owner.recycle.sum()
    [loop] = [loop for loop in micro.LOOPS if loop.name == name]
    loop.run(machine, TURNS)
    kept = pages - TURNS  # of a bulk that is not used up
    assert int(allocator.serial) - before[0] == pages
    assert allocator.used_pages.sum() - before[1] == kept
    assert (owner.hold, owner.recycle.sum()) == before[2:]


def test_all_loops_are_measured() -> None:
    measured = pool_loops.micro_ns(turns=10_000, repeats=5)
    assert list(measured) == [loop.name for loop in micro.LOOPS]
