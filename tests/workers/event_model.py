"""The machine of a trial once more, as processes in SimPy, to compare the engine with.

Written from the specification and from the rules that the engine and the fields document, with nothing of
the engine's code: a wire, the queue's CPU and the reader's, a pool with a list as cache and a deque as ring.
A step's changes happen as it starts, and its time passes after. Costs are constant; there are no caches.

SimPy's clock counts ticks, four for each picosecond: what happens at one time happens on the wire first,
then on the queue's CPU, then on the reader's, then on the one that the queue's interrupt moves to.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import simpy

from tests.workers.event_model_dma import Between, Charge

TICKS = 4
QUEUE, READER = 0, 1

CACHE_PAGES = 128
REFILL_PAGES = 64
CLEARED_AT_ONCE = 16
"""ring slots that the consumer gives back together, one at a time in a ring of less than twice as many"""

PAGE_BYTES = 4096
TRUESIZE_BYTES = PAGE_BYTES + 256
WRITABLE_BYTES = PAGE_BYTES - 256 - 320
"""without the headroom and the shared info"""
LINE_BYTES = 64
COLLECTED_FRAMES = 16
"""redirected frames that are handed over, and pages that are returned, together"""

Steps = Iterator[Any]


class Ring:
    """FIFO in which consumed slots stay taken until several of them are cleared together (spec 5)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.batch = CLEARED_AT_ONCE if size >= 2 * CLEARED_AT_ONCE else 1
        self.pages: deque[int] = deque()
        self.stale = 0
        self.position = 0

    def produce(self, page: int) -> bool:
        if len(self.pages) + self.stale == self.size:
            return False
        self.pages.append(page)
        return True

    def consume(self) -> int:
        self.stale += 1
        self.position += 1
        if self.stale == self.batch or self.position == self.size:
            self.stale = 0
        if self.position == self.size:
            self.position = 0
        return self.pages.popleft()


