"""Walls of the house that neither the import contracts nor the linter see."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("farm", "workers", "pool_impl", "dashboards")

WRITING = {"write_text", "write_bytes", "mkdir", "unlink", "rename"}


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            function = node.func
            yield function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", ""), node


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_release_numbers_stand_in_release_only(path: Path) -> None:
    if (path.parent.name, path.stem) == ("pool_impl", "release"):
        return
    strings = [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 16
    ]
    assert [text for text in strings if re.fullmatch(r"v?[4-7]\.\d{1,2}(\.\d+)?", text)] == []


@pytest.mark.parametrize(
    "path", sources("workers", "pool_impl"), ids=lambda path: f"{path.parent.name}.{path.stem}"
)
def test_below_the_farm_nothing_is_written(path: Path) -> None:
    for name, call in calls(path):
        assert name not in WRITING, f"line {call.lineno}"
        if name == "open":
            modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            assert not any(set(mode) & set("wax+") for mode in modes if len(mode) < 4), f"line {call.lineno}"


@pytest.mark.parametrize("path", sources("pool_impl"), ids=lambda path: path.stem)
def test_the_allocator_knows_no_prices(path: Path) -> None:
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    assert [name for name in names if name.endswith(("_ns", "_ps", "_cycles"))] == []


def test_only_one_host_module_and_the_farm_look_at_a_clock() -> None:
    clocks = {"time", "perf_counter", "perf_counter_ns", "monotonic", "process_time", "time_ns", "now"}
    found = {
        f"{path.parent.name}.{path.stem}"
        for path in sources("workers", "pool_impl", "dashboards")
        for name, _ in calls(path)
        if name in clocks
    }
    # the pictures' script waits for servers that it starts; it is no part of the package
    assert found == {"host.clock", "pictures.draw"}
