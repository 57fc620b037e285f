"""Why two cells differ: their busy time per packet, mechanism by mechanism.

A mechanism is switched off by giving its constants the price of nothing in the profiles of both cells, which
then run again. How much of the difference that takes away depends on what else is on, so it is asked twice:
with all others on (*first off*) and with all others off (*last off*). A mechanism gets the mean of the two.
What is left of the difference then is *interaction*, and what no mechanism explains, such as the driver's own
work and the interrupts, is what differs when all of them are off.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

import workers
from farm import sweep as sweeps
from farm.errors import IncomparableError, SweepError
from farm.store.place import Root
from farm.store.runs import Run, default_root, find
from farm.sweep import Sweep
from farm.tables import rows, word
from workers.config import TrialConfig, field
from workers.fields.derived import seed_matters
from workers.fields.groups import Value
from workers.profiles import arch
from workers.profiles.parameters import PARAMETERS

FREE_BYTES_PER_NS = 1e15
"""a copy that costs nothing"""


class Mechanism(NamedTuple):
    """Costs that are switched off together."""

    name: str
    constants: Mapping[str, float]
    """the value of each parameter at which it costs nothing"""
    misses: tuple[str, ...] = ()
    """objects whose cache misses cost nothing, see ``workers.pricing.cache.MISSES``"""


def _of(name: str, *parameters: str) -> Mechanism:
    return Mechanism(name, MappingProxyType(dict.fromkeys(parameters, 0.0)))


MECHANISMS = (
    _of("page_pool", "pool_alloc_ns", "pool_put_ns", "page_adopt_ns", "page_release_ns", "page_cache_ns"),
    _of("ring and lock", "ring_slot_ns", "lock_unlock_ns", "bh_toggle_ns"),
    _of(
        "page allocator",
        "page_bulk_alloc_ns",
        "page_single_alloc_ns",
        "page_fragment_ns",
        "page_free_ns",
        "buddy_page_ns",
    ),
    _of("atomics", "atomic_ns"),
    _of("stores and register writes", "ordered_atomic_drains", "register_write_ns"),
    _of("DMA map and unmap", "dma_map_ns", "dma_unmap_ns"),
    _of("DMA sync", "dma_sync_call_ns", "dma_sync_line_ns"),
    _of("IOMMU", "iommu_map_ns", "iommu_unmap_ns", "iommu_invalidate_ns"),
    _of("bounce buffers", "swiotlb_slot_ns"),
    _of("calls", "call_ns", "mitigated_call_ns"),
    _of("skb", "skb_alloc_ns", "skb_free_ns"),
    _of(
        "stack",
        "protocol_ns",
        "gro_ns",
        "raw_drop_ns",
        "udp_ns",
        "tcp_ns",
        "forward_ns",
        "backlog_ns",
        "ipi_ns",
    ),
    _of("socket and reader", "socket_ns", "receive_ns", "context_switch_ns"),
    Mechanism("copies", MappingProxyType({"copy_bytes_per_ns": FREE_BYTES_PER_NS})),
    _of("XDP and transmit", "xdp_program_ns", "xdp_redirect_ns", "transmit_ns", "transmit_clean_ns"),
    Mechanism("misses: struct page", MappingProxyType({}), ("struct_page",)),
    Mechanism("misses: packet", MappingProxyType({}), ("packet",)),
    Mechanism("misses: ring", MappingProxyType({}), ("ring",)),
    Mechanism("misses: descriptor", MappingProxyType({}), ("descriptor",)),
    Mechanism("misses: skb", MappingProxyType({}), ("skb",)),
)
"""every price of a profile, but for what :data:`NEVER_OFF` names"""

NEVER_OFF = ("driver_ns", "poll_ns", "interrupt_ns")
"""prices that stay: if a packet took no time at all, traffic at saturation would not end"""

LATENCIES = (
    "l1_ns", "l2_ns", "llc_ns", "dram_ns", "dram_far_ns", "line_transfer_ns", "line_transfer_far_ns",
)  # fmt: skip
"""prices of misses, which are switched off by object"""


class Pair(NamedTuple):
    """Two cells that are compared; one trial for each seed."""

    name_a: str
    name_b: str
    a: tuple[TrialConfig, ...]
    b: tuple[TrialConfig, ...]


class Share(NamedTuple):
    """What one mechanism has of the difference, in nanoseconds per packet; positive where B takes more."""

    mechanism: str
    first_off: float
    last_off: float

    @property
    def share(self) -> float:
        return (self.first_off + self.last_off) / 2


class Explanation(NamedTuple):
    """The difference B - A and where it comes from: shares, rest and interaction add up to it."""

    pair: Pair
    busy_a: float
    busy_b: float
    shares: tuple[Share, ...]
    rest: float
    """what differs with all mechanisms off"""

    @property
    def difference(self) -> float:
        return self.busy_b - self.busy_a

    @property
    def interaction(self) -> float:
        return self.difference - self.rest - sum(one.share for one in self.shares)

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "cells": [self.pair.name_a, self.pair.name_b],
            "busy_ns_per_packet": [self.busy_a, self.busy_b],
            "difference_ns": self.difference,
            "mechanisms": [one._asdict() | {"share": one.share} for one in self.shares],
            "rest_ns": self.rest,
            "interaction_ns": self.interaction,
            "sentence": sentence(self),
        }


def explain(pair: Pair) -> Explanation:
    """Attribute the difference of two cells.

    Raises:
        IncomparableError: a cell takes no packet, or takes no time for one.
    """
    for trials in (pair.a, pair.b):
        profile = arch.load(trials[0].arch)
        if trials[0].traffic.kind == "saturation" and not any(profile[name] for name in NEVER_OFF[:2]):
            raise IncomparableError(
                f"traffic.kind = saturation: a packet takes no time, since {' and '.join(NEVER_OFF[:2])} "
                f"of arch = {trials[0].arch} are 0; use constant"
            )
    busy_a, busy_b = _busy(pair.a, ()), _busy(pair.b, ())
    all_off = _difference(pair, MECHANISMS)
    shares = []
    for one in MECHANISMS:
        others = [other for other in MECHANISMS if other is not one]
        first = busy_b - busy_a - _difference(pair, [one])
        last = _difference(pair, others) - all_off
        shares.append(Share(one.name, first, last))
    return Explanation(pair, busy_a, busy_b, tuple(shares), all_off)


def cells(place: str, cell_a: str, cell_b: str, fields: Sequence[str], store: Root | None = None) -> Pair:
    """Two cells of a sweep or of a stored run.

    Args:
        place: a sweep file or bundled sweep, else a run.
        cell_a, cell_b: ``key=value``, several with a space between them.
        fields: ``key=value`` that both cells have. Fields need not be axes of the sweep.

    Raises:
        FarmError, workers.errors.TrialError: no such sweep, run or field; an axis without a value.
    """
    run: Run | None = None
    if place in sweeps.bundled() or place.endswith(".toml"):
        sweep = sweeps.load(place)
    else:
        run = find(store or default_root(), place)
        sweep = run.sweep
    common = _parsed(fields)
    own_a, own_b = _parsed(cell_a.split()), _parsed(cell_b.split())
    for key in common:
        if key in own_a or key in own_b:
            raise SweepError(f"{key}: set for one cell and for both; name it once")
    a, b = (_trials(sweep, {**common, **own}, run) for own in (own_a, own_b))
    if a == b:
        raise IncomparableError(f"{cell_a!r} and {cell_b!r} are the same cell; let a field differ")
    return Pair(_words(own_a), _words(own_b), a, b)


def table(found: Explanation) -> RenderableType:
    """The sentence, and each mechanism that has a share of at least a twentieth of a nanosecond."""
    shown = [one for one in found.shares if max(abs(one.first_off), abs(one.last_off)) >= 0.05]
    shown.sort(key=lambda one: -abs(one.share))
    body = [
        (one.mechanism, _signed(one.share), _signed(one.first_off), _signed(one.last_off)) for one in shown
    ]
    body += [
        ("interaction", _signed(found.interaction), "", ""),
        ("driver, polls, application", _signed(found.rest), "", ""),
        ("difference", _signed(found.difference), "", ""),
    ]
    legend = (
        "ns per packet, positive where the second cell takes more. first: switched off\n"
        "alone; last: with all others off; share: the mean of both. interaction: what\n"
        "several mechanisms do together, such as waiting for each other."
    )
    return Group(
        rows(("mechanism", "share", "first", "last"), body, text_columns=1),
        Text(),
        Text(legend, style="dim"),
        Text(f"\n{sentence(found)}"),
    )


def sentence(found: Explanation) -> str:
    """One sentence: how much, and what the largest parts are."""
    difference = found.difference
    verb = "costs" if difference > 0 else "saves"
    direction = 1 if difference > 0 else -1
    parts = [(one.share, one.mechanism) for one in found.shares]
    parts += [(found.rest, "driver, polls and application"), (found.interaction, "interaction")]
    least = max(0.05, abs(difference) / 100)
    named = [
        f"{direction * part:,.{_digits(part)}f} {name}"
        for part, name in sorted(parts, key=lambda part: -direction * part[0])
        if abs(part) >= least
    ]
    return (
        f"{found.pair.name_b} {verb} {abs(difference):,.{_digits(difference)}f} ns of {found.busy_a:,.0f} "
        f"against {found.pair.name_a}: {', '.join(named) or 'nothing'}."
    )


def _difference(pair: Pair, off: Sequence[Mechanism]) -> float:
    return _busy(pair.b, off) - _busy(pair.a, off)


def _busy(trials: Sequence[TrialConfig], off: Sequence[Mechanism]) -> float:
    """Busy nanoseconds per packet with some mechanisms off, mean over the seeds."""
    constants: dict[str, float] = {}
    for one in off:
        constants |= {key: value for key, value in one.constants.items() if key in PARAMETERS}
    found = []
    with arch.varied(trials[0].arch, constants, [name for one in off for name in one.misses]) as name:
        for trial in trials:
            busy = workers.run_trial(trial.model_copy(update={"arch": name}))["busy_ns_per_packet"]
            if busy is None:
                raise IncomparableError("no packet was received; let the trial last longer, or offer more")
            found.append(float(busy))
    return sum(found) / len(found)


def _parsed(assignments: Sequence[str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise SweepError(f"{assignment!r}: a field of a cell is written key=value, such as pool.size=64")
        if key in found:
            raise SweepError(f"{key}: set twice; name it once")
        found[key] = field(key).parse(text)
    return found


def _trials(sweep: Sweep, given: Mapping[str, Value], run: Run | None) -> tuple[TrialConfig, ...]:
    """The trials of one cell, one for each seed that matters."""
    fields = dict(sweep.fixed)
    for name, values in sweep.axes().items():
        if name not in given and len(values) > 1:
            listed = ", ".join(map(word, values))
            raise SweepError(
                f"{name}: the sweep has several values, {listed}; name one as {name}={word(values[0])}"
            )
        fields[name] = values[0]
    config = TrialConfig.unchecked({**fields, **given})
    seeds = range(sweep.least_seeds if "seed" not in given and seed_matters(config) else 1)
    trials = [config.model_copy(update={"seed": seed}) if len(seeds) > 1 else config for seed in seeds]
    if run is not None:
        # what the run read, not what stands under these names today
        kept = run.manifests()[0].get("inputs", {})
        trials = [workers.locate(trial, run.inputs_directory, kept) for trial in trials]
    return tuple(TrialConfig.from_fields(trial.to_fields()) for trial in trials)


def _words(fields: Mapping[str, Value]) -> str:
    return " ".join(f"{name}={word(value)}" for name, value in fields.items())


def _signed(value: float) -> str:
    return f"{value:+,.1f}" if abs(value) >= 0.05 else "0.0"


def _digits(value: float) -> int:
    return 0 if abs(value) >= 20 else 1
