"""Trials of a cell from the memory of one that has not begun, as only the seed makes them differ.

Setting a trial up takes as long as simulating a thousand packets. A template does it once: it has what is not
zero of such a trial's memory, and where in one block each table and record lies. A trial made from it has a
block of its own; nothing that one does is seen by another.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pool_impl.layout import CACHE_LINE_BYTES, PAGE, Table, bare, pages_of_zeros
from workers import assemble, variants
from workers.config import TrialConfig
from workers.fields.derived import seed_matters
from workers.profiles import arch
from workers.seeding import set_seed
from workers.state import Trial

CHUNK_BYTES = 4096
"""in which memory is copied or left zero: a page, as one that nobody writes takes no time"""

KEPT_CELLS = 8
"""templates that a process keeps, the last ones used: seeds of a cell come one after the other"""


def new_trial(config: TrialConfig, *, alone: bool = False) -> Trial:
    """A trial that has not begun, the same as :func:`workers.assemble.new_trial` makes it.

    Args:
        alone: its cell has no other one, for which a template would be of use.

    Raises:
        TrialError: an input is unusable.
    """
    if alone or not seed_matters(config):
        return assemble.new_trial(config)
    capture = assemble.captured(config).sha256 if config.traffic.kind == "capture" else ""
    cell = config.model_copy(update={"seed": 0})
    trial = _template(
        cell, arch.load(config.arch), variants.load(config.pool.variant).identity, capture
    ).copy()
    set_seed(trial, config)
    return trial


@lru_cache(maxsize=KEPT_CELLS)
def _template(cell: TrialConfig, _profile: arch.Profile, _variant: str, _capture: str) -> "Template":
    """The template of a cell, by its configuration and the content of all that it reads."""
    return Template(assemble.new_trial(cell))


class _Place(NamedTuple):
    """Where a table lies in the block, or a record, as a table of one."""

    offset: int
    length: int
    dtype: np.dtype[Any]
    is_record: bool


class Template:
    """A trial that has not begun, to be copied."""

    def __init__(self, trial: Trial) -> None:
        parts: dict[int, Any] = {}
        _collect(trial, parts)
        memory = [part for part in parts.values() if isinstance(part, np.ndarray | np.void)]
        tuples: list[Any] = [part for part in parts.values() if isinstance(part, tuple)]
        self._others = [part for part in parts.values() if not isinstance(part, np.ndarray | np.void | tuple)]
        number = {id(part): at for at, part in enumerate([*memory, *self._others, *tuples])}
        self._tuples = [(type(part)._make, [number[id(member)] for member in part]) for part in tuples]
        raw = [bare(part).view(np.uint8) if isinstance(part, Table) else _bytes_of(part) for part in memory]
        blocks, offsets = _laid_out(raw)
        self._places = [
            _Place(offset, part.size, part.dtype, isinstance(part, np.void))
            for offset, part in zip(offsets, memory, strict=True)
        ]
        self._tables = [(offset, len(raw[block])) for block, offset in blocks.items()]
        self._bytes = max(offset + _room(size) for offset, size in self._tables)
        self._bytes += -self._bytes % CHUNK_BYTES
        begun = {id(table): size for table, size in beginnings(trial)}
        small = [(offset, raw[block]) for block, offset in blocks.items() if len(raw[block]) < CHUNK_BYTES]
        large = [(offset, raw[block][: begun.get(id(memory[block]))]) for block, offset in blocks.items()]
        self._chunks, self._content = _not_zero([(0, _dense(small)), *large[len(small) :]])

    def copy(self) -> Trial:
        """The same in memory of its own."""
        memory = pages_of_zeros(self._bytes, self._tables)
        memory.reshape(-1, CHUNK_BYTES)[self._chunks] = self._content
        parts: list[Any] = []
        for offset, length, dtype, is_record in self._places:
            table = Table((length,), dtype, memory, offset)
            parts.append(table[0] if is_record else table)
        parts += self._others
        for make, members in self._tuples:
            parts.append(make([parts[member] for member in members]))
        trial: Trial = parts[-1]
        return trial


def beginnings(trial: Trial) -> list[tuple[Any, int]]:
    """Tables and records of which no more than so many bytes are set before the trial begins: those that grow
    with what a trial can hold, so that nobody has to look through them."""
    host, buffers = trial.host, trial.buffers
    empty = [host.slots, host.observer.stamps, buffers.skbs, buffers.shared, trial.packets, trial.holds]
    empty += [trial.merged, trial.descriptors, trial.aggregates, trial.parts_used, trial.frames]
    empty += [trial.socket_slots, trial.kept_slots, trial.retained_slots, trial.backlog_slots]
    empty += [trial.windows.notice_slots]
    if not trial.nic.program:
        empty.append(trial.xdp_memory)
    lists = host.page_allocator.dtype.fields["pcp"][1]
    return [(host.pages, PAGE.itemsize), (host.page_allocator, lists), *((table, 0) for table in empty)]


def _collect(part: Any, found: dict[int, Any]) -> None:
    """All that something consists of, by identity, before itself."""
    if id(part) not in found:
        if isinstance(part, tuple):
            for member in part:
                _collect(member, found)
        found[id(part)] = part


def _bytes_of(record: Any) -> Any:
    return np.asarray(record).reshape(1).view(np.uint8)


def _laid_out(raw: list[Any]) -> tuple[dict[int, int], list[int]]:
    """Where these bytes go in one block of memory. What is a part of another, as a record that is a field of
    one, is a part of it there as well.

    Returns:
        Offsets by number of those that are no part of another, small ones first; and the offsets of all.
    """
    starts = [part.ctypes.data for part in raw]
    order = sorted(range(len(raw)), key=lambda number: (starts[number], -len(raw[number])))
    whole = order[0]
    wholes = {}
    for number in order:
        if starts[number] >= starts[whole] + len(raw[whole]):
            whole = number
        wholes[number] = whole
    blocks = {}
    end = 0
    for number in sorted(set(wholes.values()), key=lambda number: (len(raw[number]), number)):
        end += -end % (CHUNK_BYTES if len(raw[number]) >= CHUNK_BYTES else CACHE_LINE_BYTES)
        blocks[number] = end
        end += _room(len(raw[number]))
    return blocks, [blocks[wholes[n]] + starts[n] - starts[wholes[n]] for n in range(len(raw))]


def _room(size: int) -> int:
    """As pool_impl.layout.records gives a table of so many bytes: with a line more."""
    return size + CACHE_LINE_BYTES


def _not_zero(filled: list[tuple[int, Any]]) -> tuple[Any, Any]:
    """Numbers and content of the chunks that hold anything but zeros, of bytes by their offsets."""
    numbers: list[Any] = []
    content: list[Any] = []
    for offset, raw in filled:
        if len(raw) == 0:
            continue
        chunks = np.zeros((-(-len(raw) // CHUNK_BYTES), CHUNK_BYTES), np.uint8)
        chunks.reshape(-1)[: len(raw)] = raw
        found = np.flatnonzero(chunks.view(np.bool_).any(axis=1))
        numbers.append(found + offset // CHUNK_BYTES)
        content.append(chunks[found])
    return np.concatenate(numbers), np.concatenate(content)


def _dense(filled: list[tuple[int, Any]]) -> Any:
    """These bytes by their offsets, as they lie one behind the other."""
    last, raw = filled[-1]
    dense = np.zeros(last + len(raw), np.uint8)
    for offset, raw in filled:
        dense[offset : offset + len(raw)] = raw
    return dense
