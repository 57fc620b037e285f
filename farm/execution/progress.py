"""How far a run is, and how many trials make the next batch."""

import time
from collections.abc import Callable

from farm.store.results import MOST_WAITING, Results

LEAST_BATCH_SECONDS = 3.0
MOST_BATCH_SECONDS = 5.0
"""work in one batch: long against its cost for the driver, short against what a lost worker loses"""

SLOTS_PER_SECOND = 100
"""slots whose batches the driver takes in within a second; with more, batches get longer"""

LAST_BATCH_SECONDS = 0.05
"""batches get shorter toward the end, but not shorter than this: each costs milliseconds"""


class Progress:
    """How far a run is. Counts trials stored before as done, but not in its rates.

    Arguments:
        trials: of the whole plan.
        stored: of these, done before.
        slots: trials that run at the same time.
        clock: seconds, monotonic.
    """

    def __init__(
        self, trials: int, stored: int, slots: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.trials = trials
        self.done = stored
        self.may_need_fewer = False
        """whether the number of trials is what it is at most"""
        self.failed = 0
        self.packets = 0
        self.trial_seconds = 0.0
        """real time that the trials took, all slots"""
        self.batches = 0
        """how often results came back"""
        self.compile_seconds = 0.0
        """the longest time that a worker took to compile the event loop, or to wait for it and load it"""
        self.under_way = 0
        """trials in batches that are not back yet"""
        self.slots = slots
        self._clock = clock
        self._started: float | None = None
        self._trial_seconds: float | None = None

    def add(self, results: Results) -> None:
        """Count trials that have just come back."""
        seconds = results.wall_seconds / results.trials
        if self._started is None or self._trial_seconds is None:
            self._started = self._clock() - results.wall_seconds
            self._trial_seconds = seconds
        # a moving average over about twenty trials follows a grid from its cheap to its costly cells
        self._trial_seconds += (seconds - self._trial_seconds) * (1 - 0.95**results.trials)
        self.done += results.trials
        self.under_way -= results.trials
        self.failed += results.failed
        self.packets += results.packets
        self.trial_seconds += results.wall_seconds
        self.batches += 1
        self.compile_seconds = max(self.compile_seconds, results.compile_seconds)

    @property
    def packets_per_second(self) -> float:
        """Packets simulated per second of real time, over all slots."""
        elapsed = 0.0 if self._started is None else self._clock() - self._started
        return self.packets / elapsed if elapsed else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Expected until the last trial is done; None before the first one."""
        if self._trial_seconds is None:
            return None
        return (self.trials - self.done) * self._trial_seconds / self.slots

    @property
    def batch_trials(self) -> int:
        """How many trials make the next batch: one while nothing is known; a share of what is unsent near the
        end, so that the slots finish together."""
        if self._trial_seconds is None:
            return 1
        batch_seconds = min(max(self.slots / SLOTS_PER_SECOND, LEAST_BATCH_SECONDS), MOST_BATCH_SECONDS)
        share = (self.trials - self.done - self.under_way) // (2 * self.slots)
        return max(1, min(max(share, self._in(LAST_BATCH_SECONDS)), self._in(batch_seconds), MOST_WAITING))

    def _in(self, seconds: float) -> int:
        """Trials that take so long."""
        return int(seconds / self._trial_seconds) if self._trial_seconds else MOST_WAITING
