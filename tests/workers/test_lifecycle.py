"""A device that goes down or changes while packets flow, and memory that runs out."""

from pathlib import Path
from typing import Any

import pytest

from workers import assemble, audit, run_trial, trial
from workers.arrivals import traffic
from workers.config import TrialConfig
from workers.errors import ConfigError
from workers.fields.groups import Value
from workers.loop import lifecycle

TRUESIZE_BYTES = 4096 + 256
"""of a packet: its page and its sk_buff"""

FLAT = Path(__file__).parent / "profiles" / "flat.toml"

RELEASES = ("5.14", "6.1", "6.12")
HELD = 40
SLOW: dict[str, Value] = {
    "app.reader": "slow",
    "app.work_ns": 1_000_000,
    "app.socket_bytes": HELD * TRUESIZE_BYTES,
}
"""a reader that takes a millisecond for a packet, with room for so many"""


def run(*scenarios: dict[str, Value], **more: Value) -> dict[str, Any]:
    """Constant traffic of 100 packets a millisecond for 30 ms, on a machine where nothing takes time."""
    fields: dict[str, Value] = {
        "arch": str(FLAT),
        "duration_ms": 30,
        "warmup_ms": 2,
        "traffic.kind": "constant",
        "traffic.rate_pps": 100_000,
        "nic.rx_usecs": 0,
    }
    for scenario in scenarios:
        fields |= scenario
    return run_trial(TrialConfig.from_fields(fields | {n.replace("__", "."): v for n, v in more.items()}))


DOWN: dict[str, Value] = {"life.event": "down", "life.at_ms": 10}


@pytest.mark.parametrize("kernel", RELEASES)
def test_a_device_goes_down_at_once_when_nobody_holds_its_pages(kernel: str) -> None:
    found = run(DOWN, kernel=kernel)
    assert found["pages_left_behind"] == found["pages_not_returned"] == found["pages_inflight"] == 0
    assert found["drain_seconds"] == 0
    assert found["packets_dropped_early"] == 800
    assert found["packets_missed"] == 2000
    assert found["dma_unmaps"] == 512, "one for each descriptor: bulks of 64 leave no rest"


@pytest.mark.parametrize("kernel", RELEASES)
def test_pages_in_a_socket_keep_a_pool_alive(kernel: str) -> None:
    """20 ms after the device went down, 20 of the packets that the socket held are read."""
    found = run(DOWN, SLOW, kernel=kernel)
    assert found["pages_left_behind"] == HELD
    assert found["pages_not_returned"] == pytest.approx(HELD - 20, abs=1)
    assert found["drain_seconds"] is None
    assert found["drain_forecast_seconds"] == pytest.approx(0.040, rel=0.06)


def test_a_pool_looks_for_its_pages_once_a_second() -> None:
    found = run(DOWN, SLOW, duration_ms=1020, traffic__rate_pps=10_000)
    assert found["pages_left_behind"] == HELD
    assert found["drain_seconds"] == 1
    assert found["drain_forecast_seconds"] is None
    assert found["pages_inflight"] == 0


def test_a_reader_that_stands_still_gives_no_forecast() -> None:
    found = run(DOWN, SLOW, app__work_ns=1_000_000_000)
    assert found["pages_not_returned"] == found["pages_left_behind"] == HELD
    assert found["drain_forecast_seconds"] is None


def test_a_larger_ring_takes_a_larger_burst_from_then_on() -> None:
    """Interrupts come at 5.01, 10.02, ... 25.05 ms, 500 packets meanwhile, of which 64 find a descriptor; the
    first 64 came in the warm-up. The change at 10 ms loses those that wait; polls at 15.01, 20.02 and 25.03
    find 256."""
    wait: dict[str, Value] = {"nic.rx_usecs": 5000, "nic.rx_ring": 64}
    assert run(wait)["packets_dropped_early"] == 4 * 64
    grown = run(wait, life__event="resize", life__at_ms=10, life__down_ms=0, life__rx_ring=256)
    assert grown["packets_dropped_early"] == 3 * 256
    assert grown["pages_inflight"] == 256


