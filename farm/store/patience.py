"""Trying again for a while where a disk or a network refuses."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

FIRST_PAUSE_SECONDS = 0.2
MOST_PAUSE_SECONDS = 5.0


def patiently(
    action: Callable[[], Result], patience_seconds: float, told: Callable[[OSError], None] = lambda _: None
) -> Result:
    """What an action returns, which is repeated while it raises OSError, with pauses that double.

    Arguments:
        patience_seconds: from the first refusal to the last attempt; 0 for one attempt.
        told: called with the first refusal, unless it is the last.

    Raises:
        OSError: of the last attempt.
    """
    pause_seconds = FIRST_PAUSE_SECONDS
    last_attempt: float | None = None
    while True:
        try:
            return action()
        except OSError as error:
            now = time.monotonic()
            first = last_attempt is None
            if last_attempt is None:
                last_attempt = now + patience_seconds
            if now >= last_attempt:
                raise
            if first:
                told(error)
        time.sleep(max(0.0, min(pause_seconds, last_attempt - now)))
        pause_seconds = min(2 * pause_seconds, MOST_PAUSE_SECONDS)
