"""Aggregates over the records of a run: the one place where results are combined.

A cell is a combination of the swept fields; its measures are medians over its seeds, with the
smallest and the largest value beside them. Quantiles are those of all packets of all seeds together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, NamedTuple

from farm.errors import StoreError
from farm.store.rows import text_fields
from farm.store.runs import Run
from workers.books.histogram import PS_PER_NS, merged, quantile_ns
from workers.config import TrialConfig, field, fields
from workers.fields.derived import cpu_roles
from workers.fields.groups import Value
from workers.measures import CATEGORIES, HISTOGRAMS, MEASURES, QUANTILES, TIME_BY_CPU


@dataclass(frozen=True)
class Cell:
    """One cell of a run and what its seeds yielded."""

    fields: Mapping[str, Value]
    """configuration by dotted name, without the seed; as the store types it"""
    axes: tuple[str, ...]
    """names of the swept fields, in the order of the sweep"""
    measures: Mapping[str, float]
    """median over the seeds, by name of the measure, quantiles over all that the seeds counted; without those
    that no seed could measure"""
    low: Mapping[str, float]
    """smallest over the seeds"""
    high: Mapping[str, float]
    """largest over the seeds"""
    seeds: int
    """how many seeds the cell has records of"""


@dataclass(frozen=True)
class Gain:
    """What recycling gains in one configuration: the cells with it off and on."""

    on: Cell
    off: Cell

    @property
    def gain(self) -> float:
        """Busy time per packet off / on - 1."""
        return self.off.measures["busy_ns_per_packet"] / self.on.measures["busy_ns_per_packet"] - 1


def axes(run: Run) -> dict[str, tuple[Value, ...]]:
    """The swept fields of a run and their values, typed as in its records."""
    return {name: tuple(_stored(name, v) for v in values) for name, values in run.sweep.axes().items()}


def cells(run: Run) -> list[Cell]:
    """The cells of a run that have a record, in the order of the sweep's axes.

    Raises:
        farm.errors.StoreError: the run is damaged.
    """
    swept = axes(run)
    names = [field.name for field in fields() if field.name != "seed"]
    measures = [measure.name for measure in MEASURES]
    aggregated = ", ".join(
        f'median("{m}") AS "median {m}", min("{m}") AS "low {m}", max("{m}") AS "high {m}"' for m in measures
    )
    group = ", ".join(f'"{name}"' for name in names)
    aggregated += "".join(f', CASE WHEN count(*) > 1 THEN list("{h}") END AS "{h}"' for h in HISTOGRAMS)
    rows = run.query("records", f"SELECT {group}, count(*) AS seeds, {aggregated} FROM records GROUP BY ALL")
    found = [
        Cell(
            fields={name: row[name] for name in names},
            axes=tuple(swept),
            measures=_present(row, "median") | _quantiles(row),
            low=_present(row, "low"),
            high=_present(row, "high"),
            seeds=row["seeds"],
        )
        for row in rows
    ]
    order = {name: {value: index for index, value in enumerate(values)} for name, values in swept.items()}
    try:
        found.sort(key=lambda cell: [order[name][cell.fields[name]] for name in swept])
    except KeyError as error:
        raise StoreError(
            f"{run.place / 'sweep.toml'}: does not name {error.args[0]!r}, which the records hold; "
            "restore the file, or start a new run"
        ) from None
    return found


def _present(row: Mapping[str, Any], statistic: str) -> dict[str, float]:
    named = {measure.name: row[f"{statistic} {measure.name}"] for measure in MEASURES}
    return {name: value for name, value in named.items() if value is not None}


def _quantiles(row: Mapping[str, Any]) -> dict[str, float]:
    """Of the histograms of several seeds together; of one, they are in its record."""
    counts = {name: merged(one for one in row[name] or () if one is not None) for name in HISTOGRAMS}
    found = {name: quantile_ns(counts[histogram], share) for name, (histogram, share) in QUANTILES.items()}
    return {name: value for name, value in found.items() if value is not None}


def times_by_cpu(run: Run) -> list[dict[str, dict[str, float]]]:
    """Busy nanoseconds per packet of each cell by CPU and category, over all packets of all seeds; cells in
    the order of :func:`cells`, CPUs by what they are there for, such as ``queue 0``; without what is 0.

    Raises:
        farm.errors.StoreError: the run is damaged.
    """
    names = [field.name for field in fields() if field.name != "seed"]
    group = ", ".join(f'"{name}"' for name in names)
    pairs = f"list({{'busy': busy_ns_per_packet, 'spent': {TIME_BY_CPU}}}) AS seeds"
    rows = run.query("records", f"SELECT {group}, {pairs} FROM records GROUP BY ALL")
    found = {_key(row, names): _by_cpu(row) for row in rows}
    return [found[_key(cell.fields, names)] for cell in cells(run)]


def _key(row: Mapping[str, Any], names: Sequence[str]) -> tuple[Value, ...]:
    return tuple(row[name] for name in names)


def _by_cpu(row: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    seeds = [seed for seed in row["seeds"] if seed["busy"]]
    # how many packets a seed had follows from its time for each of them
    packets = sum(sum(seed["spent"][1::2]) / PS_PER_NS / seed["busy"] for seed in seeds)
    roles = cpu_roles(_config(row))
    spent_ps = merged(seed["spent"] for seed in seeds)
    found: dict[str, dict[str, float]] = {}
    for index in sorted(spent_ps):
        cpu, category = divmod(index, len(CATEGORIES))
        found.setdefault(roles[cpu], {})[CATEGORIES[category]] = spent_ps[index] / PS_PER_NS / packets
    return found


def _config(row: Mapping[str, Any]) -> TrialConfig:
    """The configuration of a row, but for its seed."""
    return TrialConfig.unchecked(
        {
            one.name: field(one.name).parse(row[one.name]) if one.name in text_fields() else row[one.name]
            for one in fields()
            if one.name != "seed"
        }
    )


class Merged(NamedTuple):
    """A histogram of all packets of all seeds of a cell."""

    counts: Mapping[int, int]
    """by bucket, see :mod:`workers.books.histogram`"""
    sum_ns: float
    """of all that was counted, from the exact means of the seeds; 0 where records hold no mean"""


_MEANS = {"latency_histogram": "latency_mean_ns"}
"""measures that are the exact mean of what a histogram counts"""


def histograms(run: Run, cells: Sequence[Cell]) -> list[dict[str, Merged]]:
    """The histograms of each of these cells by column of the records, exactly those of all its packets.

    Raises:
        farm.errors.StoreError: the run is damaged.
    """
    names = [field.name for field in fields() if field.name != "seed"]
    group = ", ".join(f'"{name}"' for name in names)
    pairs = ", ".join(
        f"list({{'counts': \"{column}\", 'mean': {_MEANS.get(column, 'NULL')}}}) AS \"{column}\""
        for column in HISTOGRAMS
    )
    rows = run.query("records", f"SELECT {group}, {pairs} FROM records GROUP BY ALL")
    found = {_key(row, names): {column: _merged(row[column]) for column in HISTOGRAMS} for row in rows}
    return [found[_key(cell.fields, names)] for cell in cells]


def _merged(seeds: Sequence[Mapping[str, Any]]) -> Merged:
    counted = [seed for seed in seeds if seed["counts"]]
    total = sum((seed["mean"] or 0.0) * sum(seed["counts"][1::2]) for seed in counted)
    return Merged(merged(seed["counts"] for seed in counted), total)


class Provenance(NamedTuple):
    """A model and versions that took part in a run."""

    model_digest: str
    versions: str
    """JSON by package"""


class Effort(NamedTuple):
    """What the attempts of a run took, together."""

    packets: int
    retries: int
    hosts: int
    compile_seconds: float
    """the longest"""
    last_trial_timestamp: float | None
    """when the newest trial ended, seconds since 1970; None before the first"""
    provenance: tuple[Provenance, ...]


def effort(run: Run) -> Effort:
    """What a run took.

    Raises:
        farm.errors.StoreError: the run is damaged.
    """
    provenance = run.query("attempts", "SELECT DISTINCT model_digest, versions FROM attempts ORDER BY ALL")
    sums = run.query(
        "attempts",
        "SELECT sum(packets) AS packets, sum(retries) AS retries, count(DISTINCT host) AS hosts, "
        "max(compile_seconds) AS compile_seconds, arg_max(started_at, started_at) AS started_at, "
        "arg_max(wall_seconds, started_at) AS wall_seconds FROM attempts",
    )
    if not provenance:
        return Effort(0, 0, 0, 0.0, None, ())
    (row,) = sums
    return Effort(
        packets=int(row["packets"]),
        retries=int(row["retries"]),
        hosts=int(row["hosts"]),
        compile_seconds=float(row["compile_seconds"]),
        last_trial_timestamp=datetime.fromisoformat(row["started_at"]).timestamp() + row["wall_seconds"],
        provenance=tuple(Provenance(**one) for one in provenance),
    )


class TrialTimes(NamedTuple):
    """Real time that recorded trials of one kind took."""

    arch: str
    traffic_kind: str
    seconds: float
    trials: int


def trial_times(run: Run) -> list[TrialTimes]:
    """How long the recorded trials of a run took, by architecture and traffic.

    Raises:
        farm.errors.StoreError: the run is damaged.
    """
    taken = run.query("attempts", "SELECT trial_id, wall_seconds FROM attempts")
    seconds = {row["trial_id"]: row["wall_seconds"] for row in taken}
    times: dict[tuple[str, str], list[float]] = {}
    for row in run.query("records", 'SELECT trial_id, arch, "traffic.kind" AS kind FROM records'):
        if row["trial_id"] in seconds:
            times.setdefault((row["arch"], row["kind"]), []).append(seconds[row["trial_id"]])
    return [TrialTimes(*key, sum(values), len(values)) for key, values in sorted(times.items())]


def gains(cells: Sequence[Cell]) -> list[Gain]:
    """Pair the cells with recycling on and off by everything else they have in common, in the order
    of the cells with recycling on. Left out are cells without a partner, and cells without a packet."""
    busy = [cell for cell in cells if cell.measures.get("busy_ns_per_packet")]
    off = {_without(cell, "pool.recycle"): cell for cell in busy if not cell.fields["pool.recycle"]}
    return [
        Gain(on=cell, off=off[key])
        for cell in busy
        if cell.fields["pool.recycle"] and (key := _without(cell, "pool.recycle")) in off
    ]


def gain_bounds(gain: Gain) -> tuple[float, float]:
    """The least and the most that a gain is by what single seeds yielded: the fastest seed off against the
    slowest on, and the reverse. Both have one sign where the intervals of on and off do not touch."""
    name = "busy_ns_per_packet"
    least = gain.off.low[name] / gain.on.high[name] - 1
    return least, gain.off.high[name] / gain.on.low[name] - 1


class GainSummary(NamedTuple):
    """What recycling gains in all configurations of a run."""

    pays: int
    """configurations in which every seed on is faster than every seed off"""
    costs: int
    """configurations in which every seed on is slower than every seed off"""
    median: float
    """of the configurations' gains, each configuration once"""
    low: float
    high: float


