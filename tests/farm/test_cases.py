"""Files of published cases: the shipped set against the published numbers, and bad input."""

from pathlib import Path

import pytest

from farm.errors import CaseError
from farm.validation import cases

# row: published value and band, as the proposal for validation lists them; rates as nanoseconds, where it has
# both, and B5 as time of a packet, the inverse of +8.48% (+3 to +14%)
FIT_SET = {
    "A1-off": (901, 765, 1035),
    "A1-on": (470, 425, 515),
    "A1": (1.92, 1.75, 2.10),
    "A2-off": (3717, 3717 * 0.85, 3717 * 1.15),
    "A2-on": (3378, 3378 * 0.85, 3378 * 1.15),
    "A2": (1.10, 1.05, 1.16),
    "D1": (2373, 2373 * 0.92, 2373 * 1.08),
    "D2": (2084, 2084 * 0.92, 2084 * 1.08),
    "D1-none": (1646, 1646 * 0.92, 1646 * 1.08),
    "D3": (1438, 1438 * 0.9, 1438 * 1.1),
    "D5-sync": (6615, 6615 * 0.85, 6615 * 1.15),
    "D5-none": (5682, 5682 * 0.85, 5682 * 1.15),
    "D5": (933, 650, 1200),
    "D7-swiotlb": (1294, 1294 * 0.88, 1294 * 1.12),
    "D7-direct": (876, 876 * 0.88, 876 * 1.12),
    "F1-fast": (5.4, 5.4 * 0.85, 5.4 * 1.15),
    "F1-ring": (15.1, 15.1 * 0.85, 15.1 * 1.15),
    "F1-slow": (66.1, 66.1 * 0.85, 66.1 * 1.15),
    "F4-fast": (3.8, 3.8 * 0.8, 3.8 * 1.2),
    "F4-ring": (10.5, 10.5 * 0.8, 10.5 * 1.2),
    "F4-slow": (30.6, 30.6 * 0.8, 30.6 * 1.2),
    "F3-fast": (14.2, 14.2 * 0.8, 14.2 * 1.2),
    "F3-ring": (34.2, 34.2 * 0.8, 34.2 * 1.2),
    "F3-slow": (94.9, 94.9 * 0.8, 94.9 * 1.2),
    "F5-fast": (25.8, 25.8 * 0.8, 25.8 * 1.2),
    "F5-ring": (53.6, 53.6 * 0.8, 53.6 * 1.2),
    "F5-slow": (184.5, 184.5 * 0.8, 184.5 * 1.2),
    "F8-single": (55.5, 55.5 * 0.85, 55.5 * 1.15),
    "F8-bulk": (30.6, 30.6 * 0.85, 30.6 * 1.15),
    "E1-xdp": (41.6, 41.6 * 0.9, 41.6 * 1.1),
    "E1-raw": (208, 208 * 0.85, 208 * 1.15),
    "E2": (5.6, 4, 8),
    "B12": (18.8, 10, 22),
    "B14": (8.8, 6, 13),
    "B9-1024": (7.3, 4, 13),
    "B9-1500": (9.8, 4, 13),
    "B5": (1 / 1.0848, 1 / 1.14, 1 / 1.03),
    "B10": (1.32, 1.15, 1.50),
    "C9": (-10, -16, -4),
    "C8a": (0.57, 0.45, 0.70),
    "C8d": (5.2, 3, 8),
    "F10": (0.93, 0.85, 1),
    "F10-ring": (0, 0, 0),
    "G1": (2.67, 2.0, 3.4),
}

GOOD = """
title = "a machine"

[fields]
arch = "broadwell-ep"

[[case]]
name = "one"
what = "a page from the cache and back"
published = 5.4
band = [4, 6]
role = "predicted"
source = "a test"
[case.fields]
workload = "pool_fast"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_the_shipped_set_has_every_row_with_its_published_value_and_band() -> None:
    scored = {case.name: case.table for case in cases.load().cases if case.table.scored}
    assert set(scored) == set(FIT_SET)
    for name, (published, low, high) in FIT_SET.items():
        table = scored[name]
        assert table.band is not None
        assert [table.published, *table.band] == pytest.approx([published, low, high], rel=0.01), name


def test_no_value_that_went_into_a_profile_counts_as_predicted() -> None:
    roles = {case.name: case.table.role for case in cases.load().cases}
    micro = [name for name in roles if name.startswith(("F1-", "F4-", "F5-", "F8-"))]
    assert {roles[name] for name in micro} == {"input"}
    assert {roles[name] for name in ("A1-on", "A2-on", "D1", "D2", "D1-none")} == {"fitted"}


def test_a_file_may_be_a_users_own(tmp_path: Path) -> None:
    found = cases.load([written(tmp_path, GOOD)])
    [case] = found.cases
    assert (case.arch, case.baseline.workload, case.variant) == ("broadwell-ep", "pool_fast", None)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "colour = 1\n", ["mine.toml: colour: unknown key"]),
        ("band = [4, 6]", "bands = [4, 6]", ["case one: bands: unknown key", "did you mean band?"]),
        ("band = [4, 6]\n", "", ["case one", "band: missing"]),
        ("band = [4, 6]", "band = [6, 4]", ["case one", "band: write the lower end first"]),
        ("band = [4, 6]", "band = [4]", ["case one: band"]),
        ('role = "predicted"', 'role = "guessed"', ["case one: role = 'guessed'", "'predicted'"]),
        ('role = "predicted"', 'role = "fitted"', ["case one", "constants: missing"]),
        ("published = 5.4", 'published = "much"', ["case one: published = 'much'", "number"]),
        ("published = 5.4\n", "", ["case one: published: missing"]),
        ("[case.fields]", 'measure = "busy"\n[case.fields]', ["case one: measure = 'busy'", "farm fields"]),
        ("[case.fields]", "pool.sise = 64", ["case one: pool: unknown key"]),
        ("workload =", "pool.sise = 64\nworkload =", ["case one: pool.sise", "did you mean pool.size?"]),
        ("workload =", "pool.size = -1\nworkload =", ["case one: pool.size = -1"]),
        ('"broadwell-ep"', '"broadwel-ep"', ["case one", "did you mean broadwell-ep?"]),
        ('"pool_fast"', '"pool_fast"\n[case.variant]\n', ["compare: a variant is compared"]),
        ("[case.fields]", 'compare = "ratio"\n[case.fields]', ["variant: missing"]),
        ("[case.fields]", 'constants = ["call"]\n[case.fields]', ["constants: a value that went into"]),
        ('role = "predicted"', 'role = "input"\nconstants = ["callns"]', ["constants = 'callns'", "call_ns"]),
        ("[case.fields]", "scored = false\n[case.fields]", ["reason: missing"]),
        ('"pool_fast"', '"pool_fast"\npool.recycle = false', ["case one: pool.recycle"]),
        ("[[case]]", "[[case", ["not TOML"]),
    ],
)  # fmt: skip
def test_bad_input_names_file_key_and_remedy(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    text = GOOD.replace(old, new) if old else new + GOOD
    assert text != GOOD
    with pytest.raises(CaseError) as caught:
        cases.load([written(tmp_path, text)])
    message = str(caught.value)
    assert "\n" not in message
    assert message.count("mine.toml") == 1
    for part in said:
        assert part in message


def test_two_cases_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = GOOD + GOOD[GOOD.index("[[case]]") :]
    with pytest.raises(CaseError, match=r"case one: name: .* has it already"):
        cases.load([written(tmp_path, twice)])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"none\.toml: No such file"):
        cases.load([tmp_path / "none.toml"])
