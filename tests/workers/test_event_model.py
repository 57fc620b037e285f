"""The engine against an independent event simulation: the same packets, pages and picoseconds."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pool_impl.jit import entry
from tests.workers.event_model import Machine
from tests.workers.event_model_split import KeepingMachine
from tests.workers.event_model_window import WindowMachine
from workers import assemble, audit, trial
from workers.arrivals import traffic
from workers.config import TrialConfig
from workers.fields.derived import SPLIT_MODELS
from workers.fields.groups import Value
from workers.loop import lifecycle
from workers.measures import CATEGORIES, COUNTERS, LOCATIONS, PAGE_CACHE_COUNTERS
from workers.profiles import arch
from workers.state import Trial

PRICED = Path(__file__).parent / "profiles" / "priced.toml"

MILLISECONDS = 6
UNTIL_PS = MILLISECONDS * traffic.PS_PER_MS

DROP: dict[str, Value] = {"app.reader": "drop"}
SLOW: dict[str, Value] = {"app.reader": "slow", "app.work_ns": 2_000}
OVERFLOW: dict[str, Value] = {**SLOW, "app.work_ns": 9_000, "app.socket_bytes": 60 * 4352}
SHARED: dict[str, Value] = {**SLOW, "app.reader_cpu": "same", "app.work_ns": 1_000}
OVERLOAD: dict[str, Value] = {"traffic.kind": "constant", "traffic.rate_pps": 1_500_000, "nic.budget": 32}
KEPT: dict[str, Value] = {"app.hold_percent": 100, "app.hold_ms": 1}
CONSTANT: dict[str, Value] = {"traffic.kind": "constant"}
REPLACE: dict[str, Value] = {"driver.model": "replace-before-pass", "driver.sync": "driver"}
XDP_DROP: dict[str, Value] = {"xdp.pass_percent": 0, "xdp.drop_percent": 100}
XDP_TX: dict[str, Value] = {"xdp.pass_percent": 0, "xdp.tx_percent": 100}
REDIRECT: dict[str, Value] = {
    "xdp.pass_percent": 0,
    "xdp.redirect_percent": 100,
    "xdp.redirect_to": "device",
}
FORWARD: dict[str, Value] = {"app.reader": "forward"}
SLOW_LINK: dict[str, Value] = {"nic.tx_gbps": 1, "nic.tx_ring": 64, "traffic.packet_size": "imix"}
BURSTS: dict[str, Value] = {"traffic.kind": "bursts", "traffic.burst_packets": 300}
SPLIT: dict[str, Value] = {"driver.model": "split"}
REFERENCES: dict[str, Value] = {"driver.model": "split", "pool.recycle": False}
PAGE_CACHE: dict[str, Value] = {"pool.recycle": False, "driver.page_cache": 16}
UNPOOLED: dict[str, Value] = {"driver.model": "split-unpooled"}

STRICT: dict[str, Value] = {"machine.iommu": "strict"}
LAZY: dict[str, Value] = {"machine.iommu": "lazy"}
BOUNCED: dict[str, Value] = {"machine.swiotlb": True}

MOVED: dict[str, Value] = {"numa.nodes": 2, "life.event": "irq-moved", "life.at_ms": 3}

WINDOW: dict[str, Value] = {
    "traffic.kind": "window",
    "app.protocol": "tcp",
    "app.reader": "fast",
    "traffic.packet_size": 1518,
    "traffic.rtt_us": 50,
    "traffic.rto_ms": 1,
    "kernel": "5.14",
}
SLOW_WINDOW: dict[str, Value] = {**WINDOW, **SLOW, "app.work_ns": 9_000}
LOSSES: dict[str, Value] = {"nic.rx_ring": 64, "nic.link_gbps": 100, "app.socket_bytes": 1 << 20}

WINDOWS: dict[str, dict[str, Value]] = {
    "one-flow": WINDOW,
    "one-flow-of-small-segments": {**WINDOW, "traffic.packet_size": 128, "traffic.window_bytes": 9_000},
    "one-segment-each": {
        **WINDOW,
        "traffic.flows": 60,
        "traffic.window_bytes": 1464,
        "traffic.packet_size": 1518,
    },
    "a-slow-reader-fills-the-window": {**SLOW_WINDOW, "app.socket_bytes": 1 << 20},
    "trains-of-three-flows": {
        **WINDOW,
        "traffic.flows": 3,
        "traffic.train_packets": 4,
        "traffic.packet_size": 3000,
    },
    "a-full-ring": {**WINDOW, **LOSSES, "traffic.flows": 4},
    "a-full-socket": {**SLOW_WINDOW, "traffic.window_bytes": 300_000, "traffic.flows": 2},
    "a-full-socket-of-long-segments": {
        **SLOW_WINDOW,
        "traffic.window_bytes": 300_000,
        "traffic.packet_size": 3000,
        "app.socket_bytes": 70_000,
    },
    "losses-of-flows-with-a-segment": {
        **SLOW_WINDOW,
        "traffic.flows": 70,
        "traffic.window_bytes": 1464,
        "app.socket_bytes": 60 * 4352,
    },
    "same-cpu": {**WINDOW, **LOSSES, "app.reader_cpu": "same", "kernel": "6.1", "traffic.flows": 2},
    "same-cpu-local": {**SLOW_WINDOW, **LOSSES, "app.reader_cpu": "same", "kernel": "6.12"},
    "without-recycling": {**WINDOW, **LOSSES, "pool.recycle": False, "traffic.flows": 16},
}

SCENARIOS: dict[str, dict[str, Value]] = {
    "constant-drop": {**DROP, **CONSTANT},
    "poisson-drop-without-moderation": {**DROP, "nic.rx_usecs": 0},
    "bursts-drop-local-in-long-polls": {**DROP, **BURSTS, "kernel": "6.12", "nic.budget": 300},
    "bursts-drop-that-miss-descriptors": {**DROP, **BURSTS, "nic.rx_ring": 64, "nic.budget": 16},
    "constant-slow": {**SLOW, **CONSTANT},
    "constant-overflow": {**OVERFLOW, **CONSTANT},
    "poisson-overflow-local": {**OVERFLOW, "kernel": "6.12"},
    "bursts-overflow-of-a-small-pool": {**OVERFLOW, **BURSTS, "pool.size": 24},
    "bursts-of-mixed-sizes-fast": {**BURSTS, "app.reader": "fast", "traffic.packet_size": "imix"},
    "bursts-slow-with-a-lock-at-refill": {**SLOW, **BURSTS, "kernel": "5.14", "pool.size": 100},
    "bursts-slow-without-recycling": {**SLOW, **BURSTS, "pool.recycle": False},
    "poisson-fast-that-wait-for-the-free-lists": {
        "app.reader": "fast",
        "pool.recycle": False,
        "traffic.rate_pps": 1_000_000,
    },
    "bursts-slow-and-the-driver-syncs": {**SLOW, **BURSTS, "driver.sync": "driver"},
    "bursts-drop-replaced-before": {**DROP, **BURSTS, **REPLACE, "kernel": "6.12"},
    "bursts-overflow-replaced-before": {**OVERFLOW, **BURSTS, **REPLACE, "pool.size": 40},
    "poisson-slow-replaced-without-recycling": {**SLOW, **REPLACE, "pool.recycle": False},
    "poisson-xdp-drop": XDP_DROP,
    "bursts-xdp-drop-replaced-before": {**XDP_DROP, **BURSTS, **REPLACE},
    "poisson-xdp-tx": XDP_TX,
    "bursts-xdp-tx-to-a-slow-link": {**XDP_TX, **BURSTS, **SLOW_LINK, "nic.budget": 32},
    "poisson-xdp-redirect": REDIRECT,
    "bursts-xdp-redirect-to-a-slow-link": {**REDIRECT, **BURSTS, **SLOW_LINK, "kernel": "6.12"},
    "constant-forward": {**FORWARD, **CONSTANT},
    "bursts-forward-to-a-slow-link": {**FORWARD, **BURSTS, **SLOW_LINK, "pool.size": 24},
    "bursts-forward-local": {**FORWARD, **BURSTS, **REPLACE, "kernel": "6.12", "nic.rx_usecs": 0},
    "poisson-forward-without-recycling": {**FORWARD, "pool.recycle": False},
    "poisson-fast-moved": {**MOVED, "app.reader": "fast"},
    "bursts-slow-moved-by-the-driver": {**MOVED, **SLOW, **BURSTS, "driver.pool_node": "update"},
    "poisson-slow-moved-in-pages-of-the-nic": {
        **MOVED,
        **SLOW,
        "driver.pool_node": "device",
        "kernel": "5.14",
    },
    "bursts-drop-moved-in-long-polls": {**MOVED, **DROP, **BURSTS, "nic.budget": 16, "kernel": "6.12"},
    "poisson-xdp-drop-moved": {**MOVED, **XDP_DROP, "driver.pool_node": "update"},
    "constant-overflow-replaced-before-moved": {
        **MOVED,
        **OVERFLOW,
        **CONSTANT,
        **REPLACE,
        "numa.readers": 1,
    },
    "constant-kept-for-long": {**SLOW, **CONSTANT, **KEPT},
    "poisson-kept-for-long-local": {**KEPT, "app.reader": "fast", "kernel": "6.12"},
    "bursts-kept-for-long-by-a-slow-reader": {**OVERFLOW, **BURSTS, **KEPT, "pool.size": 40},
    "poisson-same-cpu": SHARED,
    "bursts-same-cpu": {**SHARED, **BURSTS, "nic.budget": 32},
    "bursts-slow-without-recycling-or-bulk": {**SLOW, **BURSTS, "pool.recycle": False, "pool.slow_batch": 1},
    "bursts-overflow-in-small-bulks": {**OVERFLOW, **BURSTS, "pool.size": 24, "pool.slow_batch": 5},
    "bursts-drop-split": {**DROP, **BURSTS, **SPLIT},
    "bursts-drop-split-local": {**DROP, **BURSTS, **SPLIT, "kernel": "6.12", "driver.sync": "driver"},
    "bursts-overflow-split-in-four": {
        **OVERFLOW,
        **BURSTS,
        **SPLIT,
        "driver.buffer_bytes": 1024,
        "pool.size": 24,
    },
    "poisson-same-cpu-split-in-one": {**SHARED, **SPLIT, "driver.buffer_bytes": 4096},
    "bursts-forward-split-to-a-slow-link": {**FORWARD, **BURSTS, **SPLIT, **SLOW_LINK, "kernel": "6.12"},
    "poisson-forward-split-in-four": {**FORWARD, **SPLIT, "driver.buffer_bytes": 1024, "pool.size": 24},
    "bursts-forward-by-reference": {**FORWARD, **BURSTS, **REFERENCES},
    "bursts-forward-cached": {**FORWARD, **BURSTS, **PAGE_CACHE, "nic.tx_gbps": 1},
    "bursts-forward-unpooled": {**FORWARD, **BURSTS, **UNPOOLED, "driver.page_cache": 64},
    "bursts-slow-split-by-reference": {**SLOW, **BURSTS, **REFERENCES, "kernel": "5.14"},
    "bursts-overflow-split-cached": {**OVERFLOW, **BURSTS, **REFERENCES, **PAGE_CACHE},
    "bursts-slow-cached": {**SLOW, **BURSTS, **PAGE_CACHE},
    "bursts-xdp-drop-cached": {**XDP_DROP, **BURSTS, **PAGE_CACHE},
    "poisson-same-cpu-cached-by-6.12": {**SHARED, **PAGE_CACHE, "kernel": "6.12"},
    "bursts-slow-split-unpooled": {**SLOW, **BURSTS, **UNPOOLED},
    "bursts-slow-split-unpooled-cached": {**SLOW, **BURSTS, **UNPOOLED, "driver.page_cache": 64},
    "poisson-drop-unpooled-cached": {**DROP, "driver.model": "page-allocator", "driver.page_cache": 8},
    "bursts-slow-without-recycling-strict": {**SLOW, **BURSTS, **STRICT, "pool.recycle": False},
    "bursts-overflow-of-a-small-pool-strict": {**OVERFLOW, **BURSTS, **STRICT, "pool.size": 24},
    "bursts-overflow-of-a-small-pool-lazy": {**OVERFLOW, **BURSTS, **LAZY, "pool.size": 24},
    "poisson-fast-without-recycling-lazy": {**LAZY, "app.reader": "fast", "pool.recycle": False},
    "bursts-xdp-redirect-strict": {**REDIRECT, **BURSTS, **STRICT},
    "constant-forward-lazy": {**FORWARD, **CONSTANT, **LAZY},
    "bursts-slow-split-unpooled-strict": {**SLOW, **BURSTS, **UNPOOLED, **STRICT},
    "poisson-drop-passed-through": {**DROP, "pool.recycle": False, "machine.iommu": "passthrough"},
    "bursts-slow-bounced": {**SLOW, **BURSTS, **BOUNCED, "pool.recycle": False, "kernel": "5.14"},
    "poisson-forward-bounced": {**FORWARD, **BOUNCED, "pool.recycle": False},
    "bursts-xdp-redirect-bounced": {**REDIRECT, **BURSTS, **BOUNCED},
    "poisson-xdp-tx-bounced": {**XDP_TX, **BOUNCED, "traffic.packet_size": "imix"},
    "bursts-slow-split-unpooled-bounced": {**SLOW, **BURSTS, **UNPOOLED, **BOUNCED},
    "constant-same-cpu-overload": {**SHARED, **CONSTANT, "traffic.rate_pps": 1_500_000, "nic.budget": 32},
    "constant-same-cpu-poll-and-read": {**SHARED, **OVERLOAD, "app.slice_us": 0},
    "constant-same-cpu-in-turns": {**SHARED, **OVERLOAD, "app.slice_us": 200},
    "bursts-same-cpu-in-turns": {**SHARED, **BURSTS, "traffic.rate_pps": 900_000, "app.slice_us": 100},
    **{f"window-{name}": scenario for name, scenario in WINDOWS.items()},
}


@entry("test-event-model-" + trial.MODEL_DIGEST)
def next_chunk(arrivals: Any) -> int:
    return traffic.next_chunk(arrivals)


def arrivals_of(config: TrialConfig, until_ps: int) -> list[tuple[int, int]]:
    """What the engine's own generator lets arrive before a time."""
    arrivals = traffic.new_arrivals(config)
    now_ps, found = 0, []
    while now_ps < until_ps:
        next_chunk(arrivals)
        times = now_ps + np.cumsum(arrivals.gaps_ps)
        found += zip(times.tolist(), arrivals.frame_bytes.tolist(), strict=True)
        now_ps = int(times[-1])
    assert all(before <= after for (before, _), (after, _) in pairwise(found))
    return [arrival for arrival in found if arrival[0] < until_ps]


