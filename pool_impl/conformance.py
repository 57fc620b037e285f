"""Replay of recorded kernel operations against this implementation.

The pool is given operations and arguments only. After each one its state is compared, field by field,
with the recorded one; it is never resynchronised.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pool_impl import page_alloc, pool
from pool_impl.errors import CreateError, RecordingError
from pool_impl.host import new_host
from pool_impl.jit import POOL_IMPL_DIGEST, entry
from pool_impl.layout import (
    NO_POOL,
    PFMEMALLOC,
    RECYCLE_CACHE_FULL,
    RECYCLE_CACHED,
    RECYCLE_RELEASED_REFCNT,
    RECYCLE_RING,
    RECYCLE_RING_FULL,
    Host,
)
from pool_impl.recording import Operation, Recording
from pool_impl.release import rules_of

NOT_COMPARED = (
    ("header: params, description", "what the trace is about; every create operation has its parameters"),
)
"""what a recording holds and replay deliberately leaves aside, with the reason"""

PAGES_OF_A_TRACE = 1 << 18

_STATE_FIELDS = {"ret", "off", "nid", "warn", "pools", "pages", "skbs", "dma"}

_IN_SOFTIRQ = {"softirq": 1, "bh": 1, "process": 0}


class Divergence(NamedTuple):
    """One field in which this implementation differs from the kernel."""

    operation: Operation
    field: str
    """such as ``pools[0].ring_head`` or ``pages[12]``"""
    expected: object
    actual: object

    def __str__(self) -> str:
        operation = self.operation
        return (
            f"operation {operation.number}, {operation.name}: {self.field}: "
            f"expected {self.expected}, actual {self.actual}"
        )


class Result(NamedTuple):
    """Outcome of one trace."""

    recording: Recording
    operations: int
    divergences: int
    first: Divergence | None

    def summary(self) -> dict[str, Any]:
        """What ``farm conformance --json`` prints of a trace."""
        first = self.first
        return {
            "path": str(self.recording.path),
            "kernel": self.recording.kernel,
            "operations": self.operations,
            "divergences": self.divergences,
            "first": first
            and {
                "operation": first.operation.number,
                "name": first.operation.name,
                "field": first.field,
                "expected": first.expected,
                "actual": first.actual,
            },
        }


def replay(recording: Recording) -> Result:
    """Run all operations of a recording.

    Raises:
        RecordingError: there are no rules for the recording's kernel.
    """
    try:
        rules = rules_of(recording.kernel)
    except KeyError:
        raise RecordingError(
            f"{recording.path}:1: kernel {recording.kernel}: no rules for this release"
        ) from None
    replayed = _Replay(new_host(rules, pages=PAGES_OF_A_TRACE, pools=recording.pools))
    divergences = 0
    first = None
    for operation in recording.operations:
        for field, expected, actual in replayed.run(operation):
            divergences += 1
            first = first or Divergence(operation, field, expected, actual)
    return Result(recording, len(recording.operations), divergences, first)


class _Handle:
    """A name for a page and the references of its holder."""

    def __init__(self, page: int, *, share: bool, references: int = 0) -> None:
        self.page = page
        self.share = share
        self.references = references


class _Replay:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.handles: dict[int, _Handle] = {}
        self.created: list[int] = []
        self.ids: dict[int, int] = {}
        """page id by page, for pages that are not free"""
        self.next_id = 1
        self.seen: dict[int, list[int | None]] = {}
        """state of each page id after the operation before"""

    def run(self, operation: Operation) -> Iterator[tuple[str, object, object]]:
        """Do one operation and yield field, expected and actual wherever the state differs."""
        perform = _PERFORM.get(operation.name)
        if perform is None or operation.context not in _IN_SOFTIRQ:
            name = "op" if perform is None else "ctx"
            yield name, getattr(operation, "name" if name == "op" else "context"), "unknown"
            return
        context = self.host.context
        context.in_softirq = _IN_SOFTIRQ[operation.context]
        context.warnings = 0
        try:
            actual = perform(self, operation.arguments)
        except (KeyError, TypeError) as error:
            yield "arguments", operation.arguments, f"not understood: {error!r}"
            return
        if context.warnings:
            actual["warn"] = int(context.warnings)
        actual |= self.state()
        expected = operation.state
        for field in sorted(expected.keys() - _STATE_FIELDS):
            yield field, expected[field], "unknown field"
        for field in ("ret", "off", "nid", "warn", "skbs"):
            if expected.get(field) != actual.get(field):
                yield field, expected.get(field), actual.get(field)
        for field in ("dma", "pages"):
            yield from _differences(field, expected.get(field), actual.get(field))
        yield from self.pool_differences(expected.get("pools"))

    def pool_differences(self, expected: object) -> Iterator[tuple[str, object, object]]:
        actual = [self.pool_state(number) for number in sorted(self.created)]
        if not isinstance(expected, list) or len(expected) != len(actual):
            yield "pools", expected, actual
            return
        for number, (before, after) in enumerate(zip(expected, actual, strict=True)):
            yield from _differences(f"pools[{number}]", before, after)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"skbs": {}, "pages": self.changed_pages()}
        device = self.host.device
        if device.maps:  # the recorder leaves it out until then
            state["dma"] = {
                name: int(device[name]) for name in ("maps", "unmaps", "syncs", "last_off", "last_len")
            }
        return state

    def changed_pages(self) -> dict[str, list[int | None]]:
        changed: dict[str, list[int | None]] = {}
        live = np.fromiter(self.ids, np.int64, len(self.ids))
        records = self.host.pages[live]
        rows = zip(
            list(self.ids.items()),
            records.refcount.tolist(),
            records.pp.tolist(),
            records.frag_count.tolist(),
            strict=True,
        )
        for (page, number), refcount, owner, shares in rows:
            state = [refcount, owner, None if owner == NO_POOL else shares]
            if refcount == 0:
                del self.ids[page]
            if self.seen.get(number) != state:
                self.seen[number] = state
                changed[str(number)] = state
        return changed

    def pool_state(self, number: int) -> dict[str, Any]:
        record = self.host.pools[number]
        recycle = record.recycle.sum(axis=0)
        has_frag_page = record.frag_page != 0
        return {
            "cache": int(record.cache_count),
            "ring": _live(self.host, number),
            **{n: int(record[n]) for n in ("ring_size", "ring_batch", "ring_prod", "ring_head", "ring_tail")},
            "hold": int(record.hold),
            "release": int(record.release),
            "inflight": _inflight(self.host, number),
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

    def page_id(self, page: int) -> int:
        """Number of a page, by first appearance outside the pool."""
        page = int(page)
        if page not in self.ids:
            self.ids[page] = self.next_id
            self.next_id += 1
        return self.ids[page]

    # Operations, each giving its results

    def create(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        number = arguments["pool"]
        names = pool.PoolParams._fields
        params = pool.PoolParams(**{name: arguments[name] for name in names})
        if set(arguments) - set(names) - {"pool"}:
            raise KeyError(sorted(set(arguments) - set(names) - {"pool"}))
        try:
            pool.create(self.host, number, params)
        except CreateError as error:
            return {"ret": -error.errno}
        self.created.append(number)
        return {"ret": 0}

    def alloc(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return self.took(arguments["h"], self.do(_ALLOC, arguments["pool"]))

    def alloc_frag(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        number, size = arguments["pool"], arguments["size"]
        page = self.do(_ALLOC_FRAG, number, size)
        results = self.took(arguments["h"], page)
        if page:
            results["off"] = int(self.host.pools[number].frag_offset) - self.do(_FRAG_BYTES, size)
        return results

    def took(self, handle: int, page: int) -> dict[str, Any]:
        if page == 0:
            return {"ret": 0}
        self.handles[handle] = _Handle(page, share=True)
        return {"ret": self.page_id(page), "nid": int(self.host.pages[page].nid)}

    def put(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.do(_PUT, self.give(arguments["h"]), arguments["sync"], arguments["direct"])
        return {}

    def put_full(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.do(_PUT, self.give(arguments["h"]), pool.WHOLE, arguments["direct"])
        return {}

    def recycle_direct(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.do(_PUT, self.give(arguments["h"]), pool.WHOLE, 1)
        return {}

    def put_defragged(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.do(_PUT_DEFRAGGED, self.give(arguments["h"]), arguments["sync"], arguments["direct"])
        return {}

    def put_bulk(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        pages = [self.give(handle) for handle in arguments["hs"]]
        self.do(_PUT_BULK, arguments["pool"], *pages)
        return {}

    def return_skb_page(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        returned = self.do(_RETURN_SKB_PAGE, self.handles[arguments["h"]].page)
        if returned:
            self.give(arguments["h"])
        return {"ret": returned}

    def leak_page(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.do(_PUT_PAGE, self.give(arguments["h"]))
        return {}

    def release_page(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        handle = self.handles[arguments["h"]]
        handle.share = False
        handle.references += 1
        self.do(_RELEASE_PAGE, handle.page)
        return {}

    def get_page(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        handle = self.handles[arguments["h"]]
        handle.references += 1
        self.do(_GET_PAGE, handle.page)
        return {}

    def put_page(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        handle = self.handles[arguments["h"]]
        handle.references -= 1
        self.forget_if_empty(arguments["h"])
        self.do(_PUT_PAGE, handle.page)
        return {}

    def page_alloc(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        page = self.do(_PAGE_ALLOC, arguments["order"])
        self.handles[arguments["h"]] = _Handle(page, share=False, references=1)
        return {"ret": self.page_id(page)}

    def fragment(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        page = self.handles[arguments["h"]].page
        self.do(_SET_SHARES, page, arguments["nr"])
        for handle in range(arguments["first"], arguments["first"] + arguments["nr"] - 1):
            self.handles[handle] = _Handle(page, share=True)
        return {}

    def defrag(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {"ret": self.do(_DROP_SHARES, self.handles[arguments["h"]].page, arguments["nr"])}

    def pfmemalloc(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        record = self.host.pages[self.handles[arguments["h"]].page]
        record.magic = record.magic | PFMEMALLOC if arguments["on"] else record.magic & ~PFMEMALLOC
        return {"ret": arguments["on"]}

    def update_nid(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.do(_UPDATE_NID, arguments["pool"], arguments["nid"])
        return {}

    def nid_changed(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self.host.pools[arguments["pool"]].nid != arguments["nid"]:
            self.do(_UPDATE_NID, arguments["pool"], arguments["nid"])
        return {}

    def use_xdp_mem(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.host.pools[arguments["pool"]].user_cnt += 1
        return {}

    def destroy(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.do(_DESTROY, arguments["pool"])
        return {}

    def release_tick(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.do(_RELEASE_TICK, arguments["pool"])
        return {}

    def dma_fail(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        device = self.host.device
        device.fail_skip = arguments["skip"]
        device.fail_count = arguments["count"]
        return {}

    def nop(self, _arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def give(self, handle: int) -> int:
        """The page of a handle, whose share is used up now."""
        self.handles[handle].share = False
        page = self.handles[handle].page
        self.forget_if_empty(handle)
        return page

    def forget_if_empty(self, handle: int) -> None:
        if not self.handles[handle].share and self.handles[handle].references == 0:
            del self.handles[handle]

    def do(self, code: int, *numbers: int) -> int:
        return int(_step(self.host, code, np.array(numbers, np.int64)))


def _differences(name: str, expected: object, actual: object) -> Iterator[tuple[str, object, object]]:
    """Where two values differ, named as deep as both are objects."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            inner = f"{name}[{key}]" if name == "pages" else f"{name}.{key}"
            yield from _differences(inner, expected.get(key), actual.get(key))
    elif expected != actual:
        yield name, expected, actual


