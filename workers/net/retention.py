"""Packets that an application keeps for a long time: a drawn share of what it has received.

As what waits in an out-of-order queue for a segment that was lost, or in one for a peer that is away: pages
that come back long after all others. The application frees them before it reads on, woken by a timer if it
sleeps. A packet that finds all slots taken is freed as any other.
"""

from pool_impl.jit import compiled
from workers.arrivals.traffic import FOREVER, below
from workers.books import hold
from workers.books.occupancy import settle_reader
from workers.net import deferred
from workers.pricing import cost
from workers.state import Trial

MOST_RETAINED = 1 << 16
"""skbs that the application of one socket keeps so"""


@compiled(inline=False)
def retains(trial: Trial, number: int, skb: int) -> bool:
    """Whether the application keeps this skb; it has it then."""
    stack = trial.stack
    retained = trial.retained[number]
    if below(retained, 100) >= stack.retains_percent or retained.tail - retained.head == MOST_RETAINED:
        return False
    slot = trial.retained_slots[retained.first + (retained.tail & (MOST_RETAINED - 1))]
    slot.skb = skb
    slot.until_ps = cost.clock(trial.host.observer.meter, trial.host.context.cpu) + stack.retains_ps
    if retained.tail == retained.head:
        retained.event_ps = slot.until_ps
    retained.tail += 1
    trial.readers[number].held_units += hold.units_of(trial, skb)
    return True


@compiled(inline=False)
def free_oldest(trial: Trial, number: int) -> int:
    """The time of the oldest one is over; the skb to free now, or 0."""
    retained = trial.retained[number]
    skb = int(trial.retained_slots[retained.first + (retained.head & (MOST_RETAINED - 1))].skb)
    retained.head += 1
    following = trial.retained_slots[retained.first + (retained.head & (MOST_RETAINED - 1))]
    retained.event_ps = FOREVER if retained.head == retained.tail else following.until_ps
    settle_reader(trial, trial.readers[number])
    trial.readers[number].held_units -= hold.units_of(trial, skb)
    return deferred.defer(trial, skb) if trial.stack.defers else skb
