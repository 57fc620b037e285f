"""Metrics of others that stand beside the farm's, and their labels.

Ray's are those of its own exporter (Ray 2.60). A host's are those of node_exporter's ethtool collector,
which names ``rx_pp_alloc_fast`` of ``ethtool -S`` ``node_ethtool_received_pp_alloc_fast``; the kernel's
``page_pool_ethtool_stats_get`` gives the counters these names, released_refcnt shortened.
"""

from workers.measures import COUNTERS

RAY_CPU_PERCENT = "ray_node_cpu_utilization"
RAY_MEMORY_USED_BYTES = "ray_node_mem_used"
RAY_MEMORY_TOTAL_BYTES = "ray_node_mem_total"
RAY_TASKS = "ray_tasks"

_ETHTOOL = {"alloc_slow_high_order": "alloc_slow_ho", "recycle_released_refcnt": "recycle_released_ref"}
"""counters that ethtool calls otherwise"""


def ethtool_name(counter: str) -> str:
    """What node_exporter calls a pool counter of a real host."""
    return f"node_ethtool_received_pp_{_ETHTOOL.get(counter, counter)}"


LABELS: dict[str, set[str]] = {
    RAY_CPU_PERCENT: {"RayNodeType"},
    RAY_MEMORY_USED_BYTES: {"RayNodeType"},
    RAY_MEMORY_TOTAL_BYTES: {"RayNodeType"},
    RAY_TASKS: {"State"},
    **{ethtool_name(counter): {"device"} for counter in COUNTERS},
}
"""labels that queries may use beside those of scraping, by metric"""
