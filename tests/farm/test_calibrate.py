"""Profiles of real machines: where they are written, and that nothing is measured in vain or half-written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm import calibrate
from farm.errors import ExecutorError, OutputError
from farm.ray.executor import RayExecutor
from workers.errors import ProfileError
from workers.host import calibrate as measuring
from workers.host import facts as asking
from workers.profiles import arch

Farm = Callable[..., tuple[int, str, str]]


def found_here(*_: object) -> measuring.Calibration:
    """What measuring could have found; the measurements have tests of their own."""
    rows = {"atomic_ns": measuring.Row(4.5, 4.25, 5.0, "measured", "measured here: a test")}
    beside = {"barrier_ns": measuring.Row(6.5, 6.5, 6.5, "measured", "measured here: a test")}
    return measuring.Calibration(asking.facts(), rows, beside)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "calibrate", found_here)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("measured, although nothing can come of it")

    monkeypatch.setattr(measuring, "calibrate", refuse)


@pytest.mark.usefixtures("quick")
def test_a_profile_is_written_and_shown(farm: Farm, tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    code, out, _ = farm("arch", "calibrate", "-o", str(path), "--parent", "broadwell-ep")
    assert code == 0
    assert "atomic_ns" in out
    assert "barrier_ns" in out
    assert [file.name for file in tmp_path.iterdir()] == ["here.toml"]
    profile = json.loads(farm("arch", "show", str(path), "--json")[1])
    [atomic] = [p for p in profile["parameters"] if p["name"] == "atomic_ns"]
    assert (atomic["value"], atomic["certainty"], atomic["source"]) == (
        4.5,
        "measured",
        "measured here: a test",
    )
    assert "1 measured" in farm("arch", "show", str(path))[1]


@pytest.mark.usefixtures("quick")
def test_a_parent_of_ones_own_is_found_from_the_new_file(
    farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are named from the working directory, and lie in others."""
    (tmp_path / "parents").mkdir()
    (tmp_path / "written").mkdir()
    own = measuring.Row(777.0, 777.0, 777.0, "recalled", "a test")
    text = measuring.table_text("Own", "a test", "broadwell-ep", {"poll_ns": own})
    (tmp_path / "parents/own.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    code, out, _ = farm(
        *("arch", "calibrate", "-o", "written/here.toml", "--parent", "parents/own.toml", "--json")
    )
    assert code == 0
    assert json.loads(out)[0]["parameters"]["atomic_ns"]["value"] == 4.5
    assert arch.load("written/here.toml")["poll_ns"] == 777


@pytest.mark.usefixtures("quick")
def test_only_force_replaces_a_file(farm: Farm, tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    path.write_text("mine")
    code, out, err = farm("arch", "calibrate", "-o", str(path))
    assert (code, out) == (2, "")
    assert "--force" in err
    assert path.read_text() == "mine"
    assert farm("arch", "calibrate", "-o", str(path), "--force")[0] == 0
    assert arch.load(str(path))["atomic_ns"] == 4.5


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "{tmp}/missing/here.toml"], "no directory"),
        (["-o", "{tmp}"], "ends in .toml"),
        (["-o", "{tmp}/here.txt"], "ends in .toml"),
        (["-o", "{tmp}/directory.toml"], "a directory"),
        (["-o", "/proc/here.toml"], "cannot be written"),
        (["-o", "{tmp}/here.toml", "--parent", "z80"], "z80"),
        (["-o", "{tmp}/here.toml", "--parent", "{tmp}/missing.toml"], "missing.toml"),
        (["-o", "{tmp}/here.toml", "--address", "head:6379"], "--address"),
        (["-o", "{tmp}/here.toml", "--executor", "dask"], "dask"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(
    farm: Farm, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "directory.toml").mkdir()
    code, out, err = farm("arch", "calibrate", *(word.format(tmp=tmp_path) for word in arguments))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert says in err
    assert [file.name for file in tmp_path.iterdir()] == ["directory.toml"]


def test_a_profile_that_cannot_be_read_back_is_not_left_behind(tmp_path: Path) -> None:
    row = measuring.Row(-1.0, -1.0, -1.0, "measured", "a test")
    text = measuring.table_text("T", "d", "broadwell-ep", {"atomic_ns": row})
    with pytest.raises(ProfileError, match="atomic_ns"):
        calibrate.write_profile(tmp_path / "here.toml", text)
    assert list(tmp_path.iterdir()) == []


def test_every_node_is_asked_and_one_of_each_kind_is_measured(
    ray_executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four nodes on three machines of two kinds; the tests below send something through Ray."""
    here = asking.facts()
    kinds = {
        "a": here._replace(model="One", boot_id="1"),
        "b": here._replace(model="Two", boot_id="2"),
        "c": here._replace(model="One", boot_id="3"),
        "d": here._replace(model="One", boot_id="1"),
    }
    measured = []

    def on_nodes(
        work: Callable[..., Any], arguments: tuple[Any, ...], nodes: Any = (), alone: bool = False
    ) -> dict[str, Any]:
        if work is asking.facts:
            return dict(kinds)
        assert alone, "a measurement shares its node with no other task"
        measured.extend(nodes)
        return {node: found_here()._replace(facts=kinds[node]) for node in nodes}

    monkeypatch.setattr(ray_executor, "on_nodes", on_nodes, raising=False)
    written = calibrate.on_nodes(tmp_path, "broadwell-ep", False, ray_executor, lambda _: None)
    assert sorted(measured) == ["a", "b"]
    assert {one.path.name: one.machines for one in written} == {"one.toml": 2, "two.toml": 1}
    assert all(arch.load(str(one.path))["atomic_ns"] == 4.5 for one in written)
    with pytest.raises(OutputError, match="exists"):
        calibrate.on_nodes(tmp_path, "broadwell-ep", False, ray_executor, lambda _: None)
    assert sorted(measured) == ["a", "b"], "nothing was measured in vain"


def test_a_function_runs_once_on_each_node(ray_executor: RayExecutor) -> None:
    for alone in (False, True):
        [found] = ray_executor.on_nodes(asking.facts, (), alone=alone).values()
        assert found.model == asking.facts().model


def test_an_error_on_a_node_is_one_of_the_farm(ray_executor: RayExecutor) -> None:
    with pytest.raises(ExecutorError, match="install the same version"):
        ray_executor.on_nodes(calibrate.measure_with, ("title = ?",))


@pytest.mark.long
def test_a_node_measures_itself(ray_executor: RayExecutor, tmp_path: Path) -> None:
    [written] = calibrate.on_nodes(tmp_path, None, False, ray_executor, lambda _: None)
    profile = arch.load(str(written.path))
    assert profile.parameters["atomic_ns"].certainty == "measured"
