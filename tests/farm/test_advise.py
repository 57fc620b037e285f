"""The smallest pool by bisection is that of a sweep over all sizes; its price is a difference of records."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm import sweep
from farm.answers import advise
from farm.errors import SweepError
from workers import run_trial
from workers.config import TrialConfig
from workers.fields.groups import Value

Farm = Callable[..., tuple[int, str, str]]

WORKLOAD = """
name = "advice"
seeds = 2
[fixed]
traffic.kind = "bursts"
traffic.rate_pps = 150_000
app.reader = "slow"
app.socket_bytes = 1_048_576
duration_ms = 20
"""


def advice_for(*targets: str, overrides: tuple[str, ...] = ()) -> list[advise.Advice]:
    found = sweep.parse(WORKLOAD, "test", list(overrides))
    return advise.advise(found, [advise.target_of(target) for target in targets])


def run(size: int, **more: Value) -> list[dict[str, Any]]:
    """Records of both seeds."""
    fixed: dict[str, Value] = {
        "traffic.kind": "bursts",
        "traffic.rate_pps": 150_000,
        "app.reader": "slow",
        "app.socket_bytes": 1_048_576,
        "duration_ms": 20,
        "pool.size": size,
        **{name.replace("__", "."): value for name, value in more.items()},
    }
    return [dict(run_trial(TrialConfig.from_fields({**fixed, "seed": seed}))) for seed in range(2)]


def worst(size: int, measure: str, **more: Value) -> float:
    return min(float(record[measure]) for record in run(size, **more))


@pytest.mark.parametrize(("limit", "kernel"), [(0.3, "6.1"), (0.5, "6.1"), (0.5, "6.12")])
def test_bisection_finds_what_every_size_shows(limit: float, kernel: str) -> None:
    """Within the stated tolerance of the size, in ring sizes of 16 to 512 one by one."""
    [found] = advice_for(f"recycle_ratio>={limit}", overrides=(f"kernel={kernel}",))
    assert found.chosen is not None
    smallest = next(size for size in range(16, 600) if worst(size, "recycle_ratio", kernel=kernel) >= limit)
    assert smallest <= found.chosen.size <= smallest * (1 + advise.TOLERANCE) + 1
    assert found.monotonic


def test_what_binds_is_what_the_next_smaller_pool_fails() -> None:
    [found] = advice_for("recycle_ratio>=0.4", "drop_ratio<=0.99")
    assert [str(target) for target in found.binding] == ["recycle_ratio >= 0.4"]


def test_what_no_pool_can_meet_is_said(farm: Farm, tmp_path: Path) -> None:
    path = tmp_path / "advice.toml"
    path.write_text(WORKLOAD)
    code, output, errors = farm("advise", str(path), "--target", "drop_ratio<=0")
    assert (code, errors) == (1, "")
    assert re.search(r"No pool up to 16384 is enough: the largest\s+fails drop_ratio <= 0\.", output)


def test_the_price_of_a_step_is_that_of_its_records(farm: Farm, tmp_path: Path) -> None:
    path, picture = tmp_path / "advice.toml", tmp_path / "advice.svg"
    path.write_text(WORKLOAD)
    arguments = ("advise", str(path), "--target", "recycle_ratio>=0.4", "--plot", str(picture))
    code, output, errors = farm(*arguments, "--json")
    assert (code, errors) == (0, "")
    [cell] = json.loads(output)["cells"]
    for step in cell["steps"]:
        assert step["ring_bytes"] == 4096 * step["pool_size"]
        assert step["worst"]["recycle_ratio"] == worst(step["pool_size"], "recycle_ratio")
    sizes = [step["pool_size"] for step in cell["steps"]]
    assert sizes == sorted(sizes)
    assert picture.read_text().startswith("<?xml")
    again = tmp_path / "again.svg"
    assert farm(*arguments[:-1], str(again))[0] == 0
    assert again.read_bytes() == picture.read_bytes()


def test_no_step_on_the_curve_is_beaten_in_both(farm: Farm) -> None:
    [found] = advice_for("recycle_ratio>=0.4")
    points = {(s.size, -s.worst["recycle_ratio"]) for s in found.steps}
    best = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert {(s.size, -s.worst["recycle_ratio"]) for s in found.pareto} == best


def test_of_several_cells_the_one_that_needs_least_memory_is_that_of_a_sweep_over_all() -> None:
    """RX ring and buffers as asked for: every combination at every size of a coarse grid, run here."""
    rings, models = (512, 256, 128), ("page-per-packet", "fragments")
    axes = (f"nic.rx_ring={','.join(map(str, rings))}", f"driver.model={','.join(models)}")
    found = advice_for(
        "recycle_ratio>=0.8", "drop_ratio<=0.45", overrides=(*axes, "traffic.packet_size=1500")
    )
    chosen = advise.best(found)
    assert chosen is not None
    assert chosen.chosen is not None
    priced = {}
    for ring, model in itertools.product(rings, models):
        for size in range(16, 512, 8):
            records = run(size, nic__rx_ring=ring, driver__model=model, traffic__packet_size=1500)
            if all(one["recycle_ratio"] >= 0.8 and one["drop_ratio"] <= 0.45 for one in records):
                posted = max(one["pages_in_rx_ring"] for one in records)
                priced[ring, model] = 4096 * (size + posted), size
                break
    best = min(priced, key=lambda key: priced[key])
    assert 1 < len(priced) < 6
    assert (chosen.cell["nic.rx_ring"], chosen.cell["driver.model"]) == best
    assert chosen.chosen.size == pytest.approx(priced[best][1], rel=advise.TOLERANCE, abs=8)


def test_a_trial_that_allocates_nothing_says_nothing_of_sizes(farm: Farm) -> None:
    code, output, errors = farm(
        "advise", "quickstart", "traffic.kind=constant", "traffic.rate_pps=10", "duration_ms=5", "seeds=1",
        "pool.recycle=true", "--target", "recycle_ratio>=0.5",
    )  # fmt: skip
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "no page was allocated in it" in errors


@pytest.mark.parametrize(
    ("targets", "overrides", "message"),
    [
        ((), (), "--target: none; name at least one"),
        (("recycle_ratio=1",), (), "write MEASURE<=NUMBER"),
        (("recycle<=1",), (), "no measure recycle; see farm fields --measures"),
        (("drop_ratio>=0.5",), (), "lower is better; turn the sign round"),
        (("drop_ratio<=0.5",), ("app.work_ns=-4",), "work_ns"),
    ],
)
def test_wrong_targets_are_one_line(
    targets: tuple[str, ...], overrides: tuple[str, ...], message: str, farm: Farm, tmp_path: Path
) -> None:
    path = tmp_path / "advice.toml"
    path.write_text(WORKLOAD)
    flags = [part for target in targets for part in ("--target", target)]
    code, output, errors = farm("advise", str(path), *overrides, *flags)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert message in errors


def test_a_size_in_an_include_is_refused() -> None:
    text = WORKLOAD + "[[include]]\npool.size = [32]\n"
    with pytest.raises(SweepError, match="take it out of the sweep's includes"):
        advise.advise(sweep.parse(text, "test"), [advise.target_of("drop_ratio<=1")])


def test_a_picture_is_refused_before_anything_is_run(farm: Farm, tmp_path: Path) -> None:
    for path in (tmp_path / "x.png", tmp_path / "no" / "x.svg"):
        code, _, errors = farm("advise", "quickstart", "--target", "drop_ratio<=1", "--plot", str(path))
        assert (code, errors.count("\n")) == (2, 1)
