"""Making the memory that an allocator works on."""

from typing import Any

import numpy as np

from pool_impl.access import Serial
from pool_impl.layout import (
    CONTEXT,
    DEVICE,
    MAX_CPUS,
    NO_CPU,
    NO_POOL,
    PAGE,
    PAGE_ALLOCATOR,
    PAGE_FRAG_CACHE,
    PCP_CAPACITY,
    POOL,
    SHARED,
    SKB,
    SKB_MEMORY,
    Buffers,
    Host,
    records,
    words,
)
from pool_impl.observe import NullObserver
from pool_impl.pool import PAGE_BYTES
from pool_impl.release import Rules, SkbRules
from pool_impl.variant import Kernel


def new_host(
    rules: Rules,
    *,
    pages: int,
    pools: int = 1,
    observer: Any = None,
    access: Any = None,
    variant: Any = None,
    pcp_high: int = 192,
    pcp_batch: int = 63,
    page_bytes: int = PAGE_BYTES,
) -> Host:
    """A machine without pools.

    Args:
        rules: of the release whose behaviour is wanted.
        pages: how many pages may exist at a time; the page allocator fails beyond that.
        pools: how many pools may be created; each has room for the largest ring of the release.
        observer: hears what is touched and done; none by default.
        access: :class:`~pool_impl.access.Serial` (default) or :class:`~pool_impl.access.Threads`.
        variant: takes the decisions of :mod:`pool_impl.variant`; those of the kernel by default.
        pcp_high: length at which a per-CPU list gives pages back to the shared lists.
        pcp_batch: pages that then move at a time, as at a refill of the list.
        page_bytes: size of a page, a power of two.
    """
    if not 0 < pcp_batch <= pcp_high < PCP_CAPACITY:
        raise ValueError(f"0 < pcp_batch <= pcp_high < {PCP_CAPACITY}, got {pcp_batch}, {pcp_high}")
    host = Host(
        pages=records(PAGE, pages + 1),
        pools=records(POOL, pools),
        slots=words(pools * rules.ring_size_limit),
        page_allocator=records(PAGE_ALLOCATOR, 1)[0],
        device=records(DEVICE, 1)[0],
        context=records(CONTEXT, 1)[0],
        rules=_as_record(rules),
        access=Serial() if access is None else access,
        variant=Kernel() if variant is None else variant,
        observer=NullObserver() if observer is None else observer,
    )
    allocator = host.page_allocator
    allocator.fresh = 1
    allocator.end = pages + 1
    allocator.pcp_high = pcp_high
    allocator.pcp_batch = pcp_batch
    allocator.page_bytes = page_bytes
    host.device.napi_owner[:] = NO_CPU
    # memory that nobody follows, such as a head in a page of the network core: never given back
    host.pages[0].refcount = 1 << 32
    host.pages[0].pp = NO_POOL
    for index in range(pools):
        host.pools[index].index = index
        host.pools[index].ring_base = index * rules.ring_size_limit
    return host


def _as_record(rules: Rules) -> Any:
    """As one pointer instead of an argument for each rule, in every call."""
    record = records(np.dtype([(name, "<i8") for name in rules._fields]), 1)[0]
    for name, value in rules._asdict().items():
        record[name] = value
    return record


def new_buffers(host: Host, rules: SkbRules, *, skbs: int) -> Buffers:
    """Room for skbs beside a host; allocating more of them fails as in a machine without memory."""
    buffers = Buffers(
        host=host,
        skbs=records(SKB, skbs + 1),
        shared=records(SHARED, skbs + 1),
        memory=records(SKB_MEMORY, 1)[0],
        rules=rules,
    )
    memory = buffers.memory
    memory.skb_fresh = memory.shared_fresh = 1
    memory.skb_end = memory.shared_end = skbs + 1
    return buffers


def new_frag_caches() -> Any:
    """Empty PAGE_FRAG_CACHE records by CPU."""
    return records(PAGE_FRAG_CACHE, MAX_CPUS)
