"""From a configuration to everything that a trial's loop works on."""

from typing import Any

from pool_impl.host import new_buffers, new_frag_caches
from pool_impl.layout import (
    BH_DISABLED,
    CACHE_CAPACITY,
    DMA_BIDIRECTIONAL,
    DMA_FROM_DEVICE,
    FLAG_DMA_MAP,
    FLAG_DMA_SYNC_DEV,
    FLAG_PAGE_FRAG,
    PCP_CAPACITY,
    SERVING_SOFTIRQ,
    records,
    words,
)
from pool_impl.pool import PoolParams, create
from pool_impl.release import rules_of, skb_rules_of
from workers.arrivals.capture import Capture, load
from workers.arrivals.rss import indirection
from workers.arrivals.traffic import (
    FOREVER,
    PS_PER_MS,
    PS_PER_US,
    Arrivals,
    last_arrival_ps,
    new_arrivals,
)
from workers.arrivals.window import new_windows
from workers.books.histogram import BUCKETS
from workers.config import TrialConfig
from workers.device.moderation import FIRST_PROFILE, PROFILE_FRAMES, PROFILE_USECS
from workers.drivers import REFILL_LIMIT
from workers.drivers.geometry import Geometry, geometry_of
from workers.errors import ConfigError
from workers.fields.derived import (
    DROPPING_READERS,
    IMIX_BYTES,
    UNPOOLED_MODELS,
    WORKING_READERS,
    attaches_program,
    cpus_wanted,
    fills_cpumap,
    keeps_by_reference,
    keeps_to_windows,
    merges_in_hardware,
    most_queues,
    moves_interrupts,
    reads_sockets,
)
from workers.limits import (
    kept_packets,
    most_in_stack,
    most_merged,
    most_segments,
    packets_of_a_page,
    socket_packets,
    tap_packets,
)
from workers.machine import new_machine
from workers.net import backlog
from workers.net.deferred import MOST_SKBS
from workers.net.egress import most_frames, new_egress, register_pools, transmits
from workers.net.retention import MOST_RETAINED
from workers.pricing import nodes
from workers.pricing.cost import PS_PER_NS
from workers.profiles.hardware import page_bytes
from workers.seeding import set_seed
from workers.state import (
    ACTOR,
    AGGREGATE,
    AGGREGATES,
    BACKLOG,
    BACKLOG_POLL,
    BLAMED,
    CPU,
    DEFERRED,
    DEFERRED_FREE,
    DESCRIPTOR,
    FRAGMENTS,
    FREE_AGGREGATES,
    GRO,
    GRO_BUCKET_SKBS,
    GRO_BUCKETS,
    HOLD,
    IDLE,
    IN_FRAGMENTS,
    IN_PAGE_CACHE,
    LATE_FREE,
    LIFE,
    MACHINE,
    MERGED,
    NIC,
    NOBODY,
    PACKET,
    POLL,
    QUEUE,
    READER,
    RETAINED,
    RETAINED_SLOT,
    SOCKET,
    STACK,
    TALLY,
    TAP,
    TARGET_TURN,
    UNIT_BYTES,
    WHOLE_PAGE_PATTERNS,
    Trial,
)

