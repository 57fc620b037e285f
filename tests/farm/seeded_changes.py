"""Changes of the model's sources made on purpose, each in a copy of the packages from which the command runs.

Each says by a record of the unchanged model whether it must show in that trial: from what the trial counted,
without a warm-up and so from the moment when the receive ring was full, and without anything of what compares
runs.
"""

import ast
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from farm.cli.options import EXIT_FAILED_TRIALS
from farm.store.runs import Run, find
from workers.config import TrialConfig
from workers.fields.groups import Value
from workers.measures import COUNTERS
from workers.profiles import arch

ROOT = Path(__file__).parents[2]
PACKAGES = ("farm", "workers", "pool_impl", "dashboards")

SLOW_READER: Mapping[str, Value] = {"app.reader": "slow", "app.work_ns": 2000}
FEW: Mapping[str, Value] = {"traffic.kind": "poisson", "traffic.rate_pps": 30_000}
FRAGMENTS: Mapping[str, Value] = {"driver.model": "fragments", "traffic.packet_size": 1024}

SCENARIOS: Mapping[str, Mapping[str, Value]] = {
    "recycling off": {"pool.recycle": False, **FEW},
    "no pool": {"driver.model": "page-allocator", **FEW},
    "overflow": {
        "pool.size": 8,
        "traffic.burst_packets": 20,
        "traffic.rate_pps": 140_000,
        "memory.reserves_at_ms": 0,
        "memory.reserves_ms": 2,
        **SLOW_READER,
    },
    "direct": {
        "xdp.pass_percent": 0,
        "xdp.drop_percent": 100,
        "nic.budget": 256,
        "nic.rx_ring": 256,
        "traffic.burst_packets": 200,
        "traffic.rate_pps": 150_000,
    },
    "redirected": {
        "pool.size": 16,
        "xdp.pass_percent": 0,
        "xdp.redirect_percent": 100,
        "xdp.redirect_to": "device",
    },
    "fragments": {**FRAGMENTS, **SLOW_READER},
    "early drop of fragments": {**FRAGMENTS, "traffic.burst_packets": 100, "nic.link_gbps": 100},
    "moved": {
        "numa.nodes": 2,
        "life.event": "irq-moved",
        "life.at_ms": 1,
        "traffic.kind": "constant",
        "app.reader": "fast",
    },
    "early drop": {},
    "large pool": {"pool.size": 4096, "traffic.burst_packets": 200, **SLOW_READER},
    "local": {"kernel": "6.12", "app.reader": "fast", "app.reader_cpu": "same"},
    "sent again": {"xdp.pass_percent": 40, "xdp.drop_percent": 30, "xdp.tx_percent": 30, "pool.size": 64},
    "merged": {"app.protocol": "tcp", "stack.gro": True, "traffic.flows": 4, **SLOW_READER},
}
"""what happens in them, beside FIXED; together they execute all increments but one, see the tests. In the
first nothing comes back to a pool, the second has none; only machines with two nodes have ``moved``"""

FIXED: Mapping[str, Value] = {
    "duration_ms": 2,
    "warmup_ms": 0,
    "traffic.kind": "bursts",
    "traffic.burst_packets": 60,
    "traffic.rate_pps": 100_000,
    "nic.rx_ring": 64,
    "app.reader_cpu": "other",
    "app.socket_bytes": 16_777_216,
}

AXES = tuple(sorted({name for fields in SCENARIOS.values() for name in fields}))
"""what scenarios differ in; with the architecture it names a cell"""

Row = Mapping[str, Any]
"""a stored record, or its fields"""

Cell = tuple[str, ...]


def cell_of(row: Row) -> Cell:
    """The cell of a record or failure, or of a pair in the gate's output."""
    return (str(row["arch"]), *(str(row[name]) for name in AXES))


def scenario_of(row: Row) -> str:
    """The name of a record's scenario."""
    return _scenarios()[cell_of(row)[1:]]


@cache
def _scenarios() -> Mapping[Cell, str]:
    """By the values of the axes."""
    known = {**TrialConfig().to_fields(), **FIXED}
    return {
        tuple(str({**known, **fields}[axis]) for axis in AXES): name for name, fields in SCENARIOS.items()
    }


def has_two_nodes(name: str) -> bool:
    """Whether this architecture is one of machines with several sockets."""
    return int(arch.load(name)["sockets"]) > 1