def of_engine(finished: Trial) -> dict[str, Any]:
    host, tally = finished.host, finished.tally
    pool, meter = host.pools[0], host.observer.meter
    recycled = pool.recycle.sum(axis=0).tolist()
    alloc = {name: int(pool[name]) for name in COUNTERS if name.startswith("alloc_")}
    other = dict(zip([name for name in COUNTERS if name not in alloc], recycled, strict=False))
    other |= {name: int(tally[name]) for name in PAGE_CACHE_COUNTERS}
    device = {name: int(host.device[name]) for name in ("maps", "unmaps", "syncs")}
    device["invalidations"] = int(meter.dma.invalidations)
    pages = {"hold": int(pool.hold), "release": int(pool.release)}
    fates = ("offered", "delivered", "dropped_early", "missed", "dropped_socket", "dropped_driver", "read")
    fates += ("dropped_xdp", "transmitted", "redirected", "dropped_tx")
    spent = meter.ledger[:3].tolist()
    return {
        "fates": {name: int(tally[name]) for name in fates} | {"queued": audit.queued_packets(finished)},
        "counters": alloc | other | device | pages,
        "spent": [dict(zip(CATEGORIES, cpu, strict=True)) for cpu in spent],
        "busy": tally.busy_ps[:3].tolist(),
        "clock": [int(meter.clock_ps[cpu]) for cpu in range(3)],
        "page_ps": dict(zip(LOCATIONS, tally.page_ps.tolist(), strict=True)),
        "latency": [int(tally.latency_sum_ps), int(tally.latency_max_ps)],
        "left": [int(pool.cache_count), int(finished.queues[0].posted - finished.queues[0].read)],
    }


