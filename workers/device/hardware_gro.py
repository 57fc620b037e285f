"""Hardware GRO: the NIC merges TCP packets of a flow into one completion (ethtool's ``rx-gro-hw``).

Of each queue it merges up to ``nic.contexts`` flows at a time. The headers of a flow's first packet go to the
header buffer of a descriptor, the payload of all packets into its page, and on into those of further
descriptors, as the transparent packet aggregation of bnxt and SHAMPO of mlx5 do. An aggregate is completed
when its time is over; when a segment is shorter than the first (which it still takes in) or longer; before it
would have 64 KiB, which takes fewer pages than an skb has fragments; when a packet without payload follows;
when one of the flow was missed, which leaves a gap; and, the oldest one, for a flow that finds no context.

A descriptor is free again for the driver as the device takes its buffers, which are the aggregate's until the
driver reads its completion. So descriptors are filled in the order of the ring and completions read in the
order of their writing, as where a device has a ring for each.
"""

from typing import Any

from pool_impl.coalesce import GRO_MAX_BYTES
from pool_impl.jit import compiled
from workers.arrivals.rss import TABLE_ENTRIES
from workers.arrivals.traffic import FOREVER
from workers.books import hold
from workers.device import flow_control
from workers.device.moderation import packet_arrived
from workers.device.nic import advance, write_buffer
from workers.fields.derived import TCP_HEADERS_BYTES
from workers.pricing.cache import DESCRIPTOR, PAYLOAD, device_write, part_of_page
from workers.state import NO_PAGE, NOBODY, Trial

WAITS, TAKEN = range(2)
"""what became of an arrival: it waits on the wire for descriptors, or it was taken or missed"""


@compiled(inline=False)
def receive_until(trial: Trial, until_ps: int) -> None:
    """What :func:`nic.receive_until` does, and complete each aggregate whose time is over by then."""
    nic = trial.nic
    if nic.postponed_ps != 0:
        nic.next_arrival_ps = nic.postponed_ps
        nic.postponed_ps = 0
    nic.wanted = 0
    state = TAKEN
    while True:
        number = _next_to_expire(trial)
        expires_ps = FOREVER if number == NOBODY else _expires_ps(trial, number)
        arrival_ps = FOREVER if state == WAITS else nic.next_arrival_ps
        if min(expires_ps, arrival_ps) > until_ps:
            break
        if expires_ps <= arrival_ps:
            _complete(trial, number, 0, expires_ps)
        else:
            number = int(trial.indirection[_flow_hash(trial) & (TABLE_ENTRIES - 1)])
            state = _arrive(trial, number)
            if state != WAITS:
                advance(trial)
                nic.wanted = 0
        until_ps = min(until_ps, trial.machine.due_ps[trial.queues[number].cpu])
    if expires_ps < nic.next_arrival_ps:
        nic.postponed_ps = nic.next_arrival_ps
        nic.next_arrival_ps = expires_ps


@compiled()
def _flow_hash(trial: Trial) -> int:
    return int(trial.arrivals.flow_hash[trial.nic.chunk_position])


@compiled()
def _slot(trial: Trial, number: int, place: int) -> int:
    return int(number * trial.nic.contexts + place)


@compiled()
def _expires_ps(trial: Trial, number: int) -> int:
    """When the time of a queue's oldest open aggregate is over."""
    oldest = trial.aggregates[trial.context_slots[_slot(trial, number, 0)]]
    return int(oldest.arrival_ps + trial.nic.context_ps)


@compiled(inline=False)
def _next_to_expire(trial: Trial) -> int:
    """The queue whose oldest open aggregate is the oldest of all, or NOBODY."""
    found = NOBODY
    for number in range(trial.nic.queues):
        if trial.aggregates_of[number].open and (
            found == NOBODY or _expires_ps(trial, number) < _expires_ps(trial, found)
        ):
            found = number
    return found


