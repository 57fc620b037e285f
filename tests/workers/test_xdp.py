"""XDP verdicts, transmit rings, redirect targets and forwarding: what must happen to packets and pages."""

from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from pool_impl.layout import DMA_BIDIRECTIONAL, DMA_FROM_DEVICE
from pool_impl.release import RELEASES
from workers import assemble, audit, run_trial, trial
from workers.arrivals import traffic
from workers.config import TrialConfig
from workers.drivers.geometry import geometry_of
from workers.errors import CheckError, ConfigError
from workers.fields.derived import seed_matters
from workers.fields.groups import Value
from workers.measures import CATEGORIES

MOST_BYTES = 4096 - 256 - 320
"""of a page that a sync covers: without headroom and shared info"""

FLAT = str(Path(__file__).parent / "profiles" / "flat.toml")

BRIEF: dict[str, Value] = {"duration_ms": 2, "warmup_ms": 0, "traffic.rate_pps": 400_000}
DROP: dict[str, Value] = {"xdp.pass_percent": 0, "xdp.drop_percent": 100}
TX: dict[str, Value] = {"xdp.pass_percent": 0, "xdp.tx_percent": 100}
REDIRECT: dict[str, Value] = {"xdp.pass_percent": 0, "xdp.redirect_percent": 100}
DEVICE: dict[str, Value] = {**REDIRECT, "xdp.redirect_to": "device"}
CPUMAP: dict[str, Value] = {**REDIRECT, "xdp.redirect_to": "cpumap"}
AF_XDP: dict[str, Value] = {**REDIRECT, "xdp.redirect_to": "af_xdp"}
FORWARD: dict[str, Value] = {"app.reader": "forward"}
MIXED: dict[str, Value] = {
    "xdp.pass_percent": 25,
    "xdp.drop_percent": 15,
    "xdp.tx_percent": 35,
    "xdp.redirect_percent": 25,
}

PATHS: dict[str, dict[str, Value]] = {
    "drop": DROP,
    "tx": TX,
    "device": DEVICE,
    "cpumap": CPUMAP,
    "af_xdp": AF_XDP,
    "forward": FORWARD,
    "cpumap-forward": {**CPUMAP, **FORWARD},
    "mixed-device-forward": {**MIXED, **FORWARD, "xdp.redirect_to": "device"},
    "mixed-cpumap-reader": {**MIXED, "app.reader": "slow", "xdp.redirect_to": "cpumap"},
    "mixed-cpumap-tcp": {
        **MIXED,
        "app.reader": "slow",
        "app.protocol": "tcp",
        "stack.gro": True,
        "xdp.redirect_to": "cpumap",
        "xdp.redirect_cpus": 2,
    },
}

FATES = (
    *("delivered", "dropped_early", "missed", "dropped_socket", "dropped_driver"),
    *("dropped_xdp", "transmitted", "redirected", "dropped_tx", "queued"),
)

WIRE_64_NS = (64 + 20) * 8 / 10
"""a smallest frame at 10 Gbit/s, preamble and gap included"""


def run(*fields: dict[str, Value], **more: Value) -> dict[str, Any]:
    merged: dict[str, Value] = {name.replace("__", "."): value for name, value in more.items()}
    for part in reversed(fields):
        merged = {**part, **merged}
    return run_trial(TrialConfig.from_fields(merged))


@pytest.mark.parametrize("kernel", list(RELEASES))
@pytest.mark.parametrize("path", PATHS)
def test_packets_and_pages_are_conserved(path: str, kernel: str) -> None:
    """The audit walks pages and fates; overload of everything in the second half of the cases."""
    for more in (
        {"driver.model": "replace-before-pass", "nic.queues": 2, "traffic.flows": 64},
        {"traffic.kind": "saturation", "duration_ms": 1, "nic.tx_gbps": 1, "nic.tx_ring": 64},
    ):
        record = run(BRIEF, PATHS[path], more, kernel=kernel, xdp__cpumap_frames=16)
        assert record["packets_offered"] == sum(record[f"packets_{fate}"] for fate in FATES) > 0


