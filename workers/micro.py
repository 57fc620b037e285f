"""Loops of the pool benchmark: the machine's own empty loop, atomic and lock beside the pool's paths.

The paths are those of the kernel's bench_page_pool_simple (spec 9.1): a pool of 1024 without DMA whose
ring holds 64 pages, then one allocation and one return for each turn.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pool_impl import page_alloc, pool
from pool_impl.access import Threads
from pool_impl.host import new_host
from pool_impl.jit import atomic_add, atomic_load, compiled, entry
from pool_impl.layout import REFILL, SERVING_SOFTIRQ, Host
from pool_impl.release import DEFAULT_RELEASE, rules_of
from workers.trial import MODEL_DIGEST


class Loop(NamedTuple):
    """One benchmark: ``run(host, turns)``."""

    name: str
    description: str
    run: Callable[[Host, int], int]


def bench_host() -> Host:
    """A machine with real atomics and locks, whose pool is prepared as the kernel's benchmark does."""
    host = new_host(rules_of(DEFAULT_RELEASE), pages=4096, access=Threads())
    pool.create(host, 0, pool.PoolParams())
    host.context.in_softirq = SERVING_SOFTIRQ
    _prefill(host, np.zeros(REFILL, np.int64))
    return host


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
        host.access.lock_producer(owner)
        host.access.unlock_producer(owner)
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


LOOPS = (
    Loop("empty_loop", "a loop with one load", _empty),
    Loop("atomic", "locked add, sequentially consistent", _atomic),
    Loop("lock_unlock", "spin lock taken and given back", _lock),
    Loop("pool_fast", "alloc and direct return: the cache", _fast),
    Loop("pool_ring", "alloc and return through the ring, with its lock", _ring),
    Loop("pool_slow", "alloc and release: the page allocator", _slow),
)
