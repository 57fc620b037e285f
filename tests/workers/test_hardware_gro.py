"""Packets that the NIC merges: which ones, until when, and what it saves above."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pool_impl.jit import entry
from workers import assemble, audit, run_trial, trial
from workers.arrivals import traffic
from workers.config import TrialConfig
from workers.errors import ConfigError
from workers.fields.groups import Value
from workers.profiles import arch
from workers.walk import further_arrivals

FLAT = Path(__file__).parent / "profiles" / "flat.toml"

MERGED: dict[str, Value] = {
    "duration_ms": 4,
    "warmup_ms": 1,
    "kernel": "6.12",
    "traffic.rate_pps": 500_000,
    "traffic.packet_size": 1518,
    "traffic.flows": 8,
    "traffic.train_packets": 16,
    "nic.hw_gro": True,
    "driver.model": "header-split",
    "app.reader": "fast",
    "app.protocol": "tcp",
    "app.socket_bytes": 1 << 22,
}

AT_ONCE: dict[str, Value] = {**MERGED, "arch": str(FLAT), "nic.rx_usecs": 0}
"""on a machine where nothing takes time a packet is read as its aggregate is completed"""

HEADERS_BYTES = 54
PAGE_BYTES = 4096


@entry("test-hardware-gro-" + trial.MODEL_DIGEST)
def next_chunk(arrivals: Any) -> int:
    return traffic.next_chunk(arrivals)


class Aggregate(NamedTuple):
    flow: int
    arrivals_ps: list[int]
    payloads: list[int]


class Nic:
    """What a queue's NIC merges, from the rules that are documented: no ring, so nothing is missed."""

    def __init__(self, flows: int, time_ps: int) -> None:
        self.flows, self.time_ps = flows, time_ps
        self.open: list[Aggregate] = []
        self.completed: list[tuple[int, Aggregate]] = []

    def run(self, arrivals: list[tuple[int, int, int]], until_ps: int) -> None:
        for now_ps, frame_bytes, flow in arrivals:
            self._expire(now_ps)
            self._receive(now_ps, frame_bytes - HEADERS_BYTES, flow)
        self._expire(until_ps - 1)

    def _expire(self, now_ps: int) -> None:
        while self.open and self.open[0].arrivals_ps[0] + self.time_ps <= now_ps:
            self._complete(self.open[0], self.open[0].arrivals_ps[0] + self.time_ps)

    def _complete(self, found: Aggregate, now_ps: int) -> None:
        self.open = [other for other in self.open if other is not found]
        self.completed.append((now_ps, found))

    def _receive(self, now_ps: int, payload: int, flow: int) -> None:
        found = next((one for one in self.open if one.flow == flow), None)
        if found is not None:
            too_much = HEADERS_BYTES + sum(found.payloads) + payload >= 65536
            if payload > found.payloads[0] or too_much:
                self._complete(found, now_ps)
                found = None
        if found is None:
            if len(self.open) == self.flows:
                self._complete(self.open[0], now_ps)
            found = Aggregate(flow, [], [])
            self.open.append(found)
        found.arrivals_ps.append(now_ps)
        found.payloads.append(payload)
        if payload < found.payloads[0]:
            self._complete(found, now_ps)


def arrivals_of(config: TrialConfig, until_ps: int) -> list[tuple[int, int, int]]:
    arrivals = traffic.new_arrivals(config)
    now_ps, found = 0, []
    while now_ps < until_ps:
        next_chunk(arrivals)
        for gap_ps, frame_bytes, flow in zip(
            arrivals.gaps_ps.tolist(), arrivals.frame_bytes.tolist(), arrivals.flow_hash.tolist(), strict=True
        ):
            now_ps += gap_ps
            found.append((now_ps, frame_bytes, flow))
    return [arrival for arrival in found if arrival[0] < until_ps]


def config_of(fields: dict[str, Value], **more: Value) -> TrialConfig:
    return TrialConfig.from_fields({**fields, **{n.replace("__", "."): v for n, v in more.items()}})


