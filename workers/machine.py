"""The simulated machine that a trial runs on: pools and page allocator, priced by a profile."""

from collections.abc import Mapping
from typing import Any

from pool_impl import observe
from pool_impl.host import new_host
from pool_impl.layout import SERVING_SOFTIRQ, Host
from pool_impl.release import rules_of
from workers import variants
from workers.config import TrialConfig
from workers.fields.derived import TRANSLATING, attaches_program, cpus_wanted, has_layers
from workers.pricing.cache import MISSES, stamps_needed
from workers.pricing.calls import lengthen
from workers.pricing.cost import Pricing, PricingOfLayers, PricingOfNodes, new_pricing, picoseconds
from workers.pricing.nodes import lay_out
from workers.profiles import arch
from workers.profiles.hardware import hardware_of


def new_machine(
    config: TrialConfig,
    *,
    pages: int,
    pools: int = 1,
    descriptors: int = 0,
    skbs: int = 0,
    page_cache_slots: int = 0,
    parts_shift: int = 0,
    part_bytes_shift: int | None = None,
    mapped_bytes: int = 0,
) -> Host:
    """A machine without pools, in softirq on CPU 0.

    Args:
        pages: that can be out of the per-CPU lists at a time.
        pools: that can be created.
        descriptors: receive descriptors whose cache lines are followed.
        skbs: likewise.
        page_cache_slots: likewise, of drivers' page caches.
        parts_shift: ``1 << parts_shift`` parts of a page are followed.
        part_bytes_shift: each of ``1 << part_bytes_shift`` bytes, a page if not given.
        mapped_bytes: that one mapping of a receive buffer covers.
    """
    hardware = hardware_of(config)
    page_bytes = int(hardware.values["page_bytes"])
    rules = rules_of(config.kernel)
    pages += sum(cpus_wanted(config).values()) * hardware.pcp_high
    # free pages of a node are of no use on another
    pages *= config.numa.nodes
    host = new_host(
        rules,
        pages=pages,
        pools=pools,
        observer=Pricing(*[None] * len(Pricing._fields)),
        variant=checked_variant(config),
        pcp_high=hardware.pcp_high,
        pcp_batch=hardware.pcp_batch,
        page_bytes=page_bytes,
    )
    host.context.in_softirq = SERVING_SOFTIRQ
    stamps = stamps_needed(pages + 1, len(host.slots) + page_cache_slots, descriptors, skbs, 1 << parts_shift)
    pricing = new_pricing(hardware.values, host.context, host.pages, stamps)
    for name in arch.load(config.arch).free_misses:
        pricing.caches.exposed_ps[MISSES[name], :] = 0
    if config.machine.iommu in TRANSLATING:
        _translate(pricing.meter, hardware.values, lazy=config.machine.iommu == "lazy")
    if config.machine.swiotlb:
        filled = mapped_bytes if rules.bounce_is_filled else 0
        _bounce(pricing.meter, hardware.values, map_copies_bytes=filled, both_ways=attaches_program(config))
    if hardware.longer_calls_ns:
        lengthen(pricing.meter, hardware.longer_calls_ns)
    pricing = pricing._replace(pools=host.pools, slots=host.slots)
    if config.numa.nodes > 1:
        pricing = PricingOfNodes(*pricing)
    elif has_layers(config):
        pricing = PricingOfLayers(*pricing)
    lay_out(config, pricing.caches)
    host.context.nid = config.numa.queues
    pricing.caches.parts_shift = parts_shift
    pricing.caches.part_bytes_shift = (
        page_bytes.bit_length() - 1 if part_bytes_shift is None else part_bytes_shift
    )
    return host._replace(observer=pricing)


def _translate(meter: Any, profile: Mapping[str, float], *, lazy: bool) -> None:
    """Put an IOMMU between device and memory."""
    dma = meter.dma
    dma.translates = 1
    dma.lazy = int(lazy)
    dma.map_ps = picoseconds(profile["iommu_map_ns"])
    dma.unmap_ps = picoseconds(profile["iommu_unmap_ns"])
    dma.invalidate_ps = picoseconds(profile["iommu_invalidate_ns"])


def _bounce(meter: Any, profile: Mapping[str, float], *, map_copies_bytes: int, both_ways: bool) -> None:
    """Put bounce buffers there: ``map_copies_bytes`` are copied as a receive buffer is mapped, and what is
    synced for the device if mappings are for ``both_ways``."""
    meter.dma.bounces = 1
    meter.dma.map_copies_bytes = map_copies_bytes
    meter.bounce_to_cpu_ps_per_kib = meter.copy_ps_per_kib
    meter.bounce_to_device_ps_per_kib = meter.copy_ps_per_kib if both_ways else 0
    for kind in (observe.DMA_MAP, observe.DMA_UNMAP):
        meter.price_ps[kind] += picoseconds(profile["swiotlb_slot_ns"])


def checked_variant(config: TrialConfig) -> Any:
    """The variant of a trial, checked for its pool.

    Raises:
        ConfigError: there is none, or it is unusable.
    """
    name = config.pool.variant
    found = variants.load(name)
    if found.code:
        variants.check(found, name, config.kernel, config.pool.size)
    return found.instance
