"""Transmit rings: a frame waits in descriptors until the device has sent it and the driver has cleaned it.

An skb takes one descriptor for each of its parts, head and fragments, which are mapped one by one; when its
last byte has left, the driver unmaps them all and frees it. A merged one leaves as the packets that it was
made of: the device cuts it up (TSO).

Each receive queue has one beside it, cleaned at the start of its NAPI poll. A doorbell announces what has
been put in; the device sends it in that order at the link's rate, gap and preamble included, so that it is
known then when each frame will have left. Rings of one device share its link in the order of their doorbells.
There is no queueing discipline above a ring: what finds it full is dropped.
"""

from typing import Any

from pool_impl import xdp as xdp_memory
from pool_impl.jit import compiled
from pool_impl.observe import DMA_SYNC_FOR_DEVICE, DMA_UNMAP
from pool_impl.skb import headlen
from workers.arrivals.traffic import FOREVER
from workers.books import hold, latency
from workers.fields.derived import TCP_HEADERS_BYTES, WIRE_OVERHEAD_BYTES
from workers.pricing import cost
from workers.schedule import interrupt
from workers.state import IDLE, Trial


@compiled()
def is_full(queue: Any) -> bool:
    """Whether a frame queue takes no more frames of one descriptor."""
    return bool(queue.tail - queue.head + queue.more_descriptors >= queue.limit)


@compiled()
def last(trial: Trial, queue: Any) -> Any:
    """Put a frame in, to be filled in by the caller."""
    queue.tail += 1
    return trial.frames[queue.first + ((queue.tail - 1) & queue.mask)]


@compiled()
def take(trial: Trial, queue: Any) -> Any:
    """Take the oldest frame out; it can be read until the next one is put in."""
    queue.head += 1
    return trial.frames[queue.first + ((queue.head - 1) & queue.mask)]


@compiled()
def move(frame: Any, source: Any) -> None:
    """The frame goes on to another queue."""
    frame.page = source.page
    frame.skb = source.skb
    frame.memory_id = source.memory_id
    frame.frame_bytes = source.frame_bytes
    frame.arrival_ps = source.arrival_ps
    frame.flow_hash = source.flow_hash


@compiled()
def map_for_device(trial: Trial, frame_bytes: int) -> None:
    """Map a frame that the device is to read, its cache lines written back where software has to."""
    host = trial.host
    cost.map_to_send(host.observer, frame_bytes)
    host.access.count_map(host.device)


@compiled()
def unmap(trial: Trial) -> None:
    """Undo that mapping."""
    host = trial.host
    host.observer.work(DMA_UNMAP, 1)
    host.access.count_unmap(host.device)


@compiled(inline=False)
def doorbell(trial: Trial, number: int) -> None:
    """Announce what was put into a transmit ring; the device sends it behind what it has."""
    ring = trial.frame_queues[number]
    if ring.announced == ring.tail:
        return
    meter = trial.host.observer.meter
    cpu = trial.host.context.cpu
    cost.charge(meter, cpu, cost.DEVICE_REGISTER, meter.register_write_ps)
    now_ps = cost.clock(meter, cpu)
    link = trial.links[ring.link]
    while ring.announced != ring.tail:
        frame = trial.frames[ring.first + (ring.announced & ring.mask)]
        link.free_ps = max(link.free_ps, now_ps) + _wire_ps(trial, frame, link.gbps)
        frame.sent_ps = link.free_ps
        ring.announced += 1


@compiled(inline=False)
def sent(frames: Any, ring: Any, now_ps: int) -> int:
    """How many frames of a ring have left and wait to be cleaned."""
    position = ring.head
    while position != ring.announced and frames[ring.first + (position & ring.mask)].sent_ps <= now_ps:
        position += 1
    return int(position - ring.head)


@compiled()
def completion_ps(trial: Trial, number: int, usecs_ps: int, now_ps: int) -> int:
    """When an interrupt tells of the oldest frame in a ring: ``usecs_ps`` after it was sent, or after
    ``now_ps``; FOREVER if there is none."""
    ring = trial.frame_queues[number]
    if ring.head == ring.announced:
        return FOREVER
    oldest = trial.frames[ring.first + (ring.head & ring.mask)]
    return int(max(now_ps, oldest.sent_ps) + usecs_ps)


