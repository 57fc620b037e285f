"""Names of every exported metric, derived from the catalogue of measures.

A result metric is a measure in base units: nanoseconds become seconds, and what is counted over the
measured window becomes a gauge per simulated second, so that a simulated line and a real host's
``rate()`` can share a panel. Measures that split one quantity (busy time by category, pages by
location) are one metric with a label, so that they can be summed and stacked. The farm's health
metrics are named here too; ``farm.export`` fills both kinds.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal, NamedTuple

from workers.measures import CATEGORIES, LOCATIONS, MEASURES, OBJECTS, SLOW_CAUSES, Measure, by_name

PREFIX = "pagepool_farm_"

SWEEP_LABEL = "sweep"

CELL_FIELDS = ("arch", "kernel", "pool.size", "pool.recycle", "traffic.kind")
"""trial fields that label every result; the other swept axes follow them"""

Unit = Literal["", "seconds", "bytes", "ratio"]
Statistic = Literal["median", "low", "high"]

_STATISTIC_HELP: Mapping[Statistic, str] = {
    "median": "median over seeds",
    "low": "lowest of the seeds",
    "high": "highest of the seeds",
}
_NS_PER_SECOND = 1e9


class Source(NamedTuple):
    """The measure behind one series of a cell."""

    measure: str
    part: str
    """value of the metric's own label, empty if it has none"""


class ResultMetric(NamedTuple):
    """A gauge with one series per cell, or one per cell and part."""

    name: str
    help: str
    unit: Unit
    """base unit if the name ends in it, as OpenMetrics wants it declared"""
    label: str
    """label that tells the parts of one quantity apart, or empty"""
    sources: tuple[Source, ...]
    statistic: Statistic
    per_base_unit: float
    """how many of the measure's units make one of the metric's"""
    is_rate: bool
    """whether the measure is divided by the simulated seconds it was counted over"""

    def value(self, source: Source, measures: Mapping[str, float]) -> float | None:
        """This metric's value from a cell's measures; None if the cell has no such value."""
        value = measures.get(source.measure)
        if value is None:
            return None
        if not self.is_rate:
            return value / self.per_base_unit
        seconds = measures.get("measured_seconds")
        return value / seconds if seconds else None


class HealthMetric(NamedTuple):
    """A gauge about the farm itself."""

    name: str
    help: str
    unit: Unit
    labels: tuple[str, ...]


def axis_label(field: str) -> str:
    """The label of a trial field given by its dotted name."""
    return field.replace(".", "_")


CELL_LABELS = tuple(axis_label(field) for field in CELL_FIELDS)

_STATES = frozenset({"packets_queued", "pages_inflight"})
"""measures of the end of a trial, in units that otherwise count what passed by during it"""


def _unit(name: str) -> Unit:
    for unit in ("seconds", "bytes", "ratio"):
        if name.endswith(f"_{unit}"):
            return unit
    return ""


def _help(text: str, measure: Measure, statistic: Statistic, is_rate: bool) -> str:
    better = "" if measure.better == "neither" else f", {measure.better} is better"
    rate = ", per simulated second" if is_rate else ""
    return f"{text}{rate} ({_STATISTIC_HELP[statistic]}{better})"


def _single(measure: Measure, statistic: Statistic = "median") -> ResultMetric:
    """The metric of a measure that stands for itself."""
    name, per_base_unit = measure.name, 1.0
    is_rate = measure.unit in ("packets", "events", "pages") and measure.name not in _STATES
    if is_rate:
        name = f"{name}_per_second"
    elif measure.unit == "ns":
        name, per_base_unit = name.replace("_ns", "_seconds"), _NS_PER_SECOND
    elif measure.unit == "ratio":
        name = name.replace("_ratio", "") + "_ratio"
    elif measure.unit == "per second":
        name = name.removesuffix("_rate") + "_per_second"
    if statistic != "median":
        name = f"{name}_{statistic}"
    return ResultMetric(
        name=PREFIX + name,
        help=_help(measure.description, measure, statistic, is_rate),
        unit=_unit(name),
        label="",
        sources=(Source(measure.name, ""),),
        statistic=statistic,
        per_base_unit=per_base_unit,
        is_rate=is_rate,
    )


