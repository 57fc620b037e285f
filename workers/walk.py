"""Where every packet and page of a trial is: each place is walked once, whoever asks for it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pool_impl.layout import COUNT_MASK, MAX_SKB_FRAGS, Host, Table, bare, plain
from workers.errors import CheckError
from workers.net.backlog import SLOTS
from workers.net.deferred import MOST_SKBS
from workers.net.retention import MOST_RETAINED
from workers.state import FIRST_UNPOOLED, GRO_BUCKET_SKBS, Trial


class Walk:
    """A trial that stands still: numbers of skbs and pages by place, in no order."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial = _bared(trial)._replace(host=_bared(trial.host), buffers=_bared(trial.buffers))
        """with plain arrays in place of tables"""
        self.nic = plain(trial.nic)
        queues, readers, retained = trial.queues, trial.readers, trial.retained
        self.filled = _queued(trial.descriptors, queues, queues["first"], "read", "dma", self.nic.ring_mask)
        """descriptors of all queues that the device has filled and nobody has read"""
        self.aggregates = trial.aggregates[_aggregates(trial) if self.nic.contexts else slice(0)]
        """what the NIC merges or has completed"""
        self.frames = frames_in(trial, trial.frame_queues)
        """frames in all frame queues"""
        self.sent = self.frames["skb"][self.frames["skb"] != 0]
        """skbs that wait in transmit rings"""
        sockets = int(trial.stack.readers)
        self.in_sockets = _in_sockets(trial, readers[:sockets])
        """skbs that wait in sockets for a reader"""
        self.in_tap = _in_sockets(trial, readers[sockets:])
        """clones that wait in the packet socket"""
        self.in_gro = _counted(trial.gro_slots, trial.gro["count"].ravel(), GRO_BUCKET_SKBS)
        """skbs that GRO holds"""
        backlogs = trial.backlogs
        first = np.arange(len(backlogs)) * SLOTS
        self.in_backlogs = _queued(trial.backlog_slots, backlogs, first, "head", "tail", SLOTS - 1)
        """skbs that wait for an RPS CPU"""
        first, mask = readers["kept_first"], readers["kept_mask"]
        self.kept = _queued(trial.kept_slots, readers, first, "kept_head", "kept_tail", mask)
        """skbs that applications have read and not freed"""
        first, mask = retained["first"], MOST_RETAINED - 1
        self.retained = _queued(trial.retained_slots["skb"], retained, first, "head", "tail", mask)
        """those that they keep for a long time"""
        self.deferred = _counted(trial.deferred_slots, trial.deferred["count"], MOST_SKBS)
        """skbs that wait to be freed by the CPU that made them"""
        made = trial.buffers.skbs[1 : trial.buffers.memory["skb_fresh"]]
        self.skbs = made[made["users"] > 0]
        """records of all skbs that somebody holds"""
        shares = self.nic.recycle and not self.nic.references and self.nic.pattern < FIRST_UNPOOLED
        self.by_reference = (self.skbs["pp_recycle"] == 0) & bool(shares)
        """which of :attr:`skbs` have plain references to pages of a pool that gives shares to others:
        segments of a merged one. Skbs without pages and those whose page has left its pool for good may be
        among them"""

    def queued_since(self, since: int) -> int:
        """Packets that arrived at this time or later and wait: in a receive ring, the stack, a transmit ring
        or for a redirect target."""
        trial = self.trial
        if self.nic.contexts:
            aggregates = self.aggregates
            in_ring = _since(aggregates["arrival_ps"], since)
            in_ring += self._further_since(aggregates["merged"], since)
        else:
            in_ring = _since(self.filled["arrival_ps"][self.filled["ends"] != 0], since)
        waiting = np.concatenate([self.in_sockets, self.in_gro, self.in_backlogs, self.sent])
        in_stack = in_frames = 0
        if len(waiting):
            in_stack = _since(trial.packets["arrival_ps"][waiting], since)
            in_stack += self._further_since(trial.holds["merged"][self.shared_of(waiting)], since)
        if len(self.frames):
            in_frames = _since(self.frames["arrival_ps"][self.frames["skb"] == 0], since)
        return in_ring + in_stack + in_frames

    def shared_of(self, skbs: Any) -> Any:
        """Numbers of the SHARED records of these skbs, by number."""
        return self.trial.buffers.skbs["shared"][skbs]

    def _further_since(self, merged: Any, since: int) -> int:
        """The same of the further packets in what was merged, by the first record of each."""
        records = [
            number for first in merged[merged != 0] for number in _chain(self.trial.merged, int(first))
        ]
        return _since(self.trial.merged["arrival_ps"][np.array(records, np.int64)], since)

    def in_page_caches(self) -> Any:
        """Pages in drivers' page caches."""
        queues, mask = self.trial.queues, self.nic.page_cache_mask
        first = queues["first_cached_page"]
        return _queued(self.trial.page_cache_slots, queues, first, "cached_head", "cached_tail", mask)

    def members(self, skbs: Any) -> list[int]:
        """Skbs in the frag_lists of these."""
        buffers = self.trial.buffers
        first = buffers.shared["frag_list"][self.shared_of(skbs)]
        return [member for head in first[first != 0] for member in _chain(buffers.skbs, int(head))]

    def data_of(self, skbs: Any) -> Any:
        """SHARED records of these SKB records, each once: clones have one in common."""
        return self.trial.buffers.shared[distinct(skbs["shared"], len(self.trial.buffers.shared))]


