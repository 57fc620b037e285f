"""Reading profiles: inheritance, digests, and what a malformed profile is told."""

import re
from pathlib import Path

import pytest

from workers.errors import ProfileError
from workers.profiles import arch
from workers.profiles.parameters import PARAMETERS, Parameter

PROFILES = pytest.mark.parametrize("name", arch.names())


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
    assert child.parameters["dram_ns"] == Parameter(
        "dram_ns", 140, "ns", 120, 160, "no source", "estimate", ""
    )
    assert {n for n in PARAMETERS if child.parameters[n] != parent.parameters[n]} == {"dram_ns"}


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
        (table_of("clock_ghz", "3600"), "clock_ghz.value = 3600: at most 10; write it in GHz"),
        (table_of("page_bytes", "5000"), "page_bytes.value = 5000: use a power of two"),
        (table_of("dma_sync_line_ns", "5"), "dma_sync_line_ns = 5.0: use 0, DMA is coherent"),
        (table_of("dram_us", "0.095"), "dram_us: wrong unit; did you mean dram_ns, in ns?"),
        (table_of("clock_mhz", "3600"), "clock_mhz: wrong unit; did you mean clock_ghz, in GHz?"),
        (dram("row = 3"), "dram_ns.row = 3: write a text"),
        (table_of("cycles_of_parent", "0"), "cycles_of_parent.value = 0: must be above 0"),
        (
            table_of("cycles_of_parents", "1"),
            "cycles_of_parents: unknown parameter; did you mean cycles_of_pa",
        ),
        (
            table_of("cycles_of_parent", "1").replace('parent = "broadwell-ep"', ""),
            "cycles_of_parent: there is no parent; name one, or leave this out",
        ),
        (HEADER.replace("broadwell-ep", "brodwell"), "parent = 'brodwell': unknown architecture; did you"),
        (HEADER.replace("broadwell-ep", "no.toml"), "parent = 'no.toml': No such file"),
        (HEADER.replace("broadwell-ep", "mine.toml"), "parent = 'mine.toml': leads back to this profile"),
        (HEADER.replace('"broadwell-ep"', "3"), "parent = 3: write a text"),
        ('description = "x"', "title = '': write a text"),
        ('title = "x"', "description = '': write a text"),
        (
            HEADER.replace('parent = "broadwell-ep"', ""),
            f"clock_ghz: missing (and {len(PARAMETERS) - 1} more); add [clock_ghz]",
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


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("l1_ns", "l2_ns"),
        ("l2_ns", "llc_ns"),
        ("llc_ns", "dram_ns"),
        ("dram_ns", "dram_far_ns"),
        ("line_transfer_ns", "line_transfer_far_ns"),
        ("l1_bytes", "l2_bytes"),
        ("l2_bytes", "llc_bytes"),
        ("ddio_bytes", "llc_bytes"),
        ("cache_line_bytes", "l1_bytes"),
        ("call_ns", "mitigated_call_ns"),
        ("page_bulk_alloc_ns", "page_single_alloc_ns"),
        ("pcp_batch_pages", "pcp_high_pages"),
    ],
)
def test_an_order_that_no_machine_has_is_refused(tmp_path: Path, small: str, large: str) -> None:
    """As good as the other one is allowed, more is not."""
    limit = arch.load("broadwell-ep")[large]
    name = write(tmp_path, table_of(small, str(2 * limit if limit != int(limit) else int(2 * limit))))
    message = f"mine.toml: {small} = {2 * limit:g}: must not be above {large} = {limit:g}, "
    with pytest.raises(ProfileError, match=re.escape(message)) as caught:
        arch.load(name)
    assert "\n" not in str(caught.value)
    if small != "cache_line_bytes":
        equal = write(tmp_path, table_of(small, str(limit if limit != int(limit) else int(limit))))
        assert arch.load(equal)[small] == limit


def test_memory_behind_the_second_level_is_not_faster_than_it(tmp_path: Path) -> None:
    """Where there is no last-level cache, whose own time says nothing then."""
    name = write(tmp_path, table_of("l2_ns", "400").replace("broadwell-ep", "armada-3720"))
    with pytest.raises(ProfileError, match="l2_ns = 400: must not be above dram_ns = 150"):
        arch.load(name)


SLOWER = (
    HEADER
    + '[clock_ghz]\nvalue = 1.8\ncertainty = "recalled"\nsource = "a book"\n'
    + '[cycles_of_parent]\nvalue = 1.5\nlow = 1\nhigh = 2\ncertainty = "estimate"\nsource = "no source"\n'
)


def test_instructions_scale_with_clock_and_cycles_and_become_estimates(tmp_path: Path) -> None:
    """A call of 1.3 ns (1.01..1.4): twice that at half the clock, and 1.5 (1..2) cycles for one."""
    child = arch.load(write(tmp_path, SLOWER + SLOW_MEMORY))
    note = "broadwell-ep: 1.3 ns, verified; x 3.6/1.8 GHz x 1.5 cycles"
    call = Parameter("call_ns", 3.9, "ns", 2.02, 5.6, "no source", "estimate", note)
    assert child.parameters["call_ns"] == call
    parent = arch.load("broadwell-ep")
    for unchanged in ("llc_ns", "line_transfer_ns", "register_write_ns", "copy_bytes_per_ns", "ddio_bytes"):
        assert child.parameters[unchanged] == parent.parameters[unchanged]
    assert child["dram_ns"] == 140


def test_cache_maintenance_is_not_scaled(tmp_path: Path) -> None:
    """A sync waits for memory where DMA is not coherent, and is instructions where it is."""
    name = write(tmp_path, SLOWER.replace("broadwell-ep", "armada-3720"))
    assert (
        arch.load(name).parameters["dma_sync_call_ns"]
        == arch.load("armada-3720").parameters["dma_sync_call_ns"]
    )
    assert arch.load(write(tmp_path, SLOWER))["dma_sync_call_ns"] == pytest.approx(1.4 * 2 * 1.5)


def test_what_a_child_states_is_not_scaled(tmp_path: Path) -> None:
    own_call = '[call_ns]\nvalue = 2\ncertainty = "verified"\nsource = "a book"\n'
    own_mitigated = own_call.replace("call_ns", "mitigated_call_ns")
    assert arch.load(write(tmp_path, SLOWER + own_call + own_mitigated))["call_ns"] == 2


def test_without_a_statement_of_cycles_nothing_is_scaled(tmp_path: Path) -> None:
    child = arch.load(write(tmp_path, SLOWER[: SLOWER.index("[cycles")]))
    assert child.parameters["call_ns"] == arch.load("broadwell-ep").parameters["call_ns"]


def test_cycles_multiply_over_generations(tmp_path: Path) -> None:
    write(tmp_path, SLOWER, "middle.toml")
    again = SLOWER.replace("broadwell-ep", "middle.toml").replace("1.8", "0.9")
    child = arch.load(write(tmp_path, again))
    assert child["call_ns"] == pytest.approx(1.3 * (2 * 1.5) ** 2)
    assert child.parameters["call_ns"].high == pytest.approx(1.4 * (2 * 2) ** 2)
    assert child.parameters["call_ns"].note.startswith("middle: 3.9 ns, estimate")


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
        ("", "arch = '': unknown architecture; known: armada-3720, armada-8040, broadwell-ep, cortex-a65"),
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