_PERFORM: dict[str, Callable[[_Replay, Mapping[str, Any]], dict[str, Any]]] = {
    operation.__name__: operation
    for operation in (
        _Replay.create,
        _Replay.alloc,
        _Replay.alloc_frag,
        _Replay.put,
        _Replay.put_full,
        _Replay.recycle_direct,
        _Replay.put_defragged,
        _Replay.put_bulk,
        _Replay.return_skb_page,
        _Replay.leak_page,
        _Replay.release_page,
        _Replay.get_page,
        _Replay.put_page,
        _Replay.page_alloc,
        _Replay.fragment,
        _Replay.defrag,
        _Replay.pfmemalloc,
        _Replay.update_nid,
        _Replay.nid_changed,
        _Replay.use_xdp_mem,
        _Replay.destroy,
        _Replay.release_tick,
        _Replay.dma_fail,
        _Replay.nop,
    )
}

(
    _ALLOC,
    _ALLOC_FRAG,
    _FRAG_BYTES,
    _PUT,
    _PUT_DEFRAGGED,
    _PUT_BULK,
    _RETURN_SKB_PAGE,
    _RELEASE_PAGE,
    _GET_PAGE,
    _PUT_PAGE,
    _PAGE_ALLOC,
    _SET_SHARES,
    _DROP_SHARES,
    _UPDATE_NID,
    _DESTROY,
    _RELEASE_TICK,
    _INFLIGHT,
) = range(17)


