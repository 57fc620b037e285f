"""A core's instruction times from those of another core: by clock, and by cycles for the same work."""

from collections.abc import Mapping

from workers.profiles.parameters import CORE_TIMES, Parameter

SIGNIFICANT_DIGITS = 4


def scaled(
    parent: str, times: Mapping[str, Parameter], clock_ghz: float, cycles: Parameter
) -> dict[str, Parameter]:
    """The parent's core times on a child that states how many cycles its core takes.

    What is scaled is an estimate, however certain it is on the parent. Its range is the parent's and that of
    the cycles together; the clock counts as exact. Cache maintenance is not scaled: where DMA is not coherent
    on the parent, a sync waits for memory.

    Args:
        parent: name of the profile that the times are of.
        times: its parameters; those of :data:`CORE_TIMES` are scaled.
        clock_ghz: the child's clock.
        cycles: the child's cycles for the same work, the parent's being 1.
    """
    parent_ghz = times["clock_ghz"].value
    return {
        name: _scaled(parent, times[name], parent_ghz, clock_ghz, cycles)
        for name in CORE_TIMES
        if name in times and (name != "dma_sync_call_ns" or times["dma_coherent"].value)
    }


def _scaled(
    parent: str, time: Parameter, parent_ghz: float, clock_ghz: float, cycles: Parameter
) -> Parameter:
    slower = parent_ghz / clock_ghz
    note = f"{parent}: {time.value:g} ns, {time.certainty}; x {parent_ghz:g}/{clock_ghz:g} GHz"
    return time._replace(
        value=_rounded(time.value * slower * cycles.value),
        low=_rounded(time.low * slower * cycles.low),
        high=_rounded(time.high * slower * cycles.high),
        source="no source",
        certainty="estimate",
        note=f"{note} x {cycles.value:g} cycles",
        row="",
    )


def _rounded(number: float) -> float:
    return float(f"{number:.{SIGNIFICANT_DIGITS}g}")
