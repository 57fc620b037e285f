"""Moving data between skbs: limits, what is left of the source, and parts of fragments (spec 6.4, 6.5)."""

import errno

import pytest

from pool_impl import skb_calls
from pool_impl.layout import FCLONE_NONE, MAX_SKB_FRAGS
from pool_impl.release import RELEASES
from tests.pool_impl.skb_books import Skbs
from tests.pool_impl.trace import Trace

ALL = pytest.mark.parametrize("kernel", list(RELEASES))
HEAD_END = 704


def buffer(
    trace: Trace, handle: int, frags: int, *, linear: int = 0, in_page: bool = False, size: int = 100
) -> None:
    """An unmarked skb with ordinary pages: a head of 704 bytes, and so many fragments of ``size`` bytes."""
    if in_page:
        trace.op("page_alloc", h=1000 * handle, order=0)
        trace.op(
            "build_skb", s=handle, h=1000 * handle, off=0, size=1024, headroom=64, len=linear, napi=0, own=0
        )
    else:
        trace.op("alloc_skb", s=handle, kind=0, size=HEAD_END, headroom=64, len=linear)
    for number in range(1000 * handle + 1, 1000 * handle + 1 + frags):
        trace.op("page_alloc", h=number, order=0)
        trace.op("add_rx_frag", s=handle, h=number, off=0, len=size, truesize=2048, own=0)


def two(
    kernel: str, to: int, source: int, *, linear: int = 0, in_page: bool = False, size: int = 100
) -> Trace:
    """skb 1 with so many fragments, and skb 2, which has the head that is asked for."""
    trace = Trace(kernel)
    buffer(trace, 1, to)
    buffer(trace, 2, source, linear=linear, in_page=in_page, size=size)
    return trace


def merge(trace: Trace, headers: int = 0) -> dict[str, int]:
    return trace.op("gro_receive", **{"to": 1, "from": 2, "hdr": headers})


def member(trace: Trace, handle: int = 1) -> tuple[int, int]:
    """The first skb of the list, and its data."""
    data = trace.buffers.shared[trace.buffers.skbs[trace.skbs[handle]].shared]
    first = int(data.frag_list)
    return first, int(trace.buffers.skbs[first].shared)


# skb_try_coalesce


@ALL
@pytest.mark.parametrize(("length", "left"), [(540, 0), (541, 1)])
def test_data_that_fit_into_the_tail_are_copied(kernel: str, length: int, left: int) -> None:
    """100 of 704 - 64 bytes are used: 540 are free. One more, from the slab, and nothing is merged."""
    trace = Trace(kernel)
    buffer(trace, 1, 0, linear=100)
    buffer(trace, 2, 0, linear=length)
    before = trace.look(1)["truesize"]
    assert trace.op("try_coalesce", **{"to": 1, "from": 2})["ret"] == 1 - left
    state = trace.look(1)
    assert (state["len"], state["data_len"], state["truesize"]) == (100 + (1 - left) * 540, 0, before)
    assert len(trace.skbs) == 1 + left


@ALL
def test_behind_pages_there_is_no_tail(kernel: str) -> None:
    """Not for a single byte: it would come before what is in the pages (skb_tailroom)."""
    trace = two(kernel, 1, 0, linear=1)
    assert trace.op("try_coalesce", **{"to": 1, "from": 2})["ret"] == 0
    assert trace.look(1)["len"] == 100


@ALL
@pytest.mark.parametrize(
    ("linear", "to", "source", "merged"), [(0, 9, 8, 1), (0, 9, 9, 0), (700, 8, 8, 1), (700, 9, 8, 0)]
)
def test_coalescing_stops_at_17_fragments(
    kernel: str, linear: int, to: int, source: int, merged: int
) -> None:
    """A head with data becomes a fragment, too."""
    trace = two(kernel, to, source, linear=linear, in_page=True)
    result = trace.op("try_coalesce", **{"to": 1, "from": 2})
    # with the head all memory but the record moves, without it what the pages take
    moved = source * 2048 + (1024 if linear else 0)
    assert result == {"ret": merged, "stolen": int(merged and linear > 0), "delta": moved * merged}
    assert len(trace.look(1)["frags"]) == (MAX_SKB_FRAGS if merged else to)


# skb_gro_receive


