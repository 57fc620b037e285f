"""How far a run is, and how many trials make the next batch."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from farm.rows import Failure, Outcome

if TYPE_CHECKING:
    pass

BATCH_SECONDS = 2.0
"""work in one batch: long against a millisecond of transport, short against patience after Ctrl-C"""

MOST_WAITING = 10_000
"""outcomes wait for their part in no larger number than this, which bounds memory"""


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
        self.compile_seconds = 0.0
        """the longest time that a worker took to load or compile the event loop"""
        self._slots = slots
        self._clock = clock
        self._started: float | None = None
        self._trial_seconds: float | None = None

    def add(self, outcome: Outcome) -> None:
        """Count a trial that has just come back."""
        seconds = outcome.attempt.wall_seconds
        if self._started is None or self._trial_seconds is None:
            self._started = self._clock() - seconds
            self._trial_seconds = seconds
        # a moving average over about twenty trials follows a grid from its cheap to its costly cells
        self._trial_seconds += (seconds - self._trial_seconds) / 20
        self.done += 1
        self.failed += isinstance(outcome.result, Failure)
        self.packets += outcome.attempt.packets
        self.compile_seconds = max(self.compile_seconds, outcome.attempt.compile_seconds)

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
        return (self.trials - self.done) * self._trial_seconds / self._slots

    @property
    def batch_trials(self) -> int:
        """How many trials make a batch of about :data:`BATCH_SECONDS`; fewer near the end, so that
        the slots finish together; one while nothing is known."""
        if self._trial_seconds is None:
            return 1
        enough = int(BATCH_SECONDS / self._trial_seconds) if self._trial_seconds else MOST_WAITING
        share = (self.trials - self.done) // (2 * self._slots)
        return max(1, min(enough, share, MOST_WAITING))
