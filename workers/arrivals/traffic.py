"""Arrivals, in chunks of gap, frame size and flow, drawn with integers only; and the generator itself.

The generator is counter-based: draw number ``i`` of a trial is a hash of the seed and ``i``, so a record
depends neither on the CPU nor on a library's version.
"""

from decimal import Decimal, localcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from pool_impl.jit import compiled, multiply_add
from pool_impl.layout import records, words, words_of
from workers.arrivals.rss import HASH_MASK
from workers.config import TrialConfig
from workers.errors import ConfigError
from workers.fields.derived import IMIX_BYTES, WIRE_OVERHEAD_BYTES, draws_flows

CHUNK = 1024
"""arrivals generated at a time"""

PS_PER_SECOND = 10**12
FOREVER = 1 << 62

PS_PER_US = 10**6
PS_PER_MS = 10**9

CONSTANT, POISSON, BURSTS, SATURATION, CAPTURE, RAMP, WINDOW = range(7)
KINDS = {
    "constant": CONSTANT,
    "poisson": POISSON,
    "bursts": BURSTS,
    "saturation": SATURATION,
    "capture": CAPTURE,
    "ramp": RAMP,
    "window": WINDOW,
}
"""those of WINDOW are in ``workers.arrivals.window``"""

SOURCE = np.dtype(
    [
        (name, "<i8")
        for name in (
            "kind",
            "key",
            "draws",
            "frame_bytes",  # 0: imix
            "link_gbps",
            "gap_ps",
            "burst_mean",
            "pause_ps",
            "burst_left",
            "last_wire_ps",
            "packets",
            "loops_left",
            "now_ps",
            "end_us",
            "from_pps",
            "to_pps",
        )
    ],
    align=True,
)
"""state of an arrival process; ``gap_ps`` is the mean gap, ``pause_ps`` the mean pause between bursts;
``packets`` are those of one pass of a replay; ``now_ps`` is the time of a ramp's last arrival, ``end_us``
that of its end"""

FLOWS = np.dtype(
    [
        (name, "<i8")
        for name in (
            "drawn",  # 0: one flow that never ends
            "key",
            "draws",
            "hash_key",
            "slots",
            "slot",
            "skewed",
            "serial",
            "packets_mean",  # 0: flows never end
            "train_scale",
            "train_left",
        )
    ],
    align=True,
)
"""state of the flows: ``slots`` are active at a time, ``slot`` is that of the last packet, ``serial`` the
number of the last flow to begin, ``train_scale`` what :func:`train_scale` says of the mean train"""


class Arrivals(NamedTuple):
    """What will arrive, as compiled code sees it."""

    source: Any
    """SOURCE record"""
    gaps_ps: Any
    """time since the packet before, of each packet of the chunk"""
    frame_bytes: Any
    """frame with FCS, of each packet of the chunk"""
    flow_hash: Any
    """31-bit hash of the flow, of each packet of the chunk"""
    exponential: Any
    """table of :func:`exponential_table`"""
    imix: Any
    """frame sizes, each as often as its share"""
    flows: Any
    """FLOWS record"""
    slot_serial: Any
    """number of the flow that a slot holds"""
    slot_left: Any
    """packets that a slot's flow has yet to send"""
    popularity: Any
    """table of :func:`popularity_table`"""
    pareto: Any
    """table of :func:`pareto_table`"""


