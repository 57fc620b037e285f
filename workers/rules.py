"""Rules between the fields of a trial: combinations that cannot exist, each with its remedy."""

from collections.abc import Callable
from typing import NamedTuple

from pool_impl.layout import MAX_CPUS
from pool_impl.release import rules_of
from workers import arch
from workers.arch_rules import SMALLEST_PAGE_BYTES
from workers.derived import (
    BESIDE_DATA_BYTES,
    FRAGMENT_MODELS,
    PAGE_MODELS,
    SLAB_FRAME_BYTES,
    SPLIT_MODELS,
    UNPOOLED_MODELS,
    attaches_program,
    cpus_wanted,
    cuts_up,
    keeps_by_reference,
    most_packets_per_second,
    moves_interrupts,
    reads_sockets,
)
from workers.errors import ConfigError
from workers.groups import (
    KERNEL_VARIANT,
    NIC_WORKLOAD,
    DriverConfig,
    NicConfig,
    PoolConfig,
    TrafficConfig,
    TrialFields,
)
from workers.hardware import page_bytes
from workers.machine_rules import MACHINE_RULES


class Rule(NamedTuple):
    """A rule between fields. It reads only the fields it names, so that a planner can check the
    product of just those axes."""

    fields: tuple[str, ...]
    check: Callable[[TrialFields], None]


def _rx_rings_are_powers_of_two(config: TrialFields) -> None:
    for name, size in (("nic.rx_ring", config.nic.rx_ring), ("life.rx_ring", config.life.rx_ring)):
        if size & (size - 1):
            raise ConfigError(name, size, f"use a power of two, such as {1 << size.bit_length()}")


def _what_happens_to_the_device_happens_in_the_trial(config: TrialFields) -> None:
    life = config.life
    if life.event == "none":
        return
    ends_ms = life.at_ms + (life.down_ms if life.event == "resize" else 0)
    if ends_ms >= config.duration_ms or life.at_ms < config.warmup_ms:
        raise ConfigError(
            "life.at_ms",
            life.at_ms,
            f"must leave the warm-up ({config.warmup_ms} ms) before it and be over by duration_ms = "
            f"{config.duration_ms}",
        )


def _only_a_device_that_comes_up_again_changes(config: TrialFields) -> None:
    life = config.life
    for name in ("rx_ring", "queues"):
        if getattr(life, name) and life.event != "resize":
            raise ConfigError(f"life.{name}", getattr(life, name), "needs life.event = resize")


def _a_node_needs_a_socket(config: TrialFields) -> None:
    if config.numa.nodes > 1:
        sockets = int(arch.load(config.arch)["sockets"])
        if config.numa.nodes > sockets:
            raise ConfigError(
                "numa.nodes",
                config.numa.nodes,
                f"arch = {config.arch} has at most {sockets} sockets; use {sockets}",
            )


def _nodes_exist(config: TrialFields) -> None:
    for leaf in ("nic", "queues", "readers", "steering"):
        node = getattr(config.numa, leaf)
        if node >= config.numa.nodes:
            raise ConfigError(
                f"numa.{leaf}", node, f"numa.nodes = {config.numa.nodes}; use a node below it, or more nodes"
            )


def _short_memory_is_on_one_node(config: TrialFields) -> None:
    if config.numa.nodes > 1 and config.memory.pages:
        raise ConfigError(
            "memory.pages",
            config.memory.pages,
            "a node without pages would take some of another; leave it 0, or use numa.nodes = 1",
        )


def _interrupts_move_to_another_node(config: TrialFields) -> None:
    if not moves_interrupts(config):
        return
    if config.numa.nodes == 1:
        raise ConfigError("life.event", config.life.event, "needs another node; use numa.nodes = 2")
    if config.nic.napi != "softirq":
        raise ConfigError(
            "life.event",
            config.life.event,
            f"polls stay where they are with nic.napi = {config.nic.napi}; use softirq",
        )


