"""Compiled code on this machine: one process compiles an event loop, the others wait and load it."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
from llvmlite import binding

from workers.fields.derived import Loop

_prepared: set[Loop] = set()
"""event loops that this process has"""


def prepare(loop: Loop) -> float:
    """Get an event loop ready for this process.

    Returns:
        Seconds that took: compiling, or waiting for the process that compiles, and loading; 0 if this
        process has the loop already.
    """
    if loop in _prepared:
        return 0.0
    import workers
    from workers import variants

    started = time.perf_counter()
    mark = _mark(loop, variants.load(loop.variant).code)
    if not mark.exists():
        with _alone(mark):
            if not mark.exists():
                workers.prepare(*loop)
                with contextlib.suppress(OSError):
                    mark.touch()
    # from the cache, at the same time as others; nothing more to do in the process that has compiled
    workers.prepare(*loop)
    _prepared.add(loop)
    return time.perf_counter() - started


def _mark(loop: Loop, code: str) -> Path:
    """A file that says that the loop is in the cache, beside its code: it goes when that is deleted."""
    import workers
    from pool_impl.jit import code_cache

    kind = f"{loop.nodes}-{int(loop.layers)}-{binding.get_host_cpu_name()}"
    digest = workers.model_digest() + (f"-{code}" if code else "")
    return code_cache() / digest / f"{kind}.compiled"


@contextlib.contextmanager
def _alone(mark: Path) -> Iterator[None]:
    """The only process of this machine that compiles; a process that dies gives up its place. Where nothing
    can be written, each compiles for itself."""
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(mark.with_suffix(".lock"))
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()
