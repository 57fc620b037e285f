"""What is kept of each kind of answer: words and tables for the report, figures for Prometheus."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy

from dashboards import answers as catalogue
from dashboards.health import HealthMetric
from farm.answers import advise_output, comparison_tables
from farm.answers.advise import Advice
from farm.answers.compare import Comparison
from farm.answers.doctor import report as diagnoses
from farm.answers.doctor.regimes import Diagnosis
from farm.answers.doctor.report import Report
from farm.answers.gate import Broken
from farm.store.answers import Answer, Figure, Table
from farm.store.runs import Run

ALL_POOLS, DETACHED_POOLS = "all", "detached"

ONLY_CELL = "the only one"
"""where a sweep has no axis but the pool's size: Prometheus has no empty labels"""


def of_comparison(found: Sequence[Comparison], measures: Sequence[str], runs: Sequence[Run]) -> Answer:
    """Arguments:
    measures: those that are shown.
    runs: that were compared; none of samples.
    """
    return Answer(
        kind="comparison",
        title="; ".join(f"{one.base} (base) against {one.other}" for one in found) + _of(runs),
        about=tuple(run.name for run in runs),
        sentences=tuple(line for one in found for line in comparison_tables.sentences(one, measures)),
        tables=tuple(table for one in found for table in comparison_tables.tables_of(one, measures)),
        figures=tuple(figure for one in found for figure in _compared(one, measures, runs)),
    )


def _of(runs: Sequence[Run]) -> str:
    """Sides of one run do not name it."""
    return f" in {runs[0].name}" if len(runs) == 1 else ""


def _compared(found: Comparison, measures: Sequence[str], runs: Sequence[Run]) -> Iterator[Figure]:
    for measure in measures:
        sides = (found.base + _of(runs), found.other + _of(runs), measure)
        for verdict, count in comparison_tables.verdicts(found, measure).items():
            yield _figure(catalogue.COMPARED_CELLS, count, *sides, verdict)
        if measure in found.measures:
            columns = found.measures[measure]
            there = (columns.base != 0) & ~numpy.isnan(columns.difference)
            if there.any():
                change = numpy.median(columns.other[there] / columns.base[there] - 1)
                yield _figure(catalogue.COMPARED_CHANGE, float(change), *sides)


def of_gate(found: Comparison, broken: Sequence[Broken], runs: Sequence[Run]) -> Answer:
    """Arguments:
    runs: that were compared; none of samples.
    """
    sides = (found.base, found.other)
    by_measure = Counter(one.measure for one in broken)
    return Answer(
        kind="gate",
        title=f"Gate from {found.base} to {found.other}: {'FAILED' if broken else 'passed'}",
        about=tuple(run.name for run in runs),
        sentences=(comparison_tables.gate_sentence(found, broken), *comparison_tables.caveats(found)),
        tables=(comparison_tables.broken_table(found, broken),) if broken else (),
        figures=(
            _figure(catalogue.GATE_PASSED, not broken, *sides),
            _figure(catalogue.GATE_CELLS, len(found.cells), *sides),
            *(_figure(catalogue.GATE_BROKEN, count, *sides, name) for name, count in by_measure.items()),
        ),
    )


def of_advice(found: Sequence[Advice], sweep: str, queues: int) -> Answer:
    """Arguments:
    queues: of the host, for the price of a step.
    """
    several = len(found) > 1
    return Answer(
        kind="advice",
        title=f"Size of the pool for {sweep}",
        about=(sweep,),
        sentences=tuple(
            f"{advise_output.title(advice)}: {line}" if several else line
            for advice in found
            for line in advise_output.sentences(advice, queues)
        ),
        tables=tuple(advise_output.table_of(advice) for advice in found),
        figures=tuple(figure for advice in found for figure in _advised(advice, sweep)),
    )


def _advised(advice: Advice, sweep: str) -> Iterator[Figure]:
    cell = (sweep, advise_output.title(advice) or ONLY_CELL)
    if advice.chosen is not None:
        yield _figure(catalogue.ADVISED_SIZE, advice.chosen.size, *cell)
        yield _figure(catalogue.ADVISED_RING, advice.chosen.ring_bytes, *cell)
    for step in advice.steps:
        new_pages = 1 - step.worst["recycle_ratio"]
        yield _figure(catalogue.ADVICE_NEW_PAGES, new_pages, *cell, str(step.size))


def of_diagnosis(found: Report, source: str) -> Answer:
    """Arguments:
    source: whose counters they are.
    """
    by_pools = {ALL_POOLS: found.together, **{f"pool {name}": one for name, one in found.differing.items()}}
    if found.detached is not None:
        by_pools[DETACHED_POOLS] = found.detached
    return Answer(
        kind="diagnosis",
        title=f"{source}: {found.together.regime}",
        about=(),
        sentences=tuple(
            line.strip() for line in diagnoses.lines(found) if line and not line.startswith("  ")
        ),
        tables=tuple(_evidence(pools, one) for pools, one in by_pools.items()),
        figures=tuple(figure for pools, one in by_pools.items() for figure in _diagnosed(source, pools, one)),
    )


def _evidence(pools: str, found: Diagnosis) -> Table:
    return Table(
        title=f"{pools}: {found.regime}; {found.remedy}",
        heads=("figure", "made of", "value"),
        rows=tuple((one.name, one.of, f"{one.value:,.3g}") for one in found.evidence),
        text_columns=2,
    )


def _diagnosed(source: str, pools: str, found: Diagnosis) -> Iterator[Figure]:
    yield _figure(catalogue.DIAGNOSIS, 1, source, pools, found.regime)
    for one in found.evidence:
        yield _figure(catalogue.DIAGNOSIS_EVIDENCE, one.value, source, pools, one.name)


def _figure(metric: HealthMetric, value: float, *labels: str) -> Figure:
    # without the first label, the answer's name, which whoever shows it adds
    return Figure(metric=metric.name, labels=dict(zip(metric.labels[1:], labels, strict=True)), value=value)
