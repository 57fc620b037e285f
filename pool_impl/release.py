"""What differs between kernel releases, as data.

Release numbers stand nowhere else. A value belongs here when two releases differ in it or a further
release is known to. Rules of skbs are apart, so that the pool's hot path carries only its own.
"""

from typing import NamedTuple

from pool_impl.layout import BH_DISABLED, PROCESS, SERVING_SOFTIRQ

REFUSE, SHARE, REFERENCE = range(3)
"""what coalescing does with a marked source whose data has another holder: nothing, one more share of
each pool page, one more plain reference of each page (spec 6.5)"""


class SkbRules(NamedTuple):
    """Rules of one release for skbs."""

    small_head_bytes: int
    """heads that fit are of this one size; 0: heads come by bucket"""
    page_head_above_bytes: int
    """network buffers above this, headroom included, have part of a page as head"""
    coalesce_marked_clone: int
    """REFUSE, SHARE or REFERENCE"""
    gro_compares_marks: int
    """1: GRO does not merge a marked skb with one that is not (spec 6.6)"""
    gro_limits_list_heads: int
    """1: no list member whose head has more data than a segment"""
    unclone_restores_end: int
    """1: uncloning with the truesize kept keeps the end of the head as well"""
    tcp_defers_frees: int
    """1: a TCP reader leaves an skb to the CPU that allocated it (spec 6.7)"""


class Rules(NamedTuple):
    """Rules of one release for pools; plain integers, so that they pass into compiled code."""

    known_flags: int
    """flag bits that creation accepts"""
    ring_size_limit: int
    """largest ring"""
    ring_size_refused_above: int
    """a larger request is E2BIG; up to it, one above the limit is cut. 0: never refused (spec 1.4)"""
    frag_flag_needed: int
    """1: fragments need FLAG_PAGE_FRAG, and only then are fragment counts looked at"""
    frag_bias: int
    """fragment count of a page that is being cut up"""
    frag_align_bytes: int
    """fragment sizes are rounded up to this"""
    idle_shares: int
    """fragment count of a page that enters a pool; if not 0, also what a count is reset to when the last
    share is given up (spec 3.3)"""
    direct_context: int
    """an allow_direct counts in this context and those above it; in others it is ignored (spec 3.5)"""
    local_recycling: int
    """1: any return on the CPU that owns the pool's NAPI instance, or the pool, is direct (spec 3.5)"""
    pool_sets_owner: int
    """1: a page names its pool from when it enters until it leaves; 0: an skb's driver names it for each
    packet, and freeing the skb takes the name away (spec 6.2)"""
    xdp_finds_pool_by_id: int
    """1: a returned XDP frame names its pool by memory id; 0: its page does (spec 6.8)"""
    bulk_honours_nid: int
    """0: a bulk fill takes pages of the local node whatever the pool prefers (spec 2.2)"""
    refill_locks_ring: int
    """1: refill takes the ring's consumer lock (spec 1.7)"""
    unmaps_at_destroy: int
    """1: the first pass of the end unmaps the pages that are out and stops syncing (spec 4.2)"""
    retries_when_negative: int
    """1: the deferred release goes on when more pages left than entered (spec 4.2)"""
    drivers_release_pages: int
    """1: a driver may take a page out of its pool for good, as it does that recycles no skbs (spec 3.1)"""
    skbs_of_frames_recycle: int
    """1: an skb made of an XDP frame is marked; 0: the frame's pages leave their pool for it (spec 6.8)"""
    bounce_is_filled: int
    """1: mapping a receive buffer through swiotlb copies it to its bounce buffer (kernel 5.18), not a rule of
    page_pool's"""


RELEASES = {
    "5.14": Rules(
        known_flags=0x3,
        ring_size_limit=32768,
        ring_size_refused_above=32768,
        frag_flag_needed=1,  # a flag that it does not have: no fragments
        frag_bias=0,
        frag_align_bytes=1,
        idle_shares=0,
        direct_context=SERVING_SOFTIRQ,
        local_recycling=0,
        pool_sets_owner=0,
        xdp_finds_pool_by_id=1,
        bulk_honours_nid=0,
        refill_locks_ring=1,
        unmaps_at_destroy=0,
        retries_when_negative=1,
        drivers_release_pages=1,
        skbs_of_frames_recycle=0,
        bounce_is_filled=0,
    ),
    "6.1": Rules(
        known_flags=0x7,
        ring_size_limit=16384,
        ring_size_refused_above=0,
        frag_flag_needed=1,
        frag_bias=(1 << 63) - 1,
        frag_align_bytes=8,
        idle_shares=0,
        direct_context=BH_DISABLED,
        local_recycling=0,
        pool_sets_owner=1,
        xdp_finds_pool_by_id=0,
        bulk_honours_nid=1,
        refill_locks_ring=0,
        unmaps_at_destroy=0,
        retries_when_negative=0,
        drivers_release_pages=1,
        skbs_of_frames_recycle=0,
        bounce_is_filled=1,
    ),
    "6.12": Rules(
        known_flags=0xF,
        ring_size_limit=16384,
        ring_size_refused_above=0,
        frag_flag_needed=0,
        frag_bias=((1 << 63) - 1) >> 1,
        frag_align_bytes=8,
        idle_shares=1,
        direct_context=PROCESS,
        local_recycling=1,
        pool_sets_owner=1,
        xdp_finds_pool_by_id=0,
        bulk_honours_nid=1,
        refill_locks_ring=0,
        unmaps_at_destroy=1,
        retries_when_negative=0,
        drivers_release_pages=0,
        skbs_of_frames_recycle=1,
        bounce_is_filled=1,
    ),
}
"""rules by release: 5.14 as the feature landed, 6.1 = 6.1.192, 6.12 = 6.12.117"""


SKB_RELEASES = {
    "5.14": SkbRules(
        small_head_bytes=0,
        page_head_above_bytes=704,
        coalesce_marked_clone=REFERENCE,
        gro_compares_marks=0,
        gro_limits_list_heads=0,
        unclone_restores_end=0,
        tcp_defers_frees=0,
    ),
    "6.1": SkbRules(
        small_head_bytes=0,
        page_head_above_bytes=704,
        coalesce_marked_clone=REFUSE,
        gro_compares_marks=1,
        gro_limits_list_heads=0,
        unclone_restores_end=1,
        tcp_defers_frees=1,
    ),
    "6.12": SkbRules(
        small_head_bytes=704,
        page_head_above_bytes=384,
        coalesce_marked_clone=SHARE,
        gro_compares_marks=1,
        gro_limits_list_heads=1,
        unclone_restores_end=1,
        tcp_defers_frees=1,
    ),
}
"""rules of skbs by release"""

DEFAULT_RELEASE = "6.1"


def rules_of(kernel: str) -> Rules:
    """Rules of pools for a release or one of its versions, such as ``6.1`` or ``6.1.192``.

    Raises:
        KeyError: no rules for this release.
    """
    return RELEASES[_release(kernel)]


def skb_rules_of(kernel: str) -> SkbRules:
    """Rules of skbs, likewise.

    Raises:
        KeyError: no rules for this release.
    """
    return SKB_RELEASES[_release(kernel)]


def _release(kernel: str) -> str:
    return ".".join(kernel.split(".")[:2])
