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
from workers.fields.groups import Value

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
    "window-of-three-flows-that-fill-the-ring": {
        **BRIEF,
        "traffic.kind": "window",
        "traffic.packet_size": 1518,
        "traffic.flows": 3,
        "traffic.train_packets": 8,
        "nic.link_gbps": 100,
        "nic.rx_ring": 64,
        "stack.gro": True,
        "app.protocol": "tcp",
        "app.reader": "fast",
        "app.socket_bytes": 1 << 21,
    },
}

PINNED: dict[str, str] = {
    "drop-constant": "50056fd15ffe8f63",
    "drop-saturation": "b58e9ca9ad917257",
    "drop-poisson-local": "d04ff34946934c06",
    "drop-bursts-without-recycling": "53e2ed5ccfab6f6b",
    "fast-imix-software-coherence": "4ce9ce91215abd92",
    "fast-capture": "d12b544a58570dd4",
    "slow-bursts-small-pool": "43f79947946198ea",
    "slow-poisson-drawn-work": "aec84f239fe761df",
    "slow-same-cpu-oldest-release": "680c5dd4fd4281d5",
    "slow-posted-registers-driver-syncs": "0766631ab2d245cd",
    "xdp-all-verdicts-forwarded-to-a-slow-link": "dbf9c3e6503251e9",
    "slow-bursts-moved-to-the-other-node": "8751665694a3ebbe",
    "xdp-to-two-kthreads-replaced-before": "c7e4283b0c8e8735",
    "window-of-three-flows-that-fill-the-ring": "3f1ad391f25ef65a",
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
