"""Whose turn it is: which CPU takes the next step, and which queue or reader on it.

A step is due when its CPU is free and what it waits for has happened. Softirqs go before readers, and a poll
that has begun is finished first. A poll that used up its budget lets the readers of its CPU have a turn as
long as it was: ksoftirqd and the application are equals to the scheduler.
"""

from typing import Any

from pool_impl.jit import compiled
from workers.state import IDLE, NOBODY, POLL, READER, TARGET_TURN, Trial
from workers.traffic import FOREVER


@compiled()
def next_cpu(trial: Trial) -> int:
    """The CPU whose step is due first; the lowest number among equals."""
    found = 0
    due_ps = trial.cpus[0].due_ps
    for cpu in range(1, trial.machine.cpus):
        if trial.cpus[cpu].due_ps < due_ps:
            found = cpu
            due_ps = trial.cpus[cpu].due_ps
    return found


@compiled()
def refresh(trial: Trial, number: int) -> None:
    """Find out anew what is due on a CPU, since its time or something of its actors has changed."""
    cpu = trial.cpus[number]
    if cpu.poller != NOBODY:
        cpu.due_ps = cpu.now_ps
    elif cpu.actors == 1:
        actor = trial.actors[cpu.first_actor]
        cpu.due_ps = max(cpu.now_ps, _event_ps(actor, trial.queues, trial.readers, trial.targets))
    else:
        _choose(cpu, trial.actors, trial.queues, trial.readers, trial.targets)


@compiled()
def _event_ps(actor: Any, queues: Any, readers: Any, targets: Any) -> int:
    """When what an actor waits for happened or will, FOREVER if nobody knows."""
    if actor.kind == READER:
        reader = readers[actor.number]
        return int(reader.wake_ps) if reader.head != reader.tail else FOREVER
    if actor.kind == TARGET_TURN:
        return int(targets[actor.number].event_ps)
    return int(queues[actor.number].event_ps)


@compiled(inline=False)
def _choose(cpu: Any, actors: Any, queues: Any, readers: Any, targets: Any) -> None:
    """Among several on one CPU."""
    readers_turn = cpu.reader_turn_ps > 0 and cpu.waiting > 0
    cpu.due_ps = FOREVER
    waited_since_ps = FOREVER
    kind = READER
    for index in range(cpu.first_actor, cpu.first_actor + cpu.actors):
        actor = actors[index]
        event_ps = _event_ps(actor, queues, readers, targets)
        if readers_turn and actor.kind == POLL and queues[actor.number].phase != IDLE:
            event_ps = FOREVER
        start_ps = max(cpu.now_ps, event_ps)
        if start_ps > cpu.due_ps:
            continue
        if start_ps == cpu.due_ps and (event_ps >= waited_since_ps or actor.kind > kind):
            continue
        cpu.due_ps = start_ps
        cpu.due_actor = index
        waited_since_ps = event_ps
        kind = actor.kind


@compiled()
def interrupt(trial: Trial, queue: Any, at_ps: int) -> None:
    """The interrupt of an idle queue will fire."""
    queue.event_ps = at_ps
    refresh(trial, queue.cpu)
