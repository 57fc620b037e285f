"""``farm report``: what the page says, and what it holds."""

import base64
import hashlib
import json
import re
import statistics
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from farm import query
from farm.errors import FarmError
from farm.plan import Plan
from farm.report import data, page, site
from farm.store.writer import create_run
from farm.sweep import parse
from tests.farm.made_up import GAINS, HOSTILE, made_up, outcome
from workers.measures import MEASURES


class Scripts(HTMLParser):
    """The script elements of a page as a parser finds them, and all other tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[str] = []
        self.policy = ""
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append((found, ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, text: str) -> None:
        if self._inside:
            attributes, before = self.scripts[-1]
            self.scripts[-1] = attributes, before + text


def shown(text: str) -> dict[str, Any]:
    """The document that a page holds."""
    [found] = [body for attributes, body in Scripts(text).scripts if attributes.get("id") == "data"]
    return dict(json.loads(found))


def test_the_gains_of_a_page_follow_from_the_records(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    document = shown(page.render(data.report(run)))
    times: dict[tuple[str, int, bool], list[float]] = {}
    for row in run.read_records():
        key = (str(row["arch"]), int(row["pool.size"]), bool(row["pool.recycle"]))
        times.setdefault(key, []).append(float(row["busy_ns_per_packet"]))
    names = [axis["name"] for axis in document["axes"]]
    assert names == ["arch", "pool.size", "pool.recycle"]
    assert len(document["gains"]) == 6
    for gain in document["gains"]:
        arch, size, _ = (
            axis["values"][i]
            for axis, i in zip(document["axes"], document["cells"]["at"][gain["on"]], strict=True)
        )
        on, off = (times[arch, int(size), recycle] for recycle in (True, False))
        assert gain["gain"] == pytest.approx(statistics.median(off) / statistics.median(on) - 1)
        assert gain["low"] == pytest.approx(min(off) / max(on) - 1)
        assert gain["high"] == pytest.approx(max(off) / min(on) - 1)


def test_the_first_sentence_counts_where_recycling_pays(tmp_path: Path) -> None:
    document = data.report(made_up(tmp_path))
    assert document["question"] == "Does recycling pay?"
    gains = [gain["gain"] for gain in document["gains"]]
    assert document["answer"][0] == (
        "Recycling pays by more than the spread of the seeds in 5 of 6 configurations and costs time in 1; "
        f"it gains +{100 * statistics.median(gains):.1f}% at the median, "
        f"from {100 * min(gains):.1f}% to +{100 * max(gains):.1f}%."
    )
    # on the Armada the smallest pool turns +40% into -5%, at other sizes the architectures gain alike: of the
    # two groups that differ in size alone one changes, of the three that differ in architecture alone one
    assert document["answer"][2].startswith("What changes the gain most is pool.size: ")


def test_seeds_that_overlap_are_no_answer(tmp_path: Path) -> None:
    run = made_up(tmp_path, GAINS)
    cells = query.cells(run)
    on, off = (next(cell for cell in cells if cell.fields["pool.recycle"] is side) for side in (True, False))
    wide = query.Cell(on.fields, on.axes, on.measures, on.low, off.high, on.seeds)
    summary = query.gain_summary([query.Gain(wide, off)])
    assert (summary.pays, summary.costs) == (0, 0)


def test_an_effect_is_what_one_axis_changes_alone(tmp_path: Path) -> None:
    cells = query.cells(made_up(tmp_path))
    points = [(cell, cell.measures["busy_ns_per_packet"]) for cell in cells]
    found = query.effects(points, [("arch",), ("pool.size",)], lambda low, high: high / low - 1)
    assert [effect.axes for effect in found] == [("arch",), ("pool.size",)]
    by = {(c.fields["arch"], c.fields["pool.size"], c.fields["pool.recycle"]): value for c, value in points}
    ratios = [
        by["armada-3720", size, recycle] / by["broadwell-ep", size, recycle] - 1
        for size in (64, 1024, 4096)
        for recycle in (True, False)
    ]
    assert found[0].median == pytest.approx(statistics.median(ratios))
    assert found[0].most == pytest.approx(max(ratios))
    assert found[0].groups == 6


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("[grid]\npool.size = [64, 256]\n", "What changes CPU time per packet most?"),
        ("", "What does a packet cost?"),
        ('[grid]\nworkload = ["pool_fast", "pool_ring"]\n', "What changes CPU time per page most?"),
    ],
    ids=["no-recycle", "one-cell", "loops"],
)
def test_runs_of_other_shapes_have_a_question_and_an_answer(tmp_path: Path, text: str, question: str) -> None:
    document = data.report(made_up(tmp_path, f'name = "shape"\n{text}'))
    assert document["question"] == question
    assert re.search(r"\d", document["answer"][0])


def test_axes_that_advance_together_are_one_cause(tmp_path: Path) -> None:
    text = 'name = "zipped"\n[zip]\npool.size = [64, 40960]\nnic.rx_ring = [256, 512]\n'
    document = data.report(made_up(tmp_path, text))
    assert "changes most with pool.size with nic.rx_ring" in document["answer"][0]


def test_a_run_without_records_says_so(tmp_path: Path) -> None:
    run = made_up(tmp_path, broken=lambda _: "made up")
    document = shown(page.render(data.report(run)))
    assert "no answer" in document["answer"][0]
    assert document["trials"] == {"planned": 36, "recorded": 0, "failed": 36}
    assert document["failures"][0]["message"] == "made up"


def test_what_comes_from_a_run_cannot_leave_its_script_element(tmp_path: Path) -> None:
    long = "/p/" + "x" * 10_000
    text = f'name = "hostile"\n[grid]\narch = [{json.dumps(HOSTILE)}, {json.dumps(long)}]\n'
    run = made_up(tmp_path, text, broken=lambda n: HOSTILE if n else "")
    text = page.render(data.report(run))
    found = Scripts(text)
    assert len(found.scripts) == 2 + len(page.SCRIPTS)
    assert "img" not in found.tags
    document = shown(text)
    assert document["axes"][0]["values"] == [HOSTILE, long]
    assert document["failures"][0]["message"] == HOSTILE


def test_only_the_scripts_of_the_page_may_run_and_nothing_may_be_fetched(tmp_path: Path) -> None:
    found = Scripts(page.render(data.report(made_up(tmp_path))))
    rules = dict(rule.strip().split(" ", 1) for rule in found.policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    scripts = [body for attributes, body in found.scripts if "type" not in attributes]
    digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in scripts]
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]


def test_a_thousand_cells_stay_below_ten_megabytes(tmp_path: Path) -> None:
    sizes = ", ".join(str(64 + 8 * n) for n in range(250))
    axes = f"pool.size = [{sizes}]\nnic.rx_ring = [256, 512]\npool.recycle = [true, false]\n"
    plan = Plan(parse(f'name = "large"\nseeds = 2\n[grid]\n{axes}', "test"))
    run, writer = create_run(tmp_path, plan.sweep, {}, {})
    # no measure is 0, none is the same for all seeds, and all have all of their digits
    outcomes = [outcome(dict(plan.fields(n)), n) for n in range(plan.trials)]
    writer.write(
        [replace(one, result={m.name: 1e5 + (1 + n) / 7 for m in MEASURES}) for n, one in enumerate(outcomes)]
    )
    document = data.report(run)
    assert len(document["cells"]["at"]) == 1000
    assert len(document["measures"]) == len(MEASURES)
    assert len(page.render(document).encode()) < 10_000_000


def test_provenance_names_what_made_the_numbers(tmp_path: Path) -> None:
    of = data.report(made_up(tmp_path))["provenance"]
    [origin] = of["origins"]
    assert (origin["host"], origin["executor"], origin["model_digest"]) == ("node", "serial", "0123abcd")
    assert (origin["trials"], origin["packets"]) == (36, 3600)
    assert set(of["estimates"]) == {"broadwell-ep", "armada-3720"}
    assert 'arch = ["broadwell-ep", "armada-3720"]' in of["sweep_toml"]


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "report.html", tmp_path / ("x" * 300)):
        with pytest.raises(FarmError, match="--output"):
            page.write(path, "text")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_page_or_prints_its_document(farm: Any, tmp_path: Path) -> None:
    run = made_up(tmp_path / "runs")
    output = tmp_path / "page.html"
    code, out, _ = farm("report", "last", "-o", str(output))
    assert code == 0
    assert out.startswith("Recycling pays ")
    assert shown(output.read_text())["run"] == run.name
    code, out, _ = farm("report", "gains", "--json", "-o", str(tmp_path / "other.html"))
    assert code == 0
    assert json.loads(out) == shown(output.read_text())
    assert not (tmp_path / "other.html").exists()


@pytest.mark.parametrize("name", ["last", "no-such-run"])
def test_a_run_that_does_not_exist_is_one_line(farm: Any, tmp_path: Path, name: str) -> None:
    code, out, err = farm("report", name, "-o", str(tmp_path / "page.html"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "page.html").exists()


def test_a_site_shows_runs_of_its_store_only(tmp_path: Path) -> None:
    run = made_up(tmp_path / "store")
    elsewhere = made_up(tmp_path / "elsewhere")
    pages = site.Site(tmp_path / "store")
    document = pages.document("")
    assert document is not None
    assert (document["run"], document["runs"]) == (run.name, [{"sweep": "gains", "run": run.name}])
    for name in (str(elsewhere.path), f"../../elsewhere/gains/{elsewhere.name}", elsewhere.name):
        with pytest.raises(FarmError):
            pages.document(name)


def test_a_site_reads_a_run_again_when_it_has_new_parts(tmp_path: Path) -> None:
    plan = Plan(parse(GAINS, "test"))
    run, writer = create_run(tmp_path, plan.sweep, {}, {})
    pages = site.Site(tmp_path)

    def recorded() -> int:
        document = pages.document(run.name)
        assert document is not None
        return int(document["trials"]["recorded"])

    assert recorded() == 0
    writer.write([outcome(dict(plan.fields(n)), n) for n in range(4)])
    assert recorded() == 4
