"""Conservation: what every trial has to prove before it may become a record."""

from typing import Any

import numpy as np

from pool_impl.layout import MAX_SKB_FRAGS, SIGNATURE, SIGNATURE_MASK, Host, plain
from workers.drivers.split import BIAS
from workers.errors import CheckError
from workers.state import (
    FIRST_UNPOOLED,
    FRAGMENTS,
    HEADER_SPLIT,
    KEPT_PAGES,
    OWN_FRAGMENTS,
    OWN_KEPT_PAGES,
    UNIT_BYTES,
    Trial,
)
from workers.walk import Walk, distinct, frames_in, idle_pages, inflight, merged_pages, pages_of


def check(trial: Trial) -> int:
    """Check the books of a finished trial.

    Returns:
        Packets that are queued still, see :func:`queued_packets`.

    Raises:
        CheckError: naming the two sides that differ.
    """
    walk = Walk(trial)
    tally = plain(trial.tally)
    queued = walk.queued_since(tally.measure_from_ps)
    _fates(tally, queued)
    _pages(walk)
    _counters(walk, tally)
    ledger = trial.host.observer.meter.ledger.sum(axis=1)
    for cpu in np.flatnonzero(ledger != tally.busy_ps):
        _equal(f"time charged to CPU {cpu}", int(ledger[cpu]), "its busy time", int(tally.busy_ps[cpu]))
    _places(walk, tally)
    if walk.nic.windows:
        _windows(walk)
    return queued


def check_idle_pool(host: Host) -> None:
    """Check that all pages of a pool are idle, and no others in use.

    Raises:
        CheckError: naming the two sides that differ.
    """
    owner = host.pools[0]
    idle = len(idle_pages(host, owner))
    _equal("pages in flight", inflight(owner), "pages in cache and ring", idle)
    _equal("pages in use", int(host.page_allocator.used_pages.sum()), "pages in flight", inflight(owner))


def queued_packets(trial: Trial) -> int:
    """Counted packets that wait in a receive ring, the stack, a transmit ring or for a redirect
    target."""
    return Walk(trial).queued_since(int(trial.tally.measure_from_ps))


def _fates(tally: Any, queued: int) -> None:
    fates = tally.delivered + tally.dropped_early + tally.dropped_xdp + tally.transmitted + tally.redirected
    fates += tally.missed + tally.dropped_driver + tally.dropped_backlog + tally.dropped_socket
    fates += tally.dropped_tx
    _equal("packets offered", tally.offered, "their fates", fates + queued)


def _windows(walk: Walk) -> None:
    """What is out of all windows is found: on its way to the reader, lost, or to be sent."""
    senders, slots = walk.trial.windows.senders, walk.trial.windows.notice_slots
    _equal("segments on their way", int(senders.flying.sum()), "those found", walk.queued_since(0))
    told = sum(
        int(slots[queue.first + (np.arange(queue.head, queue.tail) & queue.mask)].segments.sum())
        for queue in walk.trial.windows.notices
    )
    found = int((senders.room + senders.flying + senders.missing).sum()) + told
    _equal(
        "segments outstanding or to be sent", found, "in windows", int((senders.window + senders.debt).sum())
    )


def _places(walk: Walk, tally: Any) -> None:
    """Pages by location add up, over time and now."""
    trial, nic = walk.trial, walk.nic
    of_a_page = nic.page_units
    whole, rest = divmod(int(tally.unit_ps.sum()), of_a_page)
    _equal(
        "pages over time, by location",
        int(tally.page_ps.sum()) + whole,
        "pages in use over time",
        tally.used_page_ps,
    )
    _equal("parts of pages over time that make no page", rest, "none", 0)
    queues = trial.queues
    counted = int(((queues["posted"] - queues["read"]) * nic.buffer_units + queues["kept_units"]).sum())
    held = int(np.count_nonzero(trial.descriptors["page"]))
    if nic.pattern == HEADER_SPLIT:
        held *= of_a_page
        held += int(np.count_nonzero(trial.descriptors["header_page"])) * nic.part_units
        held += len(merged_pages(walk.aggregates)) * of_a_page + len(walk.aggregates) * nic.part_units
    else:
        held *= nic.buffer_units
    _equal("parts of pages in descriptors", held, "those counted", counted)
    in_sockets = _units(walk, walk.in_sockets)
    _equal("parts of pages in sockets", in_sockets, "those counted", int(trial.readers["units"].sum()))
    if nic.buffer_units != of_a_page:
        _buffers_are_apart(walk)
    for number, queue in enumerate(trial.frame_queues):
        skbs = frames_in(trial, trial.frame_queues[number : number + 1])["skb"]
        skbs = skbs[skbs != 0]
        frags = trial.buffers.shared["nr_frags"][walk.shared_of(skbs)]
        counted = int(queue.more_descriptors) + len(skbs)
        _equal("descriptors of skbs", int((frags + 1).sum()), "those counted", counted)
        counted = int(queue.more_units) + len(skbs) * of_a_page
        _equal("parts of pages in transmit rings", _units(walk, skbs), "those counted", counted)


