"""One thread allocates and others return pages: none is recycled while in use, duplicated or lost, and the
pool goes only when nobody uses it any more."""

import threading
from typing import Any, NamedTuple

import numpy as np
import pytest

from pool_impl import page_alloc, pool
from pool_impl.access import Threads
from pool_impl.host import new_host
from pool_impl.jit import (
    POOL_IMPL_DIGEST,
    atomic_store,
    atomic_swap,
    back_off,
    entry,
    load_at,
    pause,
    store_at,
)
from pool_impl.layout import (
    CONTEXT,
    FLAG_DMA_MAP,
    FLAG_DMA_SYNC_DEV,
    PCP_CAPACITY,
    RECYCLE_CACHED,
    RECYCLE_RELEASED_REFCNT,
    RECYCLE_RING,
    RECYCLE_RING_FULL,
    SERVING_SOFTIRQ,
    Host,
    records,
    words,
)
from pool_impl.release import rules_of

PAGES = 8192
SMALL_RING = 64
"""overflows most of the time, so that pages go through the page allocator too"""
RING = 1024
QUEUE = 256
LAST = -1
"""in a queue: no page follows"""
ROUNDS = 200
"""most attempts at the fault below; the first few find it where two cores are free"""
KEPT = 10
"""pages that stay out at the end"""
LONG = 2000
"""pauses"""
DIRECT_EVERY = 8
REFERENCED_EVERY = 64
"""of the pages returned by a producer, one in so many has a second reference and leaves the pool"""
FREE, OUT = range(2)
SOMETHING_ELSE = 77
"""what a freed pool's memory may contain"""

MARK = np.dtype([("mark", "<i8")])
FOUND = np.dtype([("wrong", "<i8"), ("returns", "<i8"), ("exhausted", "<i8"), ("_pad", "<i8", (5,))])
"""what a thread saw: marks that were not as expected, its returns, allocations without a page"""


class Unlocked(Threads):
    """The fault that has to be found: producers that do not exclude each other."""

    def lock_producer(self, pool: Any) -> int:
        """The index, whoever else works on it."""
        return int(pool.ring_prod)

    def unlock_producer(self, pool: Any, index: int) -> None:
        """Only store the index."""
        pool.ring_prod = index


