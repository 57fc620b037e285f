"""Replay of page operations: how each one of a recording is done with this implementation, and the state of
pools and pages in the recording's terms."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pool_impl import page_calls, pool, xdp
from pool_impl.errors import CreateError
from pool_impl.layout import (
    FLAG_SYSTEM_POOL,
    NO_CPU,
    NO_NAPI,
    NO_POOL,
    PFMEMALLOC,
    RECYCLE_CACHE_FULL,
    RECYCLE_CACHED,
    RECYCLE_RELEASED_REFCNT,
    RECYCLE_RING,
    RECYCLE_RING_FULL,
    Host,
    records,
)

Results = dict[str, Any]


class Handle:
    """A name for part of a page and the references of its holder."""

    def __init__(self, page: int, offset: int = 0, *, share: bool, references: int = 0) -> None:
        self.page = page
        self.offset = offset
        self.share = share
        self.references = references


class PageReplay:
    """The machine of a trace and the operations on its pools and pages; each operation is a method that
    takes the recorded arguments and gives results."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.handles: dict[int, Handle] = {}
        self.created: list[int] = []
        self.gone: dict[int, dict[str, Any]] = {}
        """last state of freed pools"""
        self.ids: dict[int, tuple[int, int]] = {}
        """id, and serial number of the allocation, by page, for pages that are not free"""
        self.next_id = 1
        self.ended: list[int] = []
        """ids of pages that were freed and came again within one operation"""
        self.xdp_memory = records(xdp.XDP_MEMORY, 1)[0]
        self.xdp_bulk = records(xdp.BULK, 1)[0]
        self.seen: dict[int, list[int | None]] = {}
        """state of each page id after the operation before"""

    # State

    def page_id(self, page: int) -> int:
        """Number of a page, by first appearance outside the pool; 0 for memory that has none."""
        page = int(page)
        if page == 0:
            return 0
        serial = int(self.host.pages[page].next)
        known = self.ids.get(page)
        if known is not None and known[1] != serial:
            self.ended.append(known[0])
            known = None
        if known is None:
            known = self.ids[page] = (self.next_id, serial)
            self.next_id += 1
        return known[0]

    def changed_pages(self) -> dict[str, list[int | None]]:
        """Refcount, pool and fragment count of each page that is not as it was before."""
        now: list[tuple[int, list[int | None]]] = [(number, [0, NO_POOL, None]) for number in self.ended]
        self.ended.clear()
        records = self.host.pages[np.fromiter(self.ids, np.int64, len(self.ids))]
        columns = (records.refcount, records.pp, records.frag_count, records.next)
        rows = zip(list(self.ids.items()), *(column.tolist() for column in columns), strict=True)
        for (page, (number, serial)), refcount, owner, shares, now_serial in rows:
            if refcount == 0 or now_serial != serial:
                del self.ids[page]
                now.append((number, [0, NO_POOL, None]))
            else:
                now.append((number, [refcount, owner, None if owner == NO_POOL else shares]))
        changed = {}
        for number, state in now:
            if self.seen.get(number) != state:
                self.seen[number] = state
                changed[str(number)] = state
        return changed

    def pool_states(self) -> list[dict[str, Any]]:
        """State of all pools; a freed one stays as it was."""
        states = []
        for number in sorted(self.created):
            state = self.gone.get(number) or self.pool_state(number)
            if state["freed"]:
                self.gone[number] = state
            states.append(state)
        return states

    def pool_state(self, number: int) -> dict[str, Any]:
        """State of one pool."""
        record = self.host.pools[number]
        recycle = self.recycled(number)
        has_frag_page = record.frag_page != 0
        state = {
            "cache": int(record.cache_count),
            "ring": _live(self.host, number),
            **{n: int(record[n]) for n in ("ring_size", "ring_batch", "ring_prod", "ring_head", "ring_tail")},
            "hold": int(record.hold),
            "release": int(record.release),
            "inflight": self.do(page_calls.INFLIGHT, number),
            "alloc": {
                name: int(record[f"alloc_{name}"])
                for name in ("fast", "slow", "slow_high_order", "empty", "refill", "waive")
            },
            "recycle": {
                "cached": int(recycle[RECYCLE_CACHED]),
                "cache_full": int(recycle[RECYCLE_CACHE_FULL]),
                "ring": int(recycle[RECYCLE_RING]),
                "ring_full": int(recycle[RECYCLE_RING_FULL]),
                "released_refcnt": int(recycle[RECYCLE_RELEASED_REFCNT]),
            },
            "frag_page": self.page_id(record.frag_page) if has_frag_page else None,
            "frag_offset": int(record.frag_offset) if has_frag_page else 0,
            "frag_users": int(record.frag_users) if has_frag_page else 0,
            "nid": int(record.nid),
            "user_cnt": int(record.user_cnt),
            "destroy_cnt": int(record.destroy_cnt),
            "freed": bool(record.freed),
        }
        if self.host.rules.local_recycling:
            state["napi"] = None if record.napi == NO_NAPI else int(record.napi)
            state["cpuid"] = int(record.cpuid)
        return state

    def recycled(self, number: int) -> Any:
        """Recycle counts of a pool over all CPUs; of all system pools together if it is one."""
        record = self.host.pools[number]
        if self.host.rules.frag_flag_needed or not record.pool_flags & FLAG_SYSTEM_POOL:
            return record.recycle.sum(axis=0)
        pools = [self.host.pools[other] for other in self.created]
        return sum(other.recycle.sum(axis=0) for other in pools if other.pool_flags & FLAG_SYSTEM_POOL)

    # Operations

    def create(self, arguments: Mapping[str, Any]) -> Results:
        number = arguments["pool"]
        later = () if self.host.rules.local_recycling else ("napi", "cpuid", "nosync")
        names = [name for name in pool.PoolParams._fields if name not in ("slow_batch", *later)]
        params = pool.PoolParams(**{name: arguments[name] for name in names})
        unknown = sorted(set(arguments) - set(names) - {"pool"})
        if unknown:
            raise KeyError(unknown)
        try:
            pool.create(self.host, number, params)
        except CreateError as error:
            return {"ret": -error.errno}
        self.created.append(number)
        return {"ret": 0}

    def alloc(self, arguments: Mapping[str, Any]) -> Results:
        return self.took(arguments["h"], self.do(page_calls.ALLOC, arguments["pool"]))

    def alloc_frag(self, arguments: Mapping[str, Any]) -> Results:
        number, size = arguments["pool"], arguments["size"]
        page = self.do(page_calls.ALLOC_FRAG, number, size)
        offset = int(self.host.pools[number].frag_offset) - self.do(page_calls.FRAG_BYTES, size)
        results = self.took(arguments["h"], page, offset)
        return results | {"off": offset} if page else results

    def alloc_any(self, arguments: Mapping[str, Any]) -> Results:
        granted = np.zeros(2, np.int64)
        page = int(page_calls.alloc_any(self.host, arguments["pool"], arguments["size"], granted))
        offset, size = granted.tolist()
        results = self.took(arguments["h"], page, offset)
        return results | {"off": offset, "size": size} if page else results

    def took(self, handle: int, page: int, offset: int = 0) -> Results:
        if page == 0:
            return {"ret": 0}
        self.handles[handle] = Handle(page, offset, share=True)
        return {"ret": self.page_id(page), "nid": int(self.host.pages[page].nid)}

    def put(self, arguments: Mapping[str, Any]) -> Results:
        self.put_by(page_calls.PUT, arguments, arguments["sync"], arguments["direct"])
        return {}

    def put_full(self, arguments: Mapping[str, Any]) -> Results:
        self.put_by(page_calls.PUT, arguments, pool.WHOLE, arguments["direct"])
        return {}

    def recycle_direct(self, arguments: Mapping[str, Any]) -> Results:
        self.put_by(page_calls.PUT, arguments, pool.WHOLE, 1)
        return {}

    def put_defragged(self, arguments: Mapping[str, Any]) -> Results:
        self.put_by(page_calls.PUT_DEFRAGGED, arguments, arguments["sync"], arguments["direct"])
        return {}

    def put_by(self, code: int, arguments: Mapping[str, Any], length: int, direct: int) -> None:
        page = self.give(arguments["h"])
        self.do(code, page, length, direct, self.host.pages[page].pp)

    def put_bulk(self, arguments: Mapping[str, Any]) -> Results:
        pages = [self.give(handle) for handle in arguments["hs"]]
        self.do(page_calls.PUT_BULK, arguments["pool"], *pages)
        return {}

    def return_skb_page(self, arguments: Mapping[str, Any]) -> Results:
        returned = self.do(page_calls.RETURN_SKB_PAGE, self.handles[arguments["h"]].page)
        if returned:
            self.give(arguments["h"])
        return {"ret": returned}

    def leak_page(self, arguments: Mapping[str, Any]) -> Results:
        self.do(page_calls.PUT_PAGE, self.give(arguments["h"]))
        return {}

    def release_page(self, arguments: Mapping[str, Any]) -> Results:
        handle = self.handles[arguments["h"]]
        handle.share = False
        handle.references += 1
        self.do(page_calls.RELEASE_PAGE, handle.page, self.host.pages[handle.page].pp)
        return {}

    def get_page(self, arguments: Mapping[str, Any]) -> Results:
        handle = self.handles[arguments["h"]]
        handle.references += 1
        self.do(page_calls.GET_PAGE, handle.page)
        return {}

    def put_page(self, arguments: Mapping[str, Any]) -> Results:
        self.do(page_calls.PUT_PAGE, self.give_reference(arguments["h"]))
        return {}

    def page_alloc(self, arguments: Mapping[str, Any]) -> Results:
        page = self.do(page_calls.PAGE_ALLOC, arguments["order"])
        self.handles[arguments["h"]] = Handle(page, share=False, references=1)
        return {"ret": self.page_id(page)}

    def fragment(self, arguments: Mapping[str, Any]) -> Results:
        page = self.handles[arguments["h"]].page
        self.do(page_calls.SET_SHARES, page, arguments["nr"])
        for handle in range(arguments["first"], arguments["first"] + arguments["nr"] - 1):
            self.handles[handle] = Handle(page, share=True)
        return {}

    def ref_page(self, arguments: Mapping[str, Any]) -> Results:
        shared = self.handles[arguments["h"]]
        self.do(page_calls.ADD_SHARE, shared.page)
        self.handles[arguments["new"]] = Handle(shared.page, shared.offset, share=True)
        return {}

    def defrag(self, arguments: Mapping[str, Any]) -> Results:
        return {"ret": self.do(page_calls.DROP_SHARES, self.handles[arguments["h"]].page, arguments["nr"])}

    def pfmemalloc(self, arguments: Mapping[str, Any]) -> Results:
        record = self.host.pages[self.handles[arguments["h"]].page]
        record.magic = record.magic | PFMEMALLOC if arguments["on"] else record.magic & ~PFMEMALLOC
        return {"ret": arguments["on"]}

    def update_nid(self, arguments: Mapping[str, Any]) -> Results:
        self.do(page_calls.UPDATE_NID, arguments["pool"], arguments["nid"])
        return {}

    def nid_changed(self, arguments: Mapping[str, Any]) -> Results:
        if self.host.pools[arguments["pool"]].nid != arguments["nid"]:
            self.do(page_calls.UPDATE_NID, arguments["pool"], arguments["nid"])
        return {}

    def use_xdp_mem(self, arguments: Mapping[str, Any]) -> Results:
        xdp.register(self.host, self.xdp_memory, arguments["pool"])
        return {}

    def disable_direct(self, arguments: Mapping[str, Any]) -> Results:
        self.do(page_calls.DISABLE_DIRECT, arguments["pool"])
        return {}

    def napi_owner(self, arguments: Mapping[str, Any]) -> Results:
        cpu = arguments["cpu"]
        self.host.device.napi_owner[arguments["napi"]] = NO_CPU if cpu < 0 else cpu
        return {}

    def napi_disable(self, arguments: Mapping[str, Any]) -> Results:
        self.host.device.napi_scheduled[arguments["napi"]] = 1
        return {}

    def napi_enable(self, arguments: Mapping[str, Any]) -> Results:
        self.host.device.napi_scheduled[arguments["napi"]] = 0
        return {}

    def destroy(self, arguments: Mapping[str, Any]) -> Results:
        self.do(page_calls.DESTROY, arguments["pool"])
        return {}

    def release_tick(self, arguments: Mapping[str, Any]) -> Results:
        if not self.host.pools[arguments["pool"]].freed:
            self.do(page_calls.RELEASE_TICK, arguments["pool"])
        return {}

    def dma_fail(self, arguments: Mapping[str, Any]) -> Results:
        device = self.host.device
        device.fail_skip = arguments["skip"]
        device.fail_count = arguments["count"]
        return {}

    def page_fail(self, arguments: Mapping[str, Any]) -> Results:
        allocator = self.host.page_allocator
        allocator.fail_skip = arguments["skip"]
        allocator.fail_count = arguments["count"]
        return {}

    def store_mem_info(self, arguments: Mapping[str, Any]) -> Results:
        self.host.pages[self.handles[arguments["h"]].page].pp = arguments["pool"]
        return {}

    def no_direct(self, arguments: Mapping[str, Any]) -> Results:
        self.host.context.no_direct = arguments["on"]
        return {}

    def xdp_return_frame(self, arguments: Mapping[str, Any]) -> Results:
        return self.return_frame(page_calls.XDP_FRAME, arguments)

    def xdp_return_frame_rx_napi(self, arguments: Mapping[str, Any]) -> Results:
        return self.return_frame(page_calls.XDP_FRAME_RX_NAPI, arguments)

    def xdp_return_frame_bulk(self, arguments: Mapping[str, Any]) -> Results:
        return self.return_frame(page_calls.XDP_FRAME_BULK, arguments)

    def xdp_flush_frame_bulk(self, _arguments: Mapping[str, Any]) -> Results:
        page_calls.return_frame(self.host, self.xdp_memory, self.xdp_bulk, page_calls.XDP_FLUSH, 0, 0)
        return {}

    def return_frame(self, code: int, arguments: Mapping[str, Any]) -> Results:
        identity = arguments["id"]
        page = self.give_reference(arguments["h"]) if identity == xdp.ORDINARY else self.give(arguments["h"])
        page_calls.return_frame(self.host, self.xdp_memory, self.xdp_bulk, code, page, identity)
        return {}

    def nop(self, _arguments: Mapping[str, Any]) -> Results:
        return {}

    # Handles

    def give(self, handle: int) -> int:
        """The page of a handle, whose share is used up now."""
        self.handles[handle].share = False
        page = self.handles[handle].page
        self.forget_if_empty(handle)
        return page

    def give_reference(self, handle: int) -> int:
        """The page of a handle, which has one plain reference less now."""
        self.handles[handle].references -= 1
        page = self.handles[handle].page
        self.forget_if_empty(handle)
        return page

    def forget_if_empty(self, handle: int) -> None:
        if not self.handles[handle].share and self.handles[handle].references == 0:
            del self.handles[handle]

    def do(self, code: int, *numbers: int) -> int:
        return int(page_calls.step(self.host, code, np.array(numbers, np.int64)))


