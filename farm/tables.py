"""Results as text for a terminal: 80 columns, and clear without colour."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from rich.box import Box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from farm.query import Cell, Gain, gains
from farm.store.runs import Duplicates
from pool_impl.release import rules_of
from workers.fields.groups import Value
from workers.measures import CATEGORIES, Unit, by_name
from workers.profiles.parameters import PARAMETERS

HEADLINES = (
    "busy_ns_per_packet",
    "packets_handled_rate",
    "drop_ratio",
    "recycle_ratio",
    "memory_peak_bytes",
)
"""what a plain table shows of each cell"""

MOST_LISTED = 16
"""values of an axis that are all named"""

DETAILS = {
    "pages_left_behind": "left",
    "pages_not_returned": "not back",
    "drain_seconds": "drain s",
    "drain_forecast_seconds": "forecast s",
    "packets_dropped_xdp": "xdp drop",
    "packets_transmitted": "sent",
    "packets_redirected": "redirected",
    "packets_dropped_tx": "tx drop",
    "gro_packets_per_skb": "per skb",
    "page_cache_reuse": "reused",
    "page_cache_busy": "busy",
    "packets_dropped_backlog": "backlog drop",
    "packets_captured": "captured",
    "captures_dropped": "tap drop",
    "pages_in_application": "kept",
    "pages_in_tap": "tap",
    "pages_in_deferred": "deferred",
    "returns_declined": "declined",
    "packets_missed_without_page": "no page",
}
"""what a scenario may be about, and its head: shown where it is not zero in every cell"""

HOLDERS = ("pages_in_application", "pages_in_tap", "pages_in_deferred")
"""who has pages after they were read; how long the longest was held is shown beside them"""

MOST_DETAILS = 5
"""columns of them that a table has; all are in the records"""

MOST_CPUS = 6
"""of more, those of a kind share a column"""

_TABLE_FIELDS = ("arch", "pool.size", "pool.recycle")
"""fields with a place of their own in the table of gains"""

_BOX = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
"""a line of hyphens under the heads and a space between columns: eight columns fit into 80 characters"""

_SAME = 0.005
"""a relative change below this rounds to nothing in the sentences"""


def result(cells: Sequence[Cell]) -> RenderableType:
    """What a run found: gains of recycling if it was swept, else the headlines of each cell."""
    found = gains(cells)
    if not found:
        return plain(cells)
    by_arch = [
        (str(arch), list(group)) for arch, group in groupby(found, lambda gain: gain.on.fields["arch"])
    ]
    parts: list[RenderableType] = []
    if len(by_arch) > 1 and len(by_arch) == len(found):
        parts += [_gain_table("", found), Text()]
    else:
        for arch, group in by_arch:
            parts += [_gain_table(arch, group), Text()]
    seeds = sorted({gain.on.seeds for gain in found} | {gain.off.seeds for gain in found})
    kernels = sorted({str(gain.off.fields["kernel"]) for gain in found})
    parts.append(Text(_legend(seeds, kernels), style="dim"))
    parts.append(Text(f"\n{where_it_pays(found)}"))
    if size := what_the_size_changed(found):
        parts.append(Text(size))
    return Group(*parts)


def plain(cells: Sequence[Cell]) -> RenderableType:
    """One row per cell: its axes and the headline measures."""
    if not cells:
        return Text("no records")
    axes = _varying(cells[0].axes, [cell.fields for cell in cells])
    table = _table([*axes, "ns/packet", "packets/s", "drops", "recycled", "memory"], len(axes))
    for cell in cells:
        values = [in_unit(by_name()[name].unit, cell.measures.get(name)) for name in HEADLINES]
        table.add_row(*(word(cell.fields[name]) for name in axes), *values)
    more = _details(cells, axes)
    return table if more is None else Group(table, Text(), more)


def _details(cells: Sequence[Cell], axes: Sequence[str]) -> Table | None:
    """One row per cell: its axes and what its scenario is about; None if nothing of that happened."""

    def happens(measure: str) -> bool:
        return any(cell.measures.get(measure) for cell in cells)

    heads = {measure: head for measure, head in DETAILS.items() if happens(measure)}
    if any(map(happens, HOLDERS)):
        heads = {"hold_max_ns": "held ns", **heads}
    if not heads:
        return None
    shown = list(heads)[:MOST_DETAILS]
    table = _table([*axes, *(heads[measure] for measure in shown)], len(axes))
    for cell in cells:
        values = [in_unit(by_name()[measure].unit, cell.measures.get(measure)) for measure in shown]
        table.add_row(*(word(cell.fields[name]) for name in axes), *values)
    return table


def estimates(found: Mapping[str, int]) -> str:
    """How many cost parameters of each architecture nobody has measured."""
    each = ", ".join(f"{arch} {number}" for arch, number in found.items())
    return f"Estimates, of {len(PARAMETERS)} numbers of a profile (farm arch show): {each}."


def cpus(cells: Sequence[Cell], times: Sequence[Mapping[str, Mapping[str, float]]]) -> RenderableType:
    """Busy nanoseconds per packet by category and CPU, a table for each cell.

    Args:
        times: of each cell, by CPU and category.
    """
    if not cells:
        return Text("no records")
    axes = _varying(cells[0].axes, [cell.fields for cell in cells])
    parts: list[RenderableType] = []
    for cell, by_cpu in zip(cells, times, strict=True):
        columns = by_cpu if len(by_cpu) <= MOST_CPUS else _by_role(by_cpu)
        title = words({name: cell.fields[name] for name in axes})
        table = _table(["ns per packet", *columns, "all"], 1, title=title)
        sums = {name: sum(by.get(name, 0) for by in columns.values()) for name in CATEGORIES}
        for name in sorted(filter(sums.__getitem__, sums), key=lambda name: -sums[name]):
            table.add_row(name, *(_spent(by.get(name)) for by in columns.values()), _spent(sums[name]))
        totals = [sum(by.values()) for by in columns.values()]
        table.add_row("all", *map(_spent, totals), _spent(sum(totals)))
        parts += [table, Text()]
    return Group(*parts[:-1])


def _by_role(by_cpu: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """All CPUs of a kind together."""
    found: dict[str, dict[str, float]] = {}
    for cpu, by_category in by_cpu.items():
        sums = found.setdefault(f"{cpu.rpartition(' ')[0]} CPUs", {})
        for name, spent_ns in by_category.items():
            sums[name] = sums.get(name, 0) + spent_ns
    return found


def _spent(spent_ns: float | None) -> str:
    return f"{spent_ns:,.1f}" if spent_ns else ""


def rows(
    heads: Sequence[str], body: Iterable[Sequence[str]], *, text_columns: int, unbroken: int = 0
) -> RenderableType:
    """A table of text: the first columns left, the others right; the first ``unbroken`` are never broken."""
    table = _table(heads, text_columns, unbroken=unbroken)
    for row in body:
        table.add_row(*row)
    return table


def word(value: Value) -> str:
    """A field's value as a user would type it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def words(fields: Mapping[str, Value]) -> str:
    """Fields and their values, likewise; empty if there is none."""
    return ", ".join(f"{name} = {word(value)}" for name, value in fields.items())


