"""Cache levels from a latency curve: what loads cost in working sets of growing size."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from workers.host.clock import Spread

STEP = 1.6
"""a level's end: a load costs so many times what it cost in the smallest set of the level"""

SMALLEST_BYTES = 8 << 10
LEAST_TOP_BYTES = 1 << 20
UNKNOWN_TOP_BYTES = 256 << 20
"""largest set where the machine does not say how large its caches are"""


class Point(NamedTuple):
    """Loads in a working set."""

    size_bytes: int
    spread: Spread
    """nanoseconds for one load"""


class Sizes(NamedTuple):
    """Caches, bytes; 0 for a level that there is not."""

    l1: int
    l2: int
    llc: int


def set_sizes(known: Sizes, available_bytes: int) -> list[int]:
    """Working sets to measure, bytes, ascending: powers of two, and one that is twice the largest cache, or a
    quarter of the memory."""
    largest = max(known)
    top = max(LEAST_TOP_BYTES, min(2 * largest if largest else UNKNOWN_TOP_BYTES, available_bytes // 4))
    sizes = []
    size = SMALLEST_BYTES
    while size < top:
        # with sizes known, sets that straddle two levels say nothing
        if not largest or _level(known, size) is not None:
            sizes.append(size)
        size *= 2
    return [*sizes, top]


def _level(known: Sizes, size: int) -> int | None:
    """0 to 2 for a set that a level holds and the one before does not, with room to spare."""
    below = 0
    for level, capacity in enumerate(known):
        if capacity and 2 * below <= size <= capacity // 2:
            return level
        below = max(below, capacity)
    return None


def find_sizes(curve: Sequence[Point]) -> Sizes:
    """Levels of a curve by its steps; the last one is memory."""
    ends: list[int] = []
    floor = curve[0].spread.value
    for before, point in pairwise(curve):
        if point.spread.value > STEP * floor:
            if before.spread.value <= STEP * floor and (not ends or before.size_bytes >= 2 * ends[-1]):
                ends.append(before.size_bytes)
            floor = point.spread.value
        else:
            floor = min(floor, point.spread.value)
    first, second = [*ends, 0, 0][:2]
    return Sizes(first, second, ends[-1] if len(ends) > 2 else 0)


def by_level(curve: Sequence[Point], sizes: Sizes) -> list[Spread | None]:
    """A load from level 1, 2, the last level and memory; None where no set was in it.

    A level's value is the median of its sets, its range that of them all. More memory cannot be faster: where
    noise says so, the larger counts.
    """
    found: list[Spread | None] = []
    least = 0.0
    for level in range(4):
        if level < 3:
            points = [point for point in curve if _level(sizes, point.size_bytes) == level]
        else:
            points = [point for point in curve[-1:] if point.size_bytes >= 1.5 * max(sizes)]
        if not points:
            found.append(None)
            continue
        values = sorted(point.spread.value for point in points)
        value = max(least, values[len(values) // 2])
        low = min(value, *(point.spread.low for point in points))
        high = max(value, *(point.spread.high for point in points))
        found.append(Spread(low, value, high))
        least = value
    return found
