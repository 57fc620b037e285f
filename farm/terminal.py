"""Standard output for results, standard error for everything else."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_stdout() -> Iterator[None]:
    """Send what anyone prints inside to standard error, on the level of file descriptors: Ray's
    processes inherit them, and results must stay readable by a program."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, as a cluster's job server sends it, is Ctrl-C. Comes after Ray, which sets a handler too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_json(value: object) -> None:
    """Print a result for a program: one JSON document, keys sorted."""
    print(json.dumps(value, indent=1, sort_keys=True))


def say(message: str) -> None:
    """One line on standard error."""
    print(f"farm: {message}", file=sys.stderr, flush=True)
