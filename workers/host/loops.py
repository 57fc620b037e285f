"""Compiled loops whose turns are measured. Each does nothing for no turns, and remembers where it is."""

from typing import Any

import numpy as np

from pool_impl import page_alloc, pool
from pool_impl.jit import atomic_add, atomic_load, atomic_store, atomic_swap, entry, yield_core
from pool_impl.layout import NO_NODE, REFILL
from workers.host.digest import HOST_DIGEST
from workers.host.intrinsics import barrier, called, relaxed_add

PROBE = np.dtype([(name, "<i8") for name in ("word", "position", "sum", "_pad")] + [("_line", "<i8", (4,))])
"""one cache line: the word that a loop works on, and where it is"""

LINES = 2
"""that a packet has and that can be missed side by side: its header and its struct page"""

POLLS = 1 << 14
"""looks at a word before the core is given up: the other thread may have none"""


@entry(HOST_DIGEST)
def chase(table: Any, probe: Any, turns: int) -> None:
    """Follow a cycle of :func:`workers.host.memory.lay_cycle`: a load that needs the one before."""
    position = probe.position
    for _ in range(turns):
        position = table[position]
    probe.position = position


@entry(HOST_DIGEST)
def add_relaxed(probe: Any, turns: int) -> None:
    """Atomic add that orders nothing."""
    for _ in range(turns):
        relaxed_add(probe, "word", 1)


@entry(HOST_DIGEST)
def add_ordered(probe: Any, turns: int) -> None:
    """Sequentially consistent atomic add."""
    for _ in range(turns):
        atomic_add(probe, "word", 1)


@entry(HOST_DIGEST)
def store_and_barrier(probe: Any, turns: int) -> None:
    """A store to a line that is at hand, and a full barrier."""
    for turn in range(turns):
        probe.word = turn
        barrier()


@entry(HOST_DIGEST)
def lock_and_unlock(probe: Any, turns: int) -> None:
    """As the pool's lock: swap with acquire, store with release."""
    for turn in range(turns):
        atomic_swap(probe, "word", 1)
        probe.sum = turn
        atomic_store(probe, "word", 0)


@entry(HOST_DIGEST)
def count_cycles(probe: Any, turns: int) -> None:
    """Two operations of one cycle each, of which the second needs the first."""
    added = probe.word
    value = probe.sum
    for _ in range(turns):
        value = (value + added) ^ turns
    probe.sum = value


@entry(HOST_DIGEST)
def call(probe: Any, turns: int) -> None:
    """Call a function that adds one."""
    value = probe.sum
    for _ in range(turns):
        value = called(value)
    probe.sum = value


@entry(HOST_DIGEST)
def copy(source: Any, target: Any, copied_words: int, stride_words: int, places: int, turns: int) -> None:
    """Copy a packet's words from one place after the other to always the same."""
    place = 0
    for _ in range(turns):
        first = place * stride_words
        for word in range(copied_words):
            target[word] = source[first + word]
        place = 0 if place + 1 == places else place + 1


@entry(HOST_DIGEST)
def visit(host: Any, table: Any, order: Any, count: int, works: int, probe: Any, turns: int) -> None:
    """Load LINES whose addresses are known ahead, and do the pool's ring path so many times."""
    owner = host.pools[0]
    position = probe.position
    total = probe.sum
    for _ in range(turns):
        for _line in range(LINES):
            total += table[order[position]]
            position = 0 if position + 1 == count else position + 1
        for _work in range(works):
            page = pool.alloc(host, owner)
            pool.put(host, owner, page, pool.WHOLE, False)
    probe.sum = total
    probe.position = position


@entry(HOST_DIGEST)
def store_then_atomic(table: Any, order: Any, count: int, probe: Any, turns: int) -> None:
    """Store to a line, then an ordered atomic, without whose result the next line is not known."""
    position = probe.position
    nothing = probe.word  # 0, which the compiler must not know
    for turn in range(turns):
        table[order[position] + 1] = turn
        position += 1 + atomic_add(probe, "word", nothing)
        if position >= count:
            position = 0
    probe.position = position


@entry(HOST_DIGEST)
def touch(table: Any, page_words: int, turns: int) -> None:
    """Store to the first word of so many pages."""
    for page in range(turns):
        table[page * page_words] = page


@entry(HOST_DIGEST)
def clear(table: Any, page_words: int, turns: int) -> None:
    """Zero a page again and again."""
    for turn in range(turns):
        for word in range(page_words):
            table[word] = 0
        table[turn % page_words] = turn


@entry(HOST_DIGEST)
def ping(probe: Any, first: int, turns: int) -> None:
    """Hand a word's line to :func:`pong` and wait for it to come back, so many times."""
    for turn in range(turns):
        atomic_store(probe, "word", 2 * (first + turn) + 1)
        polls = 0
        while atomic_load(probe, "word") != 2 * (first + turn) + 2:
            polls += 1
            if polls % POLLS == 0:
                yield_core()


@entry(HOST_DIGEST)
def pong(probe: Any, turns: int) -> None:
    """The other side, from the start."""
    for turn in range(turns):
        polls = 0
        while atomic_load(probe, "word") != 2 * turn + 1:
            polls += 1
            if polls % POLLS == 0:
                yield_core()
        atomic_store(probe, "word", 2 * turn + 2)


@entry(HOST_DIGEST)
def move_through_zone(host: Any, pages: Any, bulk: Any, count: int, turns: int) -> None:
    """Take ``count`` pages from the package's page allocator, 64 at a time, and give them back, again and
    again until so many pages have gone through; more of them than a per-CPU list holds."""
    done = 0
    while done < turns:
        got = 0
        while got < count:
            for position in range(page_alloc.alloc_bulk(host, NO_NODE, REFILL, bulk)):
                pages[got] = bulk[position]
                got += 1
        for position in range(count):
            page_alloc.put_page(host, pages[position])
        done += count