def test_drops_need_no_page_allocator_and_all_go_to_the_cache() -> None:
    """Spec 7.6: put at once, direct; the sync covers what the device wrote."""
    record = run(BRIEF, DROP, traffic__kind="saturation", duration_ms=1)
    assert record["pages_from_page_allocator"] == 0
    assert record["recycle_cached"] == record["packets_dropped_xdp"] > 5_000
    assert record["recycle_ring"] == record["alloc_refill"] == 0
    assert record["dma_sync_bytes"] == 64 * record["packets_dropped_xdp"]
    assert record["skb_alloc_ns_per_packet"] == 0


@pytest.mark.parametrize("kernel", list(RELEASES))
def test_pages_come_back_where_their_verdict_sends_them(kernel: str) -> None:
    """Spec 7.6 and 6.8: in the poll that they came from to the cache, from elsewhere to the ring; the skb of
    a CPU map's frame takes its page out of the pool before 6.4."""
    for verdict, fate in ((DROP, "dropped_xdp"), (TX, "transmitted"), (AF_XDP, "redirected")):
        record = run(BRIEF, verdict, kernel=kernel)
        assert record["recycle_cached"] == record[f"packets_{fate}"] > 700
        assert record["recycle_ring"] == 0
    record = run(BRIEF, DEVICE, kernel=kernel)
    assert record["recycle_ring"] == record["packets_redirected"] > 700
    assert record["recycle_cached"] == 0
    record = run(BRIEF, CPUMAP, kernel=kernel)
    assert record["recycle_cached"] == 0
    if kernel == "6.12":
        assert record["recycle_ring"] == record["packets_dropped_early"] > 700
        assert record["slow_not_recycled"] == 0
    else:
        assert record["recycle_ring"] == 0
        assert record["dma_unmaps"] == record["packets_dropped_early"] > 700
        # a bulk of 64 is more than what had left before it
        entered = record["pages_from_page_allocator"]
        assert 0.85 * entered < record["slow_not_recycled"] <= entered


def test_a_drop_in_a_polling_thread_goes_to_the_ring_on_the_oldest_release_only() -> None:
    """Spec 3.5: 5.14 recycles directly only where it serves a softirq."""
    for kernel in RELEASES:
        record = run(BRIEF, DROP, kernel=kernel, nic__napi="threaded")
        destination = "recycle_ring" if kernel == "5.14" else "recycle_cached"
        assert record[destination] == record["packets_dropped_xdp"] > 700


def test_verdicts_have_their_shares_and_leave_the_arrivals_alone() -> None:
    fields: dict[str, Value] = {**BRIEF, "arch": FLAT, "traffic.rate_pps": 1_500_000, "nic.rx_usecs": 0}
    record = run(fields, MIXED, xdp__redirect_to="af_xdp")
    offered = record["packets_offered"]
    assert offered == run(fields)["packets_offered"]
    for fate, percent in (
        *(("dropped_early", 25), ("dropped_xdp", 15)),
        *(("transmitted", 35), ("redirected", 25)),
    ):
        share = percent / 100
        sigma = sqrt(offered * share * (1 - share))
        assert abs(record[f"packets_{fate}"] - offered * share) < 4 * sigma + 2, fate


@pytest.mark.parametrize("path", ["tx", "forward", "device"])
def test_an_uncongested_frame_waits_for_two_interrupts_and_the_wire(path: str) -> None:
    """By hand, where nothing costs time: 8 us until the poll, 67.2 ns on the wire, 8 us until the interrupt
    that cleans it. Little's law: packets in the ring are the rate times the time in it."""
    record = run(
        PATHS[path],
        arch=FLAT,
        duration_ms=6,
        warmup_ms=1,
        traffic__kind="constant",
        traffic__rate_pps=10_000,
    )
    assert record["latency_mean_ns"] == pytest.approx(8_000 + WIRE_64_NS, abs=0.01)
    assert record["pages_in_tx"] == pytest.approx(10_000 * (8_000 + WIRE_64_NS) * 1e-9, rel=1e-6)
    assert record["pages_in_target"] == 0
    assert record["interrupts"] == 2 * 50


