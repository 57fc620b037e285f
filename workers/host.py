"""The machine that this runs on: the only module of workers that looks at a clock."""

import threading
import time

from pool_impl.layout import CONTEXT, SERVING_SOFTIRQ, Host, records
from workers.micro import LOOPS, Loop, bench_host, hand_out, take_back


def micro_ns(turns: int, repeats: int) -> dict[str, float]:
    """Nanoseconds for one turn of each benchmark loop, the best of some repeats.

    The best is the least disturbed; loops take turns, so that a disturbance does not hit one of them. The
    call from Python is not counted.

    Args:
        turns: of each loop in one repeat; fewer than fit into the scheduler's slice of a busy machine.
        repeats: how often all loops are run.
    """
    host = bench_host()
    calls = []
    for loop in LOOPS:
        loop.run(host, 1)
        calls += [_elapsed_ns(loop, host, 0) for _ in range(repeats)]
    best = {loop.name: float("inf") for loop in LOOPS}
    for _ in range(repeats):
        for loop in LOOPS:
            best[loop.name] = min(best[loop.name], (_elapsed_ns(loop, host, turns) - min(calls)) / turns)
    return best


def _elapsed_ns(loop: Loop, host: Host, turns: int) -> int:
    start = time.perf_counter_ns()
    loop.run(host, turns)
    return time.perf_counter_ns() - start


def handover_ns(turns: int, repeats: int) -> float:
    """Nanoseconds for each page that one thread allocates and another returns through the ring, the best of
    some repeats; needs two free cores to mean something.

    Args:
        turns: pages in one repeat.
        repeats: how often.
    """
    best = float("inf")
    _handover(1)
    for _ in range(repeats):
        best = min(best, _handover(turns) / turns)
    return best


def _handover(turns: int) -> int:
    host = bench_host()
    other = threading.Thread(target=take_back, args=(_on_other_cpu(host), turns))
    start = time.perf_counter_ns()
    other.start()
    hand_out(host, turns)
    other.join()
    return time.perf_counter_ns() - start


def _on_other_cpu(host: Host) -> Host:
    context = records(CONTEXT, 1)[0]
    context.cpu = 1
    context.in_softirq = SERVING_SOFTIRQ
    return host._replace(context=context)
