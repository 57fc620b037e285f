"""The NIC: what arrives on the wire, the receive queues' descriptors, DMA writes, the interrupt.

A packet takes as many descriptors as its bytes fill buffers; it is missed if fewer are posted.
"""

from typing import Any

from pool_impl.jit import compiled
from workers.arrivals.rss import TABLE_ENTRIES
from workers.arrivals.traffic import FOREVER, next_chunk
from workers.arrivals.window import next_segment
from workers.device import flow_control
from workers.device.moderation import packet_arrived
from workers.pricing.cache import (
    DESCRIPTOR,
    HEADER,
    PAYLOAD,
    device_write,
    device_write_past_caches,
    part_of_page,
)
from workers.pricing.cost import clock
from workers.state import PAGE_ALONE, Trial

HEADER_BUFFER_BYTES = 256
"""a header buffer; packets up to this size fit into it"""


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
            tally.missed_without_page += counted & queue.starved
            flow_control.missed(trial, flow_hash, arrival_ps)
        else:
            frame_bytes = trial.arrivals.frame_bytes[nic.chunk_position]
            if nic.pattern == PAGE_ALONE:
                _dma(trial, queue, arrival_ps, frame_bytes, flow_hash, 1)
            else:
                _scatter(trial, queue, arrival_ps, frame_bytes, flow_hash)
            packet_arrived(trial, queue, arrival_ps)
            until_ps = min(until_ps, trial.machine.due_ps[queue.cpu])
        advance(trial)


@compiled(inline=False)
def _scatter(trial: Trial, queue: Any, arrival_ps: int, frame_bytes: int, flow_hash: int) -> None:
    """Write a packet to the buffers of as many descriptors as it needs."""
    nic = trial.nic
    if nic.split_bytes:
        header_bytes = nic.split_bytes if frame_bytes > HEADER_BUFFER_BYTES else frame_bytes
        frame_bytes -= header_bytes
        descriptor = trial.descriptors[queue.first + (queue.dma & nic.ring_mask)]
        descriptor.header_bytes = header_bytes
        write_buffer(trial, queue, descriptor.header_page, descriptor.header_offset, header_bytes)
        if frame_bytes == 0:
            _complete(trial, queue, arrival_ps, 0, flow_hash, 1)
            return
    for _ in range(nic.wanted - 1):
        _dma(trial, queue, arrival_ps, nic.buffer_bytes, flow_hash, 0)
        frame_bytes -= nic.buffer_bytes
    _dma(trial, queue, arrival_ps, frame_bytes, flow_hash, 1)


@compiled()
def _dma(trial: Trial, queue: Any, arrival_ps: int, frame_bytes: int, flow_hash: int, ends: int) -> None:
    """Write to the buffer of the next descriptor."""
    descriptor = trial.descriptors[queue.first + (queue.dma & trial.nic.ring_mask)]
    write_buffer(trial, queue, descriptor.page, descriptor.offset, frame_bytes)
    _complete(trial, queue, arrival_ps, frame_bytes, flow_hash, ends)


@compiled()
def write_buffer(trial: Trial, queue: Any, page: int, offset: int, size_bytes: int) -> None:
    """The device writes to a buffer from its start on."""
    observer = trial.host.observer
    line = observer.caches.line_bytes
    part = part_of_page(observer.caches, page, offset)
    if observer.has_nodes():
        node = trial.host.pages[page].nid
        if _is_far(observer.caches, trial.tally, node, observer.caches.node[queue.cpu]):
            device_write_past_caches(observer.caches, observer.stamps, HEADER, part)
            device_write_past_caches(observer.caches, observer.stamps, PAYLOAD, part)
            return
    device_write(observer.caches, observer.stamps, HEADER, part, line)
    if size_bytes > line:
        device_write(observer.caches, observer.stamps, PAYLOAD, part, size_bytes - line)


@compiled(inline=False)
def _is_far(caches: Any, tally: Any, node: int, polling_node: int) -> bool:
    """Whether the device writes to memory of another node than its own; counted."""
    tally.buffers_written += 1
    tally.buffers_far_from_cpu += 1 if node != polling_node else 0
    far = bool(node != caches.device_node)
    tally.buffers_far_from_nic += 1 if far else 0
    return far


@compiled()
def _complete(trial: Trial, queue: Any, arrival_ps: int, frame_bytes: int, flow_hash: int, ends: int) -> None:
    """Write the next descriptor."""
    observer = trial.host.observer
    index = queue.first + (queue.dma & trial.nic.ring_mask)
    descriptor = trial.descriptors[index]
    descriptor.frame_bytes = frame_bytes
    descriptor.ends = ends
    descriptor.arrival_ps = arrival_ps
    descriptor.flow_hash = flow_hash
    queue.dma += 1
    device_write(observer.caches, observer.stamps, DESCRIPTOR, index, 32)


@compiled()
def advance(trial: Trial) -> None:
    """On to the next arrival."""
    nic = trial.nic
    nic.chunk_position += 1
    if nic.chunk_position >= nic.chunk_packets:
        if nic.windows:
            next_segment(trial.windows, trial.arrivals)
            nic.chunk_packets = 1
        else:
            nic.chunk_packets = next_chunk(trial.arrivals)
        nic.chunk_position = 0
        if nic.chunk_packets == 0:
            nic.next_arrival_ps = FOREVER
            return
    nic.next_arrival_ps += trial.arrivals.gaps_ps[nic.chunk_position]
    frame_bytes = trial.arrivals.frame_bytes[nic.chunk_position]
    nic.wanted = 1
    if frame_bytes > nic.buffer_bytes:
        nic.wanted += (frame_bytes - nic.split_bytes - 1) // nic.buffer_bytes


@compiled()
def descriptor_posted(trial: Trial, queue: Any) -> None:
    """The driver posted a descriptor; under saturation a packet may take it at once, or with the ones after
    it."""
    nic = trial.nic
    if nic.saturated and queue.posted - queue.dma < nic.wanted:
        nic.next_arrival_ps = max(nic.next_arrival_ps, clock(trial.host.observer.meter, queue.cpu))
    queue.posted += 1
