"""Which test is for which invariant and corner case of the specification (sections 11 and 12).

Each number has tests, by module and name, or the reason why it has none.
"""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent


class Line(NamedTuple):
    """One line of the specification."""

    number: int
    subject: str
    tests: tuple[str, ...] = ()
    reason: str = ""
    """why there is no test, or what none of them shows"""


RANDOM = "random::test_no_page_is_lost_or_used_after_its_return"
OUTCOME = "invariants::test_the_outcome_of_one_return"
FILL = "invariants::test_a_fill_with_missing_pages_and_failing_maps"
RING = "ring::test_any_interleaving_equals_a_second_implementation"
FOREIGN = "invariants::test_pages_of_another_node_leave_one_for_each_refill"
CUT_UP = "invariants::test_a_cut_up_page_comes_back_once"
CLONE = "invariants::test_a_clone_with_data_of_its_own_has_references_and_no_mark"
NEW_HEAD = "invariants::test_a_new_head_without_a_clone_keeps_mark_and_shares"
STALLS = "invariants::test_a_pool_waits_for_its_pages_and_says_so_every_60_seconds"
CACHE_ONCE = "invariants::test_the_cache_is_emptied_in_the_first_pass_only"
NEGATIVE = "release::test_the_deferred_release_with_more_pages_gone_than_came"
USERS = "xdp::test_a_registered_pool_has_two_users_and_its_id_lasts_until_it_is_gone"
THREADS = "threads::test_no_page_is_lost_or_duplicated_or_recycled_in_use"
GOES = "threads::test_a_pool_goes_while_its_pages_are_being_returned"
WRAP = "invariants::test_counts_near_the_wrap_of_32_bits_change_nothing"
SYNC = "invariants::test_a_sync_covers_what_was_asked_up_to_the_limit"
LIFO = "invariants::test_a_refill_hands_out_the_last_page_first_and_releases_none"
REFILL = "invariants::test_a_refill_moves_64_pages_and_leaves_63"
RESERVES = "invariants::test_a_page_from_the_reserves_stays_known_as_one"
CREATE = "create::test_ring_size_is_the_default_or_clamped"
REFUSED = "release::test_an_unknown_flag_is_refused_before_an_oversized_ring"
OVERFLOW = "golden::test_g7_bulk_returns_count_an_overflow_once_each"
RECYCLE_RING = "invariants::test_returns_from_skbs_never_use_the_cache"
XDP_WHERE = "xdp::test_where_a_returned_frame_goes"
REUSED = "invariants::test_a_reused_page_is_synced_whole_and_the_count_of_pages_stays"
LARGE = "invariants::test_large_pages_come_one_at_a_time"
COALESCE = "release::test_coalescing_from_a_marked_clone"
UNMAPS = "release::test_what_destroy_unmaps"

