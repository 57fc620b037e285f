"""Log-linear histograms of times: their buckets, how a record holds them, quantiles of several together.

Plain data, so that reading it costs no compiler.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SUB_BUCKET_BITS = 6
"""significant bits that a bucket keeps: quantiles are at most 1/32 too low"""
BUCKETS = (64 - SUB_BUCKET_BITS) << SUB_BUCKET_BITS
PS_PER_NS = 1000


def bucket_low_ps(bucket: int) -> int:
    """Smallest time that falls into a bucket, picoseconds."""
    octave, rest = bucket >> SUB_BUCKET_BITS, bucket & ((1 << SUB_BUCKET_BITS) - 1)
    return rest << octave


def packed(histogram: Any) -> list[int]:
    """A table of counts by bucket as a record holds it: bucket and count in turn, of those that are not 0."""
    found: list[int] = []
    buckets = histogram.nonzero()[0]
    for bucket, count in zip(buckets.tolist(), histogram[buckets].tolist(), strict=True):
        found += (bucket, count)
    return found


def merged(histograms: Iterable[Sequence[int]]) -> Counter[int]:
    """Counts by bucket of several packed histograms together: exact, whatever they were counted in."""
    counts: Counter[int] = Counter()
    for histogram in histograms:
        for bucket, count in zip(histogram[::2], histogram[1::2], strict=True):
            counts[bucket] += count
    return counts


def quantile_ns(counts: Mapping[int, int], percent: int) -> int | None:
    """Time that this share does not exceed by more than a bucket, nanoseconds; None where nothing was
    counted."""
    missing = -(-sum(counts.values()) * percent // 100)
    for bucket in sorted(counts):
        missing -= counts[bucket]
        if missing <= 0:
            return bucket_low_ps(bucket) // PS_PER_NS
    return None