PAGE_OPERATIONS: tuple[Callable[[Any, Mapping[str, Any]], Results], ...] = (
    PageReplay.create,
    PageReplay.alloc,
    PageReplay.alloc_frag,
    PageReplay.alloc_any,
    PageReplay.put,
    PageReplay.put_full,
    PageReplay.recycle_direct,
    PageReplay.put_defragged,
    PageReplay.put_bulk,
    PageReplay.return_skb_page,
    PageReplay.leak_page,
    PageReplay.release_page,
    PageReplay.get_page,
    PageReplay.put_page,
    PageReplay.page_alloc,
    PageReplay.fragment,
    PageReplay.ref_page,
    PageReplay.defrag,
    PageReplay.pfmemalloc,
    PageReplay.update_nid,
    PageReplay.nid_changed,
    PageReplay.use_xdp_mem,
    PageReplay.disable_direct,
    PageReplay.napi_owner,
    PageReplay.napi_disable,
    PageReplay.napi_enable,
    PageReplay.destroy,
    PageReplay.release_tick,
    PageReplay.dma_fail,
    PageReplay.page_fail,
    PageReplay.store_mem_info,
    PageReplay.no_direct,
    PageReplay.xdp_return_frame,
    PageReplay.xdp_return_frame_rx_napi,
    PageReplay.xdp_return_frame_bulk,
    PageReplay.xdp_flush_frame_bulk,
    PageReplay.nop,
)
"""operations by name, but for ``free_va``, which is ``put_full`` by address"""


def _live(host: Host, number: int) -> int:
    record = host.pools[number]
    used = np.count_nonzero(host.slots[record.ring_base : record.ring_base + record.ring_size])
    return int(used - (record.ring_head - record.ring_tail))
