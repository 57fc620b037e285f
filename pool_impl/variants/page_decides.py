"""A page in an skb is asked for its pool whatever the skb's recycle bit says.

Tries: the other answer to the question that skb recycling had to settle when it was merged (6a5bcd84e886,
Linux 5.14), which is how to tell pool pages apart and touch the free path of all other skbs as little as
possible. It took a bit in the skb beside the page's signature; here the signature alone decides. A head is
asked only if it is part of a page (``head_frag``), so slab heads are left alone in both.

Expect: no further cache line. The one ``struct page`` that is asked without need, that of an ordinary page,
is about to be written for its reference; the read comes first (table in ``pool_impl/README.md``). And a
driver that forgets the mark leaks nothing: with the bit, the page of its skb is freed while its pool goes on
counting it.

What it costs is that plain references and shares look alike when they are dropped (``skb_frag_ref``: partial
copies, expanding a clone's head). On a whole page the first holder to go, whichever it is, finds the other's
reference and takes the page out of its pool, and the last one frees it: never freed in use, but never
recycled either, while the bit lets it be recycled if the plain reference goes first. On a page that is being
cut up (fragments, 5.15 on) a plain reference is dropped as somebody else's share: the count falls below zero
when the pool gives up the rest, with a warning, and the page leaks. So this rule was a choice in 5.14 and is
none since.
"""

from typing import Any

from pool_impl.variant import pool_variant


@pool_variant
class PageDecides:
    """The bit is not looked at."""

    def skb_recycles(self, host: Any, page: int, marked: bool) -> bool:
        """``return_skb_page`` goes on to look at the page's signature."""
        return True
