"""Fill clocks against a true least-recently-used cache."""

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from pool_impl.jit import entry
from pool_impl.layout import PAGE, records
from pool_impl.observe import SHARED_INFO, SKB, SLAB_HEAD
from workers.config import TrialConfig
from workers.model import MODEL_DIGEST
from workers.pricing import cache
from workers.pricing.cost import new_pricing
from workers.pricing.nodes import lay_out
from workers.profiles import arch

KIND = cache.HEADER


@entry("test-cache-" + MODEL_DIGEST)
def walk(pricing: Any, nodes: bool, cpu: int, kind: int, indices: Any, levels: Any) -> None:
    for position in range(indices.shape[0]):
        levels[position] = cache.find(
            pricing.caches, pricing.stamps, pricing.pages, nodes, cpu, kind, indices[position]
        )


@entry("test-dma-" + MODEL_DIGEST)
def dma(caches: Any, stamps: Any, index: int, size_bytes: int) -> None:
    cache.device_write(caches, stamps, KIND, index, size_bytes)


class Machine:
    """Caches of 64, 512 and 4096 lines, of which a device may fill 128."""

    nodes = 1

    def __init__(self) -> None:
        needed = cache.stamps_needed(pages=1 << 14, slots=1, descriptors=1, skbs=1)
        self.pages = records(PAGE, 1 << 14)
        pricing = new_pricing(arch.load("broadwell-ep"), None, self.pages, needed)
        self.pricing = pricing._replace(context=0, idle=0, pools=0, slots=0)
        self.caches, self.stamps = pricing.caches, pricing.stamps
        lay_out(TrialConfig.from_fields({"numa.nodes": self.nodes}), self.caches)
        self.caches.l1_bytes, self.caches.l2_bytes = 64 * 64, 512 * 64
        self.caches.llc_bytes, self.caches.ddio_bytes = 4096 * 64, 128 * 64

    def touch(self, indices: Any, cpu: int = 0, kind: int = KIND) -> Any:
        levels = np.zeros(len(indices), np.int64)
        walk(self.pricing, self.nodes > 1, cpu, kind, np.asarray(indices, np.int64), levels)
        return levels


def lru_hits(indices: Any, lines: int) -> int:
    """Hits of a fully associative LRU cache: the second implementation."""
    resident: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for index in indices:
        hits += index in resident
        resident[index] = None
        resident.move_to_end(index)
        if len(resident) > lines:
            resident.popitem(last=False)
    return hits


@pytest.mark.parametrize(
    ("lines", "level"), [(60, cache.L1), (500, cache.L2), (4000, cache.LLC), (5000, cache.DRAM)]
)
def test_a_cycle_is_found_where_it_fits(lines: int, level: int) -> None:
    levels = Machine().touch(np.tile(np.arange(lines), 4))
    assert set(levels[2 * lines :]) == {level}


def test_a_hot_set_stays_while_a_stream_passes() -> None:
    """A byte counter since the start would call the hot line evicted; LRU and fill clocks keep it."""
    stream = np.arange(100, 8000)
    mixed = np.empty(2 * stream.size, np.int64)
    mixed[0::2], mixed[1::2] = 7, stream
    levels = Machine().touch(mixed)
    assert set(levels[2::2]) == {cache.L1}


def test_skewed_traffic_hits_as_often_as_true_lru_of_the_size_to_twice_it() -> None:
    """Hits do not advance the clock, so an object stays a little longer than under true LRU."""
    draws = np.random.default_rng(5)
    indices = np.minimum(draws.geometric(1 / 90, 40_000), 4000)
    levels = Machine().touch(indices)
    hits = int((levels == cache.L1).sum())
    assert lru_hits(indices.tolist(), 64) <= hits <= lru_hits(indices.tolist(), 128)


def test_another_cpu_pays_for_the_transfer_once() -> None:
    machine = Machine()
    machine.touch([3])
    assert machine.touch([3, 3], cpu=1).tolist() == [cache.OTHER_CPU, cache.L1]