def _tx_ring_is_a_power_of_two(config: TrialFields) -> None:
    size = config.nic.tx_ring
    if size & (size - 1):
        raise ConfigError("nic.tx_ring", size, f"use a power of two, such as {1 << size.bit_length()}")


def _verdicts_add_up(config: TrialFields) -> None:
    xdp = config.xdp
    others = xdp.drop_percent + xdp.tx_percent + xdp.redirect_percent
    if xdp.pass_percent + others != 100:
        remedy = (
            f"use {100 - others}"
            if others <= 100
            else "lower xdp.drop_percent, tx_percent or redirect_percent"
        )
        raise ConfigError(
            "xdp.pass_percent", xdp.pass_percent, f"the four shares have to add up to 100; {remedy}"
        )


def _redirects_have_a_target(config: TrialFields) -> None:
    xdp = config.xdp
    if xdp.redirect_percent > 0 and not xdp.redirect_to:
        raise ConfigError("xdp.redirect_to", "", "frames are redirected; name device, cpumap or af_xdp")


def _warmup_ends_before_the_trial(config: TrialFields) -> None:
    if config.warmup_ms >= config.duration_ms:
        raise ConfigError("warmup_ms", config.warmup_ms, f"must be below duration_ms = {config.duration_ms}")


def _offered_load_fits_the_link(config: TrialFields) -> None:
    if config.traffic.kind not in ("saturation", "capture"):
        _check_rate(config, "rate_pps")


def _end_of_the_ramp_fits_the_link(config: TrialFields) -> None:
    if config.traffic.kind == "ramp":
        _check_rate(config, "ramp_to_pps")


def _check_rate(config: TrialFields, leaf: str) -> None:
    rate_pps, most = getattr(config.traffic, leaf), most_packets_per_second(config)
    if rate_pps > most:
        raise ConfigError(
            f"traffic.{leaf}",
            rate_pps,
            f"a {config.nic.link_gbps} Gbit/s link carries at most {most} packets/s of this size; "
            "lower it or raise nic.link_gbps",
        )


def _adaptive_moderation_has_profiles_of_its_own(config: TrialFields) -> None:
    nic, default = config.nic, NicConfig()
    if nic.moderation == "adaptive":
        for name in ("rx_usecs", "rx_frames"):
            if getattr(nic, name) != getattr(default, name):
                raise ConfigError(
                    f"nic.{name}", getattr(nic, name), "nic.moderation = adaptive chooses it; leave one out"
                )


def _busy_polling_has_a_reader_for_each_queue(config: TrialFields) -> None:
    nic, app = config.nic, config.app
    if nic.napi != "busy-poll":
        return
    if app.reader in ("drop", "forward") or app.reader_cpu != "same" or app.readers != nic.queues:
        raise ConfigError(
            "nic.napi",
            nic.napi,
            f"needs an application on each queue's CPU; use app.reader = fast or slow, app.reader_cpu = same "
            f"and app.readers = nic.queues = {nic.queues}",
        )
    if nic.moderation == "adaptive":
        raise ConfigError("nic.moderation", nic.moderation, "nic.napi = busy-poll has none; use fixed")


def _loops_have_no_packets_to_mark(config: TrialFields) -> None:
    if config.workload != NIC_WORKLOAD and not config.pool.recycle:
        raise ConfigError(
            "pool.recycle", False, f"workload = {config.workload} has no packets; leave it true, or use nic"
        )


def _a_stall_ends_before_the_next(config: TrialFields) -> None:
    app = config.app
    if app.reader == "stalled" and app.stall_ms >= app.stall_every_ms:
        raise ConfigError(
            "app.stall_ms", app.stall_ms, f"must be below app.stall_every_ms = {app.stall_every_ms}"
        )


def _who_keeps_packets_reads_them(config: TrialFields) -> None:
    if config.app.hold_percent and not reads_sockets(config):
        raise ConfigError(
            "app.hold_percent",
            config.app.hold_percent,
            f"app.reader = {config.app.reader} has no application that keeps packets; use fast or slow",
        )


