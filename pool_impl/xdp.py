"""XDP: registering a pool as a queue's memory, and the ways a frame's pages come back (spec 1.6, 6.8).

Frames of several buffers return their fragments first and the head last, since the list of fragments lives
behind the head.

A frame says by memory id whose its pages are; frames in ordinary pages have id ``ORDINARY``.
"""

import errno
from typing import Any

import numpy as np

from pool_impl import page_alloc, pool
from pool_impl.errors import CreateError
from pool_impl.jit import compiled
from pool_impl.layout import NO_POOL, Host

BULK_SIZE = 16
"""pages that one flush returns under one lock"""
LAST_ID = 0xFFFE

ORDINARY = 0
"""id of frames whose pages are no pool's"""

XDP_MEMORY = np.dtype(
    [("next_id", "<i8"), ("owner", "<i8", (LAST_ID + 1,)), ("created", "<i8", (LAST_ID + 1,))], align=True
)
"""registered memory by id: pool number + 1, 0 if the id is free, and which of the pools of that number"""

BULK = np.dtype([("count", "<i8"), ("identity", "<i8"), ("pages", "<i8", (BULK_SIZE,))], align=True)
"""returns that are collected for one memory id; belongs to one caller and is flushed at the end"""


# Registration


def register(host: Host, memory: Any, number: int) -> int:
    """Make a pool the memory of a receive queue: one more user of it. Returns its id, counting up
    cyclically from 1.

    Raises:
        CreateError: ENOSPC when all ids are taken.
    """
    for step in range(LAST_ID):
        candidate = (int(memory.next_id) + step) % LAST_ID + 1
        if owner_of(host, memory, candidate) == NO_POOL:
            memory.next_id = candidate
            memory.owner[candidate] = number + 1
            memory.created[candidate] = host.pools[number].created
            host.pools[number].user_cnt += 1
            return candidate
    raise CreateError(errno.ENOSPC, "pool", number, f"all {LAST_ID} memory ids are taken; unregister some")


def owner_of(host: Host, memory: Any, identity: int) -> int:
    """The pool that an id names, NO_POOL if none: it stays known until the pool is gone, as frames may
    still be out."""
    number = int(memory.owner[identity]) - 1
    if number < 0:
        return NO_POOL
    owner = host.pools[number]
    gone = owner.freed or owner.created != memory.created[identity]
    return NO_POOL if gone else number


# Return of single frames


@compiled()
def return_frame(host: Host, memory: Any, page: int, identity: int) -> None:
    """A frame is done with elsewhere than in its owner's poll (``xdp_return_frame``)."""
    _return_page(host, memory, page, identity, False)


@compiled()
def return_frame_rx_napi(host: Host, memory: Any, page: int, identity: int) -> None:
    """A frame is done with in the poll that its page came from, as after XDP_TX
    (``xdp_return_frame_rx_napi``)."""
    _return_page(host, memory, page, identity, True)


@compiled()
def return_buff(host: Host, memory: Any, page: int, identity: int) -> None:
    """A buffer is dropped in the poll that its page came from (``xdp_return_buff``)."""
    _return_page(host, memory, page, identity, True)


@compiled()
def _return_page(host: Host, memory: Any, page: int, identity: int, direct: bool) -> None:
    if identity == ORDINARY:
        page_alloc.put_page(host, page)
        return
    owner = memory.owner[identity] - 1 if host.rules.xdp_finds_pool_by_id else host.pages[page].pp
    # contexts with bottom halves disabled that are not the pool's consumer say so
    allowed = direct and not host.context.no_direct
    pool.put(host, host.pools[owner], page, pool.WHOLE, allowed)


# Return in bulk


@compiled()
def return_frame_bulk(host: Host, memory: Any, bulk: Any, page: int, identity: int) -> None:
    """Collect one page of a frame that another device has sent (``xdp_return_frame_bulk``); goes out when
    the queue is full or a page of another id comes. Ordinary pages are not collected."""
    if identity == ORDINARY:
        page_alloc.put_page(host, page)
        return
    if bulk.count == BULK_SIZE or bulk.identity != identity:
        flush_bulk(host, memory, bulk)
        bulk.identity = identity
    bulk.pages[bulk.count] = page
    bulk.count += 1


@compiled(inline=False)
def flush_bulk(host: Host, memory: Any, bulk: Any) -> None:
    """Return what was collected to the pool of its id (``xdp_flush_frame_bulk``)."""
    if bulk.count != 0:
        owner = host.pools[memory.owner[bulk.identity] - 1]
        pool.put_bulk(host, owner, bulk.pages, bulk.count)
        bulk.count = 0
