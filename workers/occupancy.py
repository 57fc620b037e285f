"""Where the pages are: time averages by place, which add up to all pages in use."""

from typing import Any

from pool_impl.jit import compiled
from pool_impl.page_alloc import used_pages
from workers.state import (
    IN_CACHE,
    IN_FRAGMENTS,
    IN_RING,
    IN_RX_RING,
    IN_SOCKET,
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
    in_cache = in_ring = in_rx_ring = in_socket = 0
    for number in range(trial.nic.queues):
        queue = trial.queues[number]
        in_rx_ring += (queue.posted - queue.read) * trial.nic.buffer_units + queue.kept_units
    for number in range(trial.nic.pools):
        in_cache += trial.host.pools[number].cache_count
        in_ring += _ring_pages(trial, number)
    for number in range(trial.stack.readers):
        reader = trial.readers[number]
        in_socket += reader.queued_units
    used = used_pages(trial.host.page_allocator, trial.machine.cpus)
    tally.page_ps[IN_CACHE] += in_cache * elapsed_ps
    tally.page_ps[IN_RING] += in_ring * elapsed_ps
    tally.used_page_ps += used * elapsed_ps
    if trial.nic.buffer_units == UNITS_OF_A_PAGE:
        tally.page_ps[IN_RX_RING] += (in_rx_ring >> UNITS_SHIFT) * elapsed_ps
        tally.page_ps[IN_SOCKET] += (in_socket >> UNITS_SHIFT) * elapsed_ps
    else:
        rest = ((used - in_cache - in_ring) << UNITS_SHIFT) - in_rx_ring - in_socket
        _add_parts(tally, in_rx_ring * elapsed_ps, in_socket * elapsed_ps, rest * elapsed_ps)


@compiled(inline=False)
def _add_parts(tally: Any, rx_ring: int, socket: int, fragments: int) -> None:
    """Parts of pages, in units times picoseconds. Whole pages go to the sums, since units would overflow them
    in a long trial."""
    for location, unit_ps in ((IN_RX_RING, rx_ring), (IN_SOCKET, socket), (IN_FRAGMENTS, fragments)):
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