def test_device_writes_are_found_in_their_part_of_the_last_level_cache_until_more_follow() -> None:
    machine = Machine()
    machine.touch([1])
    dma(machine.caches, machine.stamps, 1, 64)
    assert machine.touch([1]).tolist() == [cache.LLC]
    dma(machine.caches, machine.stamps, 1, 64)
    dma(machine.caches, machine.stamps, 2, 128 * 64)
    assert machine.touch([1]).tolist() == [cache.DRAM]


def test_without_such_a_part_device_writes_go_to_memory() -> None:
    machine = Machine()
    machine.caches.ddio_bytes = 0
    dma(machine.caches, machine.stamps, 1, 64)
    assert machine.touch([1]).tolist() == [cache.DRAM]


@pytest.mark.parametrize(("kind", "size_bytes"), [(SHARED_INFO, 64), (SKB, 256), (SLAB_HEAD, 320)])
def test_a_miss_fills_the_lines_that_an_object_of_this_kind_is_read_by(kind: int, size_bytes: int) -> None:
    """Of shared info in a page only the line that says how much there is; a slab object is all of its own."""
    machine = Machine()
    assert machine.touch([1, 1], kind=kind).tolist() == [cache.DRAM, cache.L1]
    assert machine.caches.l1_fills[0] == machine.caches.llc_fills[0] == size_bytes


class TwoNodes(Machine):
    """The same twice: even CPUs and the device on the first node."""

    nodes = 2

    def __init__(self) -> None:
        super().__init__()
        self.caches.node[1::2] = 1


def test_what_another_node_touched_last_is_far() -> None:
    machine = TwoNodes()
    machine.touch([1, 2, 3], cpu=1)
    assert machine.touch([1], cpu=0).tolist() == [cache.OTHER_CPU_FAR]
    assert machine.touch([2], cpu=3).tolist() == [cache.OTHER_CPU]
    assert machine.touch([1], cpu=2).tolist() == [cache.OTHER_CPU], "it has come to this node"


def test_memory_is_far_from_cpus_of_another_node_than_the_pages() -> None:
    machine = TwoNodes()
    machine.pages[5].nid = 1
    assert [machine.touch([5], kind=kind)[0] for kind in (KIND, SHARED_INFO)] == [cache.DRAM_FAR] * 2
    machine.pages[6].nid = 1
    assert machine.touch([6, 7], cpu=1).tolist() == [cache.DRAM, cache.DRAM_FAR]


def test_each_node_has_a_last_level_cache_of_its_own() -> None:
    machine = TwoNodes()
    machine.touch([1], cpu=0)
    machine.touch(np.arange(100, 6000), cpu=1)
    machine.touch(np.arange(6000, 9000), cpu=2)
    assert machine.touch([1], cpu=0).tolist() == [cache.L1]
    machine.touch(np.arange(9000, 11000), cpu=0)
    assert machine.touch([1], cpu=0).tolist() == [cache.DRAM]


def test_what_another_node_had_stays_in_its_cache_until_that_is_filled() -> None:
    machine = TwoNodes()
    machine.touch([1, 2], cpu=1)
    machine.touch(np.arange(100, 6000), cpu=0)
    assert machine.touch([1], cpu=0).tolist() == [cache.OTHER_CPU_FAR]
    machine.touch(np.arange(6000, 11000), cpu=3)
    assert machine.touch([2], cpu=0).tolist() == [cache.DRAM]


def test_what_the_device_put_into_its_cache_is_far_from_the_other_node() -> None:
    machine = TwoNodes()
    dma(machine.caches, machine.stamps, 1, 64)
    assert machine.touch([1], cpu=1).tolist() == [cache.OTHER_CPU_FAR]
    dma(machine.caches, machine.stamps, 1, 64)
    assert machine.touch([1], cpu=0).tolist() == [cache.LLC]
