"""What the allocator tells an observer: lines it touched and work it did.

An observer is a NamedTuple class with three methods. Its type is part of a compiled function's signature,
so :class:`NullObserver` costs nothing and a pricing observer is compiled into the hot path.

* ``touch(kind, index, write)``: one object was read, or written if ``write``; kinds are below.
* ``work(kind, amount)``: an operation was done ``amount`` times (bytes for DMA syncs, a node for its lock).
* ``own(change, page, number)``: a share or a plain reference of a page changed hands; for checks only.
"""

from typing import NamedTuple

from pool_impl.jit import methods

# kinds of touched objects, and what index means
STRUCT_PAGE = 0  # page
RING_SLOT = 1  # slot, counted over all rings
POOL_CONSUMER = 2  # pool: cache, counters and consumer index
POOL_PRODUCER = 3  # pool: producer index, whose word is the lock
SKB = 4  # skb
SHARED_INFO = 5  # page: the shared info in it; reported where skbs are freed
SLAB_HEAD = 6  # SHARED record: shared info behind a head that is in no followed page; reported there too
FIRST_OWN_OBJECT = 7  # a user's further kinds start here

# kinds of work
POOL_ALLOC = 0  # allocations from the cache
POOL_PUT = 1  # decisions about a returned page
RING_CONSUME = 2  # entries
RING_PRODUCE = 3  # entries
PRODUCER_LOCK = 4  # lock and unlock
PAGE_ADOPT = 5  # pages that entered the pool
PAGE_RELEASE = 6  # pages that left the pool
RELEASE_COUNT = 7  # ordered atomic increment of the release count
SHARE_COUNT = 8  # atomic subtraction from a page's fragment count
PAGE_BULK_ALLOC = 9  # pages taken from the page allocator, up to 64 at a time
PAGE_REF = 10  # atomic change of a page's refcount
PAGE_FREE = 11  # pages given to the page allocator
BUDDY_PAGE = 12  # pages moved between a per-CPU list and the buddy lists
DMA_MAP = 13
DMA_UNMAP = 14
DMA_SYNC_FOR_DEVICE = 15  # bytes; each report is one call
CONSUMER_LOCK = 16  # lock and unlock
PAGE_SINGLE_ALLOC = 17  # pages taken one at a time, of any order
PAGE_BULK_CALL = 18  # requests for a bulk, beside its pages
ZONE_LOCK = 19  # node whose free lists are locked now
ZONE_UNLOCK = 20  # node whose free lists are unlocked now
FIRST_OWN_WORK = 21  # a user's further kinds start here

# changes of who owns a page (spec 6.1), and what number means
PAGE_TAKEN = 0  # out of the page allocator, with one plain reference
PAGE_GIVEN = 1  # back to it
REFERENCES = 2  # plain references more, or less if negative
SHARES = 3  # shares more, or less if negative
SHARES_SET = 4  # shares that a page is cut up into
POOL_ENTERED = 5  # pool, to which the reference belongs now
POOL_HANDED_OUT = 6  # shares that the caller of alloc has with it
POOL_RETURNED = 7  # pool that decides about a page of which nobody has a share
POOL_LEFT = 8  # pool; its reference is a plain one now


class NullObserver(NamedTuple):
    """Hears nothing and costs nothing: for replay, benchmarks and real threads."""

    unused: int = 0

    def touch(self, kind: int, index: int, write: bool) -> None:
        """Ignore."""

    def work(self, kind: int, amount: int) -> None:
        """Ignore."""

    def own(self, change: int, page: int, number: int) -> None:
        """Ignore."""


methods(NullObserver)
