"""Names of the metrics about the farm itself.

What a store tells of the newest run of each sweep, and what the driver of a run that is on tells of it.
The two never share a name: both may be scraped.
"""

from typing import NamedTuple

from dashboards.catalogue import PREFIX, SWEEP_LABEL, Unit


class HealthMetric(NamedTuple):
    """A gauge, or a counter if its name ends in ``_total``."""

    name: str
    help: str
    unit: Unit
    labels: tuple[str, ...]

    @property
    def is_counter(self) -> bool:
        return self.name.endswith("_total")


def _health(name: str, text: str, *labels: str) -> HealthMetric:
    units: tuple[Unit, ...] = ("seconds", "bytes", "ratio")
    plain = name.removesuffix("_total")
    found = [unit for unit in units if plain.endswith(f"_{unit}")]
    return HealthMetric(PREFIX + name, text, found[0] if found else "", labels)


TRIALS = _health(
    "trials", "trials of the newest run by state: recorded, failed, planned", SWEEP_LABEL, "state"
)
FAILED_TRIALS = _health(
    "failed_trials", "failed trials of the newest run by kind of error", SWEEP_LABEL, "kind"
)
RUNS = _health("runs", "runs of the sweep in the store", SWEEP_LABEL)
VERSION_LABELS = {
    "page-pool-farm": "farm_version",
    "python": "python_version",
    "numba": "numba_version",
}
"""labels by name of the package whose version they hold"""
RUN_INFO = _health(
    "run_info",
    "where the exposed results come from: always 1, the labels say it",
    SWEEP_LABEL,
    "run",
    "model_digest",
    *VERSION_LABELS.values(),
)
SIMULATED_PACKETS = _health("simulated_packets_total", "packets simulated by the newest run", SWEEP_LABEL)
TRIAL_SECONDS = _health(
    "trial_seconds_total",
    "real time that the recorded trials of the newest run took",
    SWEEP_LABEL,
    "arch",
    "traffic_kind",
)
TIMED_TRIALS = _health("timed_trials_total", "the trials that took it", SWEEP_LABEL, "arch", "traffic_kind")
RETRIES = _health(
    "retries_total", "trials of the newest run sent out again because their worker died", SWEEP_LABEL
)
NODES = _health("nodes", "hosts that have run trials of the newest run", SWEEP_LABEL)
COMPILE_SECONDS = _health(
    "compile_seconds", "longest time to compile or load the event loop in the newest run", SWEEP_LABEL
)
LAST_TRIAL = _health(
    "last_trial_timestamp_seconds", "when the newest stored trial of the newest run ended", SWEEP_LABEL
)
UNREADABLE_RUNS = _health("unreadable_runs", "newest runs left out because they cannot be read", SWEEP_LABEL)
REFUSED_SERIES = _health("refused_series", "series left out because the series budget is spent", SWEEP_LABEL)
ALL_INTERVALS = _health(
    "all_intervals", "1 if lowest and highest seed of every measure are exposed, else of some", SWEEP_LABEL
)
SERIES_BUDGET = _health("series_budget", "most result series that are exposed")
STORE_BYTES = _health("store_bytes", "size of the files of the store's runs")
STORE_FREE_BYTES = _health("store_free_bytes", "room left on the file system of the store")
STORE_CAPACITY_BYTES = _health("store_capacity_bytes", "size of the file system of the store")
COLLECT_SECONDS = _health("collect_seconds", "time that this collection took")

STORE_METRICS = (
    TRIALS,
    FAILED_TRIALS,
    RUNS,
    RUN_INFO,
    SIMULATED_PACKETS,
    TRIAL_SECONDS,
    TIMED_TRIALS,
    RETRIES,
    NODES,
    COMPILE_SECONDS,
    LAST_TRIAL,
    UNREADABLE_RUNS,
    REFUSED_SERIES,
    ALL_INTERVALS,
    SERIES_BUDGET,
    STORE_BYTES,
    STORE_FREE_BYTES,
    STORE_CAPACITY_BYTES,
    COLLECT_SECONDS,
)
"""what a store tells"""

LIVE_TRIALS = _health(
    "live_trials", "trials of the run that is on by state: done, failed, planned", SWEEP_LABEL, "state"
)
LIVE_PACKETS = _health("live_simulated_packets_total", "packets simulated by this driver", SWEEP_LABEL)
LIVE_TRIAL_SECONDS = _health(
    "live_trial_seconds_total", "real time that the trials of this driver took, all slots", SWEEP_LABEL
)
LIVE_BATCHES = _health("live_batches_total", "batches that came back to this driver", SWEEP_LABEL)
LIVE_BATCH_TRIALS = _health("live_batch_trials", "trials in the next batch", SWEEP_LABEL)
LIVE_SLOTS = _health("live_slots", "trials that run at the same time", SWEEP_LABEL)
LIVE_SECONDS_LEFT = _health("live_left_seconds", "expected time to the end of the run", SWEEP_LABEL)
LIVE_COMPILE_SECONDS = _health(
    "live_compile_seconds", "longest time that a worker took to compile or load the event loop", SWEEP_LABEL
)
LIVE_STARTED = _health("live_started_timestamp_seconds", "when this driver started", SWEEP_LABEL, "run")
LIVE_LAST_BATCH = _health(
    "live_last_batch_timestamp_seconds", "when results last came back, or the start", SWEEP_LABEL
)

LIVE_METRICS = (
    LIVE_TRIALS,
    LIVE_PACKETS,
    LIVE_TRIAL_SECONDS,
    LIVE_BATCHES,
    LIVE_BATCH_TRIALS,
    LIVE_SLOTS,
    LIVE_SECONDS_LEFT,
    LIVE_COMPILE_SECONDS,
    LIVE_STARTED,
    LIVE_LAST_BATCH,
)
"""what the driver of a run that is on tells"""
