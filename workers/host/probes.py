"""Measurements: caches, atomics, copies, lines between cores, page faults, the package's own paths."""

import contextlib
import math
import mmap
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pool_impl.access import Threads
from pool_impl.host import new_host
from pool_impl.layout import REFILL, Table, records, words
from pool_impl.release import DEFAULT_RELEASE, rules_of
from workers.host import loops
from workers.host.clock import Spread, elapsed_ns, now_ns, samples_ns, spread_of, spreads_ns
from workers.host.levels import Point
from workers.host.memory import lay_cycle, random_order, region
from workers.micro import LOOPS, bench_host

FRAME_WORDS = 190
"""1520 bytes: a full Ethernet frame in whole words"""

PLACES = 4
"""pools that are measured where one would do"""

FAULTED_PAGES = 1024
MADV_POPULATE_WRITE = 23
"""of the kernel's mman headers; since 5.14"""

MOVED_PAGES = 4096
PCP_HIGH = 128
"""a short list, so that nearly all pages move"""

HOPS = 20_000
"""loads of one sample of the latency curve"""

SHORT_WORK, LONG_WORK = 1, 16
"""ring paths of the pool between two loads: what a packet does in the pool alone, and about as much time as
the fastest receive paths of a kernel take for a packet"""


def new_probe() -> Any:
    """A PROBE record on a line of its own."""
    return records(loops.PROBE, 1)[0]