def new_arrivals(config: TrialConfig, capture: Any = None) -> Arrivals:
    """The arrival process of a trial.

    Args:
        capture: what to replay (``workers.arrivals.capture.Capture``) where traffic.kind is capture.

    Raises:
        ConfigError: traffic.loops of a capture that has no mean gap.
    """
    traffic = config.traffic
    source = records(SOURCE, 1)[0]
    source.kind = KINDS[traffic.kind]
    source.link_gbps = config.nic.link_gbps
    sizes = IMIX_BYTES if isinstance(traffic.packet_size, str) else (traffic.packet_size,)
    source.frame_bytes = 0 if len(sizes) > 1 else sizes[0]
    arrivals = _with_flows(config, source)
    set_keys(arrivals, config)
    if capture is not None:
        return _replay(config, capture, arrivals)
    source.gap_ps = PS_PER_SECOND // traffic.rate_pps
    source.burst_mean = traffic.burst_packets
    wire_ps = sum((size + WIRE_OVERHEAD_BYTES) * 8000 // config.nic.link_gbps for size in sizes) // len(sizes)
    source.pause_ps = max(0, traffic.burst_packets * (source.gap_ps - wire_ps))
    source.end_us = config.duration_ms * 1000
    source.from_pps, source.to_pps = traffic.rate_pps, traffic.ramp_to_pps
    return arrivals


def set_keys(arrivals: Arrivals, config: TrialConfig) -> None:
    """Let the arrivals be those of the configuration's seed; nothing else in them follows from it."""
    arrivals.source.key = mix64(config.seed)
    if draws_flows(config):
        arrivals.flows.key = mix64(~work_key(config.seed))
        arrivals.flows.hash_key = _hash_key(config.seed)


def _with_flows(config: TrialConfig, source: Any) -> Arrivals:
    traffic = config.traffic
    drawn = draws_flows(config)
    flows = records(FLOWS, 1)[0]
    flows.drawn = int(drawn)
    flows.slots = slots = traffic.flows if drawn else 1
    flows.serial = slots - 1
    flows.train_scale = train_scale(traffic.train_packets)
    flows.packets_mean = traffic.flow_packets
    flows.skewed = int(traffic.flow_skew > 0)
    flow_hash = words(CHUNK)
    flow_hash[:] = mix64(0) & HASH_MASK
    return Arrivals(
        source=source,
        gaps_ps=words(CHUNK),
        frame_bytes=words(CHUNK),
        flow_hash=flow_hash,
        exponential=exponential_table(),
        imix=words_of(IMIX_BYTES),
        flows=flows,
        slot_serial=words_of(range(slots)),
        slot_left=words(slots),
        popularity=popularity_table(slots, traffic.flow_skew),
        pareto=pareto_table() if traffic.flow_packets else words(1),
    )


def _replay(config: TrialConfig, capture: Any, arrivals: Arrivals) -> Arrivals:
    traffic, packets = config.traffic, len(capture.arrival_ns)
    if traffic.loops > 1 and packets == 1:
        raise ConfigError(
            "traffic.loops", traffic.loops, "a single packet has no gap to repeat it after; use 1"
        )
    # exact: speed is a decimal fraction, and only integers go on from here
    speed = Decimal(str(traffic.speed))
    micro = int(speed * 10**6)
    times = capture.arrival_ns.astype(object) * (1000 * 10**6) // micro
    gaps = np.diff(times.astype(np.int64), prepend=0)
    arrivals.source.packets = packets
    arrivals.source.loops_left = traffic.loops - 1
    arrivals.source.gap_ps = times[-1] // max(1, packets - 1)
    return arrivals._replace(
        gaps_ps=words_of(gaps),
        frame_bytes=words_of(capture.frame_bytes),
        flow_hash=words_of(capture.flow_hash),
    )


def last_arrival_ps(arrivals: Arrivals) -> int:
    """When the last packet of a replay arrives, of those that are yet to come."""
    pass_ps = int(arrivals.gaps_ps.sum())
    return pass_ps + int(arrivals.source.loops_left) * (pass_ps + int(arrivals.source.gap_ps))


@compiled(inline=False)
def next_chunk(arrivals: Arrivals) -> int:
    """Generate the next chunk; returns its packets, 0 when the traffic has ended."""
    source = arrivals.source
    if source.kind == CAPTURE:
        if source.loops_left == 0:
            return 0
        source.loops_left -= 1
        arrivals.gaps_ps[0] = source.gap_ps
        return int(source.packets)
    if arrivals.flows.drawn:
        _next_flows(arrivals)
    for position in range(CHUNK):
        if source.frame_bytes != 0:
            frame = source.frame_bytes
        else:
            frame = arrivals.imix[below(source, len(IMIX_BYTES))]
        if source.kind == CONSTANT:
            gap = source.gap_ps
        elif source.kind == POISSON:
            gap = exponential(source, arrivals.exponential, source.gap_ps)
        elif source.kind == SATURATION:
            gap = source.last_wire_ps
        elif source.kind == RAMP:
            gap = _ramp_gap(source, arrivals.exponential)
        else:
            gap = source.last_wire_ps
            if source.burst_left == 0:
                source.burst_left = 1 + exponential(source, arrivals.exponential, source.burst_mean - 1)
                gap += exponential(source, arrivals.exponential, source.pause_ps)
            source.burst_left -= 1
        source.last_wire_ps = (frame + WIRE_OVERHEAD_BYTES) * 8000 // source.link_gbps
        arrivals.gaps_ps[position] = gap
        arrivals.frame_bytes[position] = frame
    return CHUNK


@compiled()
def _ramp_gap(source: Any, table: Any) -> int:
    """Poisson arrivals at a rate that changes, by thinning (Lewis and Shedler 1979): candidates come at the
    highest rate, and each is kept with the ratio of the rate at its time to the highest."""
    most_pps = max(source.from_pps, source.to_pps)
    before_ps = source.now_ps
    while True:
        source.now_ps += exponential(source, table, PS_PER_SECOND // most_pps)
        now_us = source.now_ps // PS_PER_US
        if now_us >= source.end_us:
            # after the trial: any packet does, and a ramp that falls would hardly find one
            break
        rate_pps = source.from_pps + (source.to_pps - source.from_pps) * now_us // source.end_us
        if below(source, most_pps) < rate_pps:
            break
    return int(source.now_ps - before_ps)


@compiled()
def _next_flows(arrivals: Arrivals) -> None:
    """Draw the flows of the next chunk: which slot sends a train, how long it is, when a flow ends."""
    flows = arrivals.flows
    for position in range(CHUNK):
        if flows.train_left == 0:
            if flows.slots > 1:
                flows.slot = _popular(flows, arrivals.popularity)
            flows.train_left = 1
            if flows.train_scale > 0:
                flows.train_left += exponential(flows, arrivals.exponential, flows.train_scale) >> TRAIN_BITS
        flows.train_left -= 1
        slot = flows.slot
        if flows.packets_mean > 0:
            if arrivals.slot_left[slot] == 0:
                flows.serial += 1
                arrivals.slot_serial[slot] = flows.serial
                arrivals.slot_left[slot] = _lifetime(flows, arrivals.pareto)
            arrivals.slot_left[slot] -= 1
            if arrivals.slot_left[slot] == 0:
                # a train ends with its flow
                flows.train_left = 0
        arrivals.flow_hash[position] = _flow_hash(flows, arrivals.slot_serial[slot])


@compiled()
def _popular(flows: Any, table: Any) -> int:
    """A slot, as often as its popularity: Walker's method, by the table's thresholds and aliases."""
    bits = _draw(flows)
    slot = ((bits >> 32) * flows.slots) >> 31
    if flows.skewed and (bits & 0xFFFFFFFF) >= table[2 * slot]:
        slot = table[2 * slot + 1]
    return int(slot)


@compiled()
def _lifetime(flows: Any, table: Any) -> int:
    """Packets of a flow: 1 and a bounded Pareto number whose mean is one less than theirs. The fraction is
    rounded up as often as it is large, so that the mean is exact."""
    bits = _draw(flows)
    while bits < (1 << (63 - PARETO_OCTAVES)):
        # beyond the bound
        bits = _draw(flows)
    rounding = bits & ((1 << FRACTION_BITS) - 1)
    octaves = 0
    while bits < (1 << 62):
        bits <<= 1
        octaves += 1
    below_one = (1 << 63) - 1 - bits
    position = (octaves << PARETO_BITS) + (below_one >> (62 - PARETO_BITS))
    rest = (below_one >> (62 - PARETO_BITS - 16)) & 0xFFFF
    low = table[position]
    value = low + (((table[position + 1] - low) * rest) >> 16)
    return int(1 + (((flows.packets_mean - 1) * value + rounding) >> FRACTION_BITS))


@compiled()
def _flow_hash(flows: Any, serial: int) -> int:
    """31 bits of a hash of the flow's serial number; a NIC's has one more, see ``workers.arrivals.rss``."""
    return int(_mixed(multiply_add(serial, _GAMMA, flows.hash_key)) & HASH_MASK)


def flow_hashes(config: TrialConfig) -> list[int]:
    """Hashes of the flows that there are at the start, which may be equal by chance."""
    if not draws_flows(config):
        return [mix64(0) & HASH_MASK]
    hash_key = _hash_key(config.seed)
    return [mix64((serial - 1) * _GAMMA + hash_key) & HASH_MASK for serial in range(config.traffic.flows)]


def _hash_key(seed: int) -> int:
    return mix64(~mix64(~work_key(seed)))


# Tables of the flows, exact arithmetic


@cache
def popularity_table(flows: int, skew: float) -> Any:
    """For each flow a threshold of 32 bits and an alias (Walker 1977, as Vose 1991 builds it): a flow drawn
    evenly stands for its alias if 32 more bits are not below the threshold. Popularity is 1/n^skew."""
    if skew == 0:
        return words(2)
    with localcontext() as context:
        context.prec = 30
        exponent = -Decimal(str(skew))
        powers = [Decimal(1)] * (flows + 1)
        factor = _smallest_factors(flows)
        for n in range(2, flows + 1):
            p = factor[n]
            powers[n] = powers[p] * powers[n // p] if p < n else (exponent * Decimal(n).ln()).exp()
        weights = [int(power * (1 << 64)) for power in powers[1:]]
    even = sum(weights)
    left = [weight * flows for weight in weights]  # in units in which each column holds ``even``
    table = [(1 << 32, flow) for flow in range(flows)]
    small = [flow for flow in range(flows) if left[flow] < even]
    large = [flow for flow in range(flows) if left[flow] >= even]
    while small and large:
        less, more = small.pop(), large[-1]
        table[less] = ((left[less] << 32) // even, more)
        left[more] -= even - left[less]
        if left[more] < even:
            small.append(large.pop())
    return words_of([word for column in table for word in column])


def _smallest_factors(most: int) -> list[int]:
    """The smallest prime factor of each number up to this one."""
    factor = list(range(most + 1))
    for n in range(2, most + 1):
        if factor[n] == n:
            for multiple in range(n * n, most + 1, n):
                factor[multiple] = min(factor[multiple], n)
    return factor


PARETO_SHAPE = Decimal("1.2")
"""of the bounded Pareto distribution of a flow's packets: above 1 there is a mean, below 2 it would have no
variance without the bound; web transfers were measured at 1.0 to 1.3 (Crovella and Bestavros 1997)"""

PARETO_OCTAVES = 16
"""how far the tail goes: down to a probability of 2**-16, 2**(16/1.2) or 10,321 times the least"""

PARETO_BITS = 6


@cache
def pareto_table() -> Any:
    """The bounded Pareto distribution of mean 1: its value where the probability of a larger one, were there
    no bound, is u; at 2**PARETO_BITS points in each octave of u from 1 down, in fixed point."""
    with localcontext() as context:
        context.prec = 30
        steps = 1 << PARETO_BITS
        two, shape = Decimal(2), PARETO_SHAPE
        # closed form of the mean of what is at least 1
        mean = shape / (shape - 1) * (1 - two ** (PARETO_OCTAVES * (1 / shape - 1)))
        mean /= 1 - two**-PARETO_OCTAVES
        values = []
        for octave in range(PARETO_OCTAVES):
            for step in range(steps):
                logarithm = (Decimal(2 * steps - step) / (2 * steps)).ln() - octave * two.ln()
                values.append((-logarithm / shape).exp() / mean)
        values.append((PARETO_OCTAVES * two.ln() / shape).exp() / mean)
        return words_of([int((value * (1 << FRACTION_BITS)).to_integral_value()) for value in values])


TRAIN_BITS = 16
"""fixed point of :func:`train_scale`"""


def train_scale(packets: int) -> int:
    """Mean of the exponential number whose whole part, and 1, is geometric with this mean; fixed point."""
    if packets == 1:
        return 0
    with localcontext() as context:
        context.prec = 30
        return int(-(1 << TRAIN_BITS) / (1 - 1 / Decimal(packets)).ln())


# Random numbers

_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def mix64(value: int) -> int:
    """splitmix64's finaliser (Steele, Lea, Flood 2014) on exact integers; signed 64-bit result."""
    mask = (1 << 64) - 1
    value = (value + _GAMMA) & mask
    value = ((value ^ (value >> 30)) * _MIX_1) & mask
    value = ((value ^ (value >> 27)) * _MIX_2) & mask
    value ^= value >> 31
    return value - (1 << 64) if value >> 63 else value


def verdict_key(seed: int) -> int:
    """Key of the numbers that XDP verdicts are drawn with."""
    return mix64(work_key(seed) ^ _GAMMA)


def work_key(seed: int, reader: int = 0) -> int:
    """Key of the numbers that a reader draws: others than those of the arrivals and of other readers."""
    return mix64(~mix64(seed + reader * _GAMMA))


def tap_key(seed: int) -> int:
    """Key of the numbers that decide which packets are captured."""
    return mix64(~work_key(~seed))


def retention_key(seed: int, reader: int) -> int:
    """Key of the numbers that decide which packets an application keeps for long."""
    return mix64(work_key(~seed, reader) ^ _GAMMA)


@compiled()
def _draw(source: Any) -> int:
    """The next 63 random bits: splitmix64 of the source's key and the number of the draw. A source is any
    record with ``key`` and ``draws``."""
    source.draws += 1
    return int(_mixed(multiply_add(source.draws, _GAMMA, source.key)) & 0x7FFFFFFFFFFFFFFF)


@compiled()
def _mixed(value: int) -> int:
    """splitmix64's finaliser in 64 bits that wrap."""
    value = multiply_add(value ^ ((value >> 30) & 0x3FFFFFFFF), _MIX_1, 0)
    value = multiply_add(value ^ ((value >> 27) & 0x1FFFFFFFFF), _MIX_2, 0)
    return value ^ ((value >> 31) & 0x1FFFFFFFF)


@compiled()
def below(source: Any, bound: int) -> int:
    """Uniform in 0..bound-1; bound is small against 2**31."""
    return int(((_draw(source) >> 32) * bound) >> 31)


TABLE_BITS = 10
FRACTION_BITS = 24
"""fixed point of the exponential table"""


@cache
def exponential_table() -> Any:
    """-ln(x) for x in [1, 1/2], at 2**TABLE_BITS + 1 points, in fixed point; exact arithmetic."""
    with localcontext() as context:
        context.prec = 30
        steps = 1 << TABLE_BITS
        scale = Decimal(1 << FRACTION_BITS)
        values = [
            int((-(Decimal(2 * steps - k) / (2 * steps)).ln() * scale).to_integral_value())
            for k in range(steps + 1)
        ]
    return words_of(values)


@compiled()
def exponential(source: Any, table: Any, mean: int) -> int:
    """Exponentially distributed with this mean (at most about 2**55): -ln(u) by halving u until it is
    above 1/2, then linear interpolation."""
    bits = _draw(source)
    octaves = 0
    while bits < (1 << 62) and octaves < 62:
        bits <<= 1
        octaves += 1
    below_one = (1 << 63) - 1 - bits  # u = 1 - below_one / 2**63, u in [1/2, 1)
    position = below_one >> (62 - TABLE_BITS)
    rest = (below_one >> (62 - TABLE_BITS - 16)) & 0xFFFF
    low = table[position]
    value = low + (((table[position + 1] - low) * rest) >> 16) + octaves * table[1 << TABLE_BITS]
    # mean * value in two parts, so that it stays within 64 bits
    whole = (mean >> FRACTION_BITS) * value
    return int(whole + (((mean & ((1 << FRACTION_BITS) - 1)) * value) >> FRACTION_BITS))
