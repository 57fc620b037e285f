"""``farm show --plot``: curves in a terminal."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from farm import plots, query
from tests.farm.made_up import HOSTILE, made_up

ESCAPE = "\x1b"


def test_a_curve_has_the_medians_of_the_records_by_size(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    curves = plots.curves(query.cells(run))
    assert [curve.measure for curve in curves] == [plots.GAIN] * 2 + [plots.BUSY] * 4
    for curve in curves[2:]:
        assert (curve.axis, curve.x) == ("pool.size", [64, 1024, 4096])
        for size, median, low, high in zip(curve.x, curve.median, curve.low, curve.high, strict=True):
            want = curve.fields | {"pool.size": size}
            times = [
                float(row["busy_ns_per_packet"])
                for row in run.read_records()
                if all(row[name] == value for name, value in want.items())
            ]
            assert (median, low, high) == (statistics.median(times), min(times), max(times))


def test_sizes_stand_in_order_of_size(tmp_path: Path) -> None:
    run = made_up(tmp_path, 'name = "order"\n[grid]\npool.size = [1024, 64, 256]\n')
    [curve] = plots.curves(query.cells(run))
    assert curve.x == [64, 256, 1024]


def test_a_plot_names_each_curve_and_fits_the_terminal(tmp_path: Path) -> None:
    cells = query.cells(made_up(tmp_path))
    text = plots.drawn(cells, 72, coloured=False)
    assert ESCAPE not in text
    assert max(map(len, text.splitlines())) <= 72
    lines = text.splitlines()
    assert "o broadwell-ep" in lines
    assert "x armada-3720" in lines
    assert "* armada-3720, pool.recycle false" in lines
    for line in lines:
        if line.split()[:1] == ["64"]:
            assert line.split() == ["64", "1024", "4096"]
    assert ESCAPE in plots.drawn(cells, 72, coloured=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[grid]\narch = ["broadwell-ep", "armada-3720"]\n',
        "[grid]\npool.recycle = [true, false]\n",
        '[grid]\nworkload = ["pool_fast", "pool_ring"]\n',
        f"[grid]\narch = [{json.dumps(HOSTILE)}, {json.dumps('x' * 10_000)}]\npool.recycle = [true, false]\n",
        "[grid]\npool.size = [64, 256]\nnic.rx_ring = [256, 512]\napp.work_ns = [0, 10, 20, 30]\n",
    ],
    ids=["one cell", "words", "recycling only", "loops", "hostile", "many"],
)
def test_runs_of_every_shape_can_be_drawn(tmp_path: Path, text: str) -> None:
    cells = query.cells(made_up(tmp_path, f'name = "shape"\n{text}'))
    found = plots.drawn(cells, 80, coloured=False)
    assert ("nothing to draw" in found) == (text == "")
    assert all(character.isprintable() or character == "\n" for character in found)
    assert max(map(len, found.splitlines())) <= 80


def test_nothing_is_drawn_of_no_record(tmp_path: Path) -> None:
    cells = query.cells(made_up(tmp_path, broken=lambda _: "made up"))
    assert plots.drawn(cells, 80, coloured=False).startswith("nothing to draw")


def test_the_command_draws_or_prints_the_same_points(farm: Any, tmp_path: Path) -> None:
    cells = query.cells(made_up(tmp_path / "runs"))
    code, out, _ = farm("show", "last", "--plot")
    assert code == 0
    assert "gain of recycling, %" in out
    code, out, _ = farm("show", "last", "--plot", "--json")
    assert code == 0
    assert json.loads(out)["curves"] == [curve._asdict() for curve in plots.curves(cells)]
    code, _, err = farm("show", "last", "--plot", "--cpus")
    assert (code, err.count("\n")) == (2, 1)