def _units(walk: Walk, skbs: Any) -> int:
    """Parts of pages booked for these skbs."""
    return int(walk.trial.holds["units"][walk.shared_of(skbs)].sum())


def _units_in(walk: Walk, pages: Any) -> int:
    """Parts of pages that the data of all skbs takes, by the pages of their buffers. Headers apart come from
    pools of their own, also when one has become a fragment of another skb."""
    if walk.nic.pattern != HEADER_SPLIT:
        return len(pages) * int(walk.nic.part_units)
    headers = int((walk.trial.host.pages["pp"][pages] >= walk.nic.first_header_pool).sum())
    return int(headers * walk.nic.part_units + (len(pages) - headers) * walk.nic.page_units)


def _buffers_are_apart(walk: Walk) -> None:
    """No two descriptors and skbs hold the same part of a page."""
    size = walk.nic.part_units * UNIT_BYTES
    ring = walk.trial.descriptors
    # segments may have parts of one buffer, see _bytes_are_apart
    shared = walk.data_of(walk.skbs[~walk.by_reference])
    used = np.arange(MAX_SKB_FRAGS) < shared["nr_frags"][:, np.newaxis]
    heads = (shared["head_frag"] != 0) & (shared["head_page"] != 0)
    merging = walk.aggregates
    payload = merged_pages(merging)
    places = (
        (ring["page"], ring["offset"]),
        (ring["header_page"], ring["header_offset"]),
        (merging["header_page"], merging["header_offset"]),
        (payload, np.zeros_like(payload)),
        (shared["frag_page"][used], shared["frag_offset"][used]),
        (shared["head_page"][heads], shared["head_offset"][heads]),
    )
    pages = np.concatenate([its_pages for its_pages, _ in places])
    parts = np.concatenate([offsets for _, offsets in places])
    parts = parts[pages != 0] // size
    pages = pages[pages != 0]
    found = np.unique(pages * (parts.max(initial=0) + 1) + parts)
    _equal("buffers in descriptors and skbs", len(pages), "different parts of pages", len(found))


def _pages(walk: Walk) -> None:
    """Every place where a page can be; each page is in one place, and none is missing."""
    trial, host, nic = walk.trial, walk.trial.host, walk.nic
    listed = np.concatenate(
        [
            walk.in_sockets,
            walk.in_tap,
            walk.in_gro,
            walk.in_backlogs,
            walk.kept,
            walk.retained,
            walk.deferred,
            walk.sent,
        ]
    )
    members = walk.members(listed)
    _equal("skbs in use", len(walk.skbs), "skbs found", len(listed) + len(members))
    data = distinct(walk.skbs["shared"], len(trial.holds))
    booked = int(trial.holds["units"][data].sum()) - _in_members(walk, members)
    in_skbs = pages_of(trial.buffers.shared[data])
    referenced = in_skbs[:0]
    segments = walk.skbs[walk.by_reference]
    if nic.pattern != HEADER_SPLIT or len(segments) == 0:
        # of a page that has left its pool nobody knows whether it was one for headers
        _equal("parts of pages in skbs", _units_in(walk, in_skbs), "those booked for them", booked)
    if len(segments):
        referenced = _referenced(walk, segments)
        in_skbs = pages_of(walk.data_of(walk.skbs[~walk.by_reference]))
    aggregates = walk.aggregates
    in_nic = (trial.descriptors["page"], trial.descriptors["header_page"], merged_pages(aggregates))
    held = np.concatenate([*in_nic, aggregates["header_page"], walk.frames["page"], in_skbs])
    held = held[held != 0]
    if nic.pattern in (FRAGMENTS, HEADER_SPLIT):
        held = _cut_pages(walk, held)
    elif nic.pattern in (KEPT_PAGES, OWN_KEPT_PAGES):
        held = _kept_pages(walk, in_skbs)
    elif nic.pattern == OWN_FRAGMENTS:
        held = _cut_blocks(trial, held)
    if len(referenced):
        held = np.concatenate([held, np.setdiff1d(referenced, held)])
    pooled = (host.pages["magic"][held] & SIGNATURE_MASK) == SIGNATURE
    found = np.concatenate([held[pooled], *(idle_pages(host, owner) for owner in host.pools)])
    in_flight = sum(inflight(owner) for owner in host.pools)
    _equal("pages in flight", in_flight, "pages found", len(found))
    _equal("pages found", len(found), "different pages found", len(distinct(found, len(host.pages))))
    used = int(host.page_allocator.used_pages.sum())
    outside = int((1 << host.pages["order"][held[~pooled]]).sum())
    _equal("pages in use", used, "pages in flight and of no pool", in_flight + outside)


def _referenced(walk: Walk, segments: Any) -> Any:
    """The pages that these skbs have plain references to: beside them a page has that of its pool, if it is
    there still."""
    pages, data = walk.trial.host.pages, walk.data_of(segments)
    in_segments = pages_of(data)
    found = distinct(in_segments, len(pages))
    holders = np.bincount(in_segments, minlength=len(pages))
    holders[found] += (pages["magic"][found] & SIGNATURE_MASK) == SIGNATURE
    _equal_by_page("references of page", found, pages["refcount"], "its holders", holders)
    _bytes_are_apart(data, walk.nic.page_bytes)
    return found


