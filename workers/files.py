"""Input files of a trial: which version of a file a name stands for, without reading it."""

import errno
import stat
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """A regular file as it was when looked at; equal stamps mean that a cached reading still holds."""

    path: Path
    inode: int
    size: int
    modified_ns: int


def stamp(path: Path) -> Stamp:
    """Look at a file.

    Raises:
        OSError: missing, out of reach, or no regular file; ``strerror`` says which.
    """
    try:
        status = path.stat()
    except ValueError:
        raise OSError(errno.EINVAL, "no valid file name") from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return Stamp(path, status.st_ino, status.st_size, status.st_mtime_ns)
