"""Bring a run here from a store that only the cluster reaches.

A small job on the head prints the run's files as text, the one thing that Ray's job server passes on.
Nothing in a store is rewritten, so a second fetch adds what has come since. Where the store is reached from
here, as an object store often is, no fetch is needed: every verb that reads takes its root as ``--store``.
"""

import base64
import binascii
import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from farm.errors import ExecutorError, StoreError
from farm.jobs.bundle import RUN_NAME
from farm.store.place import LocalPlace, Root, place_of

if TYPE_CHECKING:
    from farm.store.runs import Run

MOST_BYTES = 64 << 20
"""of a run's files; the head holds its text in memory while it passes it on"""

PRINT_SECONDS = 300.0
"""for a head that is slow to start the job"""

_BEGIN = "farm-run-begin"
_END = "farm-run-end "
_LINE_BYTES = 48 << 10

_MEMBER = re.compile(r"sweep\.toml|(inputs|manifests|attempts|failures|records)/[0-9A-Za-z][0-9A-Za-z._-]*")
_ORDER = ("sweep.toml", "inputs", "manifests", "attempts", "failures", "records")
"""what is needed to read a file comes before it, as the store writes them"""


def printed(run: "Run") -> Iterator[str]:
    """The files of a run as lines of text.

    Raises:
        StoreError: they are too large for that.
    """
    sizes = {file.name: file.size for file in run.place.walk() if _MEMBER.fullmatch(file.name)}
    size = sum(sizes.values())
    if size > MOST_BYTES:
        raise StoreError(
            f"run {run.name}: {size >> 20} MiB, more than the {MOST_BYTES >> 20} that a job can hand over; "
            f"copy {run.place} from the store itself"
        )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in sorted(sizes, key=lambda name: (_ORDER.index(name.partition("/")[0]), name)):
            content = run.place.read(name)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    yield from as_lines(packed.getvalue())


def as_lines(content: bytes) -> Iterator[str]:
    """Bytes as lines of text that tell where they begin and end, and whether they are whole."""
    yield _BEGIN
    for start in range(0, len(content), _LINE_BYTES):
        yield base64.b64encode(content[start : start + _LINE_BYTES]).decode()
    yield _END + hashlib.sha256(content).hexdigest()


def local_root(root: Root) -> Path:
    """The root of a store on this machine.

    Raises:
        StoreError: it is elsewhere: the cluster can write there itself.
    """
    place = place_of(root)
    if not isinstance(place, LocalPlace):
        raise StoreError(f"store {str(place)!r}: fetch brings runs to a directory of this machine; name one")
    return place.path


def unprinted(log: str) -> dict[str, bytes]:
    """The files of a run by name, from what a job printed, in the order in which they are to be written.

    Raises:
        ExecutorError: the text is damaged, or names files that no run has.
    """
    lines = log.splitlines()
    try:
        begin = lines.index(_BEGIN)
        end = next(i for i in range(begin, len(lines)) if lines[i].startswith(_END))
        content = b"".join(base64.b64decode(line, validate=True) for line in lines[begin + 1 : end])
    except (ValueError, StopIteration, binascii.Error):
        raise ExecutorError("fetch: what the head printed is not a whole run; fetch again") from None
    if hashlib.sha256(content).hexdigest() != lines[end].removeprefix(_END):
        raise ExecutorError("fetch: the run was damaged on its way; fetch again")
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            if not member.isfile() or not _MEMBER.fullmatch(member.name):
                raise ExecutorError(f"fetch: {member.name!r} is no file of a run; nothing was written")
            file = archive.extractfile(member)
            files[member.name] = file.read() if file else b""
    return files


def written(files: dict[str, bytes], root: Path, sweep: str, name: str) -> int:
    """Put the files of a run into a local store; those that are there stay.

    Returns:
        How many were new.

    Raises:
        StoreError: the store cannot be written, or holds another run of that name.
    """
    if not RUN_NAME.fullmatch(sweep) or not RUN_NAME.fullmatch(name):
        raise StoreError(f"run {sweep}/{name}: not the name of a run; nothing was written")
    final = root / sweep / name
    try:
        new = {}
        for file, content in files.items():
            path = final / file
            if not path.exists():
                new[file] = content
            elif path.read_bytes() != content:
                raise StoreError(f"{path}: is there and differs from the run's; fetch into another --store")
        # a new run appears complete or not at all
        place = final if final.exists() else final.with_name(f".{name}")
        for kind in _ORDER[1:]:
            (place / kind).mkdir(parents=True, exist_ok=True)
        for file, content in new.items():
            path = place / file
            aside = path.with_name(f".{path.name}")
            aside.write_bytes(content)
            aside.rename(path)
        if place != final:
            place.rename(final)
    except OSError as error:
        reason = f"{error.strerror or error} ({error.filename})"
        raise StoreError(f"store {str(root)!r}: {reason}; name a writable directory") from None
    return len(new)
