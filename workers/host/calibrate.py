"""A profile of the machine that this runs on: what can be measured from user space, the rest from a parent.

What user space cannot reach has a stand-in, and says so in its source: the package's own pool for the
kernel's, and for the kernel's page allocator two that bound it: the package's own, which does less, and page
faults less what is no allocation in them, which do more. Between the bounds the parent's number stays.
"""

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from workers.host import probes
from workers.host.clock import Spread
from workers.host.facts import Facts, facts
from workers.host.levels import Sizes, by_level, find_sizes, set_sizes
from workers.profiles.arch import Profile
from workers.profiles.parameters import PARAMETERS
from workers.profiles.profile_rules import ORDERS

MEASURED = "measured"
HERE = "measured here"

MISSES_BYTES = 64 << 20
DRAIN_RATIO = 0.5
"""an ordered atomic waits for stores in flight if one waits for so much of a miss"""
DIGITS = 4


class Row(NamedTuple):
    """One figure. The unit is that of its name."""

    value: float
    low: float
    high: float
    certainty: str
    source: str
    note: str = ""


class Calibration(NamedTuple):
    """What is known about a machine."""

    facts: Facts
    parameters: Mapping[str, Row]
    """those of a profile that were measured, in the order in which they are written"""
    beside: Mapping[str, Row]
    """figures that no parameter takes"""


def measured(spread: Spread, how: str, note: str = "") -> Row:
    """A figure of this machine; its range is that of the repeats."""
    value, low, high = (_rounded(number) for number in (spread.value, spread.low, spread.high))
    return Row(value, min(low, value), max(high, value), MEASURED, f"{HERE}: {how}", note)


def read(value: float, how: str, note: str = "") -> Row:
    """A figure that the machine itself states."""
    return Row(value, value, value, MEASURED, f"{HERE}: {how}", note)


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def calibrate(parent: Profile, report: Callable[[str], None] = lambda _: None) -> Calibration:
    """Measure this machine; some seconds.

    Args:
        parent: splits sums that can be measured only whole, and has the numbers that stand between bounds.
        report: hears what is measured next.
    """
    machine = facts()
    found: dict[str, Row] = {}
    beside: dict[str, Row] = {}
    line_bytes = machine.line_bytes or 64
    said = Sizes(machine.l1_bytes, machine.l2_bytes, machine.llc_bytes)
    report("caches and memory")
    curve = probes.LatencyCurve(set_sizes(said, machine.available_bytes), line_bytes)
    curve.sample()
    report("atomics, calls, copies")
    core = probes.core_ns()
    cycle = core["two_cycles"].times(0.5)
    found["clock_ghz"] = measured(
        Spread(*sorted(1 / number for number in cycle)), "a chain of additions, one a cycle"
    )
    _within_a_core(core, cycle, found, beside)
    _copies(machine, found)
    curve.sample()
    report("overlap of misses, stores in flight")
    _overlap(machine, found, beside)
    report("lines between cores")
    _between_cores(machine, found)
    report("pool paths and page faults")
    stand_ins = measure_stand_ins(parent)
    found |= stand_ins.pool
    _page_allocator(machine, parent, stand_ins, found, beside)
    report("caches and memory again")
    curve.sample()
    _caches(machine, said, curve, found, beside)
    reconcile(found, parent)
    ordered = {name: found[name] for name in PARAMETERS if name in found}
    return Calibration(machine, ordered, beside)


def reconcile(found: dict[str, Row], parent: Profile) -> None:
    """State anew what cannot be as it is in the parent beside what was measured, such as memory of another
    socket that is nearer than this one's: as far from it as in the parent."""
    for order in ORDERS:
        small, large = (_number_of(name, found, parent) for name in (order.small, order.large))
        if small <= large or (order.where and not _number_of(order.where, found, parent)):
            continue
        gap = max(0.0, parent[order.large] - parent[order.small])
        if _is_measured(order.large, found) and not _is_measured(order.small, found):
            name, value, low, high = order.small, large, 0.0, large
        else:
            name, value, low, high = order.large, small + gap, small, small + 2 * gap
        found[name] = Row(
            _rounded(value),
            _rounded(low),
            max(_rounded(high), _rounded(low) + 1),
            "estimate",
            "no source",
            f"{parent.name} has {parent[name]:g}, which what was measured rules out: {order.remedy}",
        )


