"""Packets between two CPUs: the steps of a NAPI poll and of a reader, for threads and a simulated machine.

The same compiled steps run in both. What differs is chosen by type, as everywhere in this project: locks and
atomics or plain words (``Host.access``), who hears of the work (``Host.observer``), and whether a packet's
bytes are real (the memory classes below).

The NAPI side takes a page from the pool, lets the NIC write a frame to it and hands it on through a second
ptr_ring, as the CPU map does; there is no NIC, so this CPU copies the frame and the time is its own. The
reader copies the frame out and keeps the page until it has ``hold`` of them, then returns all. With recycling
off, the page leaves the pool as it is handed on, and the reader gives it to the package's page allocator.
"""

from typing import Any, NamedTuple

import numpy as np

from pool_impl import page_alloc, pool, ring
from pool_impl.jit import atomic_load, atomic_store, back_off, compiled, entry, methods
from pool_impl.layout import PROCESS, RING_BATCH, SERVING_SOFTIRQ, Host
from pool_impl.pool import PAGE_BYTES
from workers.host.digest import HOST_DIGEST
from workers.pricing import cost
from workers.pricing.cache import HEADER, PAYLOAD

PAGE_WORDS = PAGE_BYTES // 8
BATCH = 64
"""packets of one step, a NAPI budget: a side that has to wait does so until a whole batch is there or fits"""
QUEUE = 1024
"""packets that may wait between the two sides"""
NAPI_CPU, READER_CPU = 0, 1

SIDE = np.dtype(
    [
        (name, "<i8")
        for name in (
            *("packets", "index", "held", "hold", "frame_words"),
            *("recycle", "wrong", "ready", "go"),
            *("_pad_0", "_pad_1", "_pad_2", "_pad_3", "_pad_4", "_pad_5", "_pad_6"),
        )
    ]
)
"""one side: packets so far, its place in the queue, pages that it holds and at how many it returns them,
frame in 64-bit words, whether pages are recycled; packets that were not as they should be (no page, or other
bytes than were written); whether its thread runs, and whether it may begin. Two cache lines of its own"""


class RealMemory(NamedTuple):
    """Each page has 4096 bytes."""

    data: Any
    """words of all pages"""
    frame: Any
    """words of the frame that the NIC writes"""
    buffer: Any
    """words of the reader"""

    def write_frame(self, _host: Host, page: int, length: int, number: int) -> None:
        """The NIC writes a packet, with its number at both ends."""
        first = page * PAGE_WORDS
        for word in range(length):
            self.data[first + word] = self.frame[word]
        self.data[first] = number
        self.data[first + length - 1] = number

    def read_frame(self, _host: Host, page: int, length: int, number: int) -> int:
        """Copy a packet out; 1 if it is another than that of the number."""
        first = page * PAGE_WORDS
        for word in range(length):
            self.buffer[word] = self.data[first + word]
        return 0 if self.buffer[0] == number and self.buffer[length - 1] == number else 1


class PricedMemory(NamedTuple):
    """A packet is what it costs to write or read it."""

    unused: int = 0

    def write_frame(self, host: Host, page: int, length: int, _number: int) -> None:
        """Its lines are written and not read, so the core does not wait for them; and a copy."""
        cost.store(host.observer, HEADER, page)
        if length > 8:
            cost.store(host.observer, PAYLOAD, page)
        host.observer.work(cost.COPY, 8 * length)

    def read_frame(self, host: Host, page: int, length: int, _number: int) -> int:
        """Wait for its lines, and a copy; there are no bytes that could be wrong."""
        host.observer.touch(HEADER, page, False)
        if length > 8:
            host.observer.touch(PAYLOAD, page, False)
        host.observer.work(cost.COPY, 8 * length)
        return 0


methods(RealMemory)


@compiled()
def has_room(host: Host, side: Any) -> bool:
    """Whether a batch fits into the queue; its last slots are freed oldest last."""
    queue = host.pools[1]
    slot = queue.ring_base + (side.index + BATCH - RING_BATCH) % QUEUE
    return bool(host.access.read_slot(host.slots, slot) == 0)


