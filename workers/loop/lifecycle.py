"""What happens to a device while traffic flows: it goes down, comes up with other rings or queues, or has its
interrupts moved.

Going down ends the polls, gives each posted buffer back, destroys the pools and leaves packets on the wire
without a descriptor. What GRO holds goes up as the poll ends. Backlogs go on with what they have; a device
that stays down does not run, and what would come to a backlog from it then is dropped
(``enqueue_to_backlog``), while one that is to come up again counts as running. Pages that sockets hold come
back later: a destroyed pool still takes them into its ring, and looks once a second whether all are there
(spec 4.2). So it is with frames that were redirected. Coming up makes new pools beside the old ones.
"""

from typing import Any, NamedTuple

from pool_impl import page_alloc, pool
from pool_impl.jit import compiled
from pool_impl.layout import NO_CPU, PROCESS
from workers import drivers
from workers.arrivals.rss import TABLE_ENTRIES
from workers.arrivals.traffic import FOREVER, PS_PER_MS, PS_PER_SECOND
from workers.books import hold
from workers.config import TrialConfig
from workers.device import flow_control, hardware_gro
from workers.drivers import split
from workers.net import backlog, gro, stack, targets, transmit
from workers.pricing import nodes
from workers.pricing.cost import clock, idle
from workers.schedule import refresh
from workers.state import DOWN, HEADER_SPLIT, IDLE, KEPT_PAGES, NOBODY, OWN_KEPT_PAGES, OWN_PAGES, Trial

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
        _end_poll(trial, number)
        trial.cpus[queue.cpu].poller = NOBODY
        host.device.napi_owner[number] = NO_CPU
        host.device.napi_scheduled[number] = 1
        queue.phase = DOWN
        queue.event_ps = FOREVER
        queue.waiting_frames = queue.to_clean = 0
        _empty_ring(trial, queue)
        if trial.nic.pattern == KEPT_PAGES or trial.nic.pattern == OWN_KEPT_PAGES:
            split.give_up_all(trial, number)
        if trial.nic.contexts:
            _empty_contexts(trial, number)
        if trial.nic.transmits:
            _empty_transmit_ring(trial, number, start_ps)
        queue.read = queue.dma = queue.merging = queue.posted = queue.kept_units = 0
        _destroy(trial, queue.pool)
        if trial.nic.pattern == HEADER_SPLIT:
            _destroy(trial, trial.nic.first_header_pool + queue.pool)
        _end(trial, queue.cpu, start_ps)
    trial.life.down_at_ps = at_ps
    if trial.life.pages_left == 0:
        trial.life.drained_at_ps = at_ps


@compiled(inline=False)
def _end_poll(trial: Trial, number: int) -> None:
    """Pass up what GRO holds and hand over what was redirected, in what is left of the poll."""
    context = trial.host.context
    context.in_softirq = trial.nic.poll_context
    if trial.stack.gro:
        skb = gro.next_to_flush(trial, number, FOREVER)
        while skb != 0:
            if trial.stack.backlogs and trial.life.stays_down:
                trial.tally.dropped_backlog += flow_control.dropped(trial, skb)
            else:
                skb = stack.pass_up(trial, number, skb)
            if skb != 0:
                hold.free(trial, skb)
            skb = gro.next_to_flush(trial, number, FOREVER)
    if trial.nic.frame_queues:
        targets.flush_all(trial, number)
    if trial.stack.backlogs:
        backlog.send_interrupts(trial, number)
    context.in_softirq = PROCESS


@compiled(inline=False)
def _empty_ring(trial: Trial, queue: Any) -> None:
    """Lose the packets that were not read, and give back all that the descriptors have, unless it is parts of
    pages that the driver keeps."""
    mask = trial.nic.ring_mask
    merges = trial.nic.contexts > 0
    keeps = trial.nic.pattern == KEPT_PAGES or trial.nic.pattern == OWN_KEPT_PAGES
    for position in range(queue.read, queue.read + mask + 1):
        descriptor = trial.descriptors[queue.first + (position & mask)]
        if position < queue.dma and descriptor.ends and not merges:
            trial.tally.missed += 1 if descriptor.arrival_ps >= trial.tally.measure_from_ps else 0
            flow_control.lost(trial, descriptor.flow_hash, 1)
        if not keeps:
            _put(trial, queue, descriptor.header_page, descriptor.page)
            descriptor.header_page = descriptor.page = 0


@compiled(inline=False)
def _empty_contexts(trial: Trial, number: int) -> None:
    """The same for what the NIC merges or has merged."""
    found = hardware_gro.give_up(trial, number)
    while found != 0:
        aggregate = trial.aggregates[found]
        packets = aggregate.merged_count + 1
        flow_control.lost(trial, aggregate.flow_hash, packets)
        trial.tally.missed += hardware_gro.counted(trial, aggregate)
        _put(trial, trial.queues[number], aggregate.header_page, 0)
        for position in range(aggregate.pages):
            _put(trial, trial.queues[number], 0, aggregate.page[position])
        found = hardware_gro.give_up(trial, number)


@compiled(inline=False)
def _empty_transmit_ring(trial: Trial, number: int, now_ps: int) -> None:
    """Free all frames of a queue's transmit ring: what has not left by now never does. It takes no more, as a
    device that is down has no queueing discipline."""
    ring = trial.frame_queues[number]
    link = trial.links[ring.link]
    link.free_ps = min(link.free_ps, now_ps)
    sent = transmit.sent(trial.frames, ring, now_ps)
    while ring.head != ring.tail:
        skb = transmit.give_up(trial, number, sent > 0)
        sent -= 1
        if skb != 0:
            hold.free(trial, skb)
    ring.announced = ring.tail
    ring.limit = 0


@compiled(inline=False)
def _put(trial: Trial, queue: Any, header_page: int, page: int) -> None:
    """Give back a descriptor's buffers, those that it has."""
    host = trial.host
    if header_page != 0:
        owner = host.pools[trial.nic.first_header_pool + queue.pool]
        pool.put(host, owner, header_page, pool.WHOLE, False)
    if page == 0:
        return
    if trial.nic.pattern >= OWN_PAGES:
        drivers.unmap(trial)
        page_alloc.put_page(host, page)
    else:
        pool.put(host, host.pools[queue.pool], page, pool.WHOLE, False)


@compiled(inline=False)
def _destroy(trial: Trial, number: int) -> None:
    """Its queue's, and the XDP memory's if it is that (``xdp_rxq_info_unreg``)."""
    owner = trial.host.pools[number]
    while owner.user_cnt > 0:
        pool.destroy(trial.host, owner)
    trial.life.pages_left += pool.inflight(owner)


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
        queue.memory_id = queue.pool + 1
        if nic.transmits:
            trial.frame_queues[number].limit = life.tx_ring
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
    for number in range(trial.machine.pools):
        owner = host.pools[number]
        if owner.destroy_cnt != 0 and not owner.freed and pool.release_tick(host, owner):
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