MERGED_PAGES = 1 << 16
"""memory for what GRO and TCP merge beyond one page for each skb, 256 MiB; without, allocations fail"""
MOST_MERGED = 1 << 20
"""wire packets that can be in skbs of others"""


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
    rx_ring = max(config.nic.rx_ring, config.life.rx_ring)
    descriptors = len(queues) * rx_ring
    nic = _nic(config, geometry, arrivals)
    # the device's open aggregates and those completed have a descriptor each, that is not posted
    aggregates = descriptors if nic.contexts else 0
    payload_pools = config.nic.queues + (len(queues) if config.life.event == "resize" else 0)
    nic.first_header_pool = payload_pools
    pools = payload_pools * (2 if geometry.split else 1)
    limits = (most_in_stack(config, geometry, merged) for merged in (most_merged(config), 1))
    most, unmerged = limits
    waiting = min(most, unmerged + MERGED_PAGES) + most_frames(config)
    ring_slots = min(config.pool.size or 1024, rules_of(config.kernel).ring_size_limit)
    # in the worst case each buffer is all that is left of its page
    of_packet = -(-largest_bytes // geometry.writable) + (1 if geometry.split else 0)
    pages = (waiting + 1) * of_packet + pools * (rx_ring + ring_slots + 5 * CACHE_CAPACITY) + aggregates
    page_cache_slots = len(queues) * config.driver.page_cache
    pages += page_cache_slots
    skbs = waiting + 2 * len(queues) + config.xdp.redirect_cpus + most_segments(config)
    if most > unmerged + MERGED_PAGES:
        # pages are what runs short, and each may be in an skb
        skbs = pages + PCP_CAPACITY * sum(cpus_wanted(config).values()) + tap_packets(config, geometry)
        skbs += most_segments(config)
    host = new_machine(
        config,
        pools=pools,
        pages=pages,
        descriptors=descriptors,
        skbs=skbs,
        page_cache_slots=page_cache_slots,
        parts_shift=geometry.parts_shift,
        part_bytes_shift=geometry.part_bytes_shift,
        mapped_bytes=_mapped_bytes(config, geometry),
    )
    nic.first_page_cache_slot = len(host.slots)
    if config.memory.pages:
        host.page_allocator.end = config.memory.pages + 1
    for number in range(pools):
        place = number % payload_pools
        queue = place if place < config.nic.queues else place - config.nic.queues
        params_of = _pool_params if number < payload_pools else _header_pool_params
        create(host, number, params_of(config, geometry, queue))
    stack = _stack(config, waiting + aggregates)
    backlogs = _backlogs(config, queues, readers)
    egress = new_egress(config, 1 + _last_cpu(queues, readers, backlogs))
    register_pools(config, host, egress, queues, payload_pools)
    first_irq_cpu = 1 + _last_cpu(queues, readers, backlogs, egress.targets)
    irq_cpus = range(first_irq_cpu, first_irq_cpu + config.nic.queues if moves_interrupts(config) else 0)
    kthreads = egress.targets.cpu.tolist() if fills_cpumap(config) else []
    deferred = _deferred(stack, queues, [*kthreads, *irq_cpus])
    nic.frame_queues = len(egress.frame_queues)
    free_aggregates = records(FREE_AGGREGATES, 1)[0]
    free_aggregates.fresh = 1
    retained = _retained(config)
    before_readers = _before_readers(queues, backlogs, deferred, readers[: len(retained)])
    cpus, actors = _cpus(before_readers, readers, egress.targets, irq_cpus)
    own_cpus = readers.cpu[readers.cpu >= len(queues)]
    nodes.place(config, host.observer.caches, own_cpus, [*backlogs.cpu, *egress.targets.cpu], irq_cpus)
    if config.nic.napi == "busy-poll":
        cpus[: len(queues)].spins = 1
    machine = records(MACHINE, 1)[0]
    machine.cpus = len(cpus)
    machine.pools = pools
    trial = Trial(
        host=host,
        buffers=new_buffers(host, skb_rules_of(config.kernel), skbs=skbs),
        machine=machine,
        cpus=cpus,
        actors=actors,
        life=_life(config, first_irq_cpu),
        nic=nic,
        queues=queues,
        indirection=indirection(config.nic.queues),
        descriptors=records(DESCRIPTOR, descriptors),
        aggregates=records(AGGREGATE, aggregates + 1),
        aggregates_of=records(AGGREGATES, len(queues)),
        free_aggregates=free_aggregates,
        context_slots=words(len(queues) * int(nic.contexts)),
        page_cache_slots=words(page_cache_slots),
        parts_used=words(len(host.pages) if geometry.keeps_pages else 0),
        blamed=records(BLAMED, pools),
        stack=stack,
        readers=readers,
        packets=records(PACKET, skbs + 1),
        holds=records(HOLD, skbs + 1),
        merged=records(MERGED, stack.merged_room + 1),
        tap=records(TAP, 1)[0],
        gro=records(GRO, len(queues)),
        gro_slots=words(len(queues) * GRO_BUCKETS * GRO_BUCKET_SKBS),
        backlogs=backlogs,
        backlog_slots=words(len(backlogs) * backlog.SLOTS),
        deferred=deferred,
        deferred_slots=words(len(deferred) * MOST_SKBS),
        socket_slots=words(sum(readers.mask + 1)),
        **egress._asdict(),
        kept_slots=words(sum(readers.kept_mask + 1)),
        retained=retained,
        retained_slots=records(RETAINED_SLOT, len(retained) * MOST_RETAINED),
        frag_caches=new_frag_caches(),
        arrivals=arrivals,
        windows=new_windows(config),
        tally=records(TALLY, 1)[0],
        latency=words(BUCKETS),
        hold_times=words(BUCKETS),
    )
    set_seed(trial, config)
    return trial


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
    """Refuse a capture with packets that no skb of this driver can hold, or no buffer of a program."""
    most_bytes = geometry.most_buffers * geometry.writable
    if attaches_program(config) and largest_bytes > geometry.writable:
        raise ConfigError(
            "traffic.capture",
            config.traffic.capture,
            f"its largest frame has {largest_bytes} bytes, an XDP program takes packets of one page, "
            f"{geometry.writable} bytes; use another capture, or no program",
        )
    if largest_bytes > most_bytes:
        raise ConfigError(
            "traffic.capture",
            config.traffic.capture,
            f"its largest frame has {largest_bytes} bytes, driver.model = {config.driver.model} takes "
            f"{most_bytes}; capture with GRO off, or use larger buffers",
        )


def _queues(config: TrialConfig) -> Any:
    queues = records(QUEUE, most_queues(config))
    for number in range(len(queues)):
        queues[number].first = number * max(config.nic.rx_ring, config.life.rx_ring)
        queues[number].cpu = queues[number].irq_cpu = queues[number].pool = number
        queues[number].event_ps = FOREVER
        queues[number].first_cached_page = number * config.driver.page_cache
        if config.nic.moderation == "adaptive":
            queues[number].profile = FIRST_PROFILE
            queues[number].frames = PROFILE_FRAMES
            queues[number].usecs_ps = PROFILE_USECS[FIRST_PROFILE] * PS_PER_US
        elif config.nic.napi != "busy-poll":
            queues[number].frames = config.nic.rx_frames
            queues[number].usecs_ps = config.nic.rx_usecs * PS_PER_US
    return queues


def _pool_params(config: TrialConfig, geometry: Geometry, queue: int) -> PoolParams:
    maps = 0 if keeps_by_reference(config) else FLAG_DMA_MAP
    sync_bytes = config.driver.sync_bytes
    syncs = FLAG_DMA_SYNC_DEV if maps and config.driver.sync == "pool" and sync_bytes != 0 else 0
    return PoolParams(
        pool_size=config.pool.size,
        flags=geometry.flags | maps | syncs,
        dma_dir=DMA_BIDIRECTIONAL if attaches_program(config) else DMA_FROM_DEVICE,
        max_len=geometry.synced if isinstance(sync_bytes, str) else min(sync_bytes, geometry.synced),
        offset=geometry.headroom,
        napi=queue,
        nid=nodes.preferred(config),
        slow_batch=config.pool.slow_batch,
    )


def _mapped_bytes(config: TrialConfig, geometry: Geometry) -> int:
    """What one mapping of a receive buffer covers: a page, if it is the pool that maps."""
    pooled = config.driver.model not in UNPOOLED_MODELS and not keeps_by_reference(config)
    return page_bytes(config) if pooled else geometry.synced


def _life(config: TrialConfig, first_irq_cpu: int) -> Any:
    life = records(LIFE, 1)[0]
    life.queues = config.life.queues or config.nic.queues
    life.ring_mask = (config.life.rx_ring or config.nic.rx_ring) - 1
    life.first_pool = config.nic.queues
    life.first_irq_cpu = first_irq_cpu
    life.tx_ring = config.nic.tx_ring
    life.stays_down = int(config.life.event == "down")
    return life


def _header_pool_params(config: TrialConfig, geometry: Geometry, queue: int) -> PoolParams:
    params = _pool_params(config, geometry, queue)
    fragments = FLAG_PAGE_FRAG if rules_of(config.kernel).frag_flag_needed else 0
    return params._replace(flags=params.flags | fragments)


def _nic(config: TrialConfig, geometry: Geometry, arrivals: Arrivals) -> Any:
    nic = records(NIC, 1)[0]
    nic.queues = config.nic.queues
    nic.ring_mask = config.nic.rx_ring - 1
    nic.recycle = int(config.pool.recycle)
    nic.driver_syncs = int(config.driver.sync == "driver" and config.driver.sync_bytes != 0)
    nic.replaces = int(config.driver.model == "replace-before-pass")
    nic.pattern = geometry.pattern
    nic.buffer_bytes = geometry.writable
    nic.buffer_units = geometry.units
    nic.part_units = geometry.taken // UNIT_BYTES
    nic.copies_heads = int(config.driver.skb_head == "copied")
    nic.head_units = 0 if geometry.pattern == FRAGMENTS or nic.copies_heads else nic.part_units
    nic.split_bytes = geometry.split
    nic.copybreak_bytes = geometry.copybreak
    nic.page_bytes = page_bytes(config)
    nic.page_shift = int(nic.page_bytes).bit_length() - 1
    nic.page_units = nic.page_bytes // UNIT_BYTES
    nic.page_units_shift = int(nic.page_units).bit_length() - 1
    nic.page_parts = nic.page_bytes // geometry.taken
    nic.references = int(keeps_by_reference(config))
    nic.page_cache_mask = max(0, config.driver.page_cache - 1)
    nic.whole_pages = int(geometry.pattern in WHOLE_PAGE_PATTERNS)
    nic.rest_location = IN_PAGE_CACHE if config.driver.page_cache else IN_FRAGMENTS
    nic.wanted = 1
    nic.budget = config.nic.budget
    nic.refill_limit = REFILL_LIMIT
    if merges_in_hardware(config):
        nic.contexts = config.nic.hw_gro_flows
        nic.context_ps = config.nic.hw_gro_usecs * PS_PER_US
        nic.refill_limit = max(config.nic.rx_ring, config.life.rx_ring)
    nic.adaptive = int(config.nic.moderation == "adaptive")
    nic.poll_context = SERVING_SOFTIRQ if config.nic.napi == "softirq" else BH_DISABLED
    nic.thread_wakes = int(config.nic.napi == "threaded")
    # who polls for himself reads after each poll
    nic.slice_ps = 0 if config.nic.napi == "busy-poll" else config.app.slice_us * PS_PER_US
    nic.program = int(attaches_program(config))
    nic.transmits = int(transmits(config))
    nic.tso = int(config.nic.tso)
    nic.updates_pool = int(config.driver.pool_node == "update")
    nic.saturated = int(config.traffic.kind == "saturation")
    nic.windows = int(keeps_to_windows(config))
    nic.end_ps = config.duration_ms * PS_PER_MS
    if config.traffic.kind == "capture":
        nic.chunk_packets = len(arrivals.gaps_ps)
        nic.end_ps = min(nic.end_ps, last_arrival_ps(arrivals) + 1)
    nic.chunk_position = -1
    return nic


def _stack(config: TrialConfig, in_stack: int) -> Any:
    stack, app = config.stack, config.app
    record = records(STACK, 1)[0]
    record.readers = app.readers if reads_sockets(config) else 0
    record.drops = int(app.reader in DROPPING_READERS)
    record.forwards = int(app.reader == "forward")
    record.raw = int(app.reader == "raw")
    record.no_port = int(app.reader == "udp-no-port")
    record.gro = int(stack.gro)
    record.tcp = int(app.protocol == "tcp")
    if record.tcp and record.readers and skb_rules_of(config.kernel).tcp_defers_frees:
        record.defers_to_queues = most_queues(config)
    record.backlogs = stack.rps
    record.tap_percent = stack.capture_percent
    record.retains_percent = app.hold_percent
    record.retains_ps = app.hold_ms * PS_PER_MS
    record.keeps = int(record.defers_to_queues > 0 or app.reader == "hold" or app.hold_percent > 0)
    more = ("raw", "no_port", "gro", "tcp", "backlogs", "tap_percent")
    record.special = int(any(record[name] for name in more))
    record.merged_fresh = 1
    record.merged_room = min(in_stack * packets_of_a_page(config), MOST_MERGED) if record.tcp else 0
    return record


def _readers(config: TrialConfig, geometry: Geometry) -> Any:
    """The sockets, the tap's last."""
    app, stack = config.app, config.stack
    sockets = app.readers if reads_sockets(config) else 0
    taps = int(stack.capture_percent > 0)
    readers = records(SOCKET, sockets + taps)
    queues = most_queues(config)
    next_cpu = queues
    first = kept_first = 0
    for number in range(len(readers)):
        reader = readers[number]
        is_tap = number == sockets
        if app.reader_cpu == "same" and not is_tap:
            reader.cpu = number % config.nic.queues
        else:
            reader.cpu = next_cpu
            next_cpu += 1
        if is_tap:
            reader.work_ps = stack.capture_work_ns * PS_PER_NS
        else:
            reader.work_ps = app.work_ns * PS_PER_NS if app.reader in WORKING_READERS else 0
            reader.work_varies = int(app.work_distribution == "exponential")
            reader.stall_ps = app.stall_ms * PS_PER_MS if app.reader == "stalled" else 0
            reader.every_ps = app.stall_every_ms * PS_PER_MS
            reader.keeps = kept_packets(config)
        reader.first = first
        reader.mask = _mask(tap_packets(config, geometry) if is_tap else socket_packets(config, geometry))
        reader.limit_bytes = stack.capture_bytes if is_tap else app.socket_bytes
        reader.kept_first = kept_first
        reader.kept_mask = _mask(int(reader.keeps) + 1)
        first += reader.mask + 1
        kept_first += reader.kept_mask + 1
    return readers


def _mask(slots: int) -> int:
    """Of the power of two that holds so many."""
    return (1 << slots.bit_length()) - 1


def _last_cpu(*actors: Any) -> int:
    """The last one that one of these has."""
    return max(int(cpu) for table in actors for cpu in table.cpu)


def _backlogs(config: TrialConfig, queues: Any, readers: Any) -> Any:
    backlogs = records(BACKLOG, config.stack.rps)
    first_cpu = 1 + _last_cpu(queues, readers)
    for number in range(len(backlogs)):
        backlogs[number].cpu = first_cpu + number
    backlogs.phase = IDLE
    backlogs.event_ps = FOREVER
    backlogs.kicked_by = NOBODY
    return backlogs


def _deferred(stack: Any, queues: Any, other_cpus: list[int]) -> Any:
    """A list for each CPU that skbs are left to: queues', then others in a row."""
    stack.defers = stack.defers_to_queues + len(other_cpus) if stack.defers_to_queues else 0
    deferred = records(DEFERRED, int(stack.defers))
    deferred.event_ps = FOREVER
    if stack.defers:
        deferred.cpu = [*queues.cpu, *other_cpus]
        stack.defers_from_cpu = other_cpus[0] if other_cpus else 0
    return deferred


def _retained(config: TrialConfig) -> Any:
    """For each reader, if they keep packets for long."""
    retained = records(RETAINED, config.app.readers if config.app.hold_percent else 0)
    for number in range(len(retained)):
        retained[number].event_ps = FOREVER
        retained[number].first = number * MOST_RETAINED
    return retained


Actor = tuple[int, int, int]
"""its CPU, kind and number"""


def _before_readers(queues: Any, backlogs: Any, deferred: Any, retaining: Any) -> list[Actor]:
    """Softirqs, and what readers do before they read on."""
    found = [(int(queues[number].cpu), POLL, number) for number in range(len(queues))]
    found += [(int(backlogs[number].cpu), BACKLOG_POLL, number) for number in range(len(backlogs))]
    found += [(int(deferred[number].cpu), DEFERRED_FREE, number) for number in range(len(deferred))]
    found += [(int(retaining[number].cpu), LATE_FREE, number) for number in range(len(retaining))]
    return found


def _cpus(before_readers: list[Actor], readers: Any, targets: Any, irq_cpus: range) -> tuple[Any, Any]:
    """The CPUs, and who acts on them: softirqs before readers on each, then targets, nobody yet where
    interrupts will move to."""
    found = before_readers.copy()
    found += [(int(readers[number].cpu), READER, number) for number in range(len(readers))]
    found += [(int(targets[number].cpu), TARGET_TURN, number) for number in range(len(targets))]
    found += [(cpu, POLL, number) for number, cpu in enumerate(irq_cpus)]
    found.sort()
    cpus = records(CPU, max(cpu for cpu, _, _ in found) + 1)
    actors = records(ACTOR, len(found))
    for index, (cpu, kind, number) in enumerate(found):
        actors[index].kind = kind
        actors[index].number = number
        if cpus[cpu].actors == 0:
            cpus[cpu].first_actor = cpus[cpu].due_actor = index
        cpus[cpu].actors += 1
    cpus.actors[[*irq_cpus]] = 0
    cpus.poller = NOBODY
    return cpus, actors
