"""The NIC's receive queue: descriptors, DMA writes, the interrupt."""

from typing import Any

from pool_impl.jit import compiled
from workers.cache import DESCRIPTOR, HEADER, PAYLOAD, device_write
from workers.cost import clock
from workers.state import QUEUE_CPU, Trial
from workers.traffic import FOREVER, next_chunk


@compiled()
def receive_until(trial: Trial, now_ps: int) -> None:
    """Take in every packet that has arrived by now: into the next posted descriptor, or missed."""
    nic = trial.nic
    tally = trial.tally
    while nic.next_arrival_ps <= now_ps:
        if nic.dma == nic.posted and nic.saturated:
            # waits on the wire until a descriptor is posted
            return
        arrival = nic.next_arrival_ps
        counted = 1 if arrival >= tally.measure_from_ps else 0
        tally.offered += counted
        if nic.dma == nic.posted:
            tally.missed += counted
        else:
            _dma(trial, arrival, trial.arrivals.frame_bytes[nic.chunk_position])
        advance(trial)


@compiled()
def _dma(trial: Trial, arrival_ps: int, frame_bytes: int) -> None:
    nic = trial.nic
    observer = trial.host.observer
    index = nic.dma & nic.mask
    descriptor = trial.descriptors[index]
    descriptor.frame_bytes = frame_bytes
    descriptor.arrival_ps = arrival_ps
    nic.dma += 1
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
def descriptor_posted(trial: Trial) -> None:
    """The driver posted a descriptor; under saturation a packet may take it at once."""
    nic = trial.nic
    if nic.saturated and nic.dma == nic.posted:
        now = clock(trial.host.observer.meter, QUEUE_CPU)
        nic.next_arrival_ps = max(nic.next_arrival_ps, now)
    nic.posted += 1


@compiled()
def interrupt_ps(nic: Any) -> int:
    """When the armed interrupt fires: a while after the first packet, which may be yet to come."""
    if nic.next_arrival_ps == FOREVER:
        return FOREVER
    return int(nic.next_arrival_ps + nic.rx_usecs_ps)
