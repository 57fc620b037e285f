"""Files of a remote store on this machine: whatever reads a run reads local files.

What a store holds never changes, so a copy is good for ever. Copies lie in the user's cache directory,
a directory for each place; one that nobody used for a month is removed.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from farm.store.patience import patiently
from farm.store.place import LocalPlace, Place, write_new

FETCHING_THREADS = 8
"""a fetch mostly waits for the network"""

UNUSED_DAYS = 30


def local_copies(place: Place, names: Sequence[str], patience_seconds: float = 0.0) -> Path:
    """A directory of this machine that holds these files of a place, under their names.

    Arguments:
        patience_seconds: for each file, see :func:`farm.store.patience.patiently`.

    Raises:
        OSError: a file cannot be fetched, or not be kept here.
    """
    if isinstance(place, LocalPlace):
        return place.path
    copies = _copies()
    directory = copies / hashlib.sha256(str(place).encode()).hexdigest()[:24]
    if not directory.exists():
        directory.mkdir(parents=True, exist_ok=True)
        _remove_unused(copies)
    os.utime(directory)
    there = set(os.listdir(directory))

    def fetch(name: str) -> None:
        write_new(directory / name, patiently(lambda: place.read(name), patience_seconds))

    with ThreadPoolExecutor(FETCHING_THREADS) as threads:
        # taken one by one, so that the first refusal is raised
        for _ in threads.map(fetch, [name for name in names if name not in there]):
            pass
    return directory


def _copies() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("page-pool-farm")) / "store"


def _remove_unused(copies: Path) -> None:
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for directory in copies.iterdir():
        if directory.stat().st_mtime < oldest:
            shutil.rmtree(directory, ignore_errors=True)