def _number_of(name: str, found: Mapping[str, Row], parent: Profile) -> float:
    return found[name].value if name in found else parent[name]


def _is_measured(name: str, found: Mapping[str, Row]) -> bool:
    return name in found and found[name].certainty == MEASURED


def _caches(
    machine: Facts,
    said: Sizes,
    measurement: probes.LatencyCurve,
    found: dict[str, Row],
    beside: dict[str, Row],
) -> None:
    curve = measurement.points()
    sizes, how = (said, "sysfs") if said.l1 else (find_sizes(curve), "steps of the latency curve")
    found["page_bytes"] = read(machine.page_bytes, "sysconf")
    found["sockets"] = read(len(set(machine.packages)), "sysfs")
    if machine.line_bytes:
        found["cache_line_bytes"] = read(machine.line_bytes, "sysfs")
    for name, size in zip(("l1_bytes", "l2_bytes", "llc_bytes"), sizes, strict=True):
        shared = "shared with whoever else is on the socket" if name == "llc_bytes" and size else ""
        if size or name == "llc_bytes":
            found[name] = read(size, how, shared)
    walk = probes.translation_ns(machine.page_bytes, machine.line_bytes or 64)
    levels = by_level(curve, sizes)
    for name, level in zip(("l1_ns", "l2_ns", "llc_ns", "dram_ns"), levels, strict=True):
        if level is not None:
            where = _where(name, sizes, curve[-1].size_bytes, measurement.huge_ratio)
            found[name] = measured(level, "pointer chase in a random cycle", where)
    if not sizes.llc:
        found["llc_ns"] = read(0, "there is no such cache")
    if levels[1] is not None:
        beside["page_walk_ns"] = measured(
            walk.plus(levels[1], -1),
            "one line in each of 16384 pages, less a load from level 2",
            "guest pages were huge; a hypervisor may map them as small ones, then every large set pays this, "
            "and so does the kernel",
        )
    for point in curve:
        beside[f"load_of_{point.size_bytes >> 10}_kib_ns"] = measured(point.spread, "pointer chase")


def _where(name: str, sizes: Sizes, top_bytes: int, huge: float) -> str:
    ranges = {
        "l1_ns": f"sets up to half of {sizes.l1 >> 10} KiB",
        "l2_ns": f"sets of {2 * sizes.l1 >> 10}..{sizes.l2 >> 11} KiB",
        "llc_ns": f"median of sets of {2 * sizes.l2 >> 10} KiB..{sizes.llc >> 21} MiB, which are the range",
        "dram_ns": f"a set of {top_bytes >> 20} MiB",
    }
    return f"{ranges[name]}, {huge:.0%} in huge pages; TLB misses of such sets are in it"


def _within_a_core(
    core: Mapping[str, Spread], cycle: Spread, found: dict[str, Row], beside: dict[str, Row]
) -> None:
    found["call_ns"] = measured(
        core["call_and_add"].plus(cycle, -1), "call of a function that adds one, less the addition"
    )
    found["atomic_ns"] = measured(core["relaxed_atomic"], "relaxed atomic add, its line at hand")
    found["lock_unlock_ns"] = measured(
        core["lock_unlock"], "swap with acquire and store with release, the line at hand"
    )
    beside["ordered_atomic_ns"] = measured(core["ordered_atomic"], "sequentially consistent atomic add")
    beside["store_and_barrier_ns"] = measured(core["store_and_barrier"], "store and full barrier")


def _copies(machine: Facts, found: dict[str, Row]) -> None:
    copies = probes.copies_ns(machine.page_bytes)
    frame_bytes = 8 * probes.FRAME_WORDS
    taken = (copies["cold"].high, copies["cold"].value, copies["hot"].low)
    rates = [frame_bytes / number for number in taken]
    found["copy_bytes_per_ns"] = measured(
        Spread(*sorted(rates)),
        f"memcpy of {frame_bytes} bytes, each from another of 4096 pages",
        "upper end: always the same bytes",
    )


