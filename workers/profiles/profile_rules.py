"""Checks of a profile: one table of its file, and its numbers against each other."""

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from workers.errors import ProfileError
from workers.profiles.parameters import (
    CERTAINTIES,
    CYCLES_OF_PARENT,
    PARAMETERS,
    Parameter,
    unit_of,
)

KEYS = ("value", "low", "high", "certainty", "source", "note", "row")
"""of the table of a parameter"""

HEADER = ("title", "description", "parent")

MOST_GHZ = 10
"""a clock above that was meant in MHz"""

_FLAGS = ("dma_coherent", "ordered_atomic_drains", "register_writes_per_buffer")
_MAY_BE_ZERO = ("llc_bytes", "ddio_bytes")
_POSITIVE = ("clock_ghz", "miss_exposed_ratio", "copy_bytes_per_ns", CYCLES_OF_PARENT)
SMALLEST_PAGE_BYTES, LARGEST_PAGE_BYTES = 4096, 65536

_POWERS_OF_TWO = ("page_bytes", "cache_line_bytes")


class Order(NamedTuple):
    """Of two parameters the first must not be above the second."""

    small: str
    large: str
    remedy: str
    where: str = ""
    """parameter that is not 0 where the rule holds; empty: everywhere"""


_OUTWARDS = "a level further out is not faster"
_LARGER = "a level further out is not smaller"

ORDERS = (
    Order("l1_ns", "l2_ns", _OUTWARDS),
    Order("l2_ns", "llc_ns", _OUTWARDS, "llc_bytes"),
    Order("llc_ns", "dram_ns", _OUTWARDS),
    Order("l2_ns", "dram_ns", _OUTWARDS),
    Order("dram_ns", "dram_far_ns", "memory of another socket is not nearer"),
    Order("line_transfer_ns", "line_transfer_far_ns", "another socket is not nearer"),
    Order("l1_bytes", "l2_bytes", _LARGER),
    Order("l2_bytes", "llc_bytes", _LARGER, "llc_bytes"),
    Order("ddio_bytes", "llc_bytes", "it is a share of the last-level cache"),
    Order("cache_line_bytes", "l1_bytes", "a cache has lines"),
    Order("call_ns", "mitigated_call_ns", "a mitigation makes no call cheaper"),
    Order("page_bulk_alloc_ns", "page_single_alloc_ns", "a bulk shares its fixed part"),
    Order("pcp_batch_pages", "pcp_high_pages", "a list holds a batch"),
)


def check_table(where: str, name: str, table: Any) -> Parameter:
    """One table of a profile's file as a parameter.

    Raises:
        ProfileError: a key or value is missing, unknown or impossible.
    """
    if not isinstance(table, dict):
        fail(where, table, "write a table with value, certainty and source")
    for key in table:
        if key not in KEYS:
            raise ProfileError(f"{where}.{key}: unknown key; {nearest(key, KEYS)}")
    for key in ("value", "certainty", "source"):
        if key not in table:
            raise ProfileError(f"{where}.{key}: missing; every parameter states value, certainty and source")
    for key in ("source", "note", "row"):
        text = table.get(key, "")
        if not isinstance(text, str) or (key == "source" and not text.strip()):
            fail(f"{where}.{key}", text, 'write a text, "no source" if there is none')
    value = _number(f"{where}.value", name, table["value"])
    low = _number(f"{where}.low", name, table.get("low", value))
    high = _number(f"{where}.high", name, table.get("high", value))
    if not low <= value <= high:
        fail(f"{where}.value", table["value"], f"must lie in its own range {low:g}..{high:g}")
    certainty = table["certainty"]
    if certainty not in tuple(CERTAINTIES):
        fail(f"{where}.certainty", certainty, f"use one of {', '.join(CERTAINTIES)}")
    if certainty == "estimate" and low == high:
        fail(f"{where}.certainty", certainty, "an estimate has a range; state low and high")
    texts = (table.get("note", ""), table.get("row", ""))
    return Parameter(name, value, unit_of(name), low, high, table["source"], certainty, *texts)


def _number(where: str, name: str, number: Any) -> float:
    unit = unit_of(name)
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        fail(where, number, f"write a number{f' in {unit}' if unit else ''}")
    whole = unit in ("bytes", "pages", "sockets")
    if name in _FLAGS:
        if number not in (0, 1):
            fail(where, number, "use 0 or 1")
    elif whole and (number != int(number) or number < (0 if name in _MAY_BE_ZERO else 1)):
        fail(where, number, f"write a whole number of {unit}")
    elif number < 0 or (number == 0 and name in _POSITIVE):
        fail(where, number, "must be above 0" if name in _POSITIVE else "must not be negative")
    elif name.endswith("_ratio") and number > 1:
        fail(where, number, "a ratio is at most 1")
    elif name in _POWERS_OF_TWO and int(number) & (int(number) - 1):
        fail(where, number, "use a power of two")
    elif name == "page_bytes" and not SMALLEST_PAGE_BYTES <= number <= LARGEST_PAGE_BYTES:
        fail(where, number, f"use {SMALLEST_PAGE_BYTES} to {LARGEST_PAGE_BYTES}")
    elif name == "clock_ghz" and number > MOST_GHZ:
        fail(where, number, f"at most {MOST_GHZ}; write it in GHz")
    return float(number)


def check_complete(path: Path, found: Mapping[str, Parameter]) -> None:
    """Every parameter has to be there, and in an order that a machine can have.

    Raises:
        ProfileError: one is missing, or two contradict each other.
    """
    missing = [name for name in PARAMETERS if name not in found]
    if missing:
        others = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        raise ProfileError(f"{path}: {missing[0]}: missing{others}; add [{missing[0]}] or name a parent")
    for order in ORDERS:
        small, large = found[order.small], found[order.large]
        if small.value > large.value and (not order.where or found[order.where].value):
            remedy = f"must not be above {order.large} = {large.value:g}, {order.remedy}; correct one of them"
            raise ProfileError(f"{path}: {order.small} = {small.value:g}: {remedy}")
    line = found["dma_sync_line_ns"].value
    if found["dma_coherent"].value and line:
        fail(f"{path}: dma_sync_line_ns", line, "use 0, DMA is coherent; or state dma_coherent = 0")


def unknown_parameter(name: str) -> str:
    """What to do about a table that is no parameter."""
    stem = name.rpartition("_")[0]
    for known in PARAMETERS:
        if stem and known.rpartition("_")[0] == stem and unit_of(known):
            return f"wrong unit; did you mean {known}, in {unit_of(known)}?"
    return f"unknown parameter; {nearest(name, (*PARAMETERS, CYCLES_OF_PARENT, *HEADER))}"


def nearest(name: str, known: Iterable[str]) -> str:
    """What a misspelt name may have meant."""
    choices = list(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(choices)}"


def fail(where: str, value: object, remedy: str) -> NoReturn:
    """Refuse a value."""
    raise ProfileError(f"{where} = {value!r}: {remedy}")