def _ports_are_udp(config: TrialFields) -> None:
    if config.app.reader == "udp-no-port" and config.app.protocol != "udp":
        raise ConfigError("app.protocol", config.app.protocol, "app.reader = udp-no-port needs udp")


def _cpus_are_enough(config: TrialFields) -> None:
    """Queues, readers with a CPU of their own, RPS CPUs, the tap's and those of redirect targets."""
    wanted = cpus_wanted(config)
    total = sum(wanted.values())
    if total > MAX_CPUS:
        name = max(wanted, key=lambda name: wanted[name])
        parts = " + ".join(f"{cpus} of {field}" for field, cpus in wanted.items() if cpus)
        raise ConfigError(name, wanted[name], f"{parts} are {total} CPUs; use at most {MAX_CPUS} in all")


def _what_is_cut_up_is_not_captured(config: TrialFields) -> None:
    if cuts_up(config) and config.stack.capture_percent:
        raise ConfigError(
            "stack.capture_percent",
            config.stack.capture_percent,
            "pages of merged packets that are cut up to be sent (app.reader = forward) would be in a segment "
            "and in the packet socket at a time; use 0, or stack.gro = false and nic.tso = true",
        )


def _segments_hold_pages_by_reference(config: TrialFields) -> None:
    if not cuts_up(config) or config.pool.variant != "page_decides":
        return
    if config.driver.model in (*FRAGMENT_MODELS, *SPLIT_MODELS):
        raise ConfigError(
            "pool.variant",
            config.pool.variant,
            "takes the references that segments have (app.reader = forward with merged packets) for other "
            f"packets' shares of a page; use kernel, or a driver.model other than {config.driver.model}",
        )


def _programs_have_whole_pages(config: TrialFields) -> None:
    if not attaches_program(config):
        return
    driver = config.driver
    whole = driver.model in PAGE_MODELS and driver.copybreak_bytes in ("usual", 0)
    if not whole or not _fits_a_page(config, config.traffic.packet_size):
        raise ConfigError(
            "driver.model",
            driver.model,
            "with an XDP program attached drivers change to a page for each packet, as mlx5 does; use "
            "page-per-packet or replace-before-pass, driver.copybreak_bytes = usual and packets up to "
            f"{page_bytes(config) - BESIDE_DATA_BYTES} bytes, or no program",
        )


def _fits_a_page(config: TrialFields, size: int | str) -> bool:
    """Whether a packet of this size takes one page; frames of usual size do on any machine."""
    if isinstance(size, str) or size <= SMALLEST_PAGE_BYTES - BESIDE_DATA_BYTES:
        return True
    return size <= page_bytes(config) - BESIDE_DATA_BYTES


def _release_has_fragments(config: TrialFields) -> None:
    if config.driver.model in FRAGMENT_MODELS and rules_of(config.kernel).frag_bias == 0:
        raise ConfigError(
            "driver.model",
            config.driver.model,
            f"kernel = {config.kernel} has no fragments; use a later kernel, or page-per-packet",
        )


def _split_pages_have_shares_or_references(config: TrialFields) -> None:
    shares = config.pool.recycle and rules_of(config.kernel).frag_bias == 0
    if config.driver.model == "split" and shares:
        raise ConfigError(
            "pool.recycle",
            True,
            f"kernel = {config.kernel} has no shares for driver.model = split to give to skbs; use false "
            "for plain references, or a later kernel",
        )


def _a_page_cache_is_a_ring(config: TrialFields) -> None:
    slots = config.driver.page_cache
    if slots == 1 or slots & (slots - 1):
        raise ConfigError(
            "driver.page_cache",
            slots,
            f"use a power of two from 2, such as {1 << max(1, slots.bit_length())}, or 0",
        )


