"""Predictions, verdicts and the score, from records made by hand; and the verb."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm.cli.options import EXIT_USAGE
from farm.validation import cases, sensitivity, validate
from workers.profiles import arch

Farm = Callable[..., tuple[int, str, str]]

HEAD = 'title = "by hand"\n[fields]\narch = "broadwell-ep"\nworkload = "pool_fast"\n'


def case(name: str = "one", **keys: object) -> str:
    """A case with one trial, or two that differ in the size of the pool."""
    table: dict[str, object] = {
        "name": name,
        "what": "by hand",
        "published": 100,
        "band": [90, 110],
        "role": "predicted",
        "source": "a test",
        **keys,
    }
    if "compare" in keys:
        table |= {"baseline": {"pool.size": 64}, "variant": {"pool.size": 128}}
    return "[[case]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


def predicted(
    tmp_path: Path, text: str, before: dict[str, Any], after: dict[str, Any]
) -> list[validate.Prediction]:
    """What these records say: the first is that of baselines, the second that of variants."""
    path = tmp_path / "hand.toml"
    path.write_text(HEAD + text)
    known = cases.load([path])
    records: dict[Any, dict[str, Any]] = {}
    for one in known.cases:
        records[one.baseline] = before
        if one.variant is not None:
            records[one.variant] = after
    return validate.predictions(known.cases, records)


@pytest.mark.parametrize(
    ("keys", "value", "verdict"),
    [
        ({}, 100, "in band"),
        ({"published": 80, "band": [70, 90]}, 100, "out of band"),
        ({"compare": "difference", "published": 30, "band": [20, 30]}, 25, "in band"),
        ({"compare": "difference", "published": -30, "band": [-40, -20]}, 25, "sign wrong"),
        ({"compare": "ratio", "published": 1.3, "band": [1.2, 1.4]}, 1.25, "in band"),
        ({"compare": "ratio", "published": 1.1, "band": [1.05, 1.2]}, 1.25, "out of band"),
        ({"compare": "ratio", "published": 0.9, "band": [0.8, 0.95]}, 1.25, "sign wrong"),
        ({"compare": "gain_percent", "published": 20, "band": [15, 30]}, 25, "in band"),
        ({"compare": "gain_percent", "published": -20, "band": [-30, -15]}, 25, "sign wrong"),
        ({"measure": ["poll_ns_per_packet", "driver_ns_per_packet"], "published": 5, "band": [4, 6]}, 5,
         "in band"),
        ({"measure": "poll_ns_per_packet", "share_of": ["poll_ns_per_packet", "driver_ns_per_packet"],
          "published": 0.4, "band": [0.3, 0.5]}, 0.4, "in band"),
        ({"scored": False, "reason": "no set-up"}, 100, "not scored"),
    ],
)  # fmt: skip
def test_what_records_say_and_the_verdict(
    tmp_path: Path, keys: dict[str, Any], value: float, verdict: str
) -> None:
    before = {"busy_ns_per_packet": 100.0, "poll_ns_per_packet": 2.0, "driver_ns_per_packet": 3.0}
    [found] = predicted(tmp_path, case(**keys), before, {"busy_ns_per_packet": 125.0})
    assert (found.predicted, found.verdict) == (pytest.approx(value), verdict)


def test_nothing_measured_is_no_prediction(tmp_path: Path) -> None:
    [found] = predicted(tmp_path, case(), {"busy_ns_per_packet": None}, {})
    assert (found.predicted, found.verdict) == (None, "out of band")


def test_the_score_counts_predicted_rows_by_weight_and_names_free_constants(tmp_path: Path) -> None:
    text = (
        case("right", weight=3)
        + case("wrong", published=50, band=[40, 60])
        + case("fit", role="fitted", constants=["driver_ns", "poll_ns"], published=50, band=[40, 60])
        + case("fit-again", role="fitted", constants=["driver_ns"])
        + case("measured", role="input", constants=["call_ns"])
        + case("ratio", compare="ratio", published=1.3, band=[1.2, 1.4], weight=4)
        + case("line-rate", scored=False, reason="at line rate")
    )
    found = predicted(tmp_path, text, {"busy_ns_per_packet": 100.0}, {"busy_ns_per_packet": 125.0})
    score = validate.score(found)
    assert (score.in_band, score.rows) == (2, 3)
    assert (score.weight_in_band, score.weight) == (7, 8)
    assert (score.signs_right, score.signs) == (1, 1)
    assert score.free_constants == ("driver_ns of broadwell-ep", "poll_ns of broadwell-ep")


def test_symbols_stand_beside_categories_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "shares.toml"
    path.write_text(
        HEAD + '[[shares]]\nname = "p"\nwhat = "a profile"\npacket_ns = 200\nsource = "a test"\n'
        "[[shares.group]]\nsymbols = { put_page = 10, free_page = 5.5 }\n"
        'categories = ["page_free", "pool_put"]\n'
    )
    [shares] = cases.load([path]).shares
    record = {"busy_ns_per_packet": 60.0, "page_free_ns_per_packet": 40.0, "poll_ns_per_packet": 20.0}
    first, rest = validate.share_lines(shares, record)
    assert (first.published_ns, first.predicted_ns) == (pytest.approx(31), 40)
    assert (rest.categories, rest.published_ns, rest.predicted_ns) == (("poll",), None, 20)


def test_of_equally_good_sizes_the_first_is_best(tmp_path: Path) -> None:
    path = tmp_path / "choice.toml"
    path.write_text(
        HEAD + '[[choice]]\nname = "c"\nwhat = "sizes"\narch = ["broadwell-ep"]\naxis = "pool.size"\n'
        "values = [64, 256, 1024]\n"
    )
    [choice] = cases.load([path]).choices
    for measured, best in (([110, 100.4, 100], 256), ([100, 100, 100], 64), ([110, 102, 100], 1024)):
        records = {
            trial: {"busy_ns_per_packet": value} for trial, value in zip(choice.trials, measured, strict=True)
        }
        assert validate.best(choice, records) == best


MICRO = case(
    fields={"workload": "page_single", "arch": "MINE"},
    published=60,
    band=[50, 70],
    measure="busy_ns_per_packet",
)


def test_sensitivity_names_the_constant_that_changes_a_verdict(tmp_path: Path) -> None:
    """A page asked for and freed costs its two prices and an atomic: only one range goes beyond the band."""
    mine = tmp_path / "mine.toml"
    profile = 'title = "mine"\ndescription = "by hand"\nparent = "broadwell-ep"\n'
    for name, value, low, high in (("page_single_alloc_ns", 40, 35, 90), ("page_free_ns", 15, 14, 16)):
        profile += f"[{name}]\nvalue = {value}\nlow = {low}\nhigh = {high}\n"
        profile += 'certainty = "estimate"\nsource = "none"\n'
    mine.write_text(profile)
    path = tmp_path / "micro.toml"
    path.write_text(HEAD + MICRO.replace("MINE", str(mine)))
    found = sensitivity.effects_of(cases.load([path]), processes=1)
    assert [(e.constant.name, e.at, e.conclusion, e.before, e.after) for e in found.effects] == [
        ("page_single_alloc_ns", 90, "one verdict", "in band", "out of band")
    ]
    names = {p.name for p in sensitivity.uncertain(str(mine))}
    assert found.constants == len(names)
    assert names >= {"page_single_alloc_ns", "page_free_ns"}
    parameters = arch.load("broadwell-ep").parameters.values()
    assert not names & {p.name for p in parameters if p.certainty == "verified"}


def test_the_verb_prints_every_case_and_writes_the_same_picture_again(farm: Farm, tmp_path: Path) -> None:
    path = tmp_path / "micro.toml"
    gain = case("gain", compare="gain_percent", published=1, band=[0, 5])
    path.write_text(HEAD + case(published=5.4, band=[5, 6]) + gain)
    pictures = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for picture in pictures:
        code, out, err = farm("validate", "--cases", str(path), "--plot", str(picture))
        assert (code, err) == (0, "")
        assert "in band" in out
        assert all(len(line) <= 80 for line in out.splitlines())
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    text = "".join(ElementTree.parse(pictures[0]).getroot().itertext())
    assert "published" in text
    code, out, _ = farm("validate", "--cases", str(path), "--json")
    found = json.loads(out)
    assert code == 0
    assert [one["name"] for one in found["cases"]] == ["one", "gain"]
    # the parts of the fast path that the profile prices
    profile = arch.load("broadwell-ep")
    assert found["cases"][0]["predicted"] == pytest.approx(profile["pool_alloc_ns"] + profile["pool_put_ns"])


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        (case(measure="busy"), [], "measure = 'busy'"),
        (case(), ["--plot", "picture.png"], "ends in .svg"),
        (case(), ["--plot", "nowhere/picture.svg"], "no such directory"),
        ("", [], "no [[case]]"),
    ],
)
def test_bad_input_is_one_line(farm: Farm, tmp_path: Path, text: str, words: list[str], said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(HEAD + text)
    code, out, err = farm("validate", "--cases", str(path), *words)
    assert (code, out) == (EXIT_USAGE, "")
    assert err.count("\n") == 1
    assert said in err
