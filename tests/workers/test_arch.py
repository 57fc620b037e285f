"""Profiles: every number against the table of sources, and what a malformed profile is told."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from workers import arch
from workers.errors import ProfileError

TABLE = Path(__file__).parent / "data" / "cost_sources.csv"

TABLE_NAMES = {
    "broadwell-ep": "intel_broadwell_ep",
    "armada-8040": "arm_cortex_a72",
    "armada-3720": "arm_cortex_a53",
}

ROWS = {
    "broadwell-ep": {
        "clock_ghz": "clock",
        "cache_line_bytes": "cache_line",
        "page_bytes": "linux_page_sizes",
        "l1_ns": "l1d_latency",
        "l2_ns": "l2_latency",
        "llc_ns": "l3_latency",
        "dram_ns": "dram_latency",
        "line_transfer_ns": "core_to_core_same_socket",
        "line_transfer_far_ns": "core_to_core_cross_socket",
        "call_ns": "function_call",
        "mitigated_call_ns": "function_call",
        "atomic_ns": "atomic_rmw_uncontended",
        "lock_unlock_ns": "spin_lock_unlock",
        "register_write_ns": "generic mmio_doorbell_write",
        "interrupt_ns": "generic irq_entry_to_napi_poll",
        "poll_ns": "generic napi_poll_fixed",
        "copy_bytes_per_ns": "generic copy_to_user_bandwidth",
        "iommu_map_ns": "iommu_vtd map_with_iova_cache",
        "iommu_invalidate_ns": "iommu_vtd iotlb_invalidation",
    },
    "armada-8040": {
        "clock_ghz": "clock",
        "cache_line_bytes": "cache_line",
        "page_bytes": "linux_page_sizes",
        "l1_ns": "l1d_latency",
        "l2_ns": "l2_latency",
        "llc_ns": "l3_latency",
        "dram_ns": "dram_latency",
        "register_write_ns": "generic mmio_doorbell_write",
        "poll_ns": "generic napi_poll_fixed",
        "page_bulk_alloc_ns": "mvpp2_alloc_pages_bulk_self",
        "dma_sync_call_ns": "mvpp2_dma_sync_for_device_self",
        "iommu_map_ns": "iommu_smmuv3 map_one_page",
        "driver_ns": "stack_mvpp2_rx",
        "gro_ns": "stack_dev_gro_receive",
        "copy_bytes_per_ns": "memcpy_bandwidth_core",
    },
    "armada-3720": {
        "clock_ghz": "clock",
        "cache_line_bytes": "cache_line",
        "page_bytes": "linux_page_sizes",
        "l1_ns": "l1d_latency",
        "l2_ns": "l2_latency",
        "dram_ns": "dram_latency",
        "register_write_ns": "generic mmio_doorbell_write",
        "poll_ns": "generic napi_poll_fixed",
        "dma_sync_call_ns": "dma_sync_fixed",
        "dma_sync_line_ns": "dma_sync_per_line",
        "page_free_ns": "mvneta_free_unref_page",
        "page_single_alloc_ns": "mvneta_page_alloc_get_page_from_freelist",
        "driver_ns": "stack_mvneta_rx_swbm",
        "gro_ns": "stack_dev_gro_receive",
        "copy_bytes_per_ns": "memcpy_bandwidth_core",
    },
}
"""one parameter, one row, of the profile's own machine or of the generic part"""


class Sum(NamedTuple):
    """Parameters, each so many times, that add up to a row, or to several rows and a figure beside them."""

    profile: str
    parts: dict[str, int]
    rows: tuple[str, ...]
    besides: float = 0.0


