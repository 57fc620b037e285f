"""The driver of a cluster's sweep as a child process, so that its death can be told in words.

Ray ends a driver that has lost the cluster's head: without an exception, with pages of its own on standard
error. The process that the user started stays outside of all that.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from farm.errors import FarmError
from farm.store.place import place_of
from farm.store.runs import Run

DRIVER = "FARM_DRIVER_REPORTS_TO"
"""environment of a driver that has a supervisor: the file descriptor to which it writes its run's path"""

SET_PARENT_DEATH_SIGNAL = 1
"""prctl"""

KNOWN_CODES = (0, 2, 3, 4, 5, 130)
"""with which the driver ends of its own accord, having said why"""


def supervised() -> bool:
    """Whether this process is a driver that has a supervisor."""
    return DRIVER in os.environ


def supervise(arguments: Sequence[str], address: str) -> int | None:
    """Run ``farm`` with these arguments in a process of its own; Ctrl-C and SIGTERM reach it.

    Returns:
        Its exit code; None if it was ended, which has been said then.
    """
    from farm.terminal import say

    reports, write = os.pipe()
    with tempfile.TemporaryFile() as noise:
        # what Ray's own code writes to standard error, see `in_driver`
        environment = {**os.environ, DRIVER: f"{write},{noise.fileno()}"}
        command = [sys.executable, "-m", "farm.cli", *arguments]
        child = subprocess.Popen(command, env=environment, pass_fds=(write, noise.fileno()))
        os.close(write)
        with _forwarded(child):
            code = child.wait()
    with os.fdopen(reports) as file:
        path = file.read().strip()
    if code in KNOWN_CODES:
        return code
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    say(f"the driver was ended ({how}{_lost_head(address)}); {_what_is_left(path, address)}")
    return None


@contextlib.contextmanager
def in_driver() -> Iterator[None]:
    """In the driver, around its work: messages go where they went, what Ray's own code prints does not."""
    reports, noise = map(int, os.environ.pop(DRIVER).split(","))
    _end_with_parent()
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(noise, 2)
    before, sys.stderr = sys.stderr, os.fdopen(kept, "w", buffering=1)
    global _reports
    _reports = reports
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        sys.stderr = before


_reports: int | None = None


def report(run: Run) -> None:
    """Tell the supervisor, if there is one, which run this is."""
    if _reports is not None:
        os.write(_reports, f"{run.place}\n".encode())


def _end_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        # it died in between
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _forwarded(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    """A terminal sends Ctrl-C to both; who sends SIGTERM knows this process only."""
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    terminate = signal.signal(signal.SIGTERM, lambda _number, _frame: child.terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)


def _lost_head(address: str) -> str:
    """Whether that was the reason."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdecimal():
        return ""
    try:
        socket.create_connection((host, int(port)), timeout=2.0).close()
    except OSError:
        return f": the head of the cluster at {address} no longer answers"
    return ""


def _what_is_left(path: str, address: str) -> str:
    if not path:
        return "it had not started a run; run it again"
    run = Run(place_of(path))
    try:
        stored = f"{sum(run.counts())} trials are stored in {path}"
    except FarmError as error:
        stored = f"what is stored in {path} cannot be read now ({error})"
    return f"{stored}; go on with: farm run --resume {path} --address {address}"
