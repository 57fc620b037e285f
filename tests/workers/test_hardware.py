"""What the machine's settings change of a profile: clock, page size, return mitigation, DDIO."""

from pathlib import Path
from typing import Any

import pytest

from workers import run_trial
from workers.config import TrialConfig
from workers.errors import ConfigError, ProfileError
from workers.fields.groups import Value
from workers.pricing.calls import CALLS
from workers.pricing.cost import KINDS_OF_WORK, PRICES
from workers.profiles import arch
from workers.profiles.hardware import CLOCKED, hardware_of

PROFILES = Path(__file__).parent / "profiles"
FLAT = PROFILES / "flat.toml"
PRICED = str(PROFILES / "priced.toml")

LOOPS = ("pool_fast", "pool_ring", "pool_slow", "page_single", "page_bulk")


def config(fields: dict[str, Value], more: dict[str, Value]) -> TrialConfig:
    return TrialConfig.from_fields(fields | {name.replace("__", "."): value for name, value in more.items()})


def run(**more: Value) -> dict[str, Any]:
    fields: dict[str, Value] = {
        "duration_ms": 12,
        "warmup_ms": 2,
        "traffic.kind": "constant",
        "traffic.rate_pps": 200_000,
    }
    return run_trial(config(fields, more))


def values(**more: Value) -> dict[str, float]:
    return dict(hardware_of(config({}, more)).values)


# Clock


def test_what_is_not_the_cores_own_keeps_its_time() -> None:
    times = {name for name in arch.PARAMETERS if name.endswith("_ns") and name != "copy_bytes_per_ns"}
    assert times - set(CLOCKED) == {
        *("llc_ns", "dram_ns", "dram_far_ns", "line_transfer_ns", "line_transfer_far_ns"),
        *("register_write_ns", "interrupt_ns", "poll_ns", "ipi_ns", "iommu_invalidate_ns"),
        "dma_sync_line_ns",
    }
    assert set(CLOCKED) <= times


@pytest.mark.parametrize("workload", LOOPS)
def test_twice_the_clock_halves_instructions(workload: str) -> None:
    """No caches there, at 1 GHz."""
    once, twice = (run(arch=PRICED, workload=workload, machine__clock_mhz=mhz) for mhz in (1000, 2000))
    assert once["busy_ns_per_packet"] > 0
    assert twice["busy_ns_per_packet"] == pytest.approx(once["busy_ns_per_packet"] / 2, rel=0.001)


def test_memory_and_devices_keep_their_time() -> None:
    once, twice = (run(machine__clock_mhz=mhz) for mhz in (3600, 7200))
    for category in ("driver", "protocol", "skb_alloc", "pool_put"):
        ratio = twice[f"{category}_ns_per_packet"] / once[f"{category}_ns_per_packet"]
        assert ratio == pytest.approx(0.5, rel=0.01)
    for category in ("interrupt", "poll", "device_register"):
        kept = once[f"{category}_ns_per_packet"]
        assert twice[f"{category}_ns_per_packet"] == pytest.approx(kept, rel=0.001)
    misses = twice["cache_misses_ns_per_packet"] / once["cache_misses_ns_per_packet"]
    assert misses == pytest.approx(1, rel=0.05)


def test_the_profiles_own_clock_changes_nothing() -> None:
    assert run(machine__clock_mhz=3600) == run()


@pytest.mark.parametrize(("name", "factor"), [("armada-8040", 0.5), ("armada-3720", 1)])
def test_a_sync_follows_the_clock_only_where_it_has_nothing_to_do(name: str, factor: float) -> None:
    profile = arch.load(name)
    twice = values(arch=name, machine__clock_mhz=round(2000 * profile["clock_ghz"]))
    assert twice["dma_sync_call_ns"] == pytest.approx(factor * profile["dma_sync_call_ns"])
    assert twice["dma_sync_line_ns"] == profile["dma_sync_line_ns"]


# Return mitigation


def test_calls_are_counted_for_every_kind_of_work_that_makes_some() -> None:
    """The others are atomics, syncs, whose call is priced apart, and the copy, which is part of a call."""
    assert set(CALLS) <= set(range(KINDS_OF_WORK))
    without = {PRICES[kind] for kind in PRICES.keys() - CALLS.keys()}
    assert {parameter for _, parameter in without} == {"atomic_ns", "dma_sync_line_ns"}