SUMS = (
    Sum("broadwell-ep", {"pool_alloc_ns": 1, "pool_put_ns": 1}, ("page_pool_fast",)),
    Sum(
        "broadwell-ep",
        {"page_bulk_alloc_ns": 1, "atomic_ns": 1, "page_free_ns": 1},
        ("page_bulk_alloc_free_per_page",),
    ),
    Sum(
        "broadwell-ep",
        {"page_single_alloc_ns": 1, "atomic_ns": 1, "page_free_ns": 1},
        ("page_alloc_free_order0",),
    ),
    # the benchmark takes and drops a reference of its own, so there are three beside the release count
    Sum(
        "broadwell-ep",
        {
            "page_bulk_alloc_ns": 1,
            "page_adopt_ns": 1,
            "pool_alloc_ns": 1,
            "pool_put_ns": 1,
            "page_release_ns": 1,
            "atomic_ns": 4,
            "page_free_ns": 1,
        },
        ("page_pool_slow",),
    ),
    # what a page cache in the driver does inline: an entry out and one in
    Sum("broadwell-ep", {"page_cache_ns": 2, "call_ns": 3}, ("page_pool_fast",)),
    Sum("broadwell-ep", {"dma_sync_call_ns": 4}, ("noop_dma_sync_calls_per_packet",)),
    Sum(
        "broadwell-ep",
        {"driver_ns": 1, "xdp_program_ns": 1, "pool_alloc_ns": 1, "pool_put_ns": 1, "dma_sync_call_ns": 4},
        ("xdp_drop_packet",),
    ),
    Sum(
        "broadwell-ep",
        {
            "driver_ns": 1,
            "pool_alloc_ns": 1,
            "pool_put_ns": 1,
            "dma_sync_call_ns": 2,
            "skb_alloc_ns": 1,
            "skb_free_ns": 1,
            "protocol_ns": 1,
        },
        ("iptables_raw_drop_packet",),
    ),
    # slab alone is 30.5; the notes add 20 for filling the skb and releasing its data
    Sum("broadwell-ep", {"skb_alloc_ns": 1, "skb_free_ns": 1}, ("slab_alloc_free",), besides=20),
    Sum(
        "armada-8040",
        {"pool_put_ns": 1, "ring_slot_ns": 1, "lock_unlock_ns": 1},
        ("mvpp2_page_pool_put_page_self",),
    ),
    Sum(
        "armada-8040",
        {"page_free_ns": 1, "atomic_ns": 1},
        ("mvpp2_free_unref_page_self", "mvpp2_page_frag_free_self"),
    ),
    Sum("armada-8040", {"skb_alloc_ns": 1}, ("stack_kmem_cache_alloc", "stack_build_skb")),
    Sum("armada-8040", {"skb_free_ns": 1}, ("stack_kmem_cache_free", "stack_skb_release_data")),
    Sum(
        "armada-8040",
        {"protocol_ns": 1},
        ("stack_dev_gro_receive", "stack_netif_receive_skb_core"),
        besides=11.3 + 8.3 + 10 + 7.6 + 35,
    ),
    Sum("armada-8040", {"iommu_unmap_ns": 1, "iommu_invalidate_ns": 1}, ("iommu_smmuv3 unmap_one_page",)),
    # and 192 bytes copied at 4.5 bytes/ns
    Sum("armada-8040", {"swiotlb_slot_ns": 2}, ("swiotlb_bounce_64B",), besides=-192 / 4.5),
    Sum(
        "armada-3720",
        {"iommu_unmap_ns": 1, "iommu_invalidate_ns": 1},
        ("iommu_smmuv3 unmap_4K_noncoherent_walk",),
    ),
    Sum(
        "armada-3720",
        {"pool_put_ns": 1, "ring_slot_ns": 1, "lock_unlock_ns": 1},
        ("mvneta_page_pool_put_page",),
    ),
    Sum("armada-3720", {"skb_alloc_ns": 1}, ("stack_kmem_cache_alloc",), besides=102.4),
    Sum("armada-3720", {"skb_free_ns": 1}, ("stack_kmem_cache_free",), besides=60),
    Sum(
        "armada-3720",
        {"protocol_ns": 1},
        ("stack_dev_gro_receive", "stack_netif_receive_skb_core"),
        besides=40 + 450,
    ),
    Sum("armada-3720", {"dma_sync_call_ns": 1, "dma_sync_line_ns": 64}, ("mvneta_inval_dcache_self",)),
)

LOWERED = {
    ("broadwell-ep", "receive_ns"): "udp_recvmsg_reader_side",
    ("broadwell-ep", "ring_slot_ns"): "ptr_ring_vs_direct_return",
    ("armada-8040", "ring_slot_ns"): "mvpp2_page_pool_refill_self",
    ("armada-8040", "page_release_ns"): "mvpp2_page_pool_release_page_self",
    ("armada-3720", "page_release_ns"): "mvneta_page_pool_release_page",
    ("armada-3720", "page_bulk_alloc_ns"): "mvneta_page_alloc_get_page_from_freelist",
}
"""below its row, which contains misses, atomics or the fixed part of a bulk"""

