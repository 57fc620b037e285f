"""Between device and memory: what an IOMMU costs in each mode and what bounce buffers copy."""

from pathlib import Path
from typing import Any

import pytest

from pool_impl.jit import entry
from pool_impl.layout import records
from workers import run_trial
from workers.config import TrialConfig
from workers.errors import ConfigError
from workers.fields.groups import Value
from workers.model import MODEL_DIGEST
from workers.pricing.dma import DMA, invalidations_for, wait_for_queue
from workers.profiles import arch

FLAT = Path(__file__).parent / "profiles" / "flat.toml"

CATEGORIES = ("iommu_map", "iommu_unmap", "iommu_invalidate", "iommu_queue", "swiotlb_copy")
NOT_RECYCLED: dict[str, Value] = {"pool.recycle": False}
MODELS: dict[str, dict[str, Value]] = {
    "page-per-packet": NOT_RECYCLED,
    "replace-before-pass": {**NOT_RECYCLED, "driver.model": "replace-before-pass"},
    "split": {**NOT_RECYCLED, "driver.model": "split"},
    "page-allocator": {"driver.model": "page-allocator"},
    "slab": {"driver.model": "slab"},
    "split-unpooled": {"driver.model": "split-unpooled"},
    "forward": {"app.reader": "forward"},
}
"""ways to map and unmap for each packet, or each second one"""


def run(*scenarios: dict[str, Value], **more: Value) -> dict[str, Any]:
    fields: dict[str, Value] = {
        "duration_ms": 12,
        "warmup_ms": 2,
        "traffic.kind": "constant",
        "traffic.rate_pps": 300_000,
    }
    for scenario in scenarios:
        fields |= scenario
    return run_trial(TrialConfig.from_fields(fields | {n.replace("__", "."): v for n, v in more.items()}))


def spent(record: dict[str, Any]) -> dict[str, float]:
    return {name: record[f"{name}_ns_per_packet"] for name in CATEGORIES}