@ALL
@pytest.mark.parametrize(("payload", "result"), [(5535, 0), (5536, -errno.E2BIG)])
def test_a_merged_packet_stays_below_64_kib(kernel: str, payload: int, result: int) -> None:
    trace = Trace(kernel)
    buffer(trace, 1, 1, size=60000)
    buffer(trace, 2, 1, size=payload)
    assert merge(trace)["ret"] == result
    assert trace.look(1)["len"] == 60000 + (payload if result == 0 else 0)


@ALL
@pytest.mark.parametrize(
    ("linear", "to", "source", "left"),
    [(0, 9, 8, "merged"), (0, 9, 9, "kept"), (40, 8, 8, "stolen"), (40, 9, 8, "kept"), (40, 17, 0, "kept")],
)
def test_gro_goes_on_in_a_list_behind_17_fragments(
    kernel: str, linear: int, to: int, source: int, left: str
) -> None:
    trace = two(kernel, to, source, linear=linear, in_page=True)
    trace.op("set_gso_size", s=1, size=1000)
    before = trace.look(1)
    assert merge(trace) == {"ret": 0, "free": {"kept": 0, "merged": 1, "stolen": 2}[left]}
    state = trace.look(1)
    payload = linear + 100 * source
    assert (state["len"] - before["len"], state["data_len"] - before["data_len"]) == (payload, payload)
    memory = {"kept": 1024 + 256 + source * 2048, "merged": source * 2048, "stolen": 1024 + source * 2048}[
        left
    ]
    assert state["truesize"] - before["truesize"] == memory
    assert len(state["frags"]) == (to if left == "kept" else to + source + (left == "stolen"))
    assert len(state["frag_list"]) == (left == "kept")
    assert Skbs(trace.buffers).faults() == []


@ALL
@pytest.mark.parametrize("headers", [0, 30])
def test_what_gro_leaves_of_a_packet_whose_fragments_it_took(kernel: str, headers: int) -> None:
    """The skb that is freed next has its head only, and accounts for no more."""
    trace = two(kernel, 2, 3, linear=20)
    source = trace.skbs[2]
    if headers == 0:
        trace.skb(skb_calls.PULL, source, 20)
    results = trace.pair(skb_calls.GRO_RECEIVE, {"to": 1, "from": 2}, "to", "from", headers)
    assert results[:2] == [0, 1]
    state = trace.look(2)
    linear = 20 if headers else 0
    assert (state["len"], state["data_len"], state["frags"]) == (linear, 0, [])
    assert state["truesize"] == HEAD_END + 320 + 256
    merged = trace.look(1)
    assert [frag[1:] for frag in merged["frags"][2:]] == [
        [headers - linear, 100 - headers + linear],
        [0, 100],
        [0, 100],
    ]


@ALL
@pytest.mark.parametrize(("headers", "offset", "pulled"), [(10, 0, 10), (20, 0, 20), (50, 30, 20)])
def test_headers_are_cut_off_a_member_of_the_list(
    kernel: str, headers: int, offset: int, pulled: int
) -> None:
    """Also if they reach into the first fragment. Nobody but the list needs its header part any more."""
    trace = two(kernel, MAX_SKB_FRAGS, 2, linear=20)
    trace.op("set_gso_size", s=1, size=1000)
    assert merge(trace, headers) == {"ret": 0, "free": 0}
    first, shared = member(trace)
    listed, data = trace.buffers.skbs[first], trace.buffers.shared[shared]
    assert (listed.headroom, listed.len, listed.data_len) == (64 + pulled, 220 - headers, 200 - offset)
    assert (data.frag_offset[:2].tolist(), data.frag_size[:2].tolist()) == ([offset, 0], [100 - offset, 100])
    assert (listed.nohdr, data.dataref) == (1, 0x10001)
    assert trace.look(1)["len"] == 1700 + 220 - headers
    assert Skbs(trace.buffers).faults() == []


@pytest.mark.parametrize(("kernel", "result"), [("5.14", 0), ("6.1", 0), ("6.12", -errno.E2BIG)])
@pytest.mark.parametrize("more", [0, 1])
def test_heads_in_a_list_are_no_longer_than_a_segment(kernel: str, result: int, more: int) -> None:
    """6.12 cuts lists at segments, which a longer head would not allow."""
    trace = two(kernel, MAX_SKB_FRAGS, 1, linear=220)
    trace.op("set_gso_size", s=1, size=200 - more)
    assert merge(trace, 20)["ret"] == (result if more else 0)


