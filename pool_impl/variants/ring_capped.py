"""The alloc cache and its refill capped by the ring, so that a small pool does not hoard.

Tries: refill = min(64, ring size) and cache = 2 x refill, in place of 64 and 128 for every pool. Source: the
RFC "net: page_pool: cap alloc cache size and refill by pool ring size" (netdev, 23 February 2026), first of
the three shapes that it discusses; it is about 64 KiB pages, where drivers have small rings. The other two
are one line away: cache = min(128, ring), and refill either half of it or min(64, ring).

Expect: from a ring of 64 on nothing at all, to the last bit. Below it, fewer pages in the cache and a lower
memory peak, for a bulk fill per refill instead of one per 64 pages: more slow allocations when pages are
held elsewhere.
"""

from typing import Any

from pool_impl.variant import REFILL, pool_variant


@pool_variant
class RingCapped:
    """Refill and cache follow the ring's size."""

    def cache_limit(self, host: Any, pool: Any) -> int:
        """Twice the refill, as the kernel's constants are."""
        return int(2 * min(REFILL, pool.ring_size))

    def refill_limit(self, host: Any, pool: Any) -> int:
        """No more than the ring could take back."""
        return int(min(REFILL, pool.ring_size))
