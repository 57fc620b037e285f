"""The cells of a run as samples of metrics."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from dashboards import catalogue
from dashboards.catalogue import HistogramMetric, Intervals
from farm.query import Cell, Merged
from workers.books.histogram import bucket_low_ps
from workers.fields.groups import Value

MOST_LABEL_CHARACTERS = 120
"""of a label's value; what is longer is cut and told apart by a hash"""

Samples = Mapping[str, Sequence[Sample]]
"""by name of the metric"""

_NS_PER_SECOND = 1e9
_PS_PER_SECOND = 1e12


def samples(sweep_name: str, cells: Sequence[Cell], histograms: Sequence[Mapping[str, Merged]]) -> Samples:
    """What the cells of a sweep look like, with all intervals.

    Arguments:
        histograms: of each cell, by column of the record.
    """
    found: dict[str, list[Sample]] = {name: [] for name in catalogue.CELL_METRICS}
    found |= {metric.name: [] for metric in catalogue.result_metrics()}
    found |= {metric.name: [] for metric in catalogue.HISTOGRAM_METRICS}
    for cell, merged in zip(cells, histograms, strict=True):
        labels = _cell_labels(sweep_name, cell)
        statistics = {"median": cell.measures, "low": cell.low, "high": cell.high}
        size = cell.fields["pool.size"]
        found[catalogue.POOL_SIZE].append(Sample(catalogue.POOL_SIZE, labels, float(size)))
        found[catalogue.SEEDS].append(Sample(catalogue.SEEDS, labels, cell.seeds))
        for metric in catalogue.result_metrics():
            for source in metric.sources:
                value = metric.value(source, statistics[metric.statistic])
                if value is not None:
                    own = labels | {metric.label: source.part} if metric.label else labels
                    found[metric.name].append(Sample(metric.name, own, value))
        for histogram in catalogue.HISTOGRAM_METRICS:
            found[histogram.name] += _buckets(histogram, labels, merged[histogram.column])
    return found


def families(runs: Sequence[tuple[Samples, Intervals]]) -> Iterator[Metric]:
    """The families of several sweeps together, of each with the intervals that it can afford."""
    for name, text in catalogue.CELL_METRICS.items():
        yield _filled(GaugeMetricFamily(name, text), [found for found, _ in runs])
    some = {metric.name for metric in catalogue.result_metrics("some")}
    for metric in catalogue.result_metrics():
        shown = [found for found, intervals in runs if intervals == "all" or metric.name in some]
        yield _filled(GaugeMetricFamily(metric.name, metric.help, unit=metric.unit), shown)
    for histogram in catalogue.HISTOGRAM_METRICS:
        family = HistogramMetricFamily(histogram.name, histogram.help, unit="seconds")
        yield _filled(family, [found for found, _ in runs])


def label_value(value: Value) -> str:
    """A field's value as a label: booleans in small letters; control characters and great length give way to
    a hash, by which different values stay different."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if len(text) <= MOST_LABEL_CHARACTERS and text.isprintable():
        return text
    plain = "".join(character if character.isprintable() else " " for character in text)
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{plain[: MOST_LABEL_CHARACTERS - 13]}#{digest}"


def _filled(family: Metric, runs: Sequence[Samples]) -> Metric:
    for found in runs:
        family.samples.extend(found.get(family.name, ()))
    return family


def _cell_labels(sweep_name: str, cell: Cell) -> dict[str, str]:
    names = dict.fromkeys((*catalogue.CELL_FIELDS, *cell.axes))
    values = {catalogue.axis_label(name): label_value(cell.fields[name]) for name in names}
    return {catalogue.SWEEP_LABEL: sweep_name, **values}


def _buckets(metric: HistogramMetric, labels: Mapping[str, str], merged: Merged) -> Iterator[Sample]:
    """Nothing where nothing was counted: the cell has no such distribution."""
    if not merged.counts:
        return
    ordered = sorted(merged.counts.items())
    position = below = 0
    for first_above, bound in catalogue.bucket_bounds():
        while position < len(ordered) and ordered[position][0] < first_above:
            below += ordered[position][1]
            position += 1
        yield Sample(f"{metric.name}_bucket", {**labels, "le": repr(bound)}, below)
    count = sum(merged.counts.values())
    if metric.mean:
        total = merged.sum_ns / _NS_PER_SECOND
    else:
        total = sum(bucket_low_ps(bucket) * n for bucket, n in ordered) / _PS_PER_SECOND
    yield Sample(f"{metric.name}_bucket", {**labels, "le": "+Inf"}, count)
    yield Sample(f"{metric.name}_count", dict(labels), count)
    yield Sample(f"{metric.name}_sum", dict(labels), total)
