"""Architecture profiles: what one operation costs on a machine, and who says so.

A profile is a TOML file with ``title``, ``description``, an optional ``parent`` (a bundled name, or a
.toml file beside it) and one table per parameter::

    [dram_ns]
    value = 95
    low = 90            # low and high default to value
    high = 96
    certainty = "verified"
    source = "AnandTech, Xeon E5-2699 v4"
    note = "..."        # optional

A child replaces whole tables of its parent, since a source belongs to its value. After inheritance a
profile has every parameter of :data:`PARAMETERS`; nothing is filled in by code.
"""

import difflib
import hashlib
import json
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from workers.errors import ProfileError
from workers.files import Stamp, stamp

BUNDLED = Path(__file__).parent / "archs"

PARAMETERS: Mapping[str, str] = MappingProxyType(
    {
        "clock_ghz": "core clock",
        "sockets": "most sockets of a machine; each has a memory node and a last-level cache",
        "page_bytes": "size of an order-0 page",
        "cache_line_bytes": "cache line, the unit of misses and of cache maintenance",
        "dma_coherent": "1 if DMA and CPU caches are coherent, else software maintains the caches",
        "l1_bytes": "level 1 data cache",
        "l1_ns": "load that hits in level 1",
        "l2_bytes": "level 2 cache that one core can fill",
        "l2_ns": "load that hits in level 2",
        "llc_bytes": "last-level cache, 0 if there is none",
        "llc_ns": "load that hits in the last-level cache",
        "dram_ns": "load from memory",
        "dram_far_ns": "load from the memory of another socket",
        "line_transfer_ns": "line last written by another core of the same socket",
        "line_transfer_far_ns": "line in a cache of another socket",
        "ddio_bytes": "share of the last-level cache that DMA may fill, 0 if DMA goes to memory",
        "miss_exposed_ratio": "share of a miss latency that execution does not hide",
        "call_ns": "function call and return",
        "mitigated_call_ns": "the same with return mitigation on; equal to call_ns where the part has none",
        "atomic_ns": "uncontended atomic read-modify-write",
        "ordered_atomic_drains": "1 if an ordered atomic waits for stores and register writes in flight",
        "lock_unlock_ns": "uncontended spin lock and unlock",
        "register_write_ns": "posted device register write until it has left the core",
        "register_writes_per_buffer": "1 if giving a buffer back to the device takes a register write",
        "bh_toggle_ns": "disable and enable bottom halves",
        "pool_alloc_ns": "page_pool alloc from the cache, instructions only",
        "pool_put_ns": "page_pool put: decision and cache push, without ring and lock",
        "ring_slot_ns": "produce or consume one ptr_ring entry, without lock and misses",
        "page_adopt_ns": "instructions that bring one page into the pool",
        "page_release_ns": "instructions that make one page leave the pool, without atomic and misses",
        "page_cache_ns": "one page into or out of a driver's own page cache, without misses",
        "page_bulk_alloc_ns": "one page of a bulk of 64 from the per-CPU list",
        "page_single_alloc_ns": "one page asked for alone, from the per-CPU list",
        "page_fragment_ns": "part of a block cut off, as the network core does, without a new block",
        "page_free_ns": "one page to the per-CPU list, the drop of its last reference included",
        "pcp_high_pages": "length of the per-CPU list at which it overflows",
        "pcp_batch_pages": "pages moved at a time between per-CPU list and buddy lists",
        "buddy_page_ns": "extra cost of a page that moves between per-CPU list and buddy lists",
        "dma_map_ns": "map one page, no IOMMU, without cache maintenance",
        "dma_unmap_ns": "unmap one page, no IOMMU, without cache maintenance",
        "dma_sync_call_ns": "fixed cost of one DMA sync call",
        "dma_sync_line_ns": "cost of a DMA sync per cache line, 0 if coherent",
        "iommu_map_ns": "map one page behind an IOMMU: IOVA and page table, on top of dma_map_ns",
        "iommu_unmap_ns": "unmap one page behind an IOMMU: page table and IOVA, without invalidation, on top "
        "of dma_unmap_ns",
        "iommu_invalidate_ns": "issue one IOTLB invalidation and wait for it, while the queue is held",
        "swiotlb_slot_ns": "find or give back a bounce-buffer slot, without the copy",
        "interrupt_ns": "interrupt until the NAPI poll runs",
        "context_switch_ns": "waking a thread until it runs",
        "poll_ns": "fixed cost of one NAPI poll",
        "driver_ns": "driver's receive function, per packet",
        "xdp_program_ns": "run a short XDP program: call, bounds checks, verdict",
        "xdp_redirect_ns": "redirect a frame: map lookup, xdp_frame, bulk queue",
        "skb_alloc_ns": "slab alloc and build_skb",
        "skb_free_ns": "slab free and release of the data",
        "protocol_ns": "eth_type_trans, GRO and receive core, up to the drop point or to IP",
        "gro_ns": "GRO of one packet where it may hold packets back, on top of protocol_ns",
        "udp_ns": "IP and UDP up to the socket, on top of protocol_ns",
        "forward_ns": "route, neighbour and queueing discipline of a forwarded skb, on top of protocol_ns",
        "transmit_ns": "driver's transmit function, per frame, without DMA mapping and doorbell",
        "transmit_clean_ns": "clean one sent descriptor, without unmapping and freeing",
        "tcp_ns": "IP and TCP up to the socket, on top of protocol_ns",
        "backlog_ns": "choose an RPS CPU for a packet, put it into that CPU's backlog and take it out there",
        "ipi_ns": "send an interrupt to another CPU, without what it costs there",
        "socket_ns": "enqueue on a socket and wake its reader",
        "receive_ns": "recvmsg of one packet, without copy and misses",
        "copy_bytes_per_ns": "copy to user space, cache-hot or as memcpy",
    }
)
"""every parameter with what it costs or states; the unit stands in the name"""

