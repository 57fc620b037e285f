"""Quantiles of histograms, alone and together, against sorted samples."""

import numpy as np
import pytest

from pool_impl.jit import entry
from workers.books.histogram import BUCKETS, bucket_low_ps, merged, packed, quantile_ns
from workers.books.latency import latency_bucket
from workers.model import MODEL_DIGEST


@entry("test-histogram-" + MODEL_DIGEST)
def bucket_of(time_ps: int) -> int:
    return latency_bucket(time_ps)


def counted(samples_ps: list[int]) -> list[int]:
    histogram = np.zeros(BUCKETS, np.int64)
    for sample in samples_ps:
        histogram[bucket_of(sample)] += 1
    return packed(histogram)


def samples(seed: int) -> list[int]:
    """Times over seven decades."""
    drawn = np.random.default_rng(seed).lognormal(mean=14, sigma=3, size=2_000)
    return [int(sample) for sample in drawn]


@pytest.mark.parametrize("sample", [0, 1, 63, 64, 65, 127, 128, 999_983, 2**40 + 12345, 2**62])
def test_a_time_is_in_the_bucket_whose_low_end_is_next_below(sample: int) -> None:
    low = bucket_low_ps(bucket_of(sample))
    assert low <= sample < low * (1 + 1 / 32) + 1
    assert bucket_of(low) == bucket_of(sample)


@pytest.mark.parametrize("percent", [1, 50, 90, 99, 100])
def test_quantiles_of_all_together_are_those_of_all_samples(percent: int) -> None:
    """And not a mean or median of each one's: the parts differ in size and place."""
    parts = [samples(1), [10 * sample for sample in samples(2)[:300]], samples(3)[:5]]
    everything = sorted(sample for part in parts for sample in part)
    exact_ps = everything[-(-len(everything) * percent // 100) - 1]
    found = quantile_ns(merged(counted(part) for part in parts), percent)
    assert found is not None
    assert exact_ps * (1 - 1 / 32) - 1000 <= found * 1000 <= exact_ps


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile_ns(merged([]), 50) is None
    assert quantile_ns(merged([[]]), 99) is None
