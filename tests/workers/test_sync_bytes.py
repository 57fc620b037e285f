"""How much of a buffer a sync covers, and buffers beyond a page."""

import pytest

import workers
from workers.config import TrialConfig
from workers.errors import ConfigError
from workers.fields.groups import Value
from workers.profiles import arch

DROP: dict[str, Value] = {
    "arch": "armada-3720",
    "traffic.kind": "saturation",
    "xdp.pass_percent": 0,
    "xdp.drop_percent": 100,
    "driver.sync": "driver",
}


def ns(**fields: Value) -> float:
    return float(workers.run_trial(TrialConfig.from_fields({**DROP, **fields}))["busy_ns_per_packet"])


def test_a_sync_costs_a_call_and_lines_as_published() -> None:
    """XDP drop on this board with 3520, 1536 and 0 bytes synced took 2373, 2084 and 1646 ns: differences of
    289 and 438, within the spread of the straight line that the profile has from them."""
    whole, part, none = (ns(**{"driver.sync_bytes": size}) for size in (3520, 1536, 0))
    assert whole - part == pytest.approx(289, rel=0.02)
    assert part - none == pytest.approx(438, rel=0.02)
    assert ns() == whole


@pytest.mark.parametrize("size", [0, 100, 4096])
def test_the_pool_syncs_no_more_than_that(size: int) -> None:
    fields: dict[str, Value] = {"driver.sync": "pool", "driver.sync_bytes": size, "traffic.packet_size": 1518}
    record = workers.run_trial(TrialConfig.from_fields({**DROP, **fields}))
    if size == 0:
        assert (record["dma_syncs"], record["dma_sync_bytes"]) == (0, 0)
    else:
        # the device wrote 1518 bytes, of which XDP drop tells the pool
        assert record["dma_sync_bytes"] == record["dma_syncs"] * min(size, 1518)


def test_a_large_buffer_is_maintained_in_whole() -> None:
    """Mapping and unmapping walk all lines of the buffer, 8192 bytes of it or 1536."""
    fields: dict[str, Value] = {
        "arch": "armada-3720",
        "driver.model": "slab",
        "traffic.kind": "constant",
        "traffic.rate_pps": 50_000,
        "traffic.packet_size": 1518,
    }
    records = [
        workers.run_trial(TrialConfig.from_fields({**fields, "driver.buffer_bytes": size}))
        for size in (2048, 8192)
    ]
    more_lines = (8192 - 1536) / 64
    line_ns = arch.load("armada-3720")["dma_sync_line_ns"]
    for name in ("sync_for_cpu_ns_per_packet", "sync_for_device_ns_per_packet"):
        assert records[1][name] - records[0][name] == pytest.approx(more_lines * line_ns, rel=0.01)
    # 3 of the one and 17 of the other fit into a block of 32 KB
    assert records[1]["memory_peak_bytes"] > 4 * records[0]["memory_peak_bytes"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"driver.sync_bytes": 64, "driver.model": "slab", "driver.sync": "pool", "xdp.pass_percent": 100,
          "xdp.drop_percent": 0}, "driver.sync_bytes"),
        ({"driver.sync_bytes": 4097}, "driver.sync_bytes"),
        ({"driver.buffer_bytes": 8192}, "driver.buffer_bytes"),
        ({"driver.buffer_bytes": 8192, "driver.model": "fragments", "xdp.pass_percent": 100,
          "xdp.drop_percent": 0}, "driver.buffer_bytes"),
        ({"driver.buffer_bytes": 1024, "driver.model": "slab", "driver.sync": "pool", "xdp.pass_percent": 100,
          "xdp.drop_percent": 0}, "driver.buffer_bytes"),
    ],
)  # fmt: skip
def test_combinations_that_cannot_be(fields: dict[str, Value], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}"):
        TrialConfig.from_fields({**DROP, **fields})


def test_a_what_if_is_known_inside_its_block_only() -> None:
    with arch.varied("armada-3720", {"driver_ns": 0.0, "l1_ns": 500.0}, ["packet"]) as name:
        varied = arch.load(name)
        assert (varied["driver_ns"], varied["l1_ns"], varied.free_misses) == (0, 500, ("packet",))
        assert varied["dram_ns"] == arch.load("armada-3720")["dram_ns"]
        assert varied.digest != arch.load("armada-3720").digest
    with pytest.raises(workers.errors.ProfileError):
        arch.load(name)
