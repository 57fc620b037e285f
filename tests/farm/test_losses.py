"""What is done about batches that do not come back, and about trials that do not end."""

import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.execution.watchdog import Watchdog
from farm.ray.losses import MOST_DEATHS_ALONE, MOST_NODES, Loss, Sent


@given(
    st.integers(1, 200), st.sets(st.integers(0, 199), max_size=3), st.sampled_from([Loss.WORKER, Loss.MEMORY])
)
def test_splitting_finds_exactly_the_deadly_trials(count: int, deadly: set[int], loss: Loss) -> None:
    """Workers die of these trials and of nothing else."""
    waiting = deque([Sent(range(count))])
    came_back: list[int] = []
    found: list[int] = []
    deaths = 0
    while waiting:
        sent = waiting.popleft()
        if deadly.isdisjoint(sent.numbers):
            came_back += sent.numbers
            continue
        deaths += 1
        remaining = sent.after(loss)
        waiting.extend(remaining)
        if not remaining:
            found += sent.numbers
    assert sorted(found) == sorted(deadly & set(range(count)))
    assert sorted(came_back) == sorted(set(range(count)) - deadly)
    # halving: no more than a death for each level and trial, and those alone
    assert deaths <= len(found) * (count.bit_length() + MOST_DEATHS_ALONE)


def test_a_lost_node_is_no_fault_of_its_trials() -> None:
    sent = Sent(range(8))
    for lost in range(MOST_NODES):
        [sent] = sent.after(Loss.NODE)
        assert (sent.numbers, sent.retries, sent.deaths_alone) == (range(8), lost + 1, 0)
    assert [half.numbers for half in sent.after(Loss.NODE)] == [range(4), range(4, 8)]


def test_a_trial_that_is_known_is_taken_out() -> None:
    assert [part.numbers for part in Sent(range(8)).without(5)] == [range(5), range(6, 8)]
    assert [part.numbers for part in Sent(range(8)).without(0)] == [range(1, 8)]
    assert Sent(range(5, 6)).without(5) == []


def test_a_trial_that_does_not_stop_is_given_up_and_one_that_ends_is_not() -> None:
    given_up: list[int] = []
    told = threading.Event()

    def give_up(number: int) -> None:
        given_up.append(number)
        told.set()

    before = threading.active_count()
    with Watchdog(0.1, give_up, grace_seconds=0.1) as watchdog:
        with watchdog.watching(1) as stopper:
            assert not stopper.asked
        with watchdog.watching(2) as stopper:
            assert told.wait(30)
            assert stopper.asked
    assert given_up == [2]
    while threading.active_count() > before:
        pass


COMPILE = """
import os, sys, time
import workers
from farm.execution import code_cache
from workers.fields.derived import Loop

def prepare(*_):
    with open(sys.argv[1], "a") as log:
        log.write(f"{os.getpid()} begins\\n")
        log.flush()
        time.sleep(0.5)
        log.write(f"{os.getpid()} ends\\n")

workers.prepare = prepare
print(code_cache.prepare(Loop()) > 0, code_cache.prepare(Loop()))
"""


def test_one_process_of_a_machine_compiles_and_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log = tmp_path / "log"
    command = [sys.executable, "-c", COMPILE, str(log)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.communicate()[0] == "True 0.0\n"
    lines = log.read_text().splitlines()
    compiler = lines[0].split()[0]
    assert lines[:2] == [f"{compiler} begins", f"{compiler} ends"]
    # then each loads, all at the same time
    assert sorted(line.split()[0] for line in lines[2:] if line.endswith("begins")) == sorted(
        str(process.pid) for process in processes
    )
