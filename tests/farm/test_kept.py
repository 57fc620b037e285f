"""Answers that are kept: their files, the report that shows them, figures that are those of ``--json``."""

import json
import re
import shutil
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pyarrow import parquet

from dashboards.answers import GATE_CELLS, GATE_PASSED
from farm.answers.comparison_tables import SHOWN
from farm.errors import StoreError
from farm.metrics.answers import MOST_FIGURES
from farm.metrics.collector import StoreCollector
from farm.report import data
from farm.report.site import Site
from farm.store import answers, mirror
from farm.store import runs as store
from farm.store.answers import Answer, Figure
from farm.store.place import LocalPlace, place_of
from farm.store.runs import Run
from tests.farm.made_up import made_up
from tests.farm.s3_server import BUCKET, disk_full, objects, put, s3_server
from workers.measures import COUNTERS

Farm = Callable[..., tuple[int, str, str]]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""values by name, without the farm's prefix, and labels"""

BASE, OTHER, THIRD = (f"20260101T00000{second}.000Z-0000" for second in range(3))

SWEEP = """
name = "small"
seeds = 1
[fixed]
traffic.kind = "bursts"
traffic.rate_pps = 150_000
app.reader = "slow"
app.socket_bytes = 1_048_576
duration_ms = 10
[grid]
kernel = ["6.1", "6.12"]
"""

RULES = "[[rule]]\nleast_change = 0.2\n"
"""let the slower run pass"""


def slower(records: pyarrow.Table) -> pyarrow.Table:
    """More busy time with the smaller pool: a hundredth, or a tenth."""
    factors = {("broadwell-ep", 64): 1.01, ("armada-3720", 64): 1.1}
    names = ("busy_ns_per_packet", "arch", "pool.size")
    rows = zip(*(records[name].to_pylist() for name in names), strict=True)
    times = [time * factors.get((arch, size), 1.0) for time, arch, size in rows]
    return records.set_column(records.column_names.index(names[0]), names[0], pyarrow.array(times))


@pytest.fixture
def root(tmp_path: Path, small_run: Run) -> Path:
    """A store with two runs of one sweep that are alike, a slower one, and a run of another sweep."""
    found = tmp_path / "runs"
    for name in (BASE, OTHER, THIRD):
        shutil.copytree(small_run.path, found / "small" / name)
    for part in (found / "small" / OTHER / "records").glob("*.parquet"):
        parquet.write_table(slower(parquet.read_table(part)), part)
    made_up(found)
    return found


class Verb(NamedTuple):
    """A verb that is asked twice for different answers."""

    arguments: tuple[str, ...]
    others: tuple[str, ...]
    code: int
    about: set[str]
    """names of the runs whose page shows it; ``gains`` is the run of the other sweep"""


VERBS = {
    "comparison": Verb(
        ("compare", BASE, OTHER),
        ("compare", BASE, OTHER, "--measure", "drop_ratio", "--measure", "drop_ratio"),
        0,
        {BASE, OTHER},
    ),
    "gate": Verb(("gate", BASE, OTHER), ("gate", BASE, OTHER, "--rule", "rules.toml"), 1, {BASE, OTHER}),
    "advice": Verb(
        ("advise", "sweep.toml", "--target", "recycle_ratio>=0.3"),
        ("advise", "sweep.toml", "kernel=6.1", "--target", "recycle_ratio>=1"),
        0,
        {BASE, OTHER, THIRD},
    ),
    "diagnosis": Verb(("doctor", "one.txt"), ("doctor", "several.json"), 0, {BASE, OTHER, THIRD, "gains"}),
}

EVERY_VERB = pytest.mark.parametrize("kind", VERBS)