def of_model(machine: Machine) -> dict[str, Any]:
    return {
        "fates": machine.fates,
        "counters": {**machine.counters, "invalidations": machine.between.invalidations},
        "spent": machine.spent_ps,
        "busy": [sum(cpu.values()) for cpu in machine.spent_ps],
        "clock": machine.clock_ps,
        "page_ps": machine.page_ps,
        "latency": [machine.latency_sum_ps, machine.latency_max_ps],
        "left": [len(machine.cache), len(machine.posted) + len(machine.filled)],
    }


def without_zeros(found: Any) -> Any:
    """Counts of what did not happen may be missing."""
    if isinstance(found, dict):
        return {name: without_zeros(part) for name, part in found.items() if part != 0}
    return [without_zeros(part) for part in found] if isinstance(found, list | tuple) else found


def config_of(scenario: dict[str, Value]) -> TrialConfig:
    fields: dict[str, Value] = {"arch": str(PRICED), "duration_ms": MILLISECONDS, "traffic.rate_pps": 300_000}
    return TrialConfig.from_fields({**fields, **scenario})


def simulate(config: TrialConfig) -> dict[str, Any]:
    prepared = assemble.new_trial(config)
    if config.life.event != "none":
        at_ps = config.life.at_ms * traffic.PS_PER_MS
        trial._run(prepared, at_ps)
        trial._apply("")(prepared, lifecycle.MOVE_INTERRUPTS, at_ps)
    trial._run(prepared, UNTIL_PS)
    audit.check(prepared)
    return of_engine(prepared)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_engine_is_equal_to_an_event_simulation_to_the_picosecond(name: str) -> None:
    """Fates, the pool's counters, time by CPU and category, clocks, pages by place over time."""
    config = config_of(SCENARIOS[name])
    profile = arch.load(str(PRICED))
    prices = {parameter.name: parameter.value for parameter in profile.parameters.values()}
    machine = _machine(config, prices)
    machine.run(UNTIL_PS)
    assert without_zeros(simulate(config)) == without_zeros(of_model(machine))


