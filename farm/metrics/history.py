"""A run as OpenMetrics with the time of its last trial, for promtool to make blocks of."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dashboards import health
from farm import query
from farm.errors import StoreError
from farm.metrics import results
from farm.metrics.health import families, rows_of_run
from farm.store.runs import Run

RUN_METRICS = (
    health.TRIALS,
    health.FAILED_TRIALS,
    health.RUN_INFO,
    health.SIMULATED_PACKETS,
    health.TRIAL_SECONDS,
    health.TIMED_TRIALS,
    health.RETRIES,
    health.NODES,
    health.COMPILE_SECONDS,
    health.LAST_TRIAL,
)
"""what a run tells of itself"""


def openmetrics(run: Run) -> str:
    """The metrics that ``farm serve`` has of a run, as of the end of its last trial.

    Raises:
        StoreError: the run is damaged, or no trial of it is stored.
    """
    timestamp = query.effort(run).last_trial_timestamp
    if timestamp is None:
        raise StoreError(f"run {run.name}: no trial is stored; finish it with farm run --resume {run.name}")
    encode, _ = choose_encoder("application/openmetrics-text; version=1.0.0")
    return encode(_Past(run, timestamp)).decode()


@dataclass(frozen=True)
class _Past(Collector):
    """A run's metrics at one time, in seconds since 1970."""

    run: Run
    timestamp: float

    def collect(self) -> Iterator[Metric]:
        cells = query.cells(self.run)
        samples = results.samples(self.run.sweep_name, cells, query.histograms(self.run, cells))
        yield from self._at_its_time(results.families([(samples, "all")]))
        yield from self._at_its_time(families(RUN_METRICS, rows_of_run(self.run)))

    def _at_its_time(self, found: Iterable[Metric]) -> Iterator[Metric]:
        for family in found:
            # milliseconds, as Prometheus keeps them
            family.samples = [s._replace(timestamp=round(self.timestamp, 3)) for s in family.samples]
            yield family
