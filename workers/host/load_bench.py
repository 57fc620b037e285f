"""The pool under load: measured with real threads, and predicted on a profile."""

import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pool_impl.access import Threads
from pool_impl.host import new_host
from pool_impl.layout import CONTEXT, PROCESS, SERVING_SOFTIRQ, Host, records, words
from pool_impl.pool import PoolParams, create
from pool_impl.release import DEFAULT_RELEASE, rules_of
from workers.config import TrialConfig
from workers.errors import CheckError
from workers.host import load
from workers.host.clock import Spread, now_ns, spread_of
from workers.host.memory import region
from workers.machine import new_machine
from workers.measures import CATEGORIES
from workers.pricing.cost import PS_PER_NS
from workers.profiles import arch
from workers.walk import idle_pages, inflight

PAGES = 8192
"""more than the queue, the longest hold, the largest ring, the cache and two per-CPU lists can have"""
PACKETS = 1 << 14
"""of one repeat: a multiple of every hold"""
MOST_HELD = 4096
MOST_RING = 2048

PLACES = 8
"""pools that each setting is measured with, since how fast one is depends on where its memory lies"""


class Setting(NamedTuple):
    """One configuration of the load."""

    ring: int
    """pool.size: entries of the pool's ring"""
    hold: int
    """packets that the reader has before it returns their pages, all at once; a power of two"""
    recycle: bool
    frame_bytes: int
    """a multiple of 8"""


class Load(NamedTuple):
    """A load that is set up, with its books."""

    host: Host
    memory: Any
    napi: Any
    reader: Any
    kept: Any


def new_load(setting: Setting, host: Host, memory: Any) -> Load:
    """Pools and sides on a host that has none yet."""
    if not 0 < setting.hold <= MOST_HELD or setting.ring > MOST_RING or setting.frame_bytes % 8:
        raise ValueError(f"out of range: {setting}")
    create(host, 0, PoolParams(pool_size=setting.ring))
    create(host, 1, PoolParams(pool_size=load.QUEUE))
    sides = [records(load.SIDE, 1)[0] for _ in range(2)]
    for side in sides:
        side.hold = setting.hold
        side.frame_words = setting.frame_bytes // 8
        side.recycle = setting.recycle
    return Load(host, memory, sides[0], sides[1], words(setting.hold))


def packet_memory() -> load.RealMemory:
    """4096 bytes for each page, for any number of loads that run one after the other."""
    frame = words(load.PAGE_WORDS)
    frame[:] = np.arange(load.PAGE_WORDS)
    return load.RealMemory(region((PAGES + 1) * 8 * load.PAGE_WORDS).table, frame, words(load.PAGE_WORDS))


def real_load(setting: Setting, profile: arch.Profile, memory: load.RealMemory) -> Load:
    """With locks and atomics; the per-CPU lists are as long as in the profile."""
    host = new_host(
        rules_of(DEFAULT_RELEASE),
        pages=PAGES,
        pools=2,
        access=Threads(),
        pcp_high=int(profile["pcp_high_pages"]),
        pcp_batch=int(profile["pcp_batch_pages"]),
    )
    return new_load(setting, host, memory)


class Measured(NamedTuple):
    """What real threads took."""

    ns_per_packet: Spread
    """of all repeats with all pools"""
    by_place: tuple[float, ...]
    """median of the repeats with each pool: samples for a comparison, as they do not hang together"""
    new_page_ratio: float
    """pages from the page allocator over pages allocated"""


def measure(
    settings: Sequence[Setting], profile: arch.Profile, cpus: tuple[int, int], repeats: int
) -> list[Measured]:
    """Run the load in each setting, with a thread on each of two CPUs.

    All settings are measured in turn, each after a warm-up, so that a disturbance does not hit one of them;
    the books are checked afterwards.

    Args:
        repeats: of each setting, with each pool.

    Raises:
        CheckError: a page was lost, or a packet came out other than it was written.
    """
    memory = packet_memory()
    samples: list[list[list[float]]] = [[] for _ in settings]
    ratios: list[list[float]] = [[] for _ in settings]
    for _ in range(PLACES):
        loads = [real_load(setting, profile, memory) for setting in settings]
        for taken in samples:
            taken.append([])
        for _ in range(repeats):
            for running, taken in zip(loads, samples, strict=True):
                repeat(running, cpus)
                taken[-1].append(repeat(running, cpus))
        for running, found in zip(loads, ratios, strict=True):
            check(running)
            found.append(new_page_ratio(running))
    return [
        Measured(
            spread_of([one for place in taken for one in place]),
            tuple(float(np.median(place)) for place in taken),
            float(np.mean(found)),
        )
        for taken, found in zip(samples, ratios, strict=True)
    ]


def new_page_ratio(running: Load) -> float:
    """Pages from the page allocator over pages allocated, since the load was set up."""
    return float(running.host.pools[0].hold) / int(running.napi.packets)


