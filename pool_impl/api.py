"""The pool for Python: objects for a pool and its pages, with the checks of a debug build.

    >>> from pool_impl import PagePool, PoolParams
    >>> with PagePool(PoolParams(pool_size=256)) as pool:
    ...     page = pool.alloc()
    ...     pool.put(page, direct=True)

Every call goes through the compiled functions that trials and replay use, so state and counters are those
of the kernel. On top of them this module keeps who holds what, and raises :class:`PoolError` where the
kernel, and the functions of ``pool_impl.pool`` and ``pool_impl.skb``, have undefined behaviour: a page put
twice, a page of another pool, a share count below zero, use of what is gone.

A pool here has a machine of its own. All calls run on its CPU 0 and in softirq context, as those of a
driver's NAPI poll do.
"""

import errno
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from pool_impl import page_calls
from pool_impl.errors import CreateError, Leak, LeakError, PoolError
from pool_impl.host import new_buffers, new_host
from pool_impl.layout import (
    FLAG_PAGE_FRAG,
    MAX_NAPIS,
    MAX_NODES,
    MAX_ORDER,
    NO_CPU,
    NO_NAPI,
    NO_NODE,
    RECYCLE_CACHE_FULL,
    RECYCLE_CACHED,
    RECYCLE_RELEASED_REFCNT,
    RECYCLE_RING,
    RECYCLE_RING_FULL,
    SERVING_SOFTIRQ,
    SIGNATURE,
    SIGNATURE_MASK,
)
from pool_impl.pool import PAGE_BYTES, WHOLE, PoolParams, create
from pool_impl.release import DEFAULT_RELEASE, RELEASES, rules_of, skb_rules_of

if TYPE_CHECKING:
    from pool_impl.api_skb import Skb

_ALLOC_STATS = ("fast", "slow", "slow_high_order", "empty", "refill", "waive")
_RECYCLE_STATS = {
    "cached": RECYCLE_CACHED,
    "cache_full": RECYCLE_CACHE_FULL,
    "ring": RECYCLE_RING,
    "ring_full": RECYCLE_RING_FULL,
    "released_refcnt": RECYCLE_RELEASED_REFCNT,
}


@dataclass(frozen=True, slots=True, repr=False)
class Page:
    """A page, or part of one, as it was handed out once; it stands for one share (spec 6.1)."""

    pool: "PagePool"
    id: int
    """number of the page in its machine, from 1; the parts of a page have the same"""
    offset: int
    """where in the page it starts, bytes"""
    size: int
    """bytes"""
    serial: int
    """number of the allocation: a page that comes again is another ``Page``"""

    @property
    def refcount(self) -> int:
        """Plain references to the page now, the pool's own included."""
        return int(self.pool._host.pages[self.id].refcount)

    def __repr__(self) -> str:
        held = self.serial in self.pool._held
        state = f"refcount {self.refcount}" if held else "given away"
        return f"<Page {self.id}: {self.size} bytes at {self.offset}, {state}>"


