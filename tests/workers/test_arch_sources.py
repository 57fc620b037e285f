"""The bundled profiles' numbers against the table of sources, and against each other."""

import csv
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from workers.profiles import arch
from workers.profiles.parameters import CERTAINTIES, CORE_TIMES, CYCLES_OF_PARENT, PARAMETERS

TABLE = Path(__file__).parent / "data" / "cost_sources.csv"

TABLE_NAMES = {
    "broadwell-ep": "intel_broadwell_ep",
    "zen4": "amd_zen4_genoa",
    "kunpeng-920": "arm_kunpeng920",
    "armada-8040": "arm_cortex_a72",
    "armada-3720": "arm_cortex_a53",
}
"""where a sum of several numbers is looked up; a number alone names its row in the profile"""


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
    # the model adds misses of header and descriptor, 14.5, and a packet's share of the poll, 5
    Sum(
        "broadwell-ep",
        {"driver_ns": 1, "xdp_program_ns": 1, "pool_alloc_ns": 1, "pool_put_ns": 1, "dma_sync_call_ns": 4},
        ("xdp_drop_packet",),
        besides=-19.5,
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
    *(
        Sum(
            profile,
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
        )
        for profile in ("zen4", "kunpeng-920")
    ),
    *(
        Sum(profile, {"pool_alloc_ns": 1, "pool_put_ns": 1}, ("page_pool_fast",))
        for profile in ("zen4", "kunpeng-920")
    ),
    *(
        Sum(
            profile,
            {"pool_alloc_ns": 1, "pool_put_ns": 1, "ring_slot_ns": 2, "lock_unlock_ns": 1},
            ("page_pool_ptr_ring",),
        )
        for profile in ("zen4", "kunpeng-920")
    ),
    Sum("zen4", {"page_single_alloc_ns": 1, "atomic_ns": 1, "page_free_ns": 1}, ("page_alloc_free_order0",)),
    *(
        Sum(profile, {"iommu_unmap_ns": 1, "iommu_invalidate_ns": 1}, ("iommu_smmuv3 unmap_one_page",))
        for profile in ("kunpeng-920", "neoverse-n1", "neoverse-v2")
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
    ("armada-8040", "raw_drop_ns"): "board_macchiatobin02_initial_benchmarks",
    ("armada-3720", "raw_drop_ns"): "board_espressobin08_bench_xdp, with syncs; the table's row is without",
    ("armada-3720", "xdp_program_ns"): "share of the program in the profile of xdp_drop_packet_no_sync",
}

DEVICE_TREES = {"rz-g2l": "r9a07g044.dtsi", "rz-five": "r9a07g043f.dtsi", "jh7110": "jh7110.dtsi"}
"""clock, sizes and coherence as the kernel's own description of the part states them"""

CHILDREN = pytest.mark.parametrize(
    "name", [n for n in arch.names() if "parent" in tomllib.loads((arch.BUNDLED / f"{n}.toml").read_text())]
)
PROFILES = pytest.mark.parametrize("name", arch.names())


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


def test_every_machine_with_data_or_a_published_case_is_bundled() -> None:
    intel = ("broadwell-ep", "skylake-sp", "ice-lake-sp", "sapphire-rapids")
    servers = (*intel, "zen3", "zen4", "neoverse-n1", "neoverse-v2", "kunpeng-920", "power9")
    arm = ("armada-8040", "armada-3720", "synquacer", "rz-g2l", "rz-g2ul", "rz-g3s", "imx8qxp", "cortex-a65")
    risc_v = ("jh7110", "rz-five")
    assert set(arch.names()) == {*servers, *arm, *risc_v}


def own(name: str) -> dict[str, dict[str, object]]:
    """What a bundled profile states itself, as written."""
    content = tomllib.loads((arch.BUNDLED / f"{name}.toml").read_text())
    return {key: value for key, value in content.items() if isinstance(value, dict)}


@PROFILES
def test_every_number_lies_in_the_range_of_its_source(name: str) -> None:
    profile = arch.load(name)
    for parameter in profile.parameters.values():
        if parameter.row:
            source = row(profile, parameter.row)
            assert source.low * 0.999 <= parameter.value <= source.high * 1.001, parameter.name


@PROFILES
def test_no_number_is_more_certain_than_its_source(name: str) -> None:
    order = list(CERTAINTIES)
    for parameter in arch.load(name).parameters.values():
        if parameter.row:
            known = table()[tuple(parameter.row.split(" "))]["certainty"]  # type: ignore[index]
            assert order.index(parameter.certainty) >= order.index(known), parameter.name


@CHILDREN
def test_a_child_does_not_pass_off_as_measured_what_it_inherits(name: str) -> None:
    profile = arch.load(name)
    certain = {p.name for p in profile.parameters.values() if p.certainty in ("verified", "derived")}
    assert certain - set(own(name)) == set()


@CHILDREN
def test_a_child_states_its_own_clock_caches_and_memory(name: str) -> None:
    """Or its parent is the same chip's larger sister."""
    machine = {"clock_ghz", "l1_ns", "l2_ns", "l2_bytes"}
    if not name.startswith("rz-g"):
        machine |= {"l1_bytes", "llc_bytes", "llc_ns", "dram_ns", "dram_far_ns", "dma_coherent", "sockets"}
    assert machine - set(own(name)) == set()


@CHILDREN
def test_instructions_that_a_child_does_not_state_follow_clock_and_cycles(name: str) -> None:
    """README's rule, by hand: cycles of the parent's core, times the child's cycles for one of them."""
    profile, stated = arch.load(name), own(name)
    content = tomllib.loads((arch.BUNDLED / f"{name}.toml").read_text())
    parent = arch.load(content["parent"])
    factor = stated[CYCLES_OF_PARENT]
    maintained = set() if parent["dma_coherent"] else {"dma_sync_call_ns"}
    for time in set(CORE_TIMES) - set(stated) - maintained:
        for end in ("value", "low", "high"):
            cycles = getattr(parent.parameters[time], end) * parent["clock_ghz"]
            expected = cycles * factor[end] / profile["clock_ghz"]  # type: ignore[operator]
            assert getattr(profile.parameters[time], end) == pytest.approx(expected, rel=1e-3)
        assert profile.parameters[time].certainty == "estimate"


@pytest.mark.parametrize("expected", SUMS, ids=lambda s: f"{s.profile}-{s.rows[0]}")
def test_parts_add_up_to_what_was_measured(expected: Sum) -> None:
    profile = arch.load(expected.profile)
    sources = [row(profile, reference) for reference in expected.rows]
    low = sum(source.low for source in sources) + expected.besides
    high = sum(source.high for source in sources) + expected.besides
    assert low * 0.995 <= cost(profile, expected.parts) <= high * 1.005


@pytest.mark.parametrize(
    "expected", [one for one in SUMS if one.profile in ("zen4", "kunpeng-920")], ids=lambda s: s.profile
)
def test_parts_of_a_benchmark_add_up_to_its_value(expected: Sum) -> None:
    """Their rows' ranges hold runs with return mitigation as well."""
    profile = arch.load(expected.profile)
    measured = sum(row(profile, reference).value for reference in expected.rows)
    assert cost(profile, expected.parts) == pytest.approx(measured, rel=0.02)


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
    profile = arch.load(name)
    tied = {p.name for p in profile.parameters.values() if p.row}
    if name in DEVICE_TREES:
        tied |= {p.name for p in profile.parameters.values() if DEVICE_TREES[name] in p.source}
    tied |= {part for expected in SUMS if expected.profile == name for part in expected.parts}
    for others in (LOWERED, DIFFERENCES, IN_WORDS, NOT_IN_TABLE):
        tied |= {parameter for profile, parameter in others if profile == name}
    certain = {p.name for p in profile.parameters.values() if p.certainty in ("verified", "derived")}
    assert certain - tied == set()


@PROFILES
def test_every_parameter_is_there_with_unit_range_and_source(name: str) -> None:
    profile = arch.load(name)
    assert list(profile.parameters) == list(PARAMETERS)
    for parameter in profile.parameters.values():
        assert parameter.low <= parameter.value <= parameter.high
        assert parameter.source
        assert parameter.certainty in CERTAINTIES
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