@compiled(inline=False)
def _arrive(trial: Trial, number: int) -> int:
    """The next packet on the wire, which is for this queue."""
    nic, tally = trial.nic, trial.tally
    queue = trial.queues[number]
    arrival_ps = nic.next_arrival_ps
    payload = trial.arrivals.frame_bytes[nic.chunk_position] - TCP_HEADERS_BYTES
    place = _find(trial, number, _flow_hash(trial))
    if place != NOBODY and not _fits(trial, number, place, payload):
        _complete(trial, number, place, arrival_ps)
        place = NOBODY
    needed = _descriptors_needed(trial, number, place, payload)
    counted = 1 if arrival_ps >= tally.measure_from_ps else 0
    if queue.posted - queue.dma - queue.merging < needed:
        if nic.saturated:
            nic.wanted = needed + queue.merging
            return WAITS
        tally.missed += counted
        tally.missed_without_page += counted & queue.starved
        flow_control.missed(trial, _flow_hash(trial), arrival_ps)
        if place != NOBODY:
            _complete(trial, number, place, arrival_ps)
    else:
        if place == NOBODY:
            place = _open(trial, number, arrival_ps, payload)
        else:
            _append(trial, number, place, arrival_ps, payload)
        found = trial.aggregates[trial.context_slots[_slot(trial, number, place)]]
        if payload < found.segment_bytes or payload <= 0:
            _complete(trial, number, place, arrival_ps)
    tally.offered += counted
    return TAKEN


@compiled()
def _find(trial: Trial, number: int, flow_hash: int) -> int:
    """Place of a flow among the open ones, or NOBODY."""
    for place in range(trial.aggregates_of[number].open):
        if trial.aggregates[trial.context_slots[_slot(trial, number, place)]].flow_hash == flow_hash:
            return place
    return NOBODY


@compiled()
def _fits(trial: Trial, number: int, place: int, payload: int) -> bool:
    """Whether an aggregate can take in a segment."""
    found = trial.aggregates[trial.context_slots[_slot(trial, number, place)]]
    return bool(
        0 < payload <= found.segment_bytes
        and TCP_HEADERS_BYTES + found.payload_bytes + payload < GRO_MAX_BYTES
        and trial.stack.merged_room > 0
    )


@compiled()
def _descriptors_needed(trial: Trial, number: int, place: int, payload: int) -> int:
    shift = trial.nic.page_shift
    to_whole = (1 << shift) - 1
    if place == NOBODY:
        return int(max(1, (payload + to_whole) >> shift))
    found = trial.aggregates[trial.context_slots[_slot(trial, number, place)]]
    return int(((found.payload_bytes + payload + to_whole) >> shift) - found.pages)


@compiled()
def _take_descriptor(trial: Trial, queue: Any) -> Any:
    """The next one that was posted."""
    descriptor = trial.descriptors[queue.first + ((queue.dma + queue.merging) & trial.nic.ring_mask)]
    queue.merging += 1
    return descriptor


@compiled(inline=False)
def _open(trial: Trial, number: int, arrival_ps: int, payload: int) -> int:
    """A new aggregate of this packet; its place."""
    table, free = trial.aggregates_of[number], trial.free_aggregates
    if table.open == trial.nic.contexts:
        _complete(trial, number, 0, arrival_ps)
    found = free.first
    if found != 0:
        free.first = trial.aggregates[found].next
    else:
        found = free.fresh
        free.fresh = found + 1
    place = table.open
    table.open = place + 1
    trial.context_slots[_slot(trial, number, place)] = found
    aggregate = trial.aggregates[found]
    aggregate.flow_hash = _flow_hash(trial)
    aggregate.arrival_ps = arrival_ps
    aggregate.segment_bytes = payload
    aggregate.payload_bytes = 0
    aggregate.pages = 0
    aggregate.merged = 0
    aggregate.merged_count = 0
    aggregate.header_bytes = TCP_HEADERS_BYTES + min(payload, 0)
    queue = trial.queues[number]
    descriptor = _take_descriptor(trial, queue)
    aggregate.header_page = descriptor.header_page
    aggregate.header_offset = descriptor.header_offset
    descriptor.header_page = 0
    write_buffer(trial, queue, aggregate.header_page, aggregate.header_offset, aggregate.header_bytes)
    if payload > 0:
        _new_page(aggregate, descriptor)
        _write_payload(trial, aggregate, queue, payload)
    return int(place)


@compiled()
def _append(trial: Trial, number: int, place: int, arrival_ps: int, payload: int) -> None:
    """Merge a packet into an open aggregate; it holds a page of its own if it begins one."""
    aggregate = trial.aggregates[trial.context_slots[_slot(trial, number, place)]]
    pages = aggregate.pages
    _write_payload(trial, aggregate, trial.queues[number], payload)
    hold.append(trial, aggregate, arrival_ps, NO_PAGE if aggregate.pages == pages else arrival_ps)