CERTAINTIES: Mapping[str, str] = MappingProxyType(
    {
        "verified": "read in the source",
        "derived": "arithmetic on verified figures",
        "secondary": "another author's summary, or a related machine",
        "recalled": "general knowledge, to be checked before relying on it",
        "estimate": "a plausible range",
    }
)

_UNITS = (
    ("_bytes_per_ns", "bytes/ns"),
    ("_per_buffer", "writes/buffer"),
    ("_ghz", "GHz"),
    ("_bytes", "bytes"),
    ("_pages", "pages"),
    ("sockets", "sockets"),
    ("_ratio", "ratio"),
    ("_ns", "ns"),
)
_FLAGS = ("dma_coherent", "ordered_atomic_drains", "register_writes_per_buffer")
_MAY_BE_ZERO = ("llc_bytes", "ddio_bytes")
_POSITIVE = ("clock_ghz", "miss_exposed_ratio", "copy_bytes_per_ns")
_KEYS = ("value", "low", "high", "certainty", "source", "note")
_HEADER = ("title", "description", "parent")


class Parameter(NamedTuple):
    """One number of a profile, in the unit of its name."""

    name: str
    value: float
    unit: str
    """GHz, bytes, ns, ratio, pages, sockets, bytes/ns, writes/buffer, or empty for a flag (0 or 1)"""
    low: float
    """lower end of the range that the source supports"""
    high: float
    source: str
    certainty: str
    """a key of :data:`CERTAINTIES`"""
    note: str


@dataclass(frozen=True, eq=False)
class Profile:
    """An architecture: every parameter of :data:`PARAMETERS`, inheritance resolved."""

    name: str
    title: str
    description: str
    path: Path
    parameters: Mapping[str, Parameter]
    """in the order of :data:`PARAMETERS`"""

    def __getitem__(self, parameter: str) -> float:
        """The value of a parameter, in the unit of its name."""
        return self.parameters[parameter].value

    @cached_property
    def canonical(self) -> str:
        """The resolved profile as one TOML file in fixed order and spelling; :func:`load` reads it back."""
        lines = [f"title = {_quoted(self.title)}", f"description = {_quoted(self.description)}"]
        for parameter in self.parameters.values():
            lines += ["", f"[{parameter.name}]"]
            lines += [f"{key} = {_quoted(getattr(parameter, key))}" for key in _KEYS]
        return "\n".join(lines) + "\n"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of :attr:`canonical`, in hexadecimal."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


def names() -> tuple[str, ...]:
    """The bundled architectures, sorted."""
    return tuple(sorted(path.stem for path in BUNDLED.glob("*.toml")))


def load(name: str) -> Profile:
    """Read a profile; files that did not change are read only once.

    Args:
        name: a bundled architecture (see :func:`names`) or a path: what ends in .toml or holds a slash.

    Raises:
        ProfileError: unknown architecture, or a malformed or incomplete profile.
    """
    return _resolve(tuple(_lineage(name)))


class _Document(NamedTuple):
    title: str
    description: str
    parent: str
    parameters: dict[str, Parameter]


def _lineage(name: str) -> Iterable[Stamp]:
    """The files of a profile from the child to its oldest ancestor."""
    if name.endswith(".toml") or os.sep in name:
        file = _stamp(Path(name), f"arch = {name!r}")
    else:
        file = _stamp(_bundled(name, "arch"), f"arch = {name!r}")
    seen = set()
    while True:
        yield file
        seen.add(file.path.resolve())
        parent = _parse(file).parent
        if not parent:
            return
        where = f"{file.path}: parent"
        path = file.path.parent / parent if parent.endswith(".toml") else _bundled(parent, where)
        if path.resolve() in seen:
            _fail(where, parent, "leads back to this profile; name one that does not inherit from it")
        file = _stamp(path, f"{where} = {parent!r}")


