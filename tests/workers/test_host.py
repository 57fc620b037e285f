"""Measuring the machine: what is walked, what is written, and that no page or packet is lost under load.

No test looks at how long anything took, which is the machine's affair.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pool_impl.layout import words
from workers import run_trial
from workers.config import TrialConfig
from workers.errors import CheckError, ProfileError
from workers.host import calibrate as calibrating
from workers.host import facts as asking
from workers.host import load, load_bench, parents
from workers.host.clock import Spread, spread_of
from workers.host.levels import Point, Sizes, by_level, find_sizes, set_sizes
from workers.host.load_bench import Setting
from workers.host.memory import lay_cycle, random_order
from workers.profiles import arch

PROFILES = Path(__file__).parent / "profiles"

KIB, MIB = 1 << 10, 1 << 20


def test_a_repeats_least_counts_and_its_median_is_the_range() -> None:
    assert spread_of([5.0, 3.0, 9.0]) == Spread(3.0, 3.0, 5.0)


def test_a_difference_is_as_uncertain_as_both_and_never_negative() -> None:
    assert Spread(9, 10, 14).plus(Spread(3, 4, 5), -1) == Spread(4, 6, 11)
    assert Spread(1, 1, 1).plus(Spread(2, 2, 3), -1) == Spread(0, 0, 0)


# What a pointer chase walks


@pytest.mark.parametrize("lines", [2, 3, 64, 1000, 4097])
def test_a_chase_visits_every_line_once_before_it_comes_back(lines: int) -> None:
    table = words(lines * 8)
    lay_cycle(table, lines, 8)
    seen = []
    position = 0
    for _ in range(lines):
        seen.append(position)
        position = int(table[position])
    assert position == 0
    assert sorted(seen) == list(range(0, lines * 8, 8))


def test_the_order_of_a_chase_has_no_stride() -> None:
    """What a prefetcher could follow: the most frequent distance between two lines in a row."""
    order = np.asarray(random_order(4096, 8))
    assert sorted(order.tolist()) == list(range(0, 4096 * 8, 8))
    _, frequent = np.unique(np.diff(order), return_counts=True)
    assert frequent.max() < 8


# Levels from a latency curve


def curve(*levels: tuple[int, float]) -> list[Point]:
    """Powers of two from 8 KiB on: levels up to a size at a latency, and memory at 100 ns beyond."""
    points = []
    for size in (8 * KIB << step for step in range(16)):
        ns = next((ns for capacity, ns in levels if size <= capacity), 100.0)
        points.append(Point(size, Spread(ns, ns, 1.1 * ns)))
    return points


@pytest.mark.parametrize(
    ("levels", "sizes"),
    [
        ([(32 * KIB, 1.2), (MIB, 4.0), (32 * MIB, 20.0)], Sizes(32 * KIB, MIB, 32 * MIB)),
        ([(32 * KIB, 3.0), (512 * KIB, 15.0)], Sizes(32 * KIB, 512 * KIB, 0)),
        ([(64 * KIB, 1.0)], Sizes(64 * KIB, 0, 0)),
    ],
)
def test_sizes_are_found_by_the_steps_of_a_curve(levels: list[tuple[int, float]], sizes: Sizes) -> None:
    assert find_sizes(curve(*levels)) == sizes


def test_each_level_has_the_latency_of_the_sets_that_it_holds() -> None:
    sizes = Sizes(32 * KIB, MIB, 32 * MIB)
    found = by_level(curve((32 * KIB, 1.2), (MIB, 4.0), (32 * MIB, 20.0)), sizes)
    assert [level and level.value for level in found] == [1.2, 4.0, 20.0, 100.0]


def test_noise_cannot_make_a_larger_level_faster() -> None:
    found = by_level(curve((32 * KIB, 5.0), (MIB, 4.0), (32 * MIB, 20.0)), Sizes(32 * KIB, MIB, 32 * MIB))
    values = [level.value for level in found if level]
    assert values == [5.0, 5.0, 20.0, 100.0]
    assert all(level.low <= level.value <= level.high for level in found if level)


def test_sets_lie_inside_the_levels_and_the_last_one_beyond_them() -> None:
    sizes = Sizes(48 * KIB, 2 * MIB, 36 * MIB)
    asked = set_sizes(sizes, 16 << 30)
    assert asked == sorted(asked)
    assert asked[-1] == 72 * MIB
    assert not any(24 * KIB < size < 96 * KIB or MIB < size < 4 * MIB for size in asked)


def test_there_is_always_a_set_to_measure() -> None:
    assert set_sizes(Sizes(0, 0, 0), 0)[-1] == MIB


def test_little_memory_means_smaller_sets_and_no_latency_of_memory() -> None:
    sizes = Sizes(48 * KIB, 2 * MIB, 480 * MIB)
    asked = set_sizes(sizes, 256 * MIB)
    assert asked[-1] == 64 * MIB
    points = [Point(size, Spread(1, 1, 1)) for size in asked]
    assert by_level(points, sizes)[3] is None


# What a machine says about itself


def machine_tree(root: Path, caches: list[tuple[int, str, str]], cpuinfo: str) -> asking.Facts:
    """Facts from directories as the kernel makes them; CPU numbers are this machine's."""
    cpus = root / "cpu"
    for cpu in asking.facts().cpus:
        for place, (level, kind, size) in enumerate(caches):
            index = cpus / f"cpu{cpu}" / "cache" / f"index{place}"
            index.mkdir(parents=True)
            for name, text in (("level", level), ("type", kind), ("size", size), ("coherency_line_size", 64)):
                (index / name).write_text(f"{text}\n")
    proc = root / "proc"
    proc.mkdir()
    (proc / "cpuinfo").write_text(cpuinfo)
    (proc / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2048 kB\n")
    return asking.facts(cpus, proc, root / "group")


def test_caches_of_data_are_read_from_sysfs(tmp_path: Path) -> None:
    found = machine_tree(
        tmp_path,
        [(1, "Data", "48K"), (1, "Instruction", "64K"), (2, "Unified", "2048K"), (3, "Unified", "36M")],
        "vendor_id\t: GenuineIntel\nmodel\t\t: 143\nmodel name\t: Some (R) Xeon\nflags\t\t: fpu hypervisor\n",
    )
    assert (found.l1_bytes, found.l2_bytes, found.llc_bytes) == (48 * KIB, 2 * MIB, 36 * MIB)
    assert (found.line_bytes, found.available_bytes, found.hypervisor) == (64, 2 * MIB, True)
    assert found.slug == "some-r-xeon-143"


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.mkdir()
    (group / "memory.max").write_text("1048576\n")
    (group / "memory.current").write_text("262144\n")
    assert machine_tree(tmp_path, [], "").available_bytes == 768 * KIB
    (group / "memory.max").write_text("max\n")
    assert asking.facts(tmp_path / "cpu", tmp_path / "proc", group).available_bytes == 2 * MIB


def test_a_machine_that_says_nothing_has_no_sizes(tmp_path: Path) -> None:
    found = machine_tree(tmp_path, [], "CPU implementer\t: 0x41\nCPU part\t: 0xd08\n")
    assert (found.l1_bytes, found.l2_bytes, found.llc_bytes, found.line_bytes) == (0, 0, 0, 0)
    assert (found.vendor, found.part) == ("Arm", "0xd08")


ALL = (
    *("armada-3720", "armada-8040", "broadwell-ep", "ice-lake-sp", "neoverse-n1", "neoverse-v2"),
    *("sapphire-rapids", "skylake-sp", "zen3", "zen4"),
)


@pytest.mark.parametrize(
    ("vendor", "architecture", "part", "flags", "parent"),
    [
        ("GenuineIntel", "x86_64", "", "avx2", "broadwell-ep"),
        ("GenuineIntel", "x86_64", "", "avx512f avx2", "skylake-sp"),
        ("GenuineIntel", "x86_64", "", "avx512f avx512_vbmi2", "ice-lake-sp"),
        ("GenuineIntel", "x86_64", "", "avx512f avx512_vbmi2 amx_tile", "sapphire-rapids"),
        ("AuthenticAMD", "x86_64", "", "avx2", "zen3"),
        ("AuthenticAMD", "x86_64", "", "avx512f", "zen4"),
        ("Arm", "aarch64", "0xd08", "", "armada-8040"),
        ("Arm", "aarch64", "0xd03", "", "armada-3720"),
        ("Arm", "aarch64", "0xfff", "", "neoverse-n1"),
    ],
)
def test_the_nearest_parent_is_the_vendors_newest_that_fits(
    monkeypatch: pytest.MonkeyPatch, vendor: str, architecture: str, part: str, flags: str, parent: str
) -> None:
    monkeypatch.setattr(arch, "names", lambda: ALL)
    machine = asking.facts()._replace(
        vendor=vendor, architecture=architecture, part=part, flags=frozenset(flags.split())
    )
    assert parents.nearest_parent(machine) == parent


def test_a_machine_unlike_all_profiles_needs_a_parent_named() -> None:
    with pytest.raises(ProfileError, match="--parent"):
        parents.nearest_parent(asking.facts()._replace(vendor="IBM", architecture="s390x", flags=frozenset()))


# The profile


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[calibrating.Calibration, arch.Profile]:
    """This machine, as if it had little memory, which is quicker."""
    whole = asking.facts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrating, "facts", lambda: whole._replace(available_bytes=128 * MIB))
        found = calibrating.calibrate(arch.load("broadwell-ep"))
    path = tmp_path_factory.mktemp("profile") / "here.toml"
    path.write_text(calibrating.document(found, "broadwell-ep"))
    return found, arch.load(str(path))


