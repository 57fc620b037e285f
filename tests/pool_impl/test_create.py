"""Creation accepts and refuses what the release does (spec 1.5)."""

import errno

import pytest

from pool_impl.errors import CreateError
from pool_impl.host import new_host
from pool_impl.layout import FLAG_DMA_MAP, FLAG_DMA_SYNC_DEV
from pool_impl.pool import PoolParams, create
from pool_impl.release import RELEASES


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
