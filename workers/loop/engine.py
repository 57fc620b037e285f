"""The event loop: whichever CPU is due next takes its next step. Nothing else.

A step is one packet handled, one poll begun or ended, or one packet read. Steps start in order of time,
so what one CPU leaves in the ring or the socket is there for a later step of another.
"""

from typing import Any

from pool_impl import skb as buffer
from pool_impl.jit import atomic_load, compiled
from pool_impl.layout import NO_CPU, PROCESS, SERVING_SOFTIRQ
from workers import drivers
from workers.arrivals.traffic import FOREVER
from workers.books import hold, occupancy
from workers.device import hardware_gro, moderation, nic
from workers.net import backlog, deferred, gro, retention, sockets, stack, targets, transmit
from workers.pricing import cost, nodes
from workers.schedule import next_cpu, refresh
from workers.state import (
    BACKLOG_POLL,
    FLUSHING,
    IDLE,
    LATE_FREE,
    NOBODY,
    POLL,
    POLLING,
    READER,
    TARGET_TURN,
    YIELDED,
    Trial,
)


@compiled()
def run(trial: Trial, until_ps: int) -> None:
    """Take every step that starts before ``until_ps``, or until another thread wants the trial to stop; can
    be called again to go on."""
    if not trial.nic.up:
        _start(trial)
    while atomic_load(trial.machine, "stopped") == 0:
        cpu = next_cpu(trial)
        start_ps = trial.machine.due_ps[cpu]
        if trial.nic.next_arrival_ps <= min(start_ps, until_ps - 1):
            if trial.nic.contexts:
                hardware_gro.receive_until(trial, min(start_ps, until_ps - 1))
            else:
                nic.receive_until(trial, min(start_ps, until_ps - 1))
            cpu = next_cpu(trial)
            start_ps = trial.machine.due_ps[cpu]
        if start_ps >= until_ps:
            break
        occupancy.advance(trial, start_ps)
        _step(trial, cpu, start_ps)
    occupancy.settle_all(trial, until_ps)


@compiled(inline=False)
def _start(trial: Trial) -> None:
    """Fill the receive rings, as bringing the device up does; time and books start after that."""
    for number in range(trial.nic.queues):
        queue = trial.queues[number]
        nodes.run_on(trial.host, queue.cpu)
        drivers.refill(trial, number, trial.nic.ring_mask + 1)
        queue.phase = IDLE
        queue.event_ps = FOREVER
    nic.advance(trial)
    cost.forget(trial.host.observer.meter)
    for cpu in range(trial.machine.cpus):
        refresh(trial, cpu)
    trial.nic.up = 1


@compiled()
def _step(trial: Trial, number: int, start_ps: int) -> None:
    """The next step of a CPU: it idles until then, and its clock goes on by what the step costs."""
    host = trial.host
    meter = host.observer.meter
    cpu = trial.cpus[number]
    actor = trial.actors[cpu.due_actor]
    waited_ps = start_ps - cpu.now_ps
    if cpu.spins:
        cost.charge(meter, number, cost.BUSY_POLL, waited_ps)
        trial.tally.busy_ps[number] += waited_ps
    else:
        cost.idle(meter, number, waited_ps)
    slept = waited_ps > 0 and not cpu.spins
    nodes.run_on(host, number)
    if actor.kind == READER:
        host.context.in_softirq = PROCESS
        skb = sockets.read_packet(trial, actor.number, slept)
    elif actor.kind == POLL:
        host.context.in_softirq = trial.nic.poll_context
        occupancy.settle_queue(trial, actor.number)
        skb = _poll(trial, actor.number, start_ps)
    elif actor.kind == TARGET_TURN:
        skb = targets.step(trial, actor.number, start_ps, slept)
    else:
        host.context.in_softirq = SERVING_SOFTIRQ
        skb = _other_softirq(trial, actor.kind, actor.number, slept)
    if skb != 0:
        # in one place for all: this is most of the compiled code
        hold.release(trial, skb)
        host.observer.work(cost.SKB_FREE, 1)
        buffer.free(trial.buffers, skb)
    if actor.kind == READER:
        sockets.work_on_packet(trial, trial.readers[actor.number])
    cpu.now_ps = cost.clock(meter, number)
    spent_ps = cpu.now_ps - start_ps
    trial.tally.busy_ps[number] += spent_ps
    if actor.kind == READER:
        cpu.reader_turn_ps -= spent_ps
    refresh(trial, number)


