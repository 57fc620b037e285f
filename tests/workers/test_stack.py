"""GRO, TCP sockets, deferred frees, RPS, packet sockets and applications that read or free late."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pool_impl.release import RELEASES
from workers import assemble, audit, run_trial, trial
from workers.config import TrialConfig
from workers.errors import ConfigError
from workers.fields.groups import Value
from workers.measures import LOCATIONS
from workers.profiles import arch

PAGE = 64
"""units of a page"""
TRUESIZE_BYTES = 4096 + 256
"""of a packet: its page and its sk_buff"""

FLAT = Path(__file__).parent / "profiles" / "flat.toml"

EVERY_MICROSECOND: dict[str, Value] = {
    "arch": str(FLAT),
    "duration_ms": 4,
    "warmup_ms": 1,
    "traffic.kind": "constant",
    "traffic.rate_pps": 1_000_000,
    "nic.link_gbps": 100,
}
"""a packet each microsecond on a machine where nothing takes time"""

TRAINS: dict[str, Value] = {
    "duration_ms": 4,
    "warmup_ms": 1,
    "traffic.rate_pps": 500_000,
    "traffic.packet_size": 1000,
    "traffic.flows": 8,
    "traffic.train_packets": 16,
    "nic.rx_usecs": 50,
    "app.reader": "fast",
    "app.protocol": "tcp",
}


def run(fields: dict[str, Value], **more: Value) -> dict[str, Any]:
    named = {name.replace("__", "."): value for name, value in more.items()}
    return run_trial(TrialConfig.from_fields({**fields, **named}))


def stopped(fields: dict[str, Value], at_us: int, **more: Value) -> trial.Trial:
    """A trial at this time, its books checked."""
    named = {name.replace("__", "."): value for name, value in more.items()}
    prepared = assemble.new_trial(TrialConfig.from_fields({**fields, **named}))
    trial._run(prepared, at_us * 10**6)
    audit.check(prepared)
    return prepared


# GRO


@pytest.mark.parametrize("kernel", list(RELEASES))
@pytest.mark.parametrize(
    ("rx_usecs", "size", "skbs_of_a_poll"),
    [
        (16, 64, 1),  # head and 16 fragments
        (30, 64, 1),  # 13 more than 17 fragments: the nineteenth begins a list
        (60, 1518, 2),  # below 64 KiB: 44 segments of 1464 bytes, and the other 17
    ],
)
def test_gro_merges_what_came_since_the_interrupt(
    kernel: str, rx_usecs: int, size: int, skbs_of_a_poll: int
) -> None:
    """The interrupt of an idle queue comes rx_usecs after a packet, and finds one for each microsecond
    beside that one."""
    record = run(
        {**EVERY_MICROSECOND, "app.reader": "fast", "app.protocol": "tcp"},
        kernel=kernel,
        stack__gro=True,
        nic__rx_usecs=rx_usecs,
        traffic__packet_size=size,
        app__socket_bytes=1 << 20,
    )
    assert record["gro_packets_per_skb"] == pytest.approx((rx_usecs + 1) / skbs_of_a_poll)
    assert record["packets_delivered"] + record["packets_queued"] == record["packets_offered"] == 3000


def test_gro_takes_one_protocol_pass_for_all_that_it_merged() -> None:
    profile = arch.load("broadwell-ep")
    price = profile["protocol_ns"] + profile["tcp_ns"]
    alone, merged = (run(TRAINS, stack__gro=gro) for gro in (False, True))
    assert alone["protocol_ns_per_packet"] == pytest.approx(price)
    assert merged["gro_packets_per_skb"] > 4
    passes = merged["protocol_ns_per_packet"] / price
    assert passes == pytest.approx(1 / merged["gro_packets_per_skb"], rel=0.01)
    for record in (alone, merged):
        assert record["packets_delivered"] + record["packets_queued"] == record["packets_offered"]
    assert merged["packets_offered"] == alone["packets_offered"]


def test_a_packet_of_another_length_ends_what_gro_holds() -> None:
    """With imix, a longer one is refused and a shorter one is the last; without trains of one length
    little is merged."""
    same, mixed = (run(TRAINS, stack__gro=True, traffic__packet_size=size) for size in (594, "imix"))
    assert 1 < mixed["gro_packets_per_skb"] < 0.6 * same["gro_packets_per_skb"]


def test_gro_leaves_udp_alone() -> None:
    record = run(TRAINS, stack__gro=True, app__protocol="udp")
    assert record["gro_packets_per_skb"] == 1
    assert record["gro_ns_per_packet"] == arch.load("broadwell-ep")["gro_ns"]
    assert record["pages_in_gro"] == 0


# TCP


def test_small_segments_are_copied_behind_the_first_ones_data() -> None:
    """A head of one page has 4096 - 320 bytes before its shared info, of which the headers took 54; the rest
    is for 372 segments of 10 bytes. Then come 17 heads as fragments."""
    found = stopped(
        EVERY_MICROSECOND, 2000, app__reader="stalled", app__stall_ms=9, app__protocol="tcp", nic__rx_usecs=0
    )
    reader = found.readers[0]
    skbs = [
        int(found.socket_slots[reader.first + (n & reader.mask)]) for n in range(reader.head, reader.tail)
    ]
    holds = [found.holds[found.buffers.skbs[skb].shared] for skb in skbs]
    assert [(int(hold.merged_count) + 1, int(hold.units)) for hold in holds[:-1]] == [
        (372 + 17, 18 * PAGE)
    ] * 2
    assert reader.units == (18 + 18 + 1) * PAGE


@pytest.mark.parametrize("kernel", list(RELEASES))
@pytest.mark.parametrize("size", [64, 700, 1518, "imix"])
def test_a_coalescing_socket_stays_within_its_limit(kernel: str, size: Value) -> None:
    found = stopped(
        {**TRAINS, "traffic.packet_size": size},
        3000,
        kernel=kernel,
        app__reader="slow",
        app__work_ns=500_000,
        app__socket_bytes=80_000,
    )
    reader = found.readers[0]
    skbs = [
        int(found.socket_slots[reader.first + (n & reader.mask)]) for n in range(reader.head, reader.tail)
    ]
    assert int(found.buffers.skbs[skbs].truesize.sum()) == reader.queued_bytes <= 80_000
    assert reader.units > (reader.tail - reader.head) * PAGE or size == 64


@pytest.mark.parametrize("kernel", list(RELEASES))
def test_a_tcp_readers_skbs_are_freed_where_the_release_frees_them(kernel: str) -> None:
    """Spec 6.7: from 5.19 on, on the CPU that allocated them; with 6.12 pages freed within the queue's poll
    go to the cache. Each packet is read before the next comes, which would be copied and freed at once."""
    sparse: dict[str, Value] = {**TRAINS, "traffic.kind": "constant", "traffic.rate_pps": 100_000}
    sparse["nic.rx_usecs"] = 0
    found = stopped(sparse, 3000, kernel=kernel)
    by_cpu = found.host.pools[0].recycle.sum(axis=1)
    if kernel == "5.14":
        assert by_cpu[0] == 0 < by_cpu[1]
    else:
        assert by_cpu[1] == 0 < by_cpu[0]
    assert bool(found.host.pools[0].recycle[0, 0]) is (kernel == "6.12")
    udp = stopped(sparse, 3000, kernel=kernel, app__protocol="udp")
    assert udp.host.pools[0].recycle[0].sum() == 0


def test_half_a_list_raises_the_softirq_and_the_rest_waits_for_a_poll() -> None:
    """The poll at 61 us leaves 61 packets, none of the flow of the one before; as the reader has freed 33,
    the queue's CPU is interrupted and takes them, and the other 28 wait for the poll at 122 us."""
    fields = {**EVERY_MICROSECOND, "app.protocol": "tcp", "traffic.flows": 65536, "nic.rx_usecs": 60}
    fields["app.socket_bytes"] = 1 << 20
    found = stopped(fields, 100, app__reader="slow", app__work_ns=1)
    assert int(found.deferred[0]["count"]) == 28
    by_cpu = found.host.pools[0].recycle.sum(axis=1)
    assert by_cpu[:2].tolist() == [33, 0]
    assert stopped(fields, 130, app__reader="slow", app__work_ns=1).host.pools[0].recycle[0].sum() == 61 + 33


