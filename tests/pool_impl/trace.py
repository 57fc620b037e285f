"""Short scenarios in the words of the recordings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pool_impl.conformance import Replay
from pool_impl.layout import FLAG_DMA_MAP, FLAG_DMA_SYNC_DEV, FLAG_PAGE_FRAG

SYNCED = FLAG_DMA_MAP | FLAG_DMA_SYNC_DEV
FRAGS = FLAG_PAGE_FRAG


class Trace(Replay):
    """A machine with one pool; operations by name."""

    def __init__(self, kernel: str = "6.1", pages: int = 1024, **params: Any) -> None:
        super().__init__(kernel, 2, pages=pages, skbs=64)
        self.params = {"pool_size": 64, "flags": 0, "order": 0, "nid": -1, "dma_dir": 0} | params
        self.params = {"max_len": 0, "offset": 0} | self.params
        if self.host.rules.local_recycling:
            self.params = {"napi": -1, "cpuid": -1, "nosync": 0} | self.params
        self.op("create", pool=0, **self.params)
        self.pool = self.host.pools[0]

    def op(self, name: str, context: str = "softirq", **arguments: Any) -> dict[str, Any]:
        """Do one operation; returns its results."""
        return self.do_operation(name, context, arguments)

    def alloc(self, *handles: int, name: str = "alloc", **more: Any) -> None:
        """A page, or part of one, for each handle."""
        for handle in handles:
            self.op(name, pool=0, h=handle, **more)

    def put(self, *handles: int, direct: int = 0) -> None:
        """Return pages."""
        for handle in handles:
            self.op("put_full", h=handle, direct=direct)

    def page(self, handle: int) -> Any:
        """The record of a handle's page."""
        return self.host.pages[self.handles[handle].page]

    def numbers(self, *handles: int) -> list[int]:
        """The pages of handles."""
        return [self.handles[handle].page for handle in handles]

    def counters(self) -> dict[str, int]:
        """The pool's counters that are not 0, hold and release among them, and maps, unmaps and syncs."""
        state = self.pool_state(0)
        found = {**state["alloc"], **state["recycle"]}
        found |= {name: state[name] for name in ("hold", "release", "cache")} | {"in_ring": state["ring"]}
        found |= {name: int(self.host.device[name]) for name in ("maps", "unmaps", "syncs")}
        return {name: value for name, value in found.items() if value}

    def moved(self, before: dict[str, int]) -> dict[str, int]:
        """How counters differ from what they were."""
        now = self.counters()
        both = {name: now.get(name, 0) - before.get(name, 0) for name in now.keys() | before.keys()}
        return {name: value for name, value in both.items() if value}

    def packet(self, handle: int, *pages: int, own: int = 1, mark: bool = True) -> None:
        """An skb with a slab head and fragments, marked if it has the pages' shares."""
        self.op("alloc_skb", s=handle, kind=0, size=256, headroom=64, len=0)
        for page in pages:
            self.op("add_rx_frag", s=handle, h=page, off=0, len=1000, truesize=4096, own=own)
        if mark:
            self.op("mark_for_recycle", s=handle)

    @contextmanager
    def slab(self, skbs: int, heads: int) -> Iterator[None]:
        """Memory for so many skbs and so many heads, and for what is freed meanwhile."""
        memory, buffers = self.buffers.memory, self.buffers
        ends = int(memory.skb_end), int(memory.shared_end)
        free = int(memory.skb_free), int(memory.shared_free)
        memory.skb_free = memory.shared_free = 0
        memory.skb_end = memory.skb_fresh + skbs
        memory.shared_end = memory.shared_fresh + heads
        yield
        memory.skb_end, memory.shared_end = ends
        lists = ((buffers.skbs, "skb_free"), (buffers.shared, "shared_free"))
        for (records, name), first in zip(lists, free, strict=True):
            if int(memory[name]) == 0:
                memory[name] = first
                continue
            record = int(memory[name])
            while records[record].next:
                record = int(records[record].next)
            records[record].next = first

    def look(self, handle: int) -> dict[str, Any]:
        """State of an skb as recordings have it."""
        return self.skb_state(*self.words(self.skbs[handle]))

    def all_skbs(self) -> dict[int, dict[str, Any]]:
        """State of all."""
        return {handle: self.look(handle) for handle in self.skbs}

    def marked(self, handle: int) -> bool:
        """Whether an skb is marked."""
        return bool(self.buffers.skbs[self.skbs[handle]].pp_recycle)
