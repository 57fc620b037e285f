"""TCP senders that stop at the receiver's window: rates by formulas, where packets wait, and their books."""

from pathlib import Path
from typing import Any

import pytest

from tests.workers.test_combinations import MODELS
from workers import assemble, audit, run_trial, trial
from workers.arrivals import traffic
from workers.config import TrialConfig
from workers.errors import CheckError, ConfigError
from workers.fields.groups import Value
from workers.loop import lifecycle

FLAT = Path(__file__).parent / "profiles" / "flat.toml"

WINDOW: dict[str, Value] = {
    "traffic.kind": "window",
    "traffic.packet_size": 1518,
    "app.protocol": "tcp",
    "app.reader": "fast",
    "app.socket_bytes": 1 << 20,
}
SEGMENT_BYTES = 1518 - 54

AT_ONCE: dict[str, Value] = {**WINDOW, "arch": str(FLAT), "nic.rx_usecs": 0, "nic.link_gbps": 100}
"""on a machine where nothing takes time but the link, the round trip and the application's own work"""


def run(*fields: dict[str, Value], **more: Value) -> dict[str, Any]:
    named = {name.replace("__", "."): value for name, value in more.items()}
    merged = {name: value for group in fields for name, value in group.items()} | named
    return run_trial(TrialConfig.from_fields(merged))


@pytest.mark.parametrize("work_ns", [0, 300, 5_000])
@pytest.mark.parametrize("gbps", [1, 100])
@pytest.mark.parametrize("rtt_us", [20, 400])
@pytest.mark.parametrize("segments", [1, 3])
def test_throughput_is_the_least_of_link_window_and_reader(
    segments: int, rtt_us: int, gbps: int, work_ns: int
) -> None:
    """Of 40 flows: the link's rate, their windows over the round trip, or one packet in each time of work.
    Within 2%: the windows' segments at the edges of the measured time, and reads of several segments, which a
    reader that keeps up has none of and one that does not has of a flow's three at the most."""
    found = run(
        AT_ONCE,
        duration_ms=60,
        warmup_ms=20,
        traffic__flows=40,
        traffic__window_bytes=segments * SEGMENT_BYTES,
        traffic__rtt_us=rtt_us,
        nic__link_gbps=gbps,
        app__reader="slow",
        app__work_ns=work_ns,
    )
    link = gbps * 1e9 / (1538 * 8)
    window = 40 * segments / (rtt_us * 1e-6)
    reader = 1e9 / work_ns if work_ns else float("inf")
    assert found["packets_handled_rate"] == pytest.approx(min(link, window, reader), rel=0.02)
    assert found["packets_missed"] == found["packets_dropped_socket"] == 0


@pytest.mark.parametrize("model", ["fragments", "split"])
def test_a_full_window_waits_in_the_socket_and_nothing_is_dropped(model: str) -> None:
    """Little's law: what is not in the socket or being read is on its round trip. The window is below half
    of the buffer, which has room for twice the payload."""
    slow: dict[str, Value] = {"app.reader": "slow", "app.work_ns": 50_000, "driver.model": model}
    slow |= {"stack.gro": True, "kernel": "6.12", "duration_ms": 220, "warmup_ms": 20}
    found = run(WINDOW, slow)
    assert found["packets_dropped_socket"] == found["packets_missed"] == 0
    allowed = (1 << 20) // 2 // SEGMENT_BYTES
    waits_seconds = found["latency_mean_ns"] * 1e-9 + 100e-6
    assert found["packets_handled_rate"] * waits_seconds == pytest.approx(allowed, rel=0.02)
    assert run(WINDOW, slow, traffic__kind="constant")["packets_dropped_socket"] > 0


def test_slow_start_doubles_the_window_in_each_round_trip() -> None:
    """By hand: ten segments, then twice as many after each of four round trips of 200 us."""
    found = run(AT_ONCE, duration_ms=1, warmup_ms=0, traffic__rtt_us=200)
    assert found["packets_offered"] == 10 * (1 + 2 + 4 + 8 + 16)


def test_what_the_receiver_drops_makes_the_window_smaller() -> None:
    """A window far beyond a ring of 64 that a fast link fills in no time: congestion control finds out what
    fits. It is cut when it is more, to 7/10 of that, and by Little's law it is what is on its way."""
    beyond: dict[str, Value] = {**WINDOW, "nic.link_gbps": 100, "nic.rx_ring": 64}
    found = run(beyond, duration_ms=100, warmup_ms=20, app__socket_bytes=1 << 24)
    assert 0 < found["packets_missed"] < 0.01 * found["packets_offered"]
    waits_seconds = found["latency_mean_ns"] * 1e-9 + 100e-6
    assert 0.7 * 64 <= found["packets_handled_rate"] * waits_seconds <= 64


