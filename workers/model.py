"""The identity of the model: a hash of the sources that decide what a trial comes out at."""

from pathlib import Path

from pool_impl.jit import source_digest

_WORKERS = Path(__file__).parent

_PARTS = ("arrivals", "books", "device", "drivers", "fields", "loop", "net", "pricing", "profiles", "rules")
"""all packages of workers but ``host``, which measures this machine and has a digest of its own"""

MODEL_DIGEST = source_digest(_WORKERS, *(_WORKERS / part for part in _PARTS), _WORKERS.parent / "pool_impl")


def model_digest() -> str:
    """Hash of the sources of pool_impl and workers; names the code cache, and is part of trial ids."""
    return MODEL_DIGEST
