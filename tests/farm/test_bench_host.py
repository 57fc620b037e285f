"""Real threads beside predictions: how they are compared, and that measured figures stay out of the store."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm.bench import host as bench_host
from farm.bench.host import Row, orders
from workers.host import facts as asking
from workers.host.clock import Spread
from workers.host.load_bench import Measured, Predicted, Setting

Farm = Callable[..., tuple[int, str, str]]


def row(measured: float, predicted: float, recycle: bool = True, ring: int = 64) -> Row:
    return Row(
        Setting(ring, 1, recycle, 64),
        Measured(Spread(measured, measured, measured), (measured,), 0.0),
        Predicted(predicted, 0.0, (predicted, 0.0), {}),
    )


def test_an_order_is_right_if_the_prediction_has_it_too() -> None:
    fast, slow, slower = row(100, 90), row(120, 80), row(150, 200)
    found = orders([slow, slower, fast])
    pairs = {(order.faster.measured_ns, order.slower.measured_ns): order.right for order in found}
    assert pairs == {(100, 120): False, (100, 150): True, (120, 150): True}


def test_configurations_that_are_close_have_no_order() -> None:
    assert orders([row(100, 1), row(110, 2)]) == []
    assert len(orders([row(100, 1), row(111, 2)])) == 1


def test_what_was_wrong_is_said() -> None:
    found = bench_host.HostBench("m", "6.1", "p", [row(100, 100), row(200, 90, recycle=False)])
    told = "\n".join(bench_host.summary(found))
    assert "1 of 2 predictions within 25%" in told
    assert "0 of 1 orders right" in told
    assert "recycling on against off: 0 of 1 right" in told
    assert "(100 ns, predicted 100) is faster than" in told
    [wrong] = bench_host.as_json(found)["orders_wrong"]  # type: ignore[misc, attr-defined]
    assert wrong["faster"]["recycle"]


def test_measured_figures_have_no_way_into_the_store() -> None:
    """Neither the benchmark nor what it measures with imports the store, its rows or records of trials."""
    root = Path(bench_host.__file__).parents[2]
    closed = {"farm.store.runs", "farm.store.rows", "farm.query", "farm.metrics.collector", "workers.record"}
    for path in (
        root / "farm/bench/host.py",
        root / "farm/calibrate.py",
        *(root / "workers/host").glob("*.py"),
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in closed, path
                assert not closed & {f"{node.module}.{alias.name}" for alias in node.names}, path
            elif isinstance(node, ast.Import):
                assert not closed & {alias.name for alias in node.names}, path


def test_the_benchmark_measures_and_predicts_each_configuration(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench_host, "REPEATS", 1)
    monkeypatch.setattr(bench_host, "RINGS", (64,))
    monkeypatch.setattr(bench_host, "HOLDS", (1,))
    code, out, _ = farm("bench", "host", "--profile", "broadwell-ep", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["conditions"]["machine"] == asking.facts().model
    assert [(r["setting"]["frame_bytes"], r["setting"]["recycle"]) for r in found["rows"]] == [
        (64, True),
        (64, False),
        (1520, True),
        (1520, False),
    ]
    for measured in found["rows"]:
        assert set(measured) == {"setting", "samples", "measured", "predicted", "error_ratio"}
        assert measured["measured"]["ns_per_packet"] > 0
        if not measured["setting"]["recycle"]:
            # each packet takes a page for good
            assert measured["measured"]["new_page_ratio"] == pytest.approx(1, rel=0.02)
            assert measured["predicted"]["new_page_ratio"] == pytest.approx(1, rel=0.02)
    assert not (tmp_path / "runs").exists()


def test_one_cpu_is_too_few(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = asking.facts()._replace(cpus=(0,), packages=(0,))
    monkeypatch.setattr(asking, "facts", lambda: alone)
    code, out, err = farm("bench", "host")
    assert (code, out) == (2, "")
    assert "two of their own" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pool", "--profile", "zen4"], "--profile zen4"),
        (["host", "--profile", "z80"], "z80"),
        (["host", "--address", "head:6379"], "--address head:6379"),
        (["host", "--executor", "ray", "--profile", "zen4"], "--profile zen4"),
        (["sweep", "--executor", "ray"], "--executor ray"),
    ],
)
def test_bad_input_is_one_line(farm: Farm, arguments: list[str], says: str) -> None:
    code, out, err = farm("bench", *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert says in err


def test_kinds_of_machines_are_measured_apart() -> None:
    """Four nodes on three machines of two kinds: two results, each of one machine, none of both."""
    here = asking.facts()
    nodes = {
        "a": here._replace(model="One", boot_id="1"),
        "b": here._replace(model="Two", boot_id="2"),
        "c": here._replace(model="One", boot_id="3"),
        "d": here._replace(model="One", boot_id="1"),
    }

    class Cluster:
        def on_nodes(
            self, work: Any, arguments: Any, wanted: Any = (), alone: bool = False
        ) -> dict[str, Any]:
            if work is asking.facts:
                return nodes
            assert alone, "nothing else runs on the node meanwhile"
            return {node: bench_host.HostBench(nodes[node].model, "6.1", f"of {node}", []) for node in wanted}

    said: list[str] = []
    found = bench_host.bench_kinds(Cluster(), said.append)  # type: ignore[arg-type]
    assert [(one.machine, one.profile) for one in found] == [("One", "of a"), ("Two", "of b")]
    assert said == ["One, one of 2", "Two, one of 1"]