# skb_shift


def shifted(kernel: str, to: int, sizes: list[int], *, linear: int = 0) -> Trace:
    """skb 1 with so many fragments, skb 2 with fragments of these sizes."""
    trace = Trace(kernel)
    buffer(trace, 1, to)
    trace.op("alloc_skb", s=2, kind=0, size=HEAD_END, headroom=64, len=linear)
    for number, size in enumerate(sizes, start=2001):
        trace.op("page_alloc", h=number, order=0)
        trace.op("add_rx_frag", s=2, h=number, off=0, len=size, truesize=2048, own=0)
    return trace


def shift(trace: Trace, length: int) -> int:
    return int(trace.op("skb_shift", **{"to": 1, "from": 2, "len": length})["ret"])


def parts(trace: Trace, handle: int) -> list[list[int]]:
    """Offset and length of each fragment."""
    return [frag[1:] for frag in trace.look(handle)["frags"]]


SHIFTS = [
    # sizes of the source's fragments, lengths that are moved, what both have then, references to the pages
    ([1000], [400], [[0, 400]], [[400, 600]], [2]),
    ([1000], [400, 300], [[0, 700]], [[700, 300]], [2]),
    ([1000], [400, 600], [[0, 1000]], [], [1]),
    ([1000], [1000], [[0, 1000]], [], [1]),
    ([1000, 500], [400, 700], [[0, 1000], [0, 100]], [[100, 400]], [1, 2]),
    ([1000, 500], [400, 600], [[0, 1000]], [[0, 500]], [1, 1]),
    ([1000, 500], [1000, 500], [[0, 1000], [0, 500]], [], [1, 1]),
    ([1000, 500, 200], [1, 1500, 199], [[0, 1000], [0, 500], [0, 200]], [], [1, 1, 1]),
    ([1000, 500, 200], [1, 1499, 199], [[0, 1000], [0, 500], [0, 199]], [[199, 1]], [1, 1, 2]),
    ([1000, 500, 200], [1700], [[0, 1000], [0, 500], [0, 200]], [], [1, 1, 1]),
]


