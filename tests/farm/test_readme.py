"""What README says is so."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from farm import sweep
from farm.plan import Plan

Farm = Callable[..., tuple[int, str, str]]

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_example_sweep_is_accepted() -> None:
    [example] = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    plan = Plan(sweep.parse(example, "README.md"))
    assert (plan.cells, plan.trials) == (2 * 4 * 2, 2 * 4 * 2 * 3)


def test_the_python_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = re.findall(r"```python\n(from pool_impl.*?)```", README, flags=re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", example)


def test_the_table_of_predictions_is_what_the_command_prints(
    farm: Callable[..., tuple[int, str, str]],
) -> None:
    _, out, _ = farm("validate")
    printed = [row.rstrip() for row in out.splitlines() if " predicted " in row and "not scored" not in row]
    [table] = re.findall(r"```\n((?:.* predicted .*\n)+)```", README)
    assert table.splitlines() == printed
    text = " ".join(out.split())
    [score] = re.findall(
        r"^(\d+ of \d+) predicted.* (\d+ of \d+) signs.* (\d+) free", README, flags=re.MULTILINE
    )
    for said, number in zip(("in their band:", "sign right:", "Free constants:"), score, strict=True):
        assert f"{said} {number}" in text