class LatencyCurve:
    """Pointer chases through working sets of these sizes, bytes, ascending.

    All sets are sampled in turn, at times far apart: whoever else uses the memory of a shared machine may do
    so for seconds.
    """

    def __init__(self, sizes: list[int], line_bytes: int) -> None:
        self._sizes = sizes
        self._sets = [region(size) for size in sizes]
        self._lines = [size // line_bytes for size in sizes]
        self._probes = [new_probe() for _ in sizes]
        self._calls = [math.inf for _ in sizes]
        self._elapsed: list[list[int]] = [[] for _ in sizes]
        for memory, lines in zip(self._sets, self._lines, strict=True):
            lay_cycle(memory.table, lines, line_bytes // 8)

    def sample(self, repeats: int = 8) -> None:
        """Measure all sets so many times more."""
        for _ in range(repeats):
            for place, (memory, lines) in enumerate(zip(self._sets, self._lines, strict=True)):
                chase = partial(loops.chase, memory.table, self._probes[place])
                if lines <= 4 * HOPS:
                    chase(lines)  # the sets before have taken its place in the caches
                self._calls[place] = min(self._calls[place], elapsed_ns(chase, 0))
                self._elapsed[place].append(elapsed_ns(chase, HOPS))

    @property
    def huge_ratio(self) -> float:
        """Share of the largest set that is in huge pages."""
        return self._sets[-1].huge_ratio

    def points(self) -> list[Point]:
        """What all samples say."""
        return [
            Point(size, spread_of([(elapsed - call) / HOPS for elapsed in sampled]))
            for size, call, sampled in zip(self._sizes, self._calls, self._elapsed, strict=True)
        ]


def translation_ns(page_bytes: int, line_bytes: int) -> Spread:
    """A load whose line is in the second level and whose page is none of the last 16384: a chase through one
    line of each page, at another place in each so that they do not share a set."""
    pages = 16_384
    memory = region(pages * (page_bytes + line_bytes))
    lay_cycle(memory.table, pages, (page_bytes + line_bytes) // 8)
    return spreads_ns({"": partial(loops.chase, memory.table, new_probe())}, pages, 10)[""]


def core_ns() -> dict[str, Spread]:
    """Operations within a core, each for one turn."""
    runs = {
        "relaxed_atomic": loops.add_relaxed,
        "ordered_atomic": loops.add_ordered,
        "store_and_barrier": loops.store_and_barrier,
        "lock_unlock": loops.lock_and_unlock,
        "two_cycles": loops.count_cycles,
        "call_and_add": loops.call,
    }
    return spreads_ns({name: partial(run, new_probe()) for name, run in runs.items()}, 50_000, 60)


def copies_ns(page_bytes: int) -> dict[str, Spread]:
    """Copying a full frame that is in the first level, or in one of 4096 pages."""
    pages = 4096
    memory = region(pages * page_bytes)
    target = words(FRAME_WORDS)
    runs = {
        name: partial(loops.copy, memory.table, target, FRAME_WORDS, page_bytes // 8, places)
        for name, places in (("hot", 1), ("cold", pages))
    }
    return spreads_ns(runs, pages, 20)


class Misses(NamedTuple):
    """How execution gets along with misses of one working set."""

    latency: Spread
    """nanoseconds of a load that needs the one before"""
    exposed: dict[int, Spread]
    """share of it that is waited for, by ring paths of the pool between two loads; median of several pools"""
    drain: Spread
    """nanoseconds that an ordered atomic waits for a store that misses"""


def misses(size_bytes: int, line_bytes: int) -> Misses:
    """Visit lines in a random order that is known ahead."""
    memory = region(size_bytes)
    lines, line_words = size_bytes // line_bytes, line_bytes // 8
    lay_cycle(memory.table, lines, line_words)
    order = random_order(lines, line_words)
    hot = 64
    # each starts elsewhere, so that none finds what another has just brought into the caches
    cold_runs = 4 * PLACES
    starts = iter(range(0, lines, lines // cold_runs))
    ratios: dict[int, list[float]] = {works: [] for works in (SHORT_WORK, LONG_WORK)}
    latencies, drains = [], []
    for _ in range(PLACES):
        chasing = _probe_at(order[next(starts)])
        runs: dict[str, Callable[[int], object]] = {"chase": partial(loops.chase, memory.table, chasing)}
        # one pool for all that is compared: how fast it is depends on where its memory happens to be
        host = bench_host()
        for works in ratios:
            for name, count, probe in (("cold", lines, _probe_at(next(starts))), ("hot", hot, new_probe())):
                runs[f"{name} {works}"] = partial(loops.visit, host, memory.table, order, count, works, probe)
        for name, count, probe in (("cold", lines, _probe_at(next(starts))), ("hot", hot, new_probe())):
            runs[f"{name} store"] = partial(loops.store_then_atomic, memory.table, order, count, probe)
        found = spreads_ns(runs, 1_000, 40)
        latencies.append(found["chase"].value)
        drains.append(found["cold store"].plus(found["hot store"], -1).value)
        for works, sampled in ratios.items():
            exposed_ns = found[f"cold {works}"].value - found[f"hot {works}"].value
            sampled.append(exposed_ns / loops.LINES / found["chase"].value)
    exposed = {
        works: Spread(min(sampled), float(np.median(sampled)), max(sampled))
        for works, sampled in ratios.items()
    }
    return Misses(spread_of(latencies), exposed, spread_of(drains))


def _probe_at(position: int) -> Any:
    probe = new_probe()
    probe.position = position
    return probe


def line_transfer_ns(one_cpu: int, other_cpu: int, turns: int = 1000, repeats: int = 40) -> Spread:
    """A line from one CPU to the other: half of a round trip."""
    samples = []
    for _ in range(repeats):
        probe = new_probe()
        other = threading.Thread(target=_on_cpu, args=(other_cpu, partial(loops.pong, probe, turns + 1)))
        taken: list[int] = []

        def lead(probe: Any = probe, taken: list[int] = taken) -> None:
            loops.ping(probe, 0, 1)  # the other one is there
            taken.append(elapsed_ns(partial(loops.ping, probe, 1), turns))

        one = threading.Thread(target=_on_cpu, args=(one_cpu, lead))
        other.start()
        one.start()
        one.join()
        other.join()
        samples.append(taken[0] / turns / 2)
    return spread_of(samples)


def _on_cpu(cpu: int, run: Callable[[], object]) -> None:
    # 0 is the calling thread, not the process
    os.sched_setaffinity(0, {cpu})
    run()


def far_memory_ns(near_cpu: int, far_cpu: int, size_bytes: int, line_bytes: int) -> Spread:
    """Loads on one CPU from memory that another one, of another socket, has touched first."""
    found: list[Spread] = []
    made: list[Any] = []

    def place() -> None:
        memory = region(size_bytes)
        lay_cycle(memory.table, size_bytes // line_bytes, line_bytes // 8)
        made.append(memory)

    def walk() -> None:
        run = partial(loops.chase, made[0].table, new_probe())
        found.append(spreads_ns({"": run}, 20_000, 25)[""])

    for cpu, run in ((far_cpu, place), (near_cpu, walk)):
        thread = threading.Thread(target=_on_cpu, args=(cpu, run))
        thread.start()
        thread.join()
    return found[0]


def faults_ns(page_bytes: int) -> dict[str, Spread]:
    """What the kernel takes for pages of a process, each for one page.

    ``private`` pages are new and zeroed; ``shared`` ones exist, so that a fault only maps them. Both are
    touched one by one, or mapped in bulk by one call where the kernel can; ``drop`` gives them back, or only
    unmaps them.
    """
    size = FAULTED_PAGES * page_bytes
    private = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):
            private.madvise(mmap.MADV_NOHUGEPAGE)
    file = os.memfd_create("faults")
    try:
        os.ftruncate(file, size)
        shared = mmap.mmap(file, size, flags=mmap.MAP_SHARED)
    finally:
        os.close(file)
    samples: dict[str, list[float]] = {}
    tables = {name: _words_of(pages) for name, pages in (("private", private), ("shared", shared))}
    for repeat in range(16):
        for name, pages in (("private", private), ("shared", shared)):
            _sample(
                samples, f"{name} touch", partial(loops.touch, tables[name], page_bytes // 8, FAULTED_PAGES)
            )
            _sample(samples, f"{name} drop", partial(pages.madvise, mmap.MADV_DONTNEED))
            with contextlib.suppress(OSError):
                _sample(samples, f"{name} bulk", partial(pages.madvise, MADV_POPULATE_WRITE))
            pages.madvise(mmap.MADV_DONTNEED)
        if repeat == 0:
            samples.clear()  # the shared pages were new
    found = {name: spread_of(sampled) for name, sampled in samples.items()}
    cleared = words(page_bytes // 8)
    return found | spreads_ns({"clear": partial(loops.clear, cleared, page_bytes // 8)}, 500, 20)


def _words_of(pages: mmap.mmap) -> Any:
    return np.frombuffer(pages, np.int64).view(Table)


def _sample(samples: dict[str, list[float]], name: str, run: Callable[[], object]) -> None:
    start = now_ns()
    run()
    samples.setdefault(name, []).append((now_ns() - start) / FAULTED_PAGES)


def pool_ns() -> dict[str, Spread]:
    """The benchmark loops of :mod:`workers.micro`, each for one turn; of several pools, since how fast one is
    depends on where its memory happens to be."""
    found: dict[str, list[float]] = {}
    for _ in range(PLACES):
        host = bench_host()
        runs = {loop.name: partial(loop.run, host) for loop in LOOPS}
        for name, samples in samples_ns(runs, 20_000, 20).items():
            found.setdefault(name, []).extend(samples)
    return {name: spread_of(samples) for name, samples in found.items()}


def zone_move_ns() -> Spread:
    """A page of the package's page allocator that moves between a per-CPU list and the shared ones, one way,
    on top of what it costs to take it from the list and give it back."""
    host = new_host(
        rules_of(DEFAULT_RELEASE), pages=2 * MOVED_PAGES, access=Threads(), pcp_high=PCP_HIGH, pcp_batch=63
    )
    into, bulk = words(MOVED_PAGES), words(REFILL)
    [page_bulk] = [loop for loop in LOOPS if loop.name == "page_bulk"]
    runs: dict[str, Callable[[int], object]] = {
        "moved": partial(loops.move_through_zone, host, into, bulk, MOVED_PAGES),
        "listed": partial(page_bulk.run, bench_host()),
    }
    found = spreads_ns(runs, 4 * MOVED_PAGES, 40)
    return found["moved"].plus(found["listed"], -1).times(MOVED_PAGES / (MOVED_PAGES - PCP_HIGH) / 2)
