"""Where XDP frames are redirected to: another device, the CPU map, an AF_XDP socket.

A receive queue collects frames for each target and hands them over in bulk, at the latest when its poll ends
(``xdp_do_flush``); a page comes back from where the frame is done with, which for the other device and the
CPU map is not the poll that it came from.
"""

from typing import Any

from pool_impl import pool
from pool_impl import skb as buffer
from pool_impl import xdp as xdp_memory
from pool_impl.jit import compiled
from pool_impl.layout import BH_DISABLED, SERVING_SOFTIRQ
from pool_impl.observe import PRODUCER_LOCK, SKB
from workers.arrivals.rss import HASH_BITS
from workers.arrivals.traffic import FOREVER
from workers.books import hold, latency
from workers.net import stack, transmit
from workers.pricing import cost
from workers.pricing.cache import HEADER, PAYLOAD, stream
from workers.schedule import refresh
from workers.state import TO_AF_XDP, TO_DEVICE, Trial

DEVICE_BULK_FRAMES = 16
"""frames collected for a device before they are handed over (``DEV_MAP_BULK_SIZE``)"""
CPUMAP_BULK_FRAMES = 8
"""frames collected for a CPU (``CPU_MAP_BULK_SIZE``)"""

CLEANED_AT_ONCE = xdp_memory.BULK_SIZE
"""sent frames whose pages one step returns under one lock"""


# In the poll of the receive queue


@compiled()
def redirect(trial: Trial, number: int, descriptor: Any, page: int) -> bool:
    """XDP_REDIRECT of a received page; True if it was copied and the page is the driver's again."""
    xdp = trial.xdp
    observer = trial.host.observer
    observer.work(cost.XDP_REDIRECT, 1)
    if xdp.redirect_to == TO_AF_XDP:
        # copy mode: into memory of the socket, whose consumer always keeps up
        observer.touch(PAYLOAD, page, False)
        observer.work(cost.COPY, descriptor.frame_bytes)
        stream(observer.caches, trial.host.context.cpu, 2 * descriptor.frame_bytes)
        return True
    target = number % xdp.targets if xdp.redirect_to == TO_DEVICE else _of_flow(descriptor, xdp.targets)
    collected = trial.frame_queues[xdp.first_bulk + number * xdp.targets + target]
    if transmit.is_full(collected):
        _hand_over(trial, collected, target)
    # the xdp_frame lies in the headroom, which is followed with the header's line
    observer.touch(HEADER, page, True)
    frame = transmit.last(trial, collected)
    frame.page = page
    frame.skb = 0
    frame.memory_id = trial.queues[number].memory_id
    frame.frame_bytes = descriptor.frame_bytes
    frame.arrival_ps = descriptor.arrival_ps
    frame.flow_hash = descriptor.flow_hash
    return False


@compiled()
def _of_flow(descriptor: Any, targets: int) -> int:
    """By the upper bits of the flow's hash, since the lower ones have picked the queue."""
    return int((descriptor.flow_hash * targets) >> HASH_BITS)


@compiled(inline=False)
def flush_all(trial: Trial, number: int) -> None:
    """A queue's poll ends: hand over all that it has collected, and announce what is in its own ring."""
    xdp = trial.xdp
    for target in range(xdp.targets):
        collected = trial.frame_queues[xdp.first_bulk + number * xdp.targets + target]
        if collected.head != collected.tail:
            _hand_over(trial, collected, target)
    if trial.nic.transmits:
        transmit.doorbell(trial, number)


@compiled(inline=False)
def _hand_over(trial: Trial, collected: Any, target: int) -> None:
    """Move frames into the target's queue, under its lock, and wake it. Those that find it full are dropped
    in the poll that their pages came from (spec 6.8)."""
    host = trial.host
    to_device = trial.xdp.redirect_to == TO_DEVICE
    number = trial.xdp.first_target + target
    queue = trial.frame_queues[number]
    was_empty = queue.head == queue.tail
    host.observer.work(PRODUCER_LOCK, 1)
    while collected.head != collected.tail:
        source = transmit.take(trial, collected)
        if transmit.is_full(queue):
            trial.tally.dropped_tx += 1 if source.arrival_ps >= trial.tally.measure_from_ps else 0
            xdp_memory.return_frame_rx_napi(host, trial.xdp_memory, source.page, source.memory_id)
            continue
        if to_device:
            host.observer.work(cost.TRANSMIT, 1)
            transmit.map_for_device(trial, source.frame_bytes)
        else:
            host.observer.work(cost.TARGET_SLOT, 1)
        transmit.move(transmit.last(trial, queue), source)
    if to_device:
        transmit.doorbell(trial, number)
    if was_empty:
        _wake(trial, target, number)


