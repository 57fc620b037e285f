"""The event simulation's TCP: senders that stop at the receiver's window, and a socket that merges segments.

Written from what is documented of ``traffic.kind = window``, RFC 5681 and 9438, and specification 6.4 for the
socket.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import simpy

from tests.workers.event_model import PAGE_BYTES, TRUESIZE_BYTES, WRITABLE_BYTES, Machine, Steps

HEADERS_BYTES = 54
MOST_FRAGMENTS = 17


@dataclass
class Sender:
    """One flow, in segments."""

    allowed: int
    window: int = 0
    threshold: int = 0
    room: int = 0
    under_way: int = 0
    lost: int = 0
    debt: int = 0
    until_next_cut: int = 0
    seventeenths: int = 0

    def __post_init__(self) -> None:
        self.threshold = self.allowed
        self.window = self.room = min(10, self.allowed)

    def read(self, segments: int) -> int:
        """How many more it may send when it hears of this."""
        self.under_way -= segments
        self.until_next_cut = max(0, self.until_next_cut - segments)
        may_send = segments + self.lost
        if self.until_next_cut == 0 and self.lost:
            self.until_next_cut = self.window
            self.threshold = max(2, self.window * 7 // 10)
            self._cut_to(min(self.window, self.threshold))
        elif self.until_next_cut == 0 and self.debt == 0:
            before = self.window
            if self.window < self.threshold:
                self.window += segments
            else:
                self.seventeenths += 9 * segments
                while self.seventeenths >= 17 * before:
                    self.seventeenths -= 17 * before
                    self.window += 1
            self.window = min(self.window, self.allowed)
            may_send += self.window - before
        self.lost = 0
        return self._less_debt(may_send)

    def drop(self) -> int:
        """The same, after a timeout; 0 if it will hear of the loss before."""
        self.under_way -= 1
        self.lost += 1
        if self.under_way:
            return 0
        may_send, self.lost = self.lost, 0
        self.threshold = max(2, self.window * 7 // 10)
        self.until_next_cut = self.seventeenths = 0
        self._cut_to(1)
        return self._less_debt(may_send)

    def _cut_to(self, window: int) -> None:
        self.debt += self.window - window
        self.window = window

    def _less_debt(self, segments: int) -> int:
        paid = min(segments, self.debt)
        self.debt -= paid
        return segments - paid


@dataclass
class Segments:
    """An skb in the socket."""

    flow: int
    pages: list[int]
    arrivals_ps: list[int]
    payload: int
    room_bytes: int
    """behind its data"""
    truesize: int = TRUESIZE_BYTES
    fragments: int = field(default=0)


class WindowMachine(Machine):
    """A trial with TCP senders, a driver with a page for each packet, and one socket."""

    def __init__(
        self, fields: Mapping[str, Any], prices: Mapping[str, float], arrivals: Iterable[tuple[int, int]]
    ) -> None:
        super().__init__(fields, prices, arrivals)
        self.frame_bytes = fields["traffic.packet_size"]
        self.payload = self.frame_bytes - HEADERS_BYTES
        flows = fields["traffic.flows"]
        allowed = fields["traffic.window_bytes"] // self.payload
        if not fields["traffic.window_bytes"]:
            allowed = max(1, fields["app.socket_bytes"] // 2 // flows // self.payload)
        self.senders = [Sender(allowed) for _ in range(flows)]
        self.turns = deque(range(flows))
        self.heard_after_rtt: deque[tuple[int, int, int]] = deque()
        self.heard_after_rto: deque[tuple[int, int, int]] = deque()
        self.something_to_hear: simpy.Event | None = None
        self.flow_of: dict[int, int] = {}
        self.segments: deque[Segments] = deque()
        self.queued_bytes = 0
        self.reductions = self.timeouts = 0

    def _wire(self) -> Steps:
        """The senders' link."""
        train = self.fields["traffic.train_packets"]
        left = train
        wire_ps = (self.frame_bytes + 20) * 8000 // self.fields["nic.link_gbps"]
        while True:
            self._hear()
            while not self.turns:
                self.something_to_hear = self.env.event()
                heard = [*self.heard_after_rtt, *self.heard_after_rto]
                waits = [self._until(min(heard)[0], 0)] if heard else []
                yield self.env.any_of([self.something_to_hear, *waits])
                self._hear()
            flow = self.turns[0]
            sender = self.senders[flow]
            sender.room -= 1
            sender.under_way += 1
            left -= 1
            if left == 0 or sender.room == 0:
                self.turns.popleft()
                left = train
                if sender.room:
                    self.turns.append(flow)
            self._arrives(flow)
            yield self._until(self.now_ps + wire_ps, 0)

    def _hear(self) -> None:
        """Of all that was told for now or before, in order of time."""
        while True:
            due = [heard for heard in (self.heard_after_rtt, self.heard_after_rto) if heard]
            if not due or min(due, key=lambda heard: heard[0][0])[0][0] > self.now_ps:
                return
            _, flow, segments = min(due, key=lambda heard: heard[0][0]).popleft()
            if self.senders[flow].room == 0:
                self.turns.append(flow)
            self.senders[flow].room += segments

    def _tell(self, flow: int, segments: int, after_rto: bool) -> None:
        if segments == 0:
            return
        if after_rto:
            at_ps = self.now_ps + self.fields["traffic.rto_ms"] * 10**9
            self.heard_after_rto.append((at_ps, flow, segments))
        else:
            at_ps = self.now_ps + self.fields["traffic.rtt_us"] * 10**6
            self.heard_after_rtt.append((at_ps, flow, segments))
        if self.something_to_hear is not None and not self.something_to_hear.triggered:
            self.something_to_hear.succeed()

    def _lose(self, flow: int) -> None:
        segments = self.senders[flow].drop()
        self.timeouts += segments > 0
        self._tell(flow, segments, after_rto=True)

    def _arrives(self, flow: int) -> None:
        before = self.fates["missed"]
        page = self.posted[0] if self.posted else 0
        self._arrive(self.now_ps, self.frame_bytes)
        if self.fates["missed"] != before:
            self._lose(flow)
        else:
            self.flow_of[page] = flow

    def _enqueue(self, page: int, arrival_ps: int, frame_bytes: int) -> None:
        self._work("protocol", "tcp_ns")
        flow = self.flow_of[page]
        if self.queued_bytes + TRUESIZE_BYTES > self.fields["app.socket_bytes"]:
            self.fates["dropped_socket"] += 1
            self._lose(flow)
            self._free(page)
            return
        last = self.segments[-1] if self.segments else None
        if last is not None and last.flow == flow:
            if self.payload <= last.room_bytes:
                self._charge("copy", self._copied_ps(self.payload))
                last.room_bytes -= self.payload
                last.payload += self.payload
                last.arrivals_ps.append(arrival_ps)
                self._free(page)
                return
            if last.fragments < MOST_FRAGMENTS:
                last.fragments += 1
                last.room_bytes = 0
                last.payload += self.payload
                last.arrivals_ps.append(arrival_ps)
                last.pages.append(page)
                last.truesize += PAGE_BYTES
                self.queued_bytes += PAGE_BYTES
                self.socket.append((page, arrival_ps, frame_bytes))
                return
        self._work("socket", "socket_ns")
        self._wake_reader()
        self.segments.append(Segments(flow, [page], [arrival_ps], self.payload, WRITABLE_BYTES - frame_bytes))
        self.queued_bytes += TRUESIZE_BYTES
        self.socket.append((page, arrival_ps, frame_bytes))

    def _receive(self) -> None:
        """The reader takes the first skb; a list of the pages in the socket goes along with the skbs."""
        skb = self.segments.popleft()
        self.queued_bytes -= skb.truesize
        for page in skb.pages:
            assert self.socket.popleft()[0] == page
        self._work("application", "receive_ns")
        self._charge("copy", self._copied_ps(skb.payload))
        for arrival_ps in skb.arrivals_ps:
            self._consumed("delivered", arrival_ps)
        sender = self.senders[skb.flow]
        window = sender.window
        self._tell(skb.flow, sender.read(len(skb.arrivals_ps)), after_rto=False)
        self.reductions += sender.window < window
        self._work("ring_lock", "bh_toggle_ns")
        self._work("skb_free", "skb_free_ns")
        for page in skb.pages:
            self._give_back(page, in_softirq=False)

    def _queued(self) -> int:
        return len(self.filled) + sum(len(skb.arrivals_ps) for skb in self.segments)
