"""Interrupt moderation: how long the NIC waits for more packets before it interrupts, fixed or adaptive.

Adaptive is Linux's net_dim: after every 64 interrupts it compares throughput and interrupt rate with the
interval before and steps through five profiles, towards longer waits (right) or shorter ones (left), while it
gets better. It parks where both neighbours were worse, or where it is tired of searching.
"""

from typing import Any

from pool_impl.jit import compiled
from workers.schedule import interrupt
from workers.state import IDLE, Trial

PROFILE_USECS = (1, 8, 64, 128, 256)
"""net_dim's receive profiles that count from the event, microseconds"""
FIRST_PROFILE = 1
PROFILE_FRAMES = 256
"""all of them interrupt at so many frames"""
INTERVAL_INTERRUPTS = 64
TIRED_AT = 2 * len(PROFILE_USECS)
"""steps without finding a place to park"""

RIGHT, LEFT, PARKED, TIRED = range(4)
"""what the search is doing"""

WORSE, SAME, BETTER = -1, 0, 1


@compiled()
def packet_arrived(trial: Trial, queue: Any, arrival_ps: int) -> None:
    """A packet lies in a queue whose interrupt is armed, or in one that is polled."""
    if queue.phase != IDLE:
        return
    queue.waiting_frames += 1
    if queue.event_ps > arrival_ps + queue.usecs_ps:
        interrupt(trial, queue, arrival_ps + queue.usecs_ps)
    if queue.waiting_frames == queue.frames and arrival_ps < queue.event_ps:
        interrupt(trial, queue, arrival_ps)


@compiled(inline=False)
def adapt(queue: Any, now_ps: int) -> None:
    """An interrupt came: at the end of an interval, choose the wait for the next one."""
    queue.interrupts += 1
    if queue.interrupts < INTERVAL_INTERRUPTS:
        return
    elapsed_us = (now_ps - queue.interval_from_ps) // 10**6
    if elapsed_us == 0:
        return
    packets = (queue.read - queue.read_before) * 1000 // elapsed_us
    interrupts = queue.interrupts * 1000 // elapsed_us
    parked = queue.search == PARKED
    _decide(queue, _compare(queue, packets, interrupts))
    if not (parked and queue.search == PARKED):
        queue.packets_before = packets
        queue.interrupts_before = interrupts
    queue.interval_from_ps = now_ps
    queue.read_before = queue.read
    queue.interrupts = 0
    queue.usecs_ps = PROFILE_USECS[queue.profile] * 10**6


@compiled()
def _compare(queue: Any, packets: int, interrupts: int) -> int:
    """This interval's rates, per millisecond, with those that were kept: more packets, else fewer interrupts,
    if by more than a tenth. Frames have one mean size, so bytes would say the same."""
    if queue.packets_before == 0:
        return BETTER if packets > 0 else SAME
    if _differs(packets, queue.packets_before):
        return BETTER if packets > queue.packets_before else WORSE
    if queue.interrupts_before != 0 and _differs(interrupts, queue.interrupts_before):
        return BETTER if interrupts < queue.interrupts_before else WORSE
    return SAME


@compiled()
def _differs(value: int, reference: int) -> bool:
    return bool(100 * abs(value - reference) // reference > 10)


@compiled()
def _decide(queue: Any, result: int) -> None:
    if queue.search == PARKED:
        if result != SAME:
            _leave(queue)
        return
    if queue.search == TIRED:
        queue.tired -= 1
        if queue.tired == 0:
            _leave(queue)
        return
    if result != BETTER:
        if queue.search == RIGHT:
            queue.search = LEFT
            queue.steps_left = 0
        else:
            queue.search = RIGHT
            queue.steps_right = 0
    back = queue.steps_left if queue.search == RIGHT else queue.steps_right
    forth = queue.steps_right if queue.search == RIGHT else queue.steps_left
    at_edge = queue.profile == (len(PROFILE_USECS) - 1 if queue.search == RIGHT else 0)
    if back > 1 and forth == 1:
        # came from two or more steps on the other side and found it worse here: the place between is best
        _park(queue, PARKED)
    elif queue.tired == TIRED_AT:
        _park(queue, TIRED)
    elif at_edge:
        _park(queue, PARKED)
    else:
        _step(queue)


@compiled()
def _leave(queue: Any) -> None:
    queue.search = LEFT if queue.profile > 0 else RIGHT
    _step(queue)


@compiled()
def _step(queue: Any) -> None:
    queue.tired += 1
    if queue.search == RIGHT:
        queue.profile += 1
        queue.steps_right += 1
    else:
        queue.profile -= 1
        queue.steps_left += 1


@compiled()
def _park(queue: Any, search: int) -> None:
    queue.search = search
    queue.steps_right = queue.steps_left = 0
    if search == PARKED:
        queue.tired = 0
