"""Recordings of a real kernel: one JSON header line, then one line for each operation with its arguments
and the state after it. Files end in ``.jsonl`` or ``.jsonl.gz``."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pool_impl.errors import RecordingError

SUFFIXES = (".jsonl", ".jsonl.gz")


class Operation(NamedTuple):
    """One recorded operation."""

    number: int
    """from 1"""
    name: str
    context: str
    """softirq, bh or process"""
    arguments: dict[str, Any]
    state: dict[str, Any]
    """what the kernel's state was afterwards"""


class Recording(NamedTuple):
    """One trace."""

    path: Path
    name: str
    kernel: str
    """version, as uname prints it"""
    pools: int
    operations: tuple[Operation, ...]


def find(paths: Iterable[Path]) -> list[Path]:
    """The recordings among these files and in these directories, sorted within each directory.

    Raises:
        RecordingError: a path does not exist, or no recording was found.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES))
        elif path.exists():
            found.append(path)
        else:
            raise RecordingError(f"{path}: no such file or directory; name recordings or a folder of them")
    if not found:
        raise RecordingError("no recording found; files end in .jsonl or .jsonl.gz")
    return found


def read(path: Path) -> Recording:
    """Read a recording.

    Raises:
        RecordingError: naming file and line, when the file is truncated or not of this format.
    """
    lines = _lines(path)
    header = next(lines, None)
    if header is None:
        raise RecordingError(f"{path}:1: empty; a recording starts with a header line")
    try:
        name, kernel = str(header["name"]), str(header["kernel"])
        pools, count = int(header["pools"]), int(header["ops"])
    except (KeyError, TypeError, ValueError):
        raise RecordingError(f"{path}:1: header lacks name, kernel, pools or ops") from None
    operations = []
    for number, line in enumerate(lines, start=1):
        if not {"op", "ctx", "state"} <= line.keys():
            raise RecordingError(f"{path}:{number + 1}: an operation needs op, ctx and state")
        arguments = {key: value for key, value in line.items() if key not in ("op", "ctx", "state")}
        operations.append(Operation(number, line["op"], line["ctx"], arguments, line["state"]))
    if len(operations) != count:
        raise RecordingError(
            f"{path}:{len(operations) + 2}: header announces {count} operations, found {len(operations)}; "
            "the file is truncated or was extended"
        )
    return Recording(path, name, kernel, pools, tuple(operations))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    number = 1
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as stream:
            for number, text in enumerate(stream, start=1):
                line = json.loads(text)
                if not isinstance(line, dict):
                    raise RecordingError(f"{path}:{number}: not a JSON object")
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise RecordingError(f"{path}:{number}: cannot be read: {error}") from None
    except ValueError:
        raise RecordingError(f"{path}:{number}: not JSON; the line is cut off or damaged") from None