@entry(POOL_IMPL_DIGEST)
def consume(host: Host, marks: Any, queues: Any, producers: int, counts: Any, turns: int, kept: int) -> None:
    """Allocate and hand out, one page in DIRECT_EVERY back to the cache at once."""
    owner = host.pools[0]
    found = counts[0]
    heads = host.context.cpu  # always 0: only to keep its type
    for turn in range(turns + kept):
        page = pool.alloc(host, owner)
        if page == 0:
            found.exhausted += 1
            continue
        if atomic_swap(marks[page], "mark", OUT) != FREE:
            found.wrong += 1
        if turn >= turns:
            continue
        if turn % DIRECT_EVERY == 0:
            if atomic_swap(marks[page], "mark", FREE) != OUT:
                found.wrong += 1
            found.returns += 1
            pool.put(host, owner, page, pool.WHOLE, True)
            continue
        # heads counts the pages handed out so far: producers take turns
        slot = (heads % producers) * QUEUE + (heads // producers) % QUEUE
        heads += 1
        waits = 0
        while load_at(queues, slot) != 0:
            waits = back_off(waits)
        store_at(queues, slot, page)
    for _ in range(producers):
        slot = (heads % producers) * QUEUE + (heads // producers) % QUEUE
        heads += 1
        waits = 0
        while load_at(queues, slot) != 0:
            waits = back_off(waits)
        store_at(queues, slot, LAST)


@entry(POOL_IMPL_DIGEST)
def produce(host: Host, marks: Any, queue: Any, counts: Any) -> None:
    """Return what arrives through the ring."""
    owner = host.pools[0]
    found = counts[host.context.cpu]
    slot = 0
    while True:
        waits = 0
        page = load_at(queue, slot)
        while page == 0:
            waits = back_off(waits)
            page = load_at(queue, slot)
        store_at(queue, slot, 0)
        slot = (slot + 1) % QUEUE
        if page == LAST:
            return
        if atomic_swap(marks[page], "mark", FREE) != OUT:
            found.wrong += 1
        found.returns += 1
        if found.returns % REFERENCED_EVERY == 0:
            page_alloc.get_page(host, page)
            pool.put(host, owner, page, pool.WHOLE, False)
            page_alloc.put_page(host, page)
        else:
            pool.put(host, owner, page, pool.WHOLE, False)


@entry(POOL_IMPL_DIGEST)
def end(host: Host) -> None:
    """Destroy the pool, wait for its pages, and use its memory for something else."""
    owner = host.pools[0]
    pool.destroy(host, owner)
    waits = 0
    while not owner.freed:
        waits = back_off(waits)
        pool.release_tick(host, owner)
    atomic_store(owner, "ring_prod", SOMETHING_ELSE)


class Run(NamedTuple):
    """What a run left behind."""

    host: Host
    marks: Any
    counts: Any
    turns: int


def run(access: Threads, producers: int, ring: int, turns: int, destroyer: Threads | None = None) -> Run:
    """With a destroyer's access, no page is kept and the pool is destroyed as soon as all are handed out."""
    flags = FLAG_DMA_MAP | FLAG_DMA_SYNC_DEV
    host = new_host(rules_of("6.1"), pages=PAGES, access=access)
    pool.create(host, 0, pool.PoolParams(pool_size=ring, flags=flags, max_len=1))
    marks = records(MARK, PAGES + 1)
    queues = words(producers * QUEUE)
    counts = records(FOUND, producers + 1)
    consumer = on_cpu(host, 0)

    def consume_all() -> None:
        consume(consumer, marks, queues, producers, counts, turns, 0 if destroyer else KEPT)
        if destroyer:
            end(consumer._replace(access=destroyer))

    threads = [threading.Thread(target=consume_all)]
    for number in range(producers):
        own = queues[number * QUEUE : (number + 1) * QUEUE]
        threads.append(threading.Thread(target=produce, args=(on_cpu(host, number + 1), marks, own, counts)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Run(host, marks, counts, turns)


def on_cpu(host: Host, cpu: int) -> Host:
    context = records(CONTEXT, 1)[0]
    context.cpu = cpu
    context.in_softirq = SERVING_SOFTIRQ
    return host._replace(context=context)


def places(run: Run) -> dict[str, list[int]]:
    """Every page by where it is found."""
    host = run.host
    owner = host.pools[0]
    allocator = host.page_allocator
    ring = [int(host.slots[owner.ring_base + slot]) for slot in range(owner.ring_size)]
    # slots that were consumed keep their page until a batch of them is cleared
    consumed = range(owner.ring_tail, owner.ring_head)
    listed = []
    for cpu in range(len(run.counts)):
        newest = int(allocator.pcp_head[cpu, 0])
        for back in range(1, int(allocator.pcp_count[cpu, 0]) + 1):
            listed.append(int(allocator.pcp[cpu, 0, (newest - back) % PCP_CAPACITY]))
    free = []
    page = int(allocator.free_head[0, 0])
    while page != 0 and len(free) <= PAGES:
        free.append(page)
        page = int(host.pages[page].next)
    return {
        "cache": [int(page) for page in owner.cache[: owner.cache_count]],
        "ring": [page for slot, page in enumerate(ring) if page != 0 and slot not in consumed],
        "out": [int(page) for page in np.flatnonzero(run.marks["mark"] == OUT)],
        "per CPU": listed,
        "free": free,
        "fresh": list(range(int(allocator.fresh), PAGES + 1)),
    }


def faults(run: Run) -> list[str]:
    """What is wrong after a run."""
    owner = run.host.pools[0]
    allocator = run.host.page_allocator
    at = places(run)
    inside = len(at["cache"]) + len(at["ring"]) + len(at["out"])
    recycled = owner.recycle.sum(axis=0)
    ring_full = int(recycled[RECYCLE_RING_FULL])
    released = int(recycled[RECYCLE_RELEASED_REFCNT])
    returns = int(run.counts["returns"].sum())
    everywhere = sorted(page for pages in at.values() for page in pages)
    allocations = int(owner.alloc_fast + owner.alloc_slow + owner.alloc_refill)
    exhausted = int(run.counts["exhausted"].sum())
    claims = [
        ("marks as expected", int(run.counts["wrong"].sum()), 0),
        ("memory suffices", exhausted, 0),
        ("allocations", allocations, run.turns + KEPT),
        ("returns expected", returns, run.turns),
        (
            "returns by path",
            int(recycled[[RECYCLE_CACHED, RECYCLE_RING]].sum()) + ring_full + released,
            returns,
        ),
        ("pages out", len(at["out"]), KEPT),
        ("hold - release", int(owner.hold - owner.release), inside),
        ("release", int(owner.release), ring_full + released),
        ("maps", int(run.host.device.maps), int(owner.hold)),
        ("unmaps", int(run.host.device.unmaps), int(owner.release)),
        ("syncs", int(run.host.device.syncs), int(owner.hold) + returns - released),
        ("pages in use", int(allocator.used_pages.sum()), inside),
        ("serials", int(allocator.serial), int(owner.hold)),
        ("every page once", everywhere == list(range(1, PAGES + 1)), True),
    ]
    return [f"{name}: {found}, not {expected}" for name, found, expected in claims if found != expected]


def check(producers: int, ring: int, turns: int) -> None:
    done = run(Threads(), producers, ring, turns)
    assert faults(done) == []
    taken = done.host.pools[0].recycle.sum(axis=0) > 0
    assert taken[[RECYCLE_CACHED, RECYCLE_RING, RECYCLE_RELEASED_REFCNT]].all()
    if ring == SMALL_RING:
        assert taken[RECYCLE_RING_FULL]
        assert done.host.page_allocator.free_head[0, 0] != 0, "no page came to the shared lists"


@pytest.mark.parametrize("ring", [SMALL_RING, RING])
@pytest.mark.parametrize("producers", [1, 2, 4])
def test_no_page_is_lost_or_duplicated_or_recycled_in_use(producers: int, ring: int) -> None:
    check(producers, ring, 1_000_000)


@pytest.mark.long
@pytest.mark.parametrize("ring", [SMALL_RING, RING])
@pytest.mark.parametrize("producers", [1, 2, 4])
def test_no_page_is_lost_in_100_million_operations(producers: int, ring: int) -> None:
    check(producers, ring, 100_000_000)


def test_a_missing_producer_lock_is_detected() -> None:
    """The check above has teeth: without the lock two producers fill the same slot."""
    for _ in range(ROUNDS):
        if faults(run(Unlocked(), 4, RING, 200_000)):
            return
    pytest.fail(f"{ROUNDS} rounds of producers without a lock and nothing was found")


class SlowUnlock(Threads):
    """Producers that take their time to leave the ring."""

    def unlock_producer(self, pool: Any, index: int) -> None:
        """Hand the producer side on, later."""
        for _ in range(LONG):
            pause()
        atomic_store(pool, "ring_prod", index)


def after_the_end(done: Run) -> list[str]:
    """What is wrong with a pool that is gone."""
    owner = done.host.pools[0]
    claims = [
        ("freed", int(owner.freed), 1),
        ("memory of the pool", int(owner.ring_prod), SOMETHING_ELSE),
        ("hold - release", int(owner.hold - owner.release), 0),
        ("pages in use", int(done.host.page_allocator.used_pages.sum()), 0),
        ("mapped", int(done.host.device.maps - done.host.device.unmaps), 0),
        ("marks as expected", int(done.counts["wrong"].sum()), 0),
    ]
    return [f"{name}: {found}, not {expected}" for name, found, expected in claims if found != expected]


def test_a_pool_goes_while_its_pages_are_being_returned() -> None:
    """Corner cases 25 and 26: nobody touches it afterwards."""
    for _ in range(5):
        assert after_the_end(run(Threads(), 2, RING, 20_000, Threads())) == []


@pytest.mark.long
def test_a_pool_that_does_not_wait_for_its_producers_is_detected() -> None:
    """The check above has teeth: without cycling the lock a producer writes to memory of others."""
    for _ in range(20):
        assert after_the_end(run(SlowUnlock(), 2, RING, 2_000, Threads())) == []
    for _ in range(ROUNDS):
        if after_the_end(run(SlowUnlock(), 2, RING, 2_000, Unlocked())):
            return
    pytest.fail(f"{ROUNDS} rounds without waiting and nothing was found")
