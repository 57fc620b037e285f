"""An end for trials that take far too long.

A thread looks at the clock while the compiled loop runs, and asks it to stop. The loop looks at that before
each step; one that never comes to its next step, as with an endless loop in a variant of the pool, is beyond
asking, and only the end of its process stops it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from workers.stopper import Stopper

DEADLINE_SECONDS = 600.0
"""for one trial, unless the user names another; trials take milliseconds to seconds"""

GRACE_SECONDS = 30.0
"""from asking a trial to stop to the end of its process: a step takes microseconds, while swapping longer"""

LOOKS = 20
"""at the clock within a deadline, but one a second at least"""


class Watchdog:
    """Watches one trial at a time; a context manager around a batch, in which its thread runs.

    Arguments:
        deadline_seconds: for a trial.
        give_up: called in the thread if a trial cannot be stopped, with its number; should end the process.
    """

    def __init__(
        self, deadline_seconds: float, give_up: Callable[[int], None], grace_seconds: float = GRACE_SECONDS
    ) -> None:
        self._deadline_seconds = deadline_seconds
        self._grace_seconds = grace_seconds
        self._give_up = give_up
        self._watched: tuple[int, float, Stopper] | None = None
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._look, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    @contextmanager
    def watching(self, number: int) -> Iterator[Stopper]:
        """Around a trial, which takes the stopper along."""
        stopper = Stopper()
        self._watched = (number, time.monotonic(), stopper)
        try:
            yield stopper
        finally:
            self._watched = None

    def _look(self) -> None:
        while not self._over.wait(min(1.0, self._deadline_seconds / LOOKS)):
            watched = self._watched
            if watched is None:
                continue
            number, started, stopper = watched
            late = time.monotonic() - started - self._deadline_seconds
            if late > 0 and not stopper.asked:
                stopper.ask()
            elif late > self._grace_seconds and self._watched is watched:
                self._give_up(number)
                return