def gain_summary(found: Sequence[Gain]) -> GainSummary:
    """Of at least one gain."""
    bounds = [gain_bounds(gain) for gain in found]
    values = [gain.gain for gain in found]
    return GainSummary(
        pays=sum(low > 0 for low, _ in bounds),
        costs=sum(high < 0 for _, high in bounds),
        median=median(values),
        low=min(values),
        high=max(values),
    )


class Effect(NamedTuple):
    """How far apart values lie that differ in one axis only, or in axes that advance together."""

    axes: tuple[str, ...]
    median: float
    """over the groups of such values"""
    most: float
    groups: int


def effects(
    points: Sequence[tuple[Cell, float]],
    axes: Sequence[tuple[str, ...]],
    distance: Callable[[float, float], float],
) -> list[Effect]:
    """What each axis changes while all others stay, the largest median first; without axes that nowhere
    change alone.

    Args:
        points: one value for each cell.
        axes: swept fields; in one tuple those that advance together.
        distance: of the lowest and the highest value of a group.
    """
    found = []
    for together in axes:
        groups: dict[tuple[Value, ...], list[float]] = {}
        for cell, value in points:
            key = tuple(cell.fields[name] for name in cell.axes if name not in together)
            groups.setdefault(key, []).append(value)
        distances = [distance(min(group), max(group)) for group in groups.values() if len(group) > 1]
        if distances:
            found.append(Effect(together, median(distances), max(distances), len(distances)))
    return sorted(found, key=lambda effect: -effect.median)


