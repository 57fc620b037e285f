"""Cutting a merged skb up: bytes and pages of each segment, and where the pages end (spec 6.4)."""

import pytest

from pool_impl import segment as segments
from pool_impl import skb_change
from pool_impl.jit import POOL_IMPL_DIGEST, entry
from pool_impl.layout import MAX_SKB_FRAGS, Buffers
from pool_impl.release import RELEASES
from tests.pool_impl.skb_books import Run, Runs, Skbs, joined
from tests.pool_impl.trace import Trace

ALL = pytest.mark.parametrize("kernel", list(RELEASES))
HEADERS, PAYLOAD = 54, 100
FULL = MAX_SKB_FRAGS + 1
"""packets in an skb that has as many fragments as there can be"""


@entry("test-segment-" + POOL_IMPL_DIGEST)
def segment(buffers: Buffers, skb: int, headers: int, size: int) -> int:
    return segments.segment(buffers, skb, headers, size)


@entry("test-segment-" + POOL_IMPL_DIGEST)
def free_segments(buffers: Buffers, first: int) -> None:
    skb_change.free_list(buffers, first)


@entry("test-segment-" + POOL_IMPL_DIGEST)
def member_bytes(buffers: Buffers, skb: int, headers: int, size: int) -> int:
    return segments.member_bytes(buffers, skb, headers, size)


def merged(kernel: str, packets: int, *, last: int = PAYLOAD) -> Trace:
    """skb 1: so many marked packets, each in a page of the pool, merged into the first one."""
    trace = Trace(kernel, flags=0)
    for handle in range(1, packets + 1):
        length = HEADERS + (PAYLOAD if handle < packets else last)
        owned(trace, handle)
        trace.op("build_skb", s=handle, h=handle, off=0, size=4096, headroom=64, len=length, napi=0, own=1)
        trace.op("mark_for_recycle", s=handle)
        if handle == 1:
            trace.buffers.shared[trace.buffers.skbs[trace.skbs[1]].shared].gso_size = PAYLOAD
        else:
            assert trace.op("gro_receive", **{"to": 1, "from": handle, "hdr": HEADERS})["ret"] == 0
    return trace


def owned(trace: Trace, handle: int) -> int:
    """A page of the pool, which names it."""
    trace.alloc(handle)
    if not trace.host.rules.pool_sets_owner:
        trace.op("store_mem_info", h=handle, pool=0)
    return trace.numbers(handle)[0]


def cut(trace: Trace, size: int, headers: int = HEADERS) -> list[int]:
    """The segments of skb 1."""
    found = []
    made = segment(trace.buffers, trace.skbs[1], headers, size)
    while made != 0:
        found.append(int(made))
        made = trace.buffers.skbs[made].next
    return found


def piece(runs: Runs, start: int, length: int) -> Runs:
    """So many bytes of a packet, from one of them on."""
    found = []
    for run in runs:
        skipped = min(start, run.length)
        taken = min(length, run.length - skipped)
        start -= skipped
        length -= taken
        found.append(Run(run.page, run.offset + skipped, taken))
    return joined([run for run in found if run.length])


def payload_of(trace: Trace, skb: int, headers: int = HEADERS) -> Runs:
    """All bytes behind the headers."""
    books = Skbs(trace.buffers)
    return piece(books.bytes_of(skb), headers, books.skb["len"][skb] - headers)


def count_of(trace: Trace, name: str) -> int:
    return int(trace.counters().get(name, 0))


def pages_of(runs: Runs) -> list[int]:
    return [run.page for run in runs]