# Applications


def test_a_stalled_reader_fills_its_socket_and_no_more() -> None:
    limit = 40 * TRUESIZE_BYTES
    more: dict[str, Value] = {"app__reader": "stalled", "app__stall_ms": 2, "app__stall_every_ms": 4}
    found = stopped(EVERY_MICROSECOND, 3900, app__socket_bytes=limit, app__work_ns=0, **more)
    reader = found.readers[0]
    assert (reader.tail - reader.head) * PAGE == reader.units == 40 * PAGE
    assert reader.queued_bytes == limit
    after = stopped(EVERY_MICROSECOND, 4500, app__socket_bytes=limit, app__work_ns=0, duration_ms=5, **more)
    assert after.readers[0].tail - after.readers[0].head <= 1


def test_a_stalled_reader_on_the_queues_cpu_does_not_stop_its_polls() -> None:
    record = run(
        {**EVERY_MICROSECOND, "arch": "broadwell-ep", "traffic.kind": "saturation", "app.reader_cpu": "same"},
        app__reader="stalled",
        app__stall_ms=2,
        app__stall_every_ms=3,
        app__slice_us=100,
    )
    assert record["busy_ratio_queue_cpu"] == pytest.approx(1, rel=0.01)
    assert record["packets_dropped_socket"] > record["packets_delivered"] > 0