MODELS: dict[str, dict[str, Value]] = {
    **{
        model: {"driver.model": model}
        for model in (
            "page-per-packet",
            "replace-before-pass",
            "fragments",
            "header-split",
            "split",
            "page-allocator",
            "slab",
            "split-unpooled",
        )
    },
    "split in four": {"driver.model": "split", "driver.buffer_bytes": 1024, "driver.copybreak_bytes": 64},
    "split by reference": {"driver.model": "split", "pool.recycle": False},
    "split and cached": {"driver.model": "split", "pool.recycle": False, "driver.page_cache": 16},
    "unpooled and cached": {"driver.model": "page-allocator", "driver.page_cache": 64},
}


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
@pytest.mark.parametrize("model", MODELS)
def test_every_pattern_gives_all_of_its_buffers_back(model: str, kernel: str) -> None:
    """The socket is empty long before a second has passed; what is in use then are blocks that are cut up.
    Pages to which skbs have plain references leave their pool as the driver gives them up."""
    slow: dict[str, Value] = {**DOWN, **SLOW, "app.work_ns": 100_000, **MODELS[model], "kernel": kernel}
    found = run(slow, duration_ms=1020, traffic__packet_size="imix", traffic__rate_pps=50_000)
    unpooled = "unpooled" in model or model in ("page-allocator", "slab") or "pool.recycle" in MODELS[model]
    assert (found["pages_left_behind"] == 0) is unpooled
    assert found["pages_inflight"] == found["pages_not_returned"] == 0
    assert found["drain_seconds"] == (0 if unpooled else 1)


@pytest.mark.parametrize("recycle", [True, False])
def test_a_page_that_is_split_in_part_is_given_up_once(recycle: bool) -> None:
    """By hand, where nothing takes time: four buffers to a page, a packet every millisecond. Of ten packets
    the reader has read the first and is at work, nine wait. The first two pages are used up, and have three
    and four of the nine; the third has two, and two that are in descriptors still."""
    split: dict[str, Value] = {"driver.model": "split", "driver.buffer_bytes": 1024, "pool.recycle": recycle}
    split |= {"arch": str(FLAT), "traffic.kind": "constant", "traffic.rate_pps": 1_000, "nic.rx_usecs": 0}
    split |= {"app.reader": "slow", "app.work_ns": 10**9, "nic.rx_ring": 64}
    started = assemble.new_trial(TrialConfig.from_fields({**split, **DOWN}))
    at_ps = 10 * traffic.PS_PER_MS + 1
    trial._run(started, at_ps)
    assert started.queues[0].read == 10
    assert len({*started.descriptors.page.tolist(), int(started.queues[0].split_page)} - {0}) == 17
    trial._apply("")(started, lifecycle.GO_DOWN, at_ps)
    audit.check(started)
    assert started.host.page_allocator.used_pages.sum() == 3
    assert started.life.pages_left == (3 if recycle else 0)
    pages = started.host.pages[1:]
    holders = pages.frag_count if recycle else pages.refcount
    assert sorted(holders[(pages.refcount > 0) & (holders > 0)].tolist()) == [2, 3, 4]


@pytest.mark.parametrize("merges", [{}, {"stack.gro": True}, {"stack.gro": True, "stack.rps": 2}])
@pytest.mark.parametrize("model", MODELS)
def test_every_pattern_comes_up_again(model: str, merges: dict[str, Value]) -> None:
    """With more queues and with fewer; a trial that loses a page or a packet has no record."""
    busy: dict[str, Value] = {"arch": "broadwell-ep", "duration_ms": 12, "traffic.packet_size": "imix"}
    busy |= {"traffic.kind": "poisson", "traffic.rate_pps": 1_500_000, "traffic.flows": 64, "nic.budget": 16}
    busy |= {"app.reader": "slow", "app.work_ns": 500, "app.protocol": "tcp", **MODELS[model], **merges}
    for before, after in ((1, 2), (2, 1)):
        found = run(busy, nic__queues=before, life__event="resize", life__at_ms=6, life__queues=after)
        assert found["packets_delivered"] > 0
        assert found["drain_seconds"] is None or found["pages_left_behind"] == 0


def test_what_the_nic_merges_is_lost_and_its_buffers_come_back() -> None:
    merged: dict[str, Value] = {"driver.model": "header-split", "nic.hw_gro": True, "app.protocol": "tcp"}
    merged |= {
        "nic.hw_gro_usecs": 2000,
        "traffic.flows": 4,
        "traffic.packet_size": 1518,
        "app.reader": "fast",
        "app.reader_cpu": "same",
    }
    found = run(merged, DOWN, duration_ms=1020, traffic__rate_pps=50_000)
    # none waits for longer than two milliseconds, in which a hundred arrive
    lost = found["packets_missed"] - 1010 * 50
    assert 20 < lost <= 100
    assert found["packets_delivered"] + found["packets_missed"] == found["packets_offered"]
    assert found["pages_inflight"] == 0
    assert (
        run(merged, life__event="resize", life__at_ms=10, traffic__rate_pps=50_000)["packets_delivered"] > 0
    )