@compiled()
def has_packets(host: Host) -> bool:
    """Whether a batch waits in the queue."""
    queue = host.pools[1]
    slot = queue.ring_base + (queue.ring_head + BATCH - 1) % QUEUE
    return bool(host.access.read_slot(host.slots, slot) != 0)


@compiled()
def receive(host: Host, memory: Any, side: Any) -> None:
    """A packet from the NIC into the queue, which has room."""
    owner = host.pools[0]
    queue = host.pools[1]
    page = pool.alloc(host, owner)
    if page == 0:
        side.wrong += 1
        page = 1  # memory is laid out so that this cannot be; it is counted, and the run is void
    memory.write_frame(host, page, side.frame_words, side.packets)
    if not side.recycle:
        pool.release_page(host, owner, page)
    ring.produce(host, queue, side.index, page)
    side.index = ring.following(queue, side.index)
    side.packets += 1


@compiled()
def read(host: Host, memory: Any, side: Any, kept: Any) -> None:
    """Read a packet that is in the queue; the last one that is to be held returns all pages."""
    page = ring.consume(host, host.pools[1])
    side.wrong += memory.read_frame(host, page, side.frame_words, side.packets)
    side.packets += 1
    kept[side.held] = page
    side.held += 1
    if side.held == side.hold:
        _return_all(host, side, kept)


@compiled()
def _return_all(host: Host, side: Any, kept: Any) -> None:
    owner = host.pools[0]
    for position in range(side.held):
        if side.recycle:
            pool.put(host, owner, kept[position], pool.WHOLE, False)
        else:
            page_alloc.put_page(host, kept[position])
    side.held = 0


# Real threads


@entry(HOST_DIGEST)
def run_napi(host: Host, memory: Any, side: Any, packets: int) -> None:
    """The NAPI thread, for so many packets."""
    until = side.packets + packets
    _await_start(side)
    while side.packets < until:
        turn = 0
        while not has_room(host, side):
            turn = back_off(turn)
        for _ in range(BATCH):
            receive(host, memory, side)


@entry(HOST_DIGEST)
def run_reader(host: Host, memory: Any, side: Any, kept: Any, packets: int) -> None:
    """The reader's thread, likewise."""
    until = side.packets + packets
    _await_start(side)
    while side.packets < until:
        turn = 0
        while not has_packets(host):
            turn = back_off(turn)
        for _ in range(BATCH):
            read(host, memory, side, kept)


@compiled()
def _await_start(side: Any) -> None:
    """Say that the thread is here, in compiled code, and wait until it may begin."""
    atomic_store(side, "ready", 1)
    turn = 0
    while atomic_load(side, "go") == 0:
        turn = back_off(turn)


# A simulated machine


@entry(HOST_DIGEST)
def simulate(host: Host, memory: Any, napi: Any, reader: Any, kept: Any, packets: int) -> None:
    """Both CPUs until so many packets more are read: of those that can go on, the one that is behind does, by
    one packet."""
    meter = host.observer.meter
    until = reader.packets + packets
    while reader.packets < until:
        receives = napi.packets % BATCH != 0 or has_room(host, napi)
        reads = reader.packets % BATCH != 0 or has_packets(host)
        if receives and (not reads or cost.clock(meter, NAPI_CPU) <= cost.clock(meter, READER_CPU)):
            host.context.cpu = NAPI_CPU
            host.context.in_softirq = SERVING_SOFTIRQ
            receive(host, memory, napi)
            if not reads:
                _catch_up(meter, READER_CPU, NAPI_CPU)
        else:
            host.context.cpu = READER_CPU
            host.context.in_softirq = PROCESS
            read(host, memory, reader, kept)
            if not receives:
                _catch_up(meter, NAPI_CPU, READER_CPU)


@compiled()
def _catch_up(meter: Any, cpu: int, other: int) -> None:
    """A CPU that has to wait for the other one goes on no earlier than that is now."""
    cost.idle(meter, cpu, max(0, cost.clock(meter, other) - cost.clock(meter, cpu)))
