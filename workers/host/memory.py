"""Memory to measure on: in huge pages where the kernel gives them, and orders in which to walk through it."""

import contextlib
import mmap
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pool_impl.jit import compiled, entry
from pool_impl.layout import Table, records, words
from workers.arrivals.traffic import below
from workers.host.digest import HOST_DIGEST

HUGE_PAGE_BYTES = 2 << 20

DRAWS = np.dtype([("draws", "<i8"), ("key", "<i8")])


class Region(NamedTuple):
    """Zeroed memory of its own, touched."""

    table: Any
    """64-bit words"""
    huge_ratio: float
    """share of it in huge pages"""
    pages: mmap.mmap
    """the mapping behind it"""


def region(size_bytes: int) -> Region:
    """Map memory, ask for huge pages, and touch all of it.

    The kernel reaches packets and its own objects through a map of huge pages, so this has about as few TLB
    misses as that.
    """
    size = -(-size_bytes // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    pages = mmap.mmap(-1, size + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them: small pages will do
            pages.madvise(mmap.MADV_HUGEPAGE)
    raw = np.frombuffer(pages, np.uint8)
    start = -raw.ctypes.data % HUGE_PAGE_BYTES
    before = _huge_bytes()
    raw[start : start + size] = 0
    gained = _huge_bytes() - before
    return Region(
        raw[start : start + size].view(np.int64).view(Table), min(1.0, max(0, gained) / size), pages
    )


def _huge_bytes() -> int:
    """Of this process, in huge pages."""
    try:
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^AnonHugePages:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def lay_cycle(table: Any, lines: int, line_words: int) -> None:
    """Let the first word of each line name that of the next, in a random order that comes back to the first
    line only after all others: no prefetcher can guess it, and no line is visited twice before.

    Args:
        table: words, at least ``lines * line_words``.
    """
    order = words(lines)
    _shuffle(order, lines, records(DRAWS, 1)[0])
    _link(table, order, lines, line_words)


def random_order(lines: int, line_words: int) -> Any:
    """The first words of that many lines in a random order, each once."""
    order = words(lines)
    _shuffle(order, lines, records(DRAWS, 1)[0])
    order *= line_words
    return order


@entry(HOST_DIGEST)
def _shuffle(order: Any, lines: int, draws: Any) -> None:
    for position in range(lines):
        order[position] = position
    for position in range(lines - 1, 0, -1):
        _swap(order, position, below(draws, position + 1))


@compiled()
def _swap(order: Any, one: int, other: int) -> None:
    kept = order[one]
    order[one] = order[other]
    order[other] = kept


@entry(HOST_DIGEST)
def _link(table: Any, order: Any, lines: int, line_words: int) -> None:
    for position in range(lines - 1):
        table[order[position] * line_words] = order[position + 1] * line_words
    table[order[lines - 1] * line_words] = order[0] * line_words
