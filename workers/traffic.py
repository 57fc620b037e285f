"""Arrivals, in chunks of gap and frame size, drawn with integers only; and the generator itself.

The generator is counter-based: draw number ``i`` of a trial is a hash of the seed and ``i``, so a record
depends neither on the CPU nor on a library's version.
"""

from decimal import Decimal, localcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from pool_impl.jit import compiled
from pool_impl.layout import records, words, words_of
from workers.config import IMIX_BYTES, WIRE_OVERHEAD_BYTES, TrialConfig

CHUNK = 1024
"""arrivals generated at a time"""

PS_PER_SECOND = 10**12
FOREVER = 1 << 62

CONSTANT, POISSON, BURSTS, SATURATION, CAPTURE = range(5)
KINDS = {
    "constant": CONSTANT,
    "poisson": POISSON,
    "bursts": BURSTS,
    "saturation": SATURATION,
    "capture": CAPTURE,
}

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
        )
    ],
    align=True,
)
"""state of an arrival process; ``gap_ps`` is the mean gap, ``pause_ps`` the mean pause between bursts"""


class Arrivals(NamedTuple):
    """What will arrive, as compiled code sees it."""

    source: Any
    """SOURCE record"""
    gaps_ps: Any
    """time since the packet before, of each packet of the chunk"""
    frame_bytes: Any
    """frame with FCS, of each packet of the chunk"""
    exponential: Any
    """table of :func:`exponential_table`"""
    imix: Any
    """frame sizes, each as often as its share"""


def new_arrivals(config: TrialConfig, capture: Any = None) -> Arrivals:
    """The arrival process of a trial.

    Args:
        capture: what to replay (``workers.capture.Capture``) where traffic.kind is capture.
    """
    traffic = config.traffic
    source = records(SOURCE, 1)[0]
    source.kind = KINDS[traffic.kind]
    source.key = mix64(config.seed)
    source.link_gbps = config.nic.link_gbps
    imix = words_of(IMIX_BYTES)
    sizes = IMIX_BYTES if isinstance(traffic.packet_size, str) else (traffic.packet_size,)
    source.frame_bytes = 0 if len(sizes) > 1 else sizes[0]
    if capture is not None:
        # exact: speed is a decimal fraction, and only integers go on from here
        speed = Decimal(str(traffic.speed))
        micro = int(speed * 10**6)
        times = capture.arrival_ns.astype(object) * (1000 * 10**6) // micro
        gaps = np.diff(times.astype(np.int64), prepend=0)
        return Arrivals(source, words_of(gaps), words_of(capture.frame_bytes), exponential_table(), imix)
    source.gap_ps = PS_PER_SECOND // traffic.rate_pps
    source.burst_mean = traffic.burst_packets
    wire_ps = sum((size + WIRE_OVERHEAD_BYTES) * 8000 // config.nic.link_gbps for size in sizes) // len(sizes)
    source.pause_ps = max(0, traffic.burst_packets * (source.gap_ps - wire_ps))
    return Arrivals(source, words(CHUNK), words(CHUNK), exponential_table(), imix)


@compiled(inline=False)
def next_chunk(arrivals: Arrivals) -> int:
    """Generate the next chunk; returns its packets, 0 when the traffic has ended."""
    source = arrivals.source
    if source.kind == CAPTURE:
        return 0
    for position in range(CHUNK):
        if source.frame_bytes != 0:
            frame = source.frame_bytes
        else:
            frame = arrivals.imix[_below(source, len(IMIX_BYTES))]
        if source.kind == CONSTANT:
            gap = source.gap_ps
        elif source.kind == POISSON:
            gap = exponential(source, arrivals.exponential, source.gap_ps)
        elif source.kind == SATURATION:
            gap = source.last_wire_ps
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


def work_key(seed: int) -> int:
    """Key of the numbers that a reader draws: others than those of the arrivals."""
    return mix64(~mix64(seed))


@compiled()
def _draw(source: Any) -> int:
    """The next 63 random bits: splitmix64 of the source's key and the number of the draw. A source is any
    record with ``key`` and ``draws``."""
    source.draws += 1
    value = source.key + source.draws * _GAMMA
    value = (value ^ ((value >> 30) & 0x3FFFFFFFF)) * _MIX_1
    value = (value ^ ((value >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return int((value ^ ((value >> 31) & 0x1FFFFFFFF)) & 0x7FFFFFFFFFFFFFFF)


@compiled()
def _below(source: Any, bound: int) -> int:
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