@ALL
@pytest.mark.parametrize("packets", [2, FULL, FULL + 1, FULL + 9, 2 * FULL + 5])
def test_each_segment_has_the_bytes_of_its_packet(kernel: str, packets: int) -> None:
    """Linear data is copied: that of the skb, and of a member that does not fit into one segment. Of all
    others a segment has the page, by reference."""
    trace = merged(kernel, packets, last=60)
    before = payload_of(trace, trace.skbs[1])
    found = cut(trace, PAYLOAD)
    assert len(found) == packets
    for number, made in enumerate(found):
        own = payload_of(trace, made)
        length = PAYLOAD if number < packets - 1 else 60
        assert trace.buffers.skbs[made].len == HEADERS + length
        whole = number == packets - 1 and number % FULL == 0
        if number % FULL == 0 and not whole:
            assert pages_of(own) == [0]
            continue
        assert own == piece(before, number * PAYLOAD, length)
        page = trace.host.pages[own[0].page]
        assert trace.buffers.skbs[made].pp_recycle == whole
        assert page.refcount == (1 if whole else 2)


@ALL
@pytest.mark.parametrize("freed_first", ["skb", "segments"])
@pytest.mark.parametrize("packets", [2, FULL, FULL + 1, FULL + 9])
def test_shared_pages_leave_their_pool_if_the_skb_goes_first(
    kernel: str, packets: int, freed_first: str
) -> None:
    """Its shares find references (spec 6.1). Heads that were copied, and what a clone alone has, return."""
    trace = merged(kernel, packets)
    found = cut(trace, PAYLOAD)
    copied = 1 + (packets > FULL + 1)
    cloned = int(packets == FULL + 1)
    if freed_first == "skb":
        trace.op("kfree_skb", s=1)
        assert count_of(trace, "released_refcnt") == packets - copied - cloned
        free_segments(trace.buffers, found[0])
    else:
        free_segments(trace.buffers, found[0])
        assert count_of(trace, "released_refcnt") == 0
        trace.op("kfree_skb", s=1)
    released = packets - copied - cloned if freed_first == "skb" else 0
    assert count_of(trace, "released_refcnt") == released
    assert count_of(trace, "ring") + count_of(trace, "cached") == packets - released
    assert Skbs(trace.buffers).used == []
    in_pool = trace.pool.hold - trace.pool.release
    assert trace.host.page_allocator.used_pages.sum() == in_pool


@ALL
def test_whole_members_go_on_as_marked_clones(kernel: str) -> None:
    """For a device that cuts up the rest: the skb's own fragments are shared, the members' pages return."""
    trace = merged(kernel, 2 * FULL + 5)
    size = member_bytes(trace.buffers, trace.skbs[1], HEADERS, PAYLOAD)
    assert size == FULL * PAYLOAD
    before = payload_of(trace, trace.skbs[1])
    found = cut(trace, size)
    assert [int(trace.buffers.skbs[made].len) for made in found] == [
        HEADERS + packets * PAYLOAD for packets in (FULL, FULL, 5)
    ]
    assert [int(trace.buffers.skbs[made].pp_recycle) for made in found] == [0, 1, 1]
    for number, made in enumerate(found[1:], 1):
        length = int(trace.buffers.skbs[made].len) - HEADERS
        assert payload_of(trace, made) == piece(before, number * size, length)
    trace.op("kfree_skb", s=1)
    free_segments(trace.buffers, found[0])
    assert count_of(trace, "released_refcnt") == MAX_SKB_FRAGS
    assert count_of(trace, "ring") + count_of(trace, "cached") == FULL + 6


@ALL
def test_members_of_different_lengths_are_cut_up_themselves(kernel: str) -> None:
    for packets, expected in ((FULL, PAYLOAD), (FULL + 1, FULL * PAYLOAD), (FULL + 9, FULL * PAYLOAD)):
        trace = merged(kernel, packets)
        found = member_bytes(trace.buffers, trace.skbs[1], HEADERS, PAYLOAD)
        assert found == (PAYLOAD if packets <= FULL + 9 else expected)
    trace = merged(kernel, 3 * FULL)
    assert member_bytes(trace.buffers, trace.skbs[1], HEADERS, PAYLOAD) == FULL * PAYLOAD
    first = trace.buffers.shared[trace.buffers.skbs[trace.skbs[1]].shared].frag_list
    trace.buffers.skbs[first].len -= 1
    assert member_bytes(trace.buffers, trace.skbs[1], HEADERS, PAYLOAD) == PAYLOAD