@compiled()
def _poll(trial: Trial, number: int, now_ps: int) -> int:
    """One step of a queue's poll; the skb to free, or 0."""
    queue = trial.queues[number]
    if queue.phase != POLLING:
        if queue.phase == FLUSHING:
            return _flush(trial, queue, number, now_ps)
        _begin_poll(trial, queue, number, now_ps)
        return 0
    if queue.to_clean != 0:
        queue.to_clean -= 1
        return transmit.clean(trial, number)
    if queue.dma != queue.read and queue.polled < trial.nic.budget:
        queue.polled += 1
        trial.tally.read += 1
        skb = drivers.receive_packet(trial, number)
        return skb if skb == 0 else stack.deliver(trial, number, skb)
    return _flush(trial, queue, number, now_ps)


@compiled()
def _completes(trial: Trial, queue: Any) -> bool:
    """Whether a poll that ends now waits for an interrupt: not with more to do, unless that should happen on
    another CPU (as i40e and mlx5 look at the interrupt's affinity)."""
    return bool(queue.polled < trial.nic.budget or queue.irq_cpu != queue.cpu)


@compiled(inline=False)
def _flush(trial: Trial, queue: Any, number: int, now_ps: int) -> int:
    """Nothing more to poll: what GRO holds goes up, one skb a step; then the poll is over. A poll that used
    up its budget will go on, and so may what is held, but for what has waited too long."""
    if trial.stack.gro:
        over = _completes(trial, queue)
        skb = gro.next_to_flush(trial, number, now_ps if over else now_ps - gro.MOST_AGE_PS)
        if skb != 0:
            queue.phase = FLUSHING
            return stack.pass_up(trial, number, skb)
    _end_poll(trial, queue, number)
    if trial.stack.backlogs:
        backlog.send_interrupts(trial, number)
    return 0


@compiled(inline=False)
def _other_softirq(trial: Trial, kind: int, number: int, slept: bool) -> int:
    """One step of a backlog's poll, or freeing what readers left or have kept; the skb to free, or 0."""
    if kind == BACKLOG_POLL:
        skb = backlog.poll(trial, number)
        return 0 if skb == 0 else stack.receive(trial, skb)
    if slept:
        trial.host.observer.work(cost.INTERRUPT, 1)
    if kind == LATE_FREE:
        trial.host.context.in_softirq = PROCESS
        return retention.free_oldest(trial, number)
    deferred.flush(trial, number)
    return 0


@compiled(inline=False)
def _begin_poll(trial: Trial, queue: Any, number: int, now_ps: int) -> None:
    observer = trial.host.observer
    if queue.phase == IDLE and not trial.cpus[queue.cpu].spins:
        observer.work(cost.INTERRUPT, 1)
        trial.tally.interrupts += 1
        observer.work(cost.CONTEXT_SWITCH, trial.nic.thread_wakes)
        if trial.nic.adaptive:
            moderation.adapt(queue, now_ps)
    observer.work(cost.POLL, 1)
    queue.phase = POLLING
    queue.polled = 0
    queue.poll_started_ps = now_ps
    trial.host.device.napi_owner[number] = queue.cpu
    trial.cpus[queue.cpu].poller = number
    if trial.nic.updates_pool:
        nodes.update_pool(trial, number)
    if trial.nic.transmits:
        queue.to_clean = transmit.sent(trial.frames, trial.frame_queues[number], now_ps)
    if trial.stack.defers:
        deferred.flush(trial, deferred.list_of(trial, queue.cpu))


@compiled(inline=False)
def _end_poll(trial: Trial, queue: Any, number: int) -> None:
    """Refill, then wait for an interrupt or, with more to do, for the next turn."""
    if trial.nic.frame_queues:
        targets.flush_all(trial, number)
    drivers.refill(trial, number, trial.nic.refill_limit)
    cpu = trial.cpus[queue.cpu]
    cpu.poller = NOBODY
    cpu.polls_turn_ps += _now(trial, queue.cpu) - queue.poll_started_ps
    if _completes(trial, queue):
        cpu.polls_turn_ps = 0
        queue.phase = IDLE
        # only while GRO is flushed can anything come in unseen
        queue.waiting_frames = queue.dma - queue.read
        queue.event_ps = FOREVER if queue.waiting_frames == 0 else _now(trial, queue.cpu) + queue.usecs_ps
        if trial.nic.transmits:
            queue.event_ps = min(queue.event_ps, transmit.interrupt_ps(trial, number))
        trial.host.device.napi_owner[number] = NO_CPU
        if queue.irq_cpu != queue.cpu:
            nodes.follow_interrupt(trial, number)
        return
    queue.phase = YIELDED
    queue.event_ps = _now(trial, queue.cpu)
    cpu.reader_turn_ps = 0
    if cpu.polls_turn_ps >= trial.nic.slice_ps:
        cpu.reader_turn_ps = cpu.polls_turn_ps
        cpu.polls_turn_ps = 0


@compiled()
def _now(trial: Trial, cpu: int) -> int:
    return cost.clock(trial.host.observer.meter, cpu)
