"""Where every packet and page of a trial is: each place is walked once, whoever asks for it."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from pool_impl.layout import COUNT_MASK, MAX_SKB_FRAGS, Host, Table, bare, plain
from workers.net.backlog import SLOTS
from workers.net.deferred import MOST_SKBS
from workers.net.retention import MOST_RETAINED
from workers.state import FIRST_UNPOOLED, GRO_BUCKET_SKBS, GRO_BUCKETS, Trial


class Walk:
    """A trial that stands still: numbers of skbs and pages by place, in no order."""

    def __init__(self, trial: Trial) -> None:
        self.trial: Trial = _bared(trial)._replace(host=_bared(trial.host), buffers=_bared(trial.buffers))
        """with plain arrays in place of tables"""
        self.nic = plain(trial.nic)

    @cached_property
    def filled(self) -> Any:
        """Descriptors of all queues that the device has filled and nobody has read."""
        queues = self.trial.queues
        return _queued(self.trial.descriptors, queues, queues["first"], "read", "dma", self.nic.ring_mask)

    @cached_property
    def aggregates(self) -> Any:
        """What the NIC merges or has completed."""
        found: list[int] = []
        if not self.nic.contexts:
            return self.trial.aggregates[:0]
        for number, table in enumerate(self.trial.aggregates_of):
            first = number * self.nic.contexts
            found += self.trial.context_slots[first : first + table.open].tolist()
            found += _chain(self.trial.aggregates, int(table.first_completed))
        return self.trial.aggregates[np.array(found, np.int64)]

    @cached_property
    def frames(self) -> Any:
        """Frames in all frame queues."""
        return frames_in(self.trial, self.trial.frame_queues)

    @cached_property
    def sent(self) -> Any:
        """Skbs that wait in transmit rings."""
        skbs = self.frames["skb"]
        return skbs[skbs != 0]

    @cached_property
    def in_sockets(self) -> Any:
        """Skbs that wait in sockets for a reader."""
        return self._in_sockets_of(self.trial.readers[: self.trial.stack.readers])

    @cached_property
    def in_tap(self) -> Any:
        """Clones that wait in the packet socket."""
        return self._in_sockets_of(self.trial.readers[self.trial.stack.readers :])

    def _in_sockets_of(self, readers: Any) -> Any:
        return _queued(self.trial.socket_slots, readers, readers["first"], "head", "tail", readers["mask"])

    @cached_property
    def in_gro(self) -> Any:
        """Skbs that GRO holds."""
        count = self.trial.gro["count"]
        if not self.trial.stack.gro:
            return self.trial.gro_slots[:0]
        slots = self.trial.gro_slots.reshape(-1, GRO_BUCKETS, GRO_BUCKET_SKBS)
        return slots[np.arange(GRO_BUCKET_SKBS) < count[..., np.newaxis]]

    @cached_property
    def in_backlogs(self) -> Any:
        """Skbs that wait for an RPS CPU."""
        backlogs = self.trial.backlogs
        first = np.arange(len(backlogs)) * SLOTS
        return _queued(self.trial.backlog_slots, backlogs, first, "head", "tail", SLOTS - 1)

    @cached_property
    def kept(self) -> Any:
        """Skbs that applications have read and not freed."""
        readers = self.trial.readers
        slots, mask = self.trial.kept_slots, readers["kept_mask"]
        return _queued(slots, readers, readers["kept_first"], "kept_head", "kept_tail", mask)

    @cached_property
    def retained(self) -> Any:
        """Those that they keep for a long time."""
        retained = self.trial.retained
        slots = self.trial.retained_slots["skb"]
        return _queued(slots, retained, retained["first"], "head", "tail", MOST_RETAINED - 1)

    @cached_property
    def deferred(self) -> Any:
        """Skbs that wait to be freed by the CPU that made them."""
        if len(self.trial.deferred) == 0:
            return self.trial.deferred_slots[:0]
        slots = self.trial.deferred_slots.reshape(-1, MOST_SKBS)
        return slots[np.arange(MOST_SKBS) < self.trial.deferred["count"][:, np.newaxis]]

    @cached_property
    def in_page_caches(self) -> Any:
        """Pages in drivers' page caches."""
        queues, mask = self.trial.queues, self.nic.page_cache_mask
        first = queues["first_cached_page"]
        return _queued(self.trial.page_cache_slots, queues, first, "cached_head", "cached_tail", mask)

    @cached_property
    def skbs(self) -> Any:
        """Records of all skbs that somebody holds."""
        buffers = self.trial.buffers
        skbs = buffers.skbs[1 : buffers.memory["skb_fresh"]]
        return skbs[skbs["users"] > 0]

    @cached_property
    def by_reference(self) -> Any:
        """Which of :attr:`skbs` have plain references to pages of a pool that gives shares to others:
        segments of a merged one. Skbs without pages and those whose page has left its pool for good may be
        among them."""
        shares = self.nic.recycle and not self.nic.references and self.nic.pattern < FIRST_UNPOOLED
        return (self.skbs["pp_recycle"] == 0) & bool(shares)

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
        in_stack = _since(trial.packets["arrival_ps"][waiting], since)
        in_stack += self._further_since(trial.holds["merged"][trial.buffers.skbs["shared"][waiting]], since)
        in_frames = _since(self.frames["arrival_ps"][self.frames["skb"] == 0], since)
        return in_ring + in_stack + in_frames

    def _further_since(self, merged: Any, since: int) -> int:
        """The same of the further packets in what was merged, by the first record of each."""
        records = [
            number for first in merged[merged != 0] for number in _chain(self.trial.merged, int(first))
        ]
        return _since(self.trial.merged["arrival_ps"][np.array(records, np.int64)], since)

    def members(self, skbs: Any) -> list[int]:
        """Skbs in the frag_lists of these."""
        buffers = self.trial.buffers
        first = buffers.shared["frag_list"][buffers.skbs["shared"][skbs]]
        return [member for head in first[first != 0] for member in _chain(buffers.skbs, int(head))]

    def data_of(self, skbs: Any) -> Any:
        """SHARED records of these SKB records, each once: clones have one in common."""
        return self.trial.buffers.shared[distinct(skbs["shared"], len(self.trial.buffers.shared))]


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
    """What lies in slots between the heads and tails of queues, by the place of each queue's first slot."""
    if len(queues) == 0:
        return slots[:0]
    waiting = queues[tail] - queues[head]
    total = int(waiting.sum())
    if total == 0:
        return slots[:0]
    queue = np.repeat(np.arange(len(queues)), waiting)
    position = np.arange(total) + (queues[tail] - np.cumsum(waiting))[queue]
    return slots[first[queue] + (position & (mask[queue] if isinstance(mask, np.ndarray) else mask))]
