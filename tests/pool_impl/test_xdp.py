"""XDP memory registration and return paths (spec 1.6, 6.8)."""

from typing import Any

import pytest

from pool_impl import page_alloc, pool, xdp
from pool_impl.errors import CreateError
from pool_impl.host import new_host
from pool_impl.jit import POOL_IMPL_DIGEST, entry
from pool_impl.layout import (
    NO_POOL,
    RECYCLE_CACHED,
    RECYCLE_RING,
    RECYCLE_RING_FULL,
    SERVING_SOFTIRQ,
    Host,
    records,
)
from pool_impl.release import RELEASES

ALLOC, ORDINARY, FRAME, RX_NAPI, BUFF, BULK, FLUSH, DESTROY, TICK = range(9)

FIRST, SECOND = 1, 2
"""memory ids of the pools"""


@entry(POOL_IMPL_DIGEST)
def do(host: Host, memory: Any, bulk: Any, what: int, number: int, identity: int) -> int:
    if what == ALLOC:
        return pool.alloc(host, host.pools[number])
    if what == ORDINARY:
        return page_alloc.alloc(host, -1, 0)
    if what == FRAME:
        xdp.return_frame(host, memory, number, identity)
    elif what == RX_NAPI:
        xdp.return_frame_rx_napi(host, memory, number, identity)
    elif what == BUFF:
        xdp.return_buff(host, memory, number, identity)
    elif what == BULK:
        xdp.return_frame_bulk(host, memory, bulk, number, identity)
    elif what == FLUSH:
        xdp.flush_bulk(host, memory, bulk)
    elif what == DESTROY:
        return int(pool.destroy(host, host.pools[number]))
    elif what == TICK:
        return int(pool.release_tick(host, host.pools[number]))
    return 0


class Queue:
    """Two pools, registered as memory 1 and 2, and a bulk queue."""

    def __init__(self, release: str = "6.1") -> None:
        self.host = new_host(RELEASES[release], pages=1024, pools=2)
        for number in range(2):
            pool.create(self.host, number, pool.PoolParams(pool_size=20))
        self.host.context.in_softirq = SERVING_SOFTIRQ
        self.bulk = records(xdp.BULK, 1)[0]
        self.memory = records(xdp.XDP_MEMORY, 1)[0]
        for number in range(2):
            xdp.register(self.host, self.memory, number)

    def do(self, what: int, number: int = 0, identity: int = FIRST) -> int:
        return int(do(self.host, self.memory, self.bulk, what, number, identity))

    def recycled(self, column: int, number: int = 0) -> int:
        return int(self.host.pools[number].recycle[:, column].sum())


@pytest.mark.parametrize(
    ("what", "no_direct", "column"),
    [
        (FRAME, 0, RECYCLE_RING),
        (RX_NAPI, 0, RECYCLE_CACHED),
        (BUFF, 0, RECYCLE_CACHED),
        (RX_NAPI, 1, RECYCLE_RING),
        (BUFF, 1, RECYCLE_RING),
    ],
)
def test_where_a_returned_frame_goes(what: int, no_direct: int, column: int) -> None:
    queue = Queue()
    queue.host.context.no_direct = no_direct
    queue.do(what, queue.do(ALLOC))
    assert queue.recycled(column) == 1


@pytest.mark.parametrize("what", [FRAME, RX_NAPI, BUFF, BULK])
def test_an_ordinary_page_is_just_put(what: int) -> None:
    queue = Queue()
    queue.do(what, queue.do(ORDINARY), xdp.ORDINARY)
    assert queue.host.page_allocator.used_pages.sum() == 0
    assert queue.bulk.count == 0