CONSUMERS: dict[str, dict[str, Value]] = {
    "merged": {"stack.gro": True},
    "steered-and-captured": {"stack.rps": 2, "stack.capture_percent": 30, "app.reader": "slow"},
    "kept": {"app.reader": "hold", "app.hold_percent": 40, "app.hold_ms": 1},
    "stalled": {"stack.gro": True, "app.reader": "stalled", "app.stall_every_ms": 2},
    "to-two-sockets": {"nic.queues": 2, "app.readers": 2, "nic.budget": 4, "app.socket_bytes": 60_000},
    "on-one-cpu": {"app.reader_cpu": "same", "nic.rx_ring": 64},
    "on-another-node": {"numa.nodes": 2, "numa.nic": 1, "numa.readers": 1},
}


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("model", [*MODELS, "merged by the NIC"])
def test_no_segment_is_lost_from_the_windows(model: str, consumer: str) -> None:
    """Each trial checks its books, those of the windows among them; the smaller ones drop a lot."""
    drivers = {**MODELS, "merged by the NIC": {"driver.model": "header-split", "nic.hw_gro": True}}
    flows: dict[str, Value] = {"traffic.flows": 5, "traffic.train_packets": 7, "traffic.rto_ms": 1}
    for kernel, size in (("6.1", 200), ("6.12", 1518), ("6.12", 9018)):
        sizes: dict[str, Value] = {"traffic.packet_size": size, "kernel": kernel, "nic.link_gbps": 40}
        found = run(WINDOW, flows, drivers[model], CONSUMERS[consumer], sizes, duration_ms=4, warmup_ms=1)
        assert found["packets_delivered"], (kernel, size)


def test_the_books_of_the_windows_are_checked() -> None:
    """A segment too many in a sender's account is found."""
    started = assemble.new_trial(TrialConfig.from_fields(WINDOW))
    trial._run(started, traffic.PS_PER_MS)
    audit.check(started)
    started.windows.senders[0].missing += 1
    with pytest.raises(CheckError, match="outstanding"):
        audit.check(started)


@pytest.mark.parametrize(
    "merges", [{}, {"stack.gro": True}, {"nic.hw_gro": True, "driver.model": "header-split"}]
)
def test_senders_go_on_a_timeout_after_the_device_is_up_again(merges: dict[str, Value]) -> None:
    """All that was sent is lost as it goes down; the first segments after that arrive with the timeout."""
    fields: dict[str, Value] = {**WINDOW, **merges, "traffic.flows": 3, "traffic.rto_ms": 4}
    fields |= {
        "life.event": "resize",
        "life.at_ms": 3,
        "life.down_ms": 2,
        "life.queues": 2,
        "duration_ms": 20,
    }
    started = assemble.new_trial(TrialConfig.from_fields(fields))
    at = traffic.PS_PER_MS
    trial._run(started, 3 * at)
    trial._apply("")(started, lifecycle.GO_DOWN, 3 * at)
    trial._run(started, 5 * at)
    trial._apply("")(started, lifecycle.COME_UP, 5 * at)
    before = int(started.tally.delivered)
    trial._run(started, 7 * at)
    assert started.tally.delivered == before
    trial._run(started, 12 * at)
    audit.check(started)
    assert started.tally.delivered > before + 500


@pytest.mark.parametrize(
    ("fields", "name", "remedy"),
    [
        ({"app.protocol": "udp"}, "app.protocol", "use tcp"),
        ({"app.reader": "forward"}, "app.reader", "use fast"),
        ({"app.reader": "drop"}, "app.reader", "use fast"),
        ({"xdp.pass_percent": 50, "xdp.drop_percent": 50}, "xdp.pass_percent", "use 100"),
        ({"traffic.packet_size": "imix"}, "traffic.packet_size", "use 1518"),
        ({"traffic.flow_packets": 9}, "traffic.flow_packets", "leave it 0"),
        ({"traffic.flow_skew": 1.0}, "traffic.flow_skew", "leave it 0.0"),
        ({"traffic.window_bytes": 1463}, "traffic.window_bytes", "1464 bytes"),
        ({"traffic.window_bytes": 1 << 30, "traffic.flows": 2}, "traffic.window_bytes", "traffic.flows"),
        ({"app.socket_bytes": 1 << 30, "traffic.packet_size": 64}, "app.socket_bytes", "app.readers"),
    ],
)
def test_what_has_no_window_is_refused(fields: dict[str, Value], name: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrialConfig.from_fields({**WINDOW, **fields})
    assert error.value.field == name
    assert remedy in str(error.value)


def test_other_traffic_does_not_look_at_windows() -> None:
    TrialConfig.from_fields({"traffic.window_bytes": 1})
