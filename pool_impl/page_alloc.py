"""The page allocator below the pools: per-CPU lists of order-0 pages above free lists per node and order.

It keeps what matters to a pool: which page comes next (newest first, as freed pages are still cached),
when a per-CPU list overflows to the shared lists, and how many pages are in use. Pages are neither split
nor merged; a page keeps its order and node for life.

A per-CPU list belongs to the code that runs on that CPU; the zone lock is held around what moves from or to
the shared lists.
"""

from typing import Any

from pool_impl.jit import compiled
from pool_impl.layout import NO_NODE, NO_POOL, PCP_CAPACITY, PFMEMALLOC, Host
from pool_impl.observe import (
    BUDDY_PAGE,
    PAGE_BULK_ALLOC,
    PAGE_BULK_CALL,
    PAGE_FREE,
    PAGE_GIVEN,
    PAGE_REF,
    PAGE_SINGLE_ALLOC,
    PAGE_TAKEN,
    REFERENCES,
    STRUCT_PAGE,
    ZONE_LOCK,
    ZONE_UNLOCK,
)


@compiled()
def get_page(host: Host, page: int) -> None:
    """Take one more plain reference."""
    host.observer.work(PAGE_REF, 1)
    host.observer.touch(STRUCT_PAGE, page, True)
    host.observer.own(REFERENCES, page, 1)
    host.access.take_ref(host.pages[page])


@compiled()
def put_page(host: Host, page: int) -> None:
    """Drop one plain reference; the last one gives the page back to the page allocator."""
    if drop_references(host, page, 1):
        free(host, page)


@compiled()
def drop_references(host: Host, page: int, number: int) -> bool:
    """Drop plain references; True when nobody has any, and the page is the caller's to free or to use."""
    host.observer.work(PAGE_REF, 1)
    host.observer.touch(STRUCT_PAGE, page, True)
    host.observer.own(REFERENCES, page, -number)
    return bool(host.access.drop_refs(host.pages[page], number))


@compiled()
def take_references(host: Host, page: int, number: int) -> None:
    """Plain references on top of those that the caller has, who is the only one to have any. That takes no
    atomic."""
    host.observer.touch(STRUCT_PAGE, page, True)
    host.observer.own(REFERENCES, page, number)
    host.pages[page].refcount += number


@compiled(inline=False)
def alloc_bulk(host: Host, nid: int, count: int, into: Any) -> int:
    """Fill ``into[0..]`` with up to ``count`` order-0 pages of a node; returns how many."""
    node = host.context.nid if nid == NO_NODE else nid
    allocator = host.page_allocator
    cpu = host.context.cpu
    count = _granted(allocator, count)
    host.observer.work(PAGE_BULK_CALL, 1)
    got = 0
    while got < count:
        taken = min(_listed(host, node), count - got)
        if taken == 0:
            break
        head = allocator.pcp_head[cpu, node]
        serial = host.access.take_serials(allocator, taken)
        for step in range(1, taken + 1):
            page = allocator.pcp[cpu, node, (head - step) & (PCP_CAPACITY - 1)]
            host.observer.work(PAGE_BULK_ALLOC, 1)
            _hand_out(host, page, serial + step)
            into[got] = page
            got += 1
        allocator.pcp_head[cpu, node] = (head - taken) & (PCP_CAPACITY - 1)
        allocator.pcp_count[cpu, node] -= taken
    _count_used(host, got)
    return got


@compiled(inline=False)
def alloc(host: Host, nid: int, order: int) -> int:
    """One page of an order, 0 when memory is exhausted (``alloc_pages_node``, as drivers without a pool
    take theirs; :func:`put_page` is what gives it back)."""
    node = host.context.nid if nid == NO_NODE else nid
    allocator = host.page_allocator
    if _granted(allocator, 1) == 0:
        return 0
    if order == 0:
        page = _pop_pcp(host, node)
    else:
        _lock_zone(host, node)
        page = _pop_free(host, node, order)
        _unlock_zone(host, node)
    if page != 0:
        host.observer.work(PAGE_SINGLE_ALLOC, 1)
        _hand_out(host, page, host.access.take_serials(allocator, 1) + 1)
        _count_used(host, 1 << order)
    return page


@compiled()
def _count_used(host: Host, pages: int) -> None:
    """Pages came into use. With threads each CPU counts what it takes and gives back, so that one's count can
    be negative; only taking can make a new peak."""
    allocator = host.page_allocator
    allocator.used_pages[host.access.counting_cpu(host.context.cpu), 0] += pages
    allocator.peak_pages = max(allocator.peak_pages, used_pages(host))


@compiled()
def used_pages(host: Host) -> int:
    """Pages in use; one of order n counts as 2**n."""
    total = 0
    for cpu in range(host.access.counting_cpus()):
        total += host.page_allocator.used_pages[cpu, 0]
    return total


