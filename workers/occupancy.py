"""Where the pages are: time averages by place, which add up to all pages in use."""

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
    in_cache = in_ring = in_rx_ring = in_socket = in_application = 0
    for number in range(trial.machine.pools):
        in_cache += trial.host.pools[number].cache_count
        in_ring += _ring_pages(trial, number)
    for number in range(trial.nic.queues):
        queue = trial.queues[number]
        in_rx_ring += queue.posted - queue.read
    for number in range(trial.stack.readers):
        reader = trial.readers[number]
        in_socket += reader.pages
        in_application += reader.held_pages
        reader.page_ps += (reader.pages + reader.held_pages) * elapsed_ps
    for number in range(trial.nic.frame_queues):
        frames = trial.frame_queues[number]
        tally.page_ps[frames.location] += (frames.tail - frames.head) * elapsed_ps
    tally.page_ps[IN_CACHE] += in_cache * elapsed_ps
    tally.page_ps[IN_RING] += in_ring * elapsed_ps
    tally.page_ps[IN_RX_RING] += in_rx_ring * elapsed_ps
    tally.page_ps[IN_SOCKET] += in_socket * elapsed_ps
    stack = trial.stack
    if stack.special or stack.keeps:
        tally.page_ps[IN_GRO] += stack.gro_pages * elapsed_ps
        tally.page_ps[IN_BACKLOG] += stack.backlog_pages * elapsed_ps
        tally.page_ps[IN_APPLICATION] += in_application * elapsed_ps
        tally.page_ps[IN_DEFERRED] += stack.deferred_pages * elapsed_ps
        tally.page_ps[IN_TAP] += stack.tap_pages * elapsed_ps
    tally.used_page_ps += used_pages(trial.host) * elapsed_ps


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