@entry(POOL_IMPL_DIGEST)
def _step(host: Host, code: int, numbers: Any) -> int:
    """One operation of the compiled allocator; all in one entry, so that there is one compilation."""
    first = numbers[0]
    if code == _ALLOC:
        return pool.alloc(host, host.pools[first])
    if code == _ALLOC_FRAG:
        return pool.alloc_frag(host, host.pools[first], numbers[1])
    if code == _FRAG_BYTES:
        return pool.frag_bytes(host, first)
    if code == _PUT:
        pool.put(host, host.pools[host.pages[first].pp], first, numbers[1], numbers[2] != 0)
    elif code == _PUT_DEFRAGGED:
        pool.put_defragged(host, host.pools[host.pages[first].pp], first, numbers[1], numbers[2] != 0)
    elif code == _PUT_BULK:
        pool.put_bulk(host, host.pools[first], numbers[1:], numbers.shape[0] - 1)
    elif code == _RETURN_SKB_PAGE:
        return int(pool.return_skb_page(host, first))
    elif code == _RELEASE_PAGE:
        pool.release_page(host, host.pools[host.pages[first].pp], first)
    elif code == _GET_PAGE:
        page_alloc.get_page(host, first)
    elif code == _PUT_PAGE:
        page_alloc.put_page(host, first)
    elif code == _PAGE_ALLOC:
        return page_alloc.alloc(host, -1, first)
    elif code == _SET_SHARES:
        pool.set_shares(host, first, numbers[1])
    elif code == _DROP_SHARES:
        return pool.drop_shares(host, first, numbers[1])
    elif code == _UPDATE_NID:
        pool.update_nid(host, host.pools[first], numbers[1])
    elif code == _DESTROY:
        pool.destroy(host, host.pools[first])
    elif code == _RELEASE_TICK:
        pool.release_tick(host, host.pools[first])
    elif code == _INFLIGHT:
        return pool.inflight(host.pools[first])
    return 0


def _live(host: Host, number: int) -> int:
    record = host.pools[number]
    used = np.count_nonzero(host.slots[record.ring_base : record.ring_base + record.ring_size])
    return int(used - (record.ring_head - record.ring_tail))


def _inflight(host: Host, number: int) -> int:
    return int(_step(host, _INFLIGHT, np.array([number], np.int64)))
