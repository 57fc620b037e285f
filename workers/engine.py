"""The event loop: whichever CPU is due next takes its next step. Nothing else.

A step is one packet handled, one poll begun or ended, or one packet read. Steps start in order of time,
so what one CPU leaves in the ring or the socket is there for a later step of the other.
"""

from pool_impl.jit import compiled
from pool_impl.layout import NO_CPU
from pool_impl.page_alloc import used_pages
from workers import cost, drivers, nic, stack
from workers.cache import CPUS
from workers.state import (
    DOWN,
    IDLE,
    IN_CACHE,
    IN_RING,
    IN_RX_RING,
    IN_SOCKET,
    NAPI,
    NO_SKB,
    POLLING,
    QUEUE_CPU,
    YIELDED,
    Trial,
)
from workers.traffic import FOREVER


@compiled()
def _start(trial: Trial) -> None:
    """Fill the receive ring, as bringing the device up does; time and books start after that."""
    drivers.refill(trial, trial.nic.mask + 1)
    nic.advance(trial)
    meter = trial.host.observer.meter
    meter.idle_ps[:] = 0
    meter.drained_at[:] = 0
    meter.ledger[:] = 0
    trial.nic.phase = IDLE


@compiled()
def run(trial: Trial, until_ps: int) -> None:
    """Take every step that starts before ``until_ps``; can be called again to go on."""
    meter = trial.host.observer.meter
    queue = trial.nic
    if queue.phase == DOWN:
        _start(trial)
    reader_cpu = trial.reader.cpu
    queue_now = cost.clock(meter, QUEUE_CPU)
    reader_now = cost.clock(meter, reader_cpu)
    while True:
        queue_ps = _queue_ready_ps(trial, queue_now)
        reader_ps = stack.reader_ready_ps(trial, reader_now)
        if reader_cpu == QUEUE_CPU and queue.phase == POLLING:
            reader_ps = FOREVER
        start_ps = min(queue_ps, reader_ps)
        if start_ps >= until_ps:
            break
        _integrate(trial, start_ps)
        is_queue = queue_ps <= reader_ps
        cpu = QUEUE_CPU if is_queue else reader_cpu
        if is_queue:
            before = queue_ps
            meter.idle_ps[cpu] += queue_ps - queue_now
            number = _step_queue(trial, queue_ps)
        else:
            before = reader_ps
            slept = stack.wake_reader(trial)
            number = stack.read_packet(trial, slept)
        if number != NO_SKB:
            # in one place for all: this is most of the compiled code
            drivers.free_skb(trial, number)
        if not is_queue:
            stack.work_on_packet(trial)
        now = cost.clock(meter, cpu)
        trial.tally.busy_ps[cpu] += now - before
        if not is_queue:
            queue.reader_turn_ps -= now - before
        if cpu == QUEUE_CPU:
            queue_now = now
        if cpu == reader_cpu:
            reader_now = now
    if until_ps >= queue.end_ps:
        nic.receive_until(trial, until_ps - 1)
    _integrate(trial, until_ps)


@compiled()
def _queue_ready_ps(trial: Trial, now: int) -> int:
    queue = trial.nic
    if queue.phase == IDLE:
        return max(now, nic.interrupt_ps(queue))
    if queue.phase == YIELDED and queue.reader_turn_ps > 0 and trial.reader.head != trial.reader.tail:
        return FOREVER
    return int(now)


@compiled()
def _step_queue(trial: Trial, now: int) -> int:
    """One step of the poll; the skb to free, or NO_SKB."""
    queue = trial.nic
    observer = trial.host.observer
    if queue.phase != POLLING:
        if queue.phase == IDLE:
            observer.work(cost.INTERRUPT, 1)
        observer.work(cost.POLL, 1)
        queue.phase = POLLING
        trial.host.device.napi_owner[NAPI] = QUEUE_CPU
        queue.polled = 0
        queue.poll_started_ps = now
        return NO_SKB
    nic.receive_until(trial, now)
    if queue.dma != queue.read and queue.polled < queue.budget:
        queue.polled += 1
        trial.tally.read += 1
        number = drivers.receive_packet(trial)
        return number if number == NO_SKB else stack.deliver(trial, number)
    drivers.refill(trial, drivers.REFILL_LIMIT)
    if queue.polled < queue.budget:
        queue.phase = IDLE
        trial.host.device.napi_owner[NAPI] = NO_CPU
        return NO_SKB
    # more to do: poll again, after the reader on this CPU has had as long a turn (ksoftirqd and the
    # application are equals to the scheduler)
    queue.phase = YIELDED
    if trial.reader.cpu == QUEUE_CPU:
        queue.reader_turn_ps = cost.clock(observer.meter, QUEUE_CPU) - queue.poll_started_ps
    return NO_SKB


@compiled()
def _integrate(trial: Trial, now_ps: int) -> None:
    tally = trial.tally
    elapsed = now_ps - tally.integrated_to_ps
    if elapsed <= 0:
        return
    tally.integrated_to_ps = now_ps
    owner = trial.host.pools[0]
    queue = trial.nic
    tally.page_ps[IN_CACHE] += owner.cache_count * elapsed
    tally.page_ps[IN_RING] += _ring_pages(trial) * elapsed
    tally.page_ps[IN_RX_RING] += (queue.posted - queue.read) * elapsed
    tally.page_ps[IN_SOCKET] += (trial.reader.tail - trial.reader.head) * elapsed
    tally.used_page_ps += used_pages(trial.host.page_allocator, CPUS) * elapsed


@compiled()
def _ring_pages(trial: Trial) -> int:
    """Live entries of the ring from its indices: the head never rests on a consumed slot, so a full
    ring and an empty one differ in what the head's slot holds."""
    owner = trial.host.pools[0]
    live = owner.ring_prod - owner.ring_head
    if live < 0:
        live += owner.ring_size
    elif live == 0 and trial.host.slots[owner.ring_base + owner.ring_head] != 0:
        live = owner.ring_size
    return int(live)
