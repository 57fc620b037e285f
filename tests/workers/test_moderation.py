"""Interrupts: how many there are, and who polls, from the rules of the hardware and of net_dim."""

from pathlib import Path
from typing import Any

import pytest

from workers import run_trial
from workers.config import TrialConfig
from workers.errors import ConfigError
from workers.fields.groups import Value
from workers.profiles import arch

FLAT = Path(__file__).parent / "profiles" / "flat.toml"


def run(**more: Value) -> dict[str, Any]:
    """Constant traffic of 100 packets a millisecond, on a machine where nothing takes time."""
    fields: dict[str, Value] = {
        "arch": str(FLAT),
        "duration_ms": 30,
        "warmup_ms": 10,
        "traffic.kind": "constant",
        "traffic.rate_pps": 100_000,
        "nic.rx_usecs": 0,
    }
    return run_trial(TrialConfig.from_fields(fields | {n.replace("__", "."): v for n, v in more.items()}))


def test_without_moderation_each_packet_interrupts() -> None:
    assert run()["interrupts"] == run()["packets_offered"] == 2000


def test_an_interrupt_takes_all_packets_of_its_wait() -> None:
    """75 us from the first packet, one each 10 us: it and the seven behind it."""
    found = run(nic__rx_usecs=75)
    assert found["interrupts"] == pytest.approx(2000 / 8, abs=1)
    assert found["latency_max_ns"] == pytest.approx(75_000, rel=1 / 32)


def test_enough_frames_interrupt_before_the_wait_is_over() -> None:
    found = run(nic__rx_usecs=200, nic__rx_frames=5)
    assert found["interrupts"] == 2000 / 5
    assert found["latency_max_ns"] == pytest.approx(40_000, rel=1 / 32)


def test_adaptive_moderation_waits_longest_where_that_saves_interrupts() -> None:
    """Each longer profile saves more than a tenth of the interrupts at an equal rate, so that the search goes
    right to the edge and parks: 256 us take a packet and the 25 behind it."""
    found = run(nic__moderation="adaptive", nic__rx_usecs=8, duration_ms=400, warmup_ms=200)
    assert found["interrupts"] == pytest.approx(200_000 / 260, abs=1)


def test_adaptive_moderation_does_not_stay_where_nothing_is_saved() -> None:
    """One packet a millisecond interrupts alone in every profile: the search turns back at its first step and
    tires, in the middle and not at the edge."""
    found = run(
        nic__moderation="adaptive", nic__rx_usecs=8, traffic__rate_pps=1000, duration_ms=9000, warmup_ms=1000
    )
    assert found["interrupts"] == found["packets_offered"] == 8000
    assert found["latency_p50_ns"] < 128_000


def test_a_threaded_poll_costs_a_context_switch_for_each_interrupt() -> None:
    priced = {"arch": "broadwell-ep", "nic.rx_usecs": 20}
    softirq, threaded = (run(**priced, **{"nic.napi": napi}) for napi in ("softirq", "threaded"))
    more_ns = (threaded["busy_ns_per_packet"] - softirq["busy_ns_per_packet"]) * 2000
    switches = more_ns / arch.load("broadwell-ep")["context_switch_ns"]
    assert switches == pytest.approx(threaded["interrupts"], rel=0.01)


def test_busy_polling_has_no_interrupts_and_no_idle_time() -> None:
    reader: dict[str, Value] = {"arch": "broadwell-ep", "app.reader": "fast", "app.reader_cpu": "same"}
    interrupted, polled = (run(**reader, **{"nic.napi": napi}) for napi in ("softirq", "busy-poll"))
    assert polled["packets_delivered"] == interrupted["packets_delivered"]
    assert polled["interrupts"] == 0
    assert polled["busy_ratio_queue_cpu"] == pytest.approx(1, abs=0.001)
    assert polled["latency_p50_ns"] < interrupted["latency_p50_ns"]
    saved = arch.load("broadwell-ep")["interrupt_ns"]
    assert interrupted["latency_p50_ns"] - polled["latency_p50_ns"] > saved


SAME: dict[str, Value] = {"app.reader": "fast", "app.reader_cpu": "same"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"nic.moderation": "adaptive", "nic.rx_usecs": 9}, "nic.rx_usecs"),
        ({"nic.moderation": "adaptive", "nic.rx_frames": 9}, "nic.rx_frames"),
        ({"nic.napi": "busy-poll"}, "nic.napi"),
        ({"nic.napi": "busy-poll", **SAME, "app.reader_cpu": "other"}, "nic.napi"),
        (
            {"nic.napi": "busy-poll", **SAME, "nic.queues": 2},
            "nic.napi",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(fields: dict[str, Value], field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        TrialConfig.from_fields(fields)
    assert refused.value.field == field
