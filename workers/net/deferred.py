"""Freeing where the skb was made: what a TCP reader on another CPU has read (``skb_attempt_defer_free``).

The CPU of a queue has a list of such skbs, and so has that of a kthread of the CPU map. It frees them, newest
first, before its next poll, or in a softirq raised by an interrupt from the reader that finds the list half
full; a kthread's CPU polls nothing, and what is less than half a list waits there, as it does on the CPU that
a queue's interrupt has left: the list is the CPU's, not the queue's. Who finds it full frees at once.
"""

from pool_impl.jit import compiled
from workers.arrivals.traffic import FOREVER
from workers.books import hold
from workers.pricing import cost
from workers.schedule import refresh
from workers.state import Trial

MOST_SKBS = 64
"""sysctl net.core.skb_defer_max"""


@compiled()
def list_of(trial: Trial, cpu: int) -> int:
    """The number of the list of a CPU on which skbs are made."""
    if cpu >= trial.stack.defers_to_queues:
        return int(cpu - trial.stack.defers_from_cpu + trial.stack.defers_to_queues)
    return cpu


@compiled(inline=False)
def defer(trial: Trial, skb: int) -> int:
    """Leave an skb to the CPU that made it; the skb to free now, or 0."""
    host = trial.host
    cpu = trial.packets[skb].cpu
    if cpu == host.context.cpu:
        return skb
    owner = list_of(trial, cpu)
    waiting = trial.deferred[owner]
    if waiting.count == MOST_SKBS:
        return skb
    host.observer.work(cost.DEFER, 1)
    trial.deferred_slots[owner * MOST_SKBS + waiting.count] = skb
    waiting.count += 1
    trial.stack.deferred_units += hold.units_of(trial, skb)
    if waiting.count == MOST_SKBS // 2 + 1 and waiting.event_ps == FOREVER:
        host.observer.work(cost.IPI, 1)
        waiting.event_ps = cost.clock(host.observer.meter, host.context.cpu)
        refresh(trial, cpu)
    return 0


@compiled(inline=False)
def flush(trial: Trial, owner: int) -> None:
    """Free all that was left to a CPU, on it."""
    waiting = trial.deferred[owner]
    waiting.event_ps = FOREVER
    while waiting.count > 0:
        waiting.count -= 1
        skb = trial.deferred_slots[owner * MOST_SKBS + waiting.count]
        trial.stack.deferred_units -= hold.units_of(trial, skb)
        hold.free(trial, skb)