@pytest.fixture(name="zen4", scope="module")
def _zen4(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page_pool benchmark's EPYC 9684X, without and with safe-ret: 1.36 and 5.70 ns a call."""
    path = tmp_path_factory.mktemp("profiles") / "calls.toml"
    path.write_text(
        f'title = "Flat but for calls"\ndescription = "two costs"\nparent = "{FLAT}"\n'
        '[call_ns]\nvalue = 1.36\ncertainty = "derived"\nsource = "a test"\n'
        '[mitigated_call_ns]\nvalue = 5.7\ncertainty = "derived"\nsource = "a test"\n'
    )
    return str(path)


@pytest.mark.parametrize(
    ("workload", "off_ns", "on_ns"),
    [
        ("pool_fast", 3.8, 14.2),
        ("pool_ring", 10.5, 34.2),
        ("pool_slow", 30.6, 94.9),
        ("page_single", 45.9, 149.8),
    ],
)
def test_longer_calls_alone_carry_one_published_run_to_the_other(
    zen4: str, workload: str, off_ns: float, on_ns: float
) -> None:
    """Nothing else takes time there, so the loop's time is that of its calls; what was published without
    mitigation is the rest. Within 20%, as the validation wants it."""
    assert run(arch=zen4, workload=workload)["busy_ns_per_packet"] == 0
    longer = run(arch=zen4, workload=workload, machine__mitigation="on")["busy_ns_per_packet"]
    assert off_ns + longer == pytest.approx(on_ns, rel=0.2)


def test_a_lock_takes_two_calls_as_published(zen4: str) -> None:
    """5.97 ns without and 14.6 with safe-ret."""
    record = run(arch=zen4, workload="pool_ring", machine__mitigation="on")
    assert 5.97 + record["ring_lock_ns_per_packet"] == pytest.approx(14.6, rel=0.01)


def test_a_part_without_mitigation_has_none_to_switch_on() -> None:
    assert run(machine__mitigation="on") == run()


# DDIO


def test_the_device_writes_to_the_last_level_cache_or_to_memory() -> None:
    profile = arch.load("broadwell-ep")
    exposed = profile["miss_exposed_ratio"]
    on, off = (run(machine__ddio=where)["cache_misses_ns_per_packet"] for where in ("on", "off"))
    # a header for each packet, and a line of descriptors for one or two
    lines = (off - on) / (exposed * (profile["dram_ns"] - profile["llc_ns"]))
    assert 1.5 <= lines <= 2
    assert run(machine__ddio="on") == run(machine__ddio="profile")


def test_a_profile_without_a_share_has_a_tenth(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    path.write_text(
        'title = "No DDIO"\ndescription = "as by AMD"\nparent = "broadwell-ep"\n'
        '[ddio_bytes]\nvalue = 0\ncertainty = "derived"\nsource = "a test"\n'
    )
    assert values(arch=str(path))["ddio_bytes"] == 0
    share = values(arch=str(path), machine__ddio="on")["ddio_bytes"]
    assert share == 15728640 // 10 == values(machine__ddio="on")["ddio_bytes"]


def test_a_device_that_is_not_coherent_writes_to_no_cache() -> None:
    message = "machine.ddio = 'on': arch = armada-3720 has not coherent DMA to write to; use profile or off"
    with pytest.raises(ConfigError, match=message):
        TrialConfig.from_fields({"arch": "armada-3720", "machine.ddio": "on"})


# Page size

JUMBO: dict[str, Value] = {"traffic__packet_size": 9018, "traffic__rate_pps": 20_000, "app__reader": "fast"}
PAGES = (4096, 16384, 65536)


@pytest.mark.parametrize(
    ("model", "buffers"),
    [
        # what a page holds without 256 bytes of headroom and 320 of shared info
        ("page-per-packet", (3, 1, 1)),
        ("page-allocator", (3, 1, 1)),
        # 42 bytes of headers go elsewhere
        ("header-split", (3, 1, 1)),
        # as large as before
        ("fragments", (5, 5, 5)),
        ("split", (6, 6, 6)),
        ("slab", (6, 6, 6)),
    ],
)
def test_a_jumbo_takes_as_many_descriptors_as_it_fills_buffers(model: str, buffers: tuple[int, ...]) -> None:
    one = run(driver__model="page-per-packet")["driver_ns_per_packet"]
    for page_bytes, expected in zip(PAGES, buffers, strict=True):
        record = run(driver__model=model, machine__page_bytes=page_bytes, **JUMBO)
        assert record["driver_ns_per_packet"] == pytest.approx(expected * one)
        assert record["packets_delivered"] == 200


@pytest.mark.parametrize("model", ["fragments", "split"])
@pytest.mark.parametrize("page_bytes", PAGES)
@pytest.mark.parametrize("buffer_bytes", [1024, 2048, 4096])
def test_a_page_has_as_many_buffers_as_fit(model: str, page_bytes: int, buffer_bytes: int) -> None:
    """Their shares come back: what circulates are the same pages, and a ring takes as much memory."""
    record = run(
        driver__model=model,
        driver__buffer_bytes=buffer_bytes,
        machine__page_bytes=page_bytes,
        app__reader="fast",
    )
    parts = page_bytes // buffer_bytes
    assert record["pages_in_rx_ring"] == pytest.approx(512 / parts, rel=0.05)
    # beside those a bulk of 64 that is in the cache, and as many that readers have
    assert record["memory_peak_bytes"] <= (512 / parts + 128) * page_bytes
    assert record["pages_from_page_allocator"] <= 128
    assert record["packets_missed"] == record["packets_dropped_socket"] == 0


@pytest.mark.parametrize("page_bytes", PAGES)
def test_a_page_for_each_packet_is_memory_for_each_descriptor(page_bytes: int) -> None:
    record = run(machine__page_bytes=page_bytes)
    assert record["memory_peak_bytes"] % page_bytes == 0
    assert 512 * page_bytes <= record["memory_peak_bytes"] <= 2.5 * 512 * page_bytes
    assert record["pages_in_rx_ring"] == pytest.approx(512, rel=0.01)


@pytest.mark.parametrize("page_bytes", PAGES)
def test_a_recycled_page_is_synced_as_far_as_the_device_may_write(page_bytes: int) -> None:
    """The skb's free knows no length: larger pages cost more where software maintains the caches."""
    record = run(arch="armada-3720", machine__page_bytes=page_bytes, traffic__rate_pps=20_000)
    assert record["dma_sync_bytes"] == record["dma_syncs"] * (page_bytes - 256 - 320)
    profile = arch.load("armada-3720")
    lines = -(-(page_bytes - 576) // 64)
    price = profile["dma_sync_call_ns"] + lines * profile["dma_sync_line_ns"]
    assert record["sync_for_device_ns_per_packet"] == pytest.approx(price, rel=0.01)


@pytest.mark.parametrize("page_bytes", PAGES)
def test_the_cores_blocks_are_32_kib_or_a_page(page_bytes: int) -> None:
    """17 buffers of 1920 bytes in 32 KiB, 34 in 64."""
    record = run(driver__model="slab", machine__page_bytes=page_bytes)
    blocks = max(32768, page_bytes)
    pages = record["pages_allocated"] / (blocks // 1920) * blocks / page_bytes
    assert record["pages_from_page_allocator"] == pytest.approx(pages, rel=0.05)


@pytest.mark.parametrize("page_bytes", [16384, 65536])
def test_xdp_takes_frames_of_one_page(page_bytes: int) -> None:
    fields: dict[str, Value] = {"xdp.pass_percent": 0, "xdp.drop_percent": 100, "traffic.packet_size": 9018}
    with pytest.raises(ConfigError, match=r"driver\.model = 'page-per-packet': with an XDP"):
        TrialConfig.from_fields(fields)
    record = run_trial(
        TrialConfig.from_fields(
            {**fields, "machine.page_bytes": page_bytes, "traffic.rate_pps": 50_000, "duration_ms": 4}
        )
    )
    assert record["packets_dropped_xdp"] > 0
    assert record["packets_missed"] == 0


def test_the_profiles_own_page_size_changes_nothing() -> None:
    assert run(machine__page_bytes=4096) == run()


def test_pages_of_another_size_move_in_batches_of_as_many_bytes() -> None:
    """What the kernel has: 63, 15 and 3 pages, and lists of at least four batches."""
    found = [hardware_of(config({}, {"machine.page_bytes": size})) for size in PAGES]
    assert [hardware.pcp_batch for hardware in found] == [63, 15, 3]
    assert all(hardware.pcp_high >= 4 * hardware.pcp_batch for hardware in found)


@pytest.mark.parametrize("page_bytes", [2048, 131072])
def test_pages_of_a_size_that_is_not_modelled_are_refused(tmp_path: Path, page_bytes: int) -> None:
    path = tmp_path / "small.toml"
    path.write_text(
        'title = "Other"\ndescription = "pages of another size"\nparent = "broadwell-ep"\n'
        f'[page_bytes]\nvalue = {page_bytes}\ncertainty = "derived"\nsource = "a test"\n'
    )
    with pytest.raises(ProfileError, match=rf"page_bytes\.value = {page_bytes}: use 4096 to 65536"):
        arch.load(str(path))


@pytest.mark.parametrize("model", ["header-split", "fragments", "split", "page-per-packet"])
@pytest.mark.parametrize("page_bytes", [16384, 65536])
def test_tcp_that_is_merged_balances_on_large_pages(model: str, page_bytes: int) -> None:
    """The checks of every trial: pages by place, shares, parts that no two buffers share."""
    record = run(
        driver__model=model,
        machine__page_bytes=page_bytes,
        app__protocol="tcp",
        app__reader="fast",
        nic__hw_gro=model == "header-split",
        stack__gro=model != "header-split",
        traffic__packet_size=1518,
        traffic__flows=4,
        traffic__train_packets=16,
    )
    assert record["packets_delivered"] > 1900
    assert record["gro_packets_per_skb"] > 1
