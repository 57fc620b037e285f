"""Receive patterns: what pages must do, by counting."""

from pathlib import Path
from typing import Any

import pytest

from pool_impl.release import RELEASES
from tests.workers.test_capture import Sent, ethernet, ipv4, pcap, write
from workers import assemble, audit, run_trial, trial
from workers.arrivals import traffic
from workers.config import TrialConfig
from workers.errors import CheckError, ConfigError
from workers.fields.derived import FRAGMENT_MODELS, UNPOOLED_MODELS
from workers.fields.groups import Value
from workers.measures import COUNTERS
from workers.pricing.cache import HEADER, PAYLOAD
from workers.pricing.cost import POLL
from workers.profiles import arch
from workers.state import IN_FRAGMENTS

SHORT: dict[str, Value] = {"duration_ms": 2, "warmup_ms": 0, "traffic.kind": "constant", "nic.rx_ring": 256}
HELD: dict[str, Value] = {**SHORT, "app.reader": "slow", "app.work_ns": 4_000, "app.socket_bytes": 1 << 20}
FRAGMENTS: dict[str, Value] = {"driver.model": "fragments"}
SPLIT: dict[str, Value] = {"driver.model": "header-split"}
LARGE: dict[str, Value] = {"traffic.packet_size": 1500}
JUMBO: dict[str, Value] = {"traffic.packet_size": 9018, "traffic.rate_pps": 100_000}


def run(*parts: dict[str, Value], **more: Value) -> dict[str, Any]:
    return run_trial(configured(*parts, **more))


def configured(*parts: dict[str, Value], **more: Value) -> TrialConfig:
    fields: dict[str, Value] = {}
    for part in parts:
        fields |= part
    return TrialConfig.from_fields(fields | {name.replace("__", "."): value for name, value in more.items()})


def stopped(config: TrialConfig, at_ps: int) -> trial.Trial:
    prepared = assemble.new_trial(config)
    trial._run(prepared, at_ps)
    audit.check(prepared)
    return prepared


COMBINATIONS: list[dict[str, Value]] = [
    {"driver.model": model, "kernel": kernel, "pool.recycle": recycle, "traffic.packet_size": size}
    for model in (
        "page-per-packet",
        "replace-before-pass",
        "fragments",
        "header-split",
        "page-allocator",
        "slab",
    )
    for kernel in RELEASES
    for recycle in (True, False)
    for size in (200, 1500, 9018)
    if not (model in FRAGMENT_MODELS and (kernel == "5.14" or not recycle))
    if not (model in UNPOOLED_MODELS and not recycle)
    if not (model == "replace-before-pass" and size == 9018)
]


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda c: "-".join(str(v) for v in c.values()))
@pytest.mark.parametrize("copybreak", [0, 256])
def test_books_balance_for_all_patterns(combination: dict[str, Value], copybreak: int) -> None:
    """Conservation is checked after each trial; the reader keeps pages, so that they are everywhere."""
    if combination["driver.model"] == "header-split":
        copybreak = 0
    record = run(HELD, combination, traffic__rate_pps=130_000, driver__copybreak_bytes=copybreak)
    assert record["packets_delivered"] > 0
    entered = sum(record[f"slow_{cause}"] for cause in ("not_recycled", "overflow", "wrong_node", "held"))
    if combination["driver.model"] not in UNPOOLED_MODELS:
        assert entered == record["pages_from_page_allocator"]


@pytest.mark.parametrize("model", ["page-per-packet", "fragments", "header-split", "slab"])
def test_books_balance_over_several_queues_and_readers(model: str) -> None:
    """Small pools, so that pages also leave them."""
    record = run(
        HELD, LARGE, driver__model=model, nic__queues=3, app__readers=2, traffic__flows=64, pool__size=32
    )
    assert record["packets_delivered"] > 0


@pytest.mark.parametrize(("buffer_bytes", "parts"), [(1024, 4), (2048, 2), (4096, 1)])
def test_a_ring_of_fragments_needs_its_part_of_the_pages(buffer_bytes: int, parts: int) -> None:
    """Spec 7.3; before any packet, and 256 descriptors are full pages for all sizes."""
    config = configured(SHORT, FRAGMENTS, driver__buffer_bytes=buffer_bytes)
    started = stopped(config, 1)
    owner = started.host.pools[0]
    assert owner.hold - owner.cache_count == 256 // parts
    assert len(set(started.descriptors.page.tolist())) == 256 // parts
    assert set(started.descriptors.offset.tolist()) == set(range(0, 4096, buffer_bytes))


