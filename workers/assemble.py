"""From a configuration to everything that a trial's loop works on."""

from typing import Any

from pool_impl.host import new_buffers
from pool_impl.layout import (
    BH_DISABLED,
    CACHE_CAPACITY,
    DMA_BIDIRECTIONAL,
    DMA_FROM_DEVICE,
    FLAG_DMA_MAP,
    FLAG_DMA_SYNC_DEV,
    SERVING_SOFTIRQ,
    records,
    words,
)
from pool_impl.pool import PoolParams, create
from pool_impl.release import rules_of, skb_rules_of
from workers.capture import Capture, load
from workers.config import TrialConfig, attaches_program
from workers.cost import PS_PER_NS
from workers.drivers.page import HEADROOM_BYTES, MOST_BYTES, TRUESIZE_BYTES
from workers.egress import most_frames, new_egress, register_pools, transmits
from workers.latency import BUCKETS
from workers.machine import new_machine
from workers.moderation import FIRST_PROFILE, PROFILE_FRAMES, PROFILE_USECS
from workers.rss import indirection
from workers.state import (
    ACTOR,
    CPU,
    DESCRIPTOR,
    LIFE,
    MACHINE,
    NIC,
    NOBODY,
    PACKET,
    POLL,
    QUEUE,
    READER,
    SOCKET,
    STACK,
    TALLY,
    TARGET_TURN,
    Trial,
)
from workers.traffic import FOREVER, Arrivals, last_arrival_ps, new_arrivals, work_key

PS_PER_US = 10**6
PS_PER_MS = 10**9


