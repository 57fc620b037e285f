"""Enough seeds: a cell gets seeds until the confidence interval of one measure is narrow enough.

Whether a cell has enough is decided by the values of its seeds 0, 1, ... k - 1 in this order, for the least
number of seeds first, then for one more: never by the order in which trials end. So each executor, and a run
that was resumed, ends with the same records. To look again after each seed makes the interval hold the mean
somewhat less often than its name says; a larger ``min`` makes up for it.
"""

import difflib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from farm.errors import SweepError
from workers.measures import by_name

CONFIDENCE = 0.95

LEAST_SEEDS = 3
"""by default; two say little about a spread"""
MOST_SEEDS = 50
"""by default"""

SEEDS_LIMIT = 1_000_000
"""more seeds per cell than this are taken for a slip"""

_KEYS = ("until", "relative_ci", "min", "max")

Measured = Sequence[float | None]
"""values of the measure by seed; None where a trial failed or had nothing to measure"""


@dataclass(frozen=True)
class Until:
    """``seeds = { until = "busy_ns_per_packet", relative_ci = 0.01, min = 3, max = 50 }``"""

    measure: str
    relative_ci: float
    """half the width of the interval that holds the mean with 95% confidence, as a share of the mean"""
    least: int
    most: int

    def to_toml(self) -> str:
        """As a sweep file has it."""
        return (
            f'{{ until = "{self.measure}", relative_ci = {self.relative_ci!r}, '
            f"min = {self.least}, max = {self.most} }}"
        )

    def enough(self, values: Measured) -> bool:
        """Whether a cell with these values, of its seeds 0 .. len(values) - 1, needs no more seeds."""
        if len(values) >= self.most:
            return True
        if len(values) < self.least:
            return False
        known = [value for value in values if value is not None]
        # where no seed can measure it, more seeds do not help
        return not known or half_width(known) <= self.relative_ci * abs(statistics.fmean(known))

    def next_seeds(self, values: Measured) -> int:
        """How many seeds to run next in a cell that has not enough: what the spread so far asks for, but no
        more than there were before, since what lies beyond the last seed that is needed is thrown away."""
        left = self.most - len(values)
        known = [value for value in values if value is not None]
        allowed = self.relative_ci * abs(statistics.fmean(known)) if known else 0.0
        if len(known) < 2 or not allowed:
            return min(1, left)
        expected = math.ceil(len(values) * (half_width(known) / allowed) ** 2)
        return max(1, min(expected - len(values), len(values), left))


def half_width(values: Sequence[float]) -> float:
    """Half the width of the interval that holds the mean of what these were drawn from with 95% confidence,
    by Student's t; infinite for a single value."""
    if len(values) < 2:
        return math.inf
    return student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


@cache
def student_t(degrees_of_freedom: int) -> float:
    """Quantile of Student's t for a two-sided interval of 95%; to six decimals, so that it is the same
    number with every version of the library."""
    from scipy.special import stdtrit

    return round(float(stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2)), 6)


def parse_until(table: Mapping[str, object]) -> Until:
    """The ``seeds`` table of a sweep file.

    Raises:
        SweepError: an unknown key or measure, or a value out of range.
    """
    for key in table:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(_KEYS)}"
            raise SweepError(f"seeds: unknown key {key!r}; {hint}")
    measure = table.get("until")
    if not isinstance(measure, str) or measure not in by_name():
        near = difflib.get_close_matches(str(measure), list(by_name()), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "farm fields --measures lists them"
        raise SweepError(f"seeds: until = {measure!r}: no such measure; {hint}")
    share = table.get("relative_ci")
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
        raise SweepError(f"seeds: relative_ci = {share!r}: use a share of the mean above 0 and below 1")
    least = _count("min", table.get("min", LEAST_SEEDS), 2)
    return Until(measure, float(share), least, _count("max", table.get("max", max(least, MOST_SEEDS)), least))


def _count(key: str, value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= SEEDS_LIMIT:
        raise SweepError(f"seeds: {key} = {value!r}: use an integer {least}..{SEEDS_LIMIT}")
    return value
