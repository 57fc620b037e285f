"""The gate's proof: runs of the same model give no alarm in a thousand pairs, and each change seeded into the
sources is found on every architecture and in every cell where it must show, and in no other.

Where that is say the unchanged model's own records, see ``seeded_changes``; what differs is known beside the
gate from all that the stored rows hold, histograms included. Changed models run as plain Python, which needs
no compilation and gives the same records. ``pytest -rP`` prints the figures.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from farm.answers import gate
from farm.answers.compare import compare_runs
from farm.cli.options import EXIT_CHECK_SAID_NO, EXIT_INCOMPARABLE
from farm.store.runs import Run
from tests.farm import seeded_changes
from tests.farm.seeded_changes import (
    SCENARIOS,
    Cell,
    Change,
    Row,
    cell_of,
    run_changed,
    run_farm,
    scenario_of,
)
from workers.measures import COUNTERS
from workers.profiles import arch

Farm = Callable[..., tuple[int, str, str]]
Runs = Mapping[str, Future[Run]]

SEEDS = 5
"""of each cell of the runs that are compared without a change"""

PAIRS = 1000
"""of them, at least"""

METERED = ("overflow", "redirected", "fragments", "early drop of fragments")
"""scenarios in which all increments of counters that have several count"""

CHANGES = {change.name: change for change in seeded_changes.changes()}

DROPPED = tuple(name for name in CHANGES if name.startswith("no "))
WHOLE = tuple(name for name in CHANGES if name not in DROPPED)
OFTEN = ("no alloc_refill", "no alloc_waive", "no recycle_ring_full")
"""one that the audit refuses, one that only some architectures have, two of one counter"""
ALWAYS = (
    *WHOLE,
    *(name for name in DROPPED if name.split("#")[0] in OFTEN),
)
"""changes that are tried each time, some of each kind"""

NOWHERE = {"no alloc_slow_high_order#1 in _alloc_high_order"}
"""no pool of a trial has pages of an order above 0"""
WITH_TWO_NODES = {"no alloc_waive#1 in _take_from_ring"}


class Recorded(NamedTuple):
    """What the unchanged model gave."""

    base: Run
    """all scenarios on all architectures"""
    again: Run
    """the same, in another process"""
    weighed: Run
    """some scenarios, with increments told apart"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    text = seeded_changes.sweep([*SCENARIOS], SEEDS)
    base, again, weighed = (tmp_path_factory.mktemp(name) for name in Recorded._fields)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        started = [
            threads.submit(run_farm, text, base / "runs"),
            threads.submit(run_farm, text, again / "runs"),
            threads.submit(run_changed, seeded_changes.weighted(), METERED, 1, weighed),
        ]
        return Recorded(*(one.result() for one in started))


@pytest.fixture(scope="module")
def base(recorded: Recorded) -> Run:
    return recorded.base


@pytest.fixture(scope="module")
def rows(recorded: Recorded) -> list[Row]:
    """The base's records, those of some scenarios metered."""
    return seeded_changes.metered(recorded.base.read_records(), recorded.weighed.read_records())


def by_trial(run_rows: list[Row]) -> dict[tuple[Cell, int], dict[str, Any]]:
    """All that is stored of each trial, but for its id, in which the model has a part."""
    beside = {"trial_id", seeded_changes.METERED}
    return {
        (cell_of(row), row["seed"]): {name: value for name, value in row.items() if name not in beside}
        for row in run_rows
    }


# Without a change


def test_a_thousand_pairs_without_a_change_give_no_alarm(recorded: Recorded, farm: Farm) -> None:
    base, again = recorded.base, recorded.again
    code, output, errors = farm("gate", str(base.path), str(again.path), "--json")
    assert errors == ""
    found = json.loads(output)
    assert (code, found["passed"], found["broken"]) == (0, True, [])
    compared = compare_runs(base, again)
    assert compared.unpaired == (0, 0)
    assert sum(compared.seeds) >= PAIRS
    assert {fields["arch"] for fields in compared.cells} == set(arch.names())
    assert {str(one) for found in compared.measures.values() for one in found.verdicts} == {"same", ""}
    assert base.canonical_records() == again.canonical_records()


def test_each_change_must_show_on_every_architecture(rows: list[Row]) -> None:
    """Or there would be nothing to find: on each that can do what is changed, in one scenario at least."""
    assert {one.counter for one in seeded_changes.increments()} == set(COUNTERS)
    capable = {name for name in arch.names() if seeded_changes.has_two_nodes(name)}
    for name, change in CHANGES.items():
        expected = set(arch.names())
        if name in NOWHERE:
            expected = set()
        elif name in WITH_TWO_NODES:
            expected = capable
        assert {row["arch"] for row in rows if change.shows(row)} == expected, name


# With one


