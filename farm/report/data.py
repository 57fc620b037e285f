"""What a report shows, as one JSON document.

Lists run along the cells, so that a thousand cells stay small: ``cells.at`` has each cell's place on each
axis, a measure's ``median`` has a value or null for each cell.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from farm import profiles, query, tables
from farm.execution import rounds
from farm.plan import Plan
from farm.query import Cell
from farm.report.answer import answer, unit_of_work
from farm.store import answers
from farm.store.answers import Answer
from farm.store.runs import Run
from workers.config import field, fields
from workers.fields.groups import Value
from workers.measures import CATEGORIES, LOCATIONS, MEASURES, Measure
from workers.profiles.parameters import PARAMETERS

WITH_INTERVALS = (*tables.HEADLINES, *tables.DETAILS, "latency_p50_ns", "latency_p99_ns", "hold_max_ns")
"""measures whose smallest and largest value over the seeds is shown"""

FIRST_MEASURES = (*tables.HEADLINES, "latency_p99_ns")
"""what a reader looks for first; the others follow in the order of the catalogue"""

LOG_SPAN = 8
"""numbers that span this factor are drawn along a logarithmic axis"""

MOST_FAILURES = 200
"""failures that are listed; all are counted"""

MOST_MESSAGE = 2000
"""characters of a failure's message"""


def report(run: Run) -> dict[str, Any]:
    """All that the page of a run shows.

    Raises:
        farm.errors.StoreError: the run is damaged.
        workers.errors.TrialError: its sweep holds values that no trial can have.
    """
    cells = query.cells(run)
    plan = Plan(run.sweep)
    failures = run.failures()
    recorded = sum(cell.seeds for cell in cells)
    place = {id(cell): number for number, cell in enumerate(cells)}
    found = answer(run.sweep, cells)
    return {
        "sweep": run.sweep_name,
        "run": run.name,
        "per": unit_of_work(cells),
        "question": found.question,
        "answer": found.sentences,
        "trials": {"planned": rounds.trials_of(plan, run), "recorded": recorded, "failed": len(failures)},
        "planned_cells": plan.cells,
        "axes": _axes(run),
        "cells": {"at": _places(run, cells), "seeds": [cell.seeds for cell in cells]},
        "measures": _measures(cells),
        "gains": [
            {
                "on": place[id(gain.on)],
                "off": place[id(gain.off)],
                "gain": gain.gain,
                "low": bounds[0],
                "high": bounds[1],
            }
            for gain in query.gains(cells)
            for bounds in [query.gain_bounds(gain)]
        ],
        "categories": [[f"{name}_ns_per_packet", name] for name in CATEGORIES],
        "locations": [[f"pages_in_{name}", name] for name in LOCATIONS],
        "provenance": _provenance(run, cells),
        "answers": [
            {"title": one.title, "sentences": one.sentences, "tables": [t.model_dump() for t in one.tables]}
            for one in kept_answers(run)
        ],
        "failures": [
            {"kind": one["kind"], "message": one["message"][:MOST_MESSAGE], "fields": _failed_on(run, one)}
            for one in failures[:MOST_FAILURES]
        ],
    }


def kept_answers(run: Run) -> list[Answer]:
    """Those of the run's store that are about it, its sweep, or nothing in the store.

    Raises:
        farm.errors.StoreError: one is garbled.
    """
    store = run.place.parent.parent
    found = answers.read(store, answers.names(store))
    return [one for one in found.values() if one.is_about(run.name, run.sweep_name)]


def _axes(run: Run) -> list[dict[str, Any]]:
    found = []
    for name, values in run.sweep.axes().items():
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(values) or not numbers:
            numbers = []
        found.append(
            {
                "name": name,
                "description": field(name).description,
                "values": [tables.word(value) for value in values],
                "numbers": numbers or None,
                "log": bool(numbers) and min(numbers) > 0 and max(numbers) >= LOG_SPAN * min(numbers),
            }
        )
    return found


def _places(run: Run, cells: Sequence[Cell]) -> list[list[int]]:
    order = {name: {value: i for i, value in enumerate(values)} for name, values in query.axes(run).items()}
    return [[order[name][cell.fields[name]] for name in cell.axes] for cell in cells]


def _measures(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Measures that are anything but 0 in some cell, and those that stand in every table."""
    ranks = {name: rank for rank, name in enumerate(FIRST_MEASURES)}
    found = []
    for measure in sorted(MEASURES, key=lambda measure: ranks.get(measure.name, len(ranks))):
        medians = [_finite(cell.measures.get(measure.name)) for cell in cells]
        if any(medians) or (measure.name in ranks and any(value is not None for value in medians)):
            found.append(_measure(measure, cells, medians))
    return found


def _measure(measure: Measure, cells: Sequence[Cell], medians: Sequence[float | None]) -> dict[str, Any]:
    column: dict[str, Any] = {**measure._asdict(), "median": medians}
    if measure.name in WITH_INTERVALS:
        column["low"] = [_finite(cell.low.get(measure.name)) for cell in cells]
        column["high"] = [_finite(cell.high.get(measure.name)) for cell in cells]
    return column


def _finite(value: float | None) -> float | None:
    """JSON has no other numbers."""
    return value if value is not None and math.isfinite(value) else None


def _provenance(run: Run, cells: Sequence[Cell]) -> dict[str, Any]:
    starts = ("started_at", "host", "executor", "platform", "machine", "cpus")
    archs = dict.fromkeys(str(cell.fields["arch"]) for cell in cells)
    defaults = {one.name: one.default for one in fields()}
    return {
        "drivers": [{name: found.get(name, "") for name in starts} for found in run.manifests()],
        "origins": [row | {"versions": _versions(row["versions"])} for row in query.origins(run)],
        "estimates": profiles.estimates(archs),
        "parameters": len(PARAMETERS),
        "fixed": {
            name: tables.word(value) for name, value in run.sweep.fixed.items() if value != defaults[name]
        },
        "seeds": [run.sweep.least_seeds, run.sweep.seeds],
        "sweep_toml": run.sweep.to_toml(),
    }


def _versions(text: str) -> dict[str, str]:
    return {str(name): str(version) for name, version in json.loads(text).items()}


def _failed_on(run: Run, failure: Mapping[str, Any]) -> dict[str, str]:
    """The swept fields of a failed trial, and its seed."""
    config: dict[str, Value] = json.loads(failure["config"])
    return {name: tables.word(config[name]) for name in (*run.sweep.axes(), "seed") if name in config}