INVARIANTS = (
    Line(1, "bounds of the cache, and after a refill", (REFILL, OUTCOME, RANDOM)),
    Line(2, "what an idle page is like", (RANDOM, "audit::test_a_changed_word_is_a_fault")),
    Line(3, "no page is idle twice", (RANDOM, "audit::test_a_page_put_twice_is_a_fault", THREADS)),
    Line(4, "in flight: idle and held", (RANDOM, "audit::test_a_changed_count_is_a_fault", THREADS)),
    Line(5, "live mappings are the pages in flight", (RANDOM,)),
    Line(6, "hold moves in the slow path only", (RANDOM, REFILL)),
    Line(7, "release moves when a page leaves only", (RANDOM, OUTCOME)),
    Line(8, "counts wrap at 32 bits", (WRAP,)),
    Line(9, "allocations by path add up", (RANDOM, THREADS)),
    Line(10, "one path for each allocation", (RANDOM,)),
    Line(11, "empty once at most, never with refill", (RANDOM, FOREIGN)),
    Line(12, "waive once at most", (RANDOM, FOREIGN)),
    Line(13, "a failed allocation is on no path", (RANDOM, FILL)),
    Line(14, "a return that is not the last changes nothing", (CUT_UP,)),
    Line(15, "cache counters need a direct return", (OUTCOME, RECYCLE_RING, RANDOM)),
    Line(16, "cache_full goes on to the ring", (OUTCOME, RANDOM)),
    Line(17, "one way for each return", (OUTCOME, RANDOM)),
    Line(18, "bulk: ring_full once", ("invariants::test_a_bulk_counts_an_overflow_once", OVERFLOW)),
    Line(19, "released for another reference or the reserves", (OUTCOME,)),
    Line(20, "a referenced page loses one reference and its marks", (OUTCOME,)),
    Line(21, "length and start of a sync", (SYNC, "invariants::test_without_the_flag_nothing_is_synced")),
    Line(22, "number of syncs", (REUSED, OUTCOME, RANDOM)),
    Line(23, "refill reverses", (LIFO,)),
    Line(24, "refill of matching pages releases none", (LIFO, REFILL)),
    Line(25, "wrong nodes drain one for each refill", (FOREIGN,)),
    Line(26, "update_nid empties the cache", ("invariants::test_a_new_node_empties_the_cache_only",)),
    Line(27, "large pages: one at a time", (LARGE, RANDOM)),
    Line(28, "a fill with failed maps", (FILL,)),
    Line(29, "a fill of which all maps fail", (FILL,)),
    Line(30, "produce looks at the slot", (RING,)),
    Line(31, "the ring is FIFO", (RING,)),
    Line(32, "a full ring hands back in batches", ("ring::test_r1_a_full_ring_hands_slots_back_in_batches",)),
    Line(33, "small rings hand back at once", ("ring::test_r2_small_rings_hand_back_at_once", RING)),
    Line(34, "distance of head and tail", (RANDOM, RING)),
    Line(35, "a ring of size 0", (CREATE,), "no pool has one: a size of 0 means 1024, and less is refused"),
    Line(
        36,
        "empty though slots are not cleared",
        ("invariants::test_a_ring_with_uncleared_slots_is_empty_when_all_is_consumed",),
    ),
    Line(
        37,
        "fragments do not overlap",
        ("invariants::test_fragments_of_a_page_follow_each_other_and_do_not_overlap",),
    ),
    Line(38, "shares left after the pool is done with a page", (CUT_UP,)),
    Line(39, "a cut up page comes back once", (CUT_UP,)),
    Line(40, "reuse of a page that nobody has a part of", (REUSED, CUT_UP)),
    Line(41, "a fragment too large", ("invariants::test_a_fragment_larger_than_a_page_changes_nothing",)),
    Line(42, "no page is lost by skbs in any order", (RANDOM,)),
    Line(
        43,
        "the last clone returns the page",
        ("invariants::test_clones_return_the_page_with_the_last_of_them",),
    ),
    Line(44, "detached skbs have no mark", (CLONE,)),
    Line(45, "a new head of a clone takes references", (CLONE,)),
    Line(
        46,
        "unequal marks are not merged",
        (
            COALESCE,
            "release::test_coalescing_needs_equal_marks",
            "release::test_gro_with_unequal_marks",
            RANDOM,
        ),
    ),
    Line(
        47,
        "ordinary pages in a marked skb",
        ("invariants::test_an_ordinary_page_in_a_marked_skb_is_freed_once",),
    ),
    Line(
        48,
        "pool pages in an unmarked skb",
        (
            "random::test_the_books_notice_a_page_that_lost_its_mark",
            "api::test_a_page_that_left_the_pool_goes_with_an_unmarked_skb",
            "audit::test_only_recordings_of_misuse_have_faults",
        ),
    ),
    Line(49, "slab heads are never a pool's", (NEW_HEAD,)),
    Line(50, "two users of a pool", (USERS,)),
    Line(51, "an idle pool goes at once", ("invariants::test_a_pool_that_has_all_its_pages_goes_at_once",)),
    Line(
        52,
        "the deferred release and its warnings",
        (STALLS,),
        "that passes are 1 s apart is up to the caller",
    ),
    Line(53, "cache emptied once, ring in each pass", (CACHE_ONCE, STALLS)),
    Line(54, "more gone than came", (NEGATIVE,)),
    Line(55, "the disconnect hook", (USERS,), "there is no hook: an id is looked up, and ends with its pool"),
    Line(
        56,
        "unmapped once, and no sync at the end",
        (UNMAPS, "invariants::test_a_page_that_outlives_the_device_is_unmapped_late_up_to_6_1", RANDOM),
    ),
    Line(57, "ring sizes", (CREATE, "release::test_a_ring_above_32768_is_refused_by_5_14_only")),
    Line(
        58,
        "the first failing check wins",
        (REFUSED, "create::test_refusals_name_the_field_and_leave_nothing_behind"),
    ),
)

