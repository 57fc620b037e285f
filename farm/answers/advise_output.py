"""Advice as text, JSON and a picture."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from farm import svg, tables
from farm.answers.advise import Advice, Step
from farm.store.answers import Table

HEADINGS = ("pool", "new pages", "may keep", "keeps", "ns/packet", "drops", "")
INCHES = (7.0, 4.2)


def shown(advice: Advice, queues: int) -> RenderableType:
    """The steps of one cell, the choice, and what each step costs.

    ``may keep`` is the memory of a full ring, ``keeps`` that of its pages on average over time.

    Args:
        queues: of the host, by which a queue's memory is multiplied.
    """
    parts: list[RenderableType] = [Text(title(advice), style="bold")] if advice.cell else []
    parts += [tables.rows(HEADINGS, table_of(advice).rows, text_columns=0), Text()]
    parts += [Text(line) for line in sentences(advice, queues)]
    return Group(*parts)


def table_of(advice: Advice) -> Table:
    """The steps of one cell."""
    rows = tuple(
        (
            f"{step.size}",
            tables.percent(1 - step.worst["recycle_ratio"]),
            tables.in_unit("bytes", step.ring_bytes),
            tables.in_unit(
                "bytes", step.worst["pages_in_ring"] / advice.queues * step.ring_bytes / step.size
            ),
            tables.in_unit("ns", step.worst.get("busy_ns_per_packet")),
            tables.percent(step.worst["drop_ratio"]),
            "chosen" if step is advice.chosen else ("fails" if step.failing else ""),
        )
        for step in advice.steps
    )
    return Table(title=title(advice), heads=HEADINGS, rows=rows, text_columns=0)


def title(advice: Advice) -> str:
    """What tells the cell from others; empty if there is one only."""
    return tables.words(advice.cell)


def sentences(advice: Advice, queues: int) -> Iterator[str]:
    """The choice, what binds it, and the price of the steps beside it."""
    binding = " and ".join(str(target) for target in advice.binding)
    if advice.chosen is None:
        yield f"No pool up to {advice.steps[-1].size} is enough: the largest fails {binding}."
    elif binding:
        size = advice.chosen.size
        yield f"pool.size = {size} is the smallest that keeps all targets; a smaller one fails {binding}."
    else:
        yield f"pool.size = {advice.chosen.size}, the smallest that is searched, keeps all targets."
    if not advice.monotonic:
        yield "The targets are not kept by every larger size, or by a smaller one too: look at the steps."
    for low, high in _beside(advice):
        yield _price_of_step(low, high, queues)


def _beside(advice: Advice) -> list[tuple[Step, Step]]:
    """Pairs of neighbouring steps: into the choice and out of it."""
    pairs = list(zip(advice.steps, advice.steps[1:], strict=False))
    return [pair for pair in pairs if advice.chosen in pair]


def _price_of_step(low: Step, high: Step, queues: int) -> str:
    new_low, new_high = (tables.percent(1 - step.worst["recycle_ratio"]) for step in (low, high))
    more = high.ring_bytes - low.ring_bytes
    a_queue, all_queues = (tables.in_unit("bytes", number) for number in (more, more * queues))
    return (
        f"{low.size} to {high.size}: new pages for {new_high} of the allocations in place of {new_low}; "
        f"+{a_queue} a queue, {all_queues} on {queues} queues."
    )


def cheapest(advice: Advice) -> str:
    """Which of several cells needs least memory."""
    size = advice.chosen.size if advice.chosen else 0
    memory = tables.in_unit("bytes", advice.memory_bytes)
    return (
        f"Least memory: {title(advice)} with pool.size = {size}: {memory} a queue, in a full ring of the "
        "pool and on average in the RX ring."
    )


def as_json(found: Sequence[Advice], best: Advice | None) -> dict[str, Any]:
    """The same for a program."""
    return {
        "cells": [
            {
                "cell": dict(advice.cell),
                "pool_size": advice.chosen.size if advice.chosen else None,
                "memory_bytes": advice.memory_bytes,
                "binding": [str(target) for target in advice.binding],
                "monotonic": advice.monotonic,
                "steps": [
                    {
                        "pool_size": step.size,
                        "ring_bytes": step.ring_bytes,
                        "worst": dict(step.worst),
                        "failing": [str(target) for target in step.failing],
                        "pareto": step in advice.pareto,
                    }
                    for step in advice.steps
                ],
            }
            for advice in found
        ],
        "best": dict(best.cell) if best else None,
    }


def plot(found: Sequence[Advice], path: Path) -> None:
    """Memory against the share of new pages, a curve for each cell: what is left of and below a curve
    cannot be had. Sizes stand at their points, the chosen one is filled.

    Raises:
        OutputError: it cannot be written.
    """
    with svg.drawn(path, INCHES) as axes:
        for place, advice in enumerate(found):
            curve = sorted((_point(step), step.size) for step in advice.pareto)
            colour = f"C{place % 10}"
            label = title(advice) or "this workload"
            along, up = zip(*(point for point, _ in curve), strict=True)
            axes.plot(along, up, color=colour, marker="o", mfc="white", label=label)
            for point, size in curve:
                axes.annotate(str(size), point, textcoords="offset points", xytext=(4, 4), fontsize=7)
            if advice.chosen:
                axes.plot(*_point(advice.chosen), color=colour, marker="o", linestyle="")
        axes.set_xscale("log", base=2)
        axes.set_xlabel("memory that the ring of a queue may keep, MiB")
        axes.set_ylabel("allocations that need new pages, %")
        axes.set_title("What a pool's size buys", loc="left")
        axes.legend(frameon=False)


def _point(step: Step) -> tuple[float, float]:
    return step.ring_bytes / (1 << 20), 100 * (1 - step.worst["recycle_ratio"])
