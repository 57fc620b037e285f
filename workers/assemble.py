"""From a configuration to everything that a trial's loop works on."""

from typing import Any

from pool_impl.host import new_buffers, new_frag_caches
from pool_impl.layout import CACHE_CAPACITY, FLAG_DMA_MAP, FLAG_DMA_SYNC_DEV, FLAG_PAGE_FRAG, records, words
from pool_impl.pool import PoolParams, create
from pool_impl.release import rules_of, skb_rules_of
from workers.capture import Capture, load
from workers.config import IMIX_BYTES, TrialConfig
from workers.cost import PS_PER_NS
from workers.drivers.geometry import Geometry, geometry_of
from workers.errors import ConfigError
from workers.latency import BUCKETS
from workers.machine import new_machine
from workers.rss import indirection
from workers.state import (
    ACTOR,
    BLAMED,
    CPU,
    DESCRIPTOR,
    MACHINE,
    NIC,
    NOBODY,
    PACKET,
    PAGE_ALONE,
    POLL,
    QUEUE,
    READER,
    SOCKET,
    STACK,
    TALLY,
    UNIT_BYTES,
    Trial,
)
from workers.traffic import Arrivals, last_arrival_ps, new_arrivals, work_key

PS_PER_MS = 10**9


def new_trial(config: TrialConfig) -> Trial:
    """A trial that has not begun.

    Raises:
        TrialError: an input is unusable.
    """
    arrivals = new_arrivals(config, captured(config) if config.traffic.kind == "capture" else None)
    largest_bytes = _largest_frame_bytes(config, arrivals)
    geometry = geometry_of(config, largest_bytes)
    _check_buffers(config, geometry, largest_bytes)
    queues = _queues(config)
    readers = _readers(config, geometry)
    rx_ring = config.nic.rx_ring
    descriptors = len(queues) * rx_ring
    in_sockets = len(readers) * _socket_packets(config, geometry)
    pages_in_sockets = in_sockets
    if geometry.pattern != PAGE_ALONE:
        # in the worst case each buffer is all that is left of its page
        buffers = config.app.socket_bytes // geometry.taken + geometry.most_buffers
        pages_in_sockets = len(readers) * buffers
    skbs = in_sockets + len(queues)
    ring_slots = min(config.pool.size or 1024, rules_of(config.kernel).ring_size_limit)
    pools = len(queues) * (2 if geometry.split else 1)
    host = new_machine(
        config,
        pools=pools,
        pages=pages_in_sockets
        + geometry.most_buffers
        + len(queues) * (rx_ring + ring_slots + 5 * CACHE_CAPACITY),
        descriptors=descriptors,
        skbs=skbs,
        parts_shift=geometry.parts_shift,
        part_bytes_shift=geometry.part_bytes_shift,
    )
    for number in range(len(queues)):
        create(host, number, _pool_params(config, geometry, number))
        if geometry.split:
            create(host, len(queues) + number, _header_pool_params(config, geometry, number))
    cpus, actors = _cpus(queues, readers)
    machine = records(MACHINE, 1)[0]
    machine.cpus = len(cpus)
    stack = records(STACK, 1)[0]
    stack.readers = len(readers)
    stack.drops = int(config.app.reader == "drop")
    return Trial(
        host=host,
        buffers=new_buffers(host, skb_rules_of(config.kernel), skbs=skbs),
        machine=machine,
        cpus=cpus,
        actors=actors,
        nic=_nic(config, geometry, len(queues), pools, arrivals),
        queues=queues,
        indirection=indirection(len(queues)),
        descriptors=records(DESCRIPTOR, descriptors),
        blamed=records(BLAMED, pools),
        stack=stack,
        readers=readers,
        packets=records(PACKET, skbs + 1),
        socket_slots=words(sum(readers.mask + 1)),
        frag_caches=new_frag_caches(),
        arrivals=arrivals,
        tally=records(TALLY, 1)[0],
        latency=words(BUCKETS),
    )


def captured(config: TrialConfig) -> Capture:
    """The capture that a trial replays.

    Raises:
        CaptureError: it is missing or unusable.
    """
    traffic = config.traffic
    return load(traffic.capture, traffic.capture_destination, traffic.capture_source)


def _largest_frame_bytes(config: TrialConfig, arrivals: Arrivals) -> int:
    if config.traffic.kind == "capture":
        return int(arrivals.frame_bytes.max())
    size = config.traffic.packet_size
    return max(IMIX_BYTES) if isinstance(size, str) else size