def _bundled(name: str, where: str) -> Path:
    if name not in names():
        remedy = f"unknown architecture; {_nearest(name, names())}, or name a .toml file of your own"
        _fail(where, name, remedy)
    return BUNDLED / f"{name}.toml"


def _stamp(path: Path, where: str) -> Stamp:
    try:
        return stamp(path)
    except OSError as error:
        raise ProfileError(f"{where}: {error.strerror}; name a profile that exists") from None


@lru_cache(maxsize=64)
def _resolve(files: tuple[Stamp, ...]) -> Profile:
    child = _parse(files[0])
    found: dict[str, Parameter] = {}
    for file in reversed(files):
        found |= _parse(file).parameters
    path = files[0].path
    missing = [name for name in PARAMETERS if name not in found]
    if missing:
        others = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        raise ProfileError(f"{path}: {missing[0]}: missing{others}; add [{missing[0]}] or name a parent")
    parameters = MappingProxyType({name: found[name] for name in PARAMETERS})
    return Profile(path.stem, child.title, child.description, path, parameters)


@lru_cache(maxsize=64)
def _parse(file: Stamp) -> _Document:
    try:
        content = tomllib.loads(file.path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"{file.path}: cannot be read ({error.strerror}); check its permissions") from None
    except ValueError as error:
        raise ProfileError(f"{file.path}: not a TOML file ({error}); correct it") from None
    header = {key: content.pop(key, "") for key in _HEADER}
    for key, value in header.items():
        if not isinstance(value, str) or (key != "parent" and not value.strip()):
            _fail(f"{file.path}: {key}", value, "write a text")
    parameters = {}
    for name, table in content.items():
        if name not in PARAMETERS:
            near = _nearest(name, (*PARAMETERS, *_HEADER))
            raise ProfileError(f"{file.path}: {name}: unknown parameter; {near}")
        parameters[name] = _parameter(f"{file.path}: {name}", name, table)
    return _Document(**header, parameters=parameters)


def _parameter(where: str, name: str, table: Any) -> Parameter:
    if not isinstance(table, dict):
        _fail(where, table, "write a table with value, certainty and source")
    for key in table:
        if key not in _KEYS:
            raise ProfileError(f"{where}.{key}: unknown key; {_nearest(key, _KEYS)}")
    for key in ("value", "certainty", "source"):
        if key not in table:
            raise ProfileError(f"{where}.{key}: missing; every parameter states value, certainty and source")
    for key in ("source", "note"):
        text = table.get(key, "")
        if not isinstance(text, str) or (key == "source" and not text.strip()):
            _fail(f"{where}.{key}", text, 'write a text, "no source" if there is none')
    value = _number(f"{where}.value", name, table["value"])
    low = _number(f"{where}.low", name, table.get("low", value))
    high = _number(f"{where}.high", name, table.get("high", value))
    if not low <= value <= high:
        _fail(f"{where}.value", table["value"], f"must lie in its own range {low:g}..{high:g}")
    certainty = table["certainty"]
    if certainty not in tuple(CERTAINTIES):
        _fail(f"{where}.certainty", certainty, f"use one of {', '.join(CERTAINTIES)}")
    if certainty == "estimate" and low == high:
        _fail(f"{where}.certainty", certainty, "an estimate has a range; state low and high")
    return Parameter(name, value, _unit(name), low, high, table["source"], certainty, table.get("note", ""))


def _number(where: str, name: str, number: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        _fail(where, number, f"write a number{f' in {_unit(name)}' if _unit(name) else ''}")
    whole = _unit(name) in ("bytes", "pages", "sockets")
    if name in _FLAGS:
        if number not in (0, 1):
            _fail(where, number, "use 0 or 1")
    elif whole and (number != int(number) or number < (0 if name in _MAY_BE_ZERO else 1)):
        _fail(where, number, f"write a whole number of {_unit(name)}")
    elif number < 0 or (number == 0 and name in _POSITIVE):
        _fail(where, number, "must be above 0" if name in _POSITIVE else "must not be negative")
    elif name.endswith("_ratio") and number > 1:
        _fail(where, number, "a ratio is at most 1")
    return float(number)


def _unit(name: str) -> str:
    return next((unit for suffix, unit in _UNITS if name.endswith(suffix)), "")


def _quoted(value: str | float) -> str:
    # a JSON string is a TOML string as well, and repr gives the shortest exact number
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _nearest(name: str, known: Iterable[str]) -> str:
    choices = list(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(choices)}"


def _fail(where: str, value: object, remedy: str) -> NoReturn:
    raise ProfileError(f"{where} = {value!r}: {remedy}")
