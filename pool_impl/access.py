"""How shared words are accessed: by one thread, or by many.

The type of ``Host.access`` selects one of these at compile time. Both take the same steps, so a trial
and real threads run the same allocator. Under ``Threads`` each thread has a host of its own that differs
in the CONTEXT record only, with a ``cpu`` that no other thread has.
"""

from typing import Any, NamedTuple

from pool_impl.jit import (
    atomic_add,
    atomic_load,
    atomic_store,
    atomic_swap,
    back_off,
    load_at,
    methods,
    store_at,
)

LOCKED = -1
"""a producer index that somebody works on"""


class Serial(NamedTuple):
    """One thread at a time: plain loads and stores."""

    unused: int = 0

    def lock_producer(self, pool: Any) -> int:
        """The ring's producer index; nothing to wait for."""
        return int(pool.ring_prod)

    def unlock_producer(self, pool: Any, index: int) -> None:
        """Store the producer index."""
        pool.ring_prod = index

    def lock_consumer(self, pool: Any) -> None:
        """Nothing to wait for."""

    def unlock_consumer(self, pool: Any) -> None:
        """Nothing to hand on."""

    def count_release(self, pool: Any) -> None:
        """One more page left the pool."""
        pool.release += 1

    def add_share(self, page: Any, amount: int) -> int:
        """Add to a page's fragment count; returns the new count."""
        page.frag_count += amount
        return int(page.frag_count)

    def take_ref(self, page: Any) -> None:
        """One more reference."""
        page.refcount += 1

    def drop_refs(self, page: Any, number: int) -> bool:
        """So many references less; True when they were all."""
        page.refcount -= number
        return bool(page.refcount == 0)

    def lock_zone(self, allocator: Any) -> None:
        """Nothing to wait for."""

    def unlock_zone(self, allocator: Any) -> None:
        """Nothing to hand on."""

    def take_serials(self, allocator: Any, number: int) -> int:
        """Serial numbers for allocations; returns the one before the first."""
        before = allocator.serial
        allocator.serial = before + number
        return int(before)

    def count_map(self, device: Any) -> None:
        """One more page was mapped."""
        device.maps += 1

    def count_unmap(self, device: Any) -> None:
        """One more page was unmapped."""
        device.unmaps += 1

    def count_late_unmap(self, device: Any) -> None:
        """One of these came after the device had gone."""
        device.late_unmaps += 1

    def count_sync(self, device: Any, length: int) -> None:
        """One more range of so many bytes was synced."""
        device.syncs += 1
        device.sync_bytes += length

    def read_slot(self, slots: Any, index: int) -> int:
        """The content of a ring slot."""
        return int(slots[index])

    def write_slot(self, slots: Any, index: int, page: int) -> None:
        """Publish a page in a ring slot."""
        slots[index] = page


class Threads(NamedTuple):
    """Any thread may return pages while one allocates: lock and atomics as in the kernel."""

    unused: int = 0

    def lock_producer(self, pool: Any) -> int:
        """Spin until the ring's producer side is ours; returns the producer index, whose word is the lock."""
        index = atomic_swap(pool, "ring_prod", LOCKED)
        while index == LOCKED:
            turn = 0
            while atomic_load(pool, "ring_prod") == LOCKED:
                turn = back_off(turn)
            index = atomic_swap(pool, "ring_prod", LOCKED)
        return int(index)

    def unlock_producer(self, pool: Any, index: int) -> None:
        """Hand the producer side on; what was written before is seen by the next owner."""
        atomic_store(pool, "ring_prod", index)

    def lock_consumer(self, pool: Any) -> None:
        """Spin until the ring's consumer side is ours."""
        while atomic_swap(pool, "consumer_lock", 1) != 0:
            turn = 0
            while atomic_load(pool, "consumer_lock") != 0:
                turn = back_off(turn)

    def unlock_consumer(self, pool: Any) -> None:
        """Hand the consumer side on."""
        atomic_store(pool, "consumer_lock", 0)

    def count_release(self, pool: Any) -> None:
        """One more page left the pool."""
        atomic_add(pool, "release", 1)

    def add_share(self, page: Any, amount: int) -> int:
        """Add to a page's fragment count; returns the new count."""
        return int(atomic_add(page, "frag_count", amount)) + amount

    def take_ref(self, page: Any) -> None:
        """One more reference."""
        atomic_add(page, "refcount", 1)

    def drop_refs(self, page: Any, number: int) -> bool:
        """So many references less; True when they were all. The holder of all references has nobody to
        exclude."""
        if atomic_load(page, "refcount") == number:
            page.refcount = 0
            return True
        return bool(atomic_add(page, "refcount", -number) == number)

    def lock_zone(self, allocator: Any) -> None:
        """Spin until the lists that all CPUs share are ours."""
        while atomic_swap(allocator, "zone_lock", 1) != 0:
            turn = 0
            while atomic_load(allocator, "zone_lock") != 0:
                turn = back_off(turn)

    def unlock_zone(self, allocator: Any) -> None:
        """Hand the shared lists on."""
        atomic_store(allocator, "zone_lock", 0)

    def take_serials(self, allocator: Any, number: int) -> int:
        """Serial numbers for allocations; returns the one before the first."""
        return int(atomic_add(allocator, "serial", number))

    def count_map(self, device: Any) -> None:
        """One more page was mapped."""
        atomic_add(device, "maps", 1)

    def count_unmap(self, device: Any) -> None:
        """One more page was unmapped."""
        atomic_add(device, "unmaps", 1)

    def count_late_unmap(self, device: Any) -> None:
        """One of these came after the device had gone."""
        atomic_add(device, "late_unmaps", 1)

    def count_sync(self, device: Any, length: int) -> None:
        """One more range of so many bytes was synced."""
        atomic_add(device, "syncs", 1)
        atomic_add(device, "sync_bytes", length)

    def read_slot(self, slots: Any, index: int) -> int:
        """The content of a ring slot: what its writer did to the page before is seen."""
        return int(load_at(slots, index))

    def write_slot(self, slots: Any, index: int, page: int) -> None:
        """Publish a page, with all done to it before, in a ring slot."""
        store_at(slots, index, page)


methods(Serial)