@pytest.mark.parametrize("queues", [1, 4])
@pytest.mark.parametrize("path", ["tx", "forward", "device"])
def test_no_more_is_sent_than_the_link_carries(path: str, queues: int) -> None:
    """At 1 Gbit/s a frame takes 672 ns; the rest finds the ring full. Rings of one device share its link."""
    record = run(
        PATHS[path],
        arch=FLAT,
        duration_ms=2,
        warmup_ms=0,
        traffic__kind="constant",
        traffic__rate_pps=3_000_000,
        traffic__flows=64,
        nic__queues=queues,
        nic__tx_ring=128,
        nic__tx_gbps=1,
    )
    most = 2_000_000 // 672
    sent = record["packets_transmitted"] + record["packets_redirected"]
    assert 0.97 * most < sent <= most
    assert record["packets_dropped_tx"] == record["packets_offered"] - sent - record["packets_queued"]
    assert record["packets_dropped_tx"] > 2_000


@pytest.mark.parametrize("path", ["tx", "forward", "device"])
def test_an_overloaded_ring_obeys_littles_law(path: str) -> None:
    """Frames in the ring times the time each takes on the wire are the wait of a frame that is let in."""
    record = run(
        PATHS[path],
        arch=FLAT,
        duration_ms=3,
        warmup_ms=1,
        traffic__kind="constant",
        traffic__rate_pps=2_000_000,
        nic__rx_usecs=1,
        nic__tx_gbps=1,
    )
    assert record["pages_in_tx"] * 672 == pytest.approx(record["latency_p50_ns"], rel=0.04)
    assert record["pages_in_tx"] == pytest.approx(512, rel=0.02)


@pytest.mark.parametrize("kernel", list(RELEASES))
def test_what_is_forwarded_is_freed_in_its_own_poll(kernel: str) -> None:
    """Spec 3.5, 6.7: ``napi_consume_skb`` recycles to the cache where releases allow it, else to the ring."""
    record = run(BRIEF, FORWARD, kernel=kernel)
    found, other = ("cached", "ring") if kernel == "6.12" else ("ring", "cached")
    assert record[f"recycle_{found}"] == record["packets_transmitted"] > 700
    assert record[f"recycle_{other}"] == 0
    assert record["dma_maps"] - record["dma_unmaps"] in range(record["packets_queued"] + 65)


def test_a_full_cpu_map_drops_in_the_poll_that_the_page_came_from() -> None:
    record = run(BRIEF, CPUMAP, traffic__kind="saturation", duration_ms=1, xdp__cpumap_frames=64)
    assert record["packets_dropped_tx"] == record["recycle_cached"] > 1_000
    assert record["busy_ratio_target_cpu"] > 0.9
    assert record["pages_in_target"] <= 64 + 8


@pytest.mark.parametrize("kernel", list(RELEASES))
def test_a_kthreads_skbs_are_freed_on_its_cpu_where_the_release_does_so(kernel: str) -> None:
    """Spec 6.7: what a TCP reader has read goes back to the CPU that made the skb, the kthread's here; its
    softirq is raised for more than half a list, so that at most 32 wait there."""
    sparse: dict[str, Value] = {"traffic.kind": "constant", "traffic.rate_pps": 100_000, "nic.rx_usecs": 0}
    fields = {**BRIEF, **CPUMAP, **sparse, "app.reader": "fast", "app.protocol": "tcp", "kernel": kernel}
    found = assemble.new_trial(TrialConfig.from_fields(fields))
    trial._run(found, 2 * traffic.PS_PER_MS)
    audit.check(found)
    freed_ps = found.host.observer.meter.ledger[:3, CATEGORIES.index("skb_free")]
    if kernel == "5.14":
        assert freed_ps[1] > 0 == freed_ps[2]
        return
    assert freed_ps[2] > freed_ps[1] > 0, "the reader puts them into the list, under its lock"
    assert found.deferred[0]["count"] == 0 < found.deferred[1]["count"] <= 32
    by_cpu = found.host.pools[0].recycle.sum(axis=1)
    assert by_cpu[1] == 0
    assert bool(by_cpu[2]) is (kernel == "6.12"), "before 6.4 a page leaves its pool with the frame"


