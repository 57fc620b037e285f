"""Where tests are spread over processes: what takes longest comes first, and the event loop is compiled
before, not in each of them."""

import subprocess
import sys

import pytest

LONGEST = ("test_pinned.py", "test_variants.py")
"""files that compile the event loop for themselves"""


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        return
    compilers = [
        subprocess.Popen([sys.executable, "-c", f"from workers import prepare; prepare(nodes={nodes})"])
        for nodes in (1, 2)
    ]
    for compiler in compilers:
        compiler.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)
