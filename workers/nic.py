"""The NIC: what arrives on the wire, the receive queues' descriptors, DMA writes, the interrupt.

A packet takes as many descriptors as its bytes fill buffers; it is missed if fewer are posted.
"""

from typing import Any

from pool_impl.jit import compiled
from workers.cache import DESCRIPTOR, HEADER, PAYLOAD, device_write, part_of_page
from workers.cost import clock
from workers.rss import TABLE_ENTRIES
from workers.schedule import interrupt
from workers.state import IDLE, Trial
from workers.traffic import FOREVER, next_chunk


@compiled()
def receive_until(trial: Trial, until_ps: int) -> None:
    """Take in every packet that arrives until then, or until an interrupt is due before: into the next
    posted descriptor, or missed."""
    nic = trial.nic
    tally = trial.tally
    while nic.next_arrival_ps <= until_ps:
        flow_hash = trial.arrivals.flow_hash[nic.chunk_position]
        queue = trial.queues[trial.indirection[flow_hash & (TABLE_ENTRIES - 1)]]
        lacks = queue.posted - queue.dma < nic.wanted
        if lacks and nic.saturated:
            # waits on the wire until its descriptors are posted
            return
        arrival_ps = nic.next_arrival_ps
        counted = 1 if arrival_ps >= tally.measure_from_ps else 0
        tally.offered += counted
        if lacks:
            tally.missed += counted
        else:
            frame_bytes = trial.arrivals.frame_bytes[nic.chunk_position]
            if nic.wanted > 1:
                frame_bytes = _fill(trial, queue, arrival_ps, frame_bytes, flow_hash)
            _dma(trial, queue, arrival_ps, frame_bytes, flow_hash, 1)
            if queue.phase == IDLE and queue.event_ps == FOREVER:
                interrupt(trial, queue, arrival_ps + nic.rx_usecs_ps)
                until_ps = min(until_ps, trial.cpus[queue.cpu].due_ps)
        advance(trial)


@compiled(inline=False)
def _fill(trial: Trial, queue: Any, arrival_ps: int, frame_bytes: int, flow_hash: int) -> int:
    """Fill all descriptors of a packet but the last; the bytes that are left for it."""
    for _ in range(trial.nic.wanted - 1):
        _dma(trial, queue, arrival_ps, trial.nic.buffer_bytes, flow_hash, 0)
        frame_bytes -= trial.nic.buffer_bytes
    return frame_bytes


@compiled()
def _dma(
    trial: Trial, queue: Any, arrival_ps: int, frame_bytes: int, flow_hash: int, ends_packet: int
) -> None:
    observer = trial.host.observer
    index = queue.first + (queue.dma & trial.nic.ring_mask)
    descriptor = trial.descriptors[index]
    descriptor.frame_bytes = frame_bytes
    descriptor.ends = ends_packet
    descriptor.arrival_ps = arrival_ps
    descriptor.flow_hash = flow_hash
    queue.dma += 1
    line = observer.caches.line_bytes
    part = part_of_page(observer.caches, descriptor.page, descriptor.offset)
    device_write(observer.caches, observer.stamps, HEADER, part, line)
    if frame_bytes > line:
        device_write(observer.caches, observer.stamps, PAYLOAD, part, frame_bytes - line)
    device_write(observer.caches, observer.stamps, DESCRIPTOR, index, 32)


@compiled()
def advance(trial: Trial) -> None:
    """On to the next arrival."""
    nic = trial.nic
    nic.chunk_position += 1
    if nic.chunk_position >= nic.chunk_packets:
        nic.chunk_packets = next_chunk(trial.arrivals)
        nic.chunk_position = 0
        if nic.chunk_packets == 0:
            nic.next_arrival_ps = FOREVER
            return
    nic.next_arrival_ps += trial.arrivals.gaps_ps[nic.chunk_position]
    frame_bytes = trial.arrivals.frame_bytes[nic.chunk_position]
    nic.wanted = 1 if frame_bytes <= nic.buffer_bytes else 1 + (frame_bytes - 1) // nic.buffer_bytes


@compiled()
def descriptor_posted(trial: Trial, queue: Any) -> None:
    """The driver posted a descriptor; under saturation a packet may take it at once, or with the ones after
    it."""
    nic = trial.nic
    if nic.saturated and queue.posted - queue.dma < nic.wanted:
        nic.next_arrival_ps = max(nic.next_arrival_ps, clock(trial.host.observer.meter, queue.cpu))
    queue.posted += 1