def test_an_application_that_keeps_packets_holds_them_by_littles_law() -> None:
    """One packet a microsecond, freed when a hundred more have come: each is held for 100 us."""
    record = run(
        EVERY_MICROSECOND, app__reader="hold", app__hold_packets=100, app__work_ns=0, nic__rx_usecs=0
    )
    assert record["pages_in_application"] == pytest.approx(100)
    assert record["hold_max_ns"] == 100_000
    assert record["hold_p50_ns"] == pytest.approx(100_000, rel=1 / 32)
    in_use = sum(record[f"pages_in_{place}"] for place in LOCATIONS)
    assert record["socket_share_max"] == pytest.approx(100 / in_use, rel=0.01)


def test_a_share_that_is_kept_for_long_is_held_by_littles_law() -> None:
    """A tenth of a packet each microsecond, for two milliseconds each: 200, and they are the longest."""
    fields = {**EVERY_MICROSECOND, "duration_ms": 9, "warmup_ms": 4}
    plain, kept = (
        run(fields, app__reader="fast", app__hold_percent=percent, app__hold_ms=2, nic__rx_usecs=0)
        for percent in (0, 10)
    )
    assert kept["packets_delivered"] == plain["packets_delivered"]
    assert plain["pages_in_application"] == plain["hold_max_ns"] == 0
    # four standard deviations of as many draws as are held
    assert kept["pages_in_application"] == pytest.approx(200, abs=4 * 180**0.5)
    assert kept["hold_p50_ns"] == 0
    assert kept["hold_p99_ns"] == pytest.approx(2_000_000, rel=1 / 32)
    assert kept["hold_max_ns"] == 2_000_000
    assert kept["pages_inflight"] > plain["pages_inflight"] + 100


