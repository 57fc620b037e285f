"""Recycle only what comes back where the pool's consumer runs; release the rest on the CPU that frees it.

Tries: no ring for pages that other CPUs free. A page from there costs its consumer a line transfer for the
ring's slot and one for ``struct page``, and the CPU that frees it the producer lock. Released, it goes to
that CPU's own list of the page allocator, hot, but is unmapped, and the consumer maps another. Source: the
project's own question to the release's rules; no one has proposed it to the kernel.

Expect: under rules with NAPI-local recycling (6.4 on) an early drop in the poll is as before. With a reader
on another CPU nothing is recycled, no producer lock is taken, and every 64 packets take a bulk fill and 64
DMA mappings: worth it only where mapping is nearly free. Under older rules every skb's page takes the ring,
so this is a pool without recycling.
"""

from typing import Any

from pool_impl.variant import CACHE, RELEASE, pool_variant


@pool_variant
class LocalOnly:
    """The cache or nothing; a full cache still spills into the ring."""

    def destination(self, host: Any, pool: Any, page: int, direct: bool) -> int:
        """``direct`` is what the release's rules allow."""
        return CACHE if direct else RELEASE
