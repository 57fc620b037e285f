"""Looking at the clock, and what many looks at a busy machine say: the only module that does."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Run = Callable[[int], object]
"""does something so many times"""


class Spread(NamedTuple):
    """Repeats of one measurement, in its unit."""

    low: float
    """the least"""
    value: float
    """what counts: of repeats the least too, as others on the machine only ever make them slower"""
    high: float
    """their median"""

    def plus(self, other: "Spread", sign: int = 1) -> "Spread":
        """Sum, or difference (``sign`` -1), of two measurements; never below 0, and wide enough for both."""
        low, high = (other.low, other.high) if sign > 0 else (-other.high, -other.low)
        return Spread(
            max(0.0, self.low + low), max(0.0, self.value + sign * other.value), max(0.0, self.high + high)
        )

    def times(self, factor: float) -> "Spread":
        """All of it by a factor that is not negative."""
        return Spread(*(factor * number for number in self))


def spread_of(samples: list[float]) -> Spread:
    """What repeats say."""
    return Spread(min(samples), min(samples), float(np.median(samples)))


def now_ns() -> int:
    """Nanoseconds of a clock that never goes back."""
    return time.perf_counter_ns()


def elapsed_ns(run: Run, turns: int) -> int:
    """Nanoseconds for some turns, the call from Python included."""
    start = time.perf_counter_ns()
    run(turns)
    return time.perf_counter_ns() - start


def samples_ns(runs: Mapping[str, Run], turns: int, repeats: int) -> dict[str, list[float]]:
    """Nanoseconds for one turn of each run, one sample for each repeat.

    Runs take turns, so that a disturbance does not hit one of them. The call from Python is not counted.

    Args:
        runs: what to measure, by name; each must do nothing when asked for no turns.
        turns: in one repeat; fewer than fit into the scheduler's slice of a busy machine.
        repeats: how often all runs are made.
    """
    calls = {}
    for name, run in runs.items():
        run(1)
        calls[name] = min(elapsed_ns(run, 0) for _ in range(min(repeats, 20)))
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            found[name].append(max(0, elapsed_ns(run, turns) - calls[name]) / turns)
    return found


def spreads_ns(runs: Mapping[str, Run], turns: int, repeats: int) -> dict[str, Spread]:
    """The same as what the repeats say."""
    return {name: spread_of(samples) for name, samples in samples_ns(runs, turns, repeats).items()}
