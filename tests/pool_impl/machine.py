"""A machine that does at random what the kernel's callers may do, and keeps books of it.

Every operation is one of the recordings' format, so what was done can be written down and replayed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pool_impl import xdp
from pool_impl.conformance import Step
from pool_impl.layout import (
    FLAG_DMA_MAP,
    FLAG_DMA_SYNC_DEV,
    FLAG_PAGE_FRAG,
    SHARED_INFO_BYTES,
)
from pool_impl.pool import PAGE_BYTES
from pool_impl.skb import DATAREF_MASK
from tests.pool_impl.books import POOLS, Books

SKBS = 20
"""most at a time"""
CONTEXTS = ("softirq", "softirq", "bh", "process")


class Machine(Books):
    """Two pools, skbs and an XDP bulk queue.

    Args:
        kernel: the release.
        choices: decide ring sizes, flags and order of the pools.
    """

    def __init__(self, kernel: str, *choices: int) -> None:
        super().__init__(kernel)
        self.next = 1
        rules = self.host.rules
        for number in range(POOLS):
            choice = (choices or (0,))[number % max(1, len(choices))]
            flags = (0, FLAG_DMA_MAP, FLAG_DMA_MAP | FLAG_DMA_SYNC_DEV)[choice // 5 % 3]
            if choice // 15 % 2 and rules.frag_flag_needed:
                flags |= FLAG_PAGE_FRAG & rules.known_flags
            params = {
                "pool_size": (8, 1, 33, 64, 2)[choice % 5],
                "flags": int(flags),
                "order": choice // 30 % 5 // 4,
                "nid": -1,
                "dma_dir": 0,
                "max_len": 1000 if flags & FLAG_DMA_SYNC_DEV else 0,
                "offset": 64,
            }
            if rules.local_recycling:
                params |= {"napi": -1, "cpuid": choice // 150 % 2 - 1, "nosync": 0}
            self.do("create", pool=number, **params)
        if choices and choices[0] // 300 % 2:
            self.do("use_xdp_mem", pool=0)
        self.shared = [int(self.host.pools[number].user_cnt) == 2 for number in range(POOLS)]

    def do(self, name: str, context: str = "softirq", **arguments: Any) -> Any:
        """One operation, and what must hold afterwards."""
        self.steps.append(Step(name, context, arguments))
        before = self.counters()
        results = self.replay.do_operation(name, context, arguments)
        self.check_step(name, context, arguments, results, before)
        self.check_bytes(name, arguments, results)
        return results

    # Callers

    def fresh(self) -> int:
        self.next += 1
        return self.next

    def is_cut_up(self, number: int) -> bool:
        """Whether pages of the pool have shares only as fragments (6.1)."""
        rules = self.host.rules
        return bool(rules.frag_flag_needed and self.host.pools[number].pool_flags & FLAG_PAGE_FRAG)

    def live(self, choice: int) -> int | None:
        """A pool that may be allocated from."""
        pools = [number for number in range(POOLS) if number not in self.destroyed]
        return pools[choice % len(pools)] if pools else None

    def page(self, choice: int) -> int | None:
        """A handle with one share of a page, or part of one."""
        number = self.live(choice)
        if number is None:
            return None
        handle = self.fresh()
        if self.is_cut_up(number):
            self.do("alloc_frag", pool=number, h=handle, size=64 + choice % 3 * 1000)
        elif self.host.rules.idle_shares and choice % 3 == 0:
            self.do("alloc_any", pool=number, h=handle, size=500 + choice % 7 * 300)
        else:
            self.do("alloc", pool=number, h=handle)
        if handle not in self.replay.handles:
            return None
        if not self.host.rules.pool_sets_owner:
            self.do("store_mem_info", h=handle, pool=number)
        return handle

    def room(self, handle: int) -> int:
        """Bytes from where a handle's part of its page begins to the page's end."""
        held = self.replay.handles[handle]
        return int((PAGE_BYTES << self.host.pages[held.page].order) - held.offset)

    def ordinary(self, _choice: int) -> int | None:
        """A handle with the reference of a page that is no pool's."""
        handle = self.fresh()
        self.do("page_alloc", h=handle, order=0)
        if self.replay.handles[handle].page == 0:
            del self.replay.handles[handle]
            return None
        return handle

    def held(self, choice: int, *, share: bool) -> int | None:
        """A handle that has a share, or has references."""
        found = [
            number
            for number, handle in sorted(self.replay.handles.items())
            if (handle.share if share else handle.references)
        ]
        return found[choice % len(found)] if found else None

    def whole(self, choice: int) -> int | None:
        """A handle with the only share of its page."""
        handle = self.held(choice, share=True)
        if handle is None:
            return None
        page = self.replay.handles[handle].page
        return handle if self.host.observer.shadows[page].shares == 1 else None

    def pool_of(self, handle: int) -> int:
        page = self.replay.handles[handle].page
        return int(self.host.observer.shadows[page].owner) - 1

    def skb(self, choice: int) -> int | None:
        skbs = sorted(self.replay.skbs)
        return skbs[choice % len(skbs)] if skbs else None

    def record(self, handle: int) -> Any:
        return self.buffers.skbs[self.replay.skbs[handle]]

    def data(self, handle: int) -> Any:
        return self.buffers.shared[self.record(handle).shared]

    def cloned(self, handle: int) -> bool:
        record = self.record(handle)
        return bool(record.cloned and self.data(handle).dataref & DATAREF_MASK != 1)

    # What callers do with pages

    def alloc(self, first: int, _second: int) -> None:
        if len(self.replay.handles) < 300:
            self.page(first)

    def alloc_many(self, first: int, second: int) -> None:
        """A poll's worth: fills and empties rings, caches and fragment pages."""
        for _ in range(min(second // 2, 300 - len(self.replay.handles))):
            self.page(first)

    def put(self, first: int, second: int) -> None:
        handle = self.held(first, share=True)
        if handle is not None:
            direct = int(second % 2 and self.pool_of(handle) not in self.destroyed)
            name, more = (("put_full", {}), ("put", {"sync": second * 41 % 2000}))[second // 2 % 2]
            self.do(name, CONTEXTS[second // 4 % 4], h=handle, direct=direct, **more)  # type: ignore[arg-type]

    def put_many(self, first: int, second: int) -> None:
        for _ in range(second // 2):
            self.put(first, second)

    def put_bulk(self, first: int, second: int) -> None:
        number = first % POOLS
        handles = [h for h in sorted(self.replay.handles) if self.replay.handles[h].share]
        handles = [h for h in handles if self.pool_of(h) == number][: second % 17]
        if handles:
            self.do("put_bulk", pool=number, hs=handles)

    def return_skb_page(self, first: int, _second: int) -> None:
        handle = self.held(first, share=True)
        if handle is not None:
            self.name_pool(handle)
            self.do("return_skb_page", h=handle)

    def put_with_reference(self, first: int, second: int) -> None:
        """The page leaves the pool; what the reference is dropped for happens later."""
        handle = self.page(first)
        if handle is not None:
            self.do("get_page", h=handle)
            self.do("put_full", h=handle, direct=second % 2)

    def reference(self, first: int, second: int) -> None:
        handle = self.held(first, share=bool(second % 3))
        if handle is not None and self.replay.handles[handle].references < 5:
            self.do("get_page", h=handle)

    def drop_reference(self, first: int, _second: int) -> None:
        handle = self.held(first, share=False)
        if handle is not None:
            self.do("put_page", h=handle)

    def release_page(self, first: int, _second: int) -> None:
        handle = self.whole(first)
        if (
            handle is None
            or not self.host.rules.drivers_release_pages
            or self.is_cut_up(self.pool_of(handle))
        ):
            return
        self.name_pool(handle)
        self.do("release_page", h=handle)

    def cut_up(self, first: int, second: int) -> None:
        """A driver cuts up a page itself and later gives up what it did not hand out."""
        handle = self.whole(first)
        if handle is None or not self.host.rules.idle_shares or self.cutting(handle):
            return
        parts = 2 + second % 4
        self.do("fragment", h=handle, nr=parts, first=self.next + 1)
        self.next += parts - 1

    def share(self, first: int, _second: int) -> None:
        handle = self.held(first, share=True)
        if handle is not None and self.host.rules.idle_shares and len(self.replay.handles) < 300:
            self.do("ref_page", h=handle, new=self.fresh())

    def put_last(self, first: int, second: int) -> None:
        """Who knows that his share is the last one skips the count."""
        handle = self.whole(first)
        counts = self.host.rules.idle_shares or self.host.rules.known_flags & FLAG_PAGE_FRAG
        if handle is None or not counts or self.cutting(handle) or self.is_cut_up(self.pool_of(handle)):
            return
        direct = int(second % 2 and self.pool_of(handle) not in self.destroyed)
        self.do("put_defragged", h=handle, sync=-1, direct=direct)

    def cutting(self, handle: int) -> bool:
        """Whether the pool itself has shares of the page."""
        page = self.replay.handles[handle].page
        return any(int(pool.frag_page) == page for pool in self.host.pools)

    def reserves(self, first: int, second: int) -> None:
        handle = self.held(first, share=True)
        if handle is not None:
            self.do("pfmemalloc", h=handle, on=second % 2)

    def change_node(self, first: int, second: int) -> None:
        number = self.live(first)
        if number is not None:
            self.do(("update_nid", "nid_changed")[second % 2], pool=number, nid=(-1, 0, 1)[second // 2 % 3])

    def fail_maps(self, first: int, second: int) -> None:
        self.do("dma_fail", skip=first, count=second % 70)

    def fail_pages(self, first: int, second: int) -> None:
        self.do("page_fail", skip=first, count=second % 3)

    def return_frame(self, first: int, second: int) -> None:
        """An XDP frame comes back: to the pool by its id, or as an ordinary page."""
        if second % 5 == 4:
            handle, identity = self.ordinary(first), xdp.ORDINARY
        else:
            handle, identity = self.held(first, share=True), 1
            if handle is None or not self.shared[0] or self.pool_of(handle) != 0:
                return
        if handle is None:
            return
        name = ("xdp_return_frame", "xdp_return_frame_rx_napi", "xdp_return_frame_bulk")[second % 3]
        if name == "xdp_return_frame_rx_napi" and 0 in self.destroyed:
            return
        page = self.replay.handles[handle].page
        if name == "xdp_return_frame_bulk" and identity:
            if len(self.queued) == xdp.BULK_SIZE:
                self.queued.clear()
            self.queued.append(page)
        self.do("no_direct", on=second // 3 % 2)
        self.do(name, h=handle, id=identity)
        self.do("no_direct", on=0)

    def flush_frames(self, _first: int, _second: int) -> None:
        self.queued.clear()
        self.do("xdp_flush_frame_bulk")

    def destroy(self, first: int, second: int) -> None:
        """Rarely, or there would be nothing to do soon."""
        number = self.live(first)
        if number is not None and second == 0:
            if self.host.pools[number].user_cnt == 1:
                self.destroyed.add(number)
            self.do("destroy", pool=number)

    def tick(self, first: int, _second: int) -> None:
        if first % POOLS in self.destroyed:
            self.do("release_tick", pool=first % POOLS)

    def name_pool(self, handle: int) -> None:
        """The driver does, for each packet, where the pool does not; every return takes the name away."""
        if not self.host.rules.pool_sets_owner:
            self.do("store_mem_info", h=handle, pool=self.pool_of(handle))

    # What callers do with skbs

    def make(self, first: int, second: int) -> None:
        """An skb: its head a page or not, marked with pages of a pool or plain with ordinary ones."""
        if len(self.replay.skbs) >= SKBS:
            return
        handle = self.fresh()
        take = self.page if first % 2 else self.ordinary
        own = 1 if first % 2 else 0
        if second % 2:
            page = take(second // 2)
            if page is None:
                return
            size = min(2048 if second % 4 == 1 else 4096, self.room(page))
            if size < 64 + 200 + SHARED_INFO_BYTES:
                return
            self.do("build_skb", s=handle, h=page, off=0, size=size, headroom=64, len=200, napi=0, own=own)
        else:
            self.do("alloc_skb", s=handle, kind=second % 3, size=256, headroom=64, len=second % 5 * 20)
        if own:
            self.do("mark_for_recycle", s=handle)
        for _ in range(second % 4):
            page = take(second // 2)
            if page is not None:
                length = min(1000, self.room(page))
                self.do("add_rx_frag", s=handle, h=page, off=0, len=length, truesize=4096, own=own)

    def free(self, first: int, second: int) -> None:
        handle = self.skb(first)
        if handle is not None:
            name = ("kfree_skb", "consume_skb", "napi_consume_skb", "defer_free")[second % 4]
            if name == "defer_free" and self.record(handle).users != 1:
                return
            more = {"budget": 64} if name == "napi_consume_skb" else {}
            self.do(name, s=handle, **more)

    def get(self, first: int, _second: int) -> None:
        handle = self.skb(first)
        if handle is not None and self.record(handle).users < 4:
            self.do("skb_get", s=handle)

    def copy(self, first: int, second: int) -> None:
        handle = self.skb(first)
        if handle is None or len(self.replay.skbs) >= SKBS:
            return
        name = ("skb_clone", "skb_clone", "skb_clone", "pskb_copy", "skb_copy", "skb_realloc_headroom")[
            second % 6
        ]
        more = {"headroom": second % 200} if name == "skb_realloc_headroom" else {}
        self.do(name, s=handle, new=self.fresh(), **more)

    def change(self, first: int, second: int) -> None:
        handle = self.skb(first)
        if handle is None or self.record(handle).users != 1:
            return
        length = int(self.record(handle).len)
        name, arguments = (
            ("pskb_expand_head", {"nhead": second % 100, "ntail": 0}),
            ("skb_unclone", {}),
            ("skb_cow_head", {"headroom": second % 200}),
            ("pskb_trim", {"len": second * 37 % (length + 1)}),
            ("skb_linearize", {}),
            ("skb_unclone_keeptruesize", {}),
        )[second % 6]
        self.do(name, s=handle, **arguments)  # type: ignore[arg-type]

    def pull_tail(self, first: int, second: int) -> None:
        handle = self.skb(first)
        if handle is not None and self.record(handle).users == 1 and self.record(handle).data_len:
            self.do("pskb_pull_tail", s=handle, delta=1 + second * 53 % int(self.record(handle).data_len))

    def coalesce(self, first: int, second: int) -> None:
        to, source = self.skb(first), self.skb(second)
        if to is None or source is None or to == source or self.record(source).users != 1:
            return
        if self.kernel == "5.14" and self.cloned(source):
            return  # takes references that are dropped as shares: the fault repaired later
        marks = [bool(self.record(handle).pp_recycle) for handle in (to, source)]
        refused = self.kernel == "6.1" and marks[1] and self.cloned(source)
        merged = self.do("try_coalesce", **{"to": to, "from": source})["ret"]
        if merged and (marks[0] != marks[1] or refused):
            self.fail(f"invariant 46: merged marks {marks}")

    def gro(self, first: int, second: int) -> None:
        to, source = self.skb(first), self.skb(second)
        if to is None or source is None or to == source:
            return
        records = [self.record(handle) for handle in (to, source)]
        if any(record.users != 1 or self.cloned(h) for record, h in zip(records, (to, source), strict=True)):
            return
        same = records[0].pp_recycle == records[1].pp_recycle
        if self.data(source).frag_list or not records[1].len or (self.kernel == "5.14" and not same):
            return
        # what was merged before stays with the list, so its members must be alone as well
        if not self.may_grow(to) or self.last(to).pp_recycle != records[0].pp_recycle:
            return
        linear = int(records[1].len - records[1].data_len)
        headers = (0, linear // 2, linear, min(linear + 10, int(records[1].len)))[(first + second) % 4]
        done = self.do("gro_receive", **{"to": to, "from": source, "hdr": headers})["ret"]
        if done == 0 and not same:
            self.fail("invariant 46: GRO merged unequal marks")

    def last(self, handle: int) -> Any:
        """The record of the last member of the list, or of the skb itself."""
        record = self.record(handle)
        member = int(self.data(handle).frag_list)
        while member:
            record = self.buffers.skbs[member]
            member = int(record.next)
        return record

    def may_grow(self, handle: int) -> bool:
        """Whether nobody else has the data, nor the last member of the list."""
        last = self.last(handle)
        alone = self.buffers.shared[last.shared].dataref & DATAREF_MASK == 1
        return bool(last.users == 1 and alone and not self.cloned(handle))

    def nest(self, first: int, second: int) -> None:
        """An skb becomes a member of another one's list, with its own list if it has one."""
        to, child = self.skb(first), self.skb(second)
        if to is None or child is None or to == child or not self.may_grow(to):
            return
        if self.record(to).users == 1 and self.record(child).users == 1:
            self.do("frag_list_add", s=to, child=child)

    def shift(self, first: int, second: int) -> None:
        """As TCP does with what it has sent: unmarked, without lists."""
        to, source = self.skb(first), self.skb(second)
        if to is None or source is None or to == source:
            return
        for handle in (to, source):
            record = self.record(handle)
            if record.users != 1 or record.pp_recycle or self.data(handle).frag_list:
                return
        length = int(self.record(source).len)
        if length and self.data(source).nr_frags:
            moved = (length, 1 + first * 31 % length)[second % 2]
            self.do("skb_shift", **{"to": to, "from": source, "len": moved})

    def split(self, first: int, second: int) -> None:
        handle = self.skb(first)
        if handle is None or len(self.replay.skbs) >= SKBS or self.record(handle).users != 1:
            return
        record = self.record(handle)
        length = int(record.len)
        if record.pp_recycle or self.cloned(handle) or self.data(handle).frag_list or length < 2:
            return
        rest = self.fresh()
        self.do("alloc_skb", s=rest, kind=0, size=max(256, length - int(record.data_len)), headroom=0, len=0)
        self.do("skb_split", s=handle, to=rest, len=1 + second * 37 % (length - 1))

    def frag_reference(self, first: int, second: int) -> None:
        handle = self.skb(first)
        if handle is not None and self.data(handle).nr_frags and len(self.replay.handles) < 300:
            self.do("frag_ref", s=handle, i=second % int(self.data(handle).nr_frags), h=self.fresh())

    def copy_into_pool(self, first: int, second: int) -> None:
        handle = self.skb(first)
        number = self.live(second)
        if handle is None or number is None or not self.host.rules.idle_shares:
            return
        if self.record(handle).users == 1 and self.host.pools[number].order == 0:
            self.do("pp_cow_data", s=handle, pool=number, headroom=192)

    PAGE_PROGRAM: tuple[Callable[["Machine", int, int], None], ...] = (
        *(alloc, alloc_many, put, put, put_many, put_bulk, return_skb_page, put_with_reference, reference),
        *(drop_reference, drop_reference, release_page, cut_up, share, put_last, reserves, change_node),
        *(fail_maps, fail_pages, return_frame, return_frame, flush_frames, destroy, tick),
    )
    SKB_PROGRAM: tuple[Callable[["Machine", int, int], None], ...] = (
        *(make, make, make, free, free, get, copy, copy, change, change, pull_tail, coalesce, coalesce, gro),
        *(gro, nest, shift, split, frag_reference, copy_into_pool),
    )

    def finish(self) -> None:
        """Give everything back: every pool goes, and all memory with it (invariant 42)."""
        self.flush_frames(0, 0)
        for handle in sorted(self.replay.skbs):
            while handle in self.replay.skbs:
                self.do("kfree_skb", s=handle)
        for handle in sorted(self.replay.handles):
            while handle in self.replay.handles:
                held = self.replay.handles[handle]
                self.do(
                    "put_full" if held.share else "put_page", h=handle, **{"direct": 0} if held.share else {}
                )
        self.check()
        if np.any(self.buffers.skbs.users > 0):
            self.fail("invariant 42: an skb is left")
        for number in range(POOLS):
            while self.host.pools[number].user_cnt:
                self.destroyed.add(number)
                self.do("destroy", pool=number)
            if not self.host.pools[number].freed:
                self.do("release_tick", pool=number)
            if not self.host.pools[number].freed:
                self.fail(f"invariant 42: pool {number} is not gone")
        if self.host.page_allocator.used_pages.sum():
            self.fail("invariant 42: memory is in use")
