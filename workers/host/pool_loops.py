"""The pool's own paths with real atomics and locks, alone and between two threads."""

import threading
from functools import partial

from pool_impl.layout import CONTEXT, SERVING_SOFTIRQ, Host, records
from workers.host.clock import now_ns, samples_ns
from workers.micro import LOOPS, bench_host, hand_out, take_back


def micro_ns(turns: int, repeats: int) -> dict[str, float]:
    """Nanoseconds for one turn of each benchmark loop, the best of some repeats.

    The best is the least disturbed; loops take turns, so that a disturbance does not hit one of them. The
    call from Python is not counted.

    Args:
        turns: of each loop in one repeat; fewer than fit into the scheduler's slice of a busy machine.
        repeats: how often all loops are run.
    """
    host = bench_host()
    runs = {loop.name: partial(loop.run, host) for loop in LOOPS}
    return {name: min(samples) for name, samples in samples_ns(runs, turns, repeats).items()}


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
    start = now_ns()
    other.start()
    hand_out(host, turns)
    other.join()
    return now_ns() - start


def _on_other_cpu(host: Host) -> Host:
    context = records(CONTEXT, 1)[0]
    context.cpu = 1
    context.in_softirq = SERVING_SOFTIRQ
    return host._replace(context=context)