Calibrated = tuple[calibrating.Calibration, arch.Profile]


def test_what_was_measured_is_marked_and_the_rest_is_the_parents(calibrated: Calibrated) -> None:
    found, profile = calibrated
    parent = arch.load("broadwell-ep")
    assert {"l1_ns", "atomic_ns", "lock_unlock_ns", "call_ns", "copy_bytes_per_ns"} <= set(found.parameters)
    for name, parameter in profile.parameters.items():
        if name in found.parameters:
            assert "measured here" in parameter.source or "measured rules out" in parameter.note, name
            assert parameter.certainty in ("measured", "estimate")
        else:
            assert parameter == parent.parameters[name]
    # user space does not reach these
    assert not {"dma_map_ns", "interrupt_ns", "protocol_ns", "ddio_bytes"} & set(found.parameters)


def test_a_machine_that_says_nothing_of_its_caches_is_measured_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = asking.facts()
    silent = whole._replace(l1_bytes=0, l2_bytes=0, llc_bytes=0, line_bytes=0, available_bytes=64 * MIB)
    monkeypatch.setattr(calibrating, "facts", lambda: silent)
    path = tmp_path / "p.toml"
    path.write_text(calibrating.document(calibrating.calibrate(arch.load("broadwell-ep")), "broadwell-ep"))
    profile = arch.load(str(path))
    assert "steps of the latency curve" in profile.parameters["llc_bytes"].source
    assert "measured here" not in profile.parameters["cache_line_bytes"].source


