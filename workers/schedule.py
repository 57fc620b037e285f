"""Whose turn it is: which CPU takes the next step, and which queue or reader on it.

A step is due when its CPU is free and what it waits for has happened. Softirqs go before readers, and a poll
that has begun is finished first. Polls that use up their budget go on until they have had a slice of the
scheduler; then the readers of their CPU have a turn as long: ksoftirqd and the application are equals to it.
"""

from typing import Any

from pool_impl.jit import compiled
from workers.arrivals.traffic import FOREVER
from workers.state import BACKLOG_POLL, DEFERRED_FREE, IDLE, LATE_FREE, NOBODY, POLL, READER, YIELDED, Trial


@compiled()
def next_cpu(trial: Trial) -> int:
    """The CPU whose step is due first; the lowest number among equals."""
    found = 0
    due_ps = trial.machine.due_ps[0]
    for cpu in range(1, trial.machine.cpus):
        if trial.machine.due_ps[cpu] < due_ps:
            found = cpu
            due_ps = trial.machine.due_ps[cpu]
    return found


@compiled()
def refresh(trial: Trial, number: int) -> None:
    """Find out anew what is due on a CPU, since its time or something of its actors has changed."""
    cpu = trial.cpus[number]
    if cpu.poller != NOBODY:
        trial.machine.due_ps[number] = cpu.now_ps
    elif cpu.actors == 1:
        actor = trial.actors[cpu.first_actor]
        event_ps = _event_ps(
            actor,
            trial.queues,
            trial.readers,
            trial.backlogs,
            trial.deferred,
            trial.retained,
            trial.targets,
        )
        trial.machine.due_ps[number] = max(cpu.now_ps, event_ps)
    else:
        trial.machine.due_ps[number] = _choose(
            cpu,
            trial.actors,
            trial.queues,
            trial.readers,
            trial.backlogs,
            trial.deferred,
            trial.retained,
            trial.targets,
        )


@compiled()
def _event_ps(
    actor: Any, queues: Any, readers: Any, backlogs: Any, deferred: Any, retained: Any, targets: Any
) -> int:
    """When what an actor waits for happened or will, FOREVER if nobody knows."""
    if actor.kind == READER:
        reader = readers[actor.number]
        return int(reader.wake_ps) if reader.head != reader.tail else FOREVER
    if actor.kind == POLL:
        return int(queues[actor.number].event_ps)
    if actor.kind == BACKLOG_POLL:
        return int(backlogs[actor.number].event_ps)
    if actor.kind == DEFERRED_FREE:
        return int(deferred[actor.number].event_ps)
    if actor.kind == LATE_FREE:
        return int(retained[actor.number].event_ps)
    return int(targets[actor.number].event_ps)


@compiled(inline=False)
def _choose(
    cpu: Any,
    actors: Any,
    queues: Any,
    readers: Any,
    backlogs: Any,
    deferred: Any,
    retained: Any,
    targets: Any,
) -> int:
    """Among several on one CPU; returns when its step is due."""
    readers_turn = False
    if cpu.reader_turn_ps > 0 and cpu.waiting > 0:
        for index in range(cpu.first_actor, cpu.first_actor + cpu.actors):
            # one that stalls has no use for its turn
            if actors[index].kind == READER:
                reader = readers[actors[index].number]
                readers_turn |= reader.head != reader.tail and reader.wake_ps <= cpu.now_ps
    polls_turn = False
    if cpu.polls_turn_ps > 0 and cpu.waiting > 0:
        for index in range(cpu.first_actor, cpu.first_actor + cpu.actors):
            if actors[index].kind == POLL:
                polls_turn |= queues[actors[index].number].phase == YIELDED
    due_ps = FOREVER
    waited_since_ps = FOREVER
    kind = READER
    for index in range(cpu.first_actor, cpu.first_actor + cpu.actors):
        actor = actors[index]
        event_ps = _event_ps(actor, queues, readers, backlogs, deferred, retained, targets)
        if readers_turn and actor.kind == POLL and queues[actor.number].phase != IDLE:
            event_ps = FOREVER
        if polls_turn and actor.kind == READER:
            event_ps = FOREVER
        start_ps = max(cpu.now_ps, event_ps)
        if start_ps > due_ps:
            continue
        if start_ps == due_ps and (event_ps >= waited_since_ps or actor.kind > kind):
            continue
        due_ps = start_ps
        cpu.due_actor = index
        waited_since_ps = event_ps
        kind = actor.kind
    return due_ps


@compiled()
def interrupt(trial: Trial, queue: Any, at_ps: int) -> None:
    """The interrupt of an idle queue will fire."""
    queue.event_ps = at_ps
    refresh(trial, queue.cpu)
