"""Fields and rules of a trial."""

import pytest

from workers import config, rules
from workers.config import TrialConfig
from workers.errors import ConfigError
from workers.fields import derived, groups
from workers.rules.rule import Rule

CAPTURE = {"traffic.kind": "capture"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pool.sise": 64}, r"pool\.sise.*did you mean pool\.size"),
        ({"pool": 64}, "unknown field"),
        ({"pool.size": -1}, r"pool\.size = -1: use integer 0\.\.1048576"),
        ({"pool.size": 1 << 40}, r"pool\.size = \d+: use"),
        ({"pool.size": "64"}, r"pool\.size = '64': use integer"),
        ({"pool.size": True}, r"pool\.size = True: use integer"),
        ({"pool.recycle": 1}, r"pool\.recycle = 1: use true \| false"),
        ({"traffic.packet_size": "big"}, r"packet_size = 'big': use integer 64\.\.9018 or imix"),
        ({"traffic.packet_size": 63}, r"packet_size = 63"),
        ({"kernel": "2.4"}, r"kernel = .2\.4.: use 5\.14 \| 6\.1"),
        ({"nic.rx_ring": 100}, r"nic\.rx_ring = 100: use a power of two"),
        ({"warmup_ms": 20}, r"warmup_ms = 20: must be below duration_ms = 20"),
        ({"traffic.rate_pps": 14_880_953}, r"rate_pps = 14880953: a 10 Gbit/s link carries at most 14880952"),
        (
            {"traffic.kind": "ramp", "traffic.ramp_to_pps": 14_880_953},
            r"ramp_to_pps = 14880953: a 10 Gbit/s link carries at most 14880952",
        ),
        (
            {"traffic.kind": "ramp", "traffic.rate_pps": 14_880_953},
            r"rate_pps = 14880953: a 10 Gbit/s link carries at most 14880952",
        ),
        ({"traffic.flows": 0}, r"traffic\.flows = 0: use integer 1\.\.65536"),
        ({"traffic.flow_skew": -0.5}, r"traffic\.flow_skew = -0\.5: use number 0\.\.4"),
        ({"traffic.loops": 0}, r"traffic\.loops = 0: use integer 1\.\.1000000"),
        ({**CAPTURE, "traffic.flows": 2}, r"flows = 2: a capture has flows of its own; leave it 1, or use"),
        (
            {**CAPTURE, "traffic.flow_skew": 0.5},
            r"flow_skew = 0\.5: a capture has flows of its own; leave it 0",
        ),
        ({**CAPTURE, "traffic.flow_packets": 9}, r"flow_packets = 9: a capture has flows of its own"),
        ({**CAPTURE, "traffic.train_packets": 3}, r"train_packets = 3: a capture has flows of its own"),
    ],
)
def test_a_wrong_value_is_refused_with_field_value_and_remedy(
    fields: dict[str, config.Value], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        TrialConfig.from_fields(fields)
    assert "\n" not in str(caught.value)


def test_a_ten_gigabit_link_carries_what_arithmetic_says() -> None:
    """64-byte frames with 20 bytes of preamble and gap: 10^10 / (84 * 8) packets/s."""
    TrialConfig.from_fields({"traffic.rate_pps": 14_880_952})


def test_the_end_of_a_ramp_matters_only_to_ramps() -> None:
    TrialConfig.from_fields({"traffic.ramp_to_pps": 20_000_000})
    TrialConfig.from_fields({"traffic.kind": "ramp", "traffic.ramp_to_pps": 14_880_952})


def test_every_rule_reads_only_the_fields_it_names() -> None:
    """A planner checks a rule over the product of its fields alone: so no other may change its answer."""
    plain = TrialConfig.from_fields({}).to_fields()
    broken = {
        "traffic.kind": "capture",
        "traffic.rate_pps": 10**9,
        "traffic.ramp_to_pps": 10**9,
        "traffic.flows": 9,
        "traffic.flow_skew": 1.0,
        "traffic.flow_packets": 9,
        "traffic.train_packets": 9,
        "traffic.packet_size": 9018,
        "driver.model": "fragments",
        "driver.buffer_bytes": 1024,
        "pool.recycle": False,
        "pool.variant": "local_only",
        "pool.slow_batch": 1,
        "driver.page_cache": 3,
        "xdp.tx_percent": 100,
        "life.event": "down",
        "driver.sync": "driver",
        "driver.copybreak_bytes": 64,
        "kernel": "5.14",
        "nic.link_gbps": 1,
        "nic.rx_ring": 65,
        "warmup_ms": 20,
    }

    def verdict(rule: Rule, fields: dict[str, groups.Value]) -> str:
        try:
            rule.check(TrialConfig.unchecked(fields))
        except ConfigError as error:
            return str(error)
        return ""

    for rule in rules.RULES:
        for kind in ("capture", "poisson", "ramp", "window"):
            of_rule = {name: value for name, value in broken.items() if name in rule.fields}
            if "traffic.kind" in of_rule:
                of_rule["traffic.kind"] = kind
            alone = verdict(rule, {**plain, **of_rule})
            assert verdict(rule, {**plain, **broken, **of_rule}) == alone


def test_fields_survive_a_round_trip() -> None:
    given = {"arch": "x", "pool.size": 64, "traffic.packet_size": "imix", "traffic.speed": 2.5}
    fields = TrialConfig.from_fields(given).to_fields()
    assert {name: fields[name] for name in given} == given
    assert TrialConfig.from_fields(fields) == TrialConfig.from_fields(given)


def test_every_field_has_a_default_a_kind_and_a_description() -> None:
    for field in config.fields():
        assert field.description, field.name
        assert field.kind, field.name
        assert field.adapter.validate_python(field.default) == field.default


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("pool.size", "64", 64),
        ("pool.size", "1_024", 1024),
        ("pool.recycle", "false", False),
        ("traffic.speed", "3", 3.0),
        ("traffic.packet_size", "imix", "imix"),
        ("traffic.packet_size", "64", 64),
        ("kernel", "6.1", "6.1"),
    ],
)
def test_typed_text_becomes_the_fields_type(name: str, text: str, value: config.Value) -> None:
    parsed = config.field(name).parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


