"""What happens to a device while traffic flows: it goes down, comes up with other rings or queues, or has its
interrupts moved.

Going down gives each posted page back, destroys the pools and leaves packets on the wire without a
descriptor. Pages that sockets hold come back later: a destroyed pool still takes them into its ring, and
looks once a second whether all are there (spec 4.2). Coming up makes new pools beside the old ones.
"""

from typing import NamedTuple

from pool_impl import pool
from pool_impl.jit import compiled
from pool_impl.layout import NO_CPU, PROCESS
from workers import drivers, nodes
from workers.config import TrialConfig
from workers.cost import clock, idle
from workers.rss import TABLE_ENTRIES
from workers.schedule import refresh
from workers.state import DOWN, IDLE, NOBODY, Trial
from workers.traffic import FOREVER, PS_PER_MS, PS_PER_SECOND

MEASURE, GO_DOWN, COME_UP, TICK, RESERVES, PLENTY, MOVE_INTERRUPTS = range(7)
"""changes: the warm-up is over; the device's; destroyed pools look for their pages; the page allocator's; the
interrupts'"""


class Change(NamedTuple):
    """Something that happens between two steps."""

    at_ps: int
    code: int


def changes(config: TrialConfig) -> list[Change]:
    """What happens in a trial besides traffic, in order of time."""
    found = [Change(config.warmup_ms * PS_PER_MS, MEASURE)]
    life, memory = config.life, config.memory
    end_ps = config.duration_ms * PS_PER_MS
    if life.event == "irq-moved":
        found.append(Change(life.at_ms * PS_PER_MS, MOVE_INTERRUPTS))
    elif life.event != "none":
        down_ps = life.at_ms * PS_PER_MS
        found.append(Change(down_ps, GO_DOWN))
        if life.event == "resize":
            found.append(Change(down_ps + life.down_ms * PS_PER_MS, COME_UP))
        found += [Change(at_ps, TICK) for at_ps in range(down_ps + PS_PER_SECOND, end_ps, PS_PER_SECOND)]
    if memory.reserves_ms > 0:
        found.append(Change(memory.reserves_at_ms * PS_PER_MS, RESERVES))
        found.append(Change((memory.reserves_at_ms + memory.reserves_ms) * PS_PER_MS, PLENTY))
    return sorted(found)


def apply(trial: Trial, code: int, at_ps: int) -> None:
    """Make a change at this time; compiled by :mod:`workers.trial`, with the loop's types."""
    if code == GO_DOWN:
        _go_down(trial, at_ps)
    elif code == COME_UP:
        _come_up(trial, at_ps)
    elif code == TICK:
        _tick(trial, at_ps)
    elif code == MOVE_INTERRUPTS:
        nodes.move_interrupts(trial)
    else:
        trial.host.page_allocator.reserves = 1 if code == RESERVES else 0


@compiled(inline=False)
def _go_down(trial: Trial, at_ps: int) -> None:
    host = trial.host
    for number in range(trial.nic.queues):
        queue = trial.queues[number]
        start_ps = _begin(trial, queue.cpu, at_ps)
        # napi_disable() waits for the end of the poll; what it has not read is lost with the ring
        trial.cpus[queue.cpu].poller = NOBODY
        host.device.napi_owner[number] = NO_CPU
        host.device.napi_scheduled[number] = 1
        queue.phase = DOWN
        queue.event_ps = FOREVER
        queue.waiting_frames = 0
        owner = host.pools[queue.pool]
        for position in range(queue.read, queue.posted):
            descriptor = trial.descriptors[queue.first + (position & trial.nic.ring_mask)]
            if position < queue.dma and descriptor.arrival_ps >= trial.tally.measure_from_ps:
                trial.tally.missed += 1
            pool.put(host, owner, descriptor.page, pool.WHOLE, False)
            descriptor.page = 0
        queue.read = queue.dma = queue.posted = 0
        pool.destroy(host, owner)
        trial.life.pages_left += pool.inflight(owner)
        _end(trial, queue.cpu, start_ps)
    trial.life.down_at_ps = at_ps
    if trial.life.pages_left == 0:
        trial.life.drained_at_ps = at_ps


@compiled(inline=False)
def _come_up(trial: Trial, at_ps: int) -> None:
    """With as many queues and descriptors as the change is for, and the pools that wait for it."""
    nic, life, host = trial.nic, trial.life, trial.host
    nic.queues = life.queues
    nic.ring_mask = life.ring_mask
    for number in range(nic.queues):
        queue = trial.queues[number]
        start_ps = _begin(trial, queue.cpu, at_ps)
        host.device.napi_scheduled[number] = 0
        queue.pool = life.first_pool + number
        queue.settled_ps = trial.tally.integrated_to_ps
        drivers.refill(trial, number, nic.ring_mask + 1)
        queue.phase = IDLE
        _end(trial, queue.cpu, start_ps)
    for entry in range(TABLE_ENTRIES):
        trial.indirection[entry] = entry % nic.queues


@compiled(inline=False)
def _tick(trial: Trial, at_ps: int) -> None:
    """The deferred release of destroyed pools, in a worker thread of the first CPU."""
    life, host = trial.life, trial.host
    if life.drained_at_ps != 0:
        return
    start_ps = _begin(trial, 0, at_ps)
    waiting = 0
    for number in range(life.first_pool):
        owner = host.pools[number]
        if not owner.freed and pool.release_tick(host, owner):
            waiting += 1
    if waiting == 0:
        life.drained_at_ps = at_ps
    _end(trial, 0, start_ps)


@compiled()
def _begin(trial: Trial, number: int, at_ps: int) -> int:
    """The CPU turns to it when it has done its last step; returns when."""
    cpu = trial.cpus[number]
    nodes.run_on(trial.host, number)
    trial.host.context.in_softirq = PROCESS
    start_ps = max(at_ps, cpu.now_ps)
    idle(trial.host.observer.meter, number, start_ps - cpu.now_ps)
    return int(start_ps)


@compiled()
def _end(trial: Trial, number: int, start_ps: int) -> None:
    cpu = trial.cpus[number]
    cpu.now_ps = clock(trial.host.observer.meter, number)
    trial.tally.busy_ps[number] += cpu.now_ps - start_ps
    refresh(trial, number)
