"""GRO: TCP packets of one flow become one skb within a poll (``dev_gro_receive``, ``napi_gro_flush``).

Of each queue it holds up to eight skbs in each of eight buckets, chosen by the flow's hash, and what it holds
waits for further packets until the poll is over. A segment that is longer than the flow's first one ends
what is held and begins anew, a shorter one is merged and ends it. Other protocols pay for the look and pass.

What the NIC has merged passes as well, behind what is held of its flow. Later releases merge it on, if its
segments are as long as those held.
"""

from pool_impl import skb as buffer
from pool_impl.coalesce import GRO_MAX_BYTES, MERGED, STOLEN_HEAD, gro_receive
from pool_impl.jit import compiled
from workers.books import hold
from workers.fields.derived import TCP_HEADERS_BYTES
from workers.pricing import cost
from workers.state import GRO_BUCKET_SKBS, GRO_BUCKETS, NOBODY, Trial

MOST_AGE_PS = 10**9
"""what is held as long as a jiffy (HZ = 1000) is passed up also where the poll goes on"""


@compiled(inline=False)
def receive(trial: Trial, number: int, skb: int) -> int:
    """A packet of a queue; returns the skb to pass up now, this one or another, or 0."""
    trial.host.observer.work(cost.GRO, 1)
    payload = trial.buffers.skbs[skb].len - TCP_HEADERS_BYTES
    if not trial.stack.tcp or payload <= 0:
        _count(trial, skb)
        return skb
    size = _segment_bytes(trial, skb)
    bucket = trial.packets[skb].flow_hash & (GRO_BUCKETS - 1)
    found = _find(trial, number, skb)
    if size == 0:
        size = payload
    elif found == NOBODY and payload % size != 0:
        _count(trial, skb)
        return skb
    passed = 0
    if found != NOBODY:
        held = trial.gro_slots[_slot(number, bucket, found)]
        segment = _segment_bytes(trial, held)
        if size <= segment and _merge(trial, held, skb):
            return _take(trial, number, bucket, found) if payload % segment != 0 else 0
        passed = _take(trial, number, bucket, found)
    elif trial.gro[number].count[bucket] == GRO_BUCKET_SKBS:
        passed = _take(trial, number, bucket, 0)
    _hold(trial, number, bucket, skb, size)
    return passed


@compiled(inline=False)
def make_way(trial: Trial, number: int, skb: int) -> int:
    """What is held of the flow of an skb that the NIC has merged, if it cannot take that in: to be passed up
    before; or 0."""
    size = _segment_bytes(trial, skb)
    found = _find(trial, number, skb) if size != 0 else NOBODY
    if found == NOBODY:
        return 0
    bucket = trial.packets[skb].flow_hash & (GRO_BUCKETS - 1)
    held = trial.gro_slots[_slot(number, bucket, found)]
    together = trial.buffers.skbs[held].len + trial.buffers.skbs[skb].len - TCP_HEADERS_BYTES
    fits = size == _segment_bytes(trial, held) and together < GRO_MAX_BYTES
    if fits:
        return 0
    return _take(trial, number, bucket, found)


@compiled()
def _segment_bytes(trial: Trial, skb: int) -> int:
    """Payload of each packet in an skb, 0 for one that is as it came."""
    return int(trial.buffers.shared[trial.buffers.skbs[skb].shared].gso_size)


@compiled()
def _slot(number: int, bucket: int, place: int) -> int:
    return int((number * GRO_BUCKETS + bucket) * GRO_BUCKET_SKBS + place)


@compiled(inline=False)
def _find(trial: Trial, number: int, skb: int) -> int:
    """Place of the flow of an skb in its bucket, or NOBODY."""
    flow_hash = trial.packets[skb].flow_hash
    bucket = flow_hash & (GRO_BUCKETS - 1)
    for place in range(trial.gro[number].count[bucket]):
        if trial.packets[trial.gro_slots[_slot(number, bucket, place)]].flow_hash == flow_hash:
            return place
    return NOBODY


@compiled(inline=False)
def next_to_flush(trial: Trial, number: int, before_ps: int) -> int:
    """Give up the oldest skb of the first bucket that has one built until then; 0 if there is none."""
    queue = trial.gro[number]
    if queue.held == 0:
        return 0
    for bucket in range(GRO_BUCKETS):
        if queue.count[bucket] != 0:
            oldest = trial.gro_slots[_slot(number, bucket, 0)]
            if trial.holds[trial.buffers.skbs[oldest].shared].built_ps <= before_ps:
                return _take(trial, number, bucket, 0)
    return 0


@compiled()
def _hold(trial: Trial, number: int, bucket: int, skb: int, segment: int) -> None:
    queue = trial.gro[number]
    place = queue.count[bucket]
    trial.gro_slots[_slot(number, bucket, place)] = skb
    queue.count[bucket] = place + 1
    queue.held += 1
    trial.buffers.shared[trial.buffers.skbs[skb].shared].gso_size = segment
    trial.stack.gro_units += hold.units_of(trial, skb)


@compiled(inline=False)
def _take(trial: Trial, number: int, bucket: int, place: int) -> int:
    queue = trial.gro[number]
    first = _slot(number, bucket, 0)
    skb = trial.gro_slots[first + place]
    queue.count[bucket] -= 1
    queue.held -= 1
    for later in range(place, queue.count[bucket]):
        trial.gro_slots[first + later] = trial.gro_slots[first + later + 1]
    trial.stack.gro_units -= hold.units_of(trial, skb)
    _count(trial, skb)
    return int(skb)


@compiled(inline=False)
def _merge(trial: Trial, held: int, skb: int) -> bool:
    """Merge a packet into a held one. What frees its sk_buff is part of ``gro_ns``: it stays in the poll's
    own cache of skbs."""
    if not hold.can_join(trial, skb):
        return False
    buffers = trial.buffers
    units = hold.units_of(trial, skb)
    error, left = gro_receive(buffers, held, skb, TCP_HEADERS_BYTES)
    if error != 0:
        return False
    if left == MERGED and buffers.shared[buffers.skbs[skb].shared].head_page != 0:
        units -= trial.nic.head_units
    hold.join(trial, held, skb, units, False)
    trial.stack.gro_units += units
    if left == STOLEN_HEAD:
        buffer.free_stolen(buffers, skb)
    elif left == MERGED:
        buffer.free_deferred(buffers, skb)
    return True


@compiled()
def _count(trial: Trial, skb: int) -> None:
    trial.tally.gro_skbs += 1
    trial.tally.gro_packets += hold.wire_packets(trial, skb)
