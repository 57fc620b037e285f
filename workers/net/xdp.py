"""The XDP program of a driver: it runs before there is an skb and decides what becomes of the page (spec
7.6)."""

from typing import Any

from pool_impl import pool
from pool_impl.jit import compiled
from workers.arrivals.traffic import below
from workers.books import latency
from workers.net import targets, transmit
from workers.pricing import cost
from workers.state import Trial

PASS, DROP, TX, REDIRECT = range(4)
"""verdicts"""


@compiled()
def _verdict(xdp: Any) -> int:
    """Drawn with the shares of the verdicts."""
    drawn = below(xdp, 100) if xdp.drawn else 0
    if drawn < xdp.drop_below:
        return DROP
    if drawn < xdp.tx_below:
        return TX
    return REDIRECT if drawn < xdp.redirect_below else PASS


@compiled(inline=False)
def passes(trial: Trial, number: int, index: int, page: int) -> bool:
    """Run the program on the packet of a descriptor, synced for the CPU; True if it goes on to the stack,
    else its page has gone where the verdict sends it, or is still the driver's where that keeps it. The
    program leaves the packet's length as it is."""
    host = trial.host
    tally = trial.tally
    descriptor = trial.descriptors[index]
    host.observer.work(cost.XDP_PROGRAM, 1)
    verdict = _verdict(trial.xdp)
    if verdict == PASS:
        return True
    counted = descriptor.arrival_ps >= tally.measure_from_ps
    written_bytes = descriptor.frame_bytes
    if verdict == TX:
        if transmit.queue_page(trial, number, descriptor, page):
            return False
        tally.dropped_tx += 1 if counted else 0
    elif verdict == REDIRECT:
        if not targets.redirect(trial, number, descriptor, page):
            return False
        # what the socket's copy was made of comes back without a length
        written_bytes = pool.WHOLE
        if counted:
            tally.redirected += 1
            latency.count(trial, descriptor.arrival_ps)
    elif counted:
        tally.dropped_xdp += 1
        latency.count(trial, descriptor.arrival_ps)
    if trial.nic.references:
        return False
    pool.put(host, host.pools[trial.queues[number].pool], page, written_bytes, True)
    return False
