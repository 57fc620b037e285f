"""Sweeps over the pool's variants: the shipped ones and a user's file, on Ray, and after the file changed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.execution import driver
from farm.execution.execute import SerialExecutor
from farm.execution.progress import Progress
from farm.plan import Plan
from farm.ray.executor import RayExecutor
from farm.store import runs as store
from farm.store.runs import Run
from farm.sweep import parse

Farm = Callable[..., tuple[int, str, str]]

MINE = """
from pool_impl.variant import pool_variant

@pool_variant
class Tiny:
    \"\"\"A cache of eight pages.\"\"\"

    def cache_limit(self, host, pool):
        return 8
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def sweep(mine: Path) -> str:
    return f"""
name = "variants"
[fixed]
kernel = "6.12"
duration_ms = 20
traffic.kind = "bursts"
traffic.rate_pps = 300_000
app.reader = "slow"
app.socket_bytes = 4_194_304
pool.size = 16
[grid]
pool.variant = ["kernel", "ring_capped", "local_only", "{mine}:Tiny"]
"""


def by_variant(run: Run) -> dict[str, dict[str, float]]:
    return {str(row["pool.variant"]).partition(":")[0].rpartition("/")[2]: row for row in run.read_records()}  # type: ignore[misc]


def test_a_sweep_over_variants_on_ray(
    tmp_path: Path, sweep: str, ray_executor: RayExecutor, runner: Callable[..., Run]
) -> None:
    """What each of them must do; the same bytes in process."""
    run = runner(tmp_path / "runs", sweep, ray_executor)
    assert run.failures() == []
    found = by_variant(run)
    assert sorted(found) == ["kernel", "local_only", "mine.py", "ring_capped"]
    assert found["mine.py"]["pages_in_cache"] <= 8
    assert found["ring_capped"]["pages_in_cache"] < found["kernel"]["pages_in_cache"]
    assert found["local_only"]["recycle_ring"] == 0 < found["local_only"]["returns_declined"]
    assert found["local_only"]["dma_maps"] > found["kernel"]["dma_maps"]
    assert found["mine.py"]["alloc_refill"] > found["kernel"]["alloc_refill"]
    serial = runner(tmp_path / "runs", sweep, SerialExecutor())
    assert serial.canonical_records() == run.canonical_records()


def test_a_run_goes_on_with_the_variant_that_it_started_with(
    tmp_path: Path, sweep: str, mine: Path, finisher: Callable[..., Progress]
) -> None:
    """The run holds the file; who edits or removes it afterwards does not change the run."""
    plan = Plan(parse(sweep, "test"))
    ids = [plan.trial_id(number) for number in range(plan.trials)]
    started = driver.start(plan, tmp_path / "runs", "serial")
    mine.write_text(MINE.replace("8", "9"))
    changed = [plan.trial_id(number) for number in range(plan.trials)]
    assert [a == b for a, b in zip(ids, changed, strict=True)] == [True, True, True, False]
    mine.unlink()
    plan, resumed = driver.resume(started.run, None, "serial")
    finisher(plan, resumed, SerialExecutor())
    assert sorted(row["trial_id"] for row in started.run.read_records()) == sorted(ids)
    assert started.run.failures() == []
    assert driver.resume(started.run, None, "serial")[1].done.all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def x(:", "line 1: SyntaxError"),
        (MINE.replace("return 8", "return pool.nothing"), "cache_limit cannot be compiled"),
        (MINE.replace("return 8", "return 8000"), "let it return 1..512"),
        (None, "No such file or directory"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_bad_input_is_one_line_and_leaves_nothing(
    farm: Farm, tmp_path: Path, sweep: str, mine: Path, verb: str, text: str | None, says: str
) -> None:
    if text is None:
        mine.unlink()
    else:
        mine.write_text(text)
    path = tmp_path / "sweep.toml"
    path.write_text(sweep)
    code, out, err = farm(verb, str(path))
    assert (code, out) == (2, "")
    assert err.startswith("farm: pool.variant = ")
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_variant_is_named_on_the_command_line(
    farm: Farm, small_file: str, mine: Path, tmp_path: Path
) -> None:
    fixed = ["pool.size=16", "pool.recycle=true", "arch=armada-3720", "seeds=1", "traffic.kind=constant"]
    code, out, err = farm(
        "run", small_file, *fixed, f"pool.variant=kernel,{mine}:Tiny", "--executor", "serial", "--json"
    )
    assert code == 0, err
    cells = json.loads(out)["cells"]
    assert [cell["fields"]["pool.variant"] for cell in cells] == ["kernel", f"{mine}:Tiny"]
    slow = [cell["median"]["alloc_refill"] + cell["median"]["alloc_slow"] for cell in cells]
    assert slow[1] > slow[0]
    [run] = store.runs(tmp_path / "runs")
    assert MINE.encode() in [path.read_bytes() for path in run.inputs_directory.iterdir()]
