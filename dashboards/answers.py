"""Names of the metrics of answers that were kept: what compare, gate, advise and doctor found.

Each has the label ``answer``, the name of the answer's file, beside its own.
"""

from dashboards.catalogue import PREFIX, Unit
from dashboards.health import HealthMetric

ANSWER_LABEL = "answer"

_SIDES = ("base", "other")


def _metric(name: str, text: str, *labels: str) -> HealthMetric:
    unit: Unit = "ratio" if name.endswith("_ratio") else "bytes" if name.endswith("_bytes") else ""
    return HealthMetric(PREFIX + name, text, unit, (ANSWER_LABEL, *labels))


COMPARED_CELLS = _metric(
    "compared_cells", "cells of a kept comparison by the verdict on a measure", *_SIDES, "measure", "verdict"
)
COMPARED_CHANGE = _metric(
    "compared_change_ratio", "other / base - 1 of a measure, median of the cells", *_SIDES, "measure"
)
GATE_PASSED = _metric("gate_passed", "1 if a kept gate let the other side pass, else 0", *_SIDES)
GATE_CELLS = _metric("gate_cells", "cells that a kept gate compared", *_SIDES)
GATE_BROKEN = _metric(
    "gate_broken_cells", "cells in which a kept gate did not let a measure through", *_SIDES, "measure"
)
ADVISED_SIZE = _metric("advised_pool_size", "smallest pool.size that keeps the targets", "sweep", "cell")
ADVISED_RING = _metric(
    "advised_ring_bytes", "memory that the ring of one queue may keep at that size", "sweep", "cell"
)
ADVICE_NEW_PAGES = _metric(
    "advice_new_pages_ratio",
    "allocations that need new pages, by size of the pool",
    "sweep",
    "cell",
    "pool_size",
)
DIAGNOSIS = _metric(
    "diagnosis", "regime of a host's pools: always 1, the labels say it", "source", "pools", "regime"
)
DIAGNOSIS_EVIDENCE = _metric(
    "diagnosis_evidence", "figures made of the host's counters that show it", "source", "pools", "evidence"
)

ANSWER_METRICS = (
    COMPARED_CELLS,
    COMPARED_CHANGE,
    GATE_PASSED,
    GATE_CELLS,
    GATE_BROKEN,
    ADVISED_SIZE,
    ADVISED_RING,
    ADVICE_NEW_PAGES,
    DIAGNOSIS,
    DIAGNOSIS_EVIDENCE,
)