def _bytes_are_apart(data: Any, page_bytes: int) -> None:
    """No two of these SHARED records have the same byte of a page as a fragment."""
    used = (np.arange(MAX_SKB_FRAGS) < data["nr_frags"][:, np.newaxis]) & (data["frag_page"] != 0)
    start = data["frag_page"][used] * page_bytes + data["frag_offset"][used]
    order = np.argsort(start)
    end = (start + data["frag_size"][used])[order][:-1]
    _equal("fragments in two segments", int((end > start[order][1:]).sum()), "none", 0)


def _in_members(walk: Walk, members: list[int]) -> int:
    """Parts of pages booked for list members, which are in the books of the skb that lists them."""
    if not members:
        return 0
    return int(walk.trial.holds["units"][np.unique(walk.shared_of(members))].sum())


def _cut_pages(walk: Walk, held: Any) -> Any:
    """The pages behind shares that descriptors and skbs hold, with those that pools are cutting up; the count
    of each page is the shares held and those not handed out yet. Pages of payload pools are not cut up."""
    host, nic = walk.trial.host, walk.nic
    is_cut = (host.pages["pp"][held] >= nic.first_header_pool) | (nic.pattern == FRAGMENTS)
    whole = held[~is_cut]
    held = held[is_cut]
    shares = np.bincount(held, minlength=len(host.pages))
    cutting = host.pools[host.pools["frag_page"] != 0]
    shares[cutting["frag_page"]] += host.rules.frag_bias - cutting["frag_users"]
    pages = distinct(np.concatenate([held, cutting["frag_page"]]), len(host.pages))
    _equal_by_page("fragment count of page", pages, host.pages["frag_count"], "its shares", shares)
    return np.concatenate([whole, pages])


def _kept_pages(walk: Walk, in_skbs: Any) -> Any:
    """The pages behind buffers of skbs, with those that the driver has; each has a count of who holds it: the
    skbs' references and the driver's own, or their shares and what the driver has not handed out."""
    trial, nic, pages = walk.trial, walk.nic, walk.trial.host.pages
    places = (trial.descriptors["page"], trial.descriptors["spent_page"], trial.queues["split_page"])
    kept = distinct(np.concatenate([*places, walk.in_page_caches()]), len(pages))
    kept = kept[kept != 0]
    holders = np.bincount(in_skbs, minlength=len(pages))
    held = distinct(np.concatenate([in_skbs, kept]), len(pages))
    if nic.references:
        holders[kept] += 1
        _equal_by_page("references of page", held, pages["refcount"], "its holders", holders)
        frames = walk.frames
        mapped = int(trial.host.device.maps - trial.host.device.unmaps)
        mapped -= int(frames["descriptors"][frames["skb"] != 0].sum())
        _equal("pages that the driver has mapped", mapped, "pages that it has", len(kept))
    else:
        holders[kept] += BIAS - trial.parts_used[kept]
        _equal_by_page("shares of page", held, pages["frag_count"], "its holders", holders)
    return held


def _cut_blocks(trial: Trial, held: Any) -> Any:
    """The network core's blocks behind references that descriptors and skbs hold, with those being cut up; a
    block has these references and those not given away yet."""
    pages = trial.host.pages
    cutting = trial.frag_caches[trial.frag_caches["page"] != 0]
    references = np.bincount(held, minlength=len(pages))
    references[cutting["page"]] += cutting["references"]
    blocks = distinct(np.concatenate([held, cutting["page"]]), len(pages))
    _equal_by_page("references of block", blocks, pages["refcount"], "its holders", references)
    return blocks


def _equal_by_page(left_name: str, pages: Any, left: Any, right_name: str, right: Any) -> None:
    """As :func:`_equal`, of each of these pages, by two tables of all."""
    for page in pages[left[pages] != right[pages]]:
        _equal(f"{left_name} {page}", int(left[page]), right_name, int(right[page]))


def _counters(walk: Walk, tally: Any) -> None:
    """Identities of spec 8.2."""
    pools = walk.trial.host.pools
    taken = pools["alloc_refill"] + pools["alloc_slow"]
    served = pools["alloc_fast"] + taken + pools["alloc_slow_high_order"]
    allocated = tally.pages_allocated - tally.page_cache_reuse
    if walk.nic.pattern < FIRST_UNPOOLED:
        _equal("pages allocated", allocated, "alloc counters", int(served.sum()))
    else:
        mapped = int(walk.trial.host.device.maps) - tally.parts_mapped
        _equal("buffers allocated", allocated, "mappings of buffers", mapped)
    for owner in pools[pools["alloc_waive"] > taken]:
        raise CheckError(f"waive {owner.alloc_waive} exceeds refill + slow")


def _equal(left_name: str, left: int, right_name: str, right: int) -> None:
    if left != right:
        raise CheckError(f"{left_name}: {left}, but {right_name}: {right}; please report this trial")
