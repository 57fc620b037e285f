"""What the data of an skb hold: its pages, since when, and the wire packets that were merged into it.

The books are kept by SHARED record, since clones have the data in common. A page is held from the start of
the step that built its skb until the skb that has it last is freed; a packet that was copied into another's
buffer holds its page until its own skb is freed.
"""

from typing import Any

from pool_impl import skb as buffer
from pool_impl.jit import compiled
from workers.books.latency import latency_bucket
from workers.pricing import cost
from workers.state import NO_PAGE, NOBODY, Trial


@compiled()
def begin(trial: Trial, skb: int) -> None:
    """A driver has built an skb, on the CPU that runs."""
    cpu = trial.host.context.cpu
    trial.packets[skb].cpu = cpu
    number = trial.buffers.skbs[skb].shared
    hold = trial.holds[number]
    hold.built_ps = trial.machine.due_ps[cpu]
    hold.units = trial.packets[skb].units
    hold.left = 0
    hold.merged = 0
    hold.merged_count = 0


@compiled()
def units_of(trial: Trial, skb: int) -> int:
    """What the data of an skb hold of pages, in UNIT_BYTES."""
    return int(trial.holds[trial.buffers.skbs[skb].shared].units)


@compiled()
def wire_packets(trial: Trial, skb: int) -> int:
    """Packets from the wire that are in an skb."""
    return int(trial.holds[trial.buffers.skbs[skb].shared].merged_count + 1)


@compiled()
def counted(trial: Trial, skb: int) -> int:
    """Those that arrived after the warm-up."""
    since_ps = trial.tally.measure_from_ps
    found = 1 if trial.packets[skb].arrival_ps >= since_ps else 0
    first = trial.holds[trial.buffers.skbs[skb].shared].merged
    if first != 0:
        found += counted_merged(trial.merged, first, since_ps)
    return found


@compiled(inline=False)
def counted_merged(merged: Any, number: int, since_ps: int) -> int:
    """The same in a list of MERGED records."""
    found = 0
    while number != 0:
        found += 1 if merged[number].arrival_ps >= since_ps else 0
        number = merged[number].next
    return found


@compiled()
def can_join(trial: Trial, source: int) -> bool:
    """Whether there is room for the books of a merge; without, the skbs stay apart."""
    return bool(trial.stack.merged_room >= wire_packets(trial, source))


@compiled(inline=False)
def join(trial: Trial, to: int, source: int, units: int, copied: bool) -> None:
    """The packets of ``source`` are in the skb ``to`` now, with so much of its pages.

    ``copied``: as bytes; the skb ``source`` and all of its pages are still to be freed.
    """
    target = trial.holds[trial.buffers.skbs[to].shared]
    moved = trial.holds[trial.buffers.skbs[source].shared]
    append(trial, target, trial.packets[source].arrival_ps, NO_PAGE if copied else moved.built_ps)
    target.units += units
    if moved.merged == 0:
        return
    if copied:
        number = moved.merged
        while number != 0:
            append(trial, target, trial.merged[number].arrival_ps, NO_PAGE)
            number = trial.merged[number].next
        return
    trial.merged[target.last_merged].next = moved.merged
    target.last_merged = moved.last_merged
    target.merged_count += moved.merged_count
    moved.merged = 0
    moved.merged_count = 0


@compiled()
def append(trial: Trial, hold: Any, arrival_ps: int, built_ps: int) -> None:
    """One more MERGED record in the list of a HOLD or AGGREGATE record."""
    stack = trial.stack
    stack.merged_room -= 1
    number = stack.merged_free
    if number != 0:
        stack.merged_free = trial.merged[number].next
    else:
        number = stack.merged_fresh
        stack.merged_fresh = number + 1
    record = trial.merged[number]
    record.arrival_ps = arrival_ps
    record.built_ps = built_ps
    record.next = 0
    if hold.merged == 0:
        hold.merged = number
    else:
        trial.merged[hold.last_merged].next = number
    hold.last_merged = number
    hold.merged_count += 1


@compiled()
def remove_first(trial: Trial, hold: Any) -> None:
    """Take the first MERGED record out of the list of a HOLD record, which has one, and free it."""
    stack = trial.stack
    number = hold.merged
    hold.merged = trial.merged[number].next
    hold.merged_count -= 1
    trial.merged[number].next = stack.merged_free
    stack.merged_free = number
    stack.merged_room += 1


@compiled()
def release(trial: Trial, skb: int) -> None:
    """An skb is about to be freed: if nobody else has its data, the time ends for which they held pages."""
    record = trial.buffers.skbs[skb]
    if record.cloned and not _is_last_holder(trial, skb):
        return
    hold = trial.holds[record.shared]
    now_ps = cost.clock(trial.host.observer.meter, trial.host.context.cpu)
    _count(trial, hold.built_ps, now_ps)
    if hold.merged != 0:
        _release_merged(trial, record.shared, now_ps)


@compiled(inline=False)
def _is_last_holder(trial: Trial, skb: int) -> bool:
    """Of data that were cloned; pages that the tap alone has from now on are the tap's."""
    hold = trial.holds[trial.buffers.skbs[skb].shared]
    if buffer.is_cloned(trial.buffers, skb):
        if trial.packets[skb].cpu != NOBODY:
            hold.left = 1
            trial.stack.tap_units += hold.units
        return False
    if hold.left:
        trial.stack.tap_units -= hold.units
    return True


@compiled(inline=False)
def _release_merged(trial: Trial, shared: int, now_ps: int) -> None:
    hold = trial.holds[shared]
    number = hold.merged
    while number != 0:
        record = trial.merged[number]
        if record.built_ps != NO_PAGE:
            _count(trial, record.built_ps, now_ps)
        number = record.next
    free_merged(trial, hold)


@compiled(inline=False)
def free_merged(trial: Trial, hold: Any) -> None:
    """Free the MERGED records of a HOLD or AGGREGATE record, which has some."""
    trial.merged[hold.last_merged].next = trial.stack.merged_free
    trial.stack.merged_free = hold.merged
    trial.stack.merged_room += hold.merged_count
    hold.merged = 0
    hold.merged_count = 0


@compiled()
def _count(trial: Trial, built_ps: int, now_ps: int) -> None:
    if built_ps >= trial.tally.measure_from_ps:
        held_ps = now_ps - built_ps
        trial.hold_times[latency_bucket(held_ps)] += 1
        trial.tally.hold_max_ps = max(trial.tally.hold_max_ps, held_ps)


@compiled(inline=False)
def free(trial: Trial, skb: int) -> None:
    """Free an skb out of turn, in softirq; the engine frees the one that a step is about."""
    release(trial, skb)
    trial.host.observer.work(cost.SKB_FREE, 1)
    buffer.free_deferred(trial.buffers, skb)
