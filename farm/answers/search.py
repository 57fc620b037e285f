"""Bisection over a field: the largest value at which a target still holds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from farm.errors import SweepError
from farm.plan import Plan
from farm.sweep import Sweep
from workers import run_trial
from workers.config import TrialConfig
from workers.fields.derived import most_packets_per_second
from workers.fields.groups import Value

RATE = "traffic.rate_pps"
LOWEST_PPS = 1000
TOLERANCE = 0.005
"""of the rate that is found"""

RATED = ("constant", "poisson", "bursts")
"""kinds of traffic that have a rate"""


class NoDropRate(NamedTuple):
    """The highest rate of one cell."""

    fields: dict[str, Value]
    """all fields but the seed; the rate is the lowest"""
    rate_pps: int | None
    """None: even the lowest rate drops more"""
    link_pps: int
    """what the link carries: a rate as high is not the machine's limit"""


def largest(passes: Callable[[int], bool], low: int, high: int, tolerance: float) -> int | None:
    """The largest of ``low..high`` that passes, at most ``tolerance`` of it too low; None if ``low`` fails.

    What passes at a value is taken to pass at any below it. Asks the same questions in the same order for
    the same answers.
    """
    if not passes(low):
        return None
    if passes(high):
        return high
    while high - low > max(1, int(low * tolerance)):
        middle = (low + high) // 2
        if passes(middle):
            low = middle
        else:
            high = middle
    return low


def no_drop_rates(sweep: Sweep, most_drops: float) -> Iterator[NoDropRate]:
    """For each cell of a sweep the highest rate at which at most this share of packets is dropped, over all
    its seeds together. A rate that the sweep itself fixes is ignored.

    Raises:
        SweepError: a rate is an axis, or the traffic has none.
        TrialError: a trial cannot be run.
    """
    if RATE in sweep.axes():
        raise SweepError(f"{RATE}: the search looks for it; take it out of the sweep's axes")
    fixed = {**sweep.fixed, RATE: LOWEST_PPS}
    planned = Plan(replace(sweep, fixed=fixed, seeds=sweep.least_seeds, until=None))
    planned.inputs()
    trials = (planned.fields(number) for number in range(planned.trials))
    for _, seeds in groupby(trials, _without_seed):
        yield _no_drop_rate(list(seeds), most_drops)


def _without_seed(fields: dict[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in fields.items() if name != "seed"}


def _no_drop_rate(seeds: Sequence[dict[str, Value]], most_drops: float) -> NoDropRate:
    cell = _without_seed(seeds[0])
    kind = cell["traffic.kind"]
    if kind not in RATED:
        raise SweepError(f"traffic.kind = {kind}: has no rate to search for; use one of {', '.join(RATED)}")
    link_pps = most_packets_per_second(TrialConfig.unchecked(seeds[0]))

    def passes(rate_pps: int) -> bool:
        lost = offered = 0.0
        for fields in seeds:
            record = run_trial(TrialConfig.from_fields({**fields, RATE: rate_pps}))
            packets = record["packets_offered"] or 0
            lost += (record["drop_ratio"] or 0) * packets
            offered += packets
        return lost <= most_drops * offered

    return NoDropRate(cell, largest(passes, LOWEST_PPS, link_pps, TOLERANCE), link_pps)