def _overlap(machine: Facts, found: dict[str, Row], beside: dict[str, Row]) -> None:
    misses = probes.misses(MISSES_BYTES, machine.line_bytes or 64)
    long = _ratio(misses.exposed[probes.LONG_WORK])
    short = _ratio(misses.exposed[probes.SHORT_WORK])
    found["miss_exposed_ratio"] = measured(
        Spread(min(short.value, long.value), long.value, 1.0),
        f"two lines at a time, known ahead, and {probes.LONG_WORK} turns of the package's pool",
        "a packet's header and struct page, and about as much work as a kernel's fastest receive paths have "
        "for it; lower end: one turn; upper end: addresses that are not known ahead",
    )
    beside["miss_exposed_between_pool_turns_ratio"] = measured(short, EXPOSED_SHORT)
    waited = misses.drain.value / misses.latency.value
    found["ordered_atomic_drains"] = read(
        float(waited >= DRAIN_RATIO),
        "ordered atomic behind a store that misses",
        f"it waits for {waited:.0%} of the {misses.latency.value:.0f} ns of a load from there",
    )


def _between_cores(machine: Facts, found: dict[str, Row]) -> None:
    how = "half of a round trip between threads on two CPUs"
    first, package = machine.cpus[0], machine.packages[0]
    pairs = list(zip(machine.cpus[1:], machine.packages[1:], strict=True))
    near = [cpu for cpu, other in pairs if other == package]
    far = [cpu for cpu, other in pairs if other != package]
    if near:
        # the last one is least likely to be the same core's other thread
        found["line_transfer_ns"] = measured(probes.line_transfer_ns(first, near[-1]), how)
    if far:
        found["line_transfer_far_ns"] = measured(probes.line_transfer_ns(first, far[0]), how)
        size = set_sizes(
            Sizes(machine.l1_bytes, machine.l2_bytes, machine.llc_bytes), machine.available_bytes
        )[-1]
        found["dram_far_ns"] = measured(
            probes.far_memory_ns(first, far[0], size, machine.line_bytes or 64),
            "pointer chase in memory that a CPU of another socket touched first",
        )


class StandIns(NamedTuple):
    """The package's own pool and page allocator."""

    pool: dict[str, Row]
    """parameters of the pool's paths"""
    page_allocator: dict[str, Row]
    """those of the page allocator"""


EXPOSED_SHORT = "two lines at a time, known ahead, and one turn of the package's pool"
OWN_POOL = "stand-in: the pool of this package, not the kernel's"
OWN_ALLOCATOR = "stand-in: the page allocator of this package, not the kernel's"


def measure_stand_ins(parent: Profile) -> StandIns:
    """Price the package's own code by its benchmark loops.

    A loop is a sum; the parts that no loop tells apart are in the parent's proportion.
    """
    loops = probes.pool_ns()
    moved = probes.zone_move_ns()
    atomic, lock = loops["atomic"], loops["lock_unlock"]
    fast = loops["pool_fast"]
    slots = loops["pool_ring"].plus(fast, -1).plus(lock, -1).times(0.5)
    bulk = loops["page_bulk"]
    taken = parent["page_bulk_alloc_ns"] / (parent["page_bulk_alloc_ns"] + parent["page_free_ns"])
    instructions = bulk.plus(atomic, -1)
    free = instructions.times(1 - taken)
    # from and to the page allocator: the benchmark's own reference, the release count and two references
    entered = loops["pool_slow"].plus(fast, -1).plus(bulk, -1).plus(atomic.times(3), -1)
    pool = {
        **_split(fast, ("pool_alloc_ns", "pool_put_ns"), parent, "pool_fast"),
        "ring_slot_ns": measured(
            slots, f"{OWN_POOL}; pool_ring less pool_fast and the lock, for two entries"
        ),
        **_split(entered, ("page_adopt_ns", "page_release_ns"), parent, "pool_slow less its other steps"),
    }
    beside = "less an atomic that is charged beside it"
    page_allocator = {
        **_split(
            instructions,
            ("page_bulk_alloc_ns", "page_free_ns"),
            parent,
            f"page_bulk {beside}",
            OWN_ALLOCATOR,
        ),
        "page_single_alloc_ns": measured(
            loops["page_single"].plus(atomic, -1).plus(free, -1),
            f"{OWN_ALLOCATOR}; page_single {beside} and page_free_ns",
        ),
        "buddy_page_ns": measured(moved, f"{OWN_ALLOCATOR}; mean of both directions"),
    }
    return StandIns(pool, page_allocator)


