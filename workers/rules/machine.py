"""Rules of the machine: what its architecture has, and what it can be asked for."""

from workers.errors import ConfigError
from workers.fields.derived import TRANSLATING
from workers.fields.groups import NIC_WORKLOAD, TrialFields
from workers.profiles import arch
from workers.rules.rule import Rule


def _only_a_coherent_device_writes_to_a_cache(config: TrialFields) -> None:
    if config.machine.ddio != "on":
        return
    profile = arch.load(config.arch)
    if not profile["dma_coherent"] or not profile["llc_bytes"]:
        lacks = "a last-level cache" if profile["dma_coherent"] else "coherent DMA"
        raise ConfigError(
            "machine.ddio", "on", f"arch = {config.arch} has not {lacks} to write to; use profile or off"
        )


def _an_iommu_needs_no_bounce_buffers(config: TrialFields) -> None:
    """A device behind an IOMMU that translates reaches all memory: the kernel maps by its page tables then,
    also with ``swiotlb=force``."""
    if config.machine.swiotlb and config.machine.iommu in TRANSLATING:
        raise ConfigError(
            "machine.swiotlb",
            True,
            f"behind machine.iommu = {config.machine.iommu} nothing is bounced; use false, or off or "
            "passthrough there",
        )


def _loops_map_nothing(config: TrialFields) -> None:
    machine = config.machine
    for name, value, default in (("iommu", machine.iommu, "off"), ("swiotlb", machine.swiotlb, False)):
        if config.workload != NIC_WORKLOAD and value != default:
            raise ConfigError(
                f"machine.{name}",
                value,
                f"workload = {config.workload} maps no page; leave it {str(default).lower()}, or use nic",
            )


RULES = (
    Rule(("arch", "machine.ddio"), _only_a_coherent_device_writes_to_a_cache),
    Rule(("machine.iommu", "machine.swiotlb"), _an_iommu_needs_no_bounce_buffers),
    Rule(("workload", "machine.iommu", "machine.swiotlb"), _loops_map_nothing),
)
