"""A trial without a NIC: a loop of the page_pool benchmark on a simulated architecture, one page a turn.

What the kernel's own benchmark prints on a machine can so be predicted like everything else.
"""

from typing import Any

from pool_impl import pool
from workers import audit, micro
from workers.books.histogram import packed
from workers.config import TrialConfig
from workers.machine import new_machine
from workers.measures import CATEGORIES, LISTS, MEASURES, TIME_BY_CPU
from workers.pricing.cost import PS_PER_NS

TURNS = 128_000
"""measured; a multiple of the 64 pages that move at a time"""
WARM_UP_TURNS = 16_000


def run(config: TrialConfig) -> dict[str, Any]:
    """Run a loop; its record has time by category for each page, as if pages were packets, and None for what
    a loop does not have.

    Raises:
        CheckError: the books do not balance.
    """
    [loop] = [loop for loop in micro.LOOPS if loop.name == config.workload]
    host = new_machine(config, pages=4096 + config.pool.size)
    micro.fill(host, pool.PoolParams(pool_size=config.pool.size, slow_batch=config.pool.slow_batch))
    loop.run(host, WARM_UP_TURNS)
    ledger = host.observer.meter.ledger
    before = ledger.copy()
    loop.run(host, TURNS)
    by_cpu = ledger - before
    spent_ps = by_cpu.sum(axis=0).tolist()
    audit.check_idle_pool(host)
    record: dict[str, Any] = dict.fromkeys([*(measure.name for measure in MEASURES), *LISTS])
    record["measured_seconds"] = sum(spent_ps) / PS_PER_NS / 1e9
    record["busy_ns_per_packet"] = sum(spent_ps) / TURNS / PS_PER_NS
    for name, category_ps in zip(CATEGORIES, spent_ps, strict=False):
        record[f"{name}_ns_per_packet"] = category_ps / TURNS / PS_PER_NS
    record[TIME_BY_CPU] = packed(by_cpu.ravel())
    return record