@pytest.fixture(name="invalidating", scope="module")
def _invalidating(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Nothing takes time but an invalidation: a microsecond."""
    path = tmp_path_factory.mktemp("profiles") / "invalidates.toml"
    path.write_text(
        f'title = "Flat but for invalidations"\ndescription = "one cost"\nparent = "{FLAT}"\n'
        '[iommu_invalidate_ns]\nvalue = 1000\ncertainty = "derived"\nsource = "a test"\n'
    )
    return str(path)


# IOMMU


@pytest.mark.parametrize("name", MODELS)
def test_strict_costs_most_and_passthrough_nothing(name: str) -> None:
    busy = {
        mode: run(MODELS[name], machine__iommu=mode)["busy_ns_per_packet"]
        for mode in ("off", "passthrough", "lazy", "strict")
    }
    assert busy["off"] == busy["passthrough"] < busy["lazy"] < busy["strict"]


@pytest.mark.parametrize("name", MODELS)
def test_an_unmapping_is_an_invalidation_or_part_of_one(name: str) -> None:
    strict, lazy = (run(MODELS[name], machine__iommu=mode) for mode in ("strict", "lazy"))
    profile = arch.load("broadwell-ep")
    for record in (strict, lazy):
        packets = record["dma_unmaps"] * profile["iommu_unmap_ns"] / record["iommu_unmap_ns_per_packet"]
        for category, count, parameter in (
            ("iommu_map", "dma_maps", "iommu_map_ns"),
            ("iommu_invalidate", "iommu_invalidations", "iommu_invalidate_ns"),
        ):
            assert record[f"{category}_ns_per_packet"] * packets == pytest.approx(
                record[count] * profile[parameter]
            )
    assert strict["iommu_invalidations"] == strict["dma_unmaps"]
    # queues full of 255, and once the timer of 10 ms
    assert lazy["dma_unmaps"] / 255 - 1 <= lazy["iommu_invalidations"] <= lazy["dma_unmaps"] / 255 + 2


@pytest.mark.parametrize("mode", ["lazy", "strict"])
@pytest.mark.parametrize("arch_name", ["broadwell-ep", "armada-8040", "armada-3720"])
def test_recycled_pages_stay_mapped(mode: str, arch_name: str) -> None:
    """With no drops and a ring that holds all pages, an IOMMU costs nothing once pages circulate."""
    record = run(arch=arch_name, machine__iommu=mode, traffic__rate_pps=100_000)
    assert record["dma_maps"] == record["dma_unmaps"] == record["iommu_invalidations"] == 0
    off = run(arch=arch_name, traffic__rate_pps=100_000)
    assert {**record, "iommu_invalidations": 0} == {**off, "iommu_invalidations": 0}


@pytest.mark.parametrize("queues", [1, 2, 4])
def test_one_queue_of_invalidations_bounds_what_all_cpus_can_do(invalidating: str, queues: int) -> None:
    record = run(
        NOT_RECYCLED,
        arch=invalidating,
        machine__iommu="strict",
        nic__queues=queues,
        nic__rx_ring=64,
        traffic__flows=256,
        traffic__rate_pps=2_000_000,
    )
    handled = record["packets_handled_rate"]
    # the first queue to find its ring empty waits for an interrupt, so one alone does not reach the bound
    assert (0.8 if queues == 1 else 0.95) * 1e6 < handled < 1.01e6
    assert (record["iommu_queue_ns_per_packet"] > 0) == (queues > 1)
    assert record["iommu_invalidate_ns_per_packet"] == pytest.approx(1000, rel=0.02)


@pytest.mark.parametrize("queues", [1, 2, 4])
def test_queues_wait_for_one_another_in_strict_mode_only(queues: int) -> None:
    """CPUs that wait: as many times an invalidation as there are others, if all always unmap."""
    fields: dict[str, Value] = {"nic.queues": queues, "traffic.flows": 256, "traffic.rate_pps": 2_000_000}
    strict, lazy = (run(NOT_RECYCLED, fields, machine__iommu=mode) for mode in ("strict", "lazy"))
    assert lazy["iommu_queue_ns_per_packet"] < 1
    invalidate_ns = arch.load("broadwell-ep")["iommu_invalidate_ns"]
    assert strict["iommu_queue_ns_per_packet"] < (queues - 1) * invalidate_ns + 1
    if queues == 4:
        assert strict["iommu_queue_ns_per_packet"] > 2 * invalidate_ns


Told = tuple[int, int, int]
"""unmaps: CPU, time in picoseconds, how many"""


@entry("test-dma-" + MODEL_DIGEST)
def unmap(dma: Any, cpu: int, now_ps: int, times: int) -> int:
    found = 0
    for _ in range(times):
        found += invalidations_for(dma, cpu, now_ps)
    return found


@entry("test-dma-" + MODEL_DIGEST)
def wait(dma: Any, now_ps: int) -> int:
    return int(wait_for_queue(dma, now_ps))


MS = 10**9


@pytest.mark.parametrize(
    ("unmaps", "expected"),
    [
        ([(0, 0, 255)], [0]),
        ([(0, 0, 256)], [1]),
        ([(0, 0, 255 * 4 + 1)], [4]),
        # each CPU has a queue of its own
        ([(0, 0, 255), (1, 0, 255), (0, 0, 1), (1, 0, 1)], [0, 0, 1, 0]),
        ([(0, 0, 255), (1, 0, 1), (0, 0, 1), (1, 0, 255)], [0, 0, 1, 0]),
        # 10 ms after the first one all queues are flushed, and then 10 ms after the next
        ([(0, 0, 200), (0, 10 * MS - 1, 55), (0, 10 * MS, 255)], [0, 0, 1]),
        ([(0, 0, 255), (1, 9 * MS, 255), (0, 10 * MS, 1), (1, 10 * MS, 1)], [0, 0, 1, 0]),
        ([(0, 0, 1), (0, 50 * MS, 1), (0, 60 * MS - 1, 1), (0, 60 * MS, 1)], [0, 1, 0, 1]),
        # a full queue is flushed beside the timer
        ([(0, 0, 1), (0, 9 * MS, 255), (0, 10 * MS, 1)], [0, 1, 1]),
    ],
)
def test_flush_queues(unmaps: list[Told], expected: list[int]) -> None:
    dma = records(DMA, 1)[0]
    dma.translates = dma.lazy = 1
    assert [unmap(dma, cpu, now_ps, times) for cpu, now_ps, times in unmaps] == expected
    assert dma.invalidations == sum(expected)


def test_who_comes_later_waits_until_the_invalidation_before_is_done() -> None:
    dma = records(DMA, 1)[0]
    dma.invalidate_ps = 1000
    assert [wait(dma, now_ps) for now_ps in (0, 400, 400, 5000, 5999)] == [0, 600, 1600, 0, 1]


# Bounce buffers


@pytest.mark.parametrize("size", [64, 512, 1518])
def test_received_bytes_are_copied_at_the_rate_of_the_profile(size: int) -> None:
    record = run(machine__swiotlb=True, traffic__packet_size=size)
    assert record["dma_maps"] == 0
    rate = arch.load("broadwell-ep")["copy_bytes_per_ns"]
    assert record["swiotlb_copy_ns_per_packet"] == pytest.approx(size / rate, rel=0.001)


@pytest.mark.parametrize(
    ("name", "kernel", "copied_bytes"),
    [
        ("page-per-packet", "6.1", 1024 + 4096),
        ("page-per-packet", "5.14", 1024),
        ("slab", "6.1", 2 * 1536),
        ("slab", "5.14", 1536),
        ("page-allocator", "6.1", 2 * 3520),
        # the page is recycled, so what is copied beside is the frame as it is mapped to be sent
        ("forward", "6.1", 2 * 1024),
        ("forward", "5.14", 2 * 1024),
    ],
)
def test_a_mapping_copies_what_it_covers(name: str, kernel: str, copied_bytes: int) -> None:
    record = run(MODELS[name], machine__swiotlb=True, kernel=kernel, traffic__packet_size=1024)
    profile = arch.load("broadwell-ep")
    copied = copied_bytes / profile["copy_bytes_per_ns"]
    assert record["swiotlb_copy_ns_per_packet"] == pytest.approx(copied, rel=0.01)
    for category, parameter in (("dma_map", "dma_map_ns"), ("dma_unmap", "dma_unmap_ns")):
        price = profile[parameter] + profile["swiotlb_slot_ns"]
        assert record[f"{category}_ns_per_packet"] == pytest.approx(price, rel=0.01)


def test_mappings_for_both_ways_copy_at_syncs_for_the_device_too() -> None:
    """With an XDP program the device may read the page again: what is dropped was synced back."""
    record = run(machine__swiotlb=True, traffic__packet_size=1024, xdp__pass_percent=0, xdp__drop_percent=100)
    rate = arch.load("broadwell-ep")["copy_bytes_per_ns"]
    assert record["swiotlb_copy_ns_per_packet"] == pytest.approx(2 * 1024 / rate, rel=0.001)


def test_bouncing_costs_a_short_frame_what_was_measured() -> None:
    """MACCHIATObin, a driver without page_pool on a kernel that copies nothing at the mapping, which unmaps a
    buffer of 64 to 512 bytes: 419 ns (board_macchiatobin02). Here the buffer has 1536."""
    fields: dict[str, Value] = {"arch": "armada-8040", "kernel": "5.14", "driver.model": "slab"}
    bounced, direct = run(fields, machine__swiotlb=True), run(fields)
    between = sum(
        bounced[f"{category}_ns_per_packet"] - direct[f"{category}_ns_per_packet"]
        for category in ("dma_map", "dma_unmap", "swiotlb_copy")
    )
    beyond = (1536 - 192) / arch.load("armada-8040")["copy_bytes_per_ns"]
    assert between - beyond == pytest.approx(419, rel=0.05)


# What cannot be


@pytest.mark.parametrize("mode", ["lazy", "strict"])
def test_nothing_is_bounced_behind_an_iommu(mode: str) -> None:
    message = f"machine.swiotlb = True: behind machine.iommu = {mode} nothing is bounced"
    with pytest.raises(ConfigError, match=message):
        TrialConfig.from_fields({"machine.swiotlb": True, "machine.iommu": mode})
    TrialConfig.from_fields({"machine.swiotlb": True, "machine.iommu": "passthrough"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"machine.iommu": "strict"}, "machine.iommu = 'strict': workload = pool_slow maps no page"),
        ({"machine.swiotlb": True}, "machine.swiotlb = True: workload = pool_slow maps no page"),
    ],
)
def test_loops_map_nothing(fields: dict[str, Value], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrialConfig.from_fields({"workload": "pool_slow", **fields})