@compiled(inline=False)
def interrupt_ps(trial: Trial, number: int) -> int:
    """The same for the ring of a receive queue whose poll ends now, moderated as for received packets."""
    queue = trial.queues[number]
    return completion_ps(trial, number, queue.usecs_ps, cost.clock(trial.host.observer.meter, queue.cpu))


# A receive queue's own ring


@compiled()
def queue_page(trial: Trial, number: int, descriptor: Any, page: int) -> bool:
    """XDP_TX: put a received page into the ring of its queue, still mapped (spec 7.6); False if that is full.
    The doorbell comes at the end of the poll."""
    ring = trial.frame_queues[number]
    if is_full(ring):
        return False
    host = trial.host
    host.observer.work(cost.TRANSMIT, 1)
    host.observer.work(DMA_SYNC_FOR_DEVICE, descriptor.frame_bytes)
    host.access.count_sync(host.device, descriptor.frame_bytes)
    frame = last(trial, ring)
    frame.page = page
    frame.skb = 0
    frame.memory_id = trial.queues[number].memory_id
    frame.frame_bytes = descriptor.frame_bytes
    frame.arrival_ps = descriptor.arrival_ps
    frame.flow_hash = descriptor.flow_hash
    return True


# Skbs in it


@compiled()
def has_room(trial: Trial, ring: Any, skb: int) -> bool:
    """Whether a transmit ring has a descriptor for each part of an skb."""
    used = ring.tail - ring.head + ring.more_descriptors
    return bool(used + parts_of(trial, skb) <= ring.limit)


@compiled()
def parts_of(trial: Trial, skb: int) -> int:
    """Head and fragments; those of a frag_list are in other skbs."""
    return int(1 + trial.buffers.shared[trial.buffers.skbs[skb].shared].nr_frags)


@compiled()
def queue_skb(trial: Trial, ring: Any, skb: int) -> None:
    """Map each part of an skb and put it into a ring that has room for it."""
    record = trial.buffers.skbs[skb]
    trial.host.observer.work(cost.TRANSMIT, 1)
    frame = last(trial, ring)
    frame.page = 0
    frame.skb = skb
    frame.frame_bytes = record.len
    frame.arrival_ps = trial.packets[skb].arrival_ps
    frame.descriptors = parts_of(trial, skb)
    map_for_device(trial, headlen(record))
    if frame.descriptors > 1:
        shared = trial.buffers.shared[record.shared]
        for position in range(shared.nr_frags):
            map_for_device(trial, shared.frag_size[position])
    trial.tally.parts_mapped += frame.descriptors
    ring.more_descriptors += frame.descriptors - 1
    ring.more_units += hold.units_of(trial, skb) - trial.nic.page_units


@compiled()
def announce(trial: Trial, number: int) -> None:
    """A doorbell for skbs, at once; if the queue is idle, an interrupt will tell when they have left."""
    doorbell(trial, number)
    queue = trial.queues[number]
    if queue.phase == IDLE:
        at_ps = completion_ps(trial, number, queue.usecs_ps, 0)
        if at_ps < queue.event_ps:
            interrupt(trial, queue, at_ps)


@compiled()
def _wire_ps(trial: Trial, frame: Any, gbps: int) -> int:
    """How long a frame takes on the wire; of a merged skb the device makes a frame of each segment."""
    if frame.skb != 0:
        segment_bytes = segment_bytes_of(trial, frame.skb)
        if segment_bytes != 0:
            payload = frame.frame_bytes - TCP_HEADERS_BYTES
            further = (payload - 1) // segment_bytes
            last_bytes = frame.frame_bytes - further * segment_bytes
            return int(
                further * frame_ps(TCP_HEADERS_BYTES + segment_bytes, gbps) + frame_ps(last_bytes, gbps)
            )
    return frame_ps(frame.frame_bytes, gbps)


