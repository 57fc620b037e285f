"""A run that is on, as the driver's own process knows it."""

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dashboards import health
from farm.execution.progress import Progress
from farm.metrics.collector import StoreCollector
from farm.metrics.health import Rows, families
from farm.store.place import Root
from farm.store.runs import Run


class LiveCollector(Collector):
    """How far a run is, by its progress, and what it has stored so far; nothing before it begins.

    Arguments:
        root: the store that the run is in.
        clock: seconds since 1970.
    """

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock
        self._begun: tuple[Run, Progress, StoreCollector] | None = None
        self._started = self._last_batch = clock()
        self._batches = 0

    def begin(self, run: Run, progress: Progress) -> None:
        """Expose this run from now on."""
        self._started = self._last_batch = self._clock()
        self._begun = run, progress, StoreCollector(self._root, chosen=[run], only_chosen=True)

    def note(self, progress: Progress) -> None:
        """Results have come back: remember when."""
        if progress.batches != self._batches:
            self._batches = progress.batches
            self._last_batch = self._clock()

    def describe(self) -> Iterable[Metric]:
        """Nothing: to register the collector must not read the store."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics as of now.

        Raises:
            StoreError: the run cannot be read.
        """
        if self._begun is None:
            return
        run, progress, stored = self._begun
        yield from stored.collect()
        yield from families(health.LIVE_METRICS, self._rows(run, progress))

    def _rows(self, run: Run, progress: Progress) -> Rows:
        sweep = run.sweep_name
        states = {
            "done": progress.done - progress.failed,
            "failed": progress.failed,
            "planned": progress.trials,
        }
        values = {
            health.LIVE_PACKETS: progress.packets,
            health.LIVE_TRIAL_SECONDS: progress.trial_seconds,
            health.LIVE_BATCHES: progress.batches,
            health.LIVE_BATCH_TRIALS: progress.batch_trials,
            health.LIVE_SLOTS: progress.slots,
            health.LIVE_COMPILE_SECONDS: progress.compile_seconds,
            health.LIVE_LAST_BATCH: self._last_batch,
        }
        left = progress.seconds_left
        rows: Rows = {metric: [((sweep,), float(value))] for metric, value in values.items()}
        rows[health.LIVE_TRIALS] = [((sweep, state), count) for state, count in states.items()]
        rows[health.LIVE_STARTED] = [((sweep, run.name), self._started)]
        rows[health.LIVE_SECONDS_LEFT] = [] if left is None else [((sweep,), left)]
        return rows
