"""Files of measured samples: what comparing them claims, by simulation, and what is refused."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest

from farm.answers import gate
from farm.answers.samples import compare_samples

Farm = Callable[..., tuple[int, str, str]]

SETTINGS = 24
PLACES = 8
"""as many as farm bench host has"""

CONDITIONS = {"machine": "a CPU", "kernel": "6.1"}


def document(
    samples: Sequence[Sequence[float]], conditions: Mapping[str, str] = CONDITIONS
) -> dict[str, Any]:
    return {
        "conditions": dict(conditions),
        "measures": {"ns_per_packet": {"unit": "ns", "better": "lower"}},
        "rows": [
            {"setting": {"ring": 1 << place}, "samples": {"ns_per_packet": list(one)}}
            for place, one in enumerate(samples)
        ],
    }


def written(path: Path, samples: Sequence[Sequence[float]], **conditions: str) -> Path:
    path.write_text(json.dumps(document(samples, CONDITIONS | conditions)))
    return path


def drawn(generator: numpy.random.Generator, factor: float = 1.0, samples: int = PLACES) -> list[list[float]]:
    """As a benchmark comes out: each setting has a level of its own, a spread of 2%, and an outlier upwards
    in one of ten repeats, of five of which the median counts; a factor slows the first setting."""
    found = []
    for setting in range(SETTINGS):
        level = 50.0 + 10 * setting
        values = level * numpy.exp(generator.normal(0, 0.02, (samples, 5)))
        values *= numpy.where(generator.random((samples, 5)) < 0.1, 1.5, 1.0)
        found.append(
            [value * (factor if setting == 0 else 1.0) for value in numpy.median(values, 1).tolist()]
        )
    return found


def test_of_a_hundred_pairs_of_the_same_thing_hardly_one_is_claimed_to_differ(tmp_path: Path) -> None:
    """24 comparisons at once are claimed wrongly in no more than 5% of the pairs of files: at most 11 of 100
    are within the slack of three standard deviations."""
    generator = numpy.random.default_rng(1)
    alarms = 0
    for _ in range(100):
        found = compare_samples(
            written(tmp_path / "a.json", drawn(generator)), written(tmp_path / "b.json", drawn(generator))
        )
        alarms += bool(gate.broken(found, gate.STRICT))
    assert alarms <= 11


def test_one_setting_that_is_a_tenth_slower_is_found(tmp_path: Path) -> None:
    """In 9 of 10 pairs of files, and only there."""
    generator = numpy.random.default_rng(2)
    right = 0
    for _ in range(40):
        base = written(tmp_path / "a.json", drawn(generator))
        found = compare_samples(base, written(tmp_path / "b.json", drawn(generator, factor=1.1)))
        right += [found.cells[one.cell] for one in gate.broken(found, gate.STRICT)] == [{"ring": 1}]
    assert right >= 36


def test_the_verdict_follows_the_direction_and_the_least_change(tmp_path: Path) -> None:
    base = written(tmp_path / "a.json", [[100.0 + place / 100 for place in range(8)]])
    slower = written(tmp_path / "b.json", [[107.0 + place / 100 for place in range(8)]])

    def verdict(one: Path, other: Path, **limits: float) -> str:
        [pair] = compare_samples(one, other, **limits).pairs  # type: ignore[arg-type]
        return pair.measures["ns_per_packet"].verdict

    assert verdict(base, slower) == "worse"
    assert verdict(slower, base) == "better"
    assert verdict(base, slower, least_change=0.1) == "same"
    assert verdict(base, slower, least_difference=6.9) == "worse"
    assert verdict(base, slower, least_difference=8.0) == "same"
    assert verdict(base, base) == "same"


def test_too_few_samples_say_so_and_are_never_green(farm: Farm, tmp_path: Path) -> None:
    """Three against three come out as extreme by chance in one of ten cases."""
    base = written(tmp_path / "a.json", [[100.0, 101.0, 102.0]])
    slower = written(tmp_path / "b.json", [[200.0, 201.0, 202.0]])
    code, out, _ = farm("compare", str(base), str(slower))
    assert code == 0
    assert "too few" in out
    assert "nothing could have been shown" in out
    assert "better" not in out
    code, out, err = farm("gate", str(base), str(slower))
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert "nothing could have been shown" in err


def test_samples_enough_for_one_comparison_and_not_for_many_say_so(tmp_path: Path) -> None:
    """By Bonferroni's bound: 2 / C(8, 4) is 0.029, and with 24 comparisons 0.69."""
    generator = numpy.random.default_rng(3)
    base = written(tmp_path / "a.json", drawn(generator, samples=4))
    found = compare_samples(base, written(tmp_path / "b.json", drawn(generator, samples=4)))
    assert "a difference in a single one could not have been shown; take 7" in found.caveats[0]
    enough = written(tmp_path / "c.json", drawn(generator, samples=7))
    assert compare_samples(enough, enough).caveats == []