def test_a_bulk_of_16_goes_out_with_the_17th_page() -> None:
    queue = Queue()
    pages = [queue.do(ALLOC) for _ in range(17)]
    for page in pages[:16]:
        queue.do(BULK, page)
    assert queue.recycled(RECYCLE_RING) == 0
    queue.do(BULK, pages[16])
    assert (queue.recycled(RECYCLE_RING), queue.bulk.count) == (16, 1)
    queue.do(FLUSH)
    queue.do(FLUSH)
    assert (queue.recycled(RECYCLE_RING), queue.bulk.count) == (17, 0)


def test_a_bulk_goes_out_when_another_pools_page_comes() -> None:
    queue = Queue()
    first, second = queue.do(ALLOC, 0), queue.do(ALLOC, 1)
    queue.do(BULK, first)
    queue.do(BULK, second, SECOND)
    assert (queue.recycled(RECYCLE_RING, 0), queue.recycled(RECYCLE_RING, 1)) == (1, 0)
    queue.do(FLUSH)
    assert queue.recycled(RECYCLE_RING, 1) == 1


def test_an_overflowing_bulk_counts_once() -> None:
    queue = Queue()
    for page in [queue.do(ALLOC) for _ in range(32)]:
        queue.do(BULK, page)
    queue.do(FLUSH)
    assert (queue.recycled(RECYCLE_RING), queue.recycled(RECYCLE_RING_FULL)) == (20, 1)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("what", [FRAME, BULK])
def test_whose_page_a_returned_frame_is(release: str, what: int) -> None:
    """Spec 6.8: 5.14 goes by the frame's id, as pages name their pool in skbs only; later a single return
    goes by the page, and a bulk by the id still."""
    queue = Queue(release)
    page = queue.do(ALLOC, 1)
    queue.do(what, page, SECOND)
    queue.do(FLUSH)
    assert (queue.recycled(RECYCLE_RING, 0), queue.recycled(RECYCLE_RING, 1)) == (0, 1)


@pytest.mark.parametrize(("release", "pool_of_page"), [("5.14", 0), ("6.1", 1), ("6.12", 1)])
def test_a_single_return_asks_the_page_or_the_frame(release: str, pool_of_page: int) -> None:
    queue = Queue(release)
    page = queue.do(ALLOC, 1)
    queue.do(FRAME, page, FIRST)
    assert queue.recycled(RECYCLE_RING, pool_of_page) == 1


def test_a_registered_pool_has_two_users_and_its_id_lasts_until_it_is_gone() -> None:
    """Spec 4.2: only the second destroy does the work."""
    queue = Queue()
    assert queue.host.pools[0].user_cnt == 2
    page = queue.do(ALLOC)
    queue.do(DESTROY)
    assert queue.host.pools[0].destroy_cnt == 0
    queue.do(DESTROY)
    assert queue.host.pools[0].destroy_cnt == 1
    assert xdp.owner_of(queue.host, queue.memory, FIRST) == 0
    queue.do(FRAME, page)
    assert queue.do(TICK) == 0
    assert queue.host.pools[0].freed
    assert xdp.owner_of(queue.host, queue.memory, FIRST) == NO_POOL


def test_an_id_does_not_name_a_later_pool_in_the_same_place() -> None:
    queue = Queue()
    queue.do(DESTROY)
    queue.do(DESTROY)
    pool.create(queue.host, 0, pool.PoolParams(pool_size=20))
    assert xdp.owner_of(queue.host, queue.memory, FIRST) == NO_POOL
    assert xdp.register(queue.host, queue.memory, 0) == 3
    assert xdp.owner_of(queue.host, queue.memory, 3) == 0


def test_ids_are_cyclic_and_can_run_out() -> None:
    queue = Queue()
    queue.memory.next_id = 0xFFFD
    assert xdp.register(queue.host, queue.memory, 0) == 0xFFFE
    assert xdp.register(queue.host, queue.memory, 0) == 3
    queue.memory.owner[1:] = 1
    queue.memory.created[1:] = 1
    with pytest.raises(CreateError, match="ENOSPC: pool = 1"):
        xdp.register(queue.host, queue.memory, 1)