def _check_buffers(config: TrialConfig, geometry: Geometry, largest_bytes: int) -> None:
    """Refuse a capture with packets that no skb of this driver can hold."""
    most_bytes = geometry.most_buffers * geometry.writable
    if largest_bytes > most_bytes:
        raise ConfigError(
            "traffic.capture",
            config.traffic.capture,
            f"its largest frame has {largest_bytes} bytes, driver.model = {config.driver.model} takes "
            f"{most_bytes}; capture with GRO off, or use larger buffers",
        )


def _queues(config: TrialConfig) -> Any:
    queues = records(QUEUE, config.nic.queues)
    for number in range(len(queues)):
        queues[number].first = number * config.nic.rx_ring
        queues[number].cpu = number
    return queues


def _pool_params(config: TrialConfig, geometry: Geometry, queue: int) -> PoolParams:
    syncs = 0 if config.driver.sync == "driver" else FLAG_DMA_SYNC_DEV
    return PoolParams(
        pool_size=config.pool.size,
        flags=geometry.flags | FLAG_DMA_MAP | syncs,
        dma_dir=2,
        max_len=geometry.synced,
        offset=geometry.headroom,
        napi=queue,
    )


def _header_pool_params(config: TrialConfig, geometry: Geometry, queue: int) -> PoolParams:
    params = _pool_params(config, geometry, queue)
    fragments = FLAG_PAGE_FRAG if rules_of(config.kernel).frag_flag_needed else 0
    return params._replace(flags=params.flags | fragments)


def _nic(config: TrialConfig, geometry: Geometry, queues: int, pools: int, arrivals: Arrivals) -> Any:
    nic = records(NIC, 1)[0]
    nic.queues = queues
    nic.ring_mask = config.nic.rx_ring - 1
    nic.recycle = int(config.pool.recycle)
    nic.driver_syncs = int(config.driver.sync == "driver")
    nic.replaces = int(config.driver.model == "replace-before-pass")
    nic.pattern = geometry.pattern
    nic.buffer_bytes = geometry.writable
    nic.buffer_units = geometry.units
    nic.part_units = geometry.taken // UNIT_BYTES
    nic.split_bytes = geometry.split
    nic.pools = pools
    nic.copybreak_bytes = geometry.copybreak
    nic.wanted = 1
    nic.budget = config.nic.budget
    nic.rx_usecs_ps = config.nic.rx_usecs * 1000 * PS_PER_NS
    nic.saturated = int(config.traffic.kind == "saturation")
    nic.end_ps = config.duration_ms * PS_PER_MS
    if config.traffic.kind == "capture":
        nic.chunk_packets = len(arrivals.gaps_ps)
        nic.end_ps = min(nic.end_ps, last_arrival_ps(arrivals) + 1)
    nic.chunk_position = -1
    return nic


def _readers(config: TrialConfig, geometry: Geometry) -> Any:
    app = config.app
    readers = records(SOCKET, 0 if app.reader == "drop" else app.readers)
    first = 0
    queues = config.nic.queues
    for number in range(len(readers)):
        reader = readers[number]
        reader.cpu = number % queues if app.reader_cpu == "same" else queues + number
        reader.work_ps = app.work_ns * PS_PER_NS if app.reader == "slow" else 0
        reader.work_varies = int(app.work_distribution == "exponential")
        reader.key = work_key(config.seed, number)
        reader.first = first
        reader.mask = (1 << _socket_packets(config, geometry).bit_length()) - 1
        reader.limit_bytes = app.socket_bytes
        first += reader.mask + 1
    return readers


def _socket_packets(config: TrialConfig, geometry: Geometry) -> int:
    """How many packets a socket holds at the most."""
    return config.app.socket_bytes // geometry.least_truesize + 1


def _cpus(queues: Any, readers: Any) -> tuple[Any, Any]:
    """The CPUs, and who acts on them: queues before readers on each."""
    found = [(int(queues[number].cpu), POLL, number) for number in range(len(queues))]
    found += [(int(readers[number].cpu), READER, number) for number in range(len(readers))]
    found.sort()
    cpus = records(CPU, max(cpu for cpu, _, _ in found) + 1)
    actors = records(ACTOR, len(found))
    for index, (cpu, kind, number) in enumerate(found):
        actors[index].kind = kind
        actors[index].number = number
        if cpus[cpu].actors == 0:
            cpus[cpu].first_actor = cpus[cpu].due_actor = index
        cpus[cpu].actors += 1
    cpus.poller = NOBODY
    return cpus, actors