@compiled()
def _wake(trial: Trial, number: int, queue: int) -> None:
    """The first frame in a target's queue: an interrupt will tell of its completion, or a kthread runs."""
    target = trial.targets[number]
    if trial.xdp.redirect_to == TO_DEVICE:
        at_ps = transmit.completion_ps(trial, queue, target.usecs_ps, 0)
    else:
        at_ps = cost.clock(trial.host.observer.meter, trial.host.context.cpu)
    if at_ps < target.event_ps:
        target.event_ps = at_ps
        refresh(trial, target.cpu)


# On the target's CPU


@compiled(inline=False)
def step(trial: Trial, number: int, start_ps: int, slept: bool) -> int:
    """One step of a target; the skb to free, or 0."""
    if trial.xdp.redirect_to == TO_DEVICE:
        trial.host.context.in_softirq = SERVING_SOFTIRQ
        _poll(trial, number, start_ps)
        return 0
    # with bottom halves disabled, on a CPU that polls no pool's NAPI: no return is direct from here
    trial.host.context.in_softirq = BH_DISABLED
    return _deliver(trial, number, slept)


@compiled()
def _poll(trial: Trial, number: int, start_ps: int) -> None:
    """Of the other device's NAPI: begin, or clean up to CLEANED_AT_ONCE sent frames, or end."""
    host = trial.host
    tally = trial.tally
    target = trial.targets[number]
    ring = trial.frame_queues[trial.xdp.first_target + number]
    target.event_ps = start_ps
    if not target.polls:
        host.observer.work(cost.INTERRUPT, 1)
        tally.interrupts += 1
        host.observer.work(cost.POLL, 1)
        target.polls = 1
        target.to_clean = transmit.sent(trial.frames, ring, start_ps)
        return
    if target.to_clean == 0:
        target.polls = 0
        now_ps = cost.clock(host.observer.meter, target.cpu)
        queue = trial.xdp.first_target + number
        target.event_ps = transmit.completion_ps(trial, queue, target.usecs_ps, now_ps)
        return
    for _ in range(min(target.to_clean, CLEANED_AT_ONCE)):
        target.to_clean -= 1
        frame = transmit.take(trial, ring)
        host.observer.work(cost.TRANSMIT_CLEAN, 1)
        transmit.unmap(trial)
        host.observer.touch(HEADER, frame.page, False)
        if frame.arrival_ps >= tally.measure_from_ps:
            tally.redirected += 1
            latency.count_until(trial, frame.arrival_ps, frame.sent_ps)
        xdp_memory.return_frame_bulk(host, trial.xdp_memory, trial.returned, frame.page, frame.memory_id)
    xdp_memory.flush_bulk(host, trial.xdp_memory, trial.returned)


@compiled()
def _deliver(trial: Trial, number: int, slept: bool) -> int:
    """A kthread of the CPU map makes an skb of a frame and carries it through the stack; the skb to free, or
    0. Up to 6.3 the page leaves its pool for that (spec 6.8)."""
    host = trial.host
    observer = host.observer
    target = trial.targets[number]
    queue = trial.frame_queues[trial.xdp.first_target + number]
    if slept:
        observer.work(cost.INTERRUPT, 1)
    observer.work(cost.TARGET_SLOT, 1)
    frame = transmit.take(trial, queue)
    target.event_ps = FOREVER if queue.head == queue.tail else 0
    observer.touch(HEADER, frame.page, False)
    observer.work(cost.SKB_ALLOC, 1)
    skb = buffer.build(trial.buffers, frame.page, 0, trial.nic.page_bytes)
    observer.touch(SKB, skb, True)
    buffer.extend(trial.buffers, skb, frame.frame_bytes)
    packet = trial.packets[skb]
    packet.arrival_ps = frame.arrival_ps
    packet.flow_hash = frame.flow_hash
    packet.units = trial.nic.page_units
    if host.rules.skbs_of_frames_recycle:
        buffer.mark_for_recycle(trial.buffers, skb)
    else:
        owner = trial.xdp_memory.owner[frame.memory_id] - 1
        trial.blamed[owner].detached += 1
        pool.release_page(host, host.pools[owner], frame.page)
    hold.begin(trial, skb)
    return int(stack.receive(trial, skb))
