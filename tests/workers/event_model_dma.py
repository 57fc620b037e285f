"""What lies between the device and memory, for the event simulation: an IOMMU with its flush queues, or
bounce buffers. Written from the rules that workers.pricing.dma documents, with nothing of its code."""

from collections.abc import Iterator, Mapping
from typing import Any

SLOTS = 256
TIMER_PS = 10 * 10**9

Charge = tuple[str, int]
"""category and picoseconds"""


class Between:
    """Says what mappings, unmappings and syncs cost beside what they cost anyway.

    Args:
        fields: of the trial, by dotted name.
        prices: value of each parameter of the profile, by name.
    """

    def __init__(self, fields: Mapping[str, Any], prices: Mapping[str, float]) -> None:
        self.prices = prices
        self.mode = fields["machine.iommu"]
        self.translates = self.mode in ("lazy", "strict")
        self.bounces = fields["machine.swiotlb"]
        self.fills_at_map = fields["kernel"] != "5.14"
        self.both_ways = fields["xdp.pass_percent"] < 100
        self.queue_free_ps = 0
        self.invalidations = 0
        # each entry is the number of flushes that had begun when it was put in
        self.flush_queues: dict[int, list[int]] = {}
        self.flushes = 0
        self.timer_ps: int | None = None

    def _price_ps(self, parameter: str) -> int:
        return round(self.prices[parameter] * 1000)

    def _copy(self, size_bytes: int) -> Charge:
        kib_ps = round(1024 * 1000 / self.prices["copy_bytes_per_ns"])
        return "swiotlb_copy", size_bytes * kib_ps // 1024

    def mapped(self, size_bytes: int, to_send: bool) -> Iterator[Charge]:
        if self.translates:
            yield "iommu_map", self._price_ps("iommu_map_ns")
        if self.bounces:
            yield "dma_map", self._price_ps("swiotlb_slot_ns")
            if to_send or self.fills_at_map:
                yield self._copy(size_bytes)

    def unmapped(self, cpu: int, now_ps: int) -> Iterator[Charge]:
        if self.bounces:
            yield "dma_unmap", self._price_ps("swiotlb_slot_ns")
        if not self.translates:
            return
        price_ps = self._price_ps("iommu_unmap_ns")
        now_ps += price_ps
        yield "iommu_unmap", price_ps
        for _ in range(1 if self.mode == "strict" else self._flushed(cpu, now_ps)):
            wait_ps = max(0, self.queue_free_ps - now_ps)
            yield "iommu_queue", wait_ps
            price_ps = self._price_ps("iommu_invalidate_ns")
            yield "iommu_invalidate", price_ps
            now_ps += wait_ps + price_ps
            self.queue_free_ps = now_ps
            self.invalidations += 1

    def _flushed(self, cpu: int, now_ps: int) -> int:
        flushed = 0
        if self.timer_ps is not None and now_ps >= self.timer_ps:
            self.timer_ps = None
            self.flushes += 1
            flushed += 1
        waiting = [entry for entry in self.flush_queues.get(cpu, []) if entry == self.flushes]
        if len(waiting) == SLOTS - 1:
            self.flushes += 1
            flushed += 1
            waiting = []
        self.flush_queues[cpu] = [*waiting, self.flushes]
        if self.timer_ps is None:
            self.timer_ps = now_ps + TIMER_PS
        return flushed

    def synced_for_cpu(self, size_bytes: int) -> Iterator[Charge]:
        if self.bounces:
            yield self._copy(size_bytes)

    def synced_for_device(self, size_bytes: int) -> Iterator[Charge]:
        if self.bounces and self.both_ways:
            yield self._copy(size_bytes)