def test_two_fragments_share_one_return() -> None:
    """Published for hns3 after the fix of 6.0 (spec 9.2): fast + refill + slow = 2 x ring."""
    record = run(SHORT, FRAGMENTS, LARGE, duration_ms=12, warmup_ms=4, traffic__rate_pps=600_000)
    taken = record["alloc_fast"] + record["alloc_refill"] + record["alloc_slow"]
    assert taken == record["pages_allocated"]
    assert taken == pytest.approx(2 * record["recycle_ring"], rel=0.02)


def test_fragments_hold_half_the_pages_of_whole_ones() -> None:
    """The same packets in the same ring and socket."""
    whole, cut = (
        run(HELD, LARGE, driver__model=model, app__socket_bytes=8 << 20)
        for model in ("page-per-packet", "fragments")
    )
    for name in ("pages_in_rx_ring", "pages_in_socket"):
        assert cut[name] == pytest.approx(whole[name] / 2, rel=0.03), name
    assert cut["pages_in_fragments"] < 2 < cut["pages_in_socket"]
    assert whole["pages_in_fragments"] == 0


def test_pages_by_place_are_all_pages_where_they_are_cut() -> None:
    config = configured(HELD, FRAGMENTS, LARGE, driver__buffer_bytes=1024)
    finished = stopped(config, 2 * traffic.PS_PER_MS)
    assert finished.tally.page_ps[IN_FRAGMENTS] > 0
    finished.readers[0].units += 1
    with pytest.raises(CheckError, match="parts of pages in sockets"):
        audit.check(finished)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.host.pages[t.descriptors[200].page].__setitem__("frag_count", 7), "fragment count"),
        (lambda t: t.descriptors[200].__setitem__("offset", t.descriptors[201].offset), "different parts"),
    ],
)
def test_shares_and_buffers_that_do_not_add_up_are_refused(spoil: Any, message: str) -> None:
    finished = stopped(configured(HELD, FRAGMENTS, LARGE), traffic.PS_PER_MS // 4)
    spoil(finished)
    with pytest.raises(CheckError, match=message):
        audit.check(finished)


@pytest.mark.parametrize(
    "model",
    [
        "page-per-packet",
        "replace-before-pass",
        "fragments",
        "split",
        "page-allocator",
        "slab",
        "split-unpooled",
    ],
)
def test_copied_packets_leave_their_buffers_in_the_ring(model: str) -> None:
    """Spec 7.3: the buffer is posted again: no put, no alloc, no count; however slow the reader."""
    record = run(HELD, driver__model=model, driver__copybreak_bytes=64)
    assert record["packets_delivered"] > 400
    assert record["pages_allocated"] == record["pages_from_page_allocator"] == 0
    assert record["recycle_ring"] == record["recycle_cached"] == record["pages_in_socket"] == 0
    parts = {"fragments": 2048, "split": 2048, "split-unpooled": 2048, "slab": 1920}
    of_a_page = parts.get(model, 4096) / 4096
    assert record["pages_in_rx_ring"] == 256 * of_a_page


def test_the_copybreak_is_the_largest_packet_that_is_copied() -> None:
    for size, copied in ((256, True), (257, False)):
        record = run(HELD, FRAGMENTS, traffic__packet_size=size)
        assert (record["pages_in_socket"] == 0) is copied


def test_a_copied_packet_counts_its_head_against_the_socket() -> None:
    """1024 bytes of head and the sk_buff, not the buffer: so many small packets fit into a socket."""
    overrun = {**HELD, "app.work_ns": 1_000_000, "app.socket_bytes": 128_000}
    for model, truesize in (("fragments", 1280), ("page-per-packet", 4352)):
        full = stopped(configured(overrun, driver__model=model), traffic.PS_PER_MS - 1).readers[0]
        assert full.tail - full.head == 128_000 // truesize


@pytest.mark.parametrize(
    ("model", "buffers"),
    [("page-per-packet", 3), ("fragments", 5), ("page-allocator", 3), ("slab", 6), ("header-split", 4)],
)
def test_a_jumbo_frame_takes_as_many_buffers_as_it_fills(model: str, buffers: int) -> None:
    """9018 bytes in buffers of 3520 (a page without headroom and shared info), of 2048, of 1536,
    or of 42 for headers and 4096."""
    record = run(SHORT, JUMBO, driver__model=model)
    handled = record["packets_dropped_early"]
    assert handled > 100
    # those of the last packet may not have been posted yet
    assert 0 <= buffers * handled - record["pages_allocated"] <= buffers
    assert record["packets_offered"] == handled + record["packets_queued"]


def test_a_jumbo_frames_last_buffer_has_what_is_left() -> None:
    waiting = stopped(configured(SHORT, JUMBO, nic__rx_usecs=100), 25 * 10**6)
    filled = waiting.descriptors[: waiting.queues[0].dma]
    assert filled.frame_bytes.tolist() == [3520, 3520, 9018 - 2 * 3520] * 2
    assert filled.ends.tolist() == [0, 0, 1] * 2
    assert audit.queued_packets(waiting) == 2


def test_a_jumbo_frame_that_finds_too_few_descriptors_is_missed_whole() -> None:
    """64 descriptors hold 21 of three; the one that is left stays empty."""
    config = configured(SHORT, JUMBO, nic__rx_ring=64, nic__rx_usecs=1000)
    waiting = stopped(config, 900 * 10**6)
    assert waiting.queues[0].dma == 63
    assert waiting.tally.missed == waiting.tally.offered - 21 > 50


@pytest.mark.parametrize("model", ["page-per-packet", "fragments"])
def test_the_budget_counts_descriptors(model: str) -> None:
    """Spec 7.1; saturated, so that all polls are full: 64 descriptors are 22 packets of three, 13 of five."""
    finished = stopped(
        configured(SHORT, JUMBO, driver__model=model, traffic__kind="saturation", nic__link_gbps=400),
        traffic.PS_PER_MS,
    )
    polls = finished.host.observer.meter.ledger[0, 1] / finished.host.observer.meter.price_ps[POLL]
    assert finished.tally.read / polls == pytest.approx(
        {"page-per-packet": 22, "fragments": 13}[model], rel=0.1
    )


def test_a_jumbo_frame_arrives_whole() -> None:
    """The bytes of all its parts are one skb's, and its pages come back."""
    finished = stopped(configured(HELD, JUMBO, app__work_ns=1_000_000), traffic.PS_PER_MS)
    skbs = finished.buffers.skbs
    waiting = skbs[1:][skbs[1:].users > 0]
    assert len(waiting) > 10
    assert (waiting.len == 9018).all()
    assert (finished.buffers.shared[waiting.shared].nr_frags == 2).all()


def test_headers_and_payload_come_from_pools_of_their_own() -> None:
    """Spec 7.5: six header buffers of 64 + 256 + 320 bytes in a page, and a page for each payload."""
    started = stopped(configured(SHORT, SPLIT), 1)
    payload, header = started.host.pools
    assert payload.hold - payload.cache_count == 256
    assert header.hold - header.cache_count == -(-256 // 6)
    assert set(started.host.pages[started.descriptors.page].pp.tolist()) == {0}
    assert set(started.host.pages[started.descriptors.header_page].pp.tolist()) == {1}


def test_small_packets_use_only_their_header_buffer() -> None:
    small, large = (run(HELD, SPLIT, traffic__packet_size=size) for size in (256, 257))
    config = configured(HELD, SPLIT, traffic__packet_size=256)
    finished = stopped(config, traffic.PS_PER_MS)
    payload, header = finished.host.pools
    assert payload.hold == 256
    assert payload.recycle.sum() == 0
    assert header.recycle.sum() > 10
    assert small["packets_delivered"] > 100
    assert large["pages_allocated"] == pytest.approx(2 * small["pages_allocated"], abs=64)


def test_payload_apart_is_left_alone_until_it_is_read() -> None:
    """What the driver looks at is the header; the payload's first touch is the reader's, who misses."""
    finished = stopped(configured(HELD, SPLIT, LARGE, app__reader="drop"), traffic.PS_PER_MS)
    assert finished.tally.dropped_early > 100
    assert finished.host.observer.caches.touches[PAYLOAD] == 0
    assert finished.host.observer.caches.touches[HEADER] == finished.tally.read
    read = stopped(configured(HELD, SPLIT, LARGE), traffic.PS_PER_MS)
    # of its head, in which nothing lies behind the header, and of its fragment
    assert read.host.observer.caches.touches[PAYLOAD] == 2 * read.tally.delivered > 0


@pytest.mark.parametrize(("size", "descriptors"), [(4096 + 42, 1), (4096 + 43, 2), (9018, 3)])
def test_what_a_packet_leaves_unused_stays_in_its_descriptor(size: int, descriptors: int) -> None:
    """One header buffer for each packet, and a page for each 4096 bytes behind its 42 of headers."""
    fields = {**SHORT, **SPLIT, "traffic.packet_size": size, "traffic.rate_pps": 100_000}
    finished = stopped(configured(fields), traffic.PS_PER_MS)
    payload, header = finished.host.pools
    taken = [
        int(owner.alloc_fast + owner.alloc_slow + owner.alloc_refill) - 256 for owner in (payload, header)
    ]
    assert finished.tally.read > 50
    assert taken[1] == pytest.approx(finished.tally.read, abs=1)
    assert taken[0] == descriptors * taken[1]
    assert finished.queues[0].read == descriptors * finished.tally.read


@pytest.mark.parametrize("reader", ["drop", "slow"])
def test_a_driver_without_a_pool_takes_maps_and_unmaps_a_page_for_each_packet(reader: str) -> None:
    record = run(HELD, LARGE, driver__model="page-allocator", app__reader=reader)
    finished = stopped(configured(HELD, LARGE, driver__model="page-allocator"), traffic.PS_PER_MS)
    taken = int(finished.tally.read)
    assert finished.host.device.maps == finished.host.page_allocator.serial
    posted = finished.queues[0].posted - finished.queues[0].read
    assert finished.host.device.maps - finished.host.device.unmaps == posted
    assert finished.host.device.unmaps == taken > 0
    assert record["pages_allocated"] == record["pages_from_page_allocator"] == record["dma_maps"]
    assert record["recycle_ratio"] is None
    for name in (*COUNTERS, "pages_inflight", "pages_in_cache", "pages_in_ring", "dma_syncs"):
        assert record[name] == 0, name


def test_a_block_of_the_network_core_has_seventeen_buffers() -> None:
    """32768 bytes in buffers of 64 + 1536 + 320; used again when all have come back, else another one."""
    started = stopped(configured(SHORT, LARGE, driver__model="slab"), 1)
    assert started.host.page_allocator.serial == -(-256 // 17)
    finished = stopped(configured(HELD, LARGE, driver__model="slab"), traffic.PS_PER_MS)
    assert finished.tally.pages_taken == 8 * -(-int(finished.tally.pages_allocated) // 17)


def test_mapping_and_unmapping_maintain_all_of_a_buffer_where_software_does_it() -> None:
    """A recycled page is invalidated for the bytes of its packet, a buffer that is unmapped for all of it."""
    profile = arch.load("armada-3720")
    record = run(SHORT, arch="armada-3720", driver__model="page-allocator", traffic__rate_pps=50_000)
    lines = -(-3520 // int(profile["cache_line_bytes"]))
    for name in ("sync_for_cpu", "sync_for_device"):
        spent = record[f"{name}_ns_per_packet"]
        assert spent == pytest.approx(lines * profile["dma_sync_line_ns"], rel=0.02), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {**FRAGMENTS, "kernel": "5.14"},
            r"driver\.model = 'fragments': kernel = 5\.14 has no fragments; use",
        ),
        ({**FRAGMENTS, "pool.recycle": False}, r"pool\.recycle = False: with driver\.model = fragments"),
        ({"driver.buffer_bytes": 1024}, r"driver\.buffer_bytes = 1024: .* leave it 2048, or use fragments"),
        (
            {"driver.model": "slab", "pool.recycle": False},
            r"pool\.recycle = False: .*slab has no pool; leave",
        ),
        ({"driver.model": "slab", "pool.variant": "local_only"}, r"pool\.variant = 'local_only': .* no pool"),
        (
            {"driver.model": "page-allocator", "driver.sync": "driver"},
            r"driver\.sync = 'driver': .*page-allocator maps each buffer, which syncs it; leave it pool",
        ),
        ({**SPLIT, "kernel": "5.14"}, r"driver\.model = 'header-split': kernel = 5\.14 has no fragments"),
        ({**SPLIT, "driver.copybreak_bytes": 64}, r"copybreak_bytes = 64: .* leave it usual, or use fragm"),
        ({"driver.buffer_bytes": 1000}, r"driver\.buffer_bytes = 1000: use 512 \| 1024 \| 2048"),
        (
            {"driver.model": "replace-before-pass", **JUMBO},
            r"packet_size = 9018: .* takes packets of one page",
        ),
        ({"traffic.packet_size": 9019}, r"packet_size = 9019: use integer 64\.\.9018 or imix"),
        ({"driver.copybreak_bytes": 2000}, r"copybreak_bytes = 2000: use integer 0\.\.1024 or usual"),
    ],
)
def test_what_no_driver_can_do_is_refused(fields: dict[str, Value], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        TrialConfig.from_fields(fields)
    assert "\n" not in str(caught.value)


def test_a_capture_with_packets_too_large_for_an_skb_is_refused(tmp_path: Path) -> None:
    """As one taken behind GRO: 17 fragments of 1024 bytes, or 18 pages of 3520, are the most."""
    packet = ethernet(0x0800, ipv4("10.0.0.2"))
    name = write(tmp_path, pcap([Sent(at * 10**6, packet, 20_000) for at in range(5)]))
    captured: dict[str, Value] = {**SHORT, "traffic.kind": "capture", "traffic.capture": name}
    assert run(captured)["packets_offered"] > 0
    with pytest.raises(ConfigError, match=r"largest frame has 200.. bytes, .*fragments takes 17408; capture"):
        run(captured, FRAGMENTS, driver__buffer_bytes=1024)
    with pytest.raises(ConfigError, match=r"largest frame has .*replace-before-pass takes 3520; capture"):
        run(captured, driver__model="replace-before-pass")
