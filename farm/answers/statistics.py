"""What differences between samples show, and what they cannot show.

Simulated trials are paired by their seed and exact, so only how far a difference generalises is in question.
Measured times are not: they differ between runs of the same thing, have outliers and are compared in numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal, NamedTuple

import numpy

from farm.pairing import Column, Flags, Floats
from farm.seeds import CONFIDENCE, student_t
from workers.measures import Better

Verdict = Literal["better", "worse", "same", "differs", "not shown", "too few"]
"""``too few`` samples: whatever they were, nothing could have been shown"""

LEVEL = CONFIDENCE
"""of intervals; 1 - LEVEL is how often something is claimed that is not there"""

RESAMPLES = 2000
_SEED = 20240229
"""of the resampling: the same samples give the same interval"""


class Interval(NamedTuple):
    """Where a value lies, at a confidence level."""

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the value is outside."""
        return not self.low <= value <= self.high


def paired_intervals(found: Column) -> tuple[Floats, Floats]:
    """Of the mean of differences between trials of the same seeds, by Student's t: lower and upper ends.

    NaN for a single seed, which says nothing of others; differences that are all alike have an interval
    without width.
    """
    seeds = numpy.maximum(found.pairs, 2)
    known, places = numpy.unique(seeds, return_inverse=True)
    quantiles = numpy.array([student_t(int(count) - 1) for count in known])[places]
    alike = found.least == found.most
    half = numpy.where(alike, 0.0, quantiles * found.spread / numpy.sqrt(seeds))
    middle = numpy.where(alike, found.least, found.mean)
    single = found.pairs < 2
    return numpy.where(single, numpy.nan, middle - half), numpy.where(single, numpy.nan, middle + half)


def paired_verdicts(
    found: Column, low: Floats, high: Floats, better: Better, seeds_matter: Flags
) -> "numpy.typing.NDArray[numpy.str_]":
    """What simulated trials say together, for each cell: one that differs is a finding if no seed could have
    changed it; of several seeds the interval decides. Empty where there is nothing to compare.

    Args:
        low, high: the intervals.
        seeds_matter: whether other seeds could come out otherwise.
    """
    same = (found.least == 0) & (found.most == 0)
    # a comparison with NaN, of one seed, is false
    shown = ~seeds_matter | (low > 0) | (high < 0)
    direction = _direction(1.0, better), _direction(-1.0, better)
    verdicts = numpy.where(found.mean > 0, *direction)
    verdicts = numpy.where(shown & (found.mean != 0), verdicts, "not shown")
    verdicts = numpy.where(same, "same", verdicts)
    return numpy.where(found.one_sided, "differs", numpy.where(found.pairs > 0, verdicts, ""))


@dataclass(frozen=True)
class Shift:
    """How two samples of a measured value differ."""

    base: float
    """median"""
    other: float
    interval: Interval
    """of the difference of medians, bootstrapped"""
    p: float
    """of the rank test: how often samples of one and the same thing would differ as much"""
    smallest_p: float
    """what samples of this size could show at the most"""

    @property
    def difference(self) -> float:
        """Of the medians, other - base."""
        return self.other - self.base


def shift(base: Sequence[float], other: Sequence[float]) -> Shift:
    """Compare two samples: Mann and Whitney's rank test, then a bootstrap of the difference of medians.

    Raises:
        ValueError: a sample is empty.
    """
    if not base or not other:
        raise ValueError("a sample is empty")
    from scipy import stats

    left, right = (numpy.asarray(sample, float) for sample in (base, other))
    medians = float(numpy.median(left)), float(numpy.median(right))
    p = float(stats.mannwhitneyu(left, right, alternative="two-sided").pvalue)
    if min(len(left), len(right)) < 2:
        interval = Interval(-numpy.inf, numpy.inf)
    else:
        found = stats.bootstrap(
            (left, right),
            lambda x, y, axis: numpy.median(y, axis=axis) - numpy.median(x, axis=axis),
            n_resamples=RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            rng=numpy.random.default_rng(_SEED),
        ).confidence_interval
        interval = Interval(float(found.low), float(found.high))
    return Shift(
        base=medians[0],
        other=medians[1],
        interval=interval,
        p=p,
        smallest_p=smallest_p(len(left), len(right)),
    )


def smallest_p(base: int, other: int) -> float:
    """The least p that a rank test of samples of this size can give: all of one below all of the other, of
    all ways to part them."""
    return min(1.0, 2 / comb(base + other, base))


def adjusted(p_values: Sequence[float]) -> list[float]:
    """The same for many comparisons at once, so that of what is claimed no more is wrong than of one
    (Benjamini and Hochberg)."""
    if not p_values:
        return []
    from scipy import stats

    return [float(p) for p in stats.false_discovery_control(list(p_values))]


def measured_verdict(
    found: Shift, p: float, better: Better, *, least_ratio: float = 0.0, least_difference: float = 0.0
) -> Verdict:
    """What a measured comparison says.

    Args:
        p: adjusted for all comparisons that are made together.
        least_ratio: effects below it, as a part of the base, do not matter.
        least_difference: likewise, in the unit of the measure.

    Returns:
        ``same`` if the whole interval is too small to matter, ``not shown`` if it is not clear.
    """
    if found.smallest_p > 1 - LEVEL:
        return "too few"
    floor = max(least_ratio * abs(found.base), least_difference)
    if p <= 1 - LEVEL and found.interval.excludes(0.0) and abs(found.difference) >= floor:
        return _direction(found.difference, better)
    if floor and max(abs(found.interval.low), abs(found.interval.high)) <= floor:
        return "same"
    return "not shown"


def _direction(difference: float, better: Better) -> Verdict:
    if better == "neither":
        return "differs"
    return "better" if (difference > 0) == (better == "higher") else "worse"
