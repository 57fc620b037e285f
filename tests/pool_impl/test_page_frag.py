"""Fragments that no pool has, against a second, plain account of which block each of them is cut from."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_impl import audit, page_alloc, page_frag, skb_calls
from pool_impl.host import new_buffers, new_frag_caches, new_host
from pool_impl.jit import OPTIONS
from pool_impl.layout import PFMEMALLOC, Host, words
from pool_impl.observe import PAGE_BULK_ALLOC, PAGE_FREE, PAGE_REF, PAGE_SINGLE_ALLOC
from pool_impl.page_calls import (
    FRAG_CACHE_ALLOC,
    FRAG_CACHE_DRAIN,
    FRAG_CACHE_FREE,
    GET_PAGE,
    PUT_PAGE,
    frag_cache,
)
from pool_impl.page_calls import step as page_step
from pool_impl.release import RELEASES, SKB_RELEASES
from tests.elsewhere import evaluate

ROOT = Path(__file__).parents[2]

CPUS = 2
BLOCK_BYTES, PAGE_BYTES, LINE_BYTES = 32768, 4096, 64


class Machine:
    """A debug build with one cache for each CPU, and what is out."""

    def __init__(self, pages: int = 4096) -> None:
        self.host = audit.audited(new_host(RELEASES["6.1"], pages=pages))
        self.caches = new_frag_caches()
        self.held: list[tuple[int, int, int]] = []
        """page, offset, bytes asked for"""

    def cut(self, size: int, cpu: int = 0) -> tuple[int, int]:
        granted = words(1)
        self.host.context.cpu = cpu
        page = int(frag_cache(self.host, self.caches, FRAG_CACHE_ALLOC, size, granted))
        if page:
            self.held.append((page, int(granted[0]), size))
        return page, int(granted[0])

    def free(self, position: int, cpu: int = 0) -> None:
        self.host.context.cpu = cpu
        page, _, _ = self.held.pop(position)
        frag_cache(self.host, self.caches, FRAG_CACHE_FREE, page, words(1))

    def drain(self, cpu: int = 0) -> None:
        self.host.context.cpu = cpu
        frag_cache(self.host, self.caches, FRAG_CACHE_DRAIN, 0, words(1))

    def refuse(self, skip: int, count: int) -> None:
        self.host.page_allocator.fail_skip, self.host.page_allocator.fail_count = skip, count

    @property
    def taken(self) -> int:
        """Pages that the allocator gave out so far."""
        return int(self.host.page_allocator.serial)

    @property
    def used_pages(self) -> int:
        return int(self.host.page_allocator.used_pages.sum())

    def end(self) -> None:
        """All comes back."""
        while self.held:
            self.free(-1)
        for cpu in range(CPUS):
            self.drain(cpu)


class Account:
    """When a block is used up, used again or replaced: a second implementation, by counting fragments."""

    def __init__(self) -> None:
        self.block = [0] * CPUS
        self.block_bytes = [0] * CPUS
        self.left_bytes = [0] * CPUS
        self.out: Counter[int] = Counter()
        self.skip = self.count = 0
        self.taken = 0

    def is_granted(self) -> bool:
        """A request for one page, under injected failures (layout.PAGE_ALLOCATOR)."""
        if self.count and not self.skip:
            self.count -= 1
            return False
        self.skip -= self.count > 0
        self.taken += 1
        return True

    def is_cut(self, size: int, cpu: int) -> bool:
        """Whether there is a fragment; its block is 0 if it has to be one that is not in use."""
        rounded = -(-size // LINE_BYTES) * LINE_BYTES
        if self.left_bytes[cpu] < rounded:
            if not self.block_bytes[cpu] or self.out[self.block[cpu]]:
                self.block[cpu] = 0
                self.block_bytes[cpu] = next((n for n in (BLOCK_BYTES, PAGE_BYTES) if self.is_granted()), 0)
            self.left_bytes[cpu] = self.block_bytes[cpu]
        if self.left_bytes[cpu] < rounded:
            return False
        self.left_bytes[cpu] -= rounded
        return True

    def drain(self, cpu: int) -> None:
        self.block[cpu] = self.block_bytes[cpu] = self.left_bytes[cpu] = 0


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("cut"), st.integers(1, 9000), st.integers(0, CPUS - 1)),
        st.tuples(st.just("cut"), st.sampled_from([64, 1536, 4096, 4097, 32768, 32769]), st.just(0)),
        st.tuples(st.just("free"), st.integers(0, 99), st.integers(0, CPUS - 1)),
        st.tuples(st.just("free all"), st.just(0), st.integers(0, CPUS - 1)),
        st.tuples(st.just("drain"), st.just(0), st.integers(0, CPUS - 1)),
        st.tuples(st.just("refuse"), st.integers(0, 2), st.integers(0, 3)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(OPERATIONS)
def test_any_operations_end_as_by_the_second_account(operations: list[tuple[str, int, int]]) -> None:
    """A block is used again exactly when all its fragments came back, else another is taken; fragments that
    are held never overlap; when all are free and the caches empty, so is the machine."""
    machine, account = Machine(), Account()
    for what, number, cpu in operations:
        if what == "cut":
            in_use = {page for page, _, _ in machine.held} | {int(page) for page in machine.caches.page}
            page, offset = machine.cut(number, cpu)
            assert bool(page) == account.is_cut(number, cpu)
            if page:
                assert page == account.block[cpu] or (account.block[cpu] == 0 and page not in in_use)
                assert offset == account.left_bytes[cpu]
                account.out[page] += 1
            account.block[cpu] = int(machine.caches[cpu].page)
        elif what == "drain":
            machine.drain(cpu)
            account.drain(cpu)
        elif what == "refuse":
            machine.refuse(number, cpu)
            account.skip, account.count = number, cpu
        else:
            for _ in range(len(machine.held) if what == "free all" else min(1, len(machine.held))):
                position = number % len(machine.held)
                account.out[machine.held[position][0]] -= 1
                machine.free(position, cpu)
        assert machine.taken == account.taken
        assert audit.faults(machine.host) == []
        assert overlaps(machine.held) == []
        assert all(offset >= 0 and offset + size <= BLOCK_BYTES for _, offset, size in machine.held)
    machine.end()
    assert machine.used_pages == 0
    assert machine.host.pages.refcount[1:].sum() == 0
    assert audit.faults(machine.host) == []


def overlaps(held: list[tuple[int, int, int]]) -> list[Any]:
    """Pairs of fragments in one block of which one starts before the other ends."""
    return [
        (low, high) for low, high in pairwise(sorted(held)) if low[0] == high[0] and low[1] + low[2] > high[1]
    ]


def test_a_block_is_cut_from_its_end_downwards_in_whole_cache_lines() -> None:
    """1500 bytes take 1536: 21 of them fit into 32 KiB."""
    machine = Machine()
    cuts = [machine.cut(1500) for _ in range(22)]
    assert [offset for _, offset in cuts[:21]] == [BLOCK_BYTES - 1536 * (n + 1) for n in range(21)]
    assert len({page for page, _ in cuts[:21]}) == 1
    assert cuts[21] == (cuts[21][0], BLOCK_BYTES - 1536)
    assert cuts[21][0] != cuts[0][0]
    assert machine.used_pages == 2 * BLOCK_BYTES // PAGE_BYTES


@pytest.mark.parametrize("kept", [0, 1, 8])
def test_a_block_is_used_again_at_once_if_none_of_its_fragments_is_out(kept: int) -> None:
    machine = Machine()
    first, _ = [machine.cut(4096) for _ in range(8)][-1]
    while len(machine.held) > kept:
        machine.free(-1, cpu=1)
    page, offset = machine.cut(4096)
    assert (page == first, offset) == (kept == 0, BLOCK_BYTES - 4096)
    assert machine.taken == (1 if kept == 0 else 2)


def test_a_block_that_the_cache_has_left_is_freed_with_its_last_fragment() -> None:
    machine = Machine()
    for _ in range(9):
        machine.cut(4096)
    left_behind = machine.held[0][0]
    for remaining in range(7, -1, -1):
        machine.free(0)
        assert machine.host.pages[left_behind].refcount == remaining
        assert machine.used_pages == (16 if remaining else 8)


@pytest.mark.parametrize("reserves", [False, True])
def test_a_block_from_the_emergency_reserves_is_freed_instead_of_used_again(reserves: bool) -> None:
    machine = Machine()
    page, _ = machine.cut(32768)
    machine.host.pages[page].magic |= PFMEMALLOC * reserves
    machine.free(0)
    machine.cut(32768)
    assert machine.taken == 1 + reserves
    assert machine.used_pages == 8
    assert audit.faults(machine.host) == []


def test_where_no_block_is_to_be_had_one_page_has_to_do() -> None:
    """And what does not fit into it is refused; the page stays for smaller fragments."""
    machine = Machine()
    machine.refuse(0, 1)
    page, offset = machine.cut(1000)
    assert (bool(page), offset, machine.used_pages) == (True, PAGE_BYTES - 1024, 1)
    machine.free(0)
    assert machine.cut(PAGE_BYTES + 1) == (0, 0)
    assert (machine.cut(PAGE_BYTES), machine.used_pages) == ((page, 0), 1)
    machine.cut(1)
    assert machine.used_pages == 1 + 8


def test_without_any_memory_there_is_no_fragment_until_there_is_some() -> None:
    machine = Machine()
    machine.refuse(0, 2)
    assert machine.cut(1000) == (0, 0)
    assert (machine.taken, int(machine.caches[0].page)) == (0, 0)
    page, offset = machine.cut(1000)
    assert (bool(page), offset) == (True, BLOCK_BYTES - 1024)


def test_in_exhausted_memory_a_block_is_used_again_as_soon_as_it_is_back() -> None:
    machine = Machine(pages=1)
    page, _ = machine.cut(32768)
    assert machine.cut(64, cpu=1) == (0, 0)
    machine.free(0)
    assert machine.cut(64) == (page, BLOCK_BYTES - 64)


def test_cpus_cut_blocks_of_their_own() -> None:
    machine = Machine()
    first, second = machine.cut(64, cpu=0), machine.cut(64, cpu=1)
    assert first[0] != second[0]
    assert first[1] == second[1] == BLOCK_BYTES - 64


def test_a_fragment_that_is_an_skbs_head_comes_back_with_the_skb() -> None:
    """A further reference to its page counts beside it, as to any page."""
    machine = Machine()
    buffers = new_buffers(machine.host, SKB_RELEASES["6.1"], skbs=4)
    page, offset = machine.cut(2048)
    before = int(machine.host.pages[page].refcount)
    made = int(skb_calls.step(buffers, skb_calls.BUILD, np.array([page, offset, 2048, 64, 500], np.int64)))
    page_step(machine.host, GET_PAGE, np.array([page, 0, 0, 0], np.int64))
    skb_calls.step(buffers, skb_calls.FREE, np.array([made, 0, 0, 0, 0], np.int64))
    page_step(machine.host, PUT_PAGE, np.array([page, 0, 0, 0], np.int64))
    assert machine.host.pages[page].refcount == before - 1
    machine.drain()
    assert machine.used_pages == 0
    assert audit.faults(machine.host) == []


# What the work costs


class Counting(NamedTuple):
    """Counts touches, and operations by kind."""

    touched: Any
    worked: Any

    def touch(self, kind: int, index: int, write: bool) -> None:
        """Count a touch."""
        self.touched[0] += 1

    def work(self, kind: int, amount: int) -> None:
        """Count an operation."""
        self.worked[kind] += amount

    def own(self, change: int, page: int, number: int) -> None:
        """Ignore."""


@numba.njit(**OPTIONS)
def cut(host: Host, caches: Any, size: int) -> int:
    page, _offset = page_frag.alloc(host, caches, size)
    return page


@numba.njit(**OPTIONS)
def give_back(host: Host, page: int) -> None:
    page_frag.free(host, page)


@numba.njit(**OPTIONS)
def alloc_and_free(host: Host, order: int) -> None:
    page_alloc.put_page(host, page_alloc.alloc(host, -1, order))


def counting() -> tuple[Host, Counting]:
    observer = Counting(np.zeros(1, np.int64), np.zeros(64, np.int64))
    return new_host(RELEASES["6.1"], pages=64, observer=observer), observer


def heard(observer: Counting) -> tuple[int, dict[int, int]]:
    """Touches, and amounts of work by kind, since this was last asked."""
    found = (
        int(observer.touched[0]),
        {int(k): int(observer.worked[k]) for k in np.flatnonzero(observer.worked)},
    )
    observer.touched[:] = 0
    observer.worked[:] = 0
    return found


def test_only_a_fragment_that_comes_back_and_a_new_block_touch_struct_page() -> None:
    """Hence the many references at once: cutting is free of atomics and misses."""
    host, observer = counting()
    caches = new_frag_caches()
    page = cut(host, caches, 4096)
    assert heard(observer) == (2, {PAGE_SINGLE_ALLOC: 1})
    for _ in range(7):
        assert cut(host, caches, 4096) == page
    assert heard(observer) == (0, {})
    for _ in range(8):
        give_back(host, page)
    assert heard(observer) == (8, {PAGE_REF: 8})
    assert cut(host, caches, 4096) == page
    assert heard(observer) == (2, {PAGE_REF: 1})


@pytest.mark.parametrize("order", [0, 3])
def test_a_page_asked_for_alone_is_no_page_of_a_bulk(order: int) -> None:
    host, observer = counting()
    alloc_and_free(host, order)
    heard(observer)
    alloc_and_free(host, order)
    _touches, work = heard(observer)
    assert work == {PAGE_SINGLE_ALLOC: 1, PAGE_REF: 1, PAGE_FREE: 1}
    assert PAGE_BULK_ALLOC not in work


# Compiled and not


def trail() -> list[list[int]]:
    """Pages, offsets and words of a long run of cuts and returns, some refused."""
    machine = Machine()
    found = []
    value = 1
    for _ in range(400):
        value = value * 1103515245 + 12345 & 0x7FFFFFFF
        size, cpu, choice = 1 + (value >> 8) % 5000, value >> 4 & 1, (value >> 5) % 8
        if choice < 4:
            found.append([*machine.cut(size, cpu)])
        elif choice < 7 and machine.held:
            machine.free(size % len(machine.held), cpu)
        else:
            machine.refuse(cpu, size % 3)
        words_of_cpu = machine.caches[cpu]
        found.append([int(words_of_cpu[name]) for name in ("page", "offset", "block_bytes", "references")])
    machine.end()
    return [*found, machine.host.pages.refcount.tolist(), [machine.taken, machine.used_pages]]


def test_plain_python_leaves_the_same_trail() -> None:
    assert evaluate("tests.pool_impl.test_page_frag", "trail()", NUMBA_DISABLE_JIT="1") == trail()
