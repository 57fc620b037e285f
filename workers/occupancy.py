"""Where the pages are: time averages by place, which add up to all pages in use.

What buffers take is counted in parts of a page (UNIT_BYTES). Where each buffer is a whole page, so are all
sums; elsewhere the rest of the pages in use is in no buffer: parts of pages (``fragments``), or what a
driver's page cache has to itself (``page_cache``).
"""

from typing import Any

from pool_impl.jit import compiled
from pool_impl.page_alloc import used_pages
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
    UNITS_OF_A_PAGE,
    UNITS_SHIFT,
    Trial,
)


@compiled()
def integrate(trial: Trial, now_ps: int) -> None:
    """Nothing has moved since the last call: add up the time that has passed."""
    tally = trial.tally
    elapsed_ps = now_ps - tally.integrated_to_ps
    if elapsed_ps <= 0:
        return
    tally.integrated_to_ps = now_ps
    in_cache = in_ring = in_rx_ring = in_socket = in_application = in_frames = 0
    for number in range(trial.machine.pools):
        in_cache += trial.host.pools[number].cache_count
        in_ring += _ring_pages(trial, number)
    for number in range(trial.nic.queues):
        queue = trial.queues[number]
        in_rx_ring += (queue.posted - queue.read) * trial.nic.buffer_units + queue.kept_units
    for number in range(trial.stack.readers):
        reader = trial.readers[number]
        in_socket += reader.units
        in_application += reader.held_units
        reader.page_ps += ((reader.units + reader.held_units) * elapsed_ps) >> UNITS_SHIFT
    for number in range(trial.nic.frame_queues):
        frames = trial.frame_queues[number]
        in_frames += frames.tail - frames.head
        tally.page_ps[frames.location] += (frames.tail - frames.head) * elapsed_ps
    used = used_pages(trial.host)
    tally.page_ps[IN_CACHE] += in_cache * elapsed_ps
    tally.page_ps[IN_RING] += in_ring * elapsed_ps
    tally.used_page_ps += used * elapsed_ps
    stack = trial.stack
    if trial.nic.whole_pages:
        tally.page_ps[IN_RX_RING] += (in_rx_ring >> UNITS_SHIFT) * elapsed_ps
        tally.page_ps[IN_SOCKET] += (in_socket >> UNITS_SHIFT) * elapsed_ps
        if stack.special or stack.keeps:
            tally.page_ps[IN_GRO] += (stack.gro_units >> UNITS_SHIFT) * elapsed_ps
            tally.page_ps[IN_BACKLOG] += (stack.backlog_units >> UNITS_SHIFT) * elapsed_ps
            tally.page_ps[IN_APPLICATION] += (in_application >> UNITS_SHIFT) * elapsed_ps
            tally.page_ps[IN_DEFERRED] += (stack.deferred_units >> UNITS_SHIFT) * elapsed_ps
            tally.page_ps[IN_TAP] += (stack.tap_units >> UNITS_SHIFT) * elapsed_ps
    else:
        rest = (used - in_cache - in_ring - in_frames) << UNITS_SHIFT
        rest -= in_rx_ring + in_socket + in_application
        rest -= stack.gro_units + stack.backlog_units + stack.deferred_units + stack.tap_units
        _add_part(tally, IN_RX_RING, in_rx_ring * elapsed_ps)
        _add_part(tally, IN_SOCKET, in_socket * elapsed_ps)
        _add_part(tally, IN_APPLICATION, in_application * elapsed_ps)
        _add_part(tally, IN_GRO, stack.gro_units * elapsed_ps)
        _add_part(tally, IN_BACKLOG, stack.backlog_units * elapsed_ps)
        _add_part(tally, IN_DEFERRED, stack.deferred_units * elapsed_ps)
        _add_part(tally, IN_TAP, stack.tap_units * elapsed_ps)
        _add_part(tally, trial.nic.rest_location, rest * elapsed_ps)


@compiled(inline=False)
def _add_part(tally: Any, location: int, unit_ps: int) -> None:
    """Parts of pages, in units times picoseconds. Whole pages go to the sums, since units would overflow them
    in a long trial."""
    unit_ps += tally.unit_ps[location]
    tally.page_ps[location] += unit_ps >> UNITS_SHIFT
    tally.unit_ps[location] = unit_ps & (UNITS_OF_A_PAGE - 1)


@compiled()
def _ring_pages(trial: Trial, number: int) -> int:
    """Live entries of a pool's ring from its indices: the head never rests on a consumed slot, so a full
    ring and an empty one differ in what the head's slot holds."""
    pool = trial.host.pools[number]
    live = pool.ring_prod - pool.ring_head
    if live < 0:
        live += pool.ring_size
    elif live == 0 and trial.host.slots[pool.ring_base + pool.ring_head] != 0:
        live = pool.ring_size
    return int(live)
