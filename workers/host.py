"""The machine that this runs on: the only module of workers that looks at a clock."""

import time

from workers.micro import LOOPS, bench_host


def micro_ns(turns: int, repeats: int) -> dict[str, float]:
    """Nanoseconds for one turn of each benchmark loop, the best of some repeats.

    The best is the least disturbed; loops take turns, so that a disturbance does not hit one of them.

    Args:
        turns: of each loop in one repeat.
        repeats: how often all loops are run.
    """
    host = bench_host()
    best = {loop.name: float("inf") for loop in LOOPS}
    for loop in LOOPS:
        loop.run(host, 1)
    for _ in range(repeats):
        for loop in LOOPS:
            start = time.perf_counter_ns()
            loop.run(host, turns)
            best[loop.name] = min(best[loop.name], (time.perf_counter_ns() - start) / turns)
    return best
