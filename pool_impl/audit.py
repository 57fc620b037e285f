"""The debug build of the allocator: two shadow counters for each page, shares and plain references, kept
apart from the page's own words (spec 6.1, 14).

:class:`Audit` is an observer, so its type selects the build at compile time and the normal one carries
nothing of it. It follows who took and who gave up what, also where the release looks at no count, and
notes the first change that nobody may make: a share or reference given up that nobody has, a page returned
to a pool that is not its own, twice, or while others have shares of it. Between operations :func:`faults`
lays the words of pools and pages beside the shadows.
"""

from typing import Any, NamedTuple

import numpy as np

from pool_impl.layout import COUNT_MASK, FLAG_PAGE_FRAG, SIGNATURE, SIGNATURE_MASK, Host, records
from pool_impl.observe import (
    PAGE_GIVEN,
    PAGE_TAKEN,
    POOL_ENTERED,
    POOL_HANDED_OUT,
    POOL_LEFT,
    POOL_RETURNED,
    REFERENCES,
    SHARES,
    SHARES_SET,
)

_CHANGES = {
    PAGE_TAKEN: "taken from the page allocator while in use",
    PAGE_GIVEN: "given to the page allocator while in use",
    REFERENCES: "a plain reference given up that nobody has",
    SHARES: "a share given up, or doubled, that nobody has",
    SHARES_SET: "cut up while others have shares of it",
    POOL_ENTERED: "entered a pool, but is not the caller's to give",
    POOL_HANDED_OUT: "handed out, but was not idle",
    POOL_RETURNED: "returned twice, to another pool than its own, or while others have shares",
    POOL_LEFT: "left a pool that is not its own, or while others have shares",
}

SHADOW = np.dtype(
    [("owner", "<i8"), ("idle", "<i8"), ("shares", "<i8"), ("references", "<i8")],
    align=True,
)
"""of one page: number of its pool + 1, whether it is in cache or ring, shares and plain references beside
the pool's own"""

FOUND = np.dtype([("wrong", "<i8"), ("change", "<i8"), ("page", "<i8"), ("number", "<i8")], align=True)
"""how many changes were wrong, and the first of them"""


class Audit(NamedTuple):
    """The observer of a debug build. Made by :func:`audited`."""

    shadows: Any
    """SHADOW records by page"""
    found: Any
    """the FOUND record"""

    def touch(self, kind: int, index: int, write: bool) -> None:
        """Ignore."""

    def work(self, kind: int, amount: int) -> None:
        """Ignore."""

    def own(self, change: int, page: int, number: int) -> None:
        """Follow one change, and note it if it is wrong."""
        shadow = self.shadows[page]
        if change == REFERENCES:
            shadow.references += number
            wrong = shadow.references < 0
        elif change == SHARES:
            wrong = number > 0 and shadow.shares < 1
            shadow.shares += number
            wrong = wrong or shadow.shares < 0
        elif change == SHARES_SET:
            wrong = shadow.idle != 0 or shadow.shares > 1
            shadow.shares = number
        elif change == PAGE_TAKEN:
            wrong = page == 0 or shadow.references != 0 or shadow.owner != 0
            shadow.references = 1
        elif change == PAGE_GIVEN:
            wrong = shadow.references != 0 or shadow.shares != 0 or shadow.owner != 0
        elif change == POOL_ENTERED:
            shadow.references -= 1
            wrong = shadow.references != 0 or shadow.owner != 0
            shadow.owner = number + 1
            shadow.idle = 1
        elif change == POOL_HANDED_OUT:
            wrong = shadow.idle == 0
            shadow.idle = 0
            shadow.shares = number
        elif change == POOL_RETURNED:
            wrong = shadow.idle != 0 or shadow.owner != number + 1 or shadow.shares > 1
            shadow.idle = 1
            shadow.shares = 0
        else:
            wrong = shadow.owner != number + 1 or shadow.shares > 1
            shadow.owner = 0
            shadow.idle = 0
            shadow.shares = 0
            shadow.references += 1
        if wrong:
            if self.found.wrong == 0:
                self.found.change = change
                self.found.page = page
                self.found.number = number
            self.found.wrong += 1


def audited(host: Host) -> Host:
    """The same machine, without pools yet, as a debug build."""
    shadows = records(SHADOW, len(host.pages))
    shadows[0].references = host.pages[0].refcount
    return host._replace(observer=Audit(shadows, records(FOUND, 1)[0]))


def faults(host: Host) -> list[str]:
    """What is wrong with an audited machine between two operations, in words; empty when all is well."""
    audit: Audit = host.observer
    shadows = audit.shadows
    found = []
    if audit.found.wrong:
        first = audit.found
        found.append(f"page {first.page}: {_CHANGES[int(first.change)]} ({first.number})")
    pages = host.pages
    owned = shadows.owner != 0
    signed = (pages.magic & SIGNATURE_MASK) == SIGNATURE
    by_pool = np.array([_counts_shares(host, number) for number in range(len(host.pools))])
    counted = owned & by_pool[shadows.owner - 1]
    reset = (shadows.idle != 0) & bool(host.rules.idle_shares)
    words = [
        ("refcount", pages.refcount, shadows.references + owned, np.ones_like(owned)),
        ("fragment count", pages.frag_count, shadows.shares, counted & (shadows.shares > 0)),
        ("fragment count, idle", pages.frag_count, host.rules.idle_shares, counted & reset),
        ("signature", signed, owned, np.ones_like(owned)),
        ("pool", pages.pp, shadows.owner - 1, owned if host.rules.pool_sets_owner else np.zeros_like(owned)),
    ]
    for name, actual, expected, where in words:
        expected = np.broadcast_to(expected, actual.shape)
        for page in np.flatnonzero((actual != expected) & where):
            found.append(f"page {page}: {name} {actual[page]}, but {expected[page]} by the books")
    for number in range(len(host.pools)):
        found += _pool_faults(host, number)
    return found


def _counts_shares(host: Host, number: int) -> bool:
    """Whether the words of this pool's pages count shares."""
    if host.rules.frag_flag_needed:
        return bool(host.pools[number].pool_flags & FLAG_PAGE_FRAG)
    return True


def _pool_faults(host: Host, number: int) -> list[str]:
    """Idle pages are in cache or ring, once, and all that came and did not leave are there or out."""
    owner = host.pools[number]
    shadows = host.observer.shadows
    own = shadows.owner == number + 1
    found = []
    idle = cached(host, number) + in_ring(host, number)
    by_books = np.flatnonzero(own & (shadows.idle != 0)).tolist()
    if sorted(idle) != by_books:
        found.append(f"pool {number}: idle are {sorted(idle)}, but {by_books} by the books")
    distance = int(np.array((owner.hold - owner.release) & COUNT_MASK, np.uint32).view(np.int32))
    if distance != own.sum():
        found.append(f"pool {number}: {distance} in flight, but {own.sum()} by the books")
    return found


def cached(host: Host, number: int) -> list[int]:
    """Pages in a pool's cache, oldest first."""
    owner = host.pools[number]
    return [int(page) for page in owner.cache[: int(owner.cache_count)]]


def in_ring(host: Host, number: int) -> list[int]:
    """Pages in a pool's ring in their order; consumed slots that are not cleared yet do not count."""
    owner = host.pools[number]
    size, head = int(owner.ring_size), int(owner.ring_head)
    slots = host.slots[int(owner.ring_base) :][:size]
    # consumed slots lie right behind the head
    following = [int(page) for page in [*slots[head:], *slots[: int(owner.ring_tail)]]]
    return following[: following.index(0)] if 0 in following else following