def _a_page_cache_keeps_pages_by_reference(config: TrialFields) -> None:
    driver = config.driver
    if driver.page_cache == 0 or driver.model in ("page-allocator", "split-unpooled"):
        return
    if driver.model not in ("page-per-packet", "split"):
        raise ConfigError(
            "driver.page_cache",
            driver.page_cache,
            f"driver.model = {driver.model} keeps no pages; leave it 0, or use split, page-per-packet or "
            "page-allocator",
        )
    if config.pool.recycle:
        raise ConfigError(
            "pool.recycle",
            True,
            "pages that skbs return to the pool cannot wait in driver.page_cache for them; use false, or "
            "driver.page_cache = 0",
        )


def _pages_kept_by_reference_are_the_drivers(config: TrialFields) -> None:
    """What the pool would do, or decide, for pages that are not its."""
    if not keeps_by_reference(config):
        return
    for name, value, default in (
        ("pool.variant", config.pool.variant, KERNEL_VARIANT),
        ("driver.sync", config.driver.sync, "pool"),
    ):
        if value != default:
            raise ConfigError(
                name,
                value,
                "with driver.page_cache, or driver.model = split and pool.recycle = false, the driver maps, "
                f"syncs and keeps pages; leave it {default}",
            )


def _pages_in_a_page_cache_stay(config: TrialFields) -> None:
    xdp = config.xdp
    if config.driver.page_cache and (xdp.tx_percent or xdp.redirect_percent):
        raise ConfigError(
            "driver.page_cache",
            config.driver.page_cache,
            "XDP_TX and redirected frames take pages past it; leave it 0",
        )


def _pages_in_fragments_stay(config: TrialFields) -> None:
    if config.driver.model in FRAGMENT_MODELS and not config.pool.recycle:
        raise ConfigError(
            "pool.recycle",
            False,
            f"with driver.model = {config.driver.model} a page has several packets and cannot leave the pool "
            "with one; leave it true, or use page-per-packet",
        )


def _headers_apart_are_not_copied(config: TrialFields) -> None:
    copybreak = config.driver.copybreak_bytes
    if config.driver.model == "header-split" and copybreak not in ("usual", 0):
        raise ConfigError(
            "driver.copybreak_bytes",
            copybreak,
            "driver.model = header-split has small packets in header buffers; leave it usual, or use "
            "fragments",
        )


def _merged_payload_has_pages_of_its_own(config: TrialFields) -> None:
    if config.nic.hw_gro and config.driver.model != "header-split":
        raise ConfigError(
            "nic.hw_gro",
            True,
            f"driver.model = {config.driver.model} has headers in front of each payload; use "
            "header-split, or stack.gro",
        )


ONLY_OF_POOLS = ("recycle", "variant", "slow_batch")


def _only_pools_recycle(leaf: str) -> Callable[[TrialFields], None]:
    """The check that this field of the pool is left alone where there is no pool."""
    default = PoolConfig.model_fields[leaf].default

    def check(config: TrialFields) -> None:
        value = getattr(config.pool, leaf)
        if config.driver.model in UNPOOLED_MODELS and value != default:
            raise ConfigError(
                f"pool.{leaf}",
                value,
                f"driver.model = {config.driver.model} has no pool; leave it {default}, or use "
                "page-per-packet",
            )

    return check


def _mapping_syncs(config: TrialFields) -> None:
    if config.driver.model in UNPOOLED_MODELS and config.driver.sync != "pool":
        raise ConfigError(
            "driver.sync",
            config.driver.sync,
            f"driver.model = {config.driver.model} maps each buffer, which syncs it; leave it pool, or use "
            "page-per-packet",
        )


def _only_pools_limit_syncs(config: TrialFields) -> None:
    driver = config.driver
    if driver.sync_bytes != "usual" and (driver.model in UNPOOLED_MODELS or keeps_by_reference(config)):
        raise ConfigError(
            "driver.sync_bytes",
            driver.sync_bytes,
            "it is the pool's max_len, and here the driver maps and syncs whole buffers; leave it usual, or "
            "use page-per-packet",
        )