DIFFERENCES = {
    ("broadwell-ep", "udp_ns"): ("udp_noport_packet", "iptables_raw_drop_packet"),
}

IN_WORDS = {
    ("broadwell-ep", "gro_ns"): (26, "iptables_raw_drop_packet", "5.7 Mpps with GRO, 6.7 without"),
    ("armada-8040", "l2_bytes"): (512 << 10, "l2_latency", "512 KB per 2-core cluster"),
    ("armada-8040", "llc_bytes"): (1 << 20, "l3_latency", "1 MB LLC"),
    ("armada-3720", "l2_bytes"): (256 << 10, "l2_latency", "L2 256 KB"),
    ("armada-3720", "ddio_bytes"): (0, "dma_coherent", "no on Armada 3720"),
}
"""stated in words in the row's value or note"""

NOT_IN_TABLE = {
    ("armada-8040", "register_writes_per_buffer"): "mvpp2_bm_pool_put",
    ("armada-3720", "xdp_program_ns"): "share of the program in the profile of xdp_drop_packet_no_sync",
}

PROFILES = pytest.mark.parametrize("name", list(TABLE_NAMES))


class Row(NamedTuple):
    value: float
    low: float
    high: float


def table() -> dict[tuple[str, str], dict[str, str]]:
    with TABLE.open(newline="") as stream:
        return {(row["arch"], row["parameter"]): row for row in csv.DictReader(stream)}


def row(profile: arch.Profile, reference: str) -> Row:
    """A row in the units of the profile; without a range of its own it has 1 percent."""
    generic, _, parameter = reference.rpartition(" ")
    found = table()[generic or TABLE_NAMES[profile.name], parameter]
    scale = {"cycles": 1 / profile["clock_ghz"], "KiB": 1024, "us": 1000}.get(found["unit"], 1)
    value = float(found["value"].split()[0]) * scale
    low = float(found["low"]) * scale if found["low"] else value * 0.99
    high = float(found["high"]) * scale if found["high"] else value * 1.01
    return Row(value, low, high)


def cost(profile: arch.Profile, parts: dict[str, int]) -> float:
    return sum(profile[name] * times for name, times in parts.items())


def test_the_three_machines_are_bundled() -> None:
    assert arch.names() == ("armada-3720", "armada-8040", "broadwell-ep")


@pytest.mark.parametrize(
    ("name", "parameter", "reference"),
    [(name, parameter, reference) for name, rows in ROWS.items() for parameter, reference in rows.items()],
)
def test_value_lies_in_the_range_of_its_source(name: str, parameter: str, reference: str) -> None:
    profile = arch.load(name)
    source = row(profile, reference)
    assert source.low * 0.999 <= profile[parameter] <= source.high * 1.001


@pytest.mark.parametrize("expected", SUMS, ids=lambda s: f"{s.profile}-{s.rows[0]}")
def test_parts_add_up_to_what_was_measured(expected: Sum) -> None:
    profile = arch.load(expected.profile)
    sources = [row(profile, reference) for reference in expected.rows]
    low = sum(source.low for source in sources) + expected.besides
    high = sum(source.high for source in sources) + expected.besides
    assert low * 0.995 <= cost(profile, expected.parts) <= high * 1.005


def test_broadwell_ring_path_is_fast_path_and_lock_within_5_percent() -> None:
    profile = arch.load("broadwell-ep")
    parts = {"pool_alloc_ns": 1, "pool_put_ns": 1, "ring_slot_ns": 2, "lock_unlock_ns": 1}
    assert cost(profile, parts) == pytest.approx(row(profile, "page_pool_ptr_ring").value, rel=0.05)


def test_a53_cache_maintenance_predicts_the_three_xdp_drop_runs() -> None:
    profile = arch.load("armada-3720")
    nothing_synced, times = 1646, {1536: 2084, 3520: 2373}
    for synced_bytes, measured in times.items():
        lines = synced_bytes / profile["cache_line_bytes"]
        sync = profile["dma_sync_call_ns"] + lines * profile["dma_sync_line_ns"]
        assert nothing_synced + sync == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize(("where", "reference"), LOWERED.items())
