"""Transmit rings: a frame waits in a descriptor until the device has sent it and the driver has cleaned it.

Each receive queue has one beside it, cleaned at the start of its NAPI poll. A doorbell announces what has
been put in; the device sends it in that order at the link's rate, gap and preamble included, so that it is
known then when each frame will have left. Rings of one device share its link in the order of their doorbells.
There is no queueing discipline above a ring: what finds it full is dropped.
"""

from typing import Any

from pool_impl import xdp as xdp_memory
from pool_impl.jit import compiled
from pool_impl.observe import DMA_MAP, DMA_SYNC_FOR_DEVICE, DMA_UNMAP
from workers import cost, latency
from workers.derived import WIRE_OVERHEAD_BYTES
from workers.schedule import interrupt
from workers.state import IDLE, Trial
from workers.traffic import FOREVER


@compiled()
def is_full(queue: Any) -> bool:
    """Whether a frame queue takes no more."""
    return bool(queue.tail - queue.head == queue.limit)


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
    host.observer.work(DMA_MAP, 1)
    host.access.count_map(host.device)
    host.observer.work(DMA_SYNC_FOR_DEVICE, frame_bytes)


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
        wire_ps = (frame.frame_bytes + WIRE_OVERHEAD_BYTES) * 8000 // link.gbps
        link.free_ps = max(link.free_ps, now_ps) + wire_ps
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


@compiled(inline=False)
def forward(trial: Trial, skb: int) -> int:
    """Route an skb and put it into the transmit ring that goes with this CPU, with a doorbell of its own; the
    skb to free now, if the ring is full, or 0."""
    host = trial.host
    number = host.context.cpu % trial.nic.queues
    ring = trial.frame_queues[number]
    packet = trial.packets[skb]
    host.observer.work(cost.FORWARD, 1)
    if is_full(ring):
        trial.tally.dropped_tx += 1 if packet.arrival_ps >= trial.tally.measure_from_ps else 0
        return skb
    host.observer.work(cost.TRANSMIT, 1)
    frame = last(trial, ring)
    frame.page = 0
    frame.skb = skb
    frame.frame_bytes = trial.buffers.skbs[skb].len
    frame.arrival_ps = packet.arrival_ps
    map_for_device(trial, frame.frame_bytes)
    doorbell(trial, number)
    queue = trial.queues[number]
    if queue.phase == IDLE:
        at_ps = completion_ps(trial, number, queue.usecs_ps, 0)
        if at_ps < queue.event_ps:
            interrupt(trial, queue, at_ps)
    return 0


@compiled(inline=False)
def clean(trial: Trial, number: int) -> int:
    """Clean the oldest sent descriptor in the poll of its queue: an XDP frame's page goes back as the
    ``rx_napi`` variant does it (spec 7.6); an skb is to be freed (``napi_consume_skb``) and returned."""
    host = trial.host
    frame = take(trial, trial.frame_queues[number])
    host.observer.work(cost.TRANSMIT_CLEAN, 1)
    if frame.arrival_ps >= trial.tally.measure_from_ps:
        trial.tally.transmitted += 1
        latency.count_until(trial, frame.arrival_ps, frame.sent_ps)
    if frame.skb != 0:
        unmap(trial)
        return int(frame.skb)
    xdp_memory.return_frame_rx_napi(host, trial.xdp_memory, frame.page, frame.memory_id)
    return 0


@compiled(inline=False)
def give_up(trial: Trial, number: int, was_sent: bool) -> int:
    """Free the oldest descriptor of a ring as its device goes down, outside of any poll; the skb to free, or
    0."""
    host, tally = trial.host, trial.tally
    frame = take(trial, trial.frame_queues[number])
    host.observer.work(cost.TRANSMIT_CLEAN, 1)
    if frame.arrival_ps >= tally.measure_from_ps:
        if was_sent:
            tally.transmitted += 1
            latency.count_until(trial, frame.arrival_ps, frame.sent_ps)
        else:
            tally.dropped_tx += 1
    if frame.skb != 0:
        unmap(trial)
        return int(frame.skb)
    xdp_memory.return_frame(host, trial.xdp_memory, frame.page, frame.memory_id)
    return 0