def _only_pools_prefer_a_node(config: TrialFields) -> None:
    if config.driver.model in UNPOOLED_MODELS and config.driver.pool_node != "local":
        raise ConfigError(
            "driver.pool_node",
            config.driver.pool_node,
            f"driver.model = {config.driver.model} has no pool; leave it local, or use page-per-packet",
        )


def _only_fragments_have_a_size(config: TrialFields) -> None:
    driver = config.driver
    default = DriverConfig.model_fields["buffer_bytes"].default
    if driver.model in ("fragments", *SPLIT_MODELS):
        if not 1024 <= driver.buffer_bytes <= 4096:
            raise ConfigError(
                "driver.buffer_bytes",
                driver.buffer_bytes,
                f"driver.model = {driver.model} has buffers in a page; use 1024 to 4096, or slab",
            )
    elif driver.model == "slab":
        if driver.buffer_bytes not in SLAB_FRAME_BYTES:
            raise ConfigError(
                "driver.buffer_bytes",
                driver.buffer_bytes,
                f"use one of {', '.join(map(str, SLAB_FRAME_BYTES))} with driver.model = slab",
            )
    elif driver.buffer_bytes != default:
        raise ConfigError(
            "driver.buffer_bytes",
            driver.buffer_bytes,
            f"with driver.model = {driver.model} a buffer is a page; leave it {default}, or use "
            "fragments or split",
        )


def _replaced_packets_have_one_page(config: TrialFields) -> None:
    size = config.traffic.packet_size
    if config.driver.model != "replace-before-pass" or config.traffic.kind == "capture":
        return
    if not _fits_a_page(config, size):
        raise ConfigError(
            "traffic.packet_size",
            size,
            "driver.model = replace-before-pass takes packets of one page, "
            f"{page_bytes(config) - BESIDE_DATA_BYTES} bytes; use smaller ones, or page-per-packet",
        )


def _flows_come_from_the_capture(leaf: str) -> Callable[[TrialFields], None]:
    """The check that this field is left alone where a capture is replayed."""
    default = TrafficConfig.model_fields[leaf].default

    def check(config: TrialFields) -> None:
        value = getattr(config.traffic, leaf)
        if config.traffic.kind == "capture" and value != default:
            raise ConfigError(
                f"traffic.{leaf}",
                value,
                f"a capture has flows of its own; leave it {default}, or use another traffic.kind",
            )

    return check


