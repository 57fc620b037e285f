"""Creation accepts and refuses what the release does (spec 1.5)."""

import errno

import numpy as np
import pytest

from pool_impl.errors import CreateError
from pool_impl.host import new_host
from pool_impl.layout import FLAG_DMA_MAP, FLAG_DMA_SYNC_DEV
from pool_impl.pool import PoolParams, create
from pool_impl.release import RELEASES
from tests.pool_impl.trace import SYNCED, Trace


@pytest.mark.parametrize(("asked", "size"), [(0, 1024), (1, 1), (16384, 16384), (40000, 16384)])
def test_ring_size_is_the_default_or_clamped(asked: int, size: int) -> None:
    host = new_host(RELEASES["6.1"], pages=1)
    create(host, 0, PoolParams(pool_size=asked))
    assert host.pools[0].ring_size == size


@pytest.mark.parametrize(
    ("params", "field"),
    [
        (PoolParams(flags=8, pool_size=1 << 20), "flags"),
        (PoolParams(flags=FLAG_DMA_MAP, dma_dir=1), "dma_dir"),
        (PoolParams(flags=FLAG_DMA_SYNC_DEV), "flags"),
        (PoolParams(flags=FLAG_DMA_MAP | FLAG_DMA_SYNC_DEV), "max_len"),
    ],
)
def test_refusals_name_the_field_and_leave_nothing_behind(params: PoolParams, field: str) -> None:
    host = new_host(RELEASES["6.1"], pages=1)
    before = host.pools.tobytes()
    with pytest.raises(CreateError, match=f"EINVAL: {field}") as caught:
        create(host, 0, params)
    assert (caught.value.errno, caught.value.field) == (errno.EINVAL, field)
    assert host.pools.tobytes() == before


def test_nothing_is_asked_for_by_default() -> None:
    assert PoolParams() == PoolParams(0, 0, 0, -1, 0, 0, 0, -1, -1, 0)


def test_a_direction_does_not_matter_without_maps() -> None:
    host = new_host(RELEASES["6.1"], pages=1)
    create(host, 0, PoolParams(dma_dir=1))
    assert host.pools[0].user_cnt == 1


def test_a_refusal_shows_the_value() -> None:
    with pytest.raises(CreateError, match="max_len = 0: "):
        create(new_host(RELEASES["6.1"], pages=1), 0, PoolParams(flags=FLAG_DMA_MAP | FLAG_DMA_SYNC_DEV))


def test_a_pool_in_the_place_of_another_has_nothing_of_it() -> None:
    """Not its counters, nor the slots that its ring had not cleared."""
    trace = Trace(flags=SYNCED, max_len=4096, napi=3, cpuid=2, kernel="6.12")
    trace.alloc(*range(1, 11))
    trace.put(*range(1, 11))
    trace.op("destroy", pool=0)
    assert trace.pool.freed
    assert trace.host.slots[:10].all()
    before = trace.host.pools[1].tobytes()
    of_another = int(trace.host.pools[1].ring_base)
    trace.host.slots[of_another] = 5
    create(trace.host, 0, PoolParams(pool_size=64))
    fresh = new_host(RELEASES["6.12"], pages=1)
    create(fresh, 0, PoolParams(pool_size=64))
    assert (fresh.pools[0].created, trace.pool.created) == (1, 2)
    trace.pool.created = 1
    assert trace.pool.tobytes() == fresh.pools[0].tobytes()
    assert np.flatnonzero(trace.host.slots).tolist() == [of_another]
    assert trace.host.pools[1].tobytes() == before
    fresh.pools[0].hold = 7
    create(fresh, 0, PoolParams())
    assert fresh.pools[0].hold == 0