LONG_QUEUES: dict[str, Value] = {
    "traffic.kind": "bursts",
    "traffic.burst_packets": 300,
    "traffic.packet_size": 594,
    "traffic.flows": 16,
    "nic.tx_gbps": 1,
}


@pytest.mark.parametrize("kernel", list(RELEASES))
@pytest.mark.parametrize("path", PATHS)
def test_frames_of_a_device_that_goes_down_are_lost_or_come_back(path: str, kernel: str) -> None:
    """Whoever has its pages gives them back within a second; a trial that loses one has no record."""
    down = run(
        BRIEF,
        PATHS[path],
        LONG_QUEUES,
        kernel=kernel,
        duration_ms=1010,
        life__event="down",
        life__at_ms=5,
        traffic__rate_pps=200_000,
        app__reader_cpu="same",
    )
    deferred = 32 * 3 if path == "mixed-cpumap-tcp" else 0
    assert down["pages_inflight"] <= deferred
    assert down["packets_missed"] > 0


@pytest.mark.parametrize("kernel", list(RELEASES))
@pytest.mark.parametrize("path", PATHS)
def test_a_device_that_sends_comes_up_again(path: str, kernel: str) -> None:
    """With more queues, and transmit rings, and with fewer."""
    for before, after in ((1, 3), (3, 1)):
        changed: dict[str, Value] = {"life.event": "resize", "life.at_ms": 4, "life.queues": after}
        changed |= {"life.down_ms": 1, "duration_ms": 9, "nic.queues": before, "kernel": kernel}
        found = run(BRIEF, PATHS[path], LONG_QUEUES, changed)
        same = run(BRIEF, PATHS[path], LONG_QUEUES, {**changed, "life.down_ms": 4})
        assert found["packets_handled_rate"] > same["packets_handled_rate"]


@pytest.mark.parametrize("path", ["tx", "forward"])
def test_what_has_left_a_device_that_goes_down_was_sent_and_the_rest_of_its_ring_is_lost(path: str) -> None:
    fields: dict[str, Value] = {**BRIEF, **PATHS[path], "traffic.kind": "saturation", "nic.tx_gbps": 1}
    before = assemble.new_trial(TrialConfig.from_fields({**fields, "duration_ms": 6}))
    trial._run(before, 5 * traffic.PS_PER_MS)
    ring = before.frame_queues[0]
    frames = [before.frames[ring.first + (n & ring.mask)] for n in range(ring.head, ring.tail)]
    sent = sum(frame.sent_ps <= 5 * traffic.PS_PER_MS for frame in frames[: ring.announced - ring.head])
    found = run(fields, duration_ms=6, life__event="down", life__at_ms=5)
    assert found["packets_transmitted"] == before.tally.transmitted + sent
    assert found["packets_dropped_tx"] == before.tally.dropped_tx + len(frames) - sent
    assert len(frames) - sent > 400
    assert found["pages_inflight"] == 0


def test_more_kthreads_of_the_cpu_map_carry_more() -> None:
    one, four = (
        run(
            BRIEF,
            CPUMAP,
            traffic__kind="saturation",
            traffic__flows=1000,
            duration_ms=1,
            xdp__redirect_cpus=cpus,
            kernel="6.12",
        )["packets_dropped_early"]
        for cpus in (1, 4)
    )
    assert 1.5 * one < four <= 4.1 * one


