"""Rules of who reads packets, on which CPUs, and of packets that are kept or cut up."""

from pool_impl.layout import MAX_CPUS
from workers.errors import ConfigError
from workers.fields.derived import (
    FRAGMENT_MODELS,
    SPLIT_MODELS,
    cpus_wanted,
    cuts_up,
    reads_sockets,
)
from workers.fields.groups import (
    TrialFields,
)
from workers.rules.rule import Rule


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


RULES = (
    Rule(
        ("nic.napi", "nic.queues", "nic.moderation", "app.reader", "app.reader_cpu", "app.readers"),
        _busy_polling_has_a_reader_for_each_queue,
    ),
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
)
