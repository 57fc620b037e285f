"""ptr_ring, against the golden vectors of the specification and a second implementation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_impl import pool, ring
from pool_impl.host import new_host
from pool_impl.jit import POOL_IMPL_DIGEST, entry
from pool_impl.layout import Host
from pool_impl.release import RELEASES


@entry(POOL_IMPL_DIGEST)
def produce(host: Host, page: int) -> bool:
    owner = host.pools[0]
    index = host.access.lock_producer(owner)
    produced = ring.produce(host, owner, index, page)
    host.access.unlock_producer(owner, ring.following(owner, index) if produced else index)
    return produced


@entry(POOL_IMPL_DIGEST)
def consume(host: Host) -> int:
    return ring.consume(host, host.pools[0])


def host_with_ring(size: int) -> Host:
    host = new_host(RELEASES["6.1"], pages=16)
    pool.create(host, 0, pool.PoolParams(pool_size=size))
    return host


@pytest.mark.parametrize(
    ("consumed", "accepted"), [(1, 0), (15, 0), (16, 16), (17, 16), (31, 16), (32, 32), (64, 64)]
)
def test_r1_a_full_ring_hands_slots_back_in_batches(consumed: int, accepted: int) -> None:
    host = host_with_ring(1024)
    while produce(host, 7):
        pass
    for _ in range(consumed):
        assert consume(host) == 7
    found = 0
    while produce(host, 8):
        found += 1
    assert found == accepted


@pytest.mark.parametrize(
    ("size", "batch"),
    [(1, 1), (2, 1), (8, 1), (16, 1), (31, 1), (32, 16), (33, 16), (64, 16), (100, 16)],
)
def test_r2_small_rings_hand_back_at_once(size: int, batch: int) -> None:
    assert host_with_ring(size).pools[0].ring_batch == batch


class SecondRing:
    """The rules of spec 5.2, written again from its text with plain lists."""

    def __init__(self, size: int, batch: int) -> None:
        self.slots: list[int] = [0] * size
        self.batch = batch
        self.producer = self.head = self.tail = 0

    def produce(self, value: int) -> bool:
        if self.slots[self.producer]:
            return False
        self.slots[self.producer] = value
        self.producer = (self.producer + 1) % len(self.slots)
        return True

    def consume(self) -> int:
        value = self.slots[self.head]
        if not value:
            return 0
        self.head += 1
        if self.head - self.tail >= self.batch or self.head >= len(self.slots):
            self.slots[self.tail : self.head] = [0] * (self.head - self.tail)
            self.tail = self.head
        if self.head >= len(self.slots):
            self.head = self.tail = 0
        return value


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([1, 2, 5, 31, 32, 33, 64, 100]),
    bursts=st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=40),
)
def test_any_interleaving_equals_a_second_implementation(size: int, bursts: list[tuple[bool, int]]) -> None:
    host = host_with_ring(size)
    owner: Any = host.pools[0]
    second = SecondRing(size, int(owner.ring_batch))
    value = 0
    for produces, count in bursts:
        for _ in range(count):
            if produces:
                value += 1
                assert bool(produce(host, value)) == second.produce(value)
            else:
                assert consume(host) == second.consume()
        state = (owner.ring_prod, owner.ring_head, owner.ring_tail)
        assert state == (second.producer, second.head, second.tail)
        assert np.array_equal(host.slots[:size], second.slots)
