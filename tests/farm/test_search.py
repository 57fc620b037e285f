"""Bisection, and the highest rate that a cell carries."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm import sweep
from farm.answers import search
from farm.errors import SweepError
from workers import run_trial
from workers.config import TrialConfig

READER = """
name = "reader"
[fixed]
duration_ms = 40
traffic.kind = "constant"
app.reader = "slow"
app.socket_bytes = 65_536
[grid]
app.work_ns = [2_000, 8_000]
"""


@given(
    limit=st.integers(-1, 12_000),
    low=st.integers(1, 5_000),
    length=st.integers(0, 5_000),
    tolerance=st.sampled_from([0.0, 0.005, 0.1]),
)
def test_bisection_finds_what_looking_at_every_value_finds(
    limit: int, low: int, length: int, tolerance: float
) -> None:
    found = search.largest(lambda value: value <= limit, low, low + length, tolerance)
    passing = [value for value in range(low, low + length + 1) if value <= limit]
    if not passing:
        assert found is None
    else:
        assert found is not None
        assert passing[-1] - max(1, int(found * tolerance)) < found <= passing[-1]


def found(**changes: str) -> list[search.NoDropRate]:
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in changes.items()]
    return list(search.no_drop_rates(sweep.parse(READER, "test", overrides), 0.0))


def test_the_highest_rate_is_what_the_reader_can_serve() -> None:
    """At constant gaps nothing is dropped as long as the reader needs less than a gap for each packet: its
    busy time per packet is one over the highest rate."""
    for one in found():
        assert one.rate_pps is not None
        fields = {**one.fields, "traffic.rate_pps": one.rate_pps}
        record = run_trial(TrialConfig.from_fields(fields))
        assert record["drop_ratio"] == 0
        assert record["busy_ratio_reader_cpu"] == pytest.approx(1, abs=0.03)
        more = run_trial(TrialConfig.from_fields({**fields, "traffic.rate_pps": one.rate_pps * 103 // 100}))
        assert more["drop_ratio"] or more["busy_ratio_reader_cpu"] == 1


def test_a_reader_with_less_work_carries_more() -> None:
    light, heavy = found()
    assert light.rate_pps > 2 * heavy.rate_pps  # type: ignore[operator]


def test_the_link_ends_the_search() -> None:
    for one in found(nic__link_gbps="1", traffic__packet_size="1500"):
        assert one.link_pps == 10**9 // (1520 * 8)
        assert one.rate_pps is not None
        assert one.rate_pps <= one.link_pps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"traffic__rate_pps": "1000,2000"}, r"traffic\.rate_pps: the search looks for it"),
        ({"traffic__kind": "saturation"}, r"traffic\.kind = saturation: has no rate to search for"),
    ],
)
def test_a_sweep_without_a_rate_to_find_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(SweepError, match=message):
        found(**change)


def test_the_command_prints_a_rate_for_each_cell(
    farm: Callable[..., tuple[int, str, str]], small_file: str
) -> None:
    arguments = ["search", small_file, "traffic.kind=constant", "--drop-ratio", "0.01"]
    code, out, err = farm(*arguments, "--json")
    assert (code, err) == (0, "")
    rates = [row["rate_pps"] for row in json.loads(out)]
    assert all(rate is None or rate >= search.LOWEST_PPS for rate in rates)
    assert len(farm(*arguments)[1].splitlines()) > len(rates)
