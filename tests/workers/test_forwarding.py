"""Packets that are sent again, from every receive pattern: descriptors, the wire, and whose pages return."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pool_impl.layout import MAX_SKB_FRAGS
from pool_impl.release import RELEASES
from tests.workers.test_combinations import MODELS
from workers import assemble, audit, run_trial, trial
from workers.arrivals import traffic
from workers.config import TrialConfig
from workers.errors import ConfigError
from workers.fields.groups import Value

FLAT = str(Path(__file__).parent / "profiles" / "flat.toml")
"""an architecture on which nothing takes time"""

FORWARD: dict[str, Value] = {"app.reader": "forward", "duration_ms": 4, "warmup_ms": 0}
MERGED: dict[str, Value] = {
    **FORWARD,
    "app.protocol": "tcp",
    "stack.gro": True,
    "nic.rx_usecs": 30,
    "traffic.packet_size": 1518,
    "traffic.rate_pps": 400_000,
    "traffic.kind": "constant",
}
"""one flow, of which a poll finds twelve packets or a few more: one skb, which has no list"""
LISTS: dict[str, Value] = {
    **MERGED,
    "nic.rx_usecs": 100,
    "traffic.kind": "bursts",
    "traffic.burst_packets": 100,
}
SPARSE: dict[str, Value] = {
    **LISTS,
    "traffic.rate_pps": 20_000,
    "traffic.burst_packets": 50,
    "duration_ms": 40,
}
"""bursts so far apart that completions of one have no part in when the next is polled"""
SOFTWARE: dict[str, Value] = {"nic.tso": False}
MERGED_BY_NIC: dict[str, Value] = {
    "driver.model": "header-split",
    "nic.hw_gro": True,
    "stack.gro": False,
    "kernel": "6.12",
}
SLOW_LINK: dict[str, Value] = {"nic.tx_gbps": 1, "nic.tx_ring": 64}


def run(*scenarios: dict[str, Value], **more: Value) -> dict[str, Any]:
    fields: dict[str, Value] = {}
    for scenario in scenarios:
        fields |= scenario
    return run_trial(TrialConfig.from_fields(fields | {n.replace("__", "."): v for n, v in more.items()}))


def wire_ns(frame_bytes: int, gbps: int) -> float:
    return (frame_bytes + 20) * 8 / gbps


PARTS: dict[str, tuple[dict[str, Value], int, int]] = {
    "page-per-packet": ({"traffic.packet_size": 9018}, 3, 3),
    "copied": ({"driver.copybreak_bytes": 1024, "traffic.packet_size": 1000}, 1, 0),
    "fragments": ({"driver.model": "fragments", "traffic.packet_size": 9018}, 6, 5),
    "header-split": ({"driver.model": "header-split", "traffic.packet_size": 9018}, 4, 3),
    "split": ({"driver.model": "split", "traffic.packet_size": 9018}, 6, 6),
    "slab": ({"driver.model": "slab", "traffic.packet_size": 4000}, 3, 3),
    "page-allocator": ({"driver.model": "page-allocator", "traffic.packet_size": 4000}, 2, 2),
    "split-unpooled": ({"driver.model": "split-unpooled", "traffic.packet_size": 1500}, 1, 1),
}
"""fields; parts of a packet by hand, head and fragments; and how many of them are receive buffers. A page
takes 3520 bytes, a buffer of 2048 bytes 1664 where an skb is built around it and else 2048, one of slab 1536;
a header is in a buffer of its own"""


@pytest.mark.parametrize("pattern", PARTS)
def test_a_packet_takes_a_descriptor_and_a_mapping_for_each_part(pattern: str) -> None:
    """In overload the ring of 64 has as many packets as fit; by Little's law they are the rate on the wire
    times the wait of a packet that is let in."""
    fields, parts, _ = PARTS[pattern]
    each_ns = wire_ns(int(fields["traffic.packet_size"]), 1)
    overload: dict[str, Value] = {
        "traffic.kind": "constant",
        "traffic.rate_pps": int(2e9 / each_ns),
        "nic.rx_usecs": 1,
        "duration_ms": 12,
        "warmup_ms": 4,
    }
    found = run(FORWARD, SLOW_LINK, fields, overload, arch=FLAT)
    waiting = 64 // parts
    assert found["packets_dropped_tx"] == pytest.approx(found["packets_offered"] / 2, rel=0.05)
    assert waiting - 1 <= found["packets_queued"] <= waiting + 1
    assert found["packets_transmitted"] + found["packets_queued"] == pytest.approx(8e6 / each_ns, abs=2)
    # one that is let in finds all others, and the one on the wire has part of its time left
    assert (waiting - 1) * each_ns < found["latency_p50_ns"] <= 1.04 * waiting * each_ns


@pytest.mark.parametrize("pattern", PARTS)
def test_pages_wait_with_their_packets(pattern: str) -> None:
    """Seen as the trial stops: each packet in the ring has all buffers that it came in."""
    fields, parts, buffers = PARTS[pattern]
    rate_pps = int(2e9 / wire_ns(int(fields["traffic.packet_size"]), 1))
    started = assemble.new_trial(
        TrialConfig.from_fields({**FORWARD, **SLOW_LINK, **fields, "traffic.rate_pps": rate_pps})
    )
    trial._run(started, 3 * traffic.PS_PER_MS)
    audit.check(started)
    ring = started.frame_queues[0]
    frames = int(ring.tail - ring.head)
    assert 64 // parts - 1 <= frames <= 64 // parts
    assert ring.more_descriptors == frames * (parts - 1)
    units = {"slab": 1920 // 64, "header-split": 64}.get(
        pattern, 64 if fields.get("driver.model", "page") in ("page", "page-allocator") else 32
    )
    header = 10 if pattern == "header-split" else 0
    assert ring.more_units + 64 * frames == frames * (buffers * units + header)


@pytest.mark.parametrize("model", MODELS)
def test_on_the_wire_it_is_all_the_same_who_cuts_up(model: str) -> None:
    """Where nothing takes time, a packet leaves when all before it have: alone, merged and cut up by the NIC,
    or by software, whether an skb has a list or not."""
    alone, nic, software = (
        run(SPARSE, MODELS[model], fields, arch=FLAT, kernel="6.12")
        for fields in ({"stack.gro": False}, {}, SOFTWARE)
    )
    assert nic["gro_packets_per_skb"] > MAX_SKB_FRAGS + 1
    for name in ("packets_offered", "packets_transmitted", "latency_histogram", "latency_mean_ns"):
        assert alone[name] == nic[name] == software[name], name
    assert alone["packets_dropped_tx"] == nic["packets_dropped_tx"] == software["packets_dropped_tx"] == 0


@pytest.mark.parametrize("tso", [True, False])
@pytest.mark.parametrize("merged", [MERGED, LISTS, {**LISTS, **MERGED_BY_NIC}])
def test_no_more_is_sent_than_the_link_carries(merged: dict[str, Value], tso: bool) -> None:
    found = run(merged, arch=FLAT, nic__tso=tso, nic__tx_gbps=2, traffic__rate_pps=700_000, duration_ms=8)
    most = 8e6 / wire_ns(1518, 2)
    assert 0.9 * most < found["packets_transmitted"] <= most
    lost = found["packets_offered"] - found["packets_transmitted"] - found["packets_queued"]
    assert found["packets_dropped_tx"] == lost > 0


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
@pytest.mark.parametrize("model", ["page-per-packet", "header-split"])
def test_all_pages_return_if_the_nic_cuts_up_and_only_heads_if_software_does(model: str, kernel: str) -> None:
    """Specification 6.4, "segment": plain references, so shares that are dropped before them release the
    page. Without merging nothing of it happens."""
    for fields, cut in (({"stack.gro": False}, False), ({}, False), (SOFTWARE, True)):
        found = run(MERGED, fields, driver__model=model, kernel=kernel)
        returned = found["recycle_cached"] + found["recycle_ring"] + found["recycle_ring_full"]
        sent = found["packets_transmitted"]
        assert found["packets_dropped_tx"] == 0 < sent
        # headers apart have a part of a page each, of which the last one to go returns it
        assert returned >= sent or cut
        if not cut:
            assert found["recycle_released_refcnt"] == found["slow_not_recycled"] == 0
            continue
        released = found["recycle_released_refcnt"]
        assert released == pytest.approx(found["pages_from_page_allocator"], abs=64 + 16)
        assert released == pytest.approx(found["slow_not_recycled"], abs=64)
        if model == "page-per-packet":
            assert released == pytest.approx(sent * (1 - 1 / found["gro_packets_per_skb"]), rel=0.02)


def test_segments_cost_their_skbs_and_references_and_merging_saves_both() -> None:
    """Merged packets are routed once. Software gives up again what that saves of skbs, and the pages."""
    plain, nic, software = (run(MERGED, fields) for fields in ({"stack.gro": False}, {}, SOFTWARE))
    assert nic["busy_ns_per_packet"] < software["busy_ns_per_packet"] < plain["busy_ns_per_packet"]
    routed = plain["protocol_ns_per_packet"] / nic["gro_packets_per_skb"]
    assert nic["protocol_ns_per_packet"] == pytest.approx(routed, rel=0.01)
    assert nic["skb_alloc_ns_per_packet"] == plain["skb_alloc_ns_per_packet"]
    assert software["skb_alloc_ns_per_packet"] == pytest.approx(
        2 * plain["skb_alloc_ns_per_packet"], rel=0.02
    )
    for name in ("skb_free_ns_per_packet", "transmit_ns_per_packet"):
        assert nic[name] < plain[name] < software[name]
    assert software["page_free_ns_per_packet"] > nic["page_free_ns_per_packet"] == 0
    assert software["device_register_ns_per_packet"] == pytest.approx(
        nic["device_register_ns_per_packet"], rel=0.05
    ), "a list has one doorbell"


def test_whole_members_of_a_list_return_to_their_pool() -> None:
    """For a NIC that cuts up: of the first skb 17 fragments are referenced, those of the next are its own."""
    nic, software = (run(LISTS, fields, kernel="6.12") for fields in ({}, SOFTWARE))
    assert nic["gro_packets_per_skb"] > MAX_SKB_FRAGS + 1
    assert 0 < nic["recycle_released_refcnt"] < 0.8 * software["recycle_released_refcnt"]
    assert nic["recycle_cached"] > 2 * software["recycle_cached"]


def test_what_the_nic_has_packed_into_a_page_is_shared_by_several_segments() -> None:
    """Payloads of 1464 bytes follow each other in pages of 4096: a page has parts of up to four segments, and
    is in the ring once."""
    started = assemble.new_trial(
        TrialConfig.from_fields({**LISTS, **MERGED_BY_NIC, **SOFTWARE, "nic.tx_gbps": 1})
    )
    trial._run(started, 3 * traffic.PS_PER_MS)
    audit.check(started)
    ring = started.frame_queues[0]
    waiting = [started.frames[ring.first + (n & ring.mask)].skb for n in range(ring.head, ring.tail)]
    shared = started.buffers.shared[started.buffers.skbs[waiting].shared]
    assert int(shared.nr_frags.max()) == 2
    pages = np.unique(shared.frag_page[np.arange(MAX_SKB_FRAGS) < shared.nr_frags[:, np.newaxis]])
    assert ring.more_units + 64 * len(waiting) == 64 * len(pages)
    references = started.host.pages.refcount[1:]
    assert set(references[references > 1].tolist()) >= {2, 3}


def test_what_follows_a_segment_that_finds_no_room_is_dropped_with_it() -> None:
    """Packets of a burst arrive a frame's time apart. Of those that the NIC merged some segments have two
    parts and some three, so a later one may fit where one did not; but what is sent of a list has no gap."""
    fields = {**LISTS, **MERGED_BY_NIC, **SOFTWARE, **SLOW_LINK, "arch": FLAT}
    started = assemble.new_trial(TrialConfig.from_fields(fields))
    ring = started.frame_queues[0]
    apart_ns = wire_ns(1518, 10)
    seen = full = 0
    for tenth in range(1, 40):
        trial._run(started, tenth * traffic.PS_PER_MS // 10)
        audit.check(started)
        waiting = [started.frames[ring.first + (n & ring.mask)] for n in range(ring.head, ring.tail)]
        gaps_ns = [(b.arrival_ps - a.arrival_ps) / 1000 for a, b in pairwise(waiting)]
        assert all(gap == pytest.approx(apart_ns, abs=1) or gap > 3 * apart_ns for gap in gaps_ns)
        seen += len(waiting)
        full += int(ring.tail - ring.head + ring.more_descriptors) > 60
    assert full > 5
    assert seen > 100 < started.tally.dropped_tx


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("event", ["down", "resize"])
def test_what_waits_to_be_sent_is_lost_and_its_pages_come_back(model: str, event: str) -> None:
    changed: dict[str, Value] = {"life.event": event, "life.at_ms": 3, "duration_ms": 6}
    for merged in ({**MERGED, "stack.gro": False}, LISTS, {**LISTS, **SOFTWARE}):
        found = run(merged, SLOW_LINK, MODELS[model], changed, nic__tx_ring=512, kernel="6.12")
        assert found["packets_dropped_tx"] > 50
        if event == "down":
            assert found["pages_not_returned"] == found["pages_inflight"] == 0


@pytest.mark.parametrize("kernel", list(RELEASES))
def test_steered_packets_are_merged_and_sent_by_other_cpus(kernel: str) -> None:
    found = run(MERGED, SOFTWARE, kernel=kernel, stack__rps=2, nic__queues=2, traffic__flows=16)
    assert found["packets_transmitted"] > 0.9 * found["packets_offered"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stack.capture_percent": 10}, r"stack\.capture_percent = 10: .*in a segment and in the packet"),
        (
            {**MERGED_BY_NIC, **SOFTWARE, "stack.capture_percent": 10},
            r"stack\.capture_percent = 10: .*in a segment and in the packet",
        ),
        (
            {"pool.variant": "page_decides", "driver.model": "split"},
            r"pool\.variant = .*other packets' shares of a page; use kernel",
        ),
    ],
)
def test_what_would_have_a_page_in_two_places_is_refused(fields: dict[str, Value], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        TrialConfig.from_fields(MERGED | fields)
    assert "\n" not in str(caught.value)


def test_what_the_nic_merges_and_cuts_up_can_be_captured() -> None:
    """Nobody else has references to its pages."""
    assert run(LISTS, MERGED_BY_NIC, stack__capture_percent=30)["packets_captured"] > 0