def test_what_gro_holds_goes_up_unless_a_backlog_would_take_it_from_a_device_that_is_down() -> None:
    """In overload a poll follows the other, so that GRO holds something whenever the device goes down."""
    busy: dict[str, Value] = {"arch": "broadwell-ep", "traffic.kind": "saturation", "nic.budget": 8}
    busy |= {"traffic.packet_size": 1518, "traffic.flows": 8, "app.reader": "fast", "app.protocol": "tcp"}
    busy |= {"stack.gro": True, "app.socket_bytes": 1 << 22, "nic.link_gbps": 50}
    changed: dict[str, Value] = {"life.event": "resize", "life.at_ms": 10, "life.down_ms": 19}
    dropped = {
        name: run(busy, event, stack__rps=rps)["packets_dropped_backlog"]
        for name, event, rps in (
            ("down", DOWN, 0),
            ("down, steered", DOWN, 1),
            ("changed, steered", changed, 1),
        )
    }
    assert dropped["down"] == dropped["changed, steered"] == 0
    assert 0 < dropped["down, steered"] <= 64


def test_packets_are_missed_as_long_as_the_device_is_down() -> None:
    found = run(life__event="resize", life__at_ms=10, life__down_ms=7)
    assert found["packets_missed"] == 700


def test_four_queues_do_nearly_four_times_the_work_of_one() -> None:
    """At saturation; the link waits for the queue that gets most of the flows."""
    fast: dict[str, Value] = {"arch": "broadwell-ep", "traffic.kind": "saturation", "traffic.flows": 4096}
    fast |= {"nic.link_gbps": 100, "duration_ms": 6, "warmup_ms": 1}
    one, four = (run(fast, nic__queues=queues)["packets_handled_rate"] for queues in (1, 4))
    assert 3 * one < four <= 4 * one
    changed = run(fast, life__event="resize", life__at_ms=3, life__down_ms=0, life__queues=4)
    assert changed["packets_handled_rate"] == pytest.approx((2 * one + 3 * four) / 5, rel=0.1)


@pytest.mark.parametrize("kernel", RELEASES)
def test_emergency_pages_are_not_recycled(kernel: str) -> None:
    """Returns come in bursts and the pool's ring has room for 16: most pages leave, and new ones come. Those
    of the reserves go when their packet does."""
    bursts: dict[str, Value] = {"traffic.kind": "bursts", "traffic.burst_packets": 400, "nic.rx_ring": 64}
    bursts |= {"pool.size": 16, "app.reader": "fast", "arch": "broadwell-ep", "kernel": kernel}
    plenty = run(bursts)
    reserves = run(bursts, memory__reserves_at_ms=5, memory__reserves_ms=15)
    assert plenty["recycle_released_refcnt"] == 0
    assert 0 < reserves["recycle_released_refcnt"] <= reserves["pages_from_page_allocator"]
    for found in (plenty, reserves):
        returned = found["recycle_ring"] + found["recycle_ring_full"] + found["recycle_released_refcnt"]
        assert returned + found["recycle_cached"] == found["packets_delivered"]


def test_a_pool_lives_within_its_memory() -> None:
    """Of 100 pages the socket holds 40 and the ring cannot have its 128."""
    found = run(SLOW, memory__pages=100, nic__rx_ring=128, nic__rx_usecs=5000, nic__budget=1024)
    assert found["memory_peak_bytes"] == 100 * 4096
    assert found["packets_missed_without_page"] == found["packets_missed"] > 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"life.event": "down", "life.at_ms": 20}, "life.at_ms"),
        ({"life.event": "down", "life.at_ms": 1}, "life.at_ms"),
        ({"life.event": "resize", "life.at_ms": 15, "life.down_ms": 5}, "life.at_ms"),
        ({"life.event": "down", "life.queues": 2}, "life.queues"),
        ({"life.event": "none", "life.rx_ring": 64}, "life.rx_ring"),
        ({"life.event": "resize", "life.rx_ring": 100}, "life.rx_ring"),
    ],
)
def test_what_cannot_happen_is_refused(fields: dict[str, Value], field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        TrialConfig.from_fields(fields)
    assert refused.value.field == field