def test_a_reader_that_is_never_idle_frees_what_it_kept() -> None:
    """It takes two microseconds for what comes each microsecond, and keeps a half for a millisecond."""
    fields = {
        **EVERY_MICROSECOND,
        "duration_ms": 9,
        "warmup_ms": 4,
        "app.reader": "slow",
        "app.work_ns": 2_000,
    }
    record = run(fields, app__hold_percent=50, app__hold_ms=1, app__socket_bytes=1 << 20)
    assert record["packets_dropped_socket"] > 0
    assert record["pages_in_application"] == pytest.approx(250, abs=4 * 125**0.5)
    assert record["hold_max_ns"] < 2_000_000


def test_the_socket_holds_pages_for_as_long_as_packets_wait() -> None:
    """Little's law for pages: with nothing else that takes time, a page is held for its packet's latency."""
    record = run(
        EVERY_MICROSECOND, traffic__kind="poisson", app__reader="slow", app__work_ns=600, nic__rx_usecs=0
    )
    waited = record["latency_mean_ns"] * record["packets_delivered"] / record["measured_seconds"] * 1e-9
    assert record["pages_in_socket"] == pytest.approx(waited, rel=0.01)
    assert record["hold_p50_ns"] == record["latency_p50_ns"]
    assert record["hold_max_ns"] == record["latency_max_ns"]


def test_a_packet_to_a_closed_port_costs_what_was_published() -> None:
    """xdp-project notes cpumap02: UDP to a closed port 3.33 Mpps, which the profile has as input."""
    record = run({"traffic.kind": "saturation", "duration_ms": 6}, app__reader="udp-no-port")
    assert record["busy_ns_per_packet"] == pytest.approx(301, rel=0.1)
    assert record["packets_dropped_early"] > 0


def test_the_raw_table_costs_each_packet_its_price_and_nothing_else() -> None:
    early, raw = (
        run(EVERY_MICROSECOND, arch="armada-8040", traffic__rate_pps=200_000, app__reader=reader)
        for reader in ("drop", "raw")
    )
    price_ns = arch.load("armada-8040")["raw_drop_ns"]
    assert raw["protocol_ns_per_packet"] - early["protocol_ns_per_packet"] == pytest.approx(price_ns)
    assert raw["busy_ns_per_packet"] - early["busy_ns_per_packet"] == pytest.approx(price_ns, rel=1e-6)
    assert raw["packets_dropped_early"] == early["packets_dropped_early"] > 0


# RPS


def test_rps_moves_protocol_time_to_other_cpus_and_loses_nothing() -> None:
    fields = {**TRAINS, "app.protocol": "udp", "traffic.train_packets": 1, "traffic.flows": 64}
    here, there = (run(fields, stack__rps=cpus) for cpus in (0, 4))
    for record in (here, there):
        assert record["packets_delivered"] + record["packets_queued"] == record["packets_offered"]
    moved_ns = here["protocol_ns_per_packet"] + here["socket_ns_per_packet"]
    moved_ns -= there["steering_ns_per_packet"]
    less = here["busy_ratio_queue_cpu"] - there["busy_ratio_queue_cpu"]
    assert less == pytest.approx(moved_ns * 1e-9 * 500_000, rel=0.1)
    assert there["protocol_ns_per_packet"] == pytest.approx(here["protocol_ns_per_packet"], rel=0.02)
    by_cpu = stopped(fields, 2000, stack__rps=4).tally.busy_ps
    assert [bool(busy_ps) for busy_ps in by_cpu[:7]] == [True] * 6 + [False]


def test_a_full_backlog_drops_and_holds_two_thousand_at_the_most() -> None:
    """What its poll has taken over, and a thousand and one that wait."""
    fields: dict[str, Value] = {"traffic.kind": "saturation", "app.reader": "udp-no-port"}
    found = stopped(fields, 15_000, stack__rps=1, duration_ms=16)
    backlog = found.backlogs[0]
    assert found.tally.dropped_backlog > 0
    assert backlog.tail - backlog.spliced <= 1001
    waiting = int(backlog.tail - backlog.head)
    assert 1000 < waiting <= 2002
    assert found.stack.backlog_units == waiting * PAGE