def _machine(config: TrialConfig, prices: dict[str, float]) -> Machine:
    if config.traffic.kind == "window":
        return WindowMachine(config.to_fields(), prices, [])
    keeps = config.driver.model in SPLIT_MODELS or config.driver.page_cache > 0
    kind = KeepingMachine if keeps else Machine
    return kind(config.to_fields(), prices, arrivals_of(config, UNTIL_PS))


def test_the_scenarios_of_windows_have_losses_of_both_kinds() -> None:
    """And windows that the receiver limits, and that slow start has not reached."""
    profile = arch.load(str(PRICED))
    prices = {parameter.name: parameter.value for parameter in profile.parameters.values()}
    found = {}
    for name, scenario in WINDOWS.items():
        found[name] = machine = WindowMachine(config_of(scenario).to_fields(), prices, [])
        machine.run(UNTIL_PS)
    assert any(machine.fates["missed"] and machine.reductions for machine in found.values())
    assert any(machine.fates["dropped_socket"] and machine.reductions for machine in found.values())
    assert any(machine.timeouts for machine in found.values())
    assert any(sender.seventeenths for machine in found.values() for sender in machine.senders)
    full = found["a-slow-reader-fills-the-window"].senders[0]
    assert full.window == full.allowed


def test_the_scenarios_reach_all_that_can_happen() -> None:
    """But what such a trial has none of: high orders, a lack of memory."""
    found = [simulate(config_of(scenario)) for scenario in SCENARIOS.values()]
    for group, impossible in (
        ("fates", {"dropped_driver"}),
        ("counters", {"alloc_slow_high_order", "page_cache_waive"}),
    ):
        never = {name for name in found[0][group] if not any(one[group][name] for one in found)}
        assert never == impossible
    reached = (
        {"poll", "page_alloc", "page_free", "zone_lock", "iommu_map", "iommu_queue", "swiotlb_copy"},
        {"copy", "page_free", "dma_unmap", "zone_lock", "iommu_queue"},
    )
    for cpu, parts in enumerate(reached):
        assert all(any(one["spent"][cpu][part] for one in found) for part in parts)