@pytest.fixture(autouse=True)
def _inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the verbs are given."""
    monkeypatch.chdir(tmp_path)
    Path("sweep.toml").write_text(SWEEP)
    Path("rules.toml").write_text(RULES)
    counted = {"alloc_fast": 900_000, "alloc_slow": 100, "recycle_ring": 900_000}
    lines = (
        f"  rx_pp_{name.replace('high_order', 'ho').replace('refcnt', 'ref')}: {counted.get(name, 0)}\n"
        for name in COUNTERS
    )
    Path("one.txt").write_text("".join(lines))
    full = {"alloc_fast": 4_000, "alloc_slow": 100, "recycle_ring": 2_000, "recycle_ring_full": 2_000}
    Path("several.json").write_text(
        json.dumps(
            [
                {
                    "info": {"id": number, "ifindex": 2},
                    **{name.replace("_", "-"): values.get(name, 0) for name in COUNTERS},
                }
                for number, values in enumerate((counted, full), 1)
            ]
        )
    )


def files(root: Path) -> list[Path]:
    return sorted((root / ".answers").glob("*"))


def exposed(root: Path | str, warn: Callable[[str], None] = pytest.fail) -> Samples:
    """All that the collector exposes, as a second program reads it."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(root, warn=warn))
    samples = [
        ((sample.name.removeprefix("pagepool_farm_"), frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    ]
    assert len(dict(samples)) == len(samples)
    return dict(samples)


def figures(root: Path, warn: Callable[[str], None] = pytest.fail) -> Samples:
    """Those of the answers of a store, read without its runs: quick."""
    alone = root.with_name("alone")
    shutil.rmtree(alone, ignore_errors=True)
    shutil.copytree(root / ".answers", alone / ".answers")
    return of_answers(exposed(alone, warn))


def of_answers(samples: Samples) -> Samples:
    return {key: value for key, value in samples.items() if "answer" in dict(key[1])}


def run_named(root: Path | str, name: str) -> Run:
    return next(run for run in store.runs(root) if name in (run.name, run.sweep_name))


@EVERY_VERB
def test_the_same_answer_is_one_file_and_prints_what_it_does_without(
    kind: str, farm: Farm, root: Path
) -> None:
    verb = VERBS[kind]
    for more in ((), ("--json",)):
        code, out, err = farm(*verb.arguments, *more)
        assert (code, err, files(root) if not more else []) == (verb.code, "", [])
        kept = farm(*verb.arguments, *more, "--keep")
        assert kept[:2] == (code, out)
        [path] = files(root)
        assert kept[2] == f"farm: kept as {path}\n"
        assert re.fullmatch(rf"{kind}-[0-9a-f]{{12}}\.json", path.name)
        content = path.read_bytes()
        assert farm(*verb.arguments, *more, "--keep") == kept
        assert [one.read_bytes() for one in files(root)] == [content]
    farm(*verb.others, "--keep")
    assert len({one.read_bytes() for one in files(root)}) == len(files(root)) == 2


@EVERY_VERB
def test_a_report_has_what_is_about_its_run_and_no_more(kind: str, farm: Farm, root: Path) -> None:
    verb = VERBS[kind]
    site = Site(root)
    assert site.document(BASE)["answers"] == []  # type: ignore[index]
    out = farm(*verb.arguments, "--keep", *(["--markdown"] if kind == "comparison" else []))[1]
    pages = {name: data.report(run_named(root, name))["answers"] for name in (BASE, OTHER, THIRD, "gains")}
    assert {name for name, found in pages.items() if found} == verb.about
    [answer] = pages[BASE]
    assert site.document(BASE)["answers"] == [answer]  # type: ignore[index]
    printed = " ".join(out.split())
    assert answer["sentences"]
    for sentence in answer["sentences"]:
        # on a page the cells stand one below the other: each says which it is
        plain = sentence.partition(": ")[2] if kind == "advice" else sentence
        assert plain in printed
    rows = [row for table in answer["tables"] for row in table["rows"]]
    assert rows
    if kind in ("comparison", "advice"):
        words = printed.replace("|", " ").split()
        assert {word for row in rows for cell in row for word in cell.split()} <= set(words)
    assert farm("report", BASE, "-o", "page.html")[0] == 0
    assert json.dumps(answer["title"])[1:-1] in Path("page.html").read_text()


# Figures, each worked out from what --json prints


def of_comparison(
    found: Any, measures: tuple[str, ...] = SHOWN
) -> Iterator[tuple[str, dict[str, str], float]]:
    for comparison in found:
        sides = {name: comparison[name] for name in ("base", "other")}
        for measure in measures:
            cells = [cell["measures"][measure] for cell in comparison["cells"] if measure in cell["measures"]]
            for verdict, count in Counter(cell["verdict"] for cell in cells).items():
                yield "compared_cells", {**sides, "measure": measure, "verdict": verdict}, count
            changes = [cell["ratio"] - 1 for cell in cells if cell["ratio"] is not None]
            if changes:
                yield "compared_change_ratio", {**sides, "measure": measure}, statistics.median(changes)


def of_gate(found: Any) -> Iterator[tuple[str, dict[str, str], float]]:
    sides = {"base": BASE, "other": OTHER}
    yield "gate_passed", sides, float(found["passed"])
    yield "gate_cells", sides, found["cells"]
    for measure, count in Counter(one["measure"] for one in found["broken"]).items():
        yield "gate_broken_cells", {**sides, "measure": measure}, count


def of_advice(found: Any) -> Iterator[tuple[str, dict[str, str], float]]:
    for one in found["cells"]:
        name = ", ".join(f"{axis} = {value}" for axis, value in one["cell"].items()) or "the only one"
        cell = {"sweep": "small", "cell": name}
        for step in one["steps"]:
            if step["pool_size"] == one["pool_size"]:
                yield "advised_pool_size", cell, step["pool_size"]
                yield "advised_ring_bytes", cell, step["ring_bytes"]
            new_pages = 1 - step["worst"]["recycle_ratio"]
            yield "advice_new_pages_ratio", {**cell, "pool_size": str(step["pool_size"])}, new_pages


def of_diagnosis(found: Any, source: str) -> Iterator[tuple[str, dict[str, str], float]]:
    by_pools = {"all": found["together"], **{f"pool {name}": one for name, one in found["differing"].items()}}
    for pools, one in by_pools.items():
        where = {"source": source, "pools": pools}
        yield "diagnosis", {**where, "regime": one["regime"]}, 1
        for name, value, _ in one["evidence"]:
            yield "diagnosis_evidence", {**where, "evidence": name}, value


FIGURES = {
    "comparison": (of_comparison, lambda found: of_comparison(found, ("drop_ratio",))),
    "gate": (of_gate, of_gate),
    "advice": (of_advice, of_advice),
    "diagnosis": (
        lambda found: of_diagnosis(found, "one.txt"),
        lambda found: of_diagnosis(found, "several.json"),
    ),
}


@EVERY_VERB
def test_each_figure_is_that_of_the_json(kind: str, farm: Farm, root: Path) -> None:
    verb = VERBS[kind]
    wanted: Samples = {}
    for arguments, worked_out in zip((verb.arguments, verb.others), FIGURES[kind], strict=True):
        known = set(files(root))
        printed = json.loads(farm(*arguments, "--keep", "--json")[1])
        [path] = set(files(root)) - known
        rows = list(worked_out(printed))
        for name, labels, value in rows:
            wanted[name, frozenset({"answer": path.stem, **labels}.items())] = value
    assert figures(root) == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    if kind in ("comparison", "gate"):
        assert any(dict(key[1]).get("measure") == "busy_ns_per_packet" for key in wanted)


def test_pools_that_differ_are_shown_and_no_cell_is_nameless(farm: Farm, root: Path) -> None:
    """The answers of the test above are such that they can tell."""
    farm(*VERBS["diagnosis"].others, "--keep")
    labels = [dict(key[1]) for key in figures(root)]
    assert {one["pools"] for one in labels} == {"all", "pool 2"}
    for path in files(root):
        path.unlink()
    assert farm(*VERBS["advice"].others, "--keep")[0] == 1
    # Prometheus takes a label without a value for none
    assert {(name, dict(labels)["cell"]) for name, labels in figures(root)} == {
        ("advice_new_pages_ratio", "the only one")
    }


def test_samples_are_kept_for_every_run_of_the_store(farm: Farm, root: Path) -> None:
    from tests.farm.test_samples import written

    written(Path("a.json"), [[1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07]])
    written(Path("b.json"), [[2.0, 2.01, 2.02, 2.03, 2.04, 2.05, 2.06, 2.07]])
    assert farm("gate", "a.json", "b.json", "--keep")[0] == 1
    for name in (BASE, "gains"):
        [answer] = data.report(run_named(root, name))["answers"]
        assert answer["title"] == "Gate from a.json to b.json: FAILED"
    sides = {"base": "a.json", "other": "b.json", "answer": files(root)[0].stem}
    assert figures(root)["gate_passed", frozenset(sides.items())] == 0


# What goes wrong


def gate_answer(base: str, *more: Figure) -> Answer:
    sides = {"base": base, "other": "b"}
    own = (
        Figure(metric=GATE_PASSED.name, labels=sides, value=1),
        Figure(metric=GATE_CELLS.name, labels=sides, value=8),
    )
    return Answer(kind="gate", title="t", about=(), sentences=("s",), tables=(), figures=(*own, *more))


@EVERY_VERB
def test_where_nothing_can_be_kept_nothing_is_printed(kind: str, farm: Farm, root: Path) -> None:
    (root / ".answers").write_text("in the way")
    code, out, err = farm(*VERBS[kind].arguments, "--keep")
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"farm: store '{re.escape(str(root))}': .*; leave --keep out, .*\n", err)


def test_what_is_no_directory_of_answers_hides_no_run(farm: Farm, root: Path) -> None:
    before = {name for name, _ in exposed(root)}
    (root / ".answers").write_text("in the way")
    told: list[str] = []
    assert {name for name, _ in exposed(root, told.append)} == before
    [line] = told
    assert line.startswith(f"store '{root}': Not a directory")


def test_a_garbled_answer_is_named_and_the_others_are_shown(farm: Farm, root: Path) -> None:
    place = LocalPlace(root)
    answers.keep(place, gate_answer("a"))
    garbled = root / ".answers" / "gate-000000000000.json"
    garbled.write_text('{"kind": "gate"')
    code, out, err = farm("report", BASE, "-o", "page.html")
    assert (code, out, Path("page.html").exists()) == (2, "", False)
    assert re.fullmatch(rf"farm: answer {re.escape(str(garbled))}: .*; remove the file\n", err)
    told: list[str] = []
    collector = StoreCollector(root, warn=told.append)
    seen = [list(collector.collect()) for _ in range(2)]
    assert [line.partition(": ")[0] for line in told] == [f"answer {garbled}"]
    # once it can be read it is shown: a server may only have been away
    garbled.write_bytes(gate_answer("c").content)
    seen.append(list(collector.collect()))
    bases = [
        {s.labels["base"] for family in one if family.name == GATE_PASSED.name for s in family.samples}
        for one in seen
    ]
    assert bases == [{"a"}, {"a"}, {"a", "c"}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "guess"}, "kind: "),
        ({"figures": [{"metric": "m", "labels": {}, "value": "much"}]}, "figures.0.value: "),
        ({"extra": 1}, "extra: "),
    ],
)
def test_what_is_wrong_with_an_answer_is_one_line(root: Path, change: dict[str, Any], says: str) -> None:
    place = LocalPlace(root)
    path = Path(answers.keep(place, gate_answer("a")))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StoreError, match=rf"^answer \S+: {re.escape(says)}[^\n]*; remove the file$"):
        answers.read(place, answers.names(place))