@compiled()
def _granted(allocator: Any, count: int) -> int:
    """How many pages injected failures leave of a request."""
    if allocator.fail_count == 0:
        return count
    if allocator.fail_skip >= count:
        allocator.fail_skip -= count
        return count
    left = allocator.fail_skip
    allocator.fail_skip = 0
    allocator.fail_count -= 1
    return int(left)


@compiled()
def _hand_out(host: Host, page: int, serial: int) -> None:
    host.observer.touch(STRUCT_PAGE, page, True)
    host.observer.own(PAGE_TAKEN, page, 0)
    host.pages[page].refcount = 1
    host.pages[page].next = serial
    if host.page_allocator.reserves:
        host.pages[page].magic = PFMEMALLOC


@compiled(inline=False)
def free(host: Host, page: int) -> None:
    """Take back a page to which nobody has a reference."""
    host.observer.work(PAGE_FREE, 1)
    host.observer.own(PAGE_GIVEN, page, 0)
    record = host.pages[page]
    # the allocator's own lists use these words
    record.magic = 0
    record.pp = NO_POOL
    counting_cpu = host.access.counting_cpu(host.context.cpu)
    host.page_allocator.used_pages[counting_cpu, 0] -= 1 << record.order
    if record.order == 0:
        _push_pcp(host, record.nid, page)
    else:
        _lock_zone(host, record.nid)
        _push_free(host, page)
        _unlock_zone(host, record.nid)


@compiled()
def _listed(host: Host, node: int) -> int:
    """Pages on this CPU's list, which is filled first if it is empty."""
    allocator = host.page_allocator
    cpu = host.context.cpu
    if allocator.pcp_count[cpu, node] == 0:
        _lock_zone(host, node)
        for _ in range(allocator.pcp_batch):
            page = _pop_free(host, node, 0)
            if page == 0:
                break
            host.observer.work(BUDDY_PAGE, 1)
            _append(allocator, cpu, node, page)
        _unlock_zone(host, node)
    return int(allocator.pcp_count[cpu, node])


@compiled()
def _pop_pcp(host: Host, node: int) -> int:
    if _listed(host, node) == 0:
        return 0
    allocator = host.page_allocator
    cpu = host.context.cpu
    allocator.pcp_count[cpu, node] -= 1
    head = (allocator.pcp_head[cpu, node] - 1) & (PCP_CAPACITY - 1)
    allocator.pcp_head[cpu, node] = head
    return int(allocator.pcp[cpu, node, head])


@compiled()
def _append(allocator: Any, cpu: int, node: int, page: int) -> None:
    head = allocator.pcp_head[cpu, node]
    allocator.pcp[cpu, node, head] = page
    allocator.pcp_head[cpu, node] = (head + 1) & (PCP_CAPACITY - 1)
    allocator.pcp_count[cpu, node] += 1


@compiled()
def _push_pcp(host: Host, node: int, page: int) -> None:
    allocator = host.page_allocator
    cpu = host.context.cpu
    _append(allocator, cpu, node, page)
    if allocator.pcp_count[cpu, node] < allocator.pcp_high:
        return
    _lock_zone(host, node)
    for _ in range(min(allocator.pcp_batch, allocator.pcp_count[cpu, node])):
        # the oldest page leaves: it is the least likely to be cached
        oldest = (allocator.pcp_head[cpu, node] - allocator.pcp_count[cpu, node]) & (PCP_CAPACITY - 1)
        allocator.pcp_count[cpu, node] -= 1
        host.observer.work(BUDDY_PAGE, 1)
        _push_free(host, allocator.pcp[cpu, node, oldest])
    _unlock_zone(host, node)


@compiled()
def _lock_zone(host: Host, node: int) -> None:
    host.observer.work(ZONE_LOCK, node)
    host.access.lock_zone(host.page_allocator)


@compiled()
def _unlock_zone(host: Host, node: int) -> None:
    host.access.unlock_zone(host.page_allocator)
    host.observer.work(ZONE_UNLOCK, node)


@compiled(inline=False)
def _push_free(host: Host, page: int) -> None:
    """Zone lock held."""
    record = host.pages[page]
    allocator = host.page_allocator
    host.observer.touch(STRUCT_PAGE, page, True)
    record.next = allocator.free_head[record.nid, record.order]
    allocator.free_head[record.nid, record.order] = page


@compiled(inline=False)
def _pop_free(host: Host, node: int, order: int) -> int:
    """A free page, or one never used before; 0 when all memory is in use. Zone lock held."""
    allocator = host.page_allocator
    page = allocator.free_head[node, order]
    if page != 0:
        host.observer.touch(STRUCT_PAGE, page, True)
        allocator.free_head[node, order] = host.pages[page].next
        return int(page)
    page = allocator.fresh
    if page >= allocator.end:
        return 0
    allocator.fresh = page + 1
    record = host.pages[page]
    record.nid = node
    record.order = order
    record.pp = NO_POOL
    return int(page)
