"""What is shown of the farm, and under which names.

The root re-exports the catalogue of metrics, which ``farm.export`` fills; :mod:`dashboards.panels`
builds the dashboards from it and :mod:`dashboards.publish` puts them on a Grafana.
"""

from dashboards.catalogue import (
    CELL_FIELDS,
    CELL_LABELS,
    COLLECT_SECONDS,
    HEALTH_METRICS,
    PREFIX,
    REFUSED_SERIES,
    RUN_INFO,
    RUNS,
    SERIES_BUDGET,
    STORE_BYTES,
    SWEEP_LABEL,
    TRIALS,
    UNREADABLE_RUNS,
    VERSION_LABELS,
    HealthMetric,
    ResultMetric,
    Source,
    axis_label,
    result_metrics,
    result_name,
    series_per_cell,
)

__all__ = [
    "CELL_FIELDS",
    "CELL_LABELS",
    "COLLECT_SECONDS",
    "HEALTH_METRICS",
    "PREFIX",
    "REFUSED_SERIES",
    "RUNS",
    "RUN_INFO",
    "SERIES_BUDGET",
    "STORE_BYTES",
    "SWEEP_LABEL",
    "TRIALS",
    "UNREADABLE_RUNS",
    "VERSION_LABELS",
    "HealthMetric",
    "ResultMetric",
    "Source",
    "axis_label",
    "result_metrics",
    "result_name",
    "series_per_cell",
]
