"""From counters to a regime: what a host's pools do, and which counters say so.

Counters show events of the pool only. Pages that leave a pool with their skb are counted nowhere (spec 8.1),
so what they cannot tell apart is refused and not guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from farm.answers.doctor.counters import Counts, State
from farm.errors import CountersError

Regime = Literal[
    "direct",
    "through the ring",
    "ring overflow",
    "node mismatch",
    "other references",
    "not recycled",
    "pages held",
    "draining",
    "long hold",
    "leak or stall",
    "shut down",
    "no pools",
]

FEWEST_ALLOCATIONS = 1024
"""fewer than a usual receive ring and a cache of 128 come to are the filling of both, not traffic"""

BATCH = 64
"""pages of one slow fill at most (spec 2.5, 8.2: each ``slow`` contributes 1..64)"""

NOTICEABLE = 0.01
"""share of the returns, or of the refills, from which on something is a regime and not an accident"""

MOSTLY = 0.5

WARNING_SECONDS = 60.0
"""after which the kernel first warns of a pool that waits for its pages (DEFER_WARN_INTERVAL)"""


class Evidence(NamedTuple):
    """A figure made of counters."""

    name: str
    value: float
    of: str
    """the counters that it is made of"""


@dataclass(frozen=True)
class Diagnosis:
    """What the pools do."""

    regime: Regime
    sentence: str
    evidence: tuple[Evidence, ...]
    remedy: str


@dataclass(frozen=True)
class Window:
    """What was seen of pools: events counted, and their pages at both ends."""

    counts: Counts
    seconds: float | None
    """between the snapshots, None if unknown or if there was one"""
    growth: int | None
    """pages in flight more at the end, None if not known"""


def diagnose(window: Window) -> Diagnosis:
    """The regime of pools that are in use.

    Raises:
        CountersError: the counters cannot tell.
    """
    counts = window.counts
    fills = counts["alloc_slow"] + counts["alloc_slow_high_order"]
    allocations = counts["alloc_fast"] + counts["alloc_refill"] + fills
    returns = (
        counts["recycle_cached"]
        + counts["recycle_ring"]
        + counts["recycle_ring_full"]
        + counts["recycle_released_refcnt"]
    )
    if allocations < FEWEST_ALLOCATIONS:
        raise CountersError(
            f"alloc counters: {allocations} allocations are too few to tell; wait until there has been "
            "traffic, "
            "or are the statistics compiled in (CONFIG_PAGE_POOL_STATS)?"
        )
    refills = counts["alloc_refill"] + counts["alloc_waive"]
    direct = _share("direct share of returns", counts["recycle_cached"], returns, "recycle_cached")
    overflow = _share("overflow share of returns", counts["recycle_ring_full"], returns, "recycle_ring_full")
    refused = _share(
        "returns with other references", counts["recycle_released_refcnt"], returns, "recycle_released_refcnt"
    )
    mismatch = _share(
        "refills that met another node's page", counts["alloc_waive"], refills, "alloc_waive, alloc_refill"
    )
    slow = _share("allocations that filled the cache anew", fills, allocations, "alloc_slow")
    most_new = min(1.0, (BATCH * counts["alloc_slow"] + counts["alloc_slow_high_order"]) / allocations)
    new = Evidence("pages from the page allocator, at most", most_new, f"{BATCH} x alloc_slow")
    back = Evidence("returns for an allocation", returns / allocations, "recycle_*")
    evidence = [direct, overflow, slow, new, back]

    if mismatch.value >= NOTICEABLE and counts["alloc_waive"] >= NOTICEABLE * fills:
        return Diagnosis(
            "node mismatch",
            f"The ring holds pages of another node than the CPU that polls wants: {mismatch.value:.0%} of "
            "the "
            "refills threw one away.",
            (mismatch, overflow, slow, new),
            "let the interrupt and its queue's pages be on one node: pool nid, page_pool_nid_changed, IRQ "
            "affinity",
        )
    if refused.value >= NOTICEABLE:
        return Diagnosis(
            "other references",
            f"{refused.value:.0%} of the pages that came back had another user and left the pool.",
            (refused, direct, slow, new),
            "look for who takes plain references of pool pages: a page cache or split of the driver, taps, "
            "zero-copy transmit",
        )
    if overflow.value >= NOTICEABLE:
        return Diagnosis(
            "ring overflow",
            f"{overflow.value:.0%} of the returns found the ring full: more pages come back at a time "
            "than it "
            "has room for.",
            (overflow, direct, slow, new),
            "enlarge the pool, or let pages come back more evenly; farm advise finds the size",
        )
    if most_new >= MOSTLY and back.value <= MOSTLY:
        return _pages_that_do_not_return(window, allocations, returns, (new, back, slow))
    regime: Regime = "direct" if direct.value >= MOSTLY else "through the ring"
    way = (
        "straight to the cache, in the poll that they came from"
        if regime == "direct"
        else "through the ring, from other CPUs or contexts"
    )
    return Diagnosis(
        regime,
        f"Recycling works: pages come back {way}; at most {most_new:.1%} of the allocations needed new "
        "pages.",
        tuple(evidence),
        "nothing to mend; farm advise says what a smaller pool would cost",
    )


def _pages_that_do_not_return(
    window: Window, allocations: int, returns: int, evidence: tuple[Evidence, ...]
) -> Diagnosis:
    """New pages are taken and few come back: they have left the pool, or somebody has them."""
    if window.growth is None:
        raise CountersError(
            "recycle counters: few pages come back, and they do not say whether pages leave the pool with "
            "their "
            "packets or somebody has them; give page-pool-get of both moments as well"
        )
    grown = Evidence("pages in flight more, for an allocation", window.growth / allocations, "inflight")
    if window.growth >= MOSTLY * (allocations - returns):
        return Diagnosis(
            "pages held",
            f"{window.growth} pages more are out than before, and few come back: somebody keeps them, or "
            "loses "
            "them.",
            (grown, *evidence),
            "find who holds packets: sockets that nobody reads, taps, a driver that forgets pages",
        )
    return Diagnosis(
        "not recycled",
        "Pages leave the pool with their packets: nearly each allocation needs a new page, and none is "
        "out for "
        "long.",
        (*evidence, grown),
        "let the driver mark skbs for recycling (skb_mark_for_recycle), if its kernel has that",
    )


def diagnose_detached(
    before: Mapping[str, State], after: Mapping[str, State], seconds: float | None
) -> Diagnosis | None:
    """How far pools are that have been given up and wait for their pages; None if there is none.

    Raises:
        CountersError: one dump, or too short a time between two, cannot tell.
    """
    waiting = {pool: state for pool, state in after.items() if state.detached and state.inflight}
    gone = [pool for pool, state in before.items() if state.detached and pool not in waiting]
    if not waiting:
        if not gone:
            return None
        return Diagnosis(
            "shut down",
            f"{len(gone)} detached pools had their last page back.",
            (Evidence("pools that have gone", len(gone), "detach-time"),),
            "nothing to mend",
        )
    left = sum(state.inflight for state in waiting.values())
    if not before.keys() & waiting.keys() or seconds is None:
        raise CountersError(
            f"inflight: {left} pages of {len(waiting)} detached pools are out; one moment does not say "
            "whether "
            "they come back; give page-pool-get of a later moment with --then, and --seconds"
        )
    earlier = sum(before[pool].inflight for pool in waiting if pool in before)
    came_back = earlier - left
    out = Evidence("pages still out", left, "inflight of detached pools")
    pace = Evidence("pages back a second", came_back / seconds, "inflight of detached pools")
    if came_back <= 0:
        if seconds < WARNING_SECONDS:
            raise CountersError(
                f"inflight: none of {left} pages came back in {seconds:g} s; that is too short to tell a "
                "leak "
                f"from a long hold, wait {WARNING_SECONDS:g} s"
            )
        return Diagnosis(
            "leak or stall",
            f"{left} pages of detached pools are out, and none came back in {seconds:g} s: they are lost, or "
            "lie where nothing moves.",
            (out, pace),
            "look for sockets with unread data; if there are none, the driver or the stack leaks pages",
        )
    forecast = Evidence("seconds until all are back, at this pace", left / pace.value, "inflight")
    if forecast.value > WARNING_SECONDS:
        return Diagnosis(
            "long hold",
            f"{left} pages of detached pools are out and come back slowly: {forecast.value:.0f} s more at "
            "this "
            "pace.",
            (out, pace, forecast),
            "somebody keeps packets for long; the pool waits, and the kernel warns, but nothing is lost",
        )
    return Diagnosis(
        "draining",
        f"{left} pages of detached pools are out; at this pace all are back in {forecast.value:.1f} s.",
        (out, pace, forecast),
        "nothing to mend: a normal shutdown",
    )


def _share(name: str, part: int, whole: int, of: str) -> Evidence:
    return Evidence(name, part / whole if whole else 0.0, of)
