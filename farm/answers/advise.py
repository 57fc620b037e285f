"""The smallest pool that meets stated targets, and what the next step up or down would change.

A target is a limit of a measure, which each seed has to keep. What holds at a size is taken to hold at any
larger one, as bisection needs; the steps beside it, at powers of two, are run too, and say if it does not.
"""

import itertools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from farm.answers.search import largest
from farm.errors import SweepError
from farm.plan import Plan
from farm.sweep import Sweep
from workers import run_trial
from workers.config import TrialConfig
from workers.fields.groups import Value
from workers.measures import Measure, by_name
from workers.profiles.hardware import page_bytes

SIZE = "pool.size"
SMALLEST, LARGEST = 16, 16384
"""what is searched: below 16 no driver asks, above 16384 releases clamp or refuse"""

TOLERANCE = 0.02
"""of the size that is found"""

_TARGET = re.compile(r"([a-z0-9_]+)\s*(<=|>=)\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:e-?[0-9]+)?)")
_HOLDS: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


class Target(NamedTuple):
    """A limit that a measure has to keep, in the measure's unit."""

    measure: Measure
    sign: str
    limit: float

    def holds(self, value: float | None) -> bool:
        """Whether it is kept; by nothing measured it is not."""
        return value is not None and _HOLDS[self.sign](value, self.limit)

    def __str__(self) -> str:
        return f"{self.measure.name} {self.sign} {self.limit:g}"


def target_of(text: str) -> Target:
    """A target as typed, such as ``recycle_ratio>=0.99``.

    Raises:
        SweepError: it is none, or limits a measure on its good side.
    """
    match = _TARGET.fullmatch(text.strip())
    if match is None:
        raise SweepError(f"--target {text!r}: write MEASURE<=NUMBER or MEASURE>=NUMBER, as drop_ratio<=0.001")
    name, sign, limit = match.groups()
    measure = by_name().get(name)
    if measure is None:
        raise SweepError(f"--target {text!r}: no measure {name}; see farm fields --measures")
    if (measure.better, sign) in (("higher", "<="), ("lower", ">=")):
        raise SweepError(f"--target {text!r}: of {name} {measure.better} is better; turn the sign round")
    return Target(measure, sign, float(limit))


class Step(NamedTuple):
    """What a pool of one size comes to."""

    size: int
    page_bytes: int
    worst: Mapping[str, float]
    """of each target's measure and of those in ``PRICED``, over the seeds"""
    failing: tuple[Target, ...]
    """targets that some seed does not keep"""

    @property
    def ring_bytes(self) -> int:
        """Memory that a ring of this size may keep, for each queue: what a host has to have for it."""
        return self.size * self.page_bytes


PRICED = ("recycle_ratio", "pages_in_ring", "pages_in_rx_ring", "busy_ns_per_packet", "drop_ratio")
"""measures of each step that are shown, or that its price is made of"""


@dataclass(frozen=True)
class Advice:
    """What to choose for one cell."""

    cell: Mapping[str, Value]
    """swept fields but the pool's size"""
    chosen: Step | None
    """the smallest size that meets all targets; None if none does"""
    binding: tuple[Target, ...]
    """what a smaller pool, or any if none is chosen, fails"""
    steps: tuple[Step, ...]
    """the chosen size and powers of two, ascending"""
    monotonic: bool
    """whether every step above the chosen size keeps the targets too, and none below it does"""
    queues: int
    """of a trial, whose measures are those of all of them"""

    @property
    def memory_bytes(self) -> float | None:
        """Of the choice, for each queue: what the pool's ring may keep, and the RX ring has on average."""
        if self.chosen is None:
            return None
        posted = self.chosen.worst["pages_in_rx_ring"] / self.queues * self.chosen.page_bytes
        return self.chosen.ring_bytes + posted

    @property
    def pareto(self) -> tuple[Step, ...]:
        """Steps that no other one beats in both memory and share of new pages."""
        return tuple(
            step
            for step in self.steps
            if not any(
                _price(other) <= _price(step)
                and _price(other) != _price(step)
                and all(a <= b for a, b in zip(_price(other), _price(step), strict=True))
                for other in self.steps
            )
        )


def _price(step: Step) -> tuple[float, float]:
    return step.ring_bytes, 1 - step.worst["recycle_ratio"]