RULES = (
    Rule(("nic.rx_ring", "life.rx_ring"), _rx_rings_are_powers_of_two),
    Rule(
        ("life.event", "life.at_ms", "life.down_ms", "duration_ms", "warmup_ms"),
        _what_happens_to_the_device_happens_in_the_trial,
    ),
    Rule(("life.event", "life.rx_ring", "life.queues"), _only_a_device_that_comes_up_again_changes),
    Rule(("arch", "numa.nodes"), _a_node_needs_a_socket),
    *(Rule(*rule) for rule in MACHINE_RULES),
    Rule(("numa.nodes", "numa.nic", "numa.queues", "numa.readers", "numa.steering"), _nodes_exist),
    Rule(("numa.nodes", "memory.pages"), _short_memory_is_on_one_node),
    Rule(("life.event", "numa.nodes", "nic.napi"), _interrupts_move_to_another_node),
    Rule(("nic.tx_ring",), _tx_ring_is_a_power_of_two),
    Rule(
        ("xdp.pass_percent", "xdp.drop_percent", "xdp.tx_percent", "xdp.redirect_percent"), _verdicts_add_up
    ),
    Rule(("xdp.redirect_percent", "xdp.redirect_to"), _redirects_have_a_target),
    Rule(("workload", "pool.recycle"), _loops_have_no_packets_to_mark),
    Rule(("nic.moderation", "nic.rx_usecs", "nic.rx_frames"), _adaptive_moderation_has_profiles_of_its_own),
    Rule(
        ("nic.napi", "nic.queues", "nic.moderation", "app.reader", "app.reader_cpu", "app.readers"),
        _busy_polling_has_a_reader_for_each_queue,
    ),
    Rule(
        (
            "driver.model",
            "driver.copybreak_bytes",
            "traffic.packet_size",
            "xdp.attached",
            "xdp.pass_percent",
            "arch",
            "machine.page_bytes",
        ),
        _programs_have_whole_pages,
    ),
    Rule(("driver.model", "kernel"), _release_has_fragments),
    Rule(("driver.model", "pool.recycle"), _pages_in_fragments_stay),
    Rule(("nic.hw_gro", "driver.model"), _merged_payload_has_pages_of_its_own),
    Rule(("driver.model", "pool.recycle", "kernel"), _split_pages_have_shares_or_references),
    Rule(("driver.page_cache",), _a_page_cache_is_a_ring),
    Rule(("driver.page_cache", "driver.model", "pool.recycle"), _a_page_cache_keeps_pages_by_reference),
    Rule(
        ("driver.page_cache", "driver.model", "pool.recycle", "pool.variant", "driver.sync"),
        _pages_kept_by_reference_are_the_drivers,
    ),
    Rule(("driver.page_cache", "xdp.tx_percent", "xdp.redirect_percent"), _pages_in_a_page_cache_stay),
    Rule(("driver.model", "driver.copybreak_bytes"), _headers_apart_are_not_copied),
    *(Rule(("driver.model", f"pool.{leaf}"), _only_pools_recycle(leaf)) for leaf in ONLY_OF_POOLS),
    Rule(("driver.model", "driver.sync"), _mapping_syncs),
    Rule(("driver.model", "driver.pool_node"), _only_pools_prefer_a_node),
    Rule(("driver.model", "driver.sync_bytes", "driver.page_cache", "pool.recycle"), _only_pools_limit_syncs),
    Rule(("driver.model", "driver.buffer_bytes"), _only_fragments_have_a_size),
    Rule(
        ("driver.model", "traffic.kind", "traffic.packet_size", "arch", "machine.page_bytes"),
        _replaced_packets_have_one_page,
    ),
    Rule(("warmup_ms", "duration_ms"), _warmup_ends_before_the_trial),
    Rule(("app.reader", "app.stall_ms", "app.stall_every_ms"), _a_stall_ends_before_the_next),
    Rule(("app.reader", "app.protocol"), _ports_are_udp),
    Rule(("app.reader", "app.hold_percent"), _who_keeps_packets_reads_them),
    Rule(
        (
            "app.reader",
            "app.reader_cpu",
            "app.readers",
            "nic.queues",
            "life.event",
            "life.queues",
            "stack.rps",
            "stack.capture_percent",
            "xdp.redirect_percent",
            "xdp.redirect_to",
            "xdp.redirect_cpus",
        ),
        _cpus_are_enough,
    ),
    Rule(
        ("app.reader", "app.protocol", "stack.gro", "nic.hw_gro", "nic.tso", "stack.capture_percent"),
        _what_is_cut_up_is_not_captured,
    ),
    Rule(
        (
            "app.reader",
            "app.protocol",
            "stack.gro",
            "nic.hw_gro",
            "nic.tso",
            "pool.variant",
            "driver.model",
        ),
        _segments_hold_pages_by_reference,
    ),
    Rule(
        ("traffic.kind", "traffic.rate_pps", "traffic.packet_size", "nic.link_gbps"),
        _offered_load_fits_the_link,
    ),
    Rule(
        ("traffic.kind", "traffic.ramp_to_pps", "traffic.packet_size", "nic.link_gbps"),
        _end_of_the_ramp_fits_the_link,
    ),
    *(
        Rule(("traffic.kind", f"traffic.{leaf}"), _flows_come_from_the_capture(leaf))
        for leaf in ("flows", "flow_skew", "flow_packets", "train_packets")
    ),
)