CORNER_CASES = (
    Line(1, "idle pages are in flight", ("api::test_g2_a_thousand_direct_returns",)),
    Line(2, "the ring has no count", ("ring::test_r1_a_full_ring_hands_slots_back_in_batches", RING)),
    Line(3, "refill is LIFO", (LIFO,)),
    Line(4, "fast, refill and slow", ("golden::test_g1_alloc_then_ring_then_alloc", REFILL)),
    Line(5, "no empty for a wrong node", (FOREIGN,)),
    Line(6, "one wrong page for each refill", (FOREIGN,)),
    Line(
        7,
        "no node of its own",
        ("invariants::test_without_a_node_of_its_own_a_pool_goes_by_the_cpu_that_refills",),
    ),
    Line(8, "size 0 and node 0", (CREATE, "invariants::test_node_0_is_a_node_like_others")),
    Line(9, "the reserves share a counter", (OUTCOME,)),
    Line(
        10,
        "maps happen once",
        ("golden::test_g10_a_receive_ring_that_is_freed_before_its_refill_never_maps_again", OUTCOME),
    ),
    Line(11, "sync lengths and parts", (SYNC, REUSED)),
    Line(12, "sync before the cache, too", (OUTCOME,)),
    Line(13, "cache_full drops no page", (OUTCOME,)),
    Line(14, "ring_full of a bulk is no count of pages", (OVERFLOW,)),
    Line(
        15,
        "no subtraction for the last share",
        (
            "invariants::test_the_last_return_of_a_cut_up_page_counts_nothing_down",
            "invariants::test_more_shares_given_up_at_once_leave_a_count_of_one",
        ),
    ),
    Line(
        16,
        "whole pages of a pool for fragments",
        (
            "invariants::test_a_whole_page_of_a_pool_for_fragments_has_no_share",
            "api::test_a_share_count_below_zero_is_refused",
        ),
    ),
    Line(17, "frag_ref is plain", ("invariants::test_a_reference_to_a_fragment_is_a_plain_one",)),
    Line(18, "copies have no mark", ("invariants::test_copies_are_not_marked",)),
    Line(19, "detaching clears the mark", (CLONE,)),
    Line(20, "an uncloned new head keeps it", (NEW_HEAD,)),
    Line(
        21,
        "fragments before the head",
        ("invariants::test_fragments_go_back_before_the_head",),
        "an XDP frame's pages are returned one by one, in the caller's order",
    ),
    Line(22, "tail pages", reason="a page of any order is one record, that of its head"),
    Line(23, "the signature under a mask", (RESERVES,)),
    Line(24, "the signature is added", (RESERVES,)),
    Line(25, "no use after the last release", (GOES,)),
    Line(
        26,
        "the producer lock is cycled",
        (GOES, "threads::test_a_pool_that_does_not_wait_for_its_producers_is_detected"),
    ),
    Line(27, "the cache is emptied once", (CACHE_ONCE,)),
    Line(28, "returns to the ring after destroy", (STALLS,)),
    Line(29, "negative in flight", (NEGATIVE,)),
    Line(
        30,
        "direct only where it is safe",
        (
            "release::test_where_a_direct_return_may_use_the_cache",
            "release::test_whether_a_return_on_the_pools_cpu_is_direct",
        ),
    ),
    Line(31, "skbs return to the ring", (RECYCLE_RING,)),
    Line(
        32, "build_skb without a size", (NEW_HEAD,), "build takes the size always; a slab head is no pool's"
    ),
    Line(33, "truesize", ("invariants::test_the_truesize_is_the_memory_and_not_the_payload",)),
    Line(34, "several descriptors", reason="descriptors are the driver's, not the allocator's"),
    Line(
        35,
        "refill before or after freeing",
        ("golden::test_g10_a_receive_ring_that_is_freed_before_its_refill_never_maps_again",),
    ),
    Line(36, "a put after release_page", ("audit::test_a_page_that_left_and_is_put_is_a_fault",)),
    Line(
        37,
        "one page in two skbs",
        ("api::test_a_page_put_twice_is_refused", "audit::test_a_page_put_twice_is_a_fault"),
    ),
    Line(38, "redirected frames return to the ring", (XDP_WHERE,)),
    Line(39, "the no-direct marker", (XDP_WHERE,)),
    Line(40, "32-bit arithmetic", (WRAP, NEGATIVE)),
    Line(41, "refill stops at 64", (REFILL,)),
    Line(
        42,
        "page 0",
        ("invariants::test_the_first_page_has_a_number_above_0", "audit::test_page_0_is_a_fault"),
    ),
    Line(
        43, "unlock as locked", reason="the lock is the same in all contexts: bottom halves are not modelled"
    ),
    Line(
        44, "the page being cut up at the end", ("invariants::test_the_page_being_cut_up_leaves_at_the_end",)
    ),
    Line(45, "the array of a bulk", reason="put_bulk says that it is scratch; callers give a copy"),
)


@pytest.mark.parametrize(("lines", "last"), [(INVARIANTS, 58), (CORNER_CASES, 45)])
def test_every_line_has_a_test_or_a_reason(lines: tuple[Line, ...], last: int) -> None:
    assert [line.number for line in lines] == list(range(1, last + 1))
    for line in lines:
        assert line.tests or line.reason, line


def test_the_tests_exist() -> None:
    named = {test for line in (*INVARIANTS, *CORNER_CASES) for test in line.tests}
    found = set()
    for module in {test.split("::")[0] for test in named}:
        tree = ast.parse((HERE / f"test_{module}.py").read_text())
        found |= {f"{module}::{node.name}" for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert named - found == set()
