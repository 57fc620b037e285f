"""What the benchmark counts."""

import json
import subprocess
import sys

import pytest

from farm.bench import sweep as bench_sweep

ORPHAN = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
until, ended = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        while time.process_time() < 1:
            pass
    os._exit(0)
os.close(ended)
os.read(until, 1)
"""


def test_cpu_time_of_orphans_in_other_sessions_is_counted() -> None:
    """As Ray's workers are: not waited for by the process that started the sweep."""
    script = "import sys; from farm.bench.cpu import supervise; supervise(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", script, sys.executable, "-c", ORPHAN],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sum(json.loads(done.stdout).values()) > 0.8


def test_the_driver_of_many_trials_is_measured_with_real_rows(capfd: pytest.CaptureFixture[str]) -> None:
    """What is yielded is made up; the run it makes is whole."""
    bench_sweep.drive(4000)
    found = json.loads(capfd.readouterr().out)
    assert found["trials"] == 4000
    assert 4000 / 100 <= found["batches"] < 4000 / 5
    assert found["cpu_us_per_trial"] > 0
    assert found["most_bytes"] > 100e6


def test_the_parts_of_a_share_add_up() -> None:
    processes = {"driver": 3.0, "workers": 100.0, "raylet": 2.0}
    share = bench_sweep.Share(1000, 0.08, 80.0, processes)
    assert share.share == 80 / 105
    explained = bench_sweep.explained(share)
    assert sum(explained.values()) == pytest.approx(105 - 80)
    assert explained["workers: start, loading the event loop, trial ids, rows"] == 20
    alone = bench_sweep.Share(1000, 0.08, 80.0, {"driver": 90.0})
    assert sum(bench_sweep.explained(alone).values()) == pytest.approx(10)
