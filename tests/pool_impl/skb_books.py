"""What must hold of skbs between any two operations, and what one operation may do to their bytes.

A second account: it follows where each byte of a packet lies, not how the operations move it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pool_impl.layout import MAX_SKB_FRAGS, SHARED_INFO_BYTES, Buffers
from pool_impl.pool import PAGE_BYTES
from pool_impl.skb import DATAREF_MASK, DATAREF_SHIFT


class Run(NamedTuple):
    """Bytes that lie together."""

    page: int
    """0: memory that nobody follows, such as a head from the slab"""
    offset: int
    length: int


Runs = list[Run]

_BITS = ("cloned", "nohdr", "pp_recycle", "pfmemalloc")
_SKB_COLUMNS = (
    *("users", "len", "data_len", "headroom", "shared", "fclone", "companion", "next"),
    *_BITS,
)
_SHARED_COLUMNS = (
    *("dataref", "end", "head_frag", "head_page", "head_offset", "gso_size"),
    *("nr_frags", "frag_list", "next"),
)
_FRAG_COLUMNS = ("frag_page", "frag_offset", "frag_size")


class Skbs:
    """All records at one moment, as lists by field."""

    def __init__(self, buffers: Buffers) -> None:
        self.memory = buffers.memory
        fresh, shared_fresh = int(buffers.memory.skb_fresh), int(buffers.memory.shared_fresh)
        self.skb = {name: buffers.skbs[name][:fresh].tolist() for name in _SKB_COLUMNS}
        self.shared = {
            name: buffers.shared[name][:shared_fresh].tolist() for name in (*_SHARED_COLUMNS, *_FRAG_COLUMNS)
        }
        self.used = [skb for skb in range(1, fresh) if self.skb["users"][skb] > 0]
        self.page_bytes = PAGE_BYTES << buffers.host.pages.order

    def members(self, shared: int) -> Iterable[int]:
        """The skbs of a frag_list."""
        member = self.shared["frag_list"][shared]
        while member != 0:
            yield member
            member = self.skb["next"][member]

    def linear(self, skb: int) -> int:
        """Bytes in the linear part."""
        return int(self.skb["len"][skb] - self.skb["data_len"][skb])

    def frags(self, shared: int) -> list[Run]:
        """The fragments."""
        columns = (self.shared[name][shared] for name in _FRAG_COLUMNS)
        return [Run(*values) for values in zip(*columns, strict=True)][: self.shared["nr_frags"][shared]]

    def bytes_of(self, skb: int) -> Runs:
        """Where the bytes of a packet lie, in their order."""
        shared = self.skb["shared"][skb]
        page = self.shared["head_page"][shared] if self.shared["head_frag"][shared] else 0
        start = self.shared["head_offset"][shared] + self.skb["headroom"][skb]
        found = [Run(page, start, self.linear(skb)), *self.frags(shared)]
        for member in self.members(shared):
            found += self.bytes_of(member)
        return joined(found)

    def heads(self, skb: int) -> set[int]:
        """Pages of the heads of a packet and its members."""
        shared = self.skb["shared"][skb]
        found = {self.shared["head_page"][shared]}
        return found.union(*(self.heads(member) for member in self.members(shared)))

    def faults(self) -> list[str]:
        """In words; empty when all is well."""
        return [*self._record_faults(), *self._holder_faults(), *self._length_faults()]

    def _record_faults(self) -> Iterable[str]:
        """Each record is in use or free to be used, and not both: none is lost."""
        words = [column[0] for name, column in self.skb.items() if name not in ("headroom", "len")]
        if any(words) or any(self.shared[name][0] for name in _SHARED_COLUMNS):
            yield "the record that means none has been written to"
        for what, free, following, used in (
            ("skb", int(self.memory.skb_free), self.skb["next"], set(self.used)),
            (
                *("shared info", int(self.memory.shared_free), self.shared["next"]),
                {self.skb["shared"][skb] for skb in self.used},
            ),
        ):
            found: set[int] = set()
            while free != 0 and free not in found:
                found.add(free)
                free = following[free]
            if free != 0 or found & used:
                yield f"{what}: {free or found & used} is free twice or in use"
            lost = set(range(1, len(following))) - found - used
            if lost:
                yield f"{what}: {lost} is lost"

    def _holder_faults(self) -> Iterable[str]:
        """Users of data, and of these without the header part, are counted; pairs know each other."""
        holders = Counter(self.skb["shared"][skb] for skb in self.used)
        headless = Counter(self.skb["shared"][skb] for skb in self.used if self.skb["nohdr"][skb])
        for shared, count in holders.items():
            dataref = self.shared["dataref"][shared]
            if (dataref & DATAREF_MASK, dataref >> DATAREF_SHIFT) != (count, headless[shared]):
                yield f"data {shared}: dataref {dataref:#x}, but {count} and {headless[shared]} holders"
        for skb in self.used:
            if not (
                self.skb["fclone"][skb] in range(3) and all(self.skb[bit][skb] in (0, 1) for bit in _BITS)
            ):
                yield f"skb {skb}: nonsense in its bits"
            if self.shared["gso_size"][self.skb["shared"][skb]] < 0:
                yield f"skb {skb}: nonsense as size of its segments"
            if holders[self.skb["shared"][skb]] > 1 and not self.skb["cloned"][skb]:
                yield f"skb {skb}: not cloned, but its data has another holder"
            companion = self.skb["companion"][skb]
            if companion and (companion not in self.used or self.skb["companion"][companion] != skb):
                yield f"skb {skb}: its companion {companion} does not know it"

    def _length_faults(self) -> Iterable[str]:
        """Lengths are those of the parts, and parts lie within their memory."""
        for skb in self.used:
            shared = self.skb["shared"][skb]
            frags = self.frags(shared)
            paged = sum(run.length for run in frags)
            paged += sum(self.skb["len"][member] for member in self.members(shared))
            if self.skb["data_len"][skb] != paged:
                yield f"skb {skb}: data_len {self.skb['data_len'][skb]}, but {paged} in pages"
            headroom, end = self.skb["headroom"][skb], self.shared["end"][shared]
            if not 0 <= headroom <= headroom + self.linear(skb) <= end:
                yield f"skb {skb}: {self.linear(skb)} linear bytes at {headroom} do not fit into {end}"
            if len(frags) > MAX_SKB_FRAGS:
                yield f"skb {skb}: {len(frags)} fragments"
            head = Run(self.shared["head_page"][shared], self.shared["head_offset"][shared], end)
            for run in (*frags, head._replace(length=end + SHARED_INFO_BYTES)):
                if run.page and not 0 <= run.offset < run.offset + run.length <= self.page_bytes[run.page]:
                    yield f"skb {skb}: {run} is not in its page"


def joined(runs: Runs) -> Runs:
    """The same bytes in as few runs as possible."""
    found: Runs = []
    for run in runs:
        if run.length == 0:
            continue
        last = found[-1] if found else None
        follows = last and (run.page == 0 or run.offset == last.offset + last.length)
        if last and last.page == run.page and follows:
            found[-1] = last._replace(length=last.length + run.length)
        else:
            found.append(run if run.page else run._replace(offset=0))
    return found


def cut(runs: Runs, start: int, length: int) -> Runs:
    """A part of them."""
    found = []
    for run in runs:
        taken = min(run.length - start, length)
        if taken > 0:
            found.append(Run(run.page, run.offset + start, taken))
            length -= taken
        start = max(0, start - run.length)
    return joined(found)


def total(runs: Runs) -> int:
    """Bytes."""
    return sum(run.length for run in runs)


def came_from(after: Runs, before: Runs, copied_to: set[int]) -> bool:
    """Whether these are the same bytes, each where it was or copied to one of these pages."""
    if total(after) != total(before):
        return False
    start = 0
    for run in after:
        if run.page not in copied_to and cut(before, start, run.length) != [run]:
            return False
        start += run.length
    return True


COPIES = ("skb_clone", "skb_copy", "pskb_copy", "skb_copy_expand", "skb_realloc_headroom")
PULLS = ("pskb_pull_tail", "skb_linearize", "pskb_trim", "try_coalesce")
"""may copy bytes into a head that is there"""
MAKES = ("build_skb", "alloc_skb", "add_rx_frag")


def expected_bytes(
    name: str, arguments: Mapping[str, Any], results: Mapping[str, Any], before: Mapping[int, Runs]
) -> dict[int, Runs]:
    """What each skb must have in it after an operation; those that it makes from pages are left out."""
    found = dict(before)
    first = arguments.get("s", arguments.get("to"))
    if name in MAKES:
        found.pop(first, None)
    elif name in COPIES:
        found[arguments["new"]] = before[first]
    elif name == "pskb_trim" and results["ret"] == 0:
        found[first] = cut(before[first], 0, arguments["len"])
    elif name == "skb_pull":
        found[first] = cut(before[first], arguments["len"], total(before[first]))
    elif name in ("try_coalesce", "gro_receive"):
        source = arguments["from"]
        if results["ret"] == (1 if name == "try_coalesce" else 0):
            payload = cut(before[source], arguments.get("hdr", 0), total(before[source]))
            found[first] = joined(before[first] + payload)
            del found[source]
    elif name == "skb_shift":
        source = arguments["from"]
        moved = results["ret"]
        found[first] = joined(before[first] + cut(before[source], 0, moved))
        found[source] = cut(before[source], moved, total(before[source]))
    elif name == "skb_split":
        found[first] = cut(before[arguments["s"]], 0, arguments["len"])
        found[arguments["to"]] = cut(before[arguments["s"]], arguments["len"], total(before[arguments["s"]]))
    elif name == "frag_list_add":
        found[first] = joined(before[first] + before[arguments["child"]])
        del found[arguments["child"]]
    return found


def byte_faults(
    name: str,
    arguments: Mapping[str, Any],
    results: Mapping[str, Any],
    before: Mapping[int, Runs],
    after: Mapping[int, Runs],
    heads: Mapping[int, set[int]],
) -> list[str]:
    """Which skbs do not have the bytes that an operation leaves them, in words.

    Args:
        heads: pages of the heads of each packet after the operation.
    """
    named = {arguments.get(key) for key in ("s", "to", "from", "new", "child")}
    found = []
    for handle, runs in expected_bytes(name, arguments, results, before).items():
        if handle not in after:
            if handle not in named:
                found.append(f"skb {handle} is gone")
            continue
        copied_to = set()
        if handle in named:
            copied_to = {0} | (heads[handle] if name in PULLS else set())
            if name == "pp_cow_data":
                copied_to = {run.page for run in after[handle]}
        if not came_from(after[handle], runs, copied_to):
            found.append(f"skb {handle} has {after[handle]}, but should have {runs}")
    return found
