"""Verbs about profiles: how certain they are, where two differ, which are refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from farm import profiles
from farm.store.runs import Run
from workers.profiles import arch

CERTAINTIES = ("verified", "derived", "secondary", "recalled", "estimate")

Farm = Callable[..., tuple[int, str, str]]

CHILD = """title = "Mine"
description = "what-if"
parent = "broadwell-ep"
[dram_ns]
value = 140
low = 120
high = 160
certainty = "estimate"
source = "no source"
[dram_far_ns]
value = 290
certainty = "recalled"
source = "a book"
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(CHILD)
    return str(path)


def test_list_counts_every_number_once_by_certainty(farm: Farm) -> None:
    code, out, _ = farm("arch", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert set(rows) == set(arch.names())
    text = farm("arch", "list")[1]
    for name, row in rows.items():
        counted = dict.fromkeys(CERTAINTIES, 0)
        for parameter in json.loads(farm("arch", "show", name, "--json")[1])["parameters"]:
            counted[parameter["certainty"]] += 1
        assert row["counts"] == {**counted, "measured": 0}
        [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        assert line.split()[-5:] == [str(counted[certainty]) for certainty in CERTAINTIES]


def test_show_marks_what_was_not_measured_there(farm: Farm, mine: str) -> None:
    lines = farm("arch", "show", mine)[1].splitlines()
    known = arch.load(mine).parameters
    certainties = {name: line for line in lines for name in known if line.startswith(f"{name} ")}
    assert set(certainties) == set(known)
    assert "?? estimate" in certainties["dram_ns"]
    assert "?  recalled" in certainties["dram_far_ns"]
    assert "~  secondary" in certainties["ordered_atomic_drains"]
    assert "?" not in certainties["clock_ghz"]
    assert any("no source" in line for line in lines)


def test_show_says_how_an_estimate_was_made(farm: Farm) -> None:
    text = " ".join(farm("arch", "show", "rz-g2ul")[1].split())
    assert "rz-g2l:" in text


def test_diff_lists_what_differs_by_size(farm: Farm, mine: str) -> None:
    """290 against 145 is a factor of 2, 140 against 95 one of 1.47; nothing else differs."""
    code, out, _ = farm("arch", "diff", "broadwell-ep", mine, "--json")
    found = json.loads(out)
    assert code == 0
    assert [d["first"]["name"] for d in found] == ["dram_far_ns", "dram_ns"]
    assert [d["ratio"] for d in found] == [2.0, pytest.approx(140 / 95)]
    lines = farm("arch", "diff", "broadwell-ep", mine)[1].splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["dram_far_ns", "dram_ns"]
    assert "290" in lines[2]


def test_diff_of_a_profile_with_itself_is_empty(farm: Farm) -> None:
    assert farm("arch", "diff", "zen4", "zen4") == (0, "no number differs\n", "")
    assert json.loads(farm("arch", "diff", "zen4", "zen4", "--json")[1]) == []


def test_differences_run_from_what_is_absent_on_one_side_to_the_smallest_ratio() -> None:
    left, right = arch.load("broadwell-ep"), arch.load("armada-3720")
    found = profiles.differences(left, right)
    names = [difference.first.name for difference in found]
    assert set(names) == {n for n in left.parameters if left[n] != right[n]}
    absent = [n for n in names if 0 in (left[n], right[n])]
    assert names[: len(absent)] == absent
    sizes = [abs(math.log(right[n] / left[n])) for n in names[len(absent) :]]
    assert sizes == pytest.approx(sorted(sizes, reverse=True), abs=0.006)


def test_differences_swap_with_the_sides() -> None:
    there = {d.first.name: d.ratio for d in profiles.differences(arch.load("zen3"), arch.load("zen4"))}
    back = {d.first.name: d.ratio for d in profiles.differences(arch.load("zen4"), arch.load("zen3"))}
    assert there.keys() == back.keys()
    for name, ratio in there.items():
        other = back[name]
        assert ratio is other is None or (ratio and other and ratio * other == pytest.approx(1))


def test_check_passes_all_that_are_bundled(farm: Farm) -> None:
    code, out, err = farm("arch", "check")
    assert (code, err) == (0, "")
    assert out.startswith(f"{len(arch.names())} profiles")
    assert all(row["problem"] == "" for row in json.loads(farm("arch", "check", "--json")[1]))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[dram_ns]", "[dram]", "dram: unknown parameter; did you mean dram_ns?"),
        ("[dram_ns]", "[dram_us]", "dram_us: wrong unit; did you mean dram_ns, in ns?"),
        ("value = 140\n", "", "dram_ns.value: missing"),
        ("value = 290", "value = 100", "dram_ns = 140: must not be above dram_far_ns = 100"),
        (
            "broadwell-ep",
            "brodwell-ep",
            "parent = 'brodwell-ep': unknown architecture; did you mean broadwell",
        ),
        ("broadwell-ep", "mine.toml", "parent = 'mine.toml': leads back to this profile"),
    ],
)
def test_check_names_file_key_and_remedy_in_one_line(
    farm: Farm, tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(CHILD.replace(old, new))
    code, out, err = farm("arch", "check", str(path), "broadwell-ep")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert f"{path}: {says}" in err
    code, out, _ = farm("arch", "check", str(path), "--json")
    assert code == 2
    assert says in json.loads(out)[0]["problem"]


def test_check_goes_on_after_a_file_that_is_wrong(farm: Farm, tmp_path: Path) -> None:
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(CHILD.replace("[dram_ns]", "[dram]"))
    code, _, err = farm("arch", "check", str(tmp_path / "a.toml"), str(tmp_path / "b.toml"))
    assert code == 2
    assert err.count("\n") == 2
    assert "a.toml" in err.splitlines()[0]
    assert "b.toml" in err.splitlines()[1]


def test_a_result_says_how_many_numbers_behind_it_are_estimates(farm: Farm, small_run: Run) -> None:
    expected = {
        name: sum(p.certainty == "estimate" for p in arch.load(name).parameters.values())
        for name in ("broadwell-ep", "armada-3720")
    }
    assert json.loads(farm("show", str(small_run.path), "--json")[1])["estimates"] == expected
    text = " ".join(farm("show", str(small_run.path))[1].split())
    for name, number in expected.items():
        assert f"{name} {number}" in text


def test_one_gain_of_each_architecture_makes_one_table(farm: Farm, small_file: str) -> None:
    axes = ["traffic.kind=constant", "pool.size=64"]
    code, out, _ = farm("run", small_file, *axes, "--executor", "serial")
    assert code == 0
    rows = [line.split()[0] for line in out.splitlines() if "%" in line and line.split()[0] in arch.names()]
    assert rows == ["broadwell-ep", "armada-3720"]
    assert out.count("gain  ") == 1
