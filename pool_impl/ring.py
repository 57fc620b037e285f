"""ptr_ring: the bounded FIFO through which any context gives pages back (spec 5).

There is no shared count: a slot's content is the only sign of full or empty. Consumed slots are handed
back in batches, so the ring can be full before it holds ``ring_size`` pages.
"""

from typing import Any

from pool_impl.jit import compiled
from pool_impl.layout import SLOTS_PER_LINE, Host
from pool_impl.observe import RING_CONSUME, RING_PRODUCE, RING_SLOT


@compiled()
def is_empty(host: Host, pool: Any) -> bool:
    """Consumer's look without a lock."""
    slot = pool.ring_base + pool.ring_head
    host.observer.touch(RING_SLOT, slot, False)
    return bool(host.access.read_slot(host.slots, slot) == 0)


@compiled()
def produce(host: Host, pool: Any, index: int, page: int) -> bool:
    """Append a page at the producer index; False when that slot is not free. Producer lock held."""
    slot = pool.ring_base + index
    host.observer.work(RING_PRODUCE, 1)
    host.observer.touch(RING_SLOT, slot, True)
    if host.access.read_slot(host.slots, slot) != 0:
        return False
    host.access.write_slot(host.slots, slot, page)
    return True


@compiled()
def following(pool: Any, index: int) -> int:
    """The producer index after this one."""
    return 0 if index + 1 >= pool.ring_size else index + 1


@compiled()
def consume(host: Host, pool: Any) -> int:
    """Take the oldest page, 0 when empty. One consumer only."""
    page, pool.ring_head, pool.ring_tail = consume_at(host, pool, pool.ring_head, pool.ring_tail)
    return int(page)


@compiled()
def consume_at(host: Host, pool: Any, head: int, tail: int) -> tuple[int, int, int]:
    """The same for a consumer that keeps the indices itself, page by page: returns page, head and tail."""
    host.observer.work(RING_CONSUME, 1)
    host.observer.touch(RING_SLOT, pool.ring_base + head, False)
    page = host.access.read_slot(host.slots, pool.ring_base + head)
    if page == 0:
        return 0, head, tail
    following = head + 1
    if following - tail >= pool.ring_batch or following >= pool.ring_size:
        # from the newest slot back: the producer waits on the oldest, so it does not chase the clearing
        slot = pool.ring_base + head
        oldest = pool.ring_base + tail
        while slot >= oldest:
            # plain, as in the kernel: no store goes ahead of the ordered read of the slot
            host.slots[slot] = 0
            if slot == oldest or slot % SLOTS_PER_LINE == 0:
                host.observer.touch(RING_SLOT, slot, True)
            slot -= 1
        tail = following
    if following >= pool.ring_size:
        return int(page), 0, 0
    return int(page), following, tail