@ALL
def test_a_cut_through_a_fragment_shares_it(kernel: str) -> None:
    trace = merged(kernel, 5)
    before = payload_of(trace, trace.skbs[1])
    found = cut(trace, 70)
    assert len(found) == 8
    for number, made in enumerate(found):
        length = min(70, 500 - number * 70)
        expected = piece(before, number * 70, length)
        if number < 2:
            linear = max(0, PAYLOAD - number * 70)
            expected = joined([Run(0, 64 + HEADERS, min(70, linear)), *piece(expected, linear, length)])
        assert payload_of(trace, made) == expected
    trace.op("kfree_skb", s=1)
    assert count_of(trace, "released_refcnt") == 4


@ALL
def test_headers_in_a_fragment_are_pulled(kernel: str) -> None:
    """Of 54 bytes of headers 42 are linear, as where a driver has copied so many."""
    trace = Trace(kernel)
    first, second = owned(trace, 1), owned(trace, 2)
    trace.op("alloc_skb", s=1, kind=0, size=256, headroom=64, len=42)
    for handle, length in ((1, 12 + PAYLOAD), (2, PAYLOAD)):
        trace.op("add_rx_frag", s=1, h=handle, off=0, len=length, truesize=4096, own=1)
    trace.op("mark_for_recycle", s=1)
    found = cut(trace, PAYLOAD)
    assert [payload_of(trace, made) for made in found] == [
        [Run(first, 12, PAYLOAD)],
        [Run(second, 0, PAYLOAD)],
    ]


@ALL
def test_linear_data_come_before_a_list_where_there_are_no_fragments(kernel: str) -> None:
    """Heads from the slab are no fragments: the second packet is in a list, and has the third one's page."""
    trace = Trace(kernel)
    for handle in (1, 2):
        trace.op("alloc_skb", s=handle, kind=0, size=256, headroom=64, len=HEADERS + PAYLOAD)
    trace.op("page_alloc", h=3, order=0)
    page = trace.numbers(3)[0]
    trace.op("build_skb", s=3, h=3, off=0, size=4096, headroom=64, len=HEADERS + PAYLOAD, napi=0, own=0)
    trace.buffers.shared[trace.buffers.skbs[trace.skbs[1]].shared].gso_size = PAYLOAD
    for handle in (2, 3):
        assert trace.op("gro_receive", **{"to": 1, "from": handle, "hdr": HEADERS})["ret"] == 0
    found = cut(trace, PAYLOAD)
    assert [pages_of(payload_of(trace, made)) for made in found] == [[0], [0], [page]]
    assert [sum(run.length for run in payload_of(trace, made)) for made in found] == [PAYLOAD] * 3


@ALL
@pytest.mark.parametrize("size", [PAYLOAD, FULL * PAYLOAD])
def test_without_memory_nothing_is_made_and_nothing_is_lost(kernel: str, size: int) -> None:
    packets = FULL + 9
    for skbs, heads in ((0, 9), (1, 9), (9, 0), (9, 3), (FULL, FULL + 3), (FULL + 2, FULL)):
        trace = merged(kernel, packets)
        used = Skbs(trace.buffers).used
        before = payload_of(trace, trace.skbs[1])
        with trace.slab(skbs, heads):
            found = cut(trace, size)
            if found:
                assert size > PAYLOAD
                free_segments(trace.buffers, found[0])
        assert Skbs(trace.buffers).used == used
        assert payload_of(trace, trace.skbs[1]) == before
        trace.op("kfree_skb", s=1)
        assert count_of(trace, "released_refcnt") == 0
        assert count_of(trace, "ring") + count_of(trace, "cached") == packets


@ALL
def test_more_fragments_than_an_skb_can_have_are_refused(kernel: str) -> None:
    """A piece that ends in the second member would have 17 fragments of the first one beside its own."""
    trace = merged(kernel, FULL + 9)
    used = Skbs(trace.buffers).used
    assert cut(trace, FULL * PAYLOAD + 1) == []
    assert Skbs(trace.buffers).used == used
    trace.op("kfree_skb", s=1)
    assert count_of(trace, "released_refcnt") == 0
