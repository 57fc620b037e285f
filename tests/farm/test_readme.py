"""What README says is so."""

import glob
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from farm import sweep
from farm.plan import Plan
from tests.farm.test_doctor import ethtool_of_hns3

Farm = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_example_sweep_is_accepted() -> None:
    [example] = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    plan = Plan(sweep.parse(example, "README.md"))
    assert (plan.cells, plan.trials) == (2 * 4 * 2, 2 * 4 * 2 * 3)


def test_the_python_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "pool_impl" / "README.md").read_text()
    [example] = re.findall(r"```python\n(from pool_impl.*?)```", text, flags=re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", example)


def test_each_worked_decision_is_what_its_commands_print(
    farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line by line; ``...`` stands for lines left out, and a run's own output is not shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    (tmp_path / "ethtool.txt").write_text(ethtool_of_hns3(0))
    verbs = []
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL):
        for typed in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = typed.partition("\n")
            command, shows_code, _ = line.partition("; echo $?")
            words = [place for word in shlex.split(command)[1:] for place in glob.glob(word) or [word]]
            if words[0] == "run":
                words += ["--executor", "serial"]
            code, printed, errors = farm(*words)
            if shows_code:
                printed += f"{code}\n"
            verbs.append((words[0], code))
            if words[0] != "run":
                assert errors == ""
                assert re.fullmatch(pattern(shown), trimmed(printed)), printed
    assert verbs == [("run", 0), ("compare", 0), ("run", 0), ("gate", 1), ("advise", 0), ("doctor", 0)]


def trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def pattern(shown: str) -> str:
    """Lines as they stand, but for those that are only dots."""
    lines = (r"(?:.*\n)*?.*" if line == "..." else re.escape(line) for line in trimmed(shown).splitlines())
    return "\n".join(lines)


def test_the_score_is_what_the_command_prints(farm: Farm) -> None:
    _, out, _ = farm("validate")
    rows = [row.split() for row in out.splitlines() if " predicted " in row]
    outside = {row[0] for row in rows if row[-3:] == ["out", "of", "band"] or row[-2:] == ["sign", "wrong"]}
    [said] = re.findall(r"Outside: (.*?); workers", README, flags=re.DOTALL)
    named = {entry.split()[0]: " ".join(entry.split()[1:]) for entry in " ".join(said.split()).split(", ")}
    assert named.keys() == outside
    numbers = {row[0]: row[3:] for row in rows}
    for name, words in named.items():
        model, _, published = words.partition(" for ")
        value = model.removesuffix("x").removesuffix("%").removesuffix(" ns")
        assert value in numbers[name], name
        assert published.removesuffix("x").removesuffix("%") in numbers[name][0], name
    text = " ".join(out.split())
    [score] = re.findall(r"(\d+ of \d+) predicted.* (\d+ of \d+) signs", README)
    [free] = re.findall(r"with (\d+) free constants", README)
    for label, number in zip(
        ("in their band:", "sign right:", "Free constants:"), (*score, free), strict=True
    ):
        assert f"{label} {number}" in text
