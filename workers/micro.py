"""Loops of the pool benchmark: the machine's own empty loop, atomic and lock beside the pool's paths.

The paths are those of the kernel's bench_page_pool_simple (spec 9.1): a pool of 1024 without DMA whose
ring holds 64 pages, then one allocation and one return for each turn. With two threads, one allocates and the
other returns.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pool_impl import page_alloc, pool, ring
from pool_impl.access import Threads
from pool_impl.host import new_host
from pool_impl.jit import atomic_add, atomic_load, back_off, compiled, entry
from pool_impl.layout import NO_NODE, REFILL, SERVING_SOFTIRQ, Host
from pool_impl.release import DEFAULT_RELEASE, rules_of
from workers.model import MODEL_DIGEST


class Loop(NamedTuple):
    """One benchmark: ``run(host, turns)``."""

    name: str
    description: str
    run: Callable[[Host, int], int]
    kernel_ns: float | None = None
    """what the kernel's benchmark printed in softirq on a Xeon E5-1650 v4 at 3.6 GHz (6.13-rc6, January 2025;
    spec 9.1; pages without a pool: xdp-project notes, single ones 54.1 to 78.4 on four kernels)"""


def bench_host() -> Host:
    """A machine with real atomics and locks, whose first pool is prepared as the kernel's benchmark does."""
    host = new_host(rules_of(DEFAULT_RELEASE), pages=4096, pools=2, access=Threads())
    host.context.in_softirq = SERVING_SOFTIRQ
    pool.create(host, 1, pool.PoolParams())
    fill(host, pool.PoolParams())
    return host


def fill(host: Host, params: pool.PoolParams) -> None:
    """Create the first pool, with 64 pages in its ring."""
    pool.create(host, 0, params)
    _prefill(host, np.zeros(REFILL, np.int64))


@entry(MODEL_DIGEST)
def _prefill(host: Host, pages: Any) -> None:
    owner = host.pools[0]
    for position in range(pages.shape[0]):
        pages[position] = pool.alloc(host, owner)
    for position in range(pages.shape[0]):
        pool.put(host, owner, pages[position], pool.WHOLE, False)


@entry(MODEL_DIGEST)
def _empty(host: Host, turns: int) -> int:
    context = host.context
    total = 0
    for _ in range(turns):
        # an atomic load, or the compiler would leave the loop out
        total += atomic_load(context, "warnings")
    return total


@entry(MODEL_DIGEST)
def _cycle(host: Host, turns: int) -> int:
    added = host.context.warnings
    value = 0
    for _ in range(turns):
        # two operations of one cycle each, of which the second needs the first
        value = (value + added) ^ turns
    return value


@entry(MODEL_DIGEST)
def _atomic(host: Host, turns: int) -> int:
    owner = host.pools[0]
    before = 0
    for _ in range(turns):
        before = atomic_add(owner, "release", 1)
    atomic_add(owner, "release", -turns)
    return before


@entry(MODEL_DIGEST)
def _lock(host: Host, turns: int) -> int:
    owner = host.pools[0]
    for _ in range(turns):
        host.access.unlock_producer(owner, host.access.lock_producer(owner))
    return turns


@compiled()
def _turn(host: Host, owner: Any, direct: bool) -> int:
    page = pool.alloc(host, owner)
    pool.put(host, owner, page, pool.WHOLE, direct)
    return page


@entry(MODEL_DIGEST)
def _fast(host: Host, turns: int) -> int:
    owner = host.pools[0]
    page = 0
    for _ in range(turns):
        page = _turn(host, owner, True)
    return page


@entry(MODEL_DIGEST)
def _ring(host: Host, turns: int) -> int:
    owner = host.pools[0]
    page = 0
    for _ in range(turns):
        page = _turn(host, owner, False)
    return page


@entry(MODEL_DIGEST)
def _slow(host: Host, turns: int) -> int:
    owner = host.pools[0]
    page = 0
    for _ in range(turns):
        page = pool.alloc(host, owner)
        page_alloc.get_page(host, page)
        pool.put(host, owner, page, pool.WHOLE, True)
        page_alloc.put_page(host, page)
    return page


@entry(MODEL_DIGEST)
def hand_out(host: Host, turns: int) -> None:
    """Allocate pages and hand them to another thread, through the ring of another pool."""
    owner = host.pools[0]
    queue = host.pools[1]
    index = 0
    for _ in range(turns):
        page = pool.alloc(host, owner)
        waits = 0
        while not ring.produce(host, queue, index, page):
            waits = back_off(waits)
        index = ring.following(queue, index)


@entry(MODEL_DIGEST)
def take_back(host: Host, turns: int) -> None:
    """Return the pages that another thread hands out to their pool, by way of its ring."""
    owner = host.pools[0]
    queue = host.pools[1]
    for _ in range(turns):
        waits = 0
        page = ring.consume(host, queue)
        while page == 0:
            waits = back_off(waits)
            page = ring.consume(host, queue)
        pool.put(host, owner, page, pool.WHOLE, False)


@entry(MODEL_DIGEST)
def _page_single(host: Host, turns: int) -> int:
    page = 0
    for _ in range(turns):
        page = page_alloc.alloc(host, NO_NODE, 0)
        page_alloc.put_page(host, page)
    return page


@entry(MODEL_DIGEST)
def _page_bulk(host: Host, turns: int) -> int:
    scratch = host.pools[0].cache
    got = 0
    for turn in range(turns):
        if turn % REFILL == 0:
            got = page_alloc.alloc_bulk(host, NO_NODE, REFILL, scratch)
        page_alloc.put_page(host, scratch[turn % REFILL])
    return got


LOOPS = (
    Loop("empty_loop", "empty loop", _empty),
    Loop("two_cycles", "two cycles", _cycle),
    Loop("atomic", "atomic add", _atomic, 4.8),
    Loop("lock_unlock", "lock and unlock", _lock, 10.4),
    Loop("pool_fast", "pool: fast, cache", _fast, 5.4),
    Loop("pool_ring", "pool: ring", _ring, 15.1),
    Loop("pool_slow", "pool: slow, allocator", _slow, 66.1),
    Loop("page_single", "pages: one at a time", _page_single, 62.1),
    Loop("page_bulk", "pages: bulk of 64", _page_bulk, 30.6),
)
