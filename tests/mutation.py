"""Mutation check: does each rule of the allocator have a test that fails without it?

    python -m tests.mutation [module ...] [--jobs N] [--sample SHARE]

Every mutant is one small change of one module: a comparison, an arithmetic or boolean operator, a number,
a flag, a negation, or a statement left out. It runs as plain Python (``NUMBA_DISABLE_JIT=1``): the
compiled form would take half a minute of compilation for each. A process forks for each mutant, loads the
changed module and does the checks that execute the changed line until one fails: first those that have
noticed most of the module's mutants for their time, then the cheapest.

Reports of work to observers are not changed, since they have no rules; neither are locks that hold nothing,
which matter with threads only (test_threads).

Survivors are compared with ``mutation_survivors.toml``, which has a reason for each. Exit codes: 0 all
survivors have one, 1 some have none, or a reason is for a mutant that is killed or does not exist.
"""

import argparse
import ast
import copy
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import pickle
import random
import re
import resource
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pool_impl"
TESTS = ROOT / "tests" / "pool_impl"
SURVIVORS = Path(__file__).with_name("mutation_survivors.toml")
MODULES = (
    "ring",
    "pool",
    "fragments",
    "page_alloc",
    "page_frag",
    "release",
    "skb",
    "skb_change",
    "coalesce",
    "xdp",
)
TEST_MODULES = (
    *("golden", "create", "ring", "release", "xdp", "api", "variant", "invariants", "page_frag"),
    *("page_rules", "skb_rules", "coalesce"),
)
LARGEST_RECORDING = 600
"""operations; longer ones repeat what shorter ones show, but for those of random operations on skbs: nested
lists, members with other users and long ways through both are in these only"""
LONG_RECORDINGS = "random-skb-"
SEEDS = 6
"""random runs of each release, with pages and skbs and with skbs only"""
STEPS = 60
"""operations in one of them; of those with skbs only three times as many"""
MOST_SECONDS = 2.5
"""of CPU, usual cost of the recordings of one mutant, and as much of its random runs; tests are done all"""
LEAST_SECONDS = 1
PATIENCE = 5
"""a check that takes so many times its usual CPU time has failed"""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
FLAG_GROUPS = ("FLAG_", "RECYCLE_", "FCLONE_")
REPORT = re.compile(r"(buffers\.)?host\.observer\.|_touch_")
"""calls that only tell an observer what is done"""
LOCKS = (
    *("host.access.lock_consumer", "host.access.unlock_consumer", "_lock_zone", "_unlock_zone"),
    *("host.access.lock_zone", "host.access.unlock_zone"),
)
"""not the producer's, whose word is the ring's index"""


Path_ = tuple[tuple[str, int | None], ...]
"""the way to a node, by names of fields and places in lists"""


class Mutant(NamedTuple):
    """One changed module."""

    module: str
    line: int
    key: str
    """module, function, and the source before and after"""
    path: Path_
    replacement: ast.AST

    def tree(self) -> ast.Module:
        """The changed module; made when it is needed, since a thousand of them take long and much memory."""
        changed = ast.parse((PACKAGE / f"{self.module}.py").read_text())
        _put(changed, self.path, self.replacement)
        return ast.fix_missing_locations(changed)


class Check(NamedTuple):
    """Something that fails if the rules are broken."""

    name: str
    run: Callable[[], None]


class Measured(NamedTuple):
    """A check on the unchanged source."""

    seconds: float
    lines: frozenset[tuple[str, int]]


# Mutants


