"""Memory nodes: who is on which, and receive queues whose interrupt moves to the other one.

A node is a socket with its memory and its last-level cache. The device is attached to one of them; CPUs are
on that which ``numa`` names for what they do. What the distance costs is in ``cache`` and the profile.
"""

from typing import Any

from pool_impl import pool
from pool_impl.jit import compiled
from pool_impl.layout import NO_NODE, Host
from pool_impl.observe import SKB, SLAB_HEAD
from workers.config import TrialConfig
from workers.pricing.cache import DESCRIPTOR
from workers.pricing.idle import settle_pool
from workers.schedule import refresh
from workers.state import HEADER_SPLIT, IDLE, Trial

# Setting up


def lay_out(config: TrialConfig, caches: Any) -> None:
    """Say where objects lie that are in no page; all CPUs are on the node of the queues until :func:`place`
    is called."""
    numa = config.numa
    caches.device_node = numa.nic
    caches.node[:] = caches.home[:] = numa.queues
    caches.home[DESCRIPTOR] = numa.nic


def place(config: TrialConfig, caches: Any, readers: Any, others: Any, irq_cpus: range) -> None:
    """Put CPUs on their nodes.

    Args:
        readers: CPUs that readers have to themselves.
        others: CPUs of RPS and of redirect targets.
        irq_cpus: CPUs that interrupts will move to.
    """
    caches.node[readers] = config.numa.readers
    caches.node[others] = config.numa.steering
    caches.node[irq_cpus] = 1 - config.numa.queues


def preferred(config: TrialConfig) -> int:
    """The node that a new pool prefers."""
    wanted = config.driver.pool_node
    return {"local": NO_NODE, "update": config.numa.queues, "device": config.numa.nic}[wanted]


# In the loop


@compiled()
def run_on(host: Host, cpu: int) -> None:
    """What follows runs on this CPU."""
    host.context.cpu = cpu
    host.context.nid = host.observer.caches.node[cpu]


@compiled(inline=False)
def update_pool(trial: Trial, number: int) -> None:
    """The driver tells the pool of a queue where its poll runs (``page_pool_nid_changed``)."""
    _update(trial, trial.queues[number].pool)
    if trial.nic.pattern == HEADER_SPLIT:
        _update(trial, trial.nic.first_header_pool + trial.queues[number].pool)


@compiled(inline=False)
def _update(trial: Trial, number: int) -> None:
    host = trial.host
    owner = host.pools[number]
    if owner.nid != host.context.nid:
        settle_pool(host.observer.idle, owner, host.slots)
        trial.blamed[number].flushed += owner.cache_count
        pool.update_nid(host, owner, host.context.nid)


@compiled(inline=False)
def move_interrupts(trial: Trial) -> None:
    """From now on the interrupts of all queues go to CPUs of the other node. A poll that has begun ends where
    it is."""
    for number in range(trial.nic.queues):
        queue = trial.queues[number]
        queue.irq_cpu = trial.life.first_irq_cpu + number
        if queue.phase == IDLE:
            follow_interrupt(trial, number)


@compiled(inline=False)
def follow_interrupt(trial: Trial, number: int) -> None:
    """The next poll of a queue runs where its interrupt goes to, and takes from slabs what lies there."""
    queue = trial.queues[number]
    caches = trial.host.observer.caches
    left = queue.cpu
    # a queue's poll is the first actor of its CPU; that to which it moves has but what readers leave there
    cpu = trial.cpus[left]
    cpu.actors -= 1
    cpu.first_actor += 1
    cpu.due_actor = cpu.first_actor
    queue.cpu = queue.irq_cpu
    trial.cpus[queue.cpu].actors = 2 if trial.stack.defers else 1
    caches.home[SKB] = caches.home[SLAB_HEAD] = caches.node[queue.cpu]
    refresh(trial, left)
    refresh(trial, queue.cpu)
