"""Which trials go into the next batch."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from farm.execution.progress import Progress
from farm.store.results import MOST_WAITING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


class Batches(Iterator[range]):
    """Ranges of trial numbers for an executor, which can give back what it did not get to.

    Arguments:
        numbers: ranges that are to be run, see :func:`missing`.
        progress: says how many trials make a batch, and hears how many are under way.
    """

    def __init__(self, numbers: Iterator[range], progress: Progress) -> None:
        self._numbers = numbers
        self._progress = progress
        self._given_back: deque[range] = deque()

    def __next__(self) -> range:
        if self._given_back:
            most = self._progress.batch_trials
            numbers = self._given_back.popleft()
            if len(numbers) > most:
                self._given_back.appendleft(numbers[most:])
                numbers = numbers[:most]
        else:
            numbers = next(self._numbers)
        self._progress.under_way += len(numbers)
        return numbers

    def give_back(self, numbers: range) -> None:
        """These were not run."""
        if numbers:
            self._given_back.append(numbers)
            self._progress.under_way -= len(numbers)


def missing(done: "NDArray[numpy.bool_]", batch_trials: Callable[[], int]) -> Iterator[range]:
    """The trials that are not done as ranges of at most ``batch_trials()``, in order."""
    start = 0
    while start < len(done):
        ahead = done[start : start + MOST_WAITING]
        if ahead.all():
            start += len(ahead)
            continue
        start += int(ahead.argmin())
        ahead = done[start : start + batch_trials()]
        stop = start + (int(ahead.argmax()) if ahead.any() else len(ahead))
        yield range(start, stop)
        start = stop
