"""Every receive pattern under every consumer: the books balance, which each trial checks itself."""

from itertools import product

import pytest

from workers import run_trial
from workers.config import TrialConfig
from workers.fields.groups import Value

MODELS: dict[str, dict[str, Value]] = {
    **{
        model: {"driver.model": model}
        for model in (
            "page-per-packet",
            "fragments",
            "header-split",
            "split",
            "page-allocator",
            "slab",
            "split-unpooled",
        )
    },
    "split-by-reference": {"driver.model": "split", "pool.recycle": False, "driver.buffer_bytes": 1024},
    "split-and-cached": {"driver.model": "split", "pool.recycle": False, "driver.page_cache": 16},
    "cached": {"pool.recycle": False, "driver.page_cache": 64, "driver.copybreak_bytes": 256},
    "unpooled-and-cached": {"driver.model": "page-allocator", "driver.page_cache": 32},
}

CONSUMERS: dict[str, dict[str, Value]] = {
    "gro-to-tcp": {"app.protocol": "tcp", "stack.gro": True, "app.reader": "fast"},
    "gro-steered-and-captured": {
        "app.protocol": "tcp",
        "stack.gro": True,
        "stack.rps": 2,
        "stack.capture_percent": 30,
        "app.reader": "slow",
    },
    "tcp-kept": {"app.protocol": "tcp", "app.reader": "hold"},
    "tcp-kept-for-long": {
        "app.protocol": "tcp",
        "stack.gro": True,
        "app.reader": "hold",
        "app.hold_percent": 40,
        "app.hold_ms": 1,
    },
    "udp-steered-and-captured": {"stack.rps": 2, "stack.capture_percent": 30, "app.reader": "slow"},
    "tcp-stalled": {
        "app.protocol": "tcp",
        "stack.gro": True,
        "app.reader": "stalled",
        "app.stall_ms": 1,
        "app.stall_every_ms": 2,
    },
    "dropped": {"app.reader": "drop"},
    "forwarded": {"app.reader": "forward"},
    "forwarded-steered-and-captured": {"app.reader": "forward", "stack.rps": 2, "stack.capture_percent": 30},
    "forwarded-merged": {"app.reader": "forward", "app.protocol": "tcp", "stack.gro": True},
    "forwarded-cut-up": {
        "app.reader": "forward",
        "app.protocol": "tcp",
        "stack.gro": True,
        "nic.tso": False,
        "nic.rx_usecs": 200,
        "nic.tx_ring": 64,
        "nic.tx_gbps": 1,
    },
    "gro-to-tcp-on-another-node": {
        "app.protocol": "tcp",
        "stack.gro": True,
        "app.reader": "fast",
        "numa.nodes": 2,
        "numa.nic": 1,
        "numa.readers": 1,
    },
    "moved-steered-and-captured": {
        "stack.rps": 2,
        "stack.capture_percent": 30,
        "app.reader": "slow",
        "nic.queues": 2,
        "numa.nodes": 2,
        "numa.steering": 1,
        "life.event": "irq-moved",
        "life.at_ms": 2,
    },
}

CONSUMERS["moved-to-tcp"] = {
    **CONSUMERS["moved-steered-and-captured"],
    "app.protocol": "tcp",
    "stack.gro": True,
    "traffic.flows": 16,
}

SIZES: tuple[tuple[Value, int], ...] = ((64, 300_000), (1500, 300_000), ("imix", 300_000), (9018, 100_000))
"""bytes and packets per second"""


MERGING: dict[str, Value] = {"nic.hw_gro": True, "app.protocol": "tcp"}


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("model", MODELS)
def test_no_page_and_no_packet_is_lost(model: str, consumer: str) -> None:
    _run(model, CONSUMERS[consumer])


@pytest.mark.parametrize("consumer", [name for name in CONSUMERS if not name.startswith("moved")])
def test_none_is_lost_where_the_nic_merges(consumer: str) -> None:
    for more in ({}, {"nic.rx_ring": 64, "nic.hw_gro_flows": 2}, {"nic.queues": 2, "nic.budget": 2}):
        _run("header-split", {**CONSUMERS[consumer], **MERGING, **more})


def _run(model: str, more: dict[str, Value]) -> None:
    for kernel, (size, rate) in product(("6.1", "6.12"), SIZES):
        fields: dict[str, Value] = {
            "duration_ms": 3,
            "warmup_ms": 1,
            "traffic.flows": 4,
            "traffic.train_packets": 8,
            "traffic.packet_size": size,
            "traffic.rate_pps": rate,
            "kernel": kernel,
        }
        record = run_trial(TrialConfig.from_fields(fields | MODELS[model] | more))
        assert record["packets_offered"], (kernel, size)
