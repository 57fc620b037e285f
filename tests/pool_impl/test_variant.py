"""Who decides that an skb's page goes back to its pool, the skb's bit or the page: what either touches on the
free path, and what becomes of pages with plain references."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from pool_impl import pool, skb, skb_calls
from pool_impl.host import new_buffers, new_host
from pool_impl.jit import OPTIONS
from pool_impl.layout import (
    FLAG_DMA_MAP,
    FLAG_DMA_SYNC_DEV,
    FLAG_PAGE_FRAG,
    RECYCLE_CACHED,
    RECYCLE_DECLINED,
    RECYCLE_RELEASED_REFCNT,
    RECYCLE_RING,
    SERVING_SOFTIRQ,
    Buffers,
    Host,
)
from pool_impl.observe import SHARED_INFO, SKB, SLAB_HEAD, STRUCT_PAGE
from pool_impl.page_calls import ALLOC as POOL_ALLOC
from pool_impl.page_calls import ALLOC_FRAG, DESTROY, INFLIGHT, PAGE_ALLOC
from pool_impl.page_calls import step as page_step
from pool_impl.release import RELEASES, SKB_RELEASES
from pool_impl.variant import CACHE_CAPACITY, Kernel, pool_variant
from workers.variants import load

README = (Path(__file__).parents[2] / "pool_impl" / "README.md").read_text()

BIT, PAGE = Kernel(), load("page_decides").instance


class Counting(NamedTuple):
    """Writes down what it hears: kind, index, write; kind of work, amount."""

    touched: Any
    worked: Any

    def touch(self, kind: int, index: int, write: bool) -> None:
        """Note a touch."""
        self.touched[0, 0] += 1
        position = self.touched[0, 0]
        self.touched[position, 0] = kind
        self.touched[position, 1] = index
        self.touched[position, 2] = write

    def work(self, kind: int, amount: int) -> None:
        """Note an operation."""
        self.worked[kind] += 1

    def own(self, change: int, page: int, number: int) -> None:
        """Ignore."""


# not an entry: its types are this test's, which no other process that reads a code cache could find
@numba.njit(**OPTIONS)
def free(buffers: Buffers, number: int) -> bool:
    return skb.free(buffers, number)


def machine(kernel: str = "6.1", flags: int = 0) -> Buffers:
    host = new_host(RELEASES[kernel], pages=256)
    host.context.in_softirq = SERVING_SOFTIRQ
    pool.create(host, 0, pool.PoolParams(pool_size=64, flags=flags))
    return new_buffers(host, SKB_RELEASES[kernel], skbs=16)


def do(buffers: Buffers, code: int, *numbers: int) -> int:
    return int(skb_calls.step(buffers, code, np.array([*numbers, 0, 0, 0, 0, 0][:5], np.int64)))


def do_page(buffers: Buffers, code: int, *numbers: int) -> int:
    return int(page_step(buffers.host, code, np.array([*numbers, 0, 0, 0][:4], np.int64)))


def around(buffers: Buffers, page: int, marked: bool) -> int:
    """An skb whose head is this page."""
    made = do(buffers, skb_calls.BUILD, page, 0, 4096, 64, 1000)
    if marked:
        do(buffers, skb_calls.MARK, made)
    return made


def slab(buffers: Buffers) -> int:
    return do(buffers, skb_calls.ALLOC, 0, 256, 0, 100)


def with_frags(buffers: Buffers, *pages: int) -> int:
    made = slab(buffers)
    for page in pages:
        do(buffers, skb_calls.ADD_RX_FRAG, made, page, 0, 1000, 4096)
    do(buffers, skb_calls.MARK, made)
    return made


def pool_page(buffers: Buffers) -> int:
    return do_page(buffers, POOL_ALLOC, 0)


SKBS: dict[str, Callable[[Buffers], int]] = {
    "head in a pool page": lambda b: around(b, pool_page(b), marked=True),
    "head in an ordinary page": lambda b: around(b, do_page(b, PAGE_ALLOC, 0), marked=False),
    "slab head": slab,
    "slab head, two pool pages as fragments": lambda b: with_frags(b, pool_page(b), pool_page(b)),
}


def heard(make: Callable[[Buffers], int], variant: Any) -> tuple[list[tuple[int, int, int]], int]:
    """Touches of the free path in order, and how many operations it did."""
    buffers = machine()
    number = make(buffers)
    observer = Counting(np.zeros((64, 3), np.int64), np.zeros(64, np.int64))
    assert free(buffers._replace(host=buffers.host._replace(observer=observer, variant=variant)), number)
    touched = [tuple(map(int, row)) for row in observer.touched[1 : 1 + int(observer.touched[0, 0])]]
    return touched, int(observer.worked.sum())  # type: ignore[return-value]


def cell(make: Callable[[Buffers], int], variant: Any) -> str:
    touched, operations = heard(make, variant)
    of_pages = [index for kind, index, _ in touched if kind == STRUCT_PAGE]
    lines = len({(kind, index) for kind, index, _ in touched})
    return f"{len(of_pages)} of {len(set(of_pages))}, {lines}, {operations}"


TABLE = re.findall(r"^\| (.*?) \| (\d+ of \d+, \d+, \d+) \| (.*?) \|$", README, flags=re.MULTILINE)


def test_the_table_of_the_free_path_is_complete() -> None:
    assert [row[0] for row in TABLE] == list(SKBS)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_the_table_of_the_free_path_is_so(row: tuple[str, str, str]) -> None:
    make = SKBS[row[0]]
    assert (cell(make, BIT), cell(make, PAGE)) == row[1:]


@pytest.mark.parametrize("make", SKBS.values(), ids=SKBS)
def test_asking_the_page_touches_no_further_object(make: Callable[[Buffers], int]) -> None:
    """Only reads come on top, and the work is the same."""
    by_bit, by_page = heard(make, BIT), heard(make, PAGE)
    assert {touch[:2] for touch in by_bit[0]} == {touch[:2] for touch in by_page[0]}
    assert [touch for touch in by_bit[0] if touch[2]] == [touch for touch in by_page[0] if touch[2]]
    assert by_bit[1] == by_page[1]


def test_an_ordinary_page_is_read_once_more_and_a_slab_head_is_not_asked() -> None:
    ordinary, of_slab = SKBS["head in an ordinary page"], SKBS["slab head"]
    extra = len(heard(ordinary, PAGE)[0]) - len(heard(ordinary, BIT)[0])
    assert extra == 1
    assert heard(of_slab, BIT) == heard(of_slab, PAGE)
    assert {kind for kind, _, _ in heard(of_slab, PAGE)[0]} == {SKB, SLAB_HEAD}


def shared_info(heard_of: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    return [touch for touch in heard_of if touch[0] in (SHARED_INFO, SLAB_HEAD)]


def test_shared_info_is_touched_where_the_head_lies() -> None:
    """In the head's page, which is the first that the pool gives out, or an object of its own: in slab
    memory, and in a page that nobody follows."""
    page = pool_page(machine())
    expected = {
        SKBS["head in a pool page"]: (SHARED_INFO, page, 0),
        slab: (SLAB_HEAD, 1, 0),
        SKBS["slab head, two pool pages as fragments"]: (SLAB_HEAD, 1, 0),
        lambda b: do(b, skb_calls.ALLOC, 3, 1500, 0, 100): (SLAB_HEAD, 1, 0),
    }
    assert page > 1
    assert [shared_info(heard(make, BIT)[0]) for make in expected] == [[one] for one in expected.values()]


def test_a_clone_writes_the_shared_info_that_both_have() -> None:
    def cloned(buffers: Buffers) -> int:
        made = SKBS["head in a pool page"](buffers)
        assert do(buffers, skb_calls.CLONE, made) != 0
        return made

    page = pool_page(machine())
    assert shared_info(heard(cloned, BIT)[0]) == [(SHARED_INFO, page, 1)]


def freed_in_order(variant: Any, order: str, **kind: Any) -> tuple[Buffers, int]:
    """An skb (o) with a fragment of the pool and its partial copy (c), freed in this order; the page."""
    buffers = machine(**kind)
    cut_up = bool(buffers.host.pools[0].pool_flags & FLAG_PAGE_FRAG)
    page = do_page(buffers, ALLOC_FRAG, 0, 1024) if cut_up else pool_page(buffers)
    buffers.host.pages[page].pp = 0  # on 5.14 the driver names the pool for each packet
    original = with_frags(buffers, page)
    copied = do(buffers, skb_calls.PARTIAL_COPY, original)
    assert buffers.host.pages[page].refcount == 2
    for which in order:
        number = original if which == "o" else copied
        assert free(buffers._replace(host=buffers.host._replace(variant=variant)), number)
    return buffers, page


@pytest.mark.parametrize("kernel", ["5.14", "6.1", "6.12"])
@pytest.mark.parametrize(
    ("variant", "order", "column", "refcount"),
    [
        (BIT, "oc", RECYCLE_RELEASED_REFCNT, 0),
        (BIT, "co", RECYCLE_RING, 1),
        (PAGE, "oc", RECYCLE_RELEASED_REFCNT, 0),
        (PAGE, "co", RECYCLE_RELEASED_REFCNT, 0),
    ],
    ids=["bit, share first", "bit, reference first", "page, share first", "page, reference first"],
)
def test_a_page_with_a_plain_reference_is_recycled_only_if_the_bit_tells_it_apart(
    variant: Any, order: str, column: int, refcount: int, kernel: str
) -> None:
    """Spec 6.1: both orders are right; neither leaves the page held by nobody or in use while free."""
    buffers, page = freed_in_order(variant, order, kernel=kernel)
    owner = buffers.host.pools[0]
    assert int(owner.recycle[0, column]) == int(owner.recycle.sum()) == 1
    assert buffers.host.pages[page].refcount == refcount
    assert do_page(buffers, INFLIGHT, 0) == 63 + refcount


@pytest.mark.parametrize("order", ["oc", "co"])
@pytest.mark.parametrize(("variant", "leaked"), [(BIT, 0), (PAGE, 1)], ids=["bit", "page"])
def test_a_page_that_is_cut_up_leaks_if_a_plain_reference_is_dropped_as_a_share(
    variant: Any, leaked: int, order: str
) -> None:
    buffers, page = freed_in_order(variant, order, flags=FLAG_PAGE_FRAG)
    do_page(buffers, DESTROY, 0)
    owner = buffers.host.pools[0]
    assert do_page(buffers, INFLIGHT, 0) == leaked
    assert bool(owner.freed) is not bool(leaked)
    assert bool(buffers.host.context.warnings) is bool(leaked)
    assert buffers.host.pages[page].refcount == 2 * leaked


@pytest.mark.parametrize(("variant", "leaked"), [(BIT, 1), (PAGE, 0)], ids=["bit", "page"])
def test_a_forgotten_mark_leaks_only_if_the_bit_decides(variant: Any, leaked: int) -> None:
    buffers = machine()
    number = around(buffers, pool_page(buffers), marked=False)
    free(buffers._replace(host=buffers.host._replace(variant=variant)), number)
    do_page(buffers, DESTROY, 0)
    assert do_page(buffers, INFLIGHT, 0) == leaked


# What decisions about pages do


@pool_variant
class Told:
    """Limits are fields of the pool that nothing else uses here; a page's number says where it goes."""

    def cache_limit(self, host: Any, pool: Any) -> int:
        """As told."""
        return int(pool.max_len)

    def refill_limit(self, host: Any, pool: Any) -> int:
        """As told."""
        return int(pool.offset)

    def destination(self, host: Any, pool: Any, page: int, direct: bool) -> int:
        """RELEASE, RING or CACHE."""
        return page % 3


