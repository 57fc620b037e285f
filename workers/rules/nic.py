"""Rules of the NIC, of the XDP program on it, and of the traffic that it can carry."""

from collections.abc import Callable

from workers.errors import ConfigError
from workers.fields.derived import (
    most_packets_per_second,
)
from workers.fields.groups import (
    NicConfig,
    TrafficConfig,
    TrialFields,
)
from workers.rules.rule import Rule


def _rx_rings_are_powers_of_two(config: TrialFields) -> None:
    for name, size in (("nic.rx_ring", config.nic.rx_ring), ("life.rx_ring", config.life.rx_ring)):
        if size & (size - 1):
            raise ConfigError(name, size, f"use a power of two, such as {1 << size.bit_length()}")


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


def _offered_load_fits_the_link(config: TrialFields) -> None:
    if config.traffic.kind not in ("saturation", "capture", "window"):
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
    Rule(("nic.tx_ring",), _tx_ring_is_a_power_of_two),
    Rule(
        ("xdp.pass_percent", "xdp.drop_percent", "xdp.tx_percent", "xdp.redirect_percent"), _verdicts_add_up
    ),
    Rule(("xdp.redirect_percent", "xdp.redirect_to"), _redirects_have_a_target),
    Rule(("nic.moderation", "nic.rx_usecs", "nic.rx_frames"), _adaptive_moderation_has_profiles_of_its_own),
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