def telling_scenarios(change: Change, rows: list[Row]) -> list[str]:
    """The scenario in which a change must show on most architectures, and the first in which it may on
    none."""
    of = {name: [row for row in rows if scenario_of(row) == name] for name in SCENARIOS}
    must = {name: {row["arch"] for row in of[name] if change.shows(row)} for name in SCENARIOS}
    silent = [name for name in SCENARIOS if all(change.shows(row) is False for row in of[name])]
    return list(dict.fromkeys([max(SCENARIOS, key=lambda name: len(must[name])), silent[0]]))


def check(change: Change, base: Run, rows: list[Row], changed: Run, farm: Farm) -> None:
    """The gate finds all that differs; that is what must, and nothing that may not.

    Where the audit refuses a trial, the gate refuses the run and says so.
    """
    before, after = by_trial(rows), by_trial(changed.read_records())
    configs = [json.loads(row["config"]) for row in changed.failures()]
    failed = {(cell_of(config), config["seed"]) for config in configs}
    differing = {cell for (cell, seed), row in after.items() if row != before[cell, seed]}
    tried = [row for row in rows if (cell_of(row), row["seed"]) in after.keys() | failed]
    assert len(tried) == len(after) + len(failed)
    must = {cell_of(row) for row in tried if change.shows(row)}
    may = {cell_of(row) for row in tried if change.shows(row) is not False}

    code, output, errors = farm("gate", str(base.path), str(changed.path), "--across", "model", "--json")
    refused = {cell for cell, _ in failed}
    if failed:
        assert (code, output) == (EXIT_INCOMPARABLE, "")
        assert f"{len(failed)} of its trials failed" in errors
        rest = compare_runs(base, changed, ["model"])
        found = {cell_of(rest.cells[one.cell]) for one in gate.broken(rest, gate.STRICT)}
    else:
        found = {cell_of(one["fields"]) for one in json.loads(output)["broken"]}
        assert code == (EXIT_CHECK_SAID_NO if found else 0)
    assert found == differing
    assert must <= refused | found <= may
    print(
        f"{change.name}: {len(tried)} pairs in {len({cell_of(row) for row in tried})} cells; must show in "
        f"{len(must)} cells on {len({cell[0] for cell in must})} architectures, {len(may - must)} cells may; "
        f"found in {len(found - refused)}, refused by the audit in {len(refused)}"
    )


@pytest.fixture(scope="module")
def telling(base: Run, rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Runs with some changes of the scenarios that tell most, side by side."""
    first = [row for row in rows if row["seed"] == 0]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = {}
        for name in ALWAYS:
            scenarios = telling_scenarios(CHANGES[name], first)
            directory = tmp_path_factory.mktemp("changed")
            found[name] = threads.submit(run_changed, [CHANGES[name]], scenarios, 1, directory)
        yield found


def test_a_changed_model_is_not_compared_unasked(base: Run, telling: Runs, farm: Farm) -> None:
    code, output, errors = farm("gate", str(base.path), str(telling["cache of 127"].result().path))
    assert (code, output) == (EXIT_INCOMPARABLE, "")
    assert "--across model: model is" in errors


@pytest.mark.parametrize("name", ALWAYS)
def test_a_change_is_found_where_it_must_show_and_nowhere_else(
    name: str, base: Run, rows: list[Row], telling: Runs, farm: Farm
) -> None:
    check(CHANGES[name], base, rows, telling[name].result(), farm)


@pytest.mark.long
def test_plain_python_from_a_copy_gives_no_alarm(base: Run, tmp_path: Path, farm: Farm) -> None:
    """What is found with a change is not due to how it is run."""
    copied = run_changed([], [*SCENARIOS], 1, tmp_path)
    code, output, _ = farm("gate", str(base.path), str(copied.path), "--json")
    found = json.loads(output)
    cells = {cell_of(row) for row in base.read_records()}
    assert (code, found["broken"], found["cells"]) == (0, [], len(cells))


@pytest.mark.long
def test_a_dropped_increment_is_found_in_every_scenario(
    base: Run, rows: list[Row], tmp_path: Path, farm: Farm
) -> None:
    directories = [tmp_path / str(number) for number in range(len(DROPPED))]

    def run(name: str, directory: Path) -> Run:
        return run_changed([CHANGES[name]], [*SCENARIOS], 1, directory)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for name, changed in zip(DROPPED, threads.map(run, DROPPED, directories), strict=True):
            check(CHANGES[name], base, rows, changed, farm)


@pytest.mark.long
@pytest.mark.parametrize("name", WHOLE)
def test_a_change_is_found_in_the_same_thousand_pairs(
    name: str, base: Run, rows: list[Row], tmp_path: Path, farm: Farm
) -> None:
    """All that were compared without a change, by the compiled model; but for the few on two nodes, for which
    it would have to be compiled again."""
    scenarios = [scenario for scenario in SCENARIOS if scenario != "moved"]
    changed = run_changed([CHANGES[name]], scenarios, SEEDS, tmp_path, plain=False)
    assert len(changed.read_records()) >= PAIRS
    check(CHANGES[name], base, rows, changed, farm)
