"""How shared words are accessed: by one thread, or by many.

The type of ``Host.access`` selects one of these at compile time. Both take the same steps, so a trial
and real threads run the same allocator.
"""

from typing import Any, NamedTuple

from pool_impl.jit import atomic_add, atomic_load, atomic_store, atomic_swap, methods, pause


class Serial(NamedTuple):
    """One thread at a time: plain loads and stores."""

    unused: int = 0

    def lock_producer(self, pool: Any) -> None:
        """Nothing to wait for."""

    def unlock_producer(self, pool: Any) -> None:
        """Nothing to hand on."""

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

    def add_ref(self, page: Any, amount: int) -> int:
        """Add to a page's refcount; returns the new count."""
        page.refcount += amount
        return int(page.refcount)


class Threads(NamedTuple):
    """Any thread may return pages while one allocates: lock and atomics as in the kernel."""

    unused: int = 0

    def lock_producer(self, pool: Any) -> None:
        """Spin until the ring's producer side is ours."""
        while atomic_swap(pool, "producer_lock", 1) != 0:
            while atomic_load(pool, "producer_lock") != 0:
                pause()

    def unlock_producer(self, pool: Any) -> None:
        """Hand the producer side on; what was written before is seen by the next owner."""
        atomic_store(pool, "producer_lock", 0)

    def lock_consumer(self, pool: Any) -> None:
        """Spin until the ring's consumer side is ours."""
        while atomic_swap(pool, "consumer_lock", 1) != 0:
            while atomic_load(pool, "consumer_lock") != 0:
                pause()

    def unlock_consumer(self, pool: Any) -> None:
        """Hand the consumer side on."""
        atomic_store(pool, "consumer_lock", 0)

    def count_release(self, pool: Any) -> None:
        """One more page left the pool."""
        atomic_add(pool, "release", 1)

    def add_share(self, page: Any, amount: int) -> int:
        """Add to a page's fragment count; returns the new count."""
        return int(atomic_add(page, "frag_count", amount)) + amount

    def add_ref(self, page: Any, amount: int) -> int:
        """Add to a page's refcount; returns the new count."""
        return int(atomic_add(page, "refcount", amount)) + amount


methods(Serial)
