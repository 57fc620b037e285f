"""Records pinned by digest: the same on any machine, compiled or not, for whatever CPU.

A digest that changes says that the model has changed: on purpose it gets an entry in CHANGELOG.md, and the
new digests, which the failing test prints, take the place of the old ones here. Executors are compared with
each other in tests/farm.
"""

import hashlib
import json
from pathlib import Path

from tests.elsewhere import evaluate
from workers import run_trial
from workers.config import TrialConfig
from workers.groups import Value

ROOT = Path(__file__).parents[2]

BRIEF: dict[str, Value] = {"duration_ms": 2, "warmup_ms": 1, "traffic.rate_pps": 200_000}
BURSTS: dict[str, Value] = {"traffic.kind": "bursts", "traffic.burst_packets": 50}
SLOW: dict[str, Value] = {**BRIEF, "app.reader": "slow", "app.work_ns": 4_000}

TRIALS: dict[str, dict[str, Value]] = {
    "drop-constant": {**BRIEF, "traffic.kind": "constant"},
    "drop-saturation": {
        "duration_ms": 1,
        "warmup_ms": 0,
        "arch": "armada-3720",
        "traffic.kind": "saturation",
    },
    "drop-poisson-local": {**BRIEF, "kernel": "6.12"},
    "drop-bursts-without-recycling": {**BRIEF, **BURSTS, "pool.recycle": False},
    "fast-imix-software-coherence": {
        **BRIEF,
        "arch": "armada-3720",
        "app.reader": "fast",
        "traffic.packet_size": "imix",
    },
    "fast-capture": {
        **BRIEF,
        "app.reader": "fast",
        "traffic.kind": "capture",
        "traffic.capture_destination": "10.77.0.2",
    },
    "slow-bursts-small-pool": {**SLOW, **BURSTS, "pool.size": 32, "nic.rx_ring": 64},
    "slow-poisson-drawn-work": {**SLOW, "app.work_distribution": "exponential", "seed": 7},
    "slow-same-cpu-oldest-release": {**SLOW, "kernel": "5.14", "app.reader_cpu": "same", "nic.budget": 8},
    "slow-posted-registers-driver-syncs": {
        **SLOW,
        "arch": "armada-8040",
        "driver.sync": "driver",
        "driver.model": "replace-before-pass",
    },
    "xdp-all-verdicts-forwarded-to-a-slow-link": {
        **BRIEF,
        **BURSTS,
        "kernel": "6.12",
        "nic.queues": 2,
        "nic.tx_gbps": 1,
        "traffic.flows": 8,
        "app.reader": "forward",
        "xdp.pass_percent": 30,
        "xdp.drop_percent": 20,
        "xdp.tx_percent": 30,
        "xdp.redirect_percent": 20,
        "xdp.redirect_to": "device",
    },
    "slow-bursts-moved-to-the-other-node": {
        **SLOW,
        **BURSTS,
        "nic.rx_ring": 64,
        "numa.nodes": 2,
        "numa.readers": 1,
        "driver.pool_node": "update",
        "life.event": "irq-moved",
        "life.at_ms": 1,
    },
    "xdp-to-two-kthreads-replaced-before": {
        **BRIEF,
        "arch": "armada-3720",
        "driver.model": "replace-before-pass",
        "traffic.flows": 8,
        "xdp.pass_percent": 0,
        "xdp.redirect_percent": 100,
        "xdp.redirect_to": "cpumap",
        "xdp.redirect_cpus": 2,
    },
}

PINNED: dict[str, str] = {
    "drop-constant": "11662ecab5943850",
    "drop-saturation": "41c80e490232a1c0",
    "drop-poisson-local": "4f757e81230319c2",
    "drop-bursts-without-recycling": "0551a1106f042f33",
    "fast-imix-software-coherence": "73bb5fd6c0549315",
    "fast-capture": "684cf3f6e24b3bf9",
    "slow-bursts-small-pool": "6dd84f20144dade6",
    "slow-poisson-drawn-work": "bf1c70383144a82b",
    "slow-same-cpu-oldest-release": "186f7521ab1b95aa",
    "slow-posted-registers-driver-syncs": "19cfbde70ad4c468",
    "xdp-all-verdicts-forwarded-to-a-slow-link": "9ffc72f661bb8b85",
    "slow-bursts-moved-to-the-other-node": "903e282e60407e58",
    "xdp-to-two-kthreads-replaced-before": "c12efa16ee57e8f0",
}


def digests() -> dict[str, str]:
    """SHA-256 of each record as JSON, first 16 hex digits."""
    found = {}
    for name, fields in TRIALS.items():
        record = run_trial(TrialConfig.from_fields(fields))
        assert record["packets_offered"], name
        found[name] = hashlib.sha256(json.dumps(record).encode()).hexdigest()[:16]
    return found


def test_compiled_for_this_cpu() -> None:
    assert digests() == PINNED


def test_not_compiled_at_all() -> None:
    assert evaluate("tests.workers.test_pinned", "digests()", NUMBA_DISABLE_JIT="1") == PINNED


def test_compiled_for_any_cpu() -> None:
    """No vector or fused instructions of this CPU: what an older machine of a cluster runs."""
    assert evaluate("tests.workers.test_pinned", "digests()", NUMBA_CPU_NAME="generic") == PINNED