@ALL
@pytest.mark.parametrize(("sizes", "lengths", "target", "source", "references"), SHIFTS)
@pytest.mark.parametrize("cloned", [False, True])
def test_fragments_are_shifted_whole_or_in_parts(
    kernel: str,
    sizes: list[int],
    lengths: list[int],
    target: list[list[int]],
    source: list[list[int]],
    references: list[int],
    cloned: bool,
) -> None:
    """A part needs a reference of its own, until the rest follows and both are one fragment again."""
    trace = shifted(kernel, 0, sizes)
    pages = [
        int(page)
        for page in trace.buffers.shared[trace.buffers.skbs[trace.skbs[2]].shared].frag_page[: len(sizes)]
    ]
    if cloned:
        for handle in (1, 2):
            trace.op("skb_clone", s=handle, new=handle + 10)
    before = [trace.look(handle)["truesize"] for handle in (1, 2)]
    for length in lengths:
        assert shift(trace, length) == length
        assert Skbs(trace.buffers).faults() == []
    moved = sum(lengths)
    assert (parts(trace, 1), parts(trace, 2)) == (target, source)
    after = [trace.look(handle)["truesize"] for handle in (1, 2)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [moved, -moved]
    assert (trace.look(1)["len"], trace.look(2)["len"]) == (moved, sum(sizes) - moved)
    assert [int(trace.host.pages[page].refcount) - cloned for page in pages] == references
    for handle in list(trace.skbs):
        trace.op("kfree_skb", s=handle)
    assert trace.host.page_allocator.used_pages.sum() == 0


@ALL
@pytest.mark.parametrize(
    ("to", "sizes", "length", "moved", "linear"),
    [
        (0, [1000], 500, 0, 10),  # the source has linear data
        (15, [100, 100], 200, 200, 0),
        (16, [100, 100], 200, 0, 0),  # all of it, but there is no room
        (16, [100, 100, 100], 150, 0, 0),
        (16, [100, 100], 100, 100, 0),
        (17, [100, 100], 100, 0, 0),
        (17, [100, 100], 50, 0, 0),
        (16, [100, 100], 50, 50, 0),
    ],
)
def test_a_shift_moves_all_or_nothing(
    kernel: str, to: int, sizes: list[int], length: int, moved: int, linear: int
) -> None:
    trace = shifted(kernel, to, sizes, linear=linear)
    before = trace.all_skbs()
    assert shift(trace, length) == moved
    if moved == 0:
        assert trace.all_skbs() == before
    assert trace.look(1)["len"] == 100 * to + moved
    assert Skbs(trace.buffers).faults() == []


@ALL
@pytest.mark.parametrize(("to", "moved"), [(15, 190), (16, 190), (17, 190)])
def test_a_shift_into_the_last_fragment_needs_room_for_the_others_only(
    kernel: str, to: int, moved: int
) -> None:
    trace = shifted(kernel, to - 1, [100, 100])
    assert shift(trace, 10) == 10
    room = MAX_SKB_FRAGS - to
    assert shift(trace, 190) == (moved if room >= 1 else 0)
    assert shift(trace, 50 if room < 1 else 0) == (50 if room < 1 else 0)
    assert Skbs(trace.buffers).faults() == []


@ALL
@pytest.mark.parametrize(("to", "sizes"), [(16, [100, 100]), (17, [100]), (0, [10] * 17)])
def test_a_shift_of_all_that_has_no_room_leaves_clones_alone(kernel: str, to: int, sizes: list[int]) -> None:
    """Only when there is room both get private data; 17 fragments have room in none."""
    trace = shifted(kernel, to, sizes)
    for handle in (1, 2):
        trace.op("skb_clone", s=handle, new=handle + 10)
    before = trace.all_skbs()
    moved = sum(sizes) if to == 0 else 0
    assert shift(trace, sum(sizes)) == moved
    assert (trace.all_skbs() == before) == (moved == 0)


@ALL
def test_a_part_follows_the_last_fragment_and_no_other(kernel: str) -> None:
    """Not one that was there before: what lies behind the last fragment is old."""
    trace = shifted(kernel, 0, [500])
    trace.op("page_alloc", h=2900, order=0)
    trace.op("add_rx_frag", s=2, h=2900, off=100, len=500, truesize=2048, own=0)
    assert (shift(trace, 700), shift(trace, 100)) == (700, 100)
    assert (parts(trace, 1), parts(trace, 2)) == ([[0, 500], [100, 300]], [[400, 200]])
    trace = shifted(kernel, 16, [1000])
    assert shift(trace, 400) == 400
    assert trace.op("skb_linearize", s=1) == {"ret": 0}
    assert shift(trace, 600) == 600
    assert (parts(trace, 1), parts(trace, 2)) == ([[400, 600]], [])


@ALL
def test_parts_of_any_page_are_one_fragment_again(kernel: str) -> None:
    """Also of the page with the lowest number."""
    trace = shifted(kernel, 0, [])
    handle = 5000
    trace.op("page_alloc", h=handle, order=0)
    while trace.handles[handle].page != 1:
        handle += 1
        trace.op("page_alloc", h=handle, order=0)
    trace.op("add_rx_frag", s=2, h=handle, off=0, len=1000, truesize=2048, own=0)
    assert (shift(trace, 400), shift(trace, 300)) == (400, 300)
    assert (parts(trace, 1), parts(trace, 2)) == ([[0, 700]], [[700, 300]])


@ALL
@pytest.mark.parametrize("cloned", [1, 2])
def test_a_shift_without_memory_for_private_data(kernel: str, cloned: int) -> None:
    """Both skbs must be alone with their data."""
    trace = shifted(kernel, 1, [100, 100])
    trace.op("skb_clone", s=cloned, new=9)
    before = trace.all_skbs()
    with trace.slab(9, 0):
        assert shift(trace, 150) == 0
    assert trace.all_skbs() == before
    assert shift(trace, 150) == 150


# skb_split


@ALL
@pytest.mark.parametrize(
    ("length", "first", "second"),
    [
        (10, (10, []), (30, [[0, 100], [0, 100]])),
        (39, (39, []), (1, [[0, 100], [0, 100]])),
        (40, (40, []), (0, [[0, 100], [0, 100]])),
        (90, (40, [[0, 50]]), (0, [[50, 50], [0, 100]])),
        (140, (40, [[0, 100]]), (0, [[0, 100]])),
        (190, (40, [[0, 100], [0, 50]]), (0, [[50, 50]])),
    ],
)
def test_a_split_cuts_at_any_byte(
    kernel: str, length: int, first: tuple[int, list[list[int]]], second: tuple[int, list[list[int]]]
) -> None:
    trace = shifted(kernel, 0, [100, 100], linear=40)
    trace.op("skb_split", s=2, to=1, len=length)
    for handle, (linear, frags) in ((2, first), (1, second)):
        state = trace.look(handle)
        paged = sum(size for _, size in frags)
        assert (state["len"] - state["data_len"], state["data_len"], parts(trace, handle)) == (
            linear,
            paged,
            frags,
        )
    assert Skbs(trace.buffers).faults() == []
    for handle in (1, 2):
        trace.op("kfree_skb", s=handle)
    assert trace.host.page_allocator.used_pages.sum() == 0


# skb_pp_cow_data


LARGEST = 4096 - 192 - 320
"""linear bytes of a copy in one page with 192 bytes of headroom"""


def copied(length: int) -> Trace:
    """skb 1 of so many bytes, most of them in one fragment."""
    trace = Trace("6.12")
    trace.op("alloc_skb", s=1, kind=0, size=HEAD_END, headroom=64, len=40)
    trace.op("page_alloc", h=1, order=0)
    trace.op("add_rx_frag", s=1, h=1, off=0, len=length - 40, truesize=4096, own=0)
    trace.op("set_gso_size", s=1, size=1448)
    return trace


@pytest.mark.parametrize(
    ("length", "linear", "frags"),
    [
        (LARGEST - 1, LARGEST - 1, 0),
        (LARGEST, LARGEST, 0),
        (LARGEST + 1, LARGEST, 1),
        (LARGEST + 4096, LARGEST, 1),
        (LARGEST + 4097, LARGEST, 2),
        (LARGEST + 17 * 4096, LARGEST, 17),
    ],
)
def test_a_copy_into_a_pool_fills_one_page_and_then_fragments(length: int, linear: int, frags: int) -> None:
    trace = copied(length)
    assert trace.op("pp_cow_data", s=1, pool=0, headroom=192) == {"ret": 0}
    state = trace.look(1)
    assert (state["len"], state["len"] - state["data_len"], state["headroom"]) == (length, linear, 192)
    assert len(state["frags"]) == frags
    assert sum(frag[2] for frag in state["frags"]) == length - linear
    assert trace.marked(1)
    assert trace.buffers.shared[trace.buffers.skbs[trace.skbs[1]].shared].gso_size == 1448
    assert Skbs(trace.buffers).faults() == []
    assert Skbs(trace.buffers).used == [trace.skbs[1]]


def test_a_copy_into_a_pool_has_17_fragments_at_most() -> None:
    trace = copied(LARGEST + 17 * 4096 + 1)
    before = trace.all_skbs()
    assert trace.op("pp_cow_data", s=1, pool=0, headroom=192) == {"ret": -12}
    assert trace.all_skbs() == before
    assert trace.counters() == {}


@pytest.mark.parametrize(("skbs", "heads"), [(0, 9), (9, 0)])
def test_a_copy_into_a_pool_gives_the_page_back_without_an_skb(skbs: int, heads: int) -> None:
    """Into the cache: the copy runs where the pool is polled."""
    trace = copied(3000)
    trace.alloc(99)
    before = trace.counters()
    with trace.slab(skbs, heads):
        assert trace.op("pp_cow_data", s=1, pool=0, headroom=192) == {"ret": -12}
    moved = trace.moved(before)
    assert (moved.pop("fast"), moved) == (1, {"cached": 1})
    assert Skbs(trace.buffers).faults() == []
    assert list(trace.skbs) == [1]


@pytest.mark.parametrize("pages", [0, 1, 2])
def test_a_copy_into_a_pool_that_runs_out_of_pages_is_undone(pages: int) -> None:
    trace = copied(LARGEST + 4096 + 1)
    before = trace.all_skbs()
    trace.op("page_fail", skip=pages, count=9)
    assert trace.op("pp_cow_data", s=1, pool=0, headroom=192) == {"ret": -12}
    assert trace.all_skbs() == before
    assert Skbs(trace.buffers).used == [trace.skbs[1]]
    counters = trace.counters()
    assert counters.get("hold", 0) - counters.get("release", 0) == counters.get("cache", 0) + counters.get(
        "in_ring", 0
    )
    assert trace.buffers.skbs[trace.skbs[1]].fclone == FCLONE_NONE
