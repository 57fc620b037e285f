"""A host's diagnosis as a whole: all pools together, those that differ, those that wait for their pages."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from farm.answers.doctor.counters import Counts, Snapshot, difference, summed
from farm.answers.doctor.regimes import Diagnosis, Evidence, Window, diagnose, diagnose_detached
from farm.errors import CountersError
from workers.measures import COUNTERS


@dataclass(frozen=True)
class Report:
    """What the snapshots of a host say."""

    pools: int
    rates: Mapping[str, float]
    """counters by second; empty without two snapshots and the time between them"""
    together: Diagnosis
    """all pools in use, or those that wait for their pages if none is in use"""
    differing: Mapping[str, Diagnosis]
    """pools of another regime than all together"""
    detached: Diagnosis | None


def examine(before: Snapshot | None, after: Snapshot, seconds: float | None) -> Report:
    """Diagnose the pools of a host.

    Args:
        before: an earlier snapshot; without one, counters are those since each pool's start.
        seconds: between the two.

    Raises:
        CountersError: the counters cannot tell, or do not belong together.
    """
    earlier = before or Snapshot("", {}, {})
    by_pool = difference(earlier, after)
    detached = diagnose_detached(earlier.states, after.states, seconds)
    used = {pool: counts for pool, counts in by_pool.items() if not _is_detached(after, pool)}
    if not used:
        if detached is None:
            detached = _no_pools(after)
        return Report(len(after.states), {}, detached, {}, None)
    counts = summed(used.values())
    together = diagnose(Window(counts, seconds, _growth(earlier, after, list(used))))
    rates = {name: counts[name] / seconds for name in COUNTERS} if before and seconds else {}
    differing = {}
    if len(used) > 1:
        differing = {
            pool: found
            for pool, found in _one_by_one(earlier, after, used, seconds)
            if found.regime != together.regime
        }
    return Report(len(used), rates, together, differing, detached)


def _one_by_one(
    before: Snapshot, after: Snapshot, used: Mapping[str, Counts], seconds: float | None
) -> Iterator[tuple[str, Diagnosis]]:
    for pool, counts in used.items():
        try:
            yield pool, diagnose(Window(counts, seconds, _growth(before, after, [pool])))
        except CountersError:
            # too few to tell, which is no finding
            continue


def _is_detached(snapshot: Snapshot, pool: str) -> bool:
    return pool in snapshot.states and snapshot.states[pool].detached


def _growth(before: Snapshot, after: Snapshot, pools: list[str]) -> int | None:
    """Pages in flight more than before. From its start on, all that a pool has in flight is growth."""
    known = [after.states.get(pool) for pool in pools]
    if not after.states or (before.counts and not before.states):
        return None
    now = sum(state.inflight for state in known if state is not None)
    return now - sum(before.states[pool].inflight for pool in pools if pool in before.states)


def _no_pools(after: Snapshot) -> Diagnosis:
    if after.states:
        raise CountersError(
            f"{after.source}: pools without counters; give the dump of page-pool-stats-get as well"
        )
    return Diagnosis(
        "no pools",
        "No pool is visible: no driver here has one, or its queues are down. veth and loopback have none.",
        (Evidence("pools", 0, "page-pool-get"),),
        "look in the network namespace of the device, with its queues up",
    )


def as_json(report: Report) -> dict[str, Any]:
    """The same for a program."""
    return asdict(report)


def lines(report: Report) -> Iterator[str]:
    """The same for a terminal."""
    yield f"{report.together.regime.upper()}: {report.together.sentence}"
    yield from _details(report.together)
    if report.rates:
        yield ""
        yield "per second: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in report.rates.items() if rate)
    for pool, found in report.differing.items():
        yield ""
        yield f"pool {pool}: {found.regime.upper()}: {found.sentence}"
    if report.detached is not None:
        yield ""
        yield f"detached pools: {report.detached.regime.upper()}: {report.detached.sentence}"
        yield from _details(report.detached)


def _details(found: Diagnosis) -> Iterator[str]:
    for evidence in found.evidence:
        yield f"  {evidence.name}: {evidence.value:,.3g} ({evidence.of})"
    yield f"  to do: {found.remedy}"
