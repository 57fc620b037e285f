"""Arrival processes against what theory says of them."""

import math
from typing import Any

import numpy as np
import pytest

from pool_impl.jit import entry
from workers import traffic
from workers.config import TrialConfig, Value
from workers.model import MODEL_DIGEST

CHUNKS = 200


@entry("test-traffic-" + MODEL_DIGEST)
def generate(arrivals: Any, gaps: Any, frames: Any) -> None:
    for chunk in range(gaps.shape[0]):
        traffic.next_chunk(arrivals)
        for position in range(gaps.shape[1]):
            gaps[chunk, position] = arrivals.gaps_ps[position]
            frames[chunk, position] = arrivals.frame_bytes[position]


def sample(seed: int = 1, **fields: Value) -> tuple[Any, Any]:
    """Gaps in seconds and frame sizes of many arrivals."""
    named = {name.replace("__", "."): value for name, value in fields.items()}
    config = TrialConfig.from_fields({"seed": seed, **named})
    gaps = np.zeros((CHUNKS, traffic.CHUNK), np.int64)
    frames = np.zeros_like(gaps)
    generate(traffic.new_arrivals(config), gaps, frames)
    return gaps.ravel() / 1e12, frames.ravel()


def test_poisson_gaps_are_exponential() -> None:
    """Mean and standard deviation both equal 1/rate, and the tail falls as exp(-x); 200k draws, 4 sigma."""
    gaps, _ = sample(traffic__rate_pps=1_000_000)
    tolerance = 4 / math.sqrt(gaps.size)
    assert gaps.mean() * 1e6 == pytest.approx(1, abs=tolerance)
    assert gaps.std() * 1e6 == pytest.approx(1, abs=2 * tolerance)
    for multiple in (0.1, 0.5, 1, 2, 4):
        share = math.exp(-multiple)
        slack = 4 * math.sqrt(share * (1 - share) / gaps.size)
        assert (gaps > multiple * 1e-6).mean() == pytest.approx(share, abs=slack)


def test_the_exponential_table_is_the_logarithm() -> None:
    table = traffic.exponential_table() / (1 << traffic.FRACTION_BITS)
    points = 1 - np.arange(table.size) / (2 * (table.size - 1))
    assert np.abs(table + np.log(points)).max() < 2.0**-traffic.FRACTION_BITS


def test_constant_traffic_has_one_gap() -> None:
    gaps, _ = sample(traffic__kind="constant", traffic__rate_pps=500_000)
    assert set(gaps) == {2e-6}


def test_imix_has_its_shares() -> None:
    _, frames = sample(traffic__packet_size="imix")
    for size, share in ((64, 7 / 12), (594, 4 / 12), (1518, 1 / 12)):
        slack = 4 * math.sqrt(share * (1 - share) / frames.size)
        assert (frames == size).mean() == pytest.approx(share, abs=slack)


def test_bursts_keep_the_mean_rate_and_arrive_at_link_rate() -> None:
    gaps, frames = sample(traffic__kind="bursts", traffic__rate_pps=1_000_000, traffic__burst_packets=100)
    wire = (frames + 20) * 8 / 10e9
    within = np.isclose(gaps[1:], wire[:-1], rtol=1e-6, atol=0)
    assert (gaps[1:] >= wire[:-1] * 0.999999).all()
    # one pause for each burst of 100 packets; 2000 bursts, 4 sigma
    assert 1 / (1 - within.mean()) == pytest.approx(100, rel=4 / math.sqrt(2000))
    assert gaps.size / gaps.sum() == pytest.approx(1_000_000, rel=0.15)


def test_draws_are_splitmix64() -> None:
    """The published algorithm with exact integers, as a second implementation."""
    mask = (1 << 64) - 1

    def splitmix64(key: int, number: int) -> int:
        z = (key + number * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    config = TrialConfig.from_fields({"seed": 7, "traffic.packet_size": "imix", "traffic.kind": "constant"})
    arrivals = traffic.new_arrivals(config)
    gaps = np.zeros((1, traffic.CHUNK), np.int64)
    frames = np.zeros_like(gaps)
    generate(arrivals, gaps, frames)
    key = traffic.mix64(7)
    draws = [splitmix64(key, number) & (mask >> 1) for number in range(1, traffic.CHUNK + 1)]
    sizes = [64] * 7 + [594] * 4 + [1518]
    assert frames[0].tolist() == [sizes[((draw >> 32) * 12) >> 31] for draw in draws]