def repeat(running: Load, cpus: tuple[int, int]) -> float:
    """Nanoseconds for a packet, from the start of both sides until the last packet is read."""
    napi_host = on_cpu(running.host, load.NAPI_CPU, SERVING_SOFTIRQ)
    reader_host = on_cpu(running.host, load.READER_CPU, PROCESS)
    sides = {
        cpus[0]: partial(load.run_napi, napi_host, running.memory, running.napi, PACKETS),
        cpus[1]: partial(load.run_reader, reader_host, running.memory, running.reader, running.kept, PACKETS),
    }
    ended: list[int] = []

    def run(cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of the calling thread
        sides[cpu]()
        ended.append(now_ns())

    records_of_sides = (running.napi, running.reader)
    for side in records_of_sides:
        side.ready = side.go = 0
    threads = [threading.Thread(target=run, args=(cpu,)) for cpu in cpus]
    for thread in threads:
        thread.start()
    # calling compiled code with all these tables takes tens of microseconds, which are not the packets'
    while not all(side.ready for side in records_of_sides):
        os.sched_yield()
    start = now_ns()
    for side in records_of_sides:
        side.go = 1
    for thread in threads:
        thread.join()
    return (max(ended) - start) / PACKETS


def on_cpu(host: Host, cpu: int, context: int) -> Host:
    """The same machine as a thread sees it that runs on a CPU, in softirq or process context."""
    record = records(CONTEXT, 1)[0]
    record.cpu = cpu
    record.in_softirq = context
    return host._replace(context=record)


class Predicted(NamedTuple):
    """What the model says."""

    ns_per_packet: float
    new_page_ratio: float
    """pages from the page allocator over pages allocated"""
    busy_ns: tuple[float, float]
    """for a packet, of the NAPI side and of the reader"""
    by_category: dict[str, float]
    """ns for a packet of both sides, by the names of workers.measures.CATEGORIES, those that are not 0"""


def predict(setting: Setting, profile: str) -> Predicted:
    """Run the same steps on a simulated machine with the profile's prices.

    Raises:
        CheckError: the books do not balance.
        ProfileError: there is no such profile.
    """
    host = new_machine(TrialConfig.unchecked({"arch": profile}), pages=PAGES, pools=2)
    running = new_load(setting, host, load.PricedMemory())
    meter = host.observer.meter
    sides = (running.host, running.memory, running.napi, running.reader, running.kept)
    load.simulate(*sides, 2 * PACKETS)
    clocks = meter.clock_ps[:2].copy()
    spent = meter.ledger[:2].copy()
    load.simulate(*sides, PACKETS)
    check(running)
    spent = meter.ledger[:2] - spent
    per_packet = 1 / PACKETS / PS_PER_NS
    busy = spent.sum(axis=1) * per_packet
    categories = spent.sum(axis=0) * per_packet
    return Predicted(
        float((meter.clock_ps[:2] - clocks).max() * per_packet),
        new_page_ratio(running),
        (float(busy[0]), float(busy[1])),
        {name: float(ns) for name, ns in zip(CATEGORIES, categories, strict=False) if ns},
    )


def check(running: Load) -> None:
    """Check the books of a load that stands still.

    Raises:
        CheckError: naming the two sides that differ.
    """
    host, napi, reader = running.host, running.napi, running.reader
    owner = host.pools[0]
    queued = np.count_nonzero(queued_pages(running))
    allocated = int(owner.alloc_fast + owner.alloc_slow + owner.alloc_refill)
    recycled = int(owner.recycle.sum())
    out = queued + int(reader.held)
    idle = len(idle_pages(host, owner))
    in_use = int(host.page_allocator.used_pages.sum())
    claims = [
        ("packets without a page", int(napi.wrong), "none", 0),
        ("packets read that were not what was written", int(reader.wrong), "none", 0),
        ("packets written", int(napi.packets), "packets read and queued", int(reader.packets) + queued),
        ("pages allocated", allocated, "packets written", int(napi.packets)),
        ("pages in use", in_use, "pages idle, queued and held", idle + out),
    ]
    if reader.recycle:
        claims += [
            ("pages allocated", allocated, "pages returned, queued and held", recycled + out),
            ("pages in flight", inflight(owner), "pages idle, queued and held", idle + out),
        ]
    else:
        claims += [
            ("pages returned to the pool", recycled, "none", 0),
            ("pages in flight", inflight(owner), "pages idle", idle),
        ]
    for left, found, right, expected in claims:
        if found != expected:
            raise CheckError(f"load: {left} {found} != {right} {expected}; a fault of the farm, report it")


def queued_pages(running: Load) -> Any:
    """Pages in the queue: slots that the reader has not consumed, 0 for an empty one."""
    queue = running.host.pools[1]
    slots = np.array(running.host.slots[queue.ring_base : queue.ring_base + load.QUEUE])
    # consumed, but not handed back yet
    slots[int(queue.ring_tail) : int(queue.ring_head)] = 0
    return slots