class Machine:
    """One trial.

    Args:
        fields: of the trial, by dotted name.
        prices: value of each parameter of the profile, by name.
        arrivals: time in picoseconds and frame size of each packet.
    """

    def __init__(
        self, fields: Mapping[str, Any], prices: Mapping[str, float], arrivals: Iterable[tuple[int, int]]
    ) -> None:
        self.fields = fields
        self.prices = prices
        self.arrivals = arrivals
        self.between = Between(fields, prices)
        self.polled_ps = 0
        self.shared_cpu = fields["app.reader"] in ("drop", "forward") or fields["app.reader_cpu"] == "same"
        self.reader_cpu = QUEUE if self.shared_cpu else READER
        self.returns_are_local = fields["kernel"] == "6.12"
        self.refill_takes_lock = fields["kernel"] == "5.14"
        self.pool_syncs = fields["driver.sync"] == "pool"
        self.recycles = fields["pool.recycle"]
        self.drops = fields["xdp.drop_percent"] == 100
        self.transmits = fields["xdp.tx_percent"] == 100
        self.redirects = fields["xdp.redirect_percent"] == 100
        self.pool_maps = True
        self.truesize_bytes = TRUESIZE_BYTES
        self.synced_bytes = self.posted_bytes = WRITABLE_BYTES
        self.link_gbps = fields["nic.tx_gbps"] or fields["nic.link_gbps"]

        self.poll_cpu = self.irq_cpu = QUEUE
        near = fields["numa.queues"]
        self.nodes = [near, 1 - near] if self.shared_cpu else [near, fields["numa.readers"], 1 - near]
        self.other_cpu = len(self.nodes) - 1
        self.pool_node = {"local": None, "update": near, "device": fields["numa.nic"]}[
            fields["driver.pool_node"]
        ]
        self.bulk_is_local = fields["kernel"] == "5.14"

        self.env = simpy.Environment()
        self.cpu = QUEUE
        self.elapsed_ps = 0
        self.clock_ps = [0, 0, 0]
        self.spent_ps: tuple[Counter[str], ...] = (Counter(), Counter(), Counter())
        self.page_ps: Counter[str] = Counter()
        self.integrated_to_ps = 0
        self.fates: Counter[str] = Counter()
        self.counters: Counter[str] = Counter()
        self.latency_sum_ps = self.latency_max_ps = 0

        self.last_page = self.pages_in_use = 0
        self.page_node: dict[int, int] = {}
        self.listed: Counter[tuple[int, int]] = Counter()
        self.zone_free_ps = [0, 0]
        self.cache: list[int] = []
        self.ring = Ring(fields["pool.size"] or 1024)
        self.posted: deque[int] = deque()
        self.filled: deque[tuple[int, int, int]] = deque()
        self.socket: deque[tuple[int, int, int]] = deque()
        self.tx_ring: deque[list[int]] = deque()
        self.announced = 0
        self.collected: deque[tuple[int, int, int]] = deque()
        self.sends: simpy.Event | None = None
        self.link_free_ps = 0
        self.unannounced = False
        self.armed = False
        self.interrupt = self.env.event()
        self.arrived_in_socket: simpy.Event | None = None
        self.wake_ps = 0
        self.retained: deque[tuple[int, int]] = deque()

    def run(self, until_ps: int) -> None:
        """Everything that starts before a time."""
        self._refill(self.fields["nic.rx_ring"])
        self.spent_ps[QUEUE].clear()
        self.elapsed_ps = 0
        self.zone_free_ps = [0, 0]
        self.armed = True
        self.env.process(self._wire())
        self.env.process(self._queue_cpu())
        if not self.shared_cpu:
            self.env.process(self._reader_cpu())
        if self.redirects:
            self.env.process(self._other_device())
        if self.fields["life.event"] == "irq-moved":
            self.env.process(self._move_interrupt())
        self.env.run(until=TICKS * until_ps)
        self._integrate(until_ps)
        self.fates["queued"] = self._queued()

    def _queued(self) -> int:
        return len(self.filled) + len(self.socket) + len(self.tx_ring) + len(self.collected)

    # Time

    @property
    def now_ps(self) -> int:
        return self.env.now // TICKS

    def _until(self, time_ps: int, turn: int) -> Any:
        return self.env.timeout(TICKS * time_ps + turn - self.env.now)

    def _charge(self, category: str, price_ps: int) -> None:
        self.spent_ps[self.cpu][category] += price_ps
        self.elapsed_ps += price_ps

    def _work(self, category: str, parameter: str, times: int = 1) -> None:
        self._charge(category, times * self._price_ps(parameter))

    def _price_ps(self, parameter: str) -> int:
        return round(self.prices[parameter] * 1000)

    def _sync(self, category: str, size_bytes: int) -> None:
        self._work(category, "dma_sync_call_ns")
        self._work(category, "dma_sync_line_ns", -(-size_bytes // LINE_BYTES))

    def _charge_all(self, charges: Iterable[Charge]) -> None:
        for category, price_ps in charges:
            self._charge(category, price_ps)

    def _begin(self, cpu: int) -> None:
        self._integrate(self.now_ps)
        self.cpu = cpu
        self.elapsed_ps = 0

    def _end(self) -> Any:
        self.clock_ps[self.cpu] = self.now_ps + self.elapsed_ps
        return self.env.timeout(TICKS * self.elapsed_ps)

    def _integrate(self, now_ps: int) -> None:
        elapsed = now_ps - self.integrated_to_ps
        self.integrated_to_ps = now_ps
        self.page_ps["cache"] += elapsed * len(self.cache)
        self.page_ps["ring"] += elapsed * len(self.ring.pages)
        self.page_ps["rx_ring"] += elapsed * (len(self.posted) + len(self.filled))
        self.page_ps["socket"] += elapsed * len(self.socket)
        self.page_ps["tx"] += elapsed * len(self.tx_ring)
        self.page_ps["application"] += elapsed * len(self.retained)
        self.page_ps["target"] += elapsed * len(self.collected)

    # Processes

    def _wire(self) -> Steps:
        for time_ps, frame_bytes in self.arrivals:
            yield self._until(time_ps, 0)
            self._arrive(time_ps, frame_bytes)

    def _arrive(self, time_ps: int, frame_bytes: int) -> None:
        self.fates["offered"] += 1
        if self.posted:
            self.filled.append((self.posted.popleft(), time_ps, frame_bytes))
        else:
            self.fates["missed"] += 1
        if self.armed:
            self.armed = False
            self.env.process(self._moderate(self.interrupt, self.now_ps))

    def _moderate(self, interrupt: simpy.Event, since_ps: int) -> Steps:
        """The interrupt fires some time after what it tells of, unless something else was earlier."""
        yield self._until(since_ps + self.fields["nic.rx_usecs"] * 10**6, 0)
        if not interrupt.triggered:
            interrupt.succeed()

    def _move_interrupt(self) -> Steps:
        yield self._until(self.fields["life.at_ms"] * 10**9, 0)
        self.irq_cpu = self.other_cpu

    def _queue_cpu(self) -> Steps:
        yield self._until(0, 1)
        while True:
            while self.shared_cpu and self.socket and not self.interrupt.triggered:
                yield from self._read(False)
            yield self.interrupt
            self.poll_cpu = self.irq_cpu
            yield self._until(self.now_ps, 1 if self.poll_cpu == QUEUE else 3)
            self._begin(self.poll_cpu)
            self._work("interrupt", "interrupt_ns")
            while (yield from self._poll()):
                self._begin(self.poll_cpu)

    def _poll(self) -> Iterator[Any]:
        """One poll, its first step has begun; whether there is more to do."""
        started_ps = self.now_ps
        self._work("poll", "poll_ns")
        if self.fields["driver.pool_node"] == "update" and self.pool_node != self.nodes[self.cpu]:
            self.pool_node = self.nodes[self.cpu]
            while self.cache:
                self._release(self.cache.pop())
        sent = 0 if self.redirects else self._sent()
        yield self._end()
        for _ in range(sent):
            self._begin(self.poll_cpu)
            self._clean(*self.tx_ring.popleft())
            yield self._end()
        polled = 0
        while self.filled and polled < self.fields["nic.budget"]:
            polled += 1
            self._begin(self.poll_cpu)
            self._handle(*self.filled.popleft())
            yield self._end()
        self._begin(self.poll_cpu)
        if self.redirects:
            self._hand_over()
        else:
            self._doorbell()
        self._refill(64)
        if polled < self.fields["nic.budget"] or self.irq_cpu != self.poll_cpu:
            self.interrupt = self.env.event()
            self.armed = not self.filled
            if self.filled:
                self.env.process(self._moderate(self.interrupt, self.now_ps + self.elapsed_ps))
            if self.announced and not self.redirects:
                since_ps = max(self.now_ps + self.elapsed_ps, self.tx_ring[0][3])
                self.env.process(self._moderate(self.interrupt, since_ps))
            yield self._end()
            self.polled_ps = 0
            return False
        yield self._end()
        self.polled_ps += self.now_ps - started_ps
        turn_ps = 0
        if self.polled_ps >= 10**6 * self.fields["app.slice_us"]:
            turn_ps, self.polled_ps = self.polled_ps, 0
        while self.shared_cpu and turn_ps > 0 and self.socket:
            before_ps = self.now_ps
            yield from self._read(False)
            turn_ps -= self.now_ps - before_ps
        return True

    def _reader_cpu(self) -> Steps:
        """It frees what it has kept for long enough, or else reads."""
        while True:
            free_ps = self.now_ps
            while not self.socket:
                self.arrived_in_socket = self.env.event()
                waits = [self.arrived_in_socket]
                if self.retained:
                    waits.append(self._until(max(self.retained[0][1], free_ps), 2))
                yield self.env.any_of(waits)
                if not self.socket:
                    break
            start_ps = max(self.wake_ps, free_ps) if self.socket else self.now_ps
            if self.retained:
                start_ps = min(start_ps, max(self.retained[0][1], free_ps))
            yield self._until(start_ps, 2)
            if self.retained and self.retained[0][1] <= start_ps:
                yield from self._free_retained(start_ps > free_ps)
            else:
                yield from self._read(start_ps > free_ps)

    def _free_retained(self, slept: bool) -> Steps:
        self._begin(READER)
        if slept:
            self._work("interrupt", "interrupt_ns")
        self._free(self.retained.popleft()[0], in_softirq=False)
        yield self._end()

    # What a packet goes through

    def _handle(self, page: int, arrival_ps: int, frame_bytes: int) -> None:
        self.fates["read"] += 1
        self._work("driver", "driver_ns")
        self._sync("sync_for_cpu", frame_bytes)
        self._charge_all(self.between.synced_for_cpu(frame_bytes))
        if self.drops or self.transmits or self.redirects:
            self._work("xdp", "xdp_program_ns")
            self._run_program(page, arrival_ps, frame_bytes)
            if self.fields["driver.model"] == "replace-before-pass":
                self._post()
            return
        self._work("skb_alloc", "skb_alloc_ns")
        if self.fields["driver.model"] == "replace-before-pass":
            self._post()
        self._pass_on(page)
        self._work("protocol", "protocol_ns")
        if self.fields["app.reader"] == "drop":
            self._consumed("dropped_early", arrival_ps)
            self._free(page)
            return
        if self.fields["app.reader"] == "forward":
            self._forward(page, arrival_ps, frame_bytes)
            return
        self._enqueue(page, arrival_ps, frame_bytes)

    def _enqueue(self, page: int, arrival_ps: int, frame_bytes: int) -> None:
        self._work("protocol", "udp_ns")
        if (len(self.socket) + 1) * self.truesize_bytes > self.fields["app.socket_bytes"]:
            self.fates["dropped_socket"] += 1
            self._free(page)
            return
        self._work("socket", "socket_ns")
        self._wake_reader()
        self.socket.append((page, arrival_ps, frame_bytes))

    def _wake_reader(self) -> None:
        """Before it has anything to read it sleeps."""
        if not self.socket:
            self.wake_ps = self.now_ps + self.elapsed_ps
            if self.arrived_in_socket is not None:
                self.arrived_in_socket.succeed()
                self.arrived_in_socket = None

    def _pass_on(self, _page: int) -> None:
        """The page goes with an skb."""
        if not self.recycles:
            self._leave_pool()

    def _run_program(self, page: int, arrival_ps: int, frame_bytes: int) -> None:
        """A page that is not sent is returned at once, where the poll may put it into the cache."""
        if self.drops:
            self._consumed("dropped_xdp", arrival_ps)
            self._drop_in_driver(page, frame_bytes)
        elif self.redirects:
            self._work("xdp", "xdp_redirect_ns")
            if len(self.collected) == COLLECTED_FRAMES:
                self._hand_over()
            self.collected.append((page, arrival_ps, frame_bytes))
        elif len(self.tx_ring) == self.fields["nic.tx_ring"]:
            self.fates["dropped_tx"] += 1
            self._put(page, True, frame_bytes)
        else:
            self._work("transmit", "transmit_ns")
            self._sync_for_device(frame_bytes)
            self.tx_ring.append([page, arrival_ps, frame_bytes, 0])

    def _drop_in_driver(self, page: int, frame_bytes: int) -> None:
        self._put(page, True, frame_bytes)

    def _forward(self, page: int, arrival_ps: int, frame_bytes: int) -> None:
        self._work("protocol", "forward_ns")
        if len(self.tx_ring) == self.fields["nic.tx_ring"]:
            self.fates["dropped_tx"] += 1
            self._free(page)
            return
        self._work("transmit", "transmit_ns")
        self._map(frame_bytes, to_send=True)
        self._sync("sync_for_device", frame_bytes)
        self.tx_ring.append([page, arrival_ps, frame_bytes, 0])
        self._doorbell()

    def _doorbell(self) -> None:
        """The device hears of the frames put in since the last one, and sends them behind the others."""
        if self.announced == len(self.tx_ring):
            return
        self._work("device_register", "register_write_ns")
        for frame in list(self.tx_ring)[self.announced :]:
            start_ps = max(self.link_free_ps, self.now_ps + self.elapsed_ps)
            self.link_free_ps = frame[3] = start_ps + (frame[2] + 20) * 8000 // self.link_gbps
        self.announced = len(self.tx_ring)

    def _sent(self) -> int:
        return sum(1 for frame in list(self.tx_ring)[: self.announced] if frame[3] <= self.now_ps)

    def _hand_over(self) -> None:
        """What the poll has collected goes into the other device's ring, under its lock."""
        if not self.collected:
            return
        self._work("ring_lock", "lock_unlock_ns")
        while self.collected:
            page, arrival_ps, frame_bytes = self.collected.popleft()
            if len(self.tx_ring) == self.fields["nic.tx_ring"]:
                self.fates["dropped_tx"] += 1
                self._put(page, True)
                continue
            self._work("transmit", "transmit_ns")
            self._map(frame_bytes, to_send=True)
            self._sync("sync_for_device", frame_bytes)
            self.tx_ring.append([page, arrival_ps, frame_bytes, 0])
        self._doorbell()
        if self.sends is not None:
            self.sends.succeed()
            self.sends = None

    def _other_device(self) -> Steps:
        """Its NAPI: an interrupt some time after a frame was sent, then pages return sixteen at a time."""
        while True:
            if not self.tx_ring:
                self.sends = self.env.event()
                yield self.sends
            since_ps = max(self.now_ps, self.tx_ring[0][3])
            yield self._until(since_ps + self.fields["nic.rx_usecs"] * 10**6, 2)
            self._begin(READER)
            self._work("interrupt", "interrupt_ns")
            self._work("poll", "poll_ns")
            sent = self._sent()
            yield self._end()
            while sent:
                self._begin(READER)
                batch = min(sent, COLLECTED_FRAMES)
                sent -= batch
                self._work("ring_lock", "lock_unlock_ns")
                for _ in range(batch):
                    page, arrival_ps, _, sent_ps = self.tx_ring.popleft()
                    self.announced -= 1
                    self._work("transmit", "transmit_clean_ns")
                    self._unmap()
                    self._count("redirected", sent_ps - arrival_ps)
                    self._work("pool_put", "pool_put_ns")
                    self._sync_for_device()
                    self._work("pool_put", "ring_slot_ns")
                    self.counters["recycle_ring"] += self.ring.produce(page)
                yield self._end()
            # ends in a step of its own, which finds what became ready in the meantime for the next interrupt
            yield self._until(self.now_ps, 2)

    def _clean(self, page: int, arrival_ps: int, _frame_bytes: int, sent_ps: int) -> None:
        self.announced -= 1
        self._work("transmit", "transmit_clean_ns")
        self._count("transmitted", sent_ps - arrival_ps)
        if self.transmits:
            self._put(page, True)
            return
        self._unmap()
        self._free(page)

    def _read(self, slept: bool) -> Steps:
        self._begin(self.reader_cpu)
        if slept:
            self._work("interrupt", "interrupt_ns")
        self._receive()
        if self.fields["app.reader"] == "slow":
            self._charge("application", self.fields["app.work_ns"] * 1000)
        yield self._end()

    def _copied_ps(self, size_bytes: int) -> int:
        return size_bytes * round(1024 * 1000 / self.prices["copy_bytes_per_ns"]) // 1024

    def _receive(self) -> None:
        """The reader takes the first packet, and keeps or frees it."""
        page, arrival_ps, frame_bytes = self.socket.popleft()
        self._work("application", "receive_ns")
        self._charge("copy", self._copied_ps(frame_bytes))
        self._consumed("delivered", arrival_ps)
        self._work("ring_lock", "bh_toggle_ns")
        if self.fields["app.hold_percent"]:
            until_ps = self.now_ps + self.elapsed_ps + self.fields["app.hold_ms"] * 10**9
            self.retained.append((page, until_ps))
        else:
            self._free(page, in_softirq=False)

    def _consumed(self, fate: str, arrival_ps: int) -> None:
        self._count(fate, self.now_ps + self.elapsed_ps - arrival_ps)

    def _count(self, fate: str, latency_ps: int) -> None:
        self.fates[fate] += 1
        self.latency_sum_ps += latency_ps
        self.latency_max_ps = max(self.latency_max_ps, latency_ps)

    def _free(self, page: int, in_softirq: bool = True) -> None:
        self._work("skb_free", "skb_free_ns")
        self._give_back(page, in_softirq)

    def _give_back(self, page: int, in_softirq: bool = True) -> None:
        if self.recycles:
            self._put(page, in_softirq and self.returns_are_local)
        else:
            self._give_page(page)

    def _refill(self, most: int) -> None:
        """Post pages, oldest descriptor first."""
        missing = self.fields["nic.rx_ring"] - len(self.posted) - len(self.filled)
        for _ in range(min(most, missing)):
            self._post()
        if self.unannounced:
            self._work("device_register", "register_write_ns")
            self.unannounced = False

    def _post(self) -> None:
        self.posted.append(self._buffer())
        if not self.pool_syncs:
            self._sync_for_device(self.posted_bytes)
        self.unannounced = True

    def _buffer(self) -> int:
        return self._alloc()

    # The pool and the page allocator

    def _alloc(self) -> int:
        if self.cache:
            self.counters["alloc_fast"] += 1
            self._work("pool_alloc", "pool_alloc_ns")
            return self.cache.pop()
        if self.ring.pages:
            if self.refill_takes_lock:
                self._work("ring_lock", "lock_unlock_ns")
            wanted = self.nodes[self.cpu] if self.pool_node is None else self.pool_node
            while len(self.cache) < REFILL_PAGES:
                # the last look finds the ring empty
                self._work("pool_refill", "ring_slot_ns")
                if not self.ring.pages:
                    break
                page = self.ring.consume()
                if self.page_node[page] != wanted:
                    self.counters["alloc_waive"] += 1
                    self._release(page)
                    break
                self.cache.append(page)
            if self.cache:
                self.counters["alloc_refill"] += 1
                return self.cache.pop()
        else:
            self.counters["alloc_empty"] += 1
        self.counters["alloc_slow"] += 1
        is_local = self.bulk_is_local or self.pool_node is None
        node = self.nodes[self.cpu] if is_local else self.pool_node
        batch = self.fields["pool.slow_batch"] or REFILL_PAGES
        share_ps = self._share_of_bulk_ps() if batch > 1 else 0
        # what a bulk costs beside its pages; the price of a page in one of 64 holds its share of that
        self._charge("page_alloc", REFILL_PAGES * share_ps)
        price_ps = self._price_ps("page_single_alloc_ns" if batch == 1 else "page_bulk_alloc_ns") - share_ps
        pages = [self._take_page(node, price_ps) for _ in range(batch)]
        for page in pages:
            if self.pool_maps:
                self._map(PAGE_BYTES)
            if self.pool_maps and self.pool_syncs:
                self._sync_for_device()
            self._work("pool_refill", "page_adopt_ns")
            self.counters["hold"] += 1
            self.cache.append(page)
        return self.cache.pop()

    def _share_of_bulk_ps(self) -> int:
        """A page's part of what a bulk of 64 costs once: a bulk of one costs as much as a page asked for
        alone."""
        one_ps = self._price_ps("page_single_alloc_ns")
        return round((one_ps - self._price_ps("page_bulk_alloc_ns")) / (REFILL_PAGES - 1))

    def _put(self, page: int, direct: bool, written_bytes: int | None = None) -> None:
        self._work("pool_put", "pool_put_ns")
        if self.pool_maps and self.pool_syncs:
            self._sync_for_device(written_bytes)
        if direct:
            if len(self.cache) < CACHE_PAGES:
                self.counters["recycle_cached"] += 1
                self.cache.append(page)
                return
            self.counters["recycle_cache_full"] += 1
        self._work("ring_lock", "lock_unlock_ns")
        self._work("pool_put", "ring_slot_ns")
        if self.ring.produce(page):
            self.counters["recycle_ring"] += 1
            return
        self.counters["recycle_ring_full"] += 1
        self._release(page)

    def _release(self, page: int) -> None:
        self._leave_pool()
        self._give_page(page)

    def _leave_pool(self) -> None:
        self.counters["release"] += 1
        self._work("pool_release", "page_release_ns")
        if self.pool_maps:
            self._unmap()
        self._work("pool_release", "atomic_ns")

    def _map(self, size_bytes: int, to_send: bool = False) -> None:
        self.counters["maps"] += 1
        self._work("dma_map", "dma_map_ns")
        self._charge_all(self.between.mapped(size_bytes, to_send))

    def _unmap(self) -> None:
        self.counters["unmaps"] += 1
        self._work("dma_unmap", "dma_unmap_ns")
        self._charge_all(self.between.unmapped(self.cpu, self.now_ps + self.elapsed_ps))

    def _sync_for_device(self, size_bytes: int | None = None) -> None:
        self.counters["syncs"] += 1
        covered = self.synced_bytes if size_bytes is None else size_bytes
        self._sync("sync_for_device", covered)
        self._charge_all(self.between.synced_for_device(covered))

    def _take_page(self, node: int, price_ps: int) -> int:
        """From this CPU's list, which takes a batch from the shared lists when it is empty."""
        if self.listed[self.cpu, node] == 0:
            self._move(node, int(self.prices["pcp_batch_pages"]))
        self.listed[self.cpu, node] -= 1
        self.pages_in_use += 1
        self._charge("page_alloc", price_ps)
        self.last_page += 1
        self.page_node[self.last_page] = node
        return self.last_page

    def _give_page(self, page: int) -> None:
        """Drop the last reference; a list that has reached its limit gives a batch away."""
        node = self.page_node[page]
        self._work("page_free", "atomic_ns")
        self._work("page_free", "page_free_ns")
        self.pages_in_use -= 1
        self.listed[self.cpu, node] += 1
        if self.listed[self.cpu, node] >= self.prices["pcp_high_pages"]:
            self._move(node, -int(self.prices["pcp_batch_pages"]))

    def _move(self, node: int, pages: int) -> None:
        """From the shared lists of a node to this CPU's; one CPU at a time has their lock."""
        self._charge("zone_lock", max(0, self.zone_free_ps[node] - self.now_ps - self.elapsed_ps))
        self._work("page_alloc", "buddy_page_ns", abs(pages))
        self.zone_free_ps[node] = self.now_ps + self.elapsed_ps
        self.listed[self.cpu, node] += pages