def _parted(
    name: str, label: str, text: str, pattern: str, parts: Iterable[str], *, is_rate: bool = False
) -> ResultMetric:
    """The metric of measures that split one quantity; ``pattern`` makes a measure's name of a part."""
    sources = tuple(Source(pattern.format(part), part) for part in parts)
    first = by_name()[sources[0].measure]
    return ResultMetric(
        name=PREFIX + name,
        help=_help(text, first, "median", is_rate),
        unit=_unit(name),
        label=label,
        sources=sources,
        statistic="median",
        per_base_unit=_NS_PER_SECOND if first.unit == "ns" else 1.0,
        is_rate=is_rate,
    )


_PARTED = (
    _parted(
        "busy_by_category_seconds_per_packet",
        "category",
        "CPU time per packet by what it is spent on",
        "{}_ns_per_packet",
        CATEGORIES,
    ),
    _parted(
        "pages_by_location",
        "location",
        "pages of the pool by where they are, time average",
        "pages_in_{}",
        LOCATIONS,
    ),
    _parted(
        "slow_pages_per_second",
        "cause",
        "pages from the page allocator by why the pool had none",
        "slow_{}",
        SLOW_CAUSES,
        is_rate=True,
    ),
    _parted(
        "cache_hit_ratio",
        "object",
        "touches found in L1 or L2 by object",
        "cache_hit_{}",
        OBJECTS,
    ),
)

_SPREAD_OF = ("busy_ns_per_packet",)
"""measures whose lowest and highest seed are exported too; few, since each costs two series a cell"""


@cache
def result_metrics() -> tuple[ResultMetric, ...]:
    """Every metric of a finished trial: single measures, their spread, parted measures."""
    in_parts = {source.measure for metric in _PARTED for source in metric.sources}
    singles = tuple(_single(measure) for measure in MEASURES if measure.name not in in_parts)
    statistics: tuple[Statistic, ...] = ("low", "high")
    spread = tuple(_single(by_name()[name], statistic) for name in _SPREAD_OF for statistic in statistics)
    return singles + spread + _PARTED


def result_name(measure: str) -> str:
    """The name of the metric that carries a measure's median.

    Raises:
        KeyError: no such measure.
    """
    return _names_by_measure()[measure]


@cache
def _names_by_measure() -> dict[str, str]:
    return {
        source.measure: metric.name
        for metric in result_metrics()
        if metric.statistic == "median"
        for source in metric.sources
    }


def series_per_cell() -> int:
    """How many series one cell of a sweep becomes; what a planner multiplies by its cells."""
    return sum(len(metric.sources) for metric in result_metrics())


def _health(name: str, text: str, *labels: str) -> HealthMetric:
    return HealthMetric(PREFIX + name, text, _unit(name), labels)


TRIALS = _health(
    "trials", "trials of the newest run by state: recorded, failed, planned", SWEEP_LABEL, "state"
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
UNREADABLE_RUNS = _health("unreadable_runs", "newest runs left out because they cannot be read", SWEEP_LABEL)
REFUSED_SERIES = _health("refused_series", "series left out because the series budget is spent", SWEEP_LABEL)
SERIES_BUDGET = _health("series_budget", "most result series that are exposed")
STORE_BYTES = _health("store_bytes", "size of the store's files")
COLLECT_SECONDS = _health("collect_seconds", "time that this collection took")

HEALTH_METRICS = (
    TRIALS,
    RUNS,
    RUN_INFO,
    UNREADABLE_RUNS,
    REFUSED_SERIES,
    SERIES_BUDGET,
    STORE_BYTES,
    COLLECT_SECONDS,
)