def _aggregates(trial: Trial) -> list[int]:
    """Numbers of those that take in packets, and of those that are completed."""
    found: list[int] = []
    for number, table in enumerate(trial.aggregates_of):
        first = number * trial.nic.contexts
        found += trial.context_slots[first : first + table.open].tolist()
        found += _chain(trial.aggregates, int(table.first_completed))
    return found


def _in_sockets(trial: Trial, readers: Any) -> Any:
    return _queued(trial.socket_slots, readers, readers["first"], "head", "tail", readers["mask"])


def _counted(slots: Any, count: Any, room: int) -> Any:
    """What lies in slots, so many in each row of that length."""
    if not count.any():
        return slots[:0]
    return slots.reshape(len(count), room)[np.arange(room) < count[:, np.newaxis]]


def _bared(part: Any) -> Any:
    return part._make([bare(table) if isinstance(table, Table) else table for table in part])


def pages_of(data: Any) -> Any:
    """Pages of these SHARED records, heads and fragments."""
    heads = data["head_page"][data["head_frag"] != 0]
    frags = data["frag_page"][np.arange(MAX_SKB_FRAGS) < data["nr_frags"][:, np.newaxis]]
    pages = np.concatenate([heads, frags])
    return pages[pages != 0]


def frames_in(trial: Trial, queues: Any) -> Any:
    """Frames in these frame queues."""
    return _queued(trial.frames, queues, queues["first"], "head", "tail", queues["mask"])


def further_arrivals(trial: Trial, merged: int) -> list[int]:
    """When the further wire packets arrived that are in what was merged, by the first MERGED record."""
    return [int(trial.merged[number].arrival_ps) for number in _chain(trial.merged, merged)]


def inflight(owner: Any) -> int:
    """Pages that a pool has taken and not released."""
    return int(owner.hold - owner.release) & COUNT_MASK


def idle_pages(host: Host, owner: Any) -> Any:
    """Pages in the cache and the ring of a pool."""
    pool = plain(owner)
    slots = host.slots[pool.ring_base : pool.ring_base + pool.ring_size]
    # what the consumer has taken is still there, from the tail to the head
    if pool.ring_tail <= pool.ring_head:
        live = [slots[: pool.ring_tail], slots[pool.ring_head :]]
    else:
        live = [slots[pool.ring_head : pool.ring_tail]]
    in_ring = np.concatenate(live)
    return np.concatenate([pool.cache[: pool.cache_count], in_ring[in_ring != 0]])


def merged_pages(aggregates: Any) -> Any:
    """Pages of payload in what the NIC merges."""
    return aggregates["page"][np.arange(MAX_SKB_FRAGS) < aggregates["pages"][:, np.newaxis]]


def distinct(numbers: Any, below: int) -> Any:
    """These numbers, each once, in order."""
    found = np.zeros(below, np.bool_)
    found[numbers] = True
    return np.flatnonzero(found)


def _since(arrival_ps: Any, since: int) -> int:
    return int(np.count_nonzero(arrival_ps >= since))


def _chain(records: Any, number: int) -> Iterator[int]:
    """Numbers of records that are linked by ``next``, until 0."""
    following = records["next"]
    while number != 0:
        yield number
        number = int(following[number])


def _queued(slots: Any, queues: Any, first: Any, head: str, tail: str, mask: Any) -> Any:
    """What lies in slots between the heads and tails of queues, by the place of each queue's first slot.

    Raises:
        CheckError: a head is beyond its tail.
    """
    if len(queues) == 0:
        return slots[:0]
    waiting = queues[tail] - queues[head]
    if waiting.min() < 0:
        raise CheckError(f"more was taken out of a queue than put in, {head} is beyond {tail}")
    total = int(waiting.sum())
    if total == 0:
        return slots[:0]
    queue = np.repeat(np.arange(len(queues)), waiting)
    position = np.arange(total) + (queues[tail] - np.cumsum(waiting))[queue]
    return slots[first[queue] + (position & (mask[queue] if isinstance(mask, np.ndarray) else mask))]
