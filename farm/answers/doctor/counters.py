"""Counters of a real host's pools, as ethtool and netlink print them.

Accepted are ``ethtool -S`` text and the JSON of netdev's netlink dumps ``page-pool-get`` and
``page-pool-stats-get`` (spec 8.1, 8.3), as the kernel's ``ynl --family netdev --dump ... --output-json``
prints them.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.errors import CountersError
from workers.measures import COUNTERS

MOST_BYTES = 64 << 20
"""a larger file is no dump of counters"""

_ETHTOOL_NAMES = {
    **{name: name for name in COUNTERS},
    "alloc_slow_ho": "alloc_slow_high_order",
    "recycle_released_ref": "recycle_released_refcnt",
}
_ETHTOOL_LINE = re.compile(rf"\s*(?P<prefix>\S*?)pp_(?P<name>{'|'.join(_ETHTOOL_NAMES)}): (?P<count>\d+)\s*")

Counts = Mapping[str, int]
"""the 11 counters of a pool under the kernel's names"""


@dataclass(frozen=True)
class State:
    """What ``page-pool-get`` says of a pool."""

    inflight: int
    """pages that it has handed out or keeps"""
    detached: bool
    """whether its driver has given it up, so that it waits for its pages only"""


@dataclass(frozen=True)
class Snapshot:
    """All pools of a host at one moment."""

    source: str
    counts: Mapping[str, Counts]
    """by pool; ethtool names none but the queue, or sums all as ``all``"""
    states: Mapping[str, State]
    """by pool; empty without a dump of ``page-pool-get``"""


def read(paths: Sequence[Path]) -> Snapshot:
    """A snapshot from files that were written at one moment.

    Raises:
        CountersError: a file cannot be read, or holds no counters of a page_pool.
    """
    snapshots = [_parsed(str(path), _text(path)) for path in paths]
    return Snapshot(
        source=", ".join(snapshot.source for snapshot in snapshots),
        counts=_joined("counters", snapshots, [snapshot.counts for snapshot in snapshots]),
        states=_joined("states", snapshots, [snapshot.states for snapshot in snapshots]),
    )


def _joined(what: str, snapshots: Sequence[Snapshot], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for snapshot, part in zip(snapshots, parts, strict=True):
        for pool in part:
            if pool in found:
                raise CountersError(
                    f"{snapshot.source}: {what} of pool {pool} once more; name the files of one moment, and "
                    "those of a later one with --then"
                )
        found |= part
    return found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CountersError(f"{path}: over {MOST_BYTES >> 20} MiB; name a dump of counters")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CountersError(f"{path}: not text; name output of ethtool -S, or JSON of netlink") from None
    except OSError as error:
        raise CountersError(f"{path}: {error.strerror}; name a file of counters") from None


def _parsed(source: str, text: str) -> Snapshot:
    if text.lstrip()[:1] in ("[", "{"):
        return of_dump(source, _json(source, text))
    counts = _ethtool(source, text)
    if not counts:
        raise CountersError(
            f"{source}: no page_pool counter in it; ethtool -S prints some for drivers that export them, "
            "with "
            "CONFIG_PAGE_POOL_STATS. Of netlink give JSON (ynl --output-json)"
        )
    return Snapshot(source, counts, {})


def _json(source: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CountersError(f"{source}: truncated or no JSON ({error}); dump it again") from None


def _ethtool(source: str, text: str) -> dict[str, dict[str, int]]:
    """By queue where the driver counts by queue, else all together: drivers print both."""
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        if match := _ETHTOOL_LINE.fullmatch(line):
            pool = match["prefix"].rstrip("_.") if any(map(str.isdigit, match["prefix"])) else "all"
            name = _ETHTOOL_NAMES[match["name"]]
            if name in found.setdefault(pool, {}):
                raise CountersError(
                    f"{source}: {name} of {pool} twice; give ethtool -S of one interface, at one moment"
                )
            found[pool][name] = int(match["count"])
    if len(found) > 1:
        found.pop("all", None)
    for pool, counts in found.items():
        _complete(source, pool, counts)
    return found


def of_dump(source: str, dump: Any) -> Snapshot:
    """A snapshot from a dump of ``page-pool-stats-get`` or ``page-pool-get``: objects by the names of the
    published family specification. An empty one is an answer: no pool is visible.

    Raises:
        CountersError: it is something else.
    """
    if not isinstance(dump, list) or not all(isinstance(item, dict) for item in dump):
        raise CountersError(f"{source}: not a list of pools; give the whole dump")
    counts: dict[str, Counts] = {}
    states: dict[str, State] = {}
    for item in dump:
        if "info" in item:
            info = item["info"] if isinstance(item["info"], dict) else {}
            pool = str(_count(source, "info", info, "id"))
            kept = {name: item.get(name.replace("_", "-")) for name in COUNTERS}
            counts[pool] = _complete(
                source, pool, {name: value for name, value in kept.items() if value is not None}
            )
        else:
            pool = str(_count(source, "pool", item, "id"))
            states[pool] = State(_count(source, f"pool {pool}", item, "inflight"), "detach-time" in item)
    return Snapshot(source, counts, states)


def _count(source: str, where: str, item: Mapping[str, Any], name: str) -> int:
    value = item.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise CountersError(
            f"{source}: {where}: {name} = {value!r}; give a dump of page-pool-get or page-pool-stats-get"
        )
    return value


def _complete(source: str, pool: str, counts: Mapping[str, Any]) -> Counts:
    missing = [name for name in COUNTERS if name not in counts]
    if missing:
        raise CountersError(
            f"{source}: pool {pool}: {', '.join(missing[:3])} missing; is the file truncated? Dump it again"
        )
    return {name: _count(source, f"pool {pool}", counts, name) for name in COUNTERS}


def summed(counts: Iterable[Counts]) -> Counts:
    """Counters of several pools together."""
    listed = list(counts)
    return {name: sum(one[name] for one in listed) for name in COUNTERS}


def difference(before: Snapshot, after: Snapshot) -> dict[str, Counts]:
    """What was counted between two snapshots, by pool; a pool that is new counts from its start.

    Raises:
        CountersError: a counter went backwards, or the snapshots have no pool in common.
    """
    found: dict[str, Counts] = {}
    for pool, counts in after.counts.items():
        earlier = before.counts.get(pool, dict.fromkeys(COUNTERS, 0))
        for name in COUNTERS:
            if counts[name] < earlier[name]:
                raise CountersError(
                    f"{after.source}: {name} of pool {pool} goes back from {earlier[name]} to "
                    f"{counts[name]}: "
                    "another boot, host or pool; take both snapshots in one go"
                )
        found[pool] = {name: counts[name] - earlier[name] for name in COUNTERS}
    if before.counts and after.counts and not before.counts.keys() & after.counts.keys():
        raise CountersError(
            f"{after.source}: no pool of {before.source} in it; take both snapshots of one host in one go"
        )
    return found
