"""Runs whose records are made up: quick to have, whatever their shape and size."""

import json
from collections.abc import Callable
from pathlib import Path

from farm.plan import Plan
from farm.store.rows import Attempt, Failure, Outcome
from farm.store.runs import Run
from farm.store.writer import create_run
from farm.sweep import parse
from workers.fields.groups import Value
from workers.measures import MEASURES

GAINS = """
name = "gains"
seeds = 3
[grid]
arch = ["broadwell-ep", "armada-3720"]
pool.size = [64, 1024, 4096]
pool.recycle = [true, false]
"""

HOSTILE = (
    "/p/</script><script>window.hacked=1</script>"
    '<img src=x onerror="window.hacked=2">\'\\" & é\n\u2028 x.toml'
)


def busy(fields: dict[str, Value], seed: int) -> float:
    """Made-up times of GAINS: recycling costs time on the Armada with the smallest pool only."""
    slow = {"broadwell-ep": 1000.0, "armada-3720": 5000.0}.get(str(fields["arch"]), 700.0)
    if not fields["pool.recycle"]:
        slow *= 0.95 if fields["arch"] == "armada-3720" and fields["pool.size"] == 64 else 1.4
    return slow + 7.0 * seed + float(fields["pool.size"]) / 1024


def outcome(fields: dict[str, Value], number: int, *, broken: str = "") -> Outcome:
    attempt = Attempt(
        host="node",
        executor="serial",
        started_at="2026-01-01T00:00:00.000+00:00",
        wall_seconds=0.1,
        compile_seconds=0.0,
        cpu_seconds=0.1,
        packets=100,
        model_digest="0123abcd",
        versions=json.dumps({"page-pool-farm": "0.1.0"}),
        retries=0,
    )
    value = busy(fields, int(fields["seed"]))
    record = {measure.name: 0.25 for measure in MEASURES if measure.unit == "ratio"}
    record |= {"busy_ns_per_packet": value, "pages_in_ring": 64.0, "memory_peak_bytes": 4096.0 * 100}
    record |= {"copy_ns_per_packet": value / 4, "page_alloc_ns_per_packet": 3 * value / 4}
    result = Failure("CheckError", broken) if broken else record
    return Outcome(number, f"trial-{number:05d}", fields, result, attempt)


def made_up(root: Path, text: str = GAINS, *, broken: Callable[[int], str] = lambda _: "") -> Run:
    """A run whose records are made up, quick whatever its size; no record where ``broken`` says why."""
    plan = Plan(parse(text, "test"))
    run, writer = create_run(root, plan.sweep, {}, {})
    numbers = range(plan.trials)
    writer.write([outcome(dict(plan.fields(n)), n, broken=broken(n)) for n in numbers])
    return run