def test_costs_without_their_misses_lie_below_the_profiled(where: tuple[str, str], reference: str) -> None:
    profile = arch.load(where[0])
    assert profile[where[1]] < row(profile, reference).value


@pytest.mark.parametrize(("where", "references"), DIFFERENCES.items())
def test_differences_of_rows_hold(where: tuple[str, str], references: tuple[str, str]) -> None:
    profile = arch.load(where[0])
    more, less = (row(profile, reference).value for reference in references)
    assert profile[where[1]] == pytest.approx(more - less, rel=0.01)


@pytest.mark.parametrize(("where", "words"), IN_WORDS.items())
def test_sizes_stand_in_the_words_of_the_table(where: tuple[str, str], words: tuple[int, str, str]) -> None:
    size_bytes, parameter, text = words
    found = table()[TABLE_NAMES[where[0]], parameter]
    assert text in found["value"] + found["note"]
    assert arch.load(where[0])[where[1]] == size_bytes


@PROFILES
def test_every_verified_or_derived_number_is_tied_to_the_table(name: str) -> None:
    tied = set(ROWS[name])
    tied |= {part for expected in SUMS if expected.profile == name for part in expected.parts}
    for others in (LOWERED, DIFFERENCES, IN_WORDS, NOT_IN_TABLE):
        tied |= {parameter for profile, parameter in others if profile == name}
    profile = arch.load(name)
    certain = {p.name for p in profile.parameters.values() if p.certainty in ("verified", "derived")}
    assert certain - tied == set()


@PROFILES
def test_every_parameter_is_there_with_unit_range_and_source(name: str) -> None:
    profile = arch.load(name)
    assert list(profile.parameters) == list(arch.PARAMETERS)
    for parameter in profile.parameters.values():
        assert parameter.low <= parameter.value <= parameter.high
        assert parameter.source
        assert parameter.certainty in arch.CERTAINTIES
        if parameter.certainty == "estimate":
            assert parameter.low < parameter.high


@PROFILES
def test_what_has_no_source_is_an_estimate(name: str) -> None:
    for parameter in arch.load(name).parameters.values():
        assert (parameter.source == "no source") == (parameter.certainty == "estimate"), parameter.name


@PROFILES
def test_a_page_of_a_bulk_costs_less_than_one_asked_for_alone(name: str) -> None:
    """A bulk shares its fixed part: published 30.6 against 55.5 ns in one run, free included."""
    profile = arch.load(name)
    for end in ("low", "value", "high"):
        bulk, single = (
            getattr(profile.parameters[f"page_{kind}_alloc_ns"], end) for kind in ("bulk", "single")
        )
        assert bulk < single


@PROFILES
def test_caches_grow_and_slow_down_outwards(name: str) -> None:
    profile = arch.load(name)
    levels = [("l1_bytes", "l1_ns"), ("l2_bytes", "l2_ns"), ("llc_bytes", "llc_ns")]
    present = [(profile[size], profile[time]) for size, time in levels if profile[size]]
    assert present == sorted(set(present))
    assert present[-1][1] < profile["dram_ns"]
    assert profile["ddio_bytes"] <= profile["llc_bytes"]


@PROFILES
def test_maintenance_per_line_costs_only_where_dma_is_not_coherent(name: str) -> None:
    profile = arch.load(name)
    assert (profile["dma_sync_line_ns"] == 0) == (profile["dma_coherent"] == 1)


def test_units_follow_from_the_names() -> None:
    units = {name: p.unit for name, p in arch.load("broadwell-ep").parameters.items()}
    assert units["clock_ghz"] == "GHz"
    assert units["page_bytes"] == "bytes"
    assert units["dram_ns"] == "ns"
    assert units["miss_exposed_ratio"] == "ratio"
    assert units["pcp_batch_pages"] == "pages"
    assert units["copy_bytes_per_ns"] == "bytes/ns"
    assert units["register_writes_per_buffer"] == "writes/buffer"
    assert [name for name, unit in units.items() if not unit] == ["dma_coherent", "ordered_atomic_drains"]


HEADER = 'title = "Mine"\ndescription = "what-if"\nparent = "broadwell-ep"\n'
SLOW_MEMORY = '[dram_ns]\nvalue = 140\nlow = 120\nhigh = 160\ncertainty = "estimate"\nsource = "no source"\n'