def mutants_of(module: str) -> list[Mutant]:
    """All mutants of a module of pool_impl."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    flags = sorted(
        {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id.startswith(FLAG_GROUPS)}
    )
    found: list[Mutant] = []
    seen: Counter[str] = Counter()
    for path, node in _places(tree):
        entry = _entry_at(tree, path)
        for replacement in _other_rules(node) if entry else _replacements(node, flags):
            where = _function_at(tree, node.lineno)  # type: ignore[attr-defined]
            before, after = ast.unparse(node).splitlines()[0], ast.unparse(replacement).splitlines()[0]
            context = entry or ast.unparse(_statement_at(tree, path)).splitlines()[0]
            key = f"{module}.{where}: {context} | {before} -> {after}"
            seen[key] += 1
            if seen[key] > 1:
                key += f" #{seen[key]}"
            ast.copy_location(replacement, node)
            found.append(Mutant(module, node.lineno, key, path, replacement))  # type: ignore[attr-defined]
    return found


def _places(node: ast.AST, path: Path_ = ()) -> Iterator[tuple[Path_, ast.AST]]:
    """Nodes that may be changed, each with the way to it."""
    if _is_left_alone(node):
        return
    if path:
        yield path, node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment", "ctx"):
            continue
        if isinstance(value, ast.AST):
            yield from _places(value, (*path, (name, None)))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield from _places(item, (*path, (name, index)))


def _is_left_alone(node: ast.AST) -> bool:
    """Docstrings, imports, reports to observers and conditions for them, locks."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.If):
        return all(_is_left_alone(statement) for statement in [*node.body, *node.orelse])
    if not isinstance(node, ast.Expr):
        return False
    if isinstance(node.value, ast.Constant):
        return True
    called = ast.unparse(node.value)
    return called.startswith(LOCKS) or REPORT.match(called) is not None


def _replacements(node: ast.AST, flags: list[str]) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.AugAssign):
        yield ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value)
        yield ast.Pass()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Name) and node.id in flags:
        group = next(group for group in FLAG_GROUPS if node.id.startswith(group))
        others = [flag for flag in flags if flag.startswith(group)]
        if len(others) > 1:
            yield ast.Name(others[(others.index(node.id) + 1) % len(others)], ast.Load())
    elif _is_dispensable(node):
        yield ast.Pass()
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(node.test, ast.Name | ast.Attribute):
        changed = copy.copy(node)
        changed.test = ast.UnaryOp(ast.Not(), node.test)
        yield changed


def _other_rules(node: ast.AST) -> Iterator[ast.AST]:
    """Changes of a value in a table of rules: yes for no, or one more. Names are values of others."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(1 - node.value if node.value in (0, 1) else node.value + 1)


def _is_dispensable(node: ast.AST) -> bool:
    """A statement that may be left out; a local name would be missing."""
    if isinstance(node, ast.Assign):
        return not isinstance(node.targets[0], ast.Name | ast.Tuple)
    return isinstance(node, ast.Continue | ast.Break) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )


def _put(tree: ast.AST, path: Path_, node: ast.AST) -> None:
    holder: Any = tree
    for name, index in path[:-1]:
        holder = getattr(holder, name) if index is None else getattr(holder, name)[index]
    name, index = path[-1]
    if index is None:
        setattr(holder, name, node)
    else:
        getattr(holder, name)[index] = node


def _statement_at(tree: ast.AST, path: Path_) -> ast.AST:
    """The statement that a way leads through last."""
    node: Any = tree
    statement: ast.AST = tree
    for name, index in path:
        node = getattr(node, name) if index is None else getattr(node, name)[index]
        if isinstance(node, ast.stmt):
            statement = node
    return statement


def _entry_at(tree: ast.AST, path: Path_) -> str:
    """Which entry of a table the way leads into: release and field; "" outside of tables."""
    node: Any = tree
    names = []
    for name, index in path:
        if isinstance(node, ast.FunctionDef):
            return ""
        if isinstance(node, ast.Dict) and index is not None:
            names.append(ast.literal_eval(node.keys[index]))
        node = getattr(node, name) if index is None else getattr(node, name)[index]
        if isinstance(node, ast.keyword) and names:
            names.append(node.arg)
    return " ".join(names) if len(names) > 1 else ""


def _function_at(tree: ast.Module, line: int) -> str:
    for node in tree.body:
        if node.lineno <= line <= (node.end_lineno or 0):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                return node.name
            return ast.unparse(node).split(" ")[0].splitlines()[0]
    return ""


# Checks


def checks() -> list[Check]:
    """Recordings, tests and random runs; everything of pool_impl is imported when they run."""
    from pool_impl import recording

    found = []
    for path in recording.find([TESTS / "recordings"]):
        source = recording.read(path)
        if len(source.operations) <= LARGEST_RECORDING or path.name.startswith(LONG_RECORDINGS):
            found.append(Check(f"{path.parent.name}/{path.name}", _replays(source)))
    for name in TEST_MODULES:
        path = TESTS / f"test_{name}.py"
        if path.exists():
            found.append(Check(path.name, _passes(path)))
    for seed in range(SEEDS):
        for release in recording_releases():
            found.append(Check(f"random {release} {seed}", _runs(release, seed, skbs_only=False)))
            found.append(Check(f"random skbs {release} {seed}", _runs(release, seed, skbs_only=True)))
    return found


def recording_releases() -> list[str]:
    """All releases."""
    from pool_impl.release import RELEASES

    return list(RELEASES)


def _replays(source: Any) -> Callable[[], None]:
    def run() -> None:
        from pool_impl import conformance

        conformance.PAGES_OF_A_TRACE = 1 << 14
        conformance.SKBS_OF_A_TRACE = 1 << 11
        found = next(conformance.differences(source), None)
        assert found is None, found

    return run


def _passes(path: Path) -> Callable[[], None]:
    def run() -> None:
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--rootdir", str(ROOT)]
        assert pytest.main([*options, "-m", "not long", str(path)]) == 0

    return run


def _runs(release: str, seed: int, *, skbs_only: bool) -> Callable[[], None]:
    def run() -> None:
        from tests.pool_impl.machine import Machine

        draw = random.Random(seed)
        machine = Machine(release, draw.randrange(600), draw.randrange(300))
        for step in range(STEPS * (1 + 2 * skbs_only)):
            program = draw.choice((Machine.PAGE_PROGRAM, Machine.SKB_PROGRAM))
            if skbs_only:
                program = Machine.SKB_PROGRAM
            draw.choice(program)(machine, draw.randrange(100), draw.randrange(100))
            if not skbs_only or step % 8 == 0:
                machine.check()
        machine.finish()

    return run


# Running


class _Changed(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports one module from a changed tree."""

    def __init__(self, mutant: Mutant) -> None:
        path = str(PACKAGE / f"{mutant.module}.py")
        super().__init__(f"pool_impl.{mutant.module}", path)
        self.mutant = mutant

    def find_spec(self, fullname: str, _path: Any, _target: Any = None) -> Any:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_code(self, _fullname: str) -> CodeType:
        return compile(self.mutant.tree(), self.path, "exec")


