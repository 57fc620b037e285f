"""Record types of everything the allocator keeps, and the kernel's constants.

All words are 64-bit integers: counters that are 32 bits wide in the kernel are masked where they are
compared. A page is an index into ``pages``; 0 means none, as an empty ring slot does.
"""

import mmap
from collections.abc import Iterable
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

CACHE_LINE_BYTES = 64

CACHE_SIZE = 128
"""entries of the alloc cache: one poll of 64 packets may recycle directly on top of a full refill of 64
(spec 1.4)"""

CACHE_CAPACITY = 512
"""room in the alloc cache: more than CACHE_SIZE, for variants that try a larger one"""

REFILL = 64
"""pages moved by one refill or bulk fill: a NAPI budget's worth"""

DEFAULT_RING_SIZE = 1024
SLOTS_PER_LINE = CACHE_LINE_BYTES // 8
RING_BATCH = 2 * SLOTS_PER_LINE
"""consumed slots that are handed back together: two cache lines of pointers, so that the producer does not
follow the consumer slot by slot (spec 5.2)"""

SIGNATURE = 0xDEAD000000000040 - (1 << 64)
"""x86-64 poison delta + 0x40, as a signed word"""
PFMEMALLOC = 2
"""bit 1 of the magic word: the page came from the emergency reserves"""
SIGNATURE_MASK = ~0x3

COUNT_MASK = 0xFFFFFFFF
"""hold and release counts are 32 bits wide in the kernel"""

FLAG_DMA_MAP = 1
FLAG_DMA_SYNC_DEV = 2
FLAG_PAGE_FRAG = 4
FLAG_SYSTEM_POOL = 4
"""the bit of FLAG_PAGE_FRAG, given a new meaning by releases without that flag"""

PROCESS, BH_DISABLED, SERVING_SOFTIRQ = range(3)
"""values of ``in_softirq`` in CONTEXT; all but PROCESS count as softirq context (spec 0.2)"""

NO_NAPI = -1
NO_CPU = -1

DMA_BIDIRECTIONAL = 0
DMA_FROM_DEVICE = 2

NO_NODE = -1
NO_POOL = -1
MAX_ORDER = 10
MAX_NODES = 4
MAX_CPUS = 32
MAX_NAPIS = 32
PCP_CAPACITY = 2048
"""upper bound for the length of a per-CPU list of the page allocator, a power of two"""


def _words(*names: str) -> list[tuple[str, str]]:
    return [(name, "<i8") for name in names]