def advise(sweep: Sweep, targets: Sequence[Target]) -> list[Advice]:
    """Find the smallest pool for each cell of a sweep, whose own pool sizes are ignored.

    Raises:
        SweepError: there is no target, an include or exclude names the pool's size, or a trial allocates no
            page.
        TrialError: a trial cannot be run.
    """
    if not targets:
        raise SweepError("--target: none; name at least one, such as recycle_ratio>=0.99")
    if any(SIZE in block for block in (*sweep.include, *sweep.exclude)):
        raise SweepError(f"{SIZE}: the search chooses it; take it out of the sweep's includes and excludes")
    plain = Sweep(
        name=sweep.name,
        seeds=sweep.seeds,
        fixed={**{n: v for n, v in sweep.fixed.items() if n != SIZE}, SIZE: SMALLEST},
        grid={name: values for name, values in sweep.grid.items() if name != SIZE},
        zip={name: values for name, values in sweep.zip.items() if name != SIZE},
        include=sweep.include,
        exclude=sweep.exclude,
    )
    plan = Plan(plain)
    plan.inputs()
    axes = list(plain.axes())
    trials = (plan.fields(number) for number in range(plan.trials))
    cells = [list(seeds) for _, seeds in itertools.groupby(trials, _without_seed)]
    return [_advice(seeds, axes, targets) for seeds in cells]


def _without_seed(fields: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in fields.items() if name != "seed"}


def _advice(seeds: Sequence[Mapping[str, Value]], axes: Sequence[str], targets: Sequence[Target]) -> Advice:
    known: dict[int, Step] = {}

    def step(size: int) -> Step:
        if size not in known:
            known[size] = _step(seeds, size, targets)
        return known[size]

    fails = largest(lambda size: bool(step(size).failing), SMALLEST, LARGEST, TOLERANCE)
    ladder = [SMALLEST << power for power in range((LARGEST // SMALLEST).bit_length())]
    if fails == LARGEST:
        chosen = None
    elif fails is None:
        chosen = step(SMALLEST)
    else:
        chosen = min((one for one in known.values() if not one.failing), key=lambda one: one.size)
    steps = {size: step(size) for size in ladder}
    if chosen is not None:
        steps[chosen.size] = chosen
        below = [one for one in known.values() if one.size < chosen.size]
        binding = max(below, key=lambda one: one.size).failing if below else ()
        monotonic = all(bool(one.failing) == (one.size < chosen.size) for one in known.values())
    else:
        binding, monotonic = step(LARGEST).failing, all(one.failing for one in known.values())
    cell = {name: seeds[0][name] for name in axes if name != SIZE}
    ordered = tuple(steps[size] for size in sorted(steps))
    return Advice(cell, chosen, binding, ordered, monotonic, int(seeds[0]["nic.queues"]))


def _step(seeds: Sequence[Mapping[str, Value]], size: int, targets: Sequence[Target]) -> Step:
    records = [run_trial(TrialConfig.from_fields({**fields, SIZE: size})) for fields in seeds]
    if any(record["recycle_ratio"] is None for record in records):
        raise SweepError(
            f"duration_ms = {seeds[0]['duration_ms']}: with {SIZE} = {size} no page was allocated in it, so "
            "nothing can be said of sizes; make it longer"
        )
    signs = {**{name: _sign(by_name()[name]) for name in PRICED}, **{t.measure.name: t.sign for t in targets}}
    worst = {}
    for name, sign in signs.items():
        values = [record[name] for record in records if record[name] is not None]
        if values:
            worst[name] = float(max(values) if sign == "<=" else min(values))
    failing = tuple(
        target
        for target in targets
        if not all(target.holds(record[target.measure.name]) for record in records)
    )
    return Step(size, page_bytes(TrialConfig.from_fields(dict(seeds[0]))), worst, failing)


def _sign(measure: Measure) -> str:
    return ">=" if measure.better == "higher" else "<="


def best(found: Sequence[Advice]) -> Advice | None:
    """Of several cells the one that needs least memory; None if none meets the targets."""
    priced = [(memory, place) for place, one in enumerate(found) if (memory := one.memory_bytes) is not None]
    return found[min(priced)[1]] if priced else None
