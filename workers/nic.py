"""The NIC: what arrives on the wire, the receive queues' descriptors, DMA writes, the interrupt."""

from typing import Any

from pool_impl.jit import compiled
from workers.cache import DESCRIPTOR, HEADER, PAYLOAD, device_write
from workers.cost import clock
from workers.moderation import packet_arrived
from workers.rss import TABLE_ENTRIES
from workers.state import Trial
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
        if queue.dma == queue.posted and nic.saturated:
            # waits on the wire until a descriptor is posted
            return
        arrival_ps = nic.next_arrival_ps
        counted = 1 if arrival_ps >= tally.measure_from_ps else 0
        tally.offered += counted
        if queue.dma == queue.posted:
            tally.missed += counted
            tally.missed_without_page += counted & queue.starved
        else:
            _dma(trial, queue, arrival_ps, trial.arrivals.frame_bytes[nic.chunk_position], flow_hash)
            packet_arrived(trial, queue, arrival_ps)
            until_ps = min(until_ps, trial.cpus[queue.cpu].due_ps)
        advance(trial)


@compiled()
def _dma(trial: Trial, queue: Any, arrival_ps: int, frame_bytes: int, flow_hash: int) -> None:
    observer = trial.host.observer
    index = queue.first + (queue.dma & trial.nic.ring_mask)
    descriptor = trial.descriptors[index]
    descriptor.frame_bytes = frame_bytes
    descriptor.arrival_ps = arrival_ps
    descriptor.flow_hash = flow_hash
    queue.dma += 1
    line = observer.caches.line_bytes
    device_write(observer.caches, observer.stamps, HEADER, descriptor.page, line)
    if frame_bytes > line:
        device_write(observer.caches, observer.stamps, PAYLOAD, descriptor.page, frame_bytes - line)
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


@compiled()
def descriptor_posted(trial: Trial, queue: Any) -> None:
    """The driver posted a descriptor; under saturation a packet may take it at once."""
    nic = trial.nic
    if nic.saturated and queue.dma == queue.posted:
        nic.next_arrival_ps = max(nic.next_arrival_ps, clock(trial.host.observer.meter, queue.cpu))
    queue.posted += 1
