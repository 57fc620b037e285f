"""What a test module finds in a process of its own, with other settings of numba."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def evaluate(module: str, expression: str, **environment: str) -> Any:
    """Value of an expression about a module of this project, through JSON; with these variables set."""
    package, _, name = module.rpartition(".")
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import json; from {package} import {name}; print(json.dumps({name}.{expression}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)
