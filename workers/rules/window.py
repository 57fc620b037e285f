"""Rules of TCP senders that stop at the receiver's window."""

from collections.abc import Callable

from workers.errors import ConfigError
from workers.fields.derived import keeps_to_windows, reads_sockets, segment_bytes
from workers.fields.groups import TrafficConfig, TrialFields
from workers.rules.rule import Rule

MOST_SEGMENTS = 1 << 20
"""in all windows together, which bounds the memory that is kept for them: 1.5 GB of full segments"""


def _somebody_reads_tcp(config: TrialFields) -> None:
    if not keeps_to_windows(config):
        return
    if config.app.protocol != "tcp":
        raise ConfigError(
            "app.protocol", config.app.protocol, "traffic.kind = window has TCP senders; use tcp"
        )
    if not reads_sockets(config):
        raise ConfigError(
            "app.reader",
            config.app.reader,
            "traffic.kind = window goes on as the application reads; use fast, slow, stalled or hold",
        )


def _all_packets_come_to_the_stack(config: TrialFields) -> None:
    if keeps_to_windows(config) and config.xdp.pass_percent != 100:
        raise ConfigError(
            "xdp.pass_percent",
            config.xdp.pass_percent,
            "traffic.kind = window would send again for ever what a program takes away; use 100",
        )


def _segments_have_one_size(config: TrialFields) -> None:
    if keeps_to_windows(config) and config.traffic.packet_size == "imix":
        raise ConfigError(
            "traffic.packet_size", "imix", "traffic.kind = window has segments of one size; use 1518"
        )


def _senders_are_alike(leaf: str) -> Callable[[TrialFields], None]:
    """The check that this field is left alone: all flows have as much to send, and go on for ever."""
    default = TrafficConfig.model_fields[leaf].default

    def check(config: TrialFields) -> None:
        value = getattr(config.traffic, leaf)
        if keeps_to_windows(config) and value != default:
            raise ConfigError(
                f"traffic.{leaf}",
                value,
                f"traffic.kind = window has flows that send all they may; leave it {default}",
            )

    return check


def _windows_hold_segments(config: TrialFields) -> None:
    traffic = config.traffic
    if not keeps_to_windows(config) or traffic.packet_size == "imix":
        return
    size, most_bytes = segment_bytes(config), traffic.window_bytes
    if 0 < most_bytes < size:
        raise ConfigError(
            "traffic.window_bytes",
            most_bytes,
            f"a segment of traffic.packet_size = {traffic.packet_size} has {size} bytes; use more, or 0",
        )
    name, value, remedy = "traffic.window_bytes", most_bytes, "lower it, or traffic.flows"
    segments = most_bytes // size * traffic.flows
    if most_bytes == 0:
        name, value, remedy = "app.socket_bytes", config.app.socket_bytes, "lower it, or app.readers"
        segments = max(value // 2 // size, traffic.flows) * config.app.readers
    if segments > MOST_SEGMENTS:
        raise ConfigError(
            name,
            value,
            f"all windows together would be {segments} segments, more than {MOST_SEGMENTS}; {remedy}",
        )


RULES = (
    Rule(("traffic.kind", "app.protocol", "app.reader"), _somebody_reads_tcp),
    Rule(("traffic.kind", "xdp.pass_percent"), _all_packets_come_to_the_stack),
    Rule(("traffic.kind", "traffic.packet_size"), _segments_have_one_size),
    *(
        Rule(("traffic.kind", f"traffic.{leaf}"), _senders_are_alike(leaf))
        for leaf in ("flow_skew", "flow_packets")
    ),
    Rule(
        (
            "traffic.kind",
            "traffic.packet_size",
            "traffic.window_bytes",
            "traffic.flows",
            "app.socket_bytes",
            "app.readers",
        ),
        _windows_hold_segments,
    ),
)
