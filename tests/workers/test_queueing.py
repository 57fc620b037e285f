"""Mean waits against queueing theory, on a machine where nothing but the service takes time."""

import math
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from workers import run_trial
from workers.config import TrialConfig
from workers.fields.groups import Value

FLAT = Path(__file__).parent / "profiles" / "flat.toml"

SERVICE_NS = 1_000
SEEDS = range(4)
PACKETS = 1_000_000
"""of each seed, about"""


def run(load: float, seed: int, **more: Value) -> dict[str, Any]:
    """A server that takes SERVICE_NS for a packet and is busy for this share of the time."""
    rate = round(load * 1e9 / SERVICE_NS)
    fields: dict[str, Value] = {
        "arch": str(FLAT),
        "seed": seed,
        "duration_ms": 5 + PACKETS * 1000 // rate,
        "warmup_ms": 5,
        "nic.rx_usecs": 0,
        "traffic.kind": "poisson",
        "traffic.rate_pps": rate,
        "app.reader": "slow",
        "app.work_ns": SERVICE_NS,
        "app.socket_bytes": 1 << 26,
    }
    named = {name.replace("__", "."): value for name, value in more.items()}
    return run_trial(TrialConfig.from_fields({**fields, **named}))


def standard_error(load: float) -> float:
    """Relative standard error of the mean wait in an M/M/1 queue over all seeds.

    Asymptotic variance of the mean of n successive waits (Daley 1968; Whitt 1989), the service time being
    1: load (2 + 5 load - 4 load^2 + load^3) / (1 - load)^4 / n. An M/D/1 queue has less.
    """
    variance = load * (2 + 5 * load - 4 * load**2 + load**3) / (1 - load) ** 4
    return math.sqrt(variance / (PACKETS * len(SEEDS))) / (load / (1 - load))


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
@pytest.mark.parametrize(("distribution", "factor"), [("constant", 0.5), ("exponential", 1.0)])
def test_mean_waits_are_those_of_m_d_1_and_m_m_1(distribution: str, factor: float, load: float) -> None:
    """Pollaczek and Khinchine: load / (1 - load) service times for exponential ones, half of it for
    constant ones. The standard error over 4 million packets is 0.23%, 0.27% and 0.39% of the wait at these
    loads, so that 2% is five of them and more; the seeds are fixed."""
    assert 5 * standard_error(load) < 0.02
    records = [run(load, seed, app__work_distribution=distribution) for seed in SEEDS]
    wait_ns = factor * load / (1 - load) * SERVICE_NS
    assert mean(record["latency_mean_ns"] for record in records) == pytest.approx(wait_ns, rel=0.02)
    for record in records:
        assert record["packets_missed"] == record["packets_dropped_socket"] == 0
        assert record["busy_ratio_queue_cpu"] == 0
        assert record["busy_ratio_reader_cpu"] == pytest.approx(load, rel=0.01)


@pytest.mark.parametrize("distribution", ["constant", "exponential"])
def test_the_socket_holds_the_arrival_rate_times_the_mean_wait(distribution: str) -> None:
    """Little's law: exact but for the packets that wait as the measured time begins and ends."""
    record = run(0.7, 1, app__work_distribution=distribution)
    waited = record["latency_mean_ns"] * record["packets_delivered"] / record["measured_seconds"] * 1e-9
    assert record["pages_in_socket"] == pytest.approx(waited, rel=1e-4)


def test_the_receive_ring_is_an_m_d_1_queue_too(tmp_path: Path) -> None:
    """The poll serves packets at a constant time each, the early drop's protocol work; there the latency
    includes the service."""
    profile = tmp_path / "protocol.toml"
    source = 'certainty = "derived"\nsource = "a definition"\n'
    (tmp_path / "flat.toml").write_text(FLAT.read_text())
    profile.write_text(
        'title = "Flat but for the protocol"\ndescription = "one cost"\nparent = "flat.toml"\n'
        f"[protocol_ns]\nvalue = {SERVICE_NS}\n{source}"
    )
    records = [run(0.5, seed, arch=str(profile), app__reader="drop", nic__rx_ring=4096) for seed in SEEDS]
    sojourn_ns = (0.5 * 0.5 / (1 - 0.5) + 1) * SERVICE_NS
    assert mean(record["latency_mean_ns"] for record in records) == pytest.approx(sojourn_ns, rel=0.02)
    assert sum(record["packets_missed"] for record in records) == 0


def test_drawn_work_leaves_the_arrivals_as_they_are() -> None:
    """Each has a stream of its own; and the draws have the mean that is asked for."""
    constant, drawn = (
        run(0.5, 3, app__work_distribution=distribution) for distribution in ("constant", "exponential")
    )
    assert drawn["packets_offered"] == constant["packets_offered"]
    assert drawn["application_ns_per_packet"] == pytest.approx(SERVICE_NS, rel=5 / math.sqrt(PACKETS))
    assert drawn["application_ns_per_packet"] != constant["application_ns_per_packet"] == SERVICE_NS
