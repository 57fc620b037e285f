"""Posting buffers to empty descriptors, after a poll and when the device is brought up."""

from pool_impl.jit import compiled
from workers.drivers import header_split, split, unpooled
from workers.drivers.buffers import allocate_fragment, allocate_page, post
from workers.pricing import cost
from workers.state import FRAGMENTS, HEADER_SPLIT, KEPT_PAGES, OWN_PAGES, PAGES, Trial


@compiled()
def _post_new(trial: Trial, number: int) -> bool:
    """Post a buffer; False if there is none."""
    pattern = trial.nic.pattern
    offset = 0
    if pattern <= PAGES:
        page = allocate_page(trial, number)
    elif pattern == HEADER_SPLIT:
        return header_split.post_new(trial, number)
    elif pattern == FRAGMENTS:
        page, offset = allocate_fragment(trial, trial.queues[number].pool)
    elif pattern >= OWN_PAGES:
        page, offset = unpooled.allocate(trial)
    else:
        page, offset = split.next_buffer(trial, number)
    if page == 0:
        return False
    post(trial, trial.queues[number], page, offset)
    return True


@compiled(inline=False)
def refill(trial: Trial, number: int, limit: int) -> None:
    """Post a buffer for each empty descriptor, oldest first, up to a limit; stop when there is none."""
    queue = trial.queues[number]
    meter = trial.host.observer.meter
    left = limit
    if trial.nic.pattern == KEPT_PAGES:
        split.give_back(trial, number, limit)
    while left > 0 and queue.posted - queue.read <= trial.nic.ring_mask and _post_new(trial, number):
        left -= 1
    if queue.unannounced:
        cost.charge(meter, queue.cpu, cost.DEVICE_REGISTER, meter.register_write_ps)
        queue.unannounced = 0