def new_trial(config: TrialConfig) -> Trial:
    """A trial that has not begun.

    Raises:
        TrialError: an input is unusable.
    """
    arrivals = new_arrivals(config, captured(config) if config.traffic.kind == "capture" else None)
    queues = _queues(config)
    readers = _readers(config)
    rx_ring = max(config.nic.rx_ring, config.life.rx_ring)
    descriptors = len(queues) * rx_ring
    comes_up = config.life.event == "resize"
    pools = config.nic.queues + (len(queues) if comes_up else 0)
    in_sockets = sum(_socket_packets(config) for _ in range(len(readers)))
    waiting = most_frames(config)
    skbs = in_sockets + waiting + 2 * len(queues) + config.xdp.redirect_cpus
    ring_slots = min(config.pool.size or 1024, rules_of(config.kernel).ring_size_limit)
    host = new_machine(
        config,
        pools=pools,
        pages=in_sockets + waiting + 1 + pools * (rx_ring + ring_slots + 5 * CACHE_CAPACITY),
        descriptors=descriptors,
        skbs=skbs,
    )
    if config.memory.pages:
        host.page_allocator.end = config.memory.pages + 1
    for number in range(pools):
        queue = number if number < config.nic.queues else number - config.nic.queues
        create(host, number, _pool_params(config, queue))
    egress = new_egress(config, 1 + max(*queues.cpu, *readers.cpu, 0))
    register_pools(config, host, egress, queues)
    cpus, actors = _cpus(queues, readers, egress.targets)
    if config.nic.napi == "busy-poll":
        cpus[: len(queues)].spins = 1
    machine = records(MACHINE, 1)[0]
    machine.cpus = len(cpus)
    machine.pools = pools
    stack = records(STACK, 1)[0]
    stack.readers = len(readers)
    stack.drops = int(config.app.reader == "drop")
    stack.forwards = int(config.app.reader == "forward")
    return Trial(
        host=host,
        buffers=new_buffers(host, skb_rules_of(config.kernel), skbs=skbs),
        machine=machine,
        cpus=cpus,
        actors=actors,
        life=_life(config),
        nic=_nic(config, arrivals, len(egress.frame_queues)),
        queues=queues,
        indirection=indirection(config.nic.queues),
        descriptors=records(DESCRIPTOR, descriptors),
        stack=stack,
        readers=readers,
        packets=records(PACKET, skbs + 1),
        socket_slots=words(sum(readers.mask + 1)),
        **egress._asdict(),
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


def _queues(config: TrialConfig) -> Any:
    queues = records(QUEUE, max(config.nic.queues, config.life.queues))
    for number in range(len(queues)):
        queues[number].first = number * max(config.nic.rx_ring, config.life.rx_ring)
        queues[number].cpu = queues[number].pool = number
        queues[number].event_ps = FOREVER
        if config.nic.moderation == "adaptive":
            queues[number].profile = FIRST_PROFILE
            queues[number].frames = PROFILE_FRAMES
            queues[number].usecs_ps = PROFILE_USECS[FIRST_PROFILE] * PS_PER_US
        elif config.nic.napi != "busy-poll":
            queues[number].frames = config.nic.rx_frames
            queues[number].usecs_ps = config.nic.rx_usecs * PS_PER_US
    return queues


def _pool_params(config: TrialConfig, queue: int) -> PoolParams:
    return PoolParams(
        pool_size=config.pool.size,
        flags=FLAG_DMA_MAP if config.driver.sync == "driver" else FLAG_DMA_MAP | FLAG_DMA_SYNC_DEV,
        dma_dir=DMA_BIDIRECTIONAL if attaches_program(config) else DMA_FROM_DEVICE,
        max_len=MOST_BYTES,
        offset=HEADROOM_BYTES,
        napi=queue,
    )


def _life(config: TrialConfig) -> Any:
    life = records(LIFE, 1)[0]
    life.queues = config.life.queues or config.nic.queues
    life.ring_mask = (config.life.rx_ring or config.nic.rx_ring) - 1
    life.first_pool = config.nic.queues
    return life


def _nic(config: TrialConfig, arrivals: Arrivals, frame_queues: int) -> Any:
    nic = records(NIC, 1)[0]
    nic.queues = config.nic.queues
    nic.ring_mask = config.nic.rx_ring - 1
    nic.recycle = int(config.pool.recycle)
    nic.driver_syncs = int(config.driver.sync == "driver")
    nic.replaces = int(config.driver.model == "replace-before-pass")
    nic.budget = config.nic.budget
    nic.adaptive = int(config.nic.moderation == "adaptive")
    nic.poll_context = SERVING_SOFTIRQ if config.nic.napi == "softirq" else BH_DISABLED
    nic.thread_wakes = int(config.nic.napi == "threaded")
    nic.program = int(attaches_program(config))
    nic.frame_queues = frame_queues
    nic.transmits = int(transmits(config))
    nic.saturated = int(config.traffic.kind == "saturation")
    nic.end_ps = config.duration_ms * PS_PER_MS
    if config.traffic.kind == "capture":
        nic.chunk_packets = len(arrivals.gaps_ps)
        nic.end_ps = min(nic.end_ps, last_arrival_ps(arrivals) + 1)
    nic.chunk_position = -1
    return nic


def _readers(config: TrialConfig) -> Any:
    app = config.app
    readers = records(SOCKET, 0 if app.reader in ("drop", "forward") else app.readers)
    first = 0
    queues = max(config.nic.queues, config.life.queues)
    for number in range(len(readers)):
        reader = readers[number]
        reader.cpu = number % config.nic.queues if app.reader_cpu == "same" else queues + number
        reader.work_ps = app.work_ns * PS_PER_NS if app.reader == "slow" else 0
        reader.work_varies = int(app.work_distribution == "exponential")
        reader.key = work_key(config.seed, number)
        reader.first = first
        reader.mask = (1 << _socket_packets(config).bit_length()) - 1
        reader.limit_bytes = app.socket_bytes
        first += reader.mask + 1
    return readers


def _socket_packets(config: TrialConfig) -> int:
    """How many packets a socket holds at the most."""
    return config.app.socket_bytes // TRUESIZE_BYTES + 1


def _cpus(queues: Any, readers: Any, targets: Any) -> tuple[Any, Any]:
    """The CPUs, and who acts on them: queues before readers on each, targets alone."""
    found = [(int(queues[number].cpu), POLL, number) for number in range(len(queues))]
    found += [(int(readers[number].cpu), READER, number) for number in range(len(readers))]
    found += [(int(targets[number].cpu), TARGET_TURN, number) for number in range(len(targets))]
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
