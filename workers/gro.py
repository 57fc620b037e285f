"""GRO: TCP packets of one flow become one skb within a poll (``dev_gro_receive``, ``napi_gro_flush``).

Of each queue it holds up to eight skbs in each of eight buckets, chosen by the flow's hash, and what it holds
waits for further packets until the poll is over. A segment that is longer than the flow's first one ends
what is held and begins anew, a shorter one is merged and ends it. Other protocols pay for the look and pass.
"""

from pool_impl import skb as buffer
from pool_impl.coalesce import MERGED, STOLEN_HEAD, gro_receive
from pool_impl.jit import compiled
from workers import cost, hold
from workers.state import GRO_BUCKET_SKBS, GRO_BUCKETS, Trial

HEADERS_BYTES = 54
"""Ethernet, IPv4 and TCP without options"""

MOST_AGE_PS = 10**9
"""what is held as long as a jiffy (HZ = 1000) is passed up also where the poll goes on"""


@compiled(inline=False)
def receive(trial: Trial, number: int, skb: int) -> int:
    """A packet of a queue; returns the skb to pass up now, this one or another, or 0."""
    trial.host.observer.work(cost.GRO, 1)
    payload = trial.buffers.skbs[skb].len - HEADERS_BYTES
    if not trial.stack.tcp or payload <= 0:
        _count(trial, skb)
        return skb
    flow_hash = trial.packets[skb].flow_hash
    bucket = flow_hash & (GRO_BUCKETS - 1)
    first = (number * GRO_BUCKETS + bucket) * GRO_BUCKET_SKBS
    found = -1
    for place in range(trial.gro[number].count[bucket]):
        if trial.packets[trial.gro_slots[first + place]].flow_hash == flow_hash:
            found = place
    passed = 0
    if found != -1:
        held = trial.gro_slots[first + found]
        segment = trial.buffers.shared[trial.buffers.skbs[held].shared].gso_size
        if payload <= segment and _merge(trial, held, skb):
            return _take(trial, number, bucket, found) if payload < segment else 0
        passed = _take(trial, number, bucket, found)
    elif trial.gro[number].count[bucket] == GRO_BUCKET_SKBS:
        passed = _take(trial, number, bucket, 0)
    _hold(trial, number, bucket, skb, payload)
    return passed


@compiled(inline=False)
def next_to_flush(trial: Trial, number: int, before_ps: int) -> int:
    """Give up the oldest skb of the first bucket that has one built until then; 0 if there is none."""
    queue = trial.gro[number]
    if queue.held == 0:
        return 0
    for bucket in range(GRO_BUCKETS):
        if queue.count[bucket] != 0:
            oldest = trial.gro_slots[(number * GRO_BUCKETS + bucket) * GRO_BUCKET_SKBS]
            if trial.holds[trial.buffers.skbs[oldest].shared].built_ps <= before_ps:
                return _take(trial, number, bucket, 0)
    return 0


@compiled()
def _hold(trial: Trial, number: int, bucket: int, skb: int, payload: int) -> None:
    queue = trial.gro[number]
    place = queue.count[bucket]
    trial.gro_slots[(number * GRO_BUCKETS + bucket) * GRO_BUCKET_SKBS + place] = skb
    queue.count[bucket] = place + 1
    queue.held += 1
    trial.buffers.shared[trial.buffers.skbs[skb].shared].gso_size = payload
    trial.stack.gro_pages += hold.pages_of(trial, skb)


@compiled(inline=False)
def _take(trial: Trial, number: int, bucket: int, place: int) -> int:
    queue = trial.gro[number]
    first = (number * GRO_BUCKETS + bucket) * GRO_BUCKET_SKBS
    skb = trial.gro_slots[first + place]
    queue.count[bucket] -= 1
    queue.held -= 1
    for later in range(place, queue.count[bucket]):
        trial.gro_slots[first + later] = trial.gro_slots[first + later + 1]
    trial.stack.gro_pages -= hold.pages_of(trial, skb)
    _count(trial, skb)
    return int(skb)


@compiled(inline=False)
def _merge(trial: Trial, held: int, skb: int) -> bool:
    """Merge a packet into a held one. What frees its sk_buff is part of ``gro_ns``: it stays in the poll's
    own cache of skbs."""
    if not hold.can_join(trial, skb):
        return False
    buffers = trial.buffers
    pages = hold.pages_of(trial, skb)
    error, left = gro_receive(buffers, held, skb, HEADERS_BYTES)
    if error != 0:
        return False
    if left == MERGED and buffers.shared[buffers.skbs[skb].shared].head_page != 0:
        pages -= 1
    hold.join(trial, held, skb, pages, False)
    trial.stack.gro_pages += pages
    if left == STOLEN_HEAD:
        buffer.free_stolen(buffers, skb)
    elif left == MERGED:
        buffer.free_deferred(buffers, skb)
    return True


@compiled()
def _count(trial: Trial, skb: int) -> None:
    trial.tally.gro_skbs += 1
    trial.tally.gro_packets += hold.wire_packets(trial, skb)
