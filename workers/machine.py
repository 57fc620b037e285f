"""The simulated machine that a trial runs on: pools and page allocator, priced by a profile."""

from typing import Any

from pool_impl.host import new_host
from pool_impl.layout import SERVING_SOFTIRQ, Host
from pool_impl.pool import PAGE_BYTES
from pool_impl.release import rules_of
from workers import arch, variants
from workers.cache import stamps_needed
from workers.config import TrialConfig
from workers.cost import Pricing, PricingOfNodes, new_pricing
from workers.derived import cpus_wanted
from workers.nodes import lay_out


def new_machine(
    config: TrialConfig,
    *,
    pages: int,
    pools: int = 1,
    descriptors: int = 0,
    skbs: int = 0,
    page_cache_slots: int = 0,
    parts_shift: int = 0,
    part_bytes_shift: int = PAGE_BYTES.bit_length() - 1,
) -> Host:
    """A machine without pools, in softirq on CPU 0.

    Args:
        pages: that can be out of the per-CPU lists at a time.
        pools: that can be created.
        descriptors: receive descriptors whose cache lines are followed.
        skbs: likewise.
        page_cache_slots: likewise, of drivers' page caches.
        parts_shift: ``1 << parts_shift`` parts of a page are followed.
        part_bytes_shift: each of ``1 << part_bytes_shift`` bytes.
    """
    profile = arch.load(config.arch)
    pcp_high = int(profile["pcp_high_pages"])
    pages += sum(cpus_wanted(config).values()) * pcp_high
    # free pages of a node are of no use on another
    pages *= config.numa.nodes
    host = new_host(
        rules_of(config.kernel),
        pages=pages,
        pools=pools,
        observer=Pricing(*[None] * len(Pricing._fields)),
        variant=checked_variant(config),
        pcp_high=pcp_high,
        pcp_batch=int(profile["pcp_batch_pages"]),
    )
    host.context.in_softirq = SERVING_SOFTIRQ
    stamps = stamps_needed(pages + 1, len(host.slots) + page_cache_slots, descriptors, skbs, 1 << parts_shift)
    pricing = new_pricing(profile, host.context, host.pages, stamps)
    pricing = pricing._replace(pools=host.pools, slots=host.slots)
    if config.numa.nodes > 1:
        pricing = PricingOfNodes(*pricing)
    lay_out(config, pricing.caches)
    host.context.nid = config.numa.queues
    pricing.caches.parts_shift = parts_shift
    pricing.caches.part_bytes_shift = part_bytes_shift
    return host._replace(observer=pricing)


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
