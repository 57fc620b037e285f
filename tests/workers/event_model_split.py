"""The event simulation's driver that keeps pages: split into buffers, shared or referenced, or cached.

Written from specification 7.4 and from what commit 4415a0319f92 and mlx5's statistics say of its page cache.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from tests.workers.event_model import LINE_BYTES, PAGE_BYTES, WRITABLE_BYTES, Machine

BIAS = 64
"""shares of a page that is being split"""
PARTS = 64
"""in which buffers are counted, of a page"""


class KeepingMachine(Machine):
    """A trial whose driver keeps a page until its last buffer has been used."""

    def __init__(
        self, fields: Mapping[str, Any], prices: Mapping[str, float], arrivals: Iterable[tuple[int, int]]
    ) -> None:
        super().__init__(fields, prices, arrivals)
        splits = fields["driver.model"] in ("split", "split-unpooled")
        self.pooled = fields["driver.model"] in ("split", "page-per-packet")
        self.shares_pages = fields["driver.model"] == "split" and self.recycles
        self.pool_maps = self.shares_pages
        buffer_bytes = fields["driver.buffer_bytes"] if splits else PAGE_BYTES
        self.buffers_of_page = PAGE_BYTES // buffer_bytes
        self.truesize_bytes = buffer_bytes + 256
        self.synced_bytes = PAGE_BYTES if splits else WRITABLE_BYTES
        self.posted_bytes = buffer_bytes
        self.holders: Counter[int] = Counter()
        self.used: Counter[int] = Counter()
        self.uncut: deque[int] = deque()
        self.empty_descriptors: deque[int] = deque()
        self.page_cache: deque[int] = deque()
        self.rest = "page_cache" if fields["driver.page_cache"] else "fragments"

    def run(self, until_ps: int) -> None:
        super().run(until_ps)
        for place in self.page_ps:
            self.page_ps[place] //= PARTS

    def _integrate(self, now_ps: int) -> None:
        elapsed_ps = now_ps - self.integrated_to_ps
        self.integrated_to_ps = now_ps
        of_buffer = PARTS // self.buffers_of_page
        places = {
            "cache": len(self.cache) * PARTS,
            "ring": len(self.ring.pages) * PARTS,
            "rx_ring": (len(self.posted) + len(self.filled)) * of_buffer,
            "socket": len(self.socket) * of_buffer,
            "tx": len(self.tx_ring) * of_buffer,
        }
        places[self.rest] = self.pages_in_use * PARTS - sum(places.values())
        for place, parts in places.items():
            self.page_ps[place] += elapsed_ps * parts

    # The driver

    def _handle(self, page: int, arrival_ps: int, frame_bytes: int) -> None:
        self.empty_descriptors.append(0)
        super()._handle(page, arrival_ps, frame_bytes)

    def _pass_on(self, page: int) -> None:
        if not self.shares_pages:
            self._work("page_free", "atomic_ns")
            self.holders[page] += 1
        self._use(page)

    def _drop_in_driver(self, page: int, frame_bytes: int) -> None:
        self._use(page)

    def _use(self, page: int) -> None:
        self.used[page] += 1
        if self.used[page] < self.buffers_of_page:
            return
        if self.shares_pages:
            self.empty_descriptors[-1] = page
        else:
            self._let_go(page)

    def _let_go(self, page: int) -> None:
        slots = self.fields["driver.page_cache"]
        if slots and len(self.page_cache) < slots - 1:
            self._work("driver", "page_cache_ns")
            self.page_cache.append(page)
            return
        self.counters["page_cache_full"] += 1 if slots else 0
        self._unmap()
        if not self.pooled:
            self._drop_reference(page)
        elif self.holders[page] > 1:
            self._work("pool_put", "pool_put_ns")
            self.counters["recycle_released_refcnt"] += 1
            self._leave_pool()
            self._drop_reference(page)
        else:
            self._put(page, True)

    def _refill(self, most: int) -> None:
        for position in range(min(most, len(self.empty_descriptors))):
            page = self.empty_descriptors[position]
            if page and self._last_share(page, BIAS - self.buffers_of_page):
                self._put(page, True)
            self.empty_descriptors[position] = 0
        super()._refill(most)

    def _buffer(self) -> int:
        if self.empty_descriptors:
            self.empty_descriptors.popleft()
        if not self.uncut:
            page = self._alloc() if self.shares_pages else self._mapped_page()
            self.used[page] = 0
            self.holders[page] = BIAS if self.shares_pages else 1
            self.uncut.extend([page] * self.buffers_of_page)
        return self.uncut.popleft()

    def _mapped_page(self) -> int:
        if self.fields["driver.page_cache"]:
            if not self.page_cache:
                self.counters["page_cache_empty"] += 1
            else:
                self._work("driver", "page_cache_ns")
                if self.holders[self.page_cache[0]] == 1:
                    self.counters["page_cache_reuse"] += 1
                    self._sync_for_device()
                    return self.page_cache.popleft()
                self.counters["page_cache_busy"] += 1
        if self.pooled:
            page = self._alloc()
        else:
            page = self._take_page(self.nodes[self.cpu], self._price_ps("page_single_alloc_ns"))
        self._map(self.synced_bytes)
        self._work("sync_for_device", "dma_sync_line_ns", -(-self.synced_bytes // LINE_BYTES))
        return page

    # Whose a page is

    def _free(self, page: int, in_softirq: bool = True) -> None:
        self._work("skb_free", "skb_free_ns")
        if not self.shares_pages:
            self._drop_reference(page)
        elif self._last_share(page, 1):
            self._put(page, in_softirq and self.returns_are_local)

    def _last_share(self, page: int, shares: int) -> bool:
        """Give up shares; what is all of them takes no atomic."""
        self.holders[page] -= shares
        if self.holders[page] > 0:
            self._work("pool_put", "atomic_ns")
        return self.holders[page] == 0

    def _drop_reference(self, page: int) -> None:
        self.holders[page] -= 1
        if self.holders[page] == 0:
            self._give_page(page)
        else:
            self._work("page_free", "atomic_ns")
