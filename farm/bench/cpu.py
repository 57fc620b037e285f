"""CPU seconds of a command and of all processes that come of it, by what they are."""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import psutil

from farm.errors import FarmError

SET_CHILD_SUBREAPER = 36
"""prctl: orphans below a process become its children"""

SAMPLE_SECONDS = 0.05
"""a process's CPU time is missed from its last sample to its end"""

DRIVER, WORKERS, RAYLET, HEAD, AGENTS = "driver", "workers", "raylet", "head's server", "Ray's agents"


def cpu_seconds(command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """Run a command to its end.

    Returns:
        CPU seconds by kind of process.

    Raises:
        FarmError: it failed.
    """
    # a small supervisor adopts what Ray leaves behind, and reports what all of it used
    supervisor = "import sys; from farm.bench.cpu import supervise; supervise(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", supervisor, *command],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    expect_success(done.returncode, done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def supervise(command: list[str]) -> None:
    """Run a command and print the CPU seconds of all processes below it, whoever started them, as JSON.

    They are sampled: Ray's daemons ignore the ends of their children, whose time is then in nobody's sum.
    """
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    used: dict[tuple[int, float], tuple[str, float]] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = child.cpu_times()
                    key = child.pid, child.create_time()
                    # one that ends has no command line any more
                    known, _ = used.get(key, (AGENTS, 0.0))
                    kind = DRIVER if child.pid == process.pid else _kind(child.cmdline(), known)
                    used[key] = (kind, times.user + times.system)
            time.sleep(SAMPLE_SECONDS)
    found: Counter[str] = Counter()
    for kind, seconds in used.values():
        found[kind] += seconds  # type: ignore[assignment]
    print(json.dumps(found))
    sys.exit(process.returncode)


def expect_success(code: int, errors: str) -> None:
    """Raise :class:`FarmError` with the last line of its errors for a command that failed."""
    if code != 0:
        last = errors.strip().splitlines()[-1:] or ["no message"]
        raise FarmError(f"bench: farm run ended with exit code {code}: {last[0]}")


def _kind(command: Sequence[str], known: str) -> str:
    if not command:
        return known
    first = command[0]
    if first.startswith("ray::") and first.split()[0].endswith("Agent"):
        return AGENTS
    if first.startswith("ray::") or any(word.endswith("default_worker.py") for word in command):
        return WORKERS
    if first.endswith("/raylet"):
        return RAYLET
    return HEAD if first.endswith("/gcs_server") else AGENTS
