"""Rules of receive patterns, and of what the pool is asked for."""

from collections.abc import Callable

from pool_impl.release import rules_of
from workers.errors import ConfigError
from workers.fields.derived import (
    BESIDE_DATA_BYTES,
    FRAGMENT_MODELS,
    PAGE_MODELS,
    SLAB_FRAME_BYTES,
    SPLIT_MODELS,
    UNPOOLED_MODELS,
    attaches_program,
    keeps_by_reference,
)
from workers.fields.groups import (
    KERNEL_VARIANT,
    NIC_WORKLOAD,
    DriverConfig,
    PoolConfig,
    TrialFields,
)
from workers.profiles.hardware import page_bytes
from workers.profiles.profile_rules import SMALLEST_PAGE_BYTES
from workers.rules.rule import Rule

ONLY_OF_POOLS = ("recycle", "variant", "slow_batch")


def _loops_have_no_packets_to_mark(config: TrialFields) -> None:
    if config.workload != NIC_WORKLOAD and not config.pool.recycle:
        raise ConfigError(
            "pool.recycle", False, f"workload = {config.workload} has no packets; leave it true, or use nic"
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


def _only_split_pages_have_heads_apart(config: TrialFields) -> None:
    driver = config.driver
    if driver.skb_head == "buffer":
        return
    if driver.model not in SPLIT_MODELS:
        raise ConfigError(
            "driver.skb_head",
            driver.skb_head,
            f"driver.model = {driver.model} has its own way; leave it buffer, or use split or split-unpooled",
        )
    if driver.copybreak_bytes != "usual":
        raise ConfigError(
            "driver.copybreak_bytes",
            driver.copybreak_bytes,
            "driver.skb_head = copied copies packets up to its 256 bytes; leave it usual, or use buffer",
        )


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


RULES = (
    Rule(("workload", "pool.recycle"), _loops_have_no_packets_to_mark),
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
    Rule(("driver.model", "driver.skb_head", "driver.copybreak_bytes"), _only_split_pages_have_heads_apart),
    Rule(("driver.model", "driver.sync"), _mapping_syncs),
    Rule(("driver.model", "driver.pool_node"), _only_pools_prefer_a_node),
    Rule(("driver.model", "driver.sync_bytes", "driver.page_cache", "pool.recycle"), _only_pools_limit_syncs),
    Rule(("driver.model", "driver.buffer_bytes"), _only_fragments_have_a_size),
    Rule(
        ("driver.model", "traffic.kind", "traffic.packet_size", "arch", "machine.page_bytes"),
        _replaced_packets_have_one_page,
    ),
)
