"""Skbs for Python, on pages of ``pool_impl.api``, with the checks of a debug build."""

from typing import Any, NamedTuple, Self

import numpy as np

from pool_impl import skb_calls
from pool_impl.api import Page, PagePool
from pool_impl.errors import PoolError
from pool_impl.layout import MAX_SKB_FRAGS, SHARED_INFO_BYTES
from pool_impl.skb import DATAREF_MASK


class Frag(NamedTuple):
    """One fragment of an skb."""

    page: int
    """id of the page"""
    offset: int
    """where in the page it starts, bytes"""
    size: int
    """bytes"""


class Skb:
    """An skb with pages of a pool (spec 6). Made by :meth:`build`, :meth:`alloc` and :meth:`clone`."""

    def __init__(self, pool: PagePool, index: int) -> None:
        self.pool = pool
        self._index = index
        self._freed = False
        pool._skbs[index] = self

    @classmethod
    def build(cls, page: Page, *, headroom: int = 0, length: int = 0) -> Self:
        """An unmarked skb around a page, which is its head from now on (``napi_build_skb``).

        Args:
            headroom: bytes in front of the data.
            length: bytes of data; 320 bytes at the end of the page are the shared info's.

        Raises:
            PoolError: the page is not the caller's to give, or too small.
        """
        room = page.size - SHARED_INFO_BYTES
        if headroom < 0 or length < 0 or headroom + length > room:
            raise PoolError(f"build: headroom {headroom} + length {length}: use at most {room} bytes")
        pool = page.pool
        pool._require_skb_room("build")
        pool._give_to_skb("build", page)
        made = _call(pool, skb_calls.BUILD, page.id, page.offset, page.size, headroom, length)
        return cls(pool, made)

    @classmethod
    def alloc(cls, pool: PagePool, size: int = 256, *, length: int = 0) -> Self:
        """An unmarked skb with a head of at least ``size`` bytes of ordinary memory (``alloc_skb``), of
        which ``length`` have data.

        Raises:
            PoolError: the pool is destroyed, or the data does not fit.
        """
        pool._require_open("alloc")
        if not 0 <= length <= size:
            raise PoolError(f"alloc: length = {length}: use 0 to {size} bytes")
        pool._require_skb_room("alloc")
        return cls(pool, _call(pool, skb_calls.ALLOC, 0, size, 0, length))

    def mark_for_recycle(self) -> None:
        """Its pool pages go back to the pool when it is freed (spec 6.2)."""
        self._require_alive("mark_for_recycle")
        self._call(skb_calls.MARK)
        self._name_pool()

    def add_rx_frag(
        self, page: Page, *, length: int | None = None, offset: int = 0, truesize: int | None = None
    ) -> None:
        """Append data in a page, or part of one; the share goes to the skb (``skb_add_rx_frag``).

        Args:
            length: bytes of data; to the end of the page's part by default.
            offset: bytes of the part in front of the data.
            truesize: bytes of memory that count for it, the part's size by default.

        Raises:
            PoolError: the page is not the caller's to give; data outside of it; a clone has the same
                data; there are 17 fragments already.
        """
        self._require_alive("add_rx_frag")
        length = page.size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > page.size:
            raise PoolError(f"add_rx_frag: offset {offset} + length {length}: use at most {page.size} bytes")
        if self.dataref > 1:
            raise PoolError(f"add_rx_frag: {self!r}: a clone has the same data")
        if len(self.frags) == MAX_SKB_FRAGS:
            raise PoolError(f"add_rx_frag: {self!r}: {MAX_SKB_FRAGS} fragments are the most")
        if page.pool is not self.pool:
            raise PoolError(f"add_rx_frag: {page!r} belongs to another pool")
        self.pool._give_to_skb("add_rx_frag", page)
        charged = page.size if truesize is None else truesize
        self._call(skb_calls.ADD_RX_FRAG, page.id, page.offset + offset, length, charged)
        if self.pp_recycle:
            self._name_pool()

    def clone(self) -> "Skb":
        """Another skb with the same data and the same mark (``skb_clone``); the pages go back when the last
        of them is freed (spec 6.3).

        Raises:
            PoolError: the skb is freed, or there is no room for another.
        """
        self._require_alive("clone")
        self.pool._require_skb_room("clone")
        return Skb(self.pool, self._call(skb_calls.CLONE))

    def free(self) -> None:
        """Free the skb; pages of the last holder of the data return to the ring, with a mark (spec 6.3).

        Raises:
            PoolError: it is freed already, or it is not marked and would take pages away from the pool.
        """
        self._require_alive("free")
        lost = [part.page for part in self._parts() if self.pool._is_pool_page(part.page)]
        if lost and not self.pp_recycle and self.dataref == 1:
            raise PoolError(
                f"free: {self!r}: page {lost[0]} would be lost to its pool: "
                "mark_for_recycle() the skb, or release_page() before"
            )
        self._call(skb_calls.FREE)
        self._freed = True
        del self.pool._skbs[self._index]

    # State

    @property
    def len(self) -> int:
        """Bytes of data, fragments included."""
        return self._word("len")

    @property
    def data_len(self) -> int:
        """Bytes of data in fragments."""
        return self._word("data_len")

    @property
    def truesize(self) -> int:
        """Bytes of memory that count for it."""
        return self._word("truesize")

    @property
    def pp_recycle(self) -> bool:
        """Whether it is marked for recycling."""
        return self._word("pp_recycle") != 0

    @property
    def dataref(self) -> int:
        """Holders of its data, clones included."""
        self._require_alive("dataref")
        return int(self._shared().dataref) & DATAREF_MASK

    @property
    def frags(self) -> tuple[Frag, ...]:
        """Its fragments, in order; the head is not among them."""
        self._require_alive("frags")
        shared = self._shared()
        return tuple(
            Frag(int(shared.frag_page[n]), int(shared.frag_offset[n]), int(shared.frag_size[n]))
            for n in range(int(shared.nr_frags))
        )

    @property
    def freed(self) -> bool:
        """Whether it is freed; nothing else can be asked of it then."""
        return self._freed

    def __repr__(self) -> str:
        if self._freed:
            return f"<Skb {self._index}: freed>"
        mark = "marked" if self.pp_recycle else "not marked"
        return (
            f"<Skb {self._index}: {self.len} bytes, {len(self.frags)} frags, {mark}, dataref {self.dataref}>"
        )

    def _parts(self) -> list[Frag]:
        """All pages in it that are followed, the head first."""
        shared = self._shared()
        head = Frag(int(shared.head_page), int(shared.head_offset), int(shared.end) + SHARED_INFO_BYTES)
        return ([head] if shared.head_frag else []) + list(self.frags)

    def _name_pool(self) -> None:
        """Where the pool does not do it, the driver names it for each packet."""
        if not self.pool._host.rules.pool_sets_owner:
            for part in self._parts():
                self.pool._host.pages[part.page].pp = 0

    def _require_alive(self, verb: str) -> None:
        if self._freed:
            raise PoolError(f"{verb}: {self!r}")

    def _shared(self) -> Any:
        return self.pool._buffers.shared[self.pool._buffers.skbs[self._index].shared]

    def _word(self, name: str) -> int:
        self._require_alive(name)
        return int(self.pool._buffers.skbs[self._index][name])

    def _call(self, code: int, *numbers: int) -> int:
        return _call(self.pool, code, self._index, *numbers)


def _call(pool: PagePool, code: int, *numbers: int) -> int:
    return int(skb_calls.step(pool._buffers, code, np.array([*numbers, 0, 0], np.int64)))