def test_memory_of_another_socket_stays_behind_that_which_was_measured() -> None:
    """A profile with both as they are would be refused."""
    parent = arch.load("broadwell-ep")
    found = {"dram_ns": calibrating.read(300.0, "a test")}
    calibrating.reconcile(found, parent)
    far = found["dram_far_ns"]
    assert far.value == 300 + parent["dram_far_ns"] - parent["dram_ns"]
    assert (far.certainty, far.low) == ("estimate", 300)
    assert set(found) == {"dram_ns", "dram_far_ns"}


def test_a_machine_without_a_last_level_cache_has_no_share_of_it_for_dma(tmp_path: Path) -> None:
    parent = arch.load("broadwell-ep")
    found = {name: calibrating.read(0, "a test") for name in ("llc_bytes", "llc_ns")}
    calibrating.reconcile(found, parent)
    assert found["ddio_bytes"].value == 0
    path = tmp_path / "p.toml"
    path.write_text(calibrating.table_text("No LLC", "a test", "broadwell-ep", found))
    assert arch.load(str(path))["llc_bytes"] == 0


def test_stand_ins_are_named(calibrated: Calibrated) -> None:
    _, profile = calibrated
    for name in ("pool_alloc_ns", "pool_put_ns", "ring_slot_ns", "page_adopt_ns", "page_release_ns"):
        assert "stand-in: the pool of this package, not the kernel's" in profile.parameters[name].source
    for name in ("page_bulk_alloc_ns", "page_single_alloc_ns", "page_free_ns"):
        parameter = profile.parameters[name]
        assert parameter.certainty == "estimate"
        assert parameter.note.count("stand-in") == 2, "a lower and an upper bound"
        assert parameter.low <= parameter.value <= parameter.high


