"""What a run adds to the farm's own metrics, and samples of them as families."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from dashboards import health
from dashboards.health import HealthMetric
from farm import query
from farm.execution.rounds import trials_of
from farm.metrics.results import label_value
from farm.plan import Plan
from farm.store.runs import Run

Row = tuple[tuple[str, ...], float]
"""label values and value of a sample"""

Rows = dict[HealthMetric, list[Row]]
HealthRows = Mapping[HealthMetric, Sequence[Row]]


def rows_of_run(run: Run) -> HealthRows:
    """What a run tells of itself.

    Raises:
        farm.errors.FarmError: it is damaged.
        workers.errors.TrialError: its sweep holds values that no trial can have.
    """
    sweep = run.sweep_name
    failures = Counter(label_value(row["kind"]) for row in run.failures())
    recorded = run.query("records", "SELECT count(*) AS trials FROM records")
    states = {
        "failed": failures.total(),
        "planned": trials_of(Plan(run.sweep), run),
        "recorded": sum(row["trials"] for row in recorded),
    }
    effort = query.effort(run)
    provenance = dict.fromkeys(
        (sweep, run.name, label_value(one.model_digest), *_versions(one.versions))
        for one in effort.provenance
    )
    timed = [((sweep, label_value(one.arch), one.traffic_kind), one) for one in query.trial_times(run)]
    ended = effort.last_trial_timestamp
    return {
        health.TRIALS: [((sweep, state), count) for state, count in states.items()],
        health.FAILED_TRIALS: [((sweep, kind), count) for kind, count in sorted(failures.items())],
        health.RUN_INFO: [(labels, 1) for labels in provenance],
        health.SIMULATED_PACKETS: [((sweep,), effort.packets)],
        health.TRIAL_SECONDS: [(labels, one.seconds) for labels, one in timed],
        health.TIMED_TRIALS: [(labels, one.trials) for labels, one in timed],
        health.RETRIES: [((sweep,), effort.retries)],
        health.NODES: [((sweep,), effort.hosts)],
        health.COMPILE_SECONDS: [((sweep,), effort.compile_seconds)],
        health.LAST_TRIAL: [] if ended is None else [((sweep,), ended)],
    }


def families(metrics: Iterable[HealthMetric], rows: HealthRows) -> Iterator[Metric]:
    """The families of these metrics, in their order."""
    for metric in metrics:
        family: CounterMetricFamily | GaugeMetricFamily
        if metric.is_counter:
            family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
        else:
            family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
        for label_values, value in rows.get(metric, ()):
            family.add_metric(label_values, value)
        yield family


def _versions(text: str) -> Iterator[str]:
    """Versions in the order of :data:`dashboards.health.VERSION_LABELS`."""
    versions = json.loads(text)
    return (label_value(str(versions.get(package, ""))) for package in health.VERSION_LABELS)