@numba.njit(**OPTIONS)
def take_and_give(host: Host, page: int, direct: bool) -> int:
    if page == 0:
        return pool.alloc(host, host.pools[0])
    pool.put(host, host.pools[0], page, pool.WHOLE, direct)
    return 0


def told(cache: int, refill: int, flags: int = 0) -> Host:
    host = new_host(RELEASES["6.1"], pages=1024, variant=Told())
    host.context.in_softirq = SERVING_SOFTIRQ
    host.context.cpu = 3
    pool.create(host, 0, pool.PoolParams(pool_size=64, flags=flags, max_len=cache, offset=refill))
    return host


@pytest.mark.parametrize(
    ("cache", "refill", "moved"),
    [(5, 3, 3), (5, 1, 1), (5, 0, 1), (4, 100, 4), (4000, 2000, CACHE_CAPACITY)],
)
def test_a_refill_brings_what_it_may_and_one_page_at_least(cache: int, refill: int, moved: int) -> None:
    host = told(cache, refill)
    assert take_and_give(host, 0, False) != 0
    assert (host.pools[0].hold, host.pools[0].cache_count) == (moved, moved - 1)


def test_a_page_goes_where_the_variant_says() -> None:
    """Out of the pool unsynced; to the ring although the return is direct; to the cache only if it is."""
    host = told(64, 6, FLAG_DMA_MAP | FLAG_DMA_SYNC_DEV)
    pages = [take_and_give(host, 0, False) for _ in range(6)]
    owner, device = host.pools[0], host.device
    done = []
    for page, direct in [*((page, True) for page in pages[:3]), *((page, False) for page in pages[3:])]:
        before = owner.recycle[3].copy(), int(device.syncs), int(owner.release)
        take_and_give(host, page, direct)
        columns = np.flatnonzero(owner.recycle[3] - before[0]).tolist()
        done.append((page % 3, direct, columns, device.syncs - before[1], owner.release - before[2]))
    expected = {
        (0, True): ([RECYCLE_DECLINED], 0, 1),
        (0, False): ([RECYCLE_DECLINED], 0, 1),
        (1, True): ([RECYCLE_RING], 1, 0),
        (1, False): ([RECYCLE_RING], 1, 0),
        (2, True): ([RECYCLE_CACHED], 1, 0),
        (2, False): ([RECYCLE_RING], 1, 0),
    }
    assert {(kind, direct): tuple(rest) for kind, direct, *rest in done} == expected
    assert owner.recycle[3].sum() == owner.recycle.sum() == 6