class PagePool:
    """A page_pool (spec 1-4).

    As a context manager it is destroyed at the end of the block; pages that are still out then raise
    :class:`LeakError`, unless another exception is on its way.

    Args:
        params: as ``struct page_pool_params``.
        kernel: the release whose rules hold: "5.14", "6.1" (default), "6.12" or a version of these.
        pages: pages that the machine has; allocation fails when all are in use.
        skbs: skbs that the machine has room for.

    Raises:
        CreateError: a parameter is refused, with the kernel's errno (spec 1.5), or EINVAL for a node,
            order or NAPI instance that the machine does not have.
        PoolError: there are no rules for this release.
    """

    def __init__(
        self,
        params: PoolParams | None = None,
        *,
        kernel: str = DEFAULT_RELEASE,
        pages: int = 1 << 16,
        skbs: int = 1 << 12,
    ) -> None:
        params = PoolParams() if params is None else params
        try:
            rules, skb_rules = rules_of(kernel), skb_rules_of(kernel)
        except KeyError:
            raise PoolError(f"kernel = {kernel!r}: use one of {', '.join(RELEASES)}") from None
        for field, lowest, end in (
            ("order", 0, MAX_ORDER + 1),
            ("nid", NO_NODE, MAX_NODES),
            ("napi", NO_NAPI, MAX_NAPIS),
        ):
            value = getattr(params, field)
            if not lowest <= value < end:
                raise CreateError(errno.EINVAL, field, value, f"use {lowest} to {end - 1}")
        self.kernel = kernel
        self.params = params
        self._host = new_host(rules, pages=pages)
        self._buffers = new_buffers(self._host, skb_rules, skbs=skbs)
        create(self._host, 0, params)
        self._host.context.in_softirq = SERVING_SOFTIRQ
        if params.napi != NO_NAPI:
            self._host.device.napi_owner[params.napi] = 0
            self._host.device.napi_scheduled[params.napi] = 1
        self._closed = False
        self._serial = 0
        self._held: dict[int, Page] = {}
        """shares that callers have, by serial number"""
        self._references: Counter[Page] = Counter()
        """plain references that callers have"""
        self._skbs: dict[int, Skb] = {}
        """skbs that are not freed, by index"""

    # Allocation

    def alloc(self) -> Page:
        """A whole page: from the cache, refilled from the ring or else by the page allocator (spec 2.1).

        Raises:
            PoolError: the pool is destroyed, or the machine is out of pages.
        """
        self._require_open("alloc")
        return self._handed_out("alloc", self._call(page_calls.ALLOC, 0), 0, PAGE_BYTES << self.params.order)

    def alloc_frag(self, size: int) -> Page:
        """Part of a page, shared with other parts (spec 2.4).

        Args:
            size: bytes; what it takes up is rounded up to 8.

        Raises:
            PoolError: as for :meth:`alloc`; the size is not 1 to a page's bytes; the release wants
                FLAG_PAGE_FRAG for it (6.1) or has no fragments (5.14).
        """
        self._require_open("alloc_frag")
        page_bytes = PAGE_BYTES << self.params.order
        if not 0 < size <= page_bytes:
            raise PoolError(f"alloc_frag: size = {size}: use 1 to {page_bytes}")
        if self._host.rules.frag_flag_needed and not self.params.flags & FLAG_PAGE_FRAG:
            raise PoolError(f"alloc_frag: flags = {self.params.flags}: {self.kernel} needs FLAG_PAGE_FRAG")
        page = self._call(page_calls.ALLOC_FRAG, 0, size)
        offset = int(self._host.pools[0].frag_offset) - self._call(page_calls.FRAG_BYTES, size)
        return self._handed_out("alloc_frag", page, offset, size)

    def _handed_out(self, verb: str, page: int, offset: int, size: int) -> Page:
        if page == 0:
            raise PoolError(f"{verb}: the machine has no page left: put some, or allow it more")
        self._serial += 1
        handle = self._held[self._serial] = Page(self, page, offset, size, self._serial)
        return handle

    # Return

    def put(self, page: Page, *, direct: bool = False, length: int | None = None) -> None:
        """Return a page, or the share of a part of one (spec 3.2).

        Args:
            direct: to the cache, as the pool's consumer may; otherwise to the ring.
            length: bytes that the device or the CPU may have touched, for the sync (spec 3.4); all by
                default.

        Raises:
            PoolError: the page was given away before or is another pool's; the share count would fall below
                zero; a direct return to a destroyed pool, whose cache nobody empties any more.
        """
        if direct and self._closed:
            raise PoolError("put: the pool is destroyed: return pages with direct=False")
        if length is not None and length < 0:
            raise PoolError(f"put: length = {length}: use 0 or more bytes, or None for all")
        self._give("put", page)
        self._call(page_calls.PUT, page.id, WHOLE if length is None else length, int(direct), 0)

    def release_page(self, page: Page) -> None:
        """Take a whole page out of the pool, unmapped; the holder keeps a plain reference (spec 3.7).

        Raises:
            PoolError: the page was given away before, is another pool's, or has other parts.
        """
        self._require_held("release_page", page)
        if page.size < PAGE_BYTES << self.params.order or page.id == self._host.pools[0].frag_page:
            raise PoolError(f"release_page: {page!r}: the pool or others have parts of it, use put")
        del self._held[page.serial]
        self._call(page_calls.RELEASE_PAGE, page.id, 0)
        self._references[page] += 1

    def get_page(self, page: Page) -> None:
        """Take a plain reference beside the share: with it, the page will not be recycled (spec 0.2).

        Raises:
            PoolError: the page was given away before or is another pool's.
        """
        self._require_held("get_page", page)
        self._call(page_calls.GET_PAGE, page.id)
        self._references[page] += 1

    def put_page(self, page: Page) -> None:
        """Drop a plain reference taken by :meth:`get_page` or left by :meth:`release_page`.

        Raises:
            PoolError: there is none.
        """
        self._drop_reference("put_page", page)
        self._call(page_calls.PUT_PAGE, page.id)

    # End of life

    def close(self) -> None:
        """Destroy the pool (spec 4.2). Pages that are out may still be put, and :meth:`release_tick` then
        lets the pool go. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self.params.napi != NO_NAPI:  # the driver has stopped polling
            self._host.device.napi_owner[self.params.napi] = NO_CPU
        self._call(page_calls.DESTROY, 0)

    def release_tick(self) -> bool:
        """One pass of the deferred release, the kernel's once a second; True when the pool is gone.

        Raises:
            PoolError: the pool is not destroyed yet.
        """
        if not self._closed:
            raise PoolError("release_tick: the pool is in use: close it first")
        if not self.freed:
            self._call(page_calls.RELEASE_TICK, 0)
        return self.freed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        leaks = self.leaks()
        self.close()
        if leaks and kind is None:
            raise LeakError(leaks)

    # State

    @property
    def closed(self) -> bool:
        """Whether the pool is destroyed."""
        return self._closed

    @property
    def freed(self) -> bool:
        """Whether it is destroyed and has got all its pages back."""
        return bool(self._host.pools[0].freed)

    @property
    def inflight(self) -> int:
        """Pages that entered the pool and have not left, idle ones included (spec 4.1)."""
        return self._call(page_calls.INFLIGHT, 0)

    @property
    def cached(self) -> int:
        """Idle pages in the cache."""
        return int(self._host.pools[0].cache_count)

    @property
    def in_ring(self) -> int:
        """Idle pages in the ring; slots handed back late do not count (spec 5.2)."""
        record = self._host.pools[0]
        used = np.count_nonzero(self._host.slots[record.ring_base : record.ring_base + record.ring_size])
        return int(used - (record.ring_head - record.ring_tail))

    def stats(self) -> dict[str, int]:
        """The kernel's counters since creation, in events, under its names and in its order (spec 8.1)."""
        record = self._host.pools[0]
        recycled = record.recycle.sum(axis=0)
        return {f"alloc_{name}": int(record[f"alloc_{name}"]) for name in _ALLOC_STATS} | {
            f"recycle_{name}": int(recycled[column]) for name, column in _RECYCLE_STATS.items()
        }

    def leaks(self) -> list[Leak]:
        """What is out now: shares of callers, pages in skbs that are not freed, plain references."""
        found = [Leak(page.id, page.offset, page.refcount, "caller") for page in self._held.values()]
        data = {int(self._buffers.skbs[index].shared): skb for index, skb in self._skbs.items()}
        for skb in data.values():
            for part in skb._parts():
                refcount = int(self._host.pages[part.page].refcount)
                found.append(Leak(part.page, part.offset, refcount, "skb"))
        for page, count in self._references.items():
            found += [Leak(page.id, page.offset, page.refcount, "reference")] * count
        return sorted(found)

    def __repr__(self) -> str:
        ring = int(self._host.pools[0].ring_size)
        if self.freed:
            state = "freed"
        else:
            idle = f"{self.cached} cached, {self.in_ring} in ring"
            state = f"{'destroyed, ' if self._closed else ''}{self.inflight} in flight, {idle}"
        return f"<PagePool {self.kernel}, ring of {ring}: {state}>"

    # Checks

    def _require_open(self, verb: str) -> None:
        if self._closed:
            raise PoolError(f"{verb}: the pool is destroyed")

    def _require_own(self, verb: str, page: Page) -> None:
        if page.pool is not self:
            raise PoolError(f"{verb}: {page!r} belongs to another pool")

    def _require_held(self, verb: str, page: Page) -> None:
        self._require_own(verb, page)
        if page.serial not in self._held:
            raise PoolError(f"{verb}: {page!r}: its share was used up before")

    def _give(self, verb: str, page: Page) -> None:
        """The caller's share is used up, if it has one."""
        self._require_held(verb, page)
        counted = not self._host.rules.frag_flag_needed or self.params.flags & FLAG_PAGE_FRAG
        if counted and self._host.pages[page.id].frag_count < 1:
            raise PoolError(
                f"{verb}: {page!r}: its share count would fall below zero: whole pages of a pool with "
                "FLAG_PAGE_FRAG have no shares, use alloc_frag"
            )
        del self._held[page.serial]

    def _drop_reference(self, verb: str, page: Page) -> None:
        self._require_own(verb, page)
        if self._references[page] < 1:
            raise PoolError(f"{verb}: {page!r}: no plain reference is held")
        self._references[page] -= 1

    def _give_to_skb(self, verb: str, page: Page) -> None:
        """The share, or the reference to a page that left the pool, becomes the skb's."""
        if page.serial not in self._held and self._references[page] and not self._is_pool_page(page.id):
            self._drop_reference(verb, page)
        else:
            self._give(verb, page)

    def _require_skb_room(self, verb: str) -> None:
        room = self._buffers.skbs.shape[0] - 1
        if len(self._skbs) == room:
            raise PoolError(f"{verb}: all {room} skbs are in use: free some, or allow the pool more skbs")

    def _is_pool_page(self, page: int) -> bool:
        return bool(int(self._host.pages[page].magic) & SIGNATURE_MASK == SIGNATURE)

    def _call(self, code: int, *numbers: int) -> int:
        return int(page_calls.step(self._host, code, np.array(numbers, np.int64)))
