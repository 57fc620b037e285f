"""Where tests are spread over processes, the event loop is compiled before, not in each of them."""

import subprocess
import sys

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        return
    compilers = [
        subprocess.Popen([sys.executable, "-c", f"from workers import prepare; prepare(nodes={nodes})"])
        for nodes in (1, 2)
    ]
    for compiler in compilers:
        compiler.wait()
