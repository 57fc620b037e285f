"""Fields and rules of a trial."""

import pytest

from workers import config
from workers.config import TrialConfig
from workers.errors import ConfigError


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
        ({"traffic.packet_size": "big"}, r"packet_size = 'big': use integer 64\.\.1518 or imix"),
        ({"traffic.packet_size": 63}, r"packet_size = 63"),
        ({"kernel": "2.4"}, r"kernel = .2\.4.: use 5\.14 \| 6\.1"),
        ({"nic.rx_ring": 100}, r"nic\.rx_ring = 100: use a power of two"),
        ({"warmup_ms": 20}, r"warmup_ms = 20: must be below duration_ms = 20"),
        ({"traffic.rate_pps": 14_880_953}, r"rate_pps = 14880953: a 10 Gbit/s link carries at most 14880952"),
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


@pytest.mark.parametrize(
    ("fields", "matters"),
    [
        ({"traffic.kind": "constant"}, False),
        ({"traffic.kind": "constant", "traffic.packet_size": "imix"}, True),
        ({"traffic.kind": "saturation"}, False),
        ({"traffic.kind": "poisson"}, True),
        ({"traffic.kind": "bursts"}, True),
        ({"traffic.kind": "capture", "traffic.packet_size": "imix"}, False),
        ({"traffic.kind": "capture", **SLOW, **DRAWN}, True),
        ({"traffic.kind": "constant", **SLOW, **DRAWN}, True),
        ({"traffic.kind": "constant", **DRAWN}, False),
        ({"traffic.kind": "constant", **DRAWN, "app.reader": "fast"}, False),
        ({"traffic.kind": "constant", **SLOW}, False),
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
    assert config.seed_matters(first) is matters
    assert (run_trial(first) != run_trial(second)) is matters
