"""Where the pages are: time averages by place, which add up to all pages in use.

What buffers take is counted in parts of a page (UNIT_BYTES). Where each buffer is a whole page, so are all
sums; elsewhere the rest of the pages in use is in no buffer: parts of pages (``fragments``), or what a
driver's page cache has to itself (``page_cache``).
"""

from typing import Any

from pool_impl.jit import compiled
from pool_impl.page_alloc import used_pages
from workers.measures import LOCATIONS
from workers.pricing.idle import settle_pool
from workers.state import (
    IN_APPLICATION,
    IN_BACKLOG,
    IN_CACHE,
    IN_DEFERRED,
    IN_GRO,
    IN_RING,
    IN_RX_RING,
    IN_SOCKET,
    IN_TAP,
    Trial,
)


@compiled()
def advance(trial: Trial, now_ps: int) -> None:
    """A step begins: add up what any step may change. Queues, readers and pools are added up when they
    change, since a step changes few of them (the ``settle`` functions)."""
    tally = trial.tally
    elapsed_ps = now_ps - tally.integrated_to_ps
    if elapsed_ps <= 0:
        return
    tally.integrated_to_ps = now_ps
    trial.host.observer.idle.now_ps = now_ps
    tally.used_page_ps += used_pages(trial.host) * elapsed_ps
    if trial.stack.special or trial.stack.keeps or trial.nic.frame_queues:
        _advance_stack(trial, elapsed_ps)


@compiled(inline=False)
def _advance_stack(trial: Trial, elapsed_ps: int) -> None:
    tally, stack = trial.tally, trial.stack
    for number in range(trial.nic.frame_queues):
        frames = trial.frame_queues[number]
        units = ((frames.tail - frames.head) << trial.nic.page_units_shift) + frames.more_units
        _add(tally, trial.nic.page_units_shift, frames.location, units, elapsed_ps)
    shift = trial.nic.page_units_shift
    _add(tally, shift, IN_GRO, stack.gro_units, elapsed_ps)
    _add(tally, shift, IN_BACKLOG, stack.backlog_units, elapsed_ps)
    _add(tally, shift, IN_DEFERRED, stack.deferred_units, elapsed_ps)
    _add(tally, shift, IN_TAP, stack.tap_units, elapsed_ps)


@compiled()
def settle_queue(trial: Trial, number: int) -> None:
    """The descriptors of a queue are about to change."""
    queue = trial.queues[number]
    elapsed_ps = trial.tally.integrated_to_ps - queue.settled_ps
    if elapsed_ps != 0:
        queue.settled_ps += elapsed_ps
        units = (queue.posted - queue.read) * trial.nic.buffer_units + queue.kept_units
        _add(trial.tally, trial.nic.page_units_shift, IN_RX_RING, units, elapsed_ps)


@compiled()
def settle_reader(trial: Trial, reader: Any) -> None:
    """What a socket or its application holds is about to change."""
    elapsed_ps = trial.tally.integrated_to_ps - reader.settled_ps
    if elapsed_ps != 0:
        reader.settled_ps += elapsed_ps
        shift = trial.nic.page_units_shift
        reader.page_ps += ((reader.units + reader.held_units) * elapsed_ps) >> shift
        _add(trial.tally, shift, IN_SOCKET, reader.units, elapsed_ps)
        if trial.stack.keeps:
            _add(trial.tally, shift, IN_APPLICATION, reader.held_units, elapsed_ps)


@compiled(inline=False)
def settle_all(trial: Trial, now_ps: int) -> None:
    """Add everything up, until now."""
    advance(trial, now_ps)
    for number in range(trial.nic.queues):
        settle_queue(trial, number)
    for number in range(trial.stack.readers):
        settle_reader(trial, trial.readers[number])
    idle = trial.host.observer.idle
    for number in range(trial.machine.pools):
        settle_pool(idle, trial.host.pools[number], trial.host.slots)
    tally = trial.tally
    tally.page_ps[IN_CACHE] = idle.cache_page_ps
    tally.page_ps[IN_RING] = idle.ring_page_ps
    if not trial.nic.whole_pages:
        _name_the_rest(tally, trial.nic.page_units_shift, trial.nic.rest_location)


@compiled(inline=False)
def _name_the_rest(tally: Any, shift: int, location: int) -> None:
    """What is nowhere else."""
    tally.page_ps[location] = tally.unit_ps[location] = 0
    pages_ps = tally.used_page_ps
    unit_ps = 0
    for other in range(len(LOCATIONS)):
        pages_ps -= tally.page_ps[other]
        unit_ps -= tally.unit_ps[other]
    tally.page_ps[location] = pages_ps + (unit_ps >> shift)
    tally.unit_ps[location] = unit_ps & ((1 << shift) - 1)


@compiled()
def _add(tally: Any, shift: int, location: int, units: int, elapsed_ps: int) -> None:
    """Units, of which ``1 << shift`` make a page, for a time. Whole pages go to the sums, since units would
    overflow them in a long trial."""
    if units & ((1 << shift) - 1) == 0:
        tally.page_ps[location] += (units >> shift) * elapsed_ps
    else:
        _add_parts(tally, shift, location, units * elapsed_ps)


@compiled(inline=False)
def _add_parts(tally: Any, shift: int, location: int, unit_ps: int) -> None:
    unit_ps += tally.unit_ps[location]
    tally.page_ps[location] += unit_ps >> shift
    tally.unit_ps[location] = unit_ps & ((1 << shift) - 1)