@compiled()
def frame_ps(frame_bytes: int, gbps: int) -> int:
    """The same for one frame, gap and preamble included."""
    return int((frame_bytes + WIRE_OVERHEAD_BYTES) * 8000 // gbps)


@compiled()
def segment_bytes_of(trial: Trial, skb: int) -> int:
    """Payload of each of several packets in an skb, 0 if it has one."""
    record = trial.buffers.skbs[skb]
    segment_bytes = trial.buffers.shared[record.shared].gso_size
    return int(segment_bytes) if record.len - TCP_HEADERS_BYTES > segment_bytes else 0


# Completion


@compiled(inline=False)
def clean(trial: Trial, number: int) -> int:
    """Clean the oldest sent frame in the poll of its queue: an XDP frame's page goes back as the ``rx_napi``
    variant does it (spec 7.6); an skb is to be freed (``napi_consume_skb``) and returned."""
    host = trial.host
    ring = trial.frame_queues[number]
    frame = take(trial, ring)
    if frame.skb != 0:
        return _take_down(trial, ring, frame, True)
    host.observer.work(cost.TRANSMIT_CLEAN, 1)
    if frame.arrival_ps >= trial.tally.measure_from_ps:
        trial.tally.transmitted += 1
        latency.count_until(trial, frame.arrival_ps, frame.sent_ps)
    xdp_memory.return_frame_rx_napi(host, trial.xdp_memory, frame.page, frame.memory_id)
    return 0


@compiled(inline=False)
def give_up(trial: Trial, number: int, was_sent: bool) -> int:
    """Free the oldest frame of a ring as its device goes down, outside of any poll; the skb to free, or 0."""
    host, tally = trial.host, trial.tally
    ring = trial.frame_queues[number]
    frame = take(trial, ring)
    if frame.skb != 0:
        return _take_down(trial, ring, frame, was_sent)
    host.observer.work(cost.TRANSMIT_CLEAN, 1)
    if frame.arrival_ps >= tally.measure_from_ps:
        if was_sent:
            tally.transmitted += 1
            latency.count_until(trial, frame.arrival_ps, frame.sent_ps)
        else:
            tally.dropped_tx += 1
    xdp_memory.return_frame(host, trial.xdp_memory, frame.page, frame.memory_id)
    return 0


@compiled(inline=False)
def _take_down(trial: Trial, ring: Any, frame: Any, was_sent: bool) -> int:
    """Clean and unmap the descriptors of an skb, and count its packets; returns it."""
    skb = int(frame.skb)
    trial.host.observer.work(cost.TRANSMIT_CLEAN, frame.descriptors)
    if was_sent:
        trial.tally.transmitted += _count_sent(trial, skb, frame.sent_ps, trial.links[ring.link].gbps)
    else:
        trial.tally.dropped_tx += hold.counted(trial, skb)
    for _ in range(frame.descriptors):
        unmap(trial)
    ring.more_descriptors -= frame.descriptors - 1
    ring.more_units -= hold.units_of(trial, skb) - trial.nic.page_units
    return skb


@compiled(inline=False)
def _count_sent(trial: Trial, skb: int, sent_ps: int, gbps: int) -> int:
    """Count the packets of an skb that has been sent, each from its arrival to its own last byte on the wire;
    returns how many arrived after the warm-up."""
    since_ps = trial.tally.measure_from_ps
    left = hold.wire_packets(trial, skb) - 1
    segment_bytes = segment_bytes_of(trial, skb)
    each_ps = frame_ps(TCP_HEADERS_BYTES + segment_bytes, gbps)
    last_ps = frame_ps(trial.buffers.skbs[skb].len - left * segment_bytes, gbps)
    arrival_ps = trial.packets[skb].arrival_ps
    number = trial.holds[trial.buffers.skbs[skb].shared].merged
    found = 0
    while True:
        if arrival_ps >= since_ps:
            found += 1
            before_ps = last_ps + (left - 1) * each_ps if left > 0 else 0
            latency.count_until(trial, arrival_ps, sent_ps - before_ps)
        if number == 0:
            return found
        left -= 1
        arrival_ps = trial.merged[number].arrival_ps
        number = trial.merged[number].next
