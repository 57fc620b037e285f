"""Names of every exported metric, derived from the catalogue of measures.

A result metric is a measure in base units: nanoseconds become seconds, and what is counted over the
measured window becomes a gauge per simulated second, so that a simulated line and a real host's
``rate()`` can share a panel. Measures that split one quantity (busy time by category, pages by
location) are one metric with a label, so that they can be summed and stacked. ``farm.metrics`` fills them;
the farm's own metrics are named in :mod:`dashboards.health`.
"""

from collections.abc import Mapping
from functools import cache
from typing import Literal, NamedTuple

from workers.books.histogram import SUB_BUCKET_BITS
from workers.measures import (
    CATEGORIES,
    HISTOGRAMS,
    LOCATIONS,
    MEASURES,
    OBJECTS,
    SLOW_CAUSES,
    Measure,
    by_name,
)

PREFIX = "pagepool_farm_"

SWEEP_LABEL = "sweep"

CELL_FIELDS = ("arch", "kernel", "pool.size", "pool.recycle", "traffic.kind", "machine.iommu")
"""trial fields that label every result; the other swept axes follow them"""

Unit = Literal["", "seconds", "bytes", "ratio"]
Statistic = Literal["median", "low", "high"]

Intervals = Literal["all", "some"]
"""of which measures the lowest and highest seed are exposed: two more series for each of a cell's measures
are what a small sweep can afford and a large one cannot"""

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


class HistogramMetric(NamedTuple):
    """A classic histogram of a cell: the packets of all seeds together, counted exactly."""

    name: str
    help: str
    column: str
    """what a record calls it"""
    mean: str
    """the measure that is its exact mean in nanoseconds, or empty"""


def axis_label(field: str) -> str:
    """The label of a trial field given by its dotted name."""
    return field.replace(".", "_")


CELL_LABELS = tuple(axis_label(field) for field in CELL_FIELDS)

_STATES = frozenset({"packets_queued", "pages_inflight", "pages_left_behind", "pages_not_returned"})
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


def _single(measure: Measure, statistic: Statistic) -> ResultMetric:
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
    name = _of_statistic(name, statistic)
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


def _of_statistic(name: str, statistic: Statistic) -> str:
    return name if statistic == "median" else f"{name}_{statistic}"


class _Parted(NamedTuple):
    """Measures that split one quantity; ``pattern`` makes a measure's name of a part."""

    name: str
    label: str
    text: str
    pattern: str
    parts: tuple[str, ...]
    is_rate: bool = False


def _parted(parted: _Parted, statistic: Statistic) -> ResultMetric:
    sources = tuple(Source(parted.pattern.format(part), part) for part in parted.parts)
    first = by_name()[sources[0].measure]
    name = _of_statistic(parted.name, statistic)
    return ResultMetric(
        name=PREFIX + name,
        help=_help(parted.text, first, statistic, parted.is_rate),
        unit=_unit(name),
        label=parted.label,
        sources=sources,
        statistic=statistic,
        per_base_unit=_NS_PER_SECOND if first.unit == "ns" else 1.0,
        is_rate=parted.is_rate,
    )


_PARTED = (
    _Parted(
        "busy_by_category_seconds_per_packet",
        "category",
        "CPU time per packet by what it is spent on",
        "{}_ns_per_packet",
        CATEGORIES,
    ),
    _Parted(
        "pages_by_location",
        "location",
        "pages of the pool by where they are, time average",
        "pages_in_{}",
        LOCATIONS,
    ),
    _Parted(
        "slow_pages_per_second",
        "cause",
        "pages from the page allocator by why the pool had none",
        "slow_{}",
        SLOW_CAUSES,
        is_rate=True,
    ),
    _Parted(
        "cache_hit_ratio",
        "object",
        "touches found in L1 or L2 by object",
        "cache_hit_{}",
        OBJECTS,
    ),
)

SOME_INTERVALS = ("busy_ns_per_packet",)
"""measures whose lowest and highest seed are exposed in any case"""


@cache
def result_metrics(intervals: Intervals = "all") -> tuple[ResultMetric, ...]:
    """Every metric of a finished cell: the medians, then the lowest and highest seed."""
    in_parts = {parted.pattern.format(part) for parted in _PARTED for part in parted.parts}
    statistics: tuple[Statistic, ...] = ("median", "low", "high")
    found: list[ResultMetric] = []
    for statistic in statistics:
        every = statistic == "median" or intervals == "all"
        singles = [measure for measure in MEASURES if measure.name not in in_parts]
        found += [_single(one, statistic) for one in singles if every or one.name in SOME_INTERVALS]
        found += [_parted(one, statistic) for one in _PARTED if every]
    return tuple(found)


POOL_SIZE = PREFIX + "pool_size_pages"
POOL_SIZE_HELP = "the pool size of the cell as a value, since a query cannot compute with labels"
SEEDS = PREFIX + "seeds"
SEEDS_HELP = "seeds that the cell has records of"
CELL_METRICS = {POOL_SIZE: POOL_SIZE_HELP, SEEDS: SEEDS_HELP}
"""gauges of a cell that are no measure, with their help"""

HISTOGRAM_METRICS = (
    HistogramMetric(
        PREFIX + "latency_seconds",
        "wire to consumer, wire packets of all seeds (lower is better)",
        "latency_histogram",
        "latency_mean_ns",
    ),
    HistogramMetric(
        PREFIX + "hold_seconds",
        "skb built until its page goes back, wire packets of all seeds; in the sum each counts as the low "
        "end of its bucket in the record, at most 1/32 too low (lower is better)",
        "hold_histogram",
        "",
    ),
)
assert {metric.column for metric in HISTOGRAM_METRICS} == set(HISTOGRAMS)

BUCKET_BITS = range(18, 39)
"""bucket bounds are 2**n - 1 picoseconds, from 0.26 microseconds to 0.27 s: the last whole picosecond below
2**n, where a bucket of every record's histogram starts, so that ``le`` counts exactly"""


def bucket_bounds() -> tuple[tuple[int, float], ...]:
    """The first bucket of a record's histogram that lies above each bound, and the bound in seconds."""
    half = 1 << (SUB_BUCKET_BITS - 1)
    return tuple(
        ((bits - SUB_BUCKET_BITS + 1 << SUB_BUCKET_BITS) + half, ((1 << bits) - 1) / 1e12)
        for bits in BUCKET_BITS
    )


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


@cache
def series_per_cell(intervals: Intervals = "all") -> int:
    """How many series one cell of a sweep becomes; what a planner multiplies by its cells."""
    gauges = sum(len(metric.sources) for metric in result_metrics(intervals)) + len(CELL_METRICS)
    # with the bucket of what lies above, sum and count
    return gauges + len(HISTOGRAM_METRICS) * (len(BUCKET_BITS) + 3)
