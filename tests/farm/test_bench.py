"""What the benchmark counts."""

import json
import subprocess
import sys

ORPHAN = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if os.fork() == 0 and os.fork() == 0:
    os.setsid()
    while time.process_time() < 1:
        pass
    os._exit(0)
time.sleep(2)
"""


def test_cpu_time_of_orphans_in_other_sessions_is_counted() -> None:
    """As Ray's workers are: not waited for by the process that started the sweep."""
    script = "import sys; from farm.bench_cpu import supervise; supervise(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", script, sys.executable, "-c", ORPHAN],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sum(json.loads(done.stdout).values()) > 0.8