def test_metrics_of_a_newer_farm_are_left_out_and_named(root: Path) -> None:
    newer = Figure(metric="pagepool_farm_gate_mood", labels={"base": "a"}, value=1)
    more = Figure(metric=GATE_CELLS.name, labels={"base": "a", "other": "b", "mood": "good"}, value=1)
    answer = gate_answer("a", newer, more)
    answers.keep(LocalPlace(root), answer)
    told: list[str] = []
    assert sorted(name for name, _ in figures(root, told.append)) == ["gate_cells", "gate_passed"]
    assert told == [
        f"answer {answer.name}: metric {metric} is unknown here; a newer farm kept it"
        for metric in (newer.metric, more.metric)
    ]


def test_no_more_figures_than_anybody_looks_at_are_exposed(root: Path) -> None:
    place = LocalPlace(root)
    most = [
        Figure(metric=GATE_CELLS.name, labels={"base": str(n), "other": "b"}, value=n)
        for n in range(MOST_FIGURES - 2)
    ]
    answers.keep(place, gate_answer("a", *most))
    assert len(figures(root)) == MOST_FIGURES
    answers.keep(place, gate_answer("z"))
    last = answers.names(place)[-1].removesuffix(".json")
    told: list[str] = []
    shown = {dict(labels)["answer"] for _, labels in figures(root, told.append)}
    assert told == [f"answer {last}: one of more than {MOST_FIGURES} figures; remove old answers"]
    assert last not in shown
    assert len(shown) == 1