@compiled()
def _new_page(aggregate: Any, descriptor: Any) -> None:
    aggregate.page[aggregate.pages] = descriptor.page
    aggregate.frame_bytes[aggregate.pages] = 0
    aggregate.pages += 1
    descriptor.page = 0


@compiled(inline=False)
def _write_payload(trial: Trial, aggregate: Any, queue: Any, payload: int) -> None:
    """Write a payload behind the one before."""
    observer = trial.host.observer
    page_bytes = trial.nic.page_bytes
    aggregate.payload_bytes += payload
    while payload > 0:
        last = aggregate.pages - 1
        if aggregate.frame_bytes[last] == page_bytes:
            _new_page(aggregate, _take_descriptor(trial, queue))
            last += 1
        written = min(payload, page_bytes - aggregate.frame_bytes[last])
        if aggregate.frame_bytes[last] == 0:
            write_buffer(trial, queue, aggregate.page[last], 0, written)
        else:
            part = part_of_page(observer.caches, aggregate.page[last], 0)
            device_write(observer.caches, observer.stamps, PAYLOAD, part, written)
        aggregate.frame_bytes[last] += written
        payload -= written


@compiled(inline=False)
def _complete(trial: Trial, number: int, place: int, now_ps: int) -> None:
    """An open aggregate takes in no more: the driver may see it."""
    table, queue = trial.aggregates_of[number], trial.queues[number]
    observer = trial.host.observer
    found = trial.context_slots[_slot(trial, number, place)]
    table.open -= 1
    for later in range(place, table.open):
        trial.context_slots[_slot(trial, number, later)] = trial.context_slots[
            _slot(trial, number, later + 1)
        ]
    aggregate = trial.aggregates[found]
    aggregate.next = 0
    if table.first_completed == 0:
        table.first_completed = found
    else:
        trial.aggregates[table.last_completed].next = found
    table.last_completed = found
    for _ in range(max(1, aggregate.pages)):
        index = queue.first + (queue.dma & trial.nic.ring_mask)
        device_write(observer.caches, observer.stamps, DESCRIPTOR, index, 32)
        queue.dma += 1
        queue.merging -= 1
    packet_arrived(trial, queue, now_ps)


@compiled()
def take(trial: Trial, number: int) -> Any:
    """The aggregate that was completed first."""
    table = trial.aggregates_of[number]
    table.taken = table.first_completed
    aggregate = trial.aggregates[table.taken]
    table.first_completed = aggregate.next
    return aggregate


@compiled(inline=False)
def give_up(trial: Trial, number: int) -> int:
    """Forget an aggregate of a queue; its buffers and packets are the caller's until another is opened. 0 if
    there is none."""
    table = trial.aggregates_of[number]
    if table.first_completed == 0 and table.open == 0:
        return 0
    if table.first_completed != 0:
        found = table.first_completed
        table.first_completed = trial.aggregates[found].next
    else:
        table.open -= 1
        found = trial.context_slots[_slot(trial, number, table.open)]
    _free(trial, found)
    return int(found)


@compiled(inline=False)
def counted(trial: Trial, aggregate: Any) -> int:
    """Packets of an aggregate that arrived after the warm-up; they are lost."""
    since_ps = trial.tally.measure_from_ps
    found = 1 if aggregate.arrival_ps >= since_ps else 0
    found += hold.counted_merged(trial.merged, aggregate.merged, since_ps)
    if aggregate.merged != 0:
        hold.free_merged(trial, aggregate)
    return int(found)


@compiled()
def _free(trial: Trial, number: int) -> None:
    trial.aggregates[number].next = trial.free_aggregates.first
    trial.free_aggregates.first = number


@compiled(inline=False)
def adopt(trial: Trial, number: int, skb: int) -> None:
    """The skb that the driver has just built has the packets of the aggregate that it took last; each page is
    held from now on."""
    found = trial.aggregates_of[number].taken
    aggregate = trial.aggregates[found]
    held = trial.holds[trial.buffers.skbs[skb].shared]
    held.merged = position = aggregate.merged
    held.last_merged = aggregate.last_merged
    held.merged_count = aggregate.merged_count
    while position != 0:
        record = trial.merged[position]
        if record.built_ps != NO_PAGE:
            record.built_ps = held.built_ps
        position = record.next
    if not trial.stack.gro:
        # which counts what it passes up
        trial.tally.gro_skbs += 1
        trial.tally.gro_packets += held.merged_count + 1
    _free(trial, found)
