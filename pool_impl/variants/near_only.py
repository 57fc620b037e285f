"""Recycle no page of another node than the pool's.

Tries: the check where a page returns. The kernel makes it at the refill from the ring, so what a poll
recycles directly is never looked at: after an interrupt has moved to another node, XDP_DROP goes on in the
pages that it has. Source: the pool as it was in Linux 5.5 ("page_pool: Don't recycle non-reusable pages"),
published with 5.8 against 4.4 million packets a second for that case; 5.6 moved the check to the refill.

Expect: as the kernel's pool where everything is on one node. With driver.pool_node = "update" all pages are
the polling CPU's after one round through the receive ring. A pool without a node (nid -1) knows that of its
consumer only, so there the refill goes on to find what comes back from elsewhere.
"""

from typing import Any

from pool_impl.variant import CACHE, RELEASE, RING, pool_variant


@pool_variant
class NearOnly:
    """The kernel's pool but for pages of another node."""

    def destination(self, host: Any, pool: Any, page: int, direct: bool) -> int:
        """A pool without a node has that of its consumer, which only a direct return comes from."""
        node = host.pages[page].nid
        wanted = pool.nid
        if wanted < 0:
            wanted = host.context.nid if direct else node
        if node != wanted:
            return RELEASE
        return CACHE if direct else RING