def test_other_machines_and_kernels_are_named_and_need_a_flag(farm: Farm, tmp_path: Path) -> None:
    base = written(tmp_path / "a.json", [[1.0] * 8])
    other = written(tmp_path / "b.json", [[1.0] * 8], machine="another", kernel="6.12")
    for verb in ("compare", "gate"):
        code, out, err = farm(verb, str(base), str(other), "--across", "kernel")
        assert (code, out, err.count("\n")) == (4, "", 1)
        assert "--across machine: machine is a CPU in" in err
        assert farm(verb, str(base), str(other), "--across", "kernel", "--across", "machine")[0] == 0


def test_what_the_benchmark_writes_can_be_compared(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from farm.bench import host as bench_host

    monkeypatch.setattr(bench_host, "REPEATS", 1)
    monkeypatch.setattr(bench_host, "RINGS", (64,))
    monkeypatch.setattr(bench_host, "HOLDS", (1,))
    _, out, _ = farm("bench", "host", "--profile", "broadwell-ep", "--json")
    path = tmp_path / "measured.json"
    path.write_text(out)
    code, out, _ = farm("gate", str(path), str(path))
    assert (code, out) == (0, "passed: 0 differences in 4 cells\n")
    [found] = json.loads(farm("compare", str(path), str(path), "--json")[1])
    assert {tuple(cell["fields"]) for cell in found["cells"]} == {("frame_bytes", "hold", "recycle", "ring")}


def test_a_rule_for_samples_knows_their_names(farm: Farm, tmp_path: Path) -> None:
    base = written(tmp_path / "a.json", [[100.0 + place / 100 for place in range(8)]] * 2)
    slower = written(tmp_path / "b.json", [[107.0 + place / 100 for place in range(8)]] * 2)
    rules = tmp_path / "rules.toml"

    def gated(text: str) -> tuple[int, str]:
        rules.write_text(f"[[rule]]\n{text}\n")
        code, out, err = farm("gate", str(base), str(slower), "--rule", str(rules))
        return code, out + err

    assert gated('measures = ["ns_per_packet"]\nwhere = { ring = 1 }') == (
        1,
        "ring = 1: ns_per_packet 100.0 -> 107.0: worse\nFAILED: 1 differences in 2 cells\n",
    )
    assert gated("least_change = 0.1")[0] == 0
    code, text = gated('measures = ["ns"]')
    assert (code, "no such measure; use ns_per_packet" in text) == (2, True)
    code, text = gated("where = { size = 1 }")
    assert (code, "no such setting; use ring" in text) == (2, True)
    assert gated("where = { ring = 7 }")[0] == 4


ROW = {"setting": {"ring": 1}, "samples": {"ns_per_packet": [1.0]}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": []}, "rows: "),
        ({"conditions": 3}, "conditions: "),
        (
            {"measures": {"ns_per_packet": {"unit": "parsec", "better": "lower"}}},
            "measures.ns_per_packet.unit",
        ),
        ({"rows": [ROW, ROW]}, "stands there twice"),
        (
            {"rows": [{"setting": {}, "samples": {"other": [1.0]}}]},
            "samples of other: not among its measures",
        ),
        ({"rows": [{"setting": {}, "samples": {"ns_per_packet": []}}]}, "rows.0.samples.ns_per_packet"),
        ({"rows": [{"setting": {}, "samples": {"ns_per_packet": ["1"]}}]}, "rows.0.samples.ns_per_packet.0"),
    ],
)
def test_a_malformed_file_is_one_line(change: dict[str, Any], says: str, farm: Farm, tmp_path: Path) -> None:
    good, bad = written(tmp_path / "good.json", [[1.0] * 8]), tmp_path / "bad.json"
    bad.write_text(json.dumps(document([[1.0]]) | change))
    for arguments in ((str(good), str(bad)), (str(bad), str(good))):
        code, out, err = farm("compare", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "bad.json" in err
        assert says in err


def test_wrong_use_is_one_line(farm: Farm, tmp_path: Path) -> None:
    good = str(written(tmp_path / "good.json", [[1.0] * 8]))
    (tmp_path / "torn.json").write_text('{"rows": [')
    for arguments, says in (
        ((good, str(tmp_path / "torn.json")), "is no JSON"),
        ((good, str(tmp_path / "none.json")), "No such file"),
        ((good, "last"), "name a second one, ending in .json"),
        (("last", good), "name two files or two runs"),
        ((good, "--axis", "pool.recycle"), "files of samples have none"),
        ((good, good, "--measure", "busy"), "not in both files; they have ns_per_packet"),
        (("last", "last", "--least-change", "0.1"), "records are exact"),
    ):
        code, out, err = farm("compare", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert says in err
