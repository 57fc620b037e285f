"""The hardware of a trial: its architecture's profile as the fields of group ``machine`` change it.

What a profile says holds at its own clock and page size. Another clock changes what the core does at its own
pace and nothing else: :data:`CLOCKED`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from workers.fields.groups import TrialFields
from workers.profiles import arch
from workers.profiles.parameters import CORE_TIMES

CLOCKED = ("l1_ns", "l2_ns", *CORE_TIMES)
"""costs that scale with the core's clock: levels 1 and 2 run at it, and so do instructions, calls, atomics
and locks, which work on lines that the core has. Not the last level, memory and the links between cores,
which have clocks of their own; nor what the device, its bus, the interrupt controller or the IOMMU answers;
nor cache maintenance, which waits for memory; nor ``copy_bytes_per_ns``, which memory bounds where it was
measured"""

WHERE_COHERENT = "dma_sync_call_ns"
"""of these, what has nothing to do where DMA is coherent, but else waits for memory"""

DDIO_SHARE = 10
"""of a last-level cache whose profile has no share for DMA: one part in ten, as 2 ways of 20 by default on
Intel's servers that have DDIO"""


class Hardware(NamedTuple):
    """What a trial's machine costs."""

    values: Mapping[str, float]
    """by parameter of a profile, in the unit of its name"""
    longer_calls_ns: float
    """by which each call is longer than the one that prices were measured with"""
    pcp_high: int
    """pages, as page_bytes would have them"""
    pcp_batch: int


def page_bytes(config: TrialFields) -> int:
    """Size of a page."""
    return config.machine.page_bytes or int(arch.load(config.arch)["page_bytes"])


def hardware_of(config: TrialFields) -> Hardware:
    """The profile of a trial with its machine's settings applied.

    Raises:
        ProfileError: the profile is unusable.
    """
    profile, machine = arch.load(config.arch), config.machine
    values = {name: parameter.value for name, parameter in profile.parameters.items()}
    if machine.clock_mhz:
        _set_clock(values, machine.clock_mhz / 1000)
    if machine.ddio == "off":
        values["ddio_bytes"] = 0.0
    elif machine.ddio == "on" and not values["ddio_bytes"]:
        values["ddio_bytes"] = values["llc_bytes"] // DDIO_SHARE
    mitigated = machine.mitigation == "on"
    longer_ns = values["mitigated_call_ns"] - values["call_ns"] if mitigated else 0.0
    values["page_bytes"] = float(page_bytes(config))
    high, batch = _lists(profile, page_bytes(config))
    return Hardware(MappingProxyType(values), longer_ns, high, batch)


def _set_clock(values: dict[str, float], clock_ghz: float) -> None:
    factor = values["clock_ghz"] / clock_ghz
    for name in CLOCKED:
        if name != WHERE_COHERENT or values["dma_coherent"]:
            values[name] *= factor
    values["clock_ghz"] = clock_ghz


def _lists(profile: arch.Profile, page: int) -> tuple[int, int]:
    """Length and batch of per-CPU lists. The kernel derives both from bytes: a batch is a quarter of 1 MiB,
    rounded to one less than a power of two; a list holds at least four batches."""
    high, batch = int(profile["pcp_high_pages"]), int(profile["pcp_batch_pages"])
    had = int(profile["page_bytes"])
    if page == had:
        return high, batch
    batch = max(1, (batch + 1) * had // page - 1)
    return max(4 * batch, high * had // page), batch