def run(fields: dict[str, Value], **more: Value) -> dict[str, Any]:
    return run_trial(config_of(fields, **more))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"nic__hw_gro_flows": 2},
        {"nic__hw_gro_usecs": 400, "traffic__flows": 2},
        {"traffic__packet_size": "imix", "nic__hw_gro_usecs": 100},
        {"traffic__packet_size": 9018, "traffic__rate_pps": 100_000},
        {"traffic__packet_size": 64, "traffic__train_packets": 1, "traffic__flows": 100},
        {"traffic__kind": "bursts", "traffic__burst_packets": 60},
    ],
)
def test_packets_are_merged_as_the_rules_say(more: dict[str, Value]) -> None:
    """By another account: aggregates, their payload in pages, and when each was complete."""
    until_ps = 4 * 10**9
    config = config_of({**AT_ONCE, "warmup_ms": 0}, **more)
    found = assemble.new_trial(config)
    trial._run(found, until_ps)
    audit.check(found)
    assert found.tally.missed == 0
    nic = Nic(config.nic.hw_gro_flows, config.nic.hw_gro_usecs * 10**6)
    nic.run(arrivals_of(config, until_ps), until_ps)
    assert found.tally.gro_skbs == len(nic.completed) > 40
    assert found.tally.gro_packets == sum(len(one.arrivals_ps) for _, one in nic.completed)
    pages = sum(-(-sum(one.payloads) // PAGE_BYTES) for _, one in nic.completed)
    assert found.queues[0].dma == pages
    waited = sum(at_ps - arrival_ps for at_ps, one in nic.completed for arrival_ps in one.arrivals_ps)
    assert found.tally.latency_sum_ps == waited
    assert len(nic.open) == found.aggregates_of[0].open


def test_one_protocol_pass_and_the_fewest_pages_for_all_that_was_merged() -> None:
    """At saturated trains of 1464 bytes each: a page for each packet without, 4096 bytes in a page with."""
    profile = arch.load("broadwell-ep")
    price = profile["protocol_ns"] + profile["tcp_ns"]
    alone, merged = (run(MERGED, nic__hw_gro=hw_gro) for hw_gro in (False, True))
    assert alone["gro_packets_per_skb"] is None
    assert merged["gro_packets_per_skb"] > 4
    assert merged["busy_ns_per_packet"] < alone["busy_ns_per_packet"]
    passes = merged["protocol_ns_per_packet"] / price
    assert passes == pytest.approx(1 / merged["gro_packets_per_skb"], rel=0.01)
    buffers = merged["pages_allocated"] / alone["pages_allocated"]
    # a header and a page for each packet; a header, and the pages that the payload fills, for each aggregate
    packets = merged["gro_packets_per_skb"]
    least = (1 + packets * 1464 / PAGE_BYTES) / (2 * packets)
    assert least < buffers < least + 1 / (2 * packets)


def test_what_is_merged_comes_later() -> None:
    """The share of latency that the NIC's wait adds is at most its time."""
    alone, merged = (run(AT_ONCE, nic__hw_gro=hw_gro) for hw_gro in (False, True))
    assert alone["latency_max_ns"] == 0
    assert 0 < merged["latency_mean_ns"] <= merged["latency_max_ns"] == 32_000
    longer = run(AT_ONCE, nic__hw_gro_usecs=64)
    assert longer["latency_mean_ns"] > merged["latency_mean_ns"]
    assert longer["gro_packets_per_skb"] > merged["gro_packets_per_skb"]


def test_fewer_contexts_merge_less() -> None:
    many, few, one = (
        run(AT_ONCE, nic__hw_gro_flows=flows, traffic__train_packets=2)["gro_packets_per_skb"]
        for flows in (64, 4, 1)
    )
    assert many > few > one > 1


def test_a_missed_packet_ends_what_it_belongs_to() -> None:
    """One flow whose packets fill the ring of 64 pages: as many as fit, and what follows begins anew."""
    more: dict[str, Value] = {"traffic__flows": 1, "traffic__kind": "constant", "nic__hw_gro_usecs": 10_000}
    more |= {"traffic__packet_size": 4150, "traffic__rate_pps": 200_000}
    found = run(AT_ONCE, nic__rx_ring=64, nic__rx_usecs=2_000, duration_ms=12, **more)
    assert found["packets_missed"] > 0
    assert found["packets_delivered"] + found["packets_missed"] + found["packets_queued"] == pytest.approx(
        found["packets_offered"]
    )
    # fifteen pages of payload each, four times, and the four of what found no descriptor
    assert found["gro_packets_per_skb"] == pytest.approx(64 / 5, rel=0.05)


@pytest.mark.parametrize(("kernel", "to_the_cache"), [("6.1", False), ("6.12", True)])
def test_most_pages_return_to_the_cache_where_the_release_lets_them(kernel: str, to_the_cache: bool) -> None:
    """The merge of NAPI-local recycling (6.4) shows a TCP stream with hardware GRO whose pages all went to
    the ring before and 93% of them to the cache after."""
    found = run({**MERGED, "kernel": kernel})
    returned = found["recycle_cached"] + found["recycle_ring"]
    share = found["recycle_cached"] / returned
    assert share > 0.9 if to_the_cache else share == 0


def test_udp_is_left_alone() -> None:
    merged, alone = (run(MERGED, app__protocol="udp", nic__hw_gro=hw_gro) for hw_gro in (True, False))
    assert merged == alone


def test_the_kernel_goes_on_merging_what_the_nic_has_merged() -> None:
    """As from 6.1 on (commit 5eddb24901ee). A NIC with one context for flows that take turns of two packets,
    and polls of many aggregates."""
    turns: dict[str, Value] = {**AT_ONCE, "traffic.train_packets": 2, "nic.hw_gro_flows": 1}
    turns |= {"nic.rx_usecs": 200}
    alone, both = (run(turns, stack__gro=gro) for gro in (False, True))
    assert both["packets_delivered"] + both["packets_queued"] == both["packets_offered"]
    assert both["gro_packets_per_skb"] > 3 * alone["gro_packets_per_skb"]


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_no_packet_of_a_flow_overtakes_another(kernel: str) -> None:
    """What waits in the socket is in order of arrival, flow by flow."""
    mixed: dict[str, Value] = {**AT_ONCE, "traffic.packet_size": "imix", "nic.hw_gro_flows": 2}
    mixed |= {"nic.rx_usecs": 200, "kernel": kernel, "stack.gro": True, "nic.hw_gro_usecs": 200}
    found = assemble.new_trial(config_of({**mixed, "app.reader": "stalled", "app.stall_ms": 9}))
    trial._run(found, 3 * 10**9)
    audit.check(found)
    last: dict[int, int] = {}
    reader = found.readers[0]
    assert reader.tail - reader.head > 100
    for position in range(reader.head, reader.tail):
        skb = int(found.socket_slots[reader.first + (position & reader.mask)])
        flow = int(found.packets[skb].flow_hash)
        merged = int(found.holds[found.buffers.skbs[skb].shared].merged)
        for arrival_ps in [int(found.packets[skb].arrival_ps), *further_arrivals(found, merged)]:
            assert last.get(flow, -1) < arrival_ps
            last[flow] = arrival_ps


def test_headers_in_front_of_each_payload_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"nic\.hw_gro = True: driver\.model = page-per-packet .* header-split"
    ):
        TrialConfig.from_fields({"nic.hw_gro": True})