def sweep(scenarios: Sequence[str], seeds: int) -> str:
    """A sweep of these scenarios on all bundled architectures."""
    known = {**TrialConfig().to_fields(), **FIXED}
    columns = {name: [SCENARIOS[scenario].get(name, known[name]) for scenario in scenarios] for name in AXES}
    one_node = [name for name in arch.names() if not has_two_nodes(name)]
    lines = ['name = "proof"', f"seeds = {seeds}", "[fixed]"]
    lines += [f"{name} = {_toml(value)}" for name, value in FIXED.items() if name not in AXES]
    lines += ["[grid]", f"arch = {_toml(arch.names())}", "[zip]"]
    lines += [f"{name} = {_toml(values)}" for name, values in columns.items()]
    if "moved" in scenarios:
        lines += ["[[exclude]]", f"arch = {_toml(one_node)}", "numa.nodes = [2]"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower()


# Changes


class Change(NamedTuple):
    """One line of one source changed."""

    name: str
    path: str
    """of the source, under the root"""
    line: int
    """counted from 0"""
    before: str
    """the line, without what it is indented by"""
    after: str
    shows: Callable[[Row], bool | None]
    """whether it must show in a trial with this record, or None if it may"""

    def apply(self, source: str) -> str:
        """The changed source; it differs in this line only."""
        lines = source.splitlines(keepends=True)
        assert lines[self.line].strip() == self.before
        lines[self.line] = lines[self.line].replace(self.before, self.after)
        changed = "".join(lines)
        assert [
            pair for pair in zip(source.splitlines(), changed.splitlines(), strict=True) if len({*pair}) > 1
        ]
        ast.parse(changed)
        return changed


def _replaced(name: str, path: str, before: str, after: str, shows: Callable[[Row], bool | None]) -> Change:
    """A change of the only line that reads so."""
    lines = (ROOT / path).read_text().splitlines()
    [number] = [number for number, line in enumerate(lines) if line.strip() == before]
    return Change(name, path, number, before, after, shows)


def one_cycle_more() -> Change:
    """Each page offered to the ring costs one cycle of the architecture more, also where the ring is full."""
    before = "_price_bulk_call(meter)"
    cycle = 'picoseconds(1 / profile["clock_ghz"])'
    return _replaced(
        "one cycle more",
        "workers/pricing/cost.py",
        before,
        f"{before}; meter.price_ps[observe.RING_PRODUCE] += {cycle}",
        lambda row: row["recycle_ring"] + row["recycle_ring_full"] > 0,
    )


def cache_of_127() -> Change:
    """The cache of a pool holds one page less. It must show where it was full; where pages have come back to
    it and it was not found full, the 128th place may have been used or not."""

    def shows(row: Row) -> bool | None:
        if row["recycle_cache_full"]:
            return True
        return None if row["recycle_cached"] else False

    return _replaced("cache of 127", "pool_impl/layout.py", "CACHE_SIZE = 128", "CACHE_SIZE = 127", shows)


class Increment(NamedTuple):
    """A statement that counts."""

    path: str
    line: int
    """counted from 0"""
    text: str
    counter: str
    function: str
    place: int
    """among the increments of its counter"""

    @property
    def name(self) -> str:
        return f"{self.counter}#{self.place + 1} in {self.function}"


@cache
def increments() -> tuple[Increment, ...]:
    """Every statement of the allocator that adds to a counter of the kernel's statistics."""
    found: list[Increment] = []
    for path in sorted((ROOT / "pool_impl").glob("*.py")):
        source = path.read_text()
        functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        inside = [(outer.name, node) for outer in functions for node in ast.walk(outer)]
        counting = [(name, node) for name, node in inside if isinstance(node, ast.AugAssign | ast.Assign)]
        for function, node in sorted(counting, key=lambda one: one[1].lineno):
            if counter := _counter(node):
                assert isinstance(node, ast.AugAssign), f"{path.name}:{node.lineno}: sets a counter"
                text = ast.get_source_segment(source, node) or ""
                place = sum(one.counter == counter for one in found)
                where = str(path.relative_to(ROOT))
                found.append(Increment(where, node.lineno - 1, text, counter, function, place))
    return tuple(found)


def _counter(node: ast.AugAssign | ast.Assign) -> str:
    """The counter that a statement changes, or nothing."""
    target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
    name = ""
    if isinstance(target, ast.Attribute):
        name = target.attr
    elif isinstance(target, ast.Subscript) and ast.unparse(target.value).endswith(".recycle"):
        name = ast.unparse(target.slice).strip("()").split(", ")[-1].lower()
    return name if name in COUNTERS else ""


@cache
def shared_counters() -> frozenset[str]:
    """Those with several increments."""
    times = Counter(one.counter for one in increments())
    return frozenset(name for name in COUNTERS if times[name] > 1)


FILLING = ("alloc_fast", "alloc_slow", "alloc_empty")
"""counted before a record begins too, as the receive ring is filled; what the audit checks of them is all"""


def dropped(one: Increment) -> Change:
    """Without an increment. It must show where that is what counted; where it is not known which of several
    increments counted, or whether it did before the record began, it may."""

    def shows(row: Row) -> bool | None:
        counted = row[one.counter]
        if counted and one.counter in shared_counters():
            if METERED not in row:
                return None
            counted = row[METERED][one.name]
        if counted:
            return True
        return None if one.counter in FILLING and row["pages_inflight"] else False

    return Change(f"no {one.name}", one.path, one.line, one.text, "pass", shows)


def changes() -> list[Change]:
    """All of them."""
    return [one_cycle_more(), cache_of_127(), *(dropped(one) for one in increments())]


# Which increment counted

METERED = "metered"
"""key of a row beside what is stored: how often each increment counted, of counters that have several"""

BITS = 16
"""of a counter for each of its increments, of the 53 that a stored number has"""


def weighted() -> list[Change]:
    """Changes after which a counter with several increments tells them apart. The audit, which would refuse
    what they add up to, is off."""
    audit = _replaced("no audit", "workers/audit.py", "_counters(walk, tally)", "pass", lambda _: None)
    found = [audit]
    for one in increments():
        if one.counter in shared_counters():
            target, amount = one.text.split(" += ")
            text = f"{target} += {amount} << {BITS * one.place}"
            found.append(Change(f"weighted {one.name}", one.path, one.line, one.text, text, lambda _: None))
    return found


def metered(base: Sequence[Row], weighed: Sequence[Row]) -> list[Row]:
    """The records of the base, with what each increment counted in the trials that ran weighted too: together
    they are what the base counted."""
    of_trial = {(cell_of(row), row["seed"]): row for row in weighed}
    rows: list[Row] = []
    for row in base:
        found = of_trial.get((cell_of(row), row["seed"]))
        rows.append(row if found is None else {**row, METERED: _parts(row, found)})
    return rows


def _parts(row: Row, weighed: Row) -> dict[str, int]:
    shared = shared_counters()
    parts = {
        one.name: int(weighed[one.counter]) >> BITS * one.place & (1 << BITS) - 1
        for one in increments()
        if one.counter in shared
    }
    for name in COUNTERS:
        counted = [parts[one.name] for one in increments() if one.counter == name and name in shared]
        assert row[name] == (sum(counted) if counted else weighed[name]), name
    return parts


# Running


def copy_of_packages(directory: Path, changes: Sequence[Change]) -> None:
    """The packages with these changes."""
    for package in PACKAGES:
        # compiled sources with them: they are known by the time of their source, which the copy keeps
        shutil.copytree(
            ROOT / package, directory / package, ignore=shutil.ignore_patterns("node_modules", "out")
        )
    for change in changes:
        path = directory / change.path
        path.write_text(change.apply(path.read_text()))
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()


def run_farm(
    text: str, store: Path, tree: Path = ROOT, *, plain: bool = False, cache: Path | None = None
) -> Run:
    """Run a sweep by the command, in a process of its own.

    Arguments:
        tree: holds the packages.
        plain: as plain Python, without compiling anything.
        cache: where compiled code is kept; by default with that of the user.
    """
    path = store.with_suffix(".toml")
    path.write_text(text)
    foreign = ("FARM_", "GRAFANA_", "NUMBA_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment["PYTHONPATH"] = str(tree)
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    if plain:
        environment["NUMBA_DISABLE_JIT"] = "1"
    command = [sys.executable, "-m", "farm.cli", "run", str(path), "--executor", "serial", "--json"]
    done = subprocess.run(
        [*command, "--store", str(store)],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, EXIT_FAILED_TRIALS), done.stderr
    return find(str(store), "last")


def run_changed(
    changes: Sequence[Change], scenarios: Sequence[str], seeds: int, directory: Path, *, plain: bool = True
) -> Run:
    """A run of some scenarios from a copy of the packages with these changes."""
    tree = directory / "tree"
    copy_of_packages(tree, changes)
    try:
        text = sweep(scenarios, seeds)
        return run_farm(text, directory / "runs", tree, plain=plain, cache=directory / "cache")
    finally:
        shutil.rmtree(tree)