def load_prices(profile: Profile) -> dict[str, Row]:
    """What a load of the package's own pool costs where a kernel's would cost what the profile says: its page
    allocator, and misses between which there is little work; its pool too, if the profile's is another."""
    stand_ins = measure_stand_ins(profile)
    exposed = profile.parameters["miss_exposed_ratio"]
    if exposed.certainty == MEASURED:
        short = Spread(exposed.low, exposed.low, exposed.low)
    else:
        short = _ratio(probes.misses(MISSES_BYTES, facts().line_bytes or 64).exposed[probes.SHORT_WORK])
    prices = {**stand_ins.page_allocator, "miss_exposed_ratio": measured(short, EXPOSED_SHORT)}
    if profile.parameters["pool_put_ns"].certainty != MEASURED:
        prices |= stand_ins.pool
    reconcile(prices, profile)
    return prices


def _ratio(measured_ratio: Spread) -> Spread:
    return Spread(*(min(1.0, max(0.01, number)) for number in measured_ratio))


def _split(
    total: Spread, names: tuple[str, str], parent: Profile, loop: str, whose: str = OWN_POOL
) -> dict[str, Row]:
    whole = sum(parent[name] for name in names) or 1.0
    return {
        name: measured(
            total.times(parent[name] / whole),
            f"{whose}; {loop}, in the parent's proportion to {names[1 - place]}",
        )
        for place, name in enumerate(names)
    }


def _page_allocator(
    machine: Facts,
    parent: Profile,
    stand_ins: StandIns,
    found: dict[str, Row],
    beside: dict[str, Row],
) -> None:
    faults = probes.faults_ns(machine.page_bytes)
    for name, spread in faults.items():
        beside[f"page_{name.replace(' ', '_')}_ns"] = measured(spread, "pages of a process")
    alloc = "stand-in: faults of new pages less faults of existing ones and clearing"
    above = {
        "page_single_alloc_ns": (_less(faults, "touch").plus(faults["clear"], -1), f"{alloc}, one by one"),
        "page_free_ns": (_less(faults, "drop"), "stand-in: unmapping new pages less unmapping existing ones"),
    }
    if "private bulk" in faults and "shared bulk" in faults:
        above["page_bulk_alloc_ns"] = (_less(faults, "bulk").plus(faults["clear"], -1), f"{alloc}, in bulk")
    for name, (spread, how) in above.items():
        low, high = sorted((stand_ins.page_allocator[name].value, _rounded(spread.value)))
        kept = parent.parameters[name]
        value = min(max(kept.value, low), high)
        found[name] = Row(
            value,
            low,
            high if high > low else low + 1,
            "estimate",
            f"{parent.name} ({kept.source}), within bounds {HERE}",
            f"lower bound: {OWN_ALLOCATOR}; upper bound: {how}",
        )


def _less(faults: Mapping[str, Spread], verb: str) -> Spread:
    return faults[f"private {verb}"].plus(faults[f"shared {verb}"], -1)


def document(calibration: Calibration, parent: str) -> str:
    """The profile as a TOML file that :func:`workers.profiles.arch.load` reads.

    Args:
        parent: a bundled profile, or a path that ends in .toml.
    """
    machine = calibration.facts
    virtual = ", a virtual machine" if machine.hypervisor else ""
    return table_text(
        f"{machine.model}, as measured",
        f"{machine.architecture}, {len(machine.cpus)} CPUs{virtual}; farm arch calibrate",
        parent,
        calibration.parameters,
    )


def table_text(title: str, description: str, parent: str, rows: Mapping[str, Row]) -> str:
    """A profile that states some parameters and has the others from its parent."""
    header = {"title": title, "description": description, "parent": parent}
    lines = [f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in header.items()]
    for name, row in rows.items():
        lines += ["", f"[{name}]"]
        for key, entry in row._asdict().items():
            if entry != "":
                lines.append(f"{key} = {json.dumps(entry, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