def forget_sources() -> None:
    """What is imported next is read again."""
    for name in list(sys.modules):
        if name.split(".")[0] in ("pool_impl", "tests") and name != "tests.mutation":
            del sys.modules[name]


def measure(check: Check) -> Measured:
    """Cost, which the noting of lines adds to, and executed lines on the unchanged source, in a process of
    its own."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _measure_here(check, write_end)
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        content = stream.read()
    os.waitpid(child, 0)
    if not content:
        raise SystemExit(f"{check.name}: fails without any change")
    measured: Measured = pickle.loads(content)
    return measured


def _measure_here(check: Check, write_end: int) -> None:
    forget_sources()
    lines: set[tuple[str, int]] = set()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        started = time.process_time()
        sys.settrace(_tracer(lines))
        check.run()
        sys.settrace(None)
        seconds = time.process_time() - started
    with os.fdopen(write_end, "wb") as stream:
        pickle.dump(Measured(seconds, frozenset(lines)), stream)


def _tracer(lines: set[tuple[str, int]]) -> Any:
    """Functions of which all lines are noted are left alone: most of the work is done in few."""
    files = {str(PACKAGE / f"{module}.py"): module for module in MODULES}
    missing: dict[CodeType, set[int]] = {}

    def local(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            lines.add((files[frame.f_code.co_filename], frame.f_lineno))
            missing[frame.f_code].discard(frame.f_lineno)
        return local

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in files:
            return None
        if code not in missing:
            missing[code] = {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno}
        return local if missing[code] else None

    return trace


def noticed_by(mutant: Mutant, ordered: list[tuple[Check, float]]) -> str:
    """The first check that fails, "" if none does; in a process that only does this."""
    forget_sources()
    sys.meta_path.insert(0, _Changed(mutant))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for check, seconds in ordered:
            signal.setitimer(signal.ITIMER_VIRTUAL, LEAST_SECONDS + PATIENCE * seconds)
            try:
                check.run()
            except BaseException:  # noqa: BLE001 - whatever it is, the mutant was noticed
                return check.name
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return ""


def affordable(costs: list[tuple[Check, float, int]]) -> list[tuple[Check, float]]:
    """The checks to do: of recordings and of random runs those that execute most lines of the module for
    their time."""
    chosen = []
    spent = {"test_": 0.0, "random ": 0.0, "": 0.0}
    for check, seconds, _ in sorted(costs, key=lambda cost: cost[1] / cost[2]):
        kind = next(kind for kind in spent if check.name.startswith(kind))
        spent[kind] += seconds
        if spent[kind] > MOST_SECONDS and kind != "test_":
            continue
        chosen.append((check, seconds))
    return chosen


def outcomes(
    mutants: list[Mutant], measured: list[tuple[Check, Measured]], jobs: int
) -> Iterator[tuple[Mutant, bool, bool]]:
    """Each mutant, whether it survived, and whether its line is executed at all."""
    running: dict[int, tuple[Mutant, bool, int]] = {}
    noticed: Counter[tuple[str, str]] = Counter()
    lines = [Counter(module for module, _ in cost.lines) for _, cost in measured]
    waiting = list(reversed(mutants))
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            place = (mutant.module, mutant.line)
            ordered = affordable(
                [
                    (check, cost.seconds, count[mutant.module])
                    for (check, cost), count in zip(measured, lines, strict=True)
                    if place in cost.lines
                ]
            )
            ordered.sort(key=lambda pair: -noticed[mutant.module, pair[0].name] / pair[1])
            read_end, write_end = os.pipe()
            child = os.fork()
            if child == 0:
                resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
                os.write(write_end, noticed_by(mutant, ordered).encode())
                os._exit(0)
            os.close(write_end)
            running[child] = mutant, bool(ordered), read_end
        child, status = os.wait()
        mutant, executed, read_end = running.pop(child)
        with os.fdopen(read_end) as stream:
            name = stream.read()
        noticed[mutant.module, name] += 1
        yield mutant, status == 0 and not name, executed


def reasons() -> dict[str, str]:
    """Why survivors are let live, by key."""
    if not SURVIVORS.exists():
        return {}
    tables = tomllib.loads(SURVIVORS.read_text())
    return {key: table["reason"] for table in tables["survivor"] for key in table["mutants"]}


def main() -> int:
    """Run it; see the module's text."""
    parser = argparse.ArgumentParser(description="Mutation check of the pool's rules.")
    parser.add_argument(
        "modules", nargs="*", default=MODULES, help=f"of {', '.join(MODULES)}; all by default"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--sample", type=float, default=1.0, help="share of the mutants to try")
    options = parser.parse_args()
    if os.environ.get("NUMBA_DISABLE_JIT") != "1":
        environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.mutation", *sys.argv[1:]], environment)
    import hypothesis.stateful  # noqa: F401 - once, not in each process
    import numba  # noqa: F401
    import pytest  # noqa: F401

    mutants = [mutant for module in options.modules for mutant in mutants_of(module)]
    if options.sample < 1:
        mutants = random.Random(1).sample(mutants, round(len(mutants) * options.sample))
    wanted = checks()
    gc.freeze()  # or each process would copy all recordings when it first collects
    with ThreadPoolExecutor(options.jobs) as threads:
        measured = list(zip(wanted, threads.map(measure, wanted), strict=True))
    print(
        f"{len(mutants)} mutants, {len(measured)} checks of {sum(m.seconds for _, m in measured):.0f} s",
        flush=True,
    )
    known = reasons()
    totals: Counter[tuple[str, str]] = Counter()
    unexplained = []
    killed = set()
    for mutant, survived, executed in outcomes(mutants, measured, options.jobs):
        state = "killed"
        if survived:
            state = "explained" if mutant.key in known else "survived"
            if state == "survived":
                unexplained.append(mutant.key)
                print(f"{mutant.key}{'' if executed else '   (not executed)'}", flush=True)
        else:
            killed.add(mutant.key)
        totals[mutant.module, state] += 1
        if totals.total() % 20 == 0:
            print(f"... {totals.total()} of {len(mutants)}", file=sys.stderr, flush=True)
    print(f"\n{'module':12} {'mutants':>8} {'killed':>8} {'explained':>10} {'survived':>9}")
    for module in (*options.modules, "all"):
        row = [
            sum(n for (m, s), n in totals.items() if module in (m, "all") and state in (s, "all"))
            for state in ("all", "killed", "explained", "survived")
        ]
        print(f"{module:12} {row[0]:8} {row[1]:8} {row[2]:10} {row[3]:9}")
    stale = sorted(key for key in known if key in killed)
    everything = {mutant.key for module in MODULES for mutant in mutants_of(module)}
    stale += sorted(key for key in known if key not in everything)
    for key in stale:
        print(f"a reason without survivor: {key}")
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
