"""Who owns what, counted anew from every skb (spec 6.1): the books behind refcounts and fragment counts.

For checks between operations: plain Python, never part of a trial.
"""

from collections import Counter
from typing import NamedTuple

from pool_impl.layout import NO_POOL, SIGNATURE, SIGNATURE_MASK, Buffers


class Owned(NamedTuple):
    """What holders have of each page."""

    shares: Counter[int]
    """rights to return it to its pool (P-refs)"""
    references: Counter[int]
    """plain references beside the pool's own (K-refs)"""


def held_by_skbs(buffers: Buffers) -> Owned:
    """What all skbs hold, by page.

    Data that clones share count once. Its pages are held by share if a holder is marked and the page is a
    pool's, since that is how they will be dropped.
    """
    pages = buffers.host.pages
    marked: dict[int, bool] = {}
    for record in buffers.skbs[1 : int(buffers.memory.skb_fresh)]:
        if record.users > 0:
            shared = int(record.shared)
            marked[shared] = marked.get(shared, False) or bool(record.pp_recycle)
    owned = Owned(Counter(), Counter())
    for number, by_share in marked.items():
        shared = buffers.shared[number]
        found = [int(page) for page in shared.frag_page[: int(shared.nr_frags)]]
        if shared.head_frag:
            found.append(int(shared.head_page))
        for page in found:
            pooled = int(pages[page].magic) & SIGNATURE_MASK == SIGNATURE
            (owned.shares if by_share and pooled else owned.references)[page] += 1
    return owned


def faults(buffers: Buffers, holders: Owned, unused_shares: Counter[int]) -> list[str]:
    """Where pages and books differ, in words; empty when all is well.

    Args:
        holders: what drivers and others hold beside skbs.
        unused_shares: shares that pools keep of pages they are cutting up.
    """
    by_skbs = held_by_skbs(buffers)
    shares = by_skbs.shares + holders.shares
    references = by_skbs.references + holders.references
    pages = buffers.host.pages
    counts_shares = buffers.host.rules.idle_shares != 0
    found = []
    for page in sorted((shares.keys() | references.keys()) - {0}):
        record = pages[page]
        pooled = record.pp != NO_POOL and int(record.magic) & SIGNATURE_MASK == SIGNATURE
        expected = references[page] + (1 if pooled else 0)
        if record.refcount != expected:
            found.append(f"page {page}: refcount {record.refcount}, but {expected} references are held")
        if shares[page] and not pooled:
            found.append(f"page {page}: {shares[page]} shares are held of a page that is no pool's")
        counted = shares[page] + unused_shares[page]
        if counts_shares and shares[page] and record.frag_count != counted:
            found.append(f"page {page}: fragment count {record.frag_count}, but {counted} shares are held")
    return found