# Packet sockets


def test_a_tap_holds_pages_longer_and_adds_none() -> None:
    """A reader that takes two microseconds for what comes each microsecond: its socket is full, 20 clones
    and the one that found it below its limit; a page stays for that long."""
    limit = 20 * TRUESIZE_BYTES
    plain, tapped = (
        run(
            {**EVERY_MICROSECOND, "app.reader": "fast", "nic.rx_usecs": 0},
            stack__capture_percent=percent,
            stack__capture_bytes=limit,
            stack__capture_work_ns=2_000,
        )
        for percent in (0, 100)
    )
    assert tapped["packets_delivered"] == plain["packets_delivered"]
    # of which the first twenty arrived in the warm-up
    assert tapped["packets_captured"] == pytest.approx(1500 - 20, abs=2)
    assert tapped["packets_captured"] + tapped["captures_dropped"] == pytest.approx(3000 - 20, abs=2)
    assert plain["pages_in_tap"] == 0
    assert tapped["pages_in_tap"] == pytest.approx(20, abs=1)
    assert tapped["pages_in_socket"] == plain["pages_in_socket"]
    assert plain["hold_max_ns"] == 0
    assert tapped["hold_max_ns"] == pytest.approx(20 * 2_000, rel=0.05)


def test_a_tap_captures_the_share_that_is_asked_for() -> None:
    record = run({**EVERY_MICROSECOND, "duration_ms": 11}, app__reader="drop", stack__capture_percent=30)
    # four standard deviations of 10000 draws
    assert record["packets_captured"] == pytest.approx(3000, abs=4 * (10_000 * 0.3 * 0.7) ** 0.5)
    assert record["captures_dropped"] == 0


# All of it


EVERYTHING: dict[str, Value] = {
    **TRAINS,
    "duration_ms": 2,
    "traffic.rate_pps": 1_500_000,
    "traffic.packet_size": "imix",
    "nic.queues": 2,
    "app.readers": 2,
    "app.stall_every_ms": 2,
}


@pytest.mark.parametrize("recycle", [True, False])
@pytest.mark.parametrize("kernel", list(RELEASES))
def test_books_balance_whatever_is_switched_on(kernel: str, recycle: bool) -> None:
    for protocol, gro, rps, percent, reader, cpu in product(
        ("udp", "tcp"), (False, True), (0, 3), (0, 40), ("drop", "slow", "hold", "stalled"), ("same", "other")
    ):
        record = run(
            EVERYTHING,
            kernel=kernel,
            pool__recycle=recycle,
            app__protocol=protocol,
            stack__gro=gro,
            stack__rps=rps,
            stack__capture_percent=percent,
            app__reader=reader,
            app__reader_cpu=cpu,
        )
        fates = (
            "delivered",
            "dropped_early",
            "missed",
            "dropped_socket",
            "dropped_driver",
            "dropped_backlog",
        )
        found = sum(record[f"packets_{fate}"] for fate in fates) + record["packets_queued"]
        assert record["packets_offered"] == found > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"app.reader": "stalled", "app.stall_ms": 10},
            r"app\.stall_ms = 10: must be below app\.stall_every_ms = 10",
        ),
        (
            {"app.reader": "forward", "app.hold_percent": 1},
            r"app\.hold_percent = 1: app\.reader = forward has no application",
        ),
        ({"app.reader": "udp-no-port", "app.protocol": "tcp"}, r"app\.protocol = 'tcp': .* needs udp"),
        (
            {"app.reader": "fast", "app.readers": 16, "nic.queues": 16, "stack.rps": 1},
            r"16 of nic\.queues \+ 16 of app\.readers \+ 1 of stack\.rps are 33 CPUs; use at most 32",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Value], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrialConfig.from_fields(fields)