def write(folder: Path, content: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(content)
    return str(path)


def test_a_child_states_only_its_differences(tmp_path: Path) -> None:
    child = arch.load(write(tmp_path, HEADER + SLOW_MEMORY))
    parent = arch.load("broadwell-ep")
    assert (child.name, child.title, child.description) == ("mine", "Mine", "what-if")
    assert child.parameters["dram_ns"] == arch.Parameter(
        "dram_ns", 140, "ns", 120, 160, "no source", "estimate", ""
    )
    assert {n for n in arch.PARAMETERS if child.parameters[n] != parent.parameters[n]} == {"dram_ns"}


def test_inheritance_runs_over_several_files_and_the_nearest_wins(tmp_path: Path) -> None:
    write(tmp_path, HEADER + SLOW_MEMORY, "middle.toml")
    faster = SLOW_MEMORY.replace("140", "130")
    name = write(tmp_path, HEADER.replace("broadwell-ep", "middle.toml") + faster)
    assert arch.load(name)["dram_ns"] == 130
    name = write(tmp_path, HEADER.replace("broadwell-ep", "middle.toml"), "other.toml")
    assert arch.load(name)["dram_ns"] == 140
    assert arch.load(name)["llc_ns"] == arch.load("broadwell-ep")["llc_ns"]


def test_the_digest_follows_content_not_spelling(tmp_path: Path) -> None:
    first = arch.load(write(tmp_path, HEADER + SLOW_MEMORY)).digest
    respelt = SLOW_MEMORY.replace("140", "0x8c").replace("[dram_ns]", "# comment\n[dram_ns]\nnote = ''")
    assert arch.load(write(tmp_path, HEADER + respelt, "b.toml")).digest == first
    for change in (("140", "141"), ("120", "121"), ("no source", "a book")):
        changed = SLOW_MEMORY.replace(*change)
        assert arch.load(write(tmp_path, HEADER + changed, "c.toml")).digest != first
    assert re.fullmatch("[0-9a-f]{64}", first)


def test_the_digest_does_not_follow_the_order_of_tables(tmp_path: Path) -> None:
    profile = arch.load("armada-3720")
    header, *tables = profile.canonical.split("\n\n")
    assert arch.load(write(tmp_path, "\n\n".join([header, *reversed(tables)]))).digest == profile.digest


def test_the_digest_of_a_child_follows_its_parent(tmp_path: Path) -> None:
    write(tmp_path, HEADER + SLOW_MEMORY, "middle.toml")
    name = write(tmp_path, HEADER.replace("broadwell-ep", "middle.toml"))
    before = arch.load(name)
    assert arch.load(name) is before
    write(tmp_path, HEADER + SLOW_MEMORY.replace("value = 140", "value = 141.5"), "middle.toml")
    assert arch.load(name).digest != before.digest
    assert arch.load(name)["dram_ns"] == 141.5


@PROFILES
def test_the_canonical_text_is_a_profile_of_the_same_content(tmp_path: Path, name: str) -> None:
    profile = arch.load(name)
    again = arch.load(write(tmp_path, profile.canonical))
    assert again.digest == profile.digest
    assert again.parameters == profile.parameters


def test_a_profile_cannot_be_changed() -> None:
    profile = arch.load("broadwell-ep")
    with pytest.raises(AttributeError):
        profile.title = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        profile.parameters["dram_ns"] = profile.parameters["llc_ns"]  # type: ignore[index]


def dram(line: str) -> str:
    """The slow memory with one of its lines replaced, or one more."""
    key = line.partition(" ")[0]
    lines = [old for old in SLOW_MEMORY.splitlines() if not old.startswith(f"{key} ")]
    return HEADER + "\n".join([*lines, line])


def table_of(name: str, value: str) -> str:
    return HEADER + f'[{name}]\nvalue = {value}\ncertainty = "recalled"\nsource = "a book"\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + SLOW_MEMORY.replace("dram_ns", "dram"), "dram: unknown parameter; did you mean dram_ns?"),
        (HEADER.replace("parent", "parents"), "parents: unknown parameter; did you mean parent?"),
        (dram("valeu = 3"), "dram_ns.valeu: unknown key; did you mean value?"),
        (HEADER + "dram_ns = 95", "dram_ns = 95: write a table"),
        (HEADER + '[dram_ns]\nvalue = 95\nsource = "x"', "dram_ns.certainty: missing"),
        (HEADER + '[dram_ns]\nsource = "x"', "dram_ns.value: missing"),
        (dram("value = 170"), "dram_ns.value = 170: must lie in its own range 120..160"),
        (dram("low = 141"), "dram_ns.value = 140: must lie in its own range 141..160"),
        (dram('value = "95"'), "dram_ns.value = '95': write a number in ns"),
        (dram("value = true"), "dram_ns.value = True: write a number in ns"),
        (dram("value = nan"), "dram_ns.value = nan: write a number in ns"),
        (dram("low = -1"), "dram_ns.low = -1: must not be negative"),
        (dram('certainty = "sure"'), "dram_ns.certainty = 'sure': use one of verified, derived"),
        (dram("certainty = []"), "dram_ns.certainty = []: use one of verified, derived"),
        (dram('source = " "'), "dram_ns.source = ' ': write a text"),
        (dram("note = 3"), "dram_ns.note = 3: write a text"),
        (
            table_of("call_ns", "3").replace("recalled", "estimate"),
            "call_ns.certainty = 'estimate': an estimate has a range",
        ),
        (table_of("clock_ghz", "0"), "clock_ghz.value = 0: must be above 0"),
        (table_of("dma_coherent", "2"), "dma_coherent.value = 2: use 0 or 1"),
        (table_of("page_bytes", "0"), "page_bytes.value = 0: write a whole number of bytes"),
        (table_of("llc_bytes", "0.5"), "llc_bytes.value = 0.5: write a whole number of bytes"),
        (table_of("llc_bytes", "-64"), "llc_bytes.value = -64: write a whole number of bytes"),
        (table_of("miss_exposed_ratio", "1.1"), "miss_exposed_ratio.value = 1.1: a ratio is at most 1"),
        (HEADER.replace("broadwell-ep", "brodwell"), "parent = 'brodwell': unknown architecture; did you"),
        (HEADER.replace("broadwell-ep", "no.toml"), "parent = 'no.toml': No such file"),
        (HEADER.replace("broadwell-ep", "mine.toml"), "parent = 'mine.toml': leads back to this profile"),
        (HEADER.replace('"broadwell-ep"', "3"), "parent = 3: write a text"),
        ('description = "x"', "title = '': write a text"),
        ('title = "x"', "description = '': write a text"),
        (
            HEADER.replace('parent = "broadwell-ep"', ""),
            f"clock_ghz: missing (and {len(arch.PARAMETERS) - 1} more); add [clock_ghz]",
        ),
        ("title = ", "not a TOML file"),
    ],
)
def test_a_malformed_profile_is_refused_in_one_line_with_file_and_field(
    tmp_path: Path, content: str, message: str
) -> None:
    name = write(tmp_path, content)
    with pytest.raises(ProfileError, match=re.escape(message)) as caught:
        arch.load(name)
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)