def origins(run: Run) -> list[dict[str, Any]]:
    """Where the results of a run come from: one row for each model, set of versions, host and executor, with
    its trials, failures among them, start of the first and the last (UTC, ISO 8601), CPU seconds, packets
    and retries.

    Raises:
        farm.errors.StoreError: the run is damaged.
    """
    return run.query(
        "attempts",
        "SELECT model_digest, versions, host, executor, count(*) AS trials, "
        "min(started_at) AS first_started_at, max(started_at) AS last_started_at, "
        "sum(cpu_seconds) AS cpu_seconds, CAST(sum(packets) AS BIGINT) AS packets, "
        "CAST(sum(retries) AS BIGINT) AS retries FROM attempts "
        "GROUP BY model_digest, versions, host, executor ORDER BY first_started_at, host",
    )


def packet_rate(runs: Sequence[Run], model_digest: str) -> float | None:
    """Simulated packets per second of one core, from the stored attempts of this model, or None."""
    packets = seconds = 0.0
    for run in runs:
        sums = run.query(
            "attempts",
            "SELECT sum(packets) AS packets, sum(wall_seconds) AS seconds FROM attempts "
            "WHERE model_digest = $digest",
            {"digest": model_digest},
        )
        packets += sum(row["packets"] or 0 for row in sums)
        seconds += sum(row["seconds"] or 0 for row in sums)
    return packets / seconds if packets and seconds else None


def _without(cell: Cell, name: str) -> tuple[tuple[str, Value], ...]:
    return tuple((key, value) for key, value in cell.fields.items() if key != name)


def _stored(name: str, value: Value) -> Value:
    return str(value) if name in text_fields() else value
