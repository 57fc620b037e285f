"""What README says is so."""

import re
from pathlib import Path

import pytest

from farm import sweep
from farm.plan import Plan
from workers import run_trial
from workers.config import TrialConfig

README = (Path(__file__).parents[2] / "README.md").read_text()

ARCHITECTURES = {"Xeon E5": "broadwell-ep", "Armada 8040": "armada-8040", "Armada 3720": "armada-3720"}


def test_the_example_sweep_is_accepted() -> None:
    [example] = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    plan = Plan(sweep.parse(example, "README.md"))
    assert (plan.cells, plan.trials) == (2 * 4 * 2, 2 * 4 * 2 * 3)


def test_the_python_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = re.findall(r"```python\n(from pool_impl.*?)```", README, flags=re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", example)


ROWS = re.findall(
    r"^ *\| (Xeon|Armada)(.*?) \| (on|off) \| (\d+) \| \**(\d+)\** \|$", README, flags=re.MULTILINE
)


def test_the_table_of_published_results_was_found() -> None:
    assert len(ROWS) == 5


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "".join(row[:3]).strip())
def test_the_simulated_figures_are_those_of_the_model(row: tuple[str, ...]) -> None:
    machine = row[0] + row[1]
    [arch] = [arch for start, arch in ARCHITECTURES.items() if machine.startswith(start)]
    config = TrialConfig.from_fields(
        {
            "arch": arch,
            "traffic.kind": "saturation",
            "pool.recycle": row[2] == "on",
            "driver.model": "replace-before-pass" if "mvpp2" in machine else "page-per-packet",
            "duration_ms": 50,
        }
    )
    assert round(run_trial(config)["busy_ns_per_packet"]) == int(row[4])