def _padded(name: str, words: int) -> list[tuple[Any, ...]]:
    """Padding up to the next cache line, so that groups of fields do not share one."""
    missing = -words % (CACHE_LINE_BYTES // 8)
    return [(f"_pad_{name}", "<i8", (missing,))] if missing else []


def _lines(**groups: list[tuple[Any, ...]]) -> np.dtype[Any]:
    fields: list[tuple[Any, ...]] = []
    for name, group in groups.items():
        fields += group
        fields += _padded(name, sum(int(np.prod(field[2])) if len(field) > 2 else 1 for field in group))
    return np.dtype(fields, align=True)


PAGE = np.dtype(
    _words("refcount", "magic", "pp", "frag_count", "dma_addr", "nid", "order", "next"), align=True
)
"""one page's metadata, a cache line as ``struct page`` is (spec 1.1); ``next`` links free pages and is a
serial number of the allocation while the page is in use"""

POOL = _lines(
    params=[
        *_words("pool_flags", "order", "nid", "max_len", "offset", "ring_base", "ring_size", "ring_batch"),
    ],
    consumer=[
        *_words("cache_count", "hold", "frag_page", "frag_offset", "frag_users"),
        *_words("alloc_fast", "alloc_slow", "alloc_slow_high_order"),
        *_words("alloc_empty", "alloc_refill", "alloc_waive", "ring_head", "ring_tail", "consumer_lock"),
        *_words("slow_batch"),
        ("cache", "<i8", (CACHE_CAPACITY,)),
    ],
    producer=_words("ring_prod"),
    release=_words("release"),
    control=_words("napi", "cpuid", "user_cnt", "destroy_cnt", "freed", "index", "created", "stalls"),
    recycle=[("recycle", "<i8", (MAX_CPUS, 8))],
)
"""one pool; consumer-only, producer and release words lie on lines of their own (spec 1.7). ``created``
counts the pools that the record has been, ``stalls`` the warnings that the last one waits for pages"""

RECYCLE_CACHED, RECYCLE_CACHE_FULL, RECYCLE_RING, RECYCLE_RING_FULL, RECYCLE_RELEASED_REFCNT = range(5)
RECYCLE_DECLINED = 5
"""columns of ``recycle``, which has a row of one cache line for each CPU; the last one is no kernel
statistic: pages that the pool's variant did not want back"""

PAGE_ALLOCATOR = _lines(
    shared=[
        *_words("pcp_high", "pcp_batch", "end", "serial", "peak_pages", "zone_lock", "fresh"),
        *_words("fail_skip", "fail_count", "reserves", "page_bytes"),
        ("free_head", "<i8", (MAX_NODES, MAX_ORDER + 1)),
    ],
    used=[("used_pages", "<i8", (MAX_CPUS, SLOTS_PER_LINE))],
    pcp=[
        ("pcp_head", "<i8", (MAX_CPUS, SLOTS_PER_LINE)),
        ("pcp_count", "<i8", (MAX_CPUS, SLOTS_PER_LINE)),
        ("pcp", "<i8", (MAX_CPUS, MAX_NODES, PCP_CAPACITY)),
    ],
)
"""per-CPU lists (circular, newest first) above one free list for each node and order; ``zone_lock`` guards
``fresh``, the first page never used, and the free lists; ``end`` is one more than the last page. Each CPU has
lines of its own: one word of ``used_pages``, and of the lists one word for each node. Failures injected:
``fail_skip`` pages are still given, then ``fail_count`` requests end short; while ``reserves`` is set, all
pages come from the emergency reserves. ``page_bytes`` is the size of a page of order 0"""

PAGE_FRAG_CACHE = _lines(cache=_words("page", "offset", "block_bytes", "references"))
"""one CPU's block of memory for fragments that no pool has: its page, 0 if there is none; where the last
fragment starts, bytes; how large the block is; and how many references to it the cache still has"""

DEVICE = np.dtype(
    [
        *_words("maps", "unmaps", "syncs", "sync_bytes", "last_off", "last_len", "fail_skip", "fail_count"),
        *_words("removed", "late_unmaps"),
        ("napi_owner", "<i8", (MAX_NAPIS,)),
        ("napi_scheduled", "<i8", (MAX_NAPIS,)),
    ],
    align=True,
)
"""the device: DMA calls counted (``maps`` only if they succeeded), failures injected (``fail_skip`` maps
succeed, then ``fail_count`` fail); ``removed`` is set when its driver is gone, ``late_unmaps`` are unmaps
after that, which a real IOMMU may not survive (spec 4.4); for each NAPI instance the CPU that polls it or
NO_CPU, and whether it is disabled or about to be polled"""

CONTEXT = np.dtype(_words("cpu", "nid", "in_softirq", "no_direct", "warnings"), align=True)
"""where the running code is: its CPU, that CPU's memory node, and PROCESS, BH_DISABLED or SERVING_SOFTIRQ;
``no_direct`` is set where XDP frames return outside their pool's poll although bottom halves are disabled;
warnings are kernel warnings raised"""


MAX_SKB_FRAGS = 17
SKB_BYTES = 256
"""``struct sk_buff`` rounded up to cache lines"""
SHARED_INFO_BYTES = 320
"""``struct skb_shared_info`` rounded up to cache lines"""
NET_SKB_PAD = 64
"""headroom that the network core reserves: one cache line"""

FCLONE_NONE, FCLONE_ORIGINAL, FCLONE_CLONE = range(3)
"""values of ``fclone``: single skb, or one of a pair allocated together so that cloning is cheap"""

SKB = np.dtype(
    [
        *_words("users", "len", "data_len", "truesize", "headroom", "shared"),
        *_words("cloned", "nohdr", "pp_recycle", "pfmemalloc", "fclone", "companion", "next"),
        *_words("walk_up", "walk_bytes", "walk_member", "walk_length", "walk_stop", "walk_fork"),
    ],
    align=True,
)
"""one ``sk_buff``: what belongs to this holder of the data. ``shared`` is its SHARED record, ``next`` its
successor in a frag_list or a list of free records, ``companion`` the other half of a pair. Lists nest; the
``walk`` words lead back up, since compiled code that calls itself cannot be cached on disk"""

SHARED = np.dtype(
    [
        *_words(
            "dataref", "end", "head_frag", "head_page", "head_offset", "gso_size", "nr_frags", "frag_list"
        ),
        *((name, "<i8", (MAX_SKB_FRAGS,)) for name in ("frag_page", "frag_offset", "frag_size")),
        *_words("next"),
    ],
    align=True,
)
"""data that clones share: the head buffer and the shared info behind it. A page of 0 is memory that nobody
follows; ``next`` links free records"""

SKB_MEMORY = np.dtype(
    _words("skb_free", "skb_fresh", "skb_end", "shared_free", "shared_fresh", "shared_end"), align=True
)
"""where the next records come from: lists of free ones, then those never used before"""


class Host(NamedTuple):
    """All memory that the allocator works on. Made by :func:`pool_impl.host.new_host`."""

    pages: Any
    """PAGE records; index 0 is unused"""
    pools: Any
    """POOL records"""
    slots: Any
    """ring slots of all pools: pages, 0 = empty"""
    page_allocator: Any
    """the PAGE_ALLOCATOR record"""
    device: Any
    """the DEVICE record"""
    context: Any
    """the CONTEXT record"""
    rules: Any
    """a record of pool_impl.release.Rules"""
    access: Any
    """pool_impl.access.Serial or Threads"""
    variant: Any
    """pool_impl.variant.Kernel, or another class made by pool_variant"""
    observer: Any
    """see pool_impl.observe"""


class Buffers(NamedTuple):
    """A host and its skbs. Made by :func:`pool_impl.host.new_buffers`; index 0 of the arrays is unused."""

    host: Host
    skbs: Any
    """SKB records"""
    shared: Any
    """SHARED records"""
    memory: Any
    """the SKB_MEMORY record"""
    rules: Any
    """pool_impl.release.SkbRules"""


class Record(np.void):  # type: ignore[misc]  # final in the stubs, not in NumPy
    """An element of a table: a field is an attribute, unless NumPy has one of that name. (NumPy's own record
    is the same at five times the price, for each access.)"""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            found = self[name]
        except (IndexError, ValueError):
            raise AttributeError(f"a record of {self.dtype.names} has no {name!r}") from None
        return found.view(_as_records(found.dtype)) if isinstance(found, np.void) else found

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class Table(np.ndarray):
    """A one-dimensional, contiguous array of records or words; a field is an attribute, as in a record. In
    compiled code an index outside of it is undefined behaviour."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except (IndexError, ValueError):
            raise AttributeError(f"a table of {self.dtype.names} has no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in (self.dtype.names or ()):
            self[name] = value
        else:
            # what NumPy itself sets
            super().__setattr__(name, value)


@cache
def _as_records(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype((Record, dtype)) if dtype.names else dtype


def plain(record: Any) -> SimpleNamespace:
    """A record's fields as Python integers, and those that are arrays as they are: for reading many of them,
    as each access to a record takes half as long as making this."""
    return SimpleNamespace(**dict(zip(record.dtype.names, record.item(), strict=True)))


def bare(table: Any) -> Any:
    """A table as an array of NumPy's own class, with which its functions take half as long."""
    return table.view(np.ndarray)


LARGE_BYTES = 1 << 17
"""memory from this size on comes from the system, whose pages take no time until they are used"""

HUGE_BYTES = 1 << 22
"""tables from this size on are better in huge pages, where the system has them; as NumPy has it"""


def records(dtype: np.dtype[Any], count: int) -> Any:
    """Zeroed records, aligned to a cache line."""
    size = count * dtype.itemsize
    if size >= LARGE_BYTES:
        raw = pages_of_zeros(size + CACHE_LINE_BYTES, [(0, size)])
        return Table((count,), _as_records(dtype), raw)
    raw = np.zeros(size + CACHE_LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE_BYTES
    return Table((count,), _as_records(dtype), raw, start)


def pages_of_zeros(size: int, tables: Iterable[tuple[int, int]]) -> Any:
    """So many bytes in memory pages of their own, for tables at these offsets and of these sizes."""
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for start, table_bytes in tables:
        if table_bytes >= HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            block.madvise(mmap.MADV_HUGEPAGE, start, table_bytes)
    return np.frombuffer(block, np.uint8)


def words(count: int) -> Any:
    """Zeroed 64-bit integers, aligned likewise."""
    return records(np.dtype(np.int64), count)


def words_of(values: Any) -> Any:
    """A copy of integers as a table."""
    table = words(len(values))
    table[:] = values
    return table