def in_unit(unit: Unit, value: float | None) -> str:
    """A measure's value for reading, "-" for none; the unit is shown where it is scaled."""
    if value is None:
        return "-"
    if unit == "bytes":
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
    if unit == "per second":
        return _scaled(value, 1000, ("", "k", "M", "G"))
    if unit == "ratio":
        return percent(value)
    if unit == "ns":
        return f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,.6g}"


def percent(ratio: float, *, sign: bool = False) -> str:
    """A ratio in percent with one decimal."""
    return f"{100 * ratio:{'+' if sign else ''}.1f}%"


def duration(seconds: float) -> str:
    """Seconds in the units people use."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def console() -> Console:
    """Standard output."""
    return Console(highlight=False, soft_wrap=False)


def _table(heads: Sequence[str], text_columns: int, title: str = "", unbroken: int = 0) -> Table:
    table = Table(
        box=_BOX,
        title=title or None,
        title_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        show_header=any(heads),
    )
    for i, head in enumerate(heads):
        # a dotted name on two lines is as narrow as its parts; a number is never broken
        table.add_column(
            head.replace(".", ".\n"),
            justify="left" if i < text_columns else "right",
            overflow="fold",
            no_wrap=i >= text_columns or i < unbroken,
            vertical="top",
        )
    return table


def _gain_table(arch: str, found: Sequence[Gain]) -> Table:
    """One row per gain; without a name for all, each row names its architecture."""
    axes = [] if arch else ["arch"]
    axes += [name for name in found[0].on.axes if name not in _TABLE_FIELDS]
    heads = [*axes, "pool", "ns on", "ns off", "gain", "recycled", "drops on/off", "memory on"]
    table = _table(heads, len(axes), title=arch)
    last: list[str] = []
    for gain in found:
        words = [word(gain.on.fields[name]) for name in axes]
        on, off = gain.on.measures, gain.off.measures
        table.add_row(
            *("" if words == last else text for text in words),
            word(gain.on.fields["pool.size"]),
            in_unit("ns", on["busy_ns_per_packet"]),
            in_unit("ns", off["busy_ns_per_packet"]),
            percent(gain.gain, sign=True),
            in_unit("ratio", on.get("recycle_ratio")),
            f"{100 * on['drop_ratio']:.1f}/{in_unit('ratio', off['drop_ratio'])}",
            in_unit("bytes", on["memory_peak_bytes"]),
        )
        last = words
    return table


def listed(values: Sequence[Value]) -> str:
    """The values of an axis, of many the first and the last."""
    words = [word(value) for value in values]
    if len(words) > MOST_LISTED:
        words = [*words[: MOST_LISTED // 2], "...", words[-1], f"{len(values):,} values"]
    return ", ".join(words)


def duplicates(found: Duplicates) -> str:
    """What two drivers on one run did, in words."""
    count = "1 trial was" if found.trials == 1 else f"{found.trials:,} trials were"
    return (
        f"{count} stored more than once, by {', '.join(found.starts)}; each counts once. Several drivers on "
        "one run only waste work."
    )


def _legend(seeds: Sequence[int], kernels: Sequence[str]) -> str:
    counts = " or ".join(map(str, seeds))
    plural = "" if counts == "1" else "s"
    forced = [kernel for kernel in kernels if not rules_of(kernel).drivers_release_pages]
    off = f"\noff is a counterfactual on {', '.join(forced)}, which always recycles." if forced else ""
    return (
        "ns: busy CPU time per packet with recycling on and off. gain: off / on - 1.\n"
        f"recycled and memory: with recycling on. Medians over {counts} seed{plural}.{off}"
    )


def where_it_pays(found: Sequence[Gain]) -> str:
    """The sentence about the configurations in which recycling gains most and least."""
    most = max(found, key=lambda gain: gain.gain)
    least = min(found, key=lambda gain: gain.gain)
    if len(found) == 1 or most.gain == least.gain:
        return f"Recycling {_pays(most)}."
    return (
        f"Recycling pays most on {place_of(most.on)}: it {_pays(most)}; "
        f"least on {place_of(least.on)}: it {_pays(least)}."
    )


def _pays(gain: Gain) -> str:
    on = in_unit("ns", gain.on.measures["busy_ns_per_packet"])
    off = in_unit("ns", gain.off.measures["busy_ns_per_packet"])
    what = "gains" if gain.gain >= 0 else "loses"
    return f"{what} {percent(abs(gain.gain))} ({off} ns off, {on} ns on)"


def what_the_size_changed(found: Sequence[Gain]) -> str:
    """The sentence about the pool size, with recycling on; empty if only one size was run."""
    by_place: dict[str, list[Cell]] = {}
    for gain in found:
        by_place.setdefault(place_of(gain.on, without="pool.size"), []).append(gain.on)
    groups = {place: cells for place, cells in by_place.items() if len(cells) > 1}
    if not groups:
        return ""

    def busy(cell: Cell) -> float:
        return cell.measures["busy_ns_per_packet"]

    def spread(cells: Sequence[Cell]) -> float:
        least = min(map(busy, cells))
        return max(map(busy, cells)) / least - 1 if least else 0.0

    place = max(groups, key=lambda name: spread(groups[name]))
    if spread(groups[place]) < _SAME:
        return f"The pool size changed busy time nowhere by more than {percent(_SAME)}."
    best, worst = min(groups[place], key=busy), max(groups[place], key=busy)
    return (
        f"The pool size changed most on {place}: {_at_size(best)} against {_at_size(worst)}; "
        f"busy time differs by {percent(spread(groups[place]))}."
    )


def _at_size(cell: Cell) -> str:
    def show(name: str) -> str:
        return in_unit(by_name()[name].unit, cell.measures.get(name))

    return (
        f"{show('busy_ns_per_packet')} ns, {show('recycle_ratio')} recycled and "
        f"{show('memory_peak_bytes')} at size {cell.fields['pool.size']}"
    )


def place_of(cell: Cell, without: str = "") -> str:
    """Where in the grid a cell is, in words."""
    left_out = ("arch", "pool.recycle", without)
    details = []
    for name in cell.axes:
        value = cell.fields[name]
        if name == "pool.size" and name not in left_out:
            details.append(f"pool {value}")
        elif name not in left_out:
            # a bare number or flag would not say of what
            details.append(word(value) if isinstance(value, str) else f"{name} {word(value)}")
    return f"{cell.fields['arch']}" + (f" ({', '.join(details)})" if details else "")


def _varying(names: Sequence[str], configs: Sequence[Mapping[str, Value]]) -> list[str]:
    return [name for name in names if len({config[name] for config in configs}) > 1] or list(names[:1])


def _scaled(value: float, step: int, units: Sequence[str]) -> str:
    index = 0
    while abs(value) >= step and index < len(units) - 1:
        value /= step
        index += 1
    return f"{value:.3g} {units[index]}".rstrip()