def test_levels_are_in_order(calibrated: Calibrated) -> None:
    _, profile = calibrated
    assert profile["l1_ns"] <= profile["l2_ns"]
    assert profile["llc_bytes"] == 0 or profile["l2_ns"] <= profile["llc_ns"]


def test_a_trial_takes_a_calibrated_profile(calibrated: Calibrated) -> None:
    _, profile = calibrated
    record = run_trial(TrialConfig.from_fields({"arch": str(profile.path), "workload": "pool_fast"}))
    turn_ns = profile["pool_alloc_ns"] + profile["pool_put_ns"]
    assert record["busy_ns_per_packet"] == pytest.approx(turn_ns, rel=0.01)


def test_a_note_with_quotes_survives_the_file(tmp_path: Path) -> None:
    row = calibrating.Row(7.5, 7.0, 8.0, "measured", 'measured here: "x"', "a\\b\nc")
    path = tmp_path / "p.toml"
    path.write_text(calibrating.table_text('T "1"', "d", "broadwell-ep", {"poll_ns": row}))
    profile = arch.load(str(path))
    assert profile.title == 'T "1"'
    assert profile.parameters["poll_ns"][1:8] == (7.5, "ns", 7.0, 8.0, row.source, "measured", row.note)


# The load

SETTINGS = [
    Setting(ring, hold, recycle, frame_bytes)
    for ring, hold, recycle, frame_bytes in (
        (64, 1, True, 64),
        (64, 256, True, 1520),
        (1024, 2048, True, 64),
        (64, 1, False, 1520),
        (1024, 256, False, 64),
    )
]


@pytest.fixture(scope="module")
def memory() -> load.RealMemory:
    return load_bench.packet_memory()


@pytest.fixture
def loaded(memory: load.RealMemory) -> Callable[[Setting], load_bench.Load]:
    """Run a load between two real threads."""
    cpus = asking.facts().cpus

    def run(setting: Setting) -> load_bench.Load:
        running = load_bench.real_load(setting, arch.load("broadwell-ep"), memory)
        for _ in range(3):
            load_bench.repeat(running, (cpus[0], cpus[-1]))
        return running

    return run


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_threads_lose_no_page_and_no_packet(
    loaded: Callable[[Setting], load_bench.Load], setting: Setting
) -> None:
    running = loaded(setting)
    load_bench.check(running)
    owner = running.host.pools[0]
    assert running.napi.packets == running.reader.packets == 3 * load_bench.PACKETS
    if not setting.recycle:
        assert owner.hold - owner.release == owner.cache_count, "only what no packet has had yet"
        assert load_bench.new_page_ratio(running) >= 1


