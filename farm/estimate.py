"""How long a plan will take, from a measured rate: that of stored attempts, or of one short trial."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from farm import query
from farm.plan import Plan
from farm.store.runs import Run
from workers.fields.derived import loop_of

PROBE_MS = 200
"""most simulated time of the trial that measures the rate when none is stored: long enough that building
the trial is a small part of it"""


class Estimate(NamedTuple):
    """Expected cost of a plan on so many slots."""

    packets: int
    packets_per_second: float | None
    """of one core; None where no trial has run here and the event loop is not compiled: a plan must not wait
    for a compiler"""
    seconds: float | None
    rate_source: str
    """in words: where the rate was measured, or how to have one"""


def estimate(plan: Plan, stored: Sequence[Run], slots: int) -> Estimate:
    """Packets of the plan and the time they take.

    Arguments:
        stored: runs whose attempts tell the rate, if the same model made them.
        slots: trials that run at the same time.
    """
    import workers

    rate = query.packet_rate(stored, workers.model_digest())
    source = "stored attempts of this model"
    if rate is None and _compiled():
        rate = _probe(plan)
        source = "a probe of the first cell"
    packets = plan.packets()
    if rate is None:
        return Estimate(packets, None, None, "not known before a trial has run here: farm run quickstart")
    return Estimate(packets, rate, packets / rate / slots, source)


def _compiled() -> bool:
    """Whether some event loop of this model is in the code cache."""
    import workers
    from pool_impl.jit import code_cache

    return any(code_cache().glob(f"{workers.model_digest()}*/**/*.nbi"))


def _probe(plan: Plan) -> float:
    """Packets per second of the first cell, cut short."""
    import workers

    config = plan.config(0)
    duration_ms = min(PROBE_MS, config.duration_ms)
    config = config.model_copy(update={"duration_ms": duration_ms, "warmup_ms": 0})
    workers.prepare(*loop_of(config))
    started = time.perf_counter()
    record = workers.run_trial(config)
    return max(1.0, record["packets_offered"] or 0) / (time.perf_counter() - started)