def test_one_missing_parameter_is_named_alone(tmp_path: Path) -> None:
    whole = arch.load("armada-3720").canonical
    name = write(tmp_path, re.sub(r"\[call_ns\]\n([^\[]*\n)", "", whole))
    with pytest.raises(ProfileError, match=r"mine\.toml: call_ns: missing; add \[call_ns\] or name a parent"):
        arch.load(name)


def test_a_loop_over_two_files_is_refused(tmp_path: Path) -> None:
    name = write(tmp_path, HEADER.replace("broadwell-ep", "second.toml"))
    write(tmp_path, HEADER.replace("broadwell-ep", "mine.toml"), "second.toml")
    with pytest.raises(ProfileError, match=r"second\.toml: parent = 'mine\.toml': leads back"):
        arch.load(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broadwel", "arch = 'broadwel': unknown architecture; did you mean broadwell-ep?"),
        ("", "arch = '': unknown architecture; known: armada-3720, armada-8040, broadwell-ep"),
        ("../archs/broadwell-ep", "No such file"),
        ("none.toml", "arch = 'none.toml': No such file"),
    ],
)
def test_an_unknown_architecture_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(message)):
        arch.load(name)


def test_a_profile_that_is_no_file_or_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ProfileError, match="a directory, not a file"):
        arch.load(str(tmp_path / "folder.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match=r"binary\.toml: not a TOML file"):
        arch.load(str(tmp_path / "binary.toml"))