SLOW = {"app.reader": "slow"}
DRAWN = {"app.work_distribution": "exponential"}
STREAM = {"traffic.kind": "window", "app.protocol": "tcp", "app.reader": "fast", "nic.queues": 4}


@pytest.mark.parametrize(
    ("fields", "matters"),
    [
        ({"traffic.kind": "constant"}, False),
        ({"traffic.kind": "constant", "traffic.packet_size": "imix"}, True),
        ({"traffic.kind": "saturation"}, False),
        (STREAM, False),
        ({**STREAM, "traffic.flows": 16}, True),
        ({"traffic.kind": "poisson"}, True),
        ({"traffic.kind": "bursts"}, True),
        ({"traffic.kind": "ramp"}, True),
        ({"traffic.kind": "ramp", "traffic.ramp_to_pps": 1, "traffic.rate_pps": 400_000}, True),
        ({"traffic.kind": "capture", "traffic.packet_size": "imix"}, False),
        ({"traffic.kind": "capture", **SLOW, **DRAWN}, True),
        ({"traffic.kind": "constant", **SLOW, **DRAWN}, True),
        ({"traffic.kind": "constant", **DRAWN}, False),
        ({"traffic.kind": "constant", **DRAWN, "app.reader": "fast"}, False),
        ({"traffic.kind": "constant", **SLOW}, False),
        ({"traffic.kind": "constant", **SLOW, "app.hold_percent": 50, "app.hold_ms": 1}, True),
        ({"traffic.kind": "constant", **SLOW, "app.hold_percent": 100, "app.hold_ms": 1}, False),
    ],
)
def test_a_seed_matters_only_where_something_is_drawn(fields: dict[str, config.Value], matters: bool) -> None:
    from workers import run_trial

    base = {
        "arch": "armada-3720",
        "duration_ms": 4,
        "traffic.capture_destination": "10.77.0.2",
        "traffic.speed": 40.0,
        **fields,
    }
    first = TrialConfig.from_fields({**base, "seed": 1})
    second = TrialConfig.from_fields({**base, "seed": 2})
    assert derived.seed_matters(first) is matters
    assert (run_trial(first) != run_trial(second)) is matters