def test_the_reader_has_read_what_the_nic_wrote(loaded: Callable[[Setting], load_bench.Load]) -> None:
    running = loaded(Setting(64, 16, True, 1520))
    last = int(running.reader.packets) - 1
    frame = np.arange(190)
    frame[[0, -1]] = last
    assert np.array(running.memory.buffer[:190]).tolist() == frame.tolist()


def test_a_page_that_is_used_twice_is_noticed(loaded: Callable[[Setting], load_bench.Load]) -> None:
    """The reader finds other bytes than were written for it."""
    running = loaded(Setting(64, 1, True, 64))
    host = load_bench.on_cpu(running.host, load.NAPI_CPU, 2)
    # a batch is queued; then somebody else writes to one of its pages
    running.reader.ready = running.reader.go = running.napi.go = 1
    load.run_napi(host, running.memory, running.napi, load.BATCH)
    page = int(load_bench.queued_pages(running).max())
    running.memory.data[page * load.PAGE_WORDS] = -1
    load.run_reader(
        load_bench.on_cpu(running.host, load.READER_CPU, 0),
        running.memory,
        running.reader,
        running.kept,
        load.BATCH,
    )
    with pytest.raises(CheckError, match="packets read that were not what was written 1"):
        load_bench.check(running)


def test_a_lost_page_is_noticed(loaded: Callable[[Setting], load_bench.Load]) -> None:
    running = loaded(Setting(1024, 256, True, 64))
    owner = running.host.pools[0]
    owner.cache_count -= 1
    with pytest.raises(CheckError, match="pages in use"):
        load_bench.check(running)


# What the model says of it


def one_price(path: Path, parameter: str, value: float) -> str:
    """A machine on which nothing costs anything but this."""
    row = calibrating.Row(value, value, value, "derived", "no machine: a definition")
    flat = str(PROFILES / "flat.toml")
    path.write_text(calibrating.table_text("One price", "only one thing costs", flat, {parameter: row}))
    return str(path)


@pytest.mark.parametrize(
    ("parameter", "recycle", "napi_ns", "reader_ns"),
    [
        ("lock_unlock_ns", True, 0, 10),  # the ring's; a refill takes none under the default release
        ("lock_unlock_ns", False, 0, 0),
        ("page_release_ns", False, 10, 0),  # each page leaves the pool as it is handed on
        ("page_free_ns", False, 0, 10),
        ("page_adopt_ns", False, 10, 0),
        ("pool_put_ns", True, 0, 10),
    ],
)
def test_each_side_pays_for_what_it_does(
    tmp_path: Path, parameter: str, recycle: bool, napi_ns: float, reader_ns: float
) -> None:
    """In a ring that holds all pages."""
    profile = one_price(tmp_path / "p.toml", parameter, 10)
    predicted = load_bench.predict(Setting(2048, 1, recycle, 64), profile)
    assert predicted.busy_ns == pytest.approx((napi_ns, reader_ns), rel=0.02)


def test_the_slower_side_decides(tmp_path: Path) -> None:
    predicted = load_bench.predict(
        Setting(2048, 1, True, 64), one_price(tmp_path / "p.toml", "lock_unlock_ns", 25)
    )
    assert predicted.ns_per_packet == pytest.approx(25, rel=0.01)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_same_prediction_twice_and_its_books_balance(setting: Setting) -> None:
    once, again = (load_bench.predict(setting, "broadwell-ep") for _ in range(2))
    assert once == again
    assert once.ns_per_packet >= max(once.busy_ns) * 0.99
    assert sum(once.busy_ns) == pytest.approx(sum(once.by_category.values()))


def test_a_ring_too_small_for_a_returned_burst_needs_new_pages() -> None:
    small, large = (
        load_bench.predict(Setting(ring, 256, True, 64), "broadwell-ep").new_page_ratio for ring in (64, 1024)
    )
    assert small > 0.5 > 0.1 > large