def test_answers_are_no_runs(farm: Farm, root: Path, tmp_path: Path) -> None:
    listed, before = farm("list", "--json")[1], exposed(root)
    farm(*VERBS["gate"].arguments, "--keep")
    assert farm("list", "--json")[1] == listed
    after = exposed(root)
    moving = {(name, frozenset()) for name in ("collect_seconds", "store_free_bytes")}
    still = after.keys() - of_answers(after).keys() - moving
    assert still == before.keys() - moving
    assert {key: after[key] for key in still} == {key: before[key] for key in still}
    assert of_answers(after) == figures(root) != {}
    empty = str(tmp_path / "new")
    assert farm("doctor", "one.txt", "--keep", "--store", empty)[0] == 0
    assert json.loads(farm("list", "--store", empty, "--json")[1]) == []
    assert {name for name, _ in figures(Path(empty))} == {"diagnosis", "diagnosis_evidence"}


def test_an_object_store_keeps_answers_too(
    farm: Farm, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-tests")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(mirror, "_copies", lambda: tmp_path / "copies")
    with s3_server() as proxy:
        remote = f"s3://{BUCKET}/runs?scheme=http&endpoint_override=127.0.0.1:{proxy.port}&region=us-east-1"
        shutil.rmtree(root / "small" / THIRD)
        for path in (root / "small").rglob("*"):
            if path.is_file():
                put(proxy, f"runs/{path.relative_to(root)}", path.read_bytes())
        listed = farm("list", "--store", remote, "--json")[1]
        assert len(json.loads(listed)) == 2
        local = farm(*VERBS["gate"].arguments, "--keep")
        kept = farm(*VERBS["gate"].arguments, "--keep", "--store", remote)
        assert kept[:2] == local[:2]
        [path] = files(root)
        there = {name: content for name, content in objects(proxy).items() if "answers" in name}
        assert there == {f"runs/.answers/{path.name}": path.read_bytes()}
        assert farm("list", "--store", remote, "--json")[1] == listed
        [shown] = data.report(run_named(remote, BASE))["answers"]
        assert [shown] == data.report(run_named(root, BASE))["answers"]
        assert of_answers(exposed(remote)) == figures(root)
        proxy.reply = disk_full
        code, out, err = farm("doctor", "one.txt", "--keep", "--store", remote)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"farm: store '\S+': .*; free some space\n", err)
        assert answers.names(place_of(remote)) == (path.name,)


def test_an_answer_about_runs_named_by_path_is_kept_beside_them(
    farm: Farm, small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARM_STORE", str(tmp_path / "elsewhere"))
    run = Path(shutil.copytree(small_run.path, tmp_path / "runs" / small_run.sweep_name / small_run.name))
    assert farm("gate", str(run), str(run), "--keep")[0] == 0
    assert farm("compare", str(run), "--axis", "pool.recycle", "--keep")[0] == 0
    assert len(answers.names(LocalPlace(tmp_path / "runs"))) == 2
    assert not (tmp_path / "elsewhere").exists()
    assert len(data.kept_answers(Run(LocalPlace(run)))) == 2
