"""Answers that are kept in a store for the dashboard of decisions."""

from collections.abc import Sequence
from pathlib import Path

from farm.answers import gate, keeping
from farm.answers.advise import Advice, Step, target_of
from farm.answers.compare import Comparison, compare_runs
from farm.answers.doctor import report
from farm.answers.doctor.counters import Snapshot
from farm.store import answers
from farm.store.place import LocalPlace
from farm.store.runs import Run
from workers.measures import COUNTERS

MEASURES = ("busy_ns_per_packet", "drop_ratio", "recycle_ratio")


def made_up_advice() -> list[Advice]:
    """Of three cells: one keeps its target from the first step on, one from the second on, one never."""
    target = target_of("recycle_ratio>=0.9")
    priced = {"pages_in_ring": 8.0, "pages_in_rx_ring": 4.0, "drop_ratio": 0.0}
    found = []
    for place, arch in enumerate(("broadwell-ep", "armada-8040", "armada-3720")):
        steps = [
            Step(16 << power, 4096, priced | {"recycle_ratio": 1 - (place + 1) / (10 + 20 * power)}, ())
            for power in range(4)
        ]
        chosen = steps[place] if place < 2 else None
        found.append(Advice({"arch": arch}, chosen, (target,), tuple(steps), True, 1))
    return found


def counted(**counters: int) -> dict[str, int]:
    return dict.fromkeys(COUNTERS, 0) | counters


def keep(root: Path, sides: Sequence[Comparison], advice: Sequence[Advice], sweep: str, run: Run) -> None:
    """Comparisons of the sides of an axis, one of them as gates that fail and pass, and of a run with itself,
    as a gate that passes; advice; the diagnosis of a host one of whose pools differs from the others."""
    good = counted(alloc_fast=900_000, alloc_refill=9_000, recycle_ring=900_000)
    bad = counted(alloc_fast=4_000, alloc_slow=100, recycle_ring=2_000, recycle_ring_full=2_000)
    diagnosis = report.examine(None, Snapshot("x", {"1": good, "2": bad}, {}), None)
    same = compare_runs(run, run)
    lenient = (gate.Rule(verdicts=("too few",)),)
    for answer in (
        keeping.of_comparison(sides, MEASURES, [run]),
        keeping.of_comparison([same], MEASURES, [run]),
        keeping.of_gate(sides[0], gate.broken(sides[0], gate.STRICT), [run]),
        keeping.of_gate(sides[0], gate.broken(sides[0], lenient), [run]),
        keeping.of_gate(same, gate.broken(same, gate.STRICT), [run]),
        keeping.of_advice(advice, sweep, 64),
        keeping.of_diagnosis(diagnosis, "a host"),
    ):
        answers.keep(LocalPlace(root), answer)
