"""RPS: the flow's hash picks a CPU, which takes the packet from its backlog in a poll of its own.

An idle CPU is told by an interrupt that the receive queue's CPU sends at the end of its poll
(``net_rps_action_and_irq_enable``). A backlog's poll first takes over all that has come in, then works on
that; what comes in meanwhile counts against the limit alone (``enqueue_to_backlog``, ``process_backlog``).
"""

from pool_impl.jit import compiled
from pool_impl.observe import SKB
from workers.arrivals.rss import HASH_BITS
from workers.arrivals.traffic import FOREVER
from workers.books import hold
from workers.device import flow_control
from workers.pricing import cost
from workers.pricing.cache import HEADER
from workers.schedule import refresh
from workers.state import IDLE, NOBODY, POLLING, YIELDED, Trial

MOST_WAITING = 1000
"""netdev_max_backlog: a packet that finds more than that waiting is dropped"""
BUDGET = 64
"""dev_weight"""
SLOTS = 2048
"""a power of two; at most 1001 packets taken over, and as many waiting"""


@compiled(inline=False)
def enqueue(trial: Trial, number: int, skb: int) -> int:
    """Put an skb from a queue into the backlog of its flow's CPU; the skb to free now, or 0."""
    trial.host.observer.work(cost.BACKLOG, 1)
    chosen = (trial.packets[skb].flow_hash * trial.stack.backlogs) >> HASH_BITS
    backlog = trial.backlogs[chosen]
    if backlog.tail - backlog.spliced > MOST_WAITING:
        trial.tally.dropped_backlog += flow_control.dropped(trial, skb)
        return skb
    trial.backlog_slots[chosen * SLOTS + (backlog.tail & (SLOTS - 1))] = skb
    backlog.tail += 1
    trial.stack.backlog_units += hold.units_of(trial, skb)
    if backlog.phase == IDLE and backlog.event_ps == FOREVER and backlog.kicked_by == NOBODY:
        backlog.kicked_by = number
    return 0


@compiled(inline=False)
def send_interrupts(trial: Trial, number: int) -> None:
    """The poll of a queue is over: tell the CPUs that it found idle."""
    for chosen in range(trial.stack.backlogs):
        backlog = trial.backlogs[chosen]
        if backlog.kicked_by == number:
            backlog.kicked_by = NOBODY
            trial.host.observer.work(cost.IPI, 1)
            backlog.event_ps = cost.clock(trial.host.observer.meter, trial.host.context.cpu)
            refresh(trial, backlog.cpu)


@compiled(inline=False)
def poll(trial: Trial, number: int) -> int:
    """One step of a backlog's poll; the skb to receive, or 0."""
    backlog = trial.backlogs[number]
    observer = trial.host.observer
    if backlog.phase != POLLING:
        if backlog.phase == IDLE:
            observer.work(cost.INTERRUPT, 1)
        observer.work(cost.POLL, 1)
        backlog.phase = POLLING
        backlog.polled = 0
        trial.cpus[backlog.cpu].poller = number
        return 0
    if backlog.polled == BUDGET:
        backlog.phase = YIELDED
        backlog.event_ps = cost.clock(observer.meter, backlog.cpu)
        trial.cpus[backlog.cpu].poller = NOBODY
        return 0
    if backlog.head == backlog.spliced:
        backlog.spliced = backlog.tail
    if backlog.head == backlog.spliced:
        backlog.phase = IDLE
        backlog.event_ps = FOREVER
        trial.cpus[backlog.cpu].poller = NOBODY
        return 0
    skb = trial.backlog_slots[number * SLOTS + (backlog.head & (SLOTS - 1))]
    backlog.head += 1
    backlog.polled += 1
    trial.stack.backlog_units -= hold.units_of(trial, skb)
    observer.touch(SKB, skb, True)
    page = trial.buffers.shared[trial.buffers.skbs[skb].shared].head_page
    if page != 0:
        observer.touch(HEADER, page, False)
    return int(skb)