def test_a_program_that_passes_all_costs_its_time_and_needs_a_pool_for_both_directions() -> None:
    plain, attached = (run(BRIEF, traffic__kind="constant", xdp__attached=on) for on in (False, True))
    assert (plain["xdp_ns_per_packet"], attached["xdp_ns_per_packet"]) == (0, 2)
    for name in ("packets_offered", "packets_dropped_early", "recycle_ring", "alloc_refill"):
        assert attached[name] == plain[name] > 0
    for on, direction in ((False, DMA_FROM_DEVICE), (True, DMA_BIDIRECTIONAL)):
        config = TrialConfig.from_fields({"xdp.attached": on})
        assert assemble._pool_params(config, geometry_of(config, 64), 0).dma_dir == direction
        assert assemble.new_trial(config).host.pools[0].user_cnt == 1 + on


def test_what_is_sent_is_synced_or_mapped_once() -> None:
    """XDP_TX keeps the pool's mapping and syncs the frame, and its return syncs all that the device may have
    written; another device maps and unmaps each frame (spec 7.6)."""
    record = run(BRIEF, TX)
    whole = record["packets_transmitted"] + record["dma_maps"]
    assert record["dma_unmaps"] == 0
    assert record["dma_sync_bytes"] == 64 * (record["dma_syncs"] - whole) + MOST_BYTES * whole
    record = run(BRIEF, DEVICE, traffic__rate_pps=50_000)
    assert record["dma_unmaps"] == record["packets_redirected"] > 70


def test_a_drop_costs_what_was_published() -> None:
    """XDP drop on an EspressoBIN with direct recycling and no sync for the device: 1438 ns."""
    record = run(DROP, arch="armada-3720", traffic__kind="saturation", duration_ms=12)
    unsynced_ns = record["busy_ns_per_packet"] - record["sync_for_device_ns_per_packet"]
    assert unsynced_ns == pytest.approx(1438, rel=0.10)


def finished(fields: dict[str, Value]) -> trial.Trial:
    prepared = assemble.new_trial(TrialConfig.from_fields({**BRIEF, **fields}))
    trial._run(prepared, traffic.PS_PER_MS)
    audit.check(prepared)
    return prepared


def test_frames_that_wait_at_the_end_are_queued_with_their_pages() -> None:
    stopped = finished({**TX, "traffic.kind": "saturation", "nic.tx_gbps": 1})
    ring = stopped.frame_queues[0]
    assert ring.tail - ring.head > 500
    assert audit.queued_packets(stopped) >= ring.tail - ring.head
    stopped.frames[ring.first + (ring.head & ring.mask)].page = 0
    with pytest.raises(CheckError, match=r"pages in flight: .* pages found"):
        audit.check(stopped)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"xdp.drop_percent": 30}, r"xdp.pass_percent = 100: .* add up to 100; use 70"),
        ({**DROP, "xdp.tx_percent": 30}, r"xdp.pass_percent = 0: .* add up to 100; lower xdp.drop_percent"),
        (REDIRECT, r"xdp.redirect_to = '': .* name device, cpumap or af_xdp"),
        ({"nic.tx_ring": 100}, r"nic.tx_ring = 100: use a power of two, such as 128"),
        (
            {**DEVICE, "nic.queues": 16, "app.reader": "fast", "app.readers": 10, "xdp.redirect_cpus": 7},
            r"nic.queues = 16: 16 .* 10 .* 7 of xdp.redirect_cpus are 33 CPUs; use at most 32",
        ),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Value], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrialConfig.from_fields(fields)


def test_a_seed_matters_where_verdicts_are_drawn() -> None:
    constant: dict[str, Value] = {"traffic.kind": "constant"}
    assert not seed_matters(TrialConfig.from_fields({**constant, **DROP}))
    assert seed_matters(TrialConfig.from_fields({**constant, **MIXED, "xdp.redirect_to": "af_xdp"}))
