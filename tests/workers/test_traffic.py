"""Arrival processes and flows against what theory says of them."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pool_impl.jit import entry
from tests.elsewhere import evaluate
from workers import run_trial, trial
from workers.arrivals import capture, rss, traffic
from workers.config import TrialConfig
from workers.errors import ConfigError
from workers.fields.derived import seed_matters
from workers.fields.groups import Value
from workers.model import MODEL_DIGEST

ROOT = Path(__file__).parents[2]
CHUNKS = 200


@entry("test-traffic-" + MODEL_DIGEST)
def generate(arrivals: Any, gaps: Any, frames: Any, hashes: Any) -> None:
    for chunk in range(gaps.shape[0]):
        traffic.next_chunk(arrivals)
        for position in range(gaps.shape[1]):
            gaps[chunk, position] = arrivals.gaps_ps[position]
            frames[chunk, position] = arrivals.frame_bytes[position]
            hashes[chunk, position] = arrivals.flow_hash[position]


@entry("test-traffic-" + MODEL_DIGEST)
def next_chunk(arrivals: Any) -> int:
    return traffic.next_chunk(arrivals)


@entry("test-traffic-" + MODEL_DIGEST)
def lifetimes(arrivals: Any, found: Any) -> None:
    for position in range(found.shape[0]):
        found[position] = traffic._lifetime(arrivals.flows, arrivals.pareto)


def configured(seed: int = 1, **fields: Value) -> TrialConfig:
    named = {name.replace("__", "."): value for name, value in fields.items()}
    return TrialConfig.from_fields({"seed": seed, **named})


def generated(config: TrialConfig, chunks: int = CHUNKS) -> tuple[Any, Any, Any]:
    """Gaps in picoseconds, frame sizes and flow hashes of many arrivals."""
    gaps = np.zeros((chunks, traffic.CHUNK), np.int64)
    frames, hashes = np.zeros_like(gaps), np.zeros_like(gaps)
    generate(traffic.new_arrivals(config), gaps, frames, hashes)
    return gaps.ravel(), frames.ravel(), hashes.ravel()


def sample(seed: int = 1, **fields: Value) -> tuple[Any, Any]:
    """Gaps in seconds and frame sizes of many arrivals."""
    gaps, frames, _ = generated(configured(seed, **fields))
    return gaps / 1e12, frames


def flows_of(seed: int = 1, **fields: Value) -> Any:
    """Flow hashes of many arrivals."""
    named = {f"traffic__{name}": value for name, value in fields.items()}
    return generated(configured(seed, traffic__kind="constant", **named))[2]


def runs_of(hashes: Any) -> Any:
    """Lengths of the runs of equal hashes, without the last, which is cut."""
    return np.diff(np.flatnonzero(np.diff(hashes, prepend=-1)))


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


MASK = (1 << 64) - 1


def splitmix64(key: int, number: int) -> int:
    """The published algorithm with exact integers, as a second implementation."""
    z = (key + number * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_draws_are_splitmix64() -> None:
    config = configured(seed=7, traffic__packet_size="imix", traffic__kind="constant")
    _, frames, _ = generated(config, chunks=1)
    key = traffic.mix64(7)
    draws = [splitmix64(key, number) & (MASK >> 1) for number in range(1, traffic.CHUNK + 1)]
    sizes = [64] * 7 + [594] * 4 + [1518]
    assert frames.tolist() == [sizes[((draw >> 32) * 12) >> 31] for draw in draws]


def share_is(found: Any, share: float) -> bool:
    """Whether a share of independent draws is within 4 sigma of what it should be."""
    return abs(found.mean() - share) <= 4 * math.sqrt(share * (1 - share) / found.size)


# Ramps


@pytest.mark.parametrize(("first_pps", "last_pps"), [(1, 2_000_000), (1_500_000, 100_000), (10**6, 10**6)])
def test_a_ramp_has_the_integral_of_its_rate_in_every_tenth(first_pps: int, last_pps: int) -> None:
    """A count of Poisson arrivals has its mean as variance; 4 sigma."""
    fields: dict[str, Value] = {"traffic__rate_pps": first_pps, "traffic__ramp_to_pps": last_pps}
    config = configured(traffic__kind="ramp", duration_ms=100, **fields)
    times = np.cumsum(generated(config)[0]) / 1e12
    assert times[-1] > 0.1
    edges = np.linspace(0, 0.1, 11)
    found, _ = np.histogram(times, edges)
    integral = first_pps * edges + (last_pps - first_pps) * edges**2 / (2 * 0.1)
    expected = np.diff(integral)
    assert (np.abs(found - expected) <= 4 * np.sqrt(expected)).all()
    assert trial.expected_packets(config) == pytest.approx(expected.sum(), abs=1)


def test_a_trial_is_offered_its_ramp() -> None:
    base = {"arch": "armada-3720", "warmup_ms": 0, "duration_ms": 40, "traffic.kind": "ramp"}
    config = TrialConfig.from_fields({**base, "traffic.rate_pps": 10_000, "traffic.ramp_to_pps": 990_000})
    offered = run_trial(config)["packets_offered"]
    assert offered == pytest.approx(20_000, abs=4 * math.sqrt(20_000))


# Flows


def hash_key(seed: int) -> int:
    return traffic.mix64(~traffic.mix64(~traffic.work_key(seed)))


def test_one_flow_that_never_ends_takes_no_draws() -> None:
    config = configured(traffic__train_packets=40)
    arrivals = traffic.new_arrivals(config)
    assert next_chunk(arrivals) == traffic.CHUNK
    assert len(set(arrivals.flow_hash.tolist())) == 1
    assert arrivals.flows.draws == 0


@pytest.mark.parametrize("kind", ["poisson", "bursts", "ramp"])
def test_flows_leave_times_and_sizes_as_they_are(kind: str) -> None:
    plain = configured(traffic__kind=kind, traffic__packet_size="imix")
    fields: dict[str, Value] = {"traffic__flows": 100, "traffic__flow_skew": 1.2}
    fields |= {"traffic__flow_packets": 20, "traffic__train_packets": 3}
    mixed = configured(traffic__kind=kind, traffic__packet_size="imix", **fields)
    before, after = generated(plain, 20), generated(mixed, 20)
    assert (before[0] == after[0]).all()
    assert (before[1] == after[1]).all()
    assert len(set(after[2].tolist())) > 100


def test_flows_and_their_hashes_are_splitmix64_of_keys_of_their_own() -> None:
    hashes = flows_of(seed=7, flows=1000)
    key = traffic.mix64(~traffic.work_key(7))
    draws = [splitmix64(key, number) & (MASK >> 1) for number in range(1, 101)]
    slots = [((draw >> 32) * 1000) >> 31 for draw in draws]
    assert hashes[:100].tolist() == [splitmix64(hash_key(7), slot) & 0x7FFFFFFF for slot in slots]
    keys = {traffic.mix64(7), traffic.work_key(7), key, hash_key(7)}
    assert len(keys) == 4


def test_flows_without_skew_send_alike_and_spread_over_the_queues() -> None:
    """Chi-square of independent counts has its freedom as mean and twice that as variance; 4 sigma."""
    # one seed in 256 gives two of so many flows the same 31 bits: seed 1 does
    hashes = flows_of(seed=2, flows=4096)
    found, packets = np.unique(hashes, return_counts=True)
    entries = found & (rss.TABLE_ENTRIES - 1)
    queues = np.bincount(rss.indirection(6)[entries], minlength=6)
    assert found.size == 4096
    for counts in (packets, np.bincount(entries, minlength=128)):
        expected = counts.sum() / counts.size
        chi_square = ((counts - expected) ** 2 / expected).sum()
        freedom = counts.size - 1
        assert abs(chi_square - freedom) <= 4 * math.sqrt(2 * freedom)
    # 128 entries dealt out to six queues: two of them have a 22nd
    for queue, count in enumerate(queues):
        share = (22 if queue < 2 else 21) / 128
        assert abs(count - 4096 * share) <= 4 * math.sqrt(4096 * share * (1 - share))


@pytest.mark.parametrize(("flows", "skew"), [(2, 1.0), (1000, 1.1), (65_536, 0.35), (600, 4.0)])
def test_the_popularity_table_holds_the_shares_of_zipfs_law(flows: int, skew: float) -> None:
    """The sum of what each column gives to itself and to its alias, against 1/n^skew over its sum."""
    thresholds, aliases = np.array(traffic.popularity_table(flows, skew)).reshape(flows, 2).T
    own = thresholds / 2.0**32
    shares = (own + np.bincount(aliases, 1 - own, minlength=flows)) / flows
    expected = np.arange(1, flows + 1, dtype=float) ** -skew
    assert np.abs(shares - expected / expected.sum()).max() < 2.0**-31


def test_the_first_flows_send_their_shares_of_zipfs_law() -> None:
    hashes = flows_of(flows=1000, flow_skew=1.1)
    normal = sum(n**-1.1 for n in range(1, 1001))
    for rank in (1, 2, 3, 10, 100):
        assert share_is(hashes == splitmix64(hash_key(1), rank - 1) & 0x7FFFFFFF, rank**-1.1 / normal)


PARETO_LEAST = (1 - 2**-16) / (6 * (1 - 2 ** (-8 / 3)))
"""least value of a bounded Pareto distribution of mean 1 and shape 1.2 whose largest is 2**(40/3) times that,
from the closed form of its mean, L (a/(a-1)) (1 - (L/H)^(a-1)) / (1 - (L/H)^a)"""


def test_the_pareto_table_has_the_mean_and_ends_of_the_closed_form() -> None:
    table = np.array(traffic.pareto_table()) / 2.0**traffic.FRACTION_BITS
    assert table[0] == pytest.approx(PARETO_LEAST, rel=1e-6)
    assert table[-1] == pytest.approx(PARETO_LEAST * 2 ** (40 / 3), rel=1e-6)
    # octave k is drawn with probability 2**-(k+1), straight lines between its points
    points = table[:-1].reshape(16, -1)
    following = table[1:].reshape(16, -1)
    octaves = ((points + following) / 2).mean(axis=1)
    weights = 2.0 ** -np.arange(1, 17)
    assert (octaves * weights).sum() / weights.sum() == pytest.approx(1, rel=1e-4)


def test_packets_of_a_flow_have_a_bounded_pareto_tail() -> None:
    arrivals = traffic.new_arrivals(configured(traffic__flow_packets=10_001))
    found = np.zeros(200_000, np.int64)
    lifetimes(arrivals, found)
    ratio = 2.0 ** (-40 / 3)
    for multiple in (1.1, 2, 10, 100, 1000):
        tail = (multiple**-1.2 - ratio**1.2) / (1 - ratio**1.2)
        assert share_is(found - 1 > multiple * PARETO_LEAST * 10_000, tail)
    assert found.min() >= 1 + math.floor(PARETO_LEAST * 10_000)
    # three draws of these reach the last octave of the tail
    assert 2 ** (15 / 1.2) <= found.max() / (PARETO_LEAST * 10_000) <= 1.001 / ratio
    # of mean 1, the second moment is L^2 (a/(2-a)) ((L/H)^(a-2) - 1) / (1 - (L/H)^a)
    second = PARETO_LEAST**2 * 1.5 * (2 ** (32 / 3) - 1) / (1 - 2**-16)
    assert found.mean() == pytest.approx(10_001, rel=4 * math.sqrt((second - 1) / found.size))


def test_short_flows_keep_their_mean_though_packets_are_whole() -> None:
    """Runs of one flow at a time are its packets; their mean varies as the second moment says."""
    runs = runs_of(flows_of(flow_packets=2))
    assert set(runs.tolist()) >= {1, 2, 3}
    second = PARETO_LEAST**2 * 1.5 * (2 ** (32 / 3) - 1)
    assert runs.mean() == pytest.approx(2, abs=4 * math.sqrt(second / runs.size))
    # below 1 a fraction is rounded up as often as it is large: E[1 - x; x < 1] by the density
    below = (1 - PARETO_LEAST**1.2) / (1 - 2**-16)
    partial = 6 * PARETO_LEAST * (1 - PARETO_LEAST**0.2) / (1 - 2**-16)
    assert share_is(runs == 1, below - partial)


def test_a_flow_that_ended_does_not_come_back_and_its_slot_goes_on() -> None:
    """With one packet a flow, all hashes differ but those that share their 31 bits by chance (10 pairs)."""
    hashes = flows_of(flows=16, flow_packets=1, train_packets=50)
    assert len(set(hashes.tolist())) >= hashes.size - 40
    assert len(set(flows_of(flows=16).tolist())) == 16


def test_a_train_ends_with_its_flow() -> None:
    """Trains of thousands, flows of one packet: one chunk still begins flows in every slot."""
    fields: dict[str, Value] = {"traffic__flow_packets": 1, "traffic__train_packets": 4096}
    arrivals = traffic.new_arrivals(configured(traffic__flows=16, **fields))
    next_chunk(arrivals)
    assert (arrivals.slot_serial >= 16).all()
    assert sorted(set(arrivals.slot_serial.tolist())) == sorted(arrivals.slot_serial.tolist())


@pytest.mark.parametrize("packets", [1, 2, 8, 45])
def test_trains_are_geometric(packets: int) -> None:
    """Among 65,536 flows hardly two trains in a row are of the same one; 4 sigma."""
    runs = runs_of(flows_of(flows=65_536, train_packets=packets))
    assert runs.size > 0.8 * CHUNKS * traffic.CHUNK / packets
    sigma = math.sqrt(packets * (packets - 1) / runs.size)
    # 1/65,536 of the trains go on by chance
    assert runs.mean() == pytest.approx(packets, abs=4 * sigma + packets * 2**-14)
    for length in (1, 2, packets):
        tail = (1 - 1 / packets) ** length
        slack = 4 * math.sqrt(tail * (1 - tail) / runs.size) + 2**-14
        assert (runs > length).mean() == pytest.approx(tail, abs=slack)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"flow_skew": 2.0},
        {"train_packets": 10},
        {"flows": 2},
        {"flow_packets": 100},
        {"flows": 30, "flow_skew": 1.0, "train_packets": 3},
    ],
)
def test_flows_are_a_matter_of_the_seed_only_where_they_are_drawn(fields: dict[str, Value]) -> None:
    named = {f"traffic.{name}": value for name, value in fields.items()}
    config = TrialConfig.from_fields({"traffic.kind": "constant", **named})
    differ = flows_of(1, **fields).tolist() != flows_of(2, **fields).tolist()
    assert seed_matters(config) is differ


# Captures again and again


def times_of(config: TrialConfig) -> tuple[list[int], list[int], list[int]]:
    """Time in picoseconds, frame size and flow hash of every packet of a replay."""
    chosen = config.traffic
    read = capture.load(chosen.capture, chosen.capture_destination, chosen.capture_source)
    arrivals = traffic.new_arrivals(config, read)
    end_ps = traffic.last_arrival_ps(arrivals)
    gaps: list[int] = []
    frames: list[int] = []
    hashes: list[int] = []
    packets = len(read.flow)
    while packets:
        gaps += arrivals.gaps_ps[:packets].tolist()
        frames += arrivals.frame_bytes[:packets].tolist()
        hashes += arrivals.flow_hash[:packets].tolist()
        packets = next_chunk(arrivals)
    times = np.cumsum(gaps).tolist()
    assert times[-1] == end_ps
    return times, frames, hashes


REPLAY: dict[str, Value] = {"traffic.kind": "capture", "traffic.capture_destination": "10.77.0.2"}


@pytest.mark.parametrize("speed", [1.0, 0.7])
def test_a_looped_capture_starts_again_a_mean_gap_after_its_last_packet(speed: float) -> None:
    once = times_of(TrialConfig.from_fields({**REPLAY, "traffic.speed": speed}))
    times, frames, hashes = times_of(
        TrialConfig.from_fields({**REPLAY, "traffic.speed": speed, "traffic.loops": 3})
    )
    packets = len(once[0])
    starts = times[::packets]
    gap = once[0][-1] // (packets - 1)
    assert starts == [0, once[0][-1] + gap, 2 * (once[0][-1] + gap)]
    assert times == [start + time for start in starts for time in once[0]]
    assert (frames, hashes) == (once[1] * 3, once[2] * 3)
    assert once[2] == capture.load("tcp_bulk", "10.77.0.2").flow_hash.tolist()


def test_a_trial_is_offered_as_many_passes_as_it_has_time_for() -> None:
    base = {"arch": "armada-3720", "warmup_ms": 0, **REPLAY, "traffic.speed": 20.0}
    packets = len(capture.load("tcp_bulk", "10.77.0.2").flow)
    for duration_ms, loops, passes in ((30, 3, 3), (30, 1, 1), (10, 1000, 10 / 6.59)):
        config = TrialConfig.from_fields({**base, "duration_ms": duration_ms, "traffic.loops": loops})
        record = run_trial(config)
        assert record["packets_offered"] == pytest.approx(passes * packets, rel=0 if passes == loops else 0.1)
        assert record["measured_seconds"] == pytest.approx(min(duration_ms, 6.59 * passes) / 1000, rel=0.01)
        assert trial.expected_packets(config) == pytest.approx(record["packets_offered"], abs=3)


def test_a_single_packet_has_no_gap_to_be_looped_with() -> None:
    read = capture.load("tcp_bulk", "10.77.0.2")
    single = capture.Capture(*(column[:1] for column in read[:4]), read.sha256)
    config = TrialConfig.from_fields({**REPLAY, "traffic.loops": 2})
    with pytest.raises(ConfigError, match=r"traffic\.loops = 2: a single packet has no gap .*; use 1"):
        traffic.new_arrivals(config, single)
    traffic.new_arrivals(TrialConfig.from_fields(REPLAY), single)


# Compiled and not


def digests() -> list[str]:
    found = []
    for fields in (
        {"kind": "ramp", "flows": 500, "flow_skew": 0.9, "flow_packets": 7, "train_packets": 4},
        {"kind": "ramp", "ramp_to_pps": 10, "flow_packets": 100},
        {"kind": "bursts", "packet_size": "imix", "flows": 65_536},
    ):
        named = {f"traffic__{name}": value for name, value in fields.items()}
        columns = generated(configured(seed=3, duration_ms=4, **named), chunks=3)
        found.append(hashlib.sha256(repr([c.tolist() for c in columns]).encode()).hexdigest())
    return found


def test_plain_python_draws_the_same() -> None:
    assert evaluate("tests.workers.test_traffic", "digests()", NUMBA_DISABLE_JIT="1") == digests()
