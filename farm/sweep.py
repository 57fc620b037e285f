"""A sweep file becomes a specification: which fields are fixed, which are swept, how often.

The reader is strict: what it does not know is an error that names the nearest thing it does know.
The result is *resolved*: every field of a trial is either an axis or fixed, defaults filled in, and
:meth:`Sweep.to_toml` writes it as a sweep file again.
"""

import difflib
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from farm.errors import SweepError
from farm.seeds import SEEDS_LIMIT, Until, parse_until
from workers.config import TrialConfig, check_name, field, fields
from workers.fields.groups import Value

_TOP_LEVEL = ("name", "seeds", "fixed", "grid", "zip", "include", "exclude")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

Block = Mapping[str, tuple[Value, ...]]
"""fields with one or more values each"""


@dataclass(frozen=True)
class Sweep:
    """What to run. Field names are dotted; values have been checked one by one.

    Rules between fields are not checked here but by :class:`farm.plan.Plan`.
    """

    name: str
    seeds: int
    """seeds per cell, at most: 0, 1, ... seeds - 1"""
    fixed: Mapping[str, Value]
    """every field that is no axis of the grid or the zip, except the seed"""
    grid: Block
    """axes of which every combination is a cell"""
    zip: Block
    """axes that advance together; all of the same length"""
    include: tuple[Block, ...]
    """more cells: the product of the values named, over the fixed fields"""
    exclude: tuple[Block, ...]
    """cells of grid and zip that have one of the values in each of the fields named"""
    until: Until | None = None
    """when a cell has enough seeds, unless each has all of them"""

    @property
    def least_seeds(self) -> int:
        """Seeds that every cell gets where they matter."""
        return self.until.least if self.until else self.seeds

    def axes(self) -> dict[str, tuple[Value, ...]]:
        """Every swept field and its values, in the order of the file; those of includes last."""
        axes: dict[str, list[Value]] = {name: list(values) for name, values in self.grid.items()}
        axes |= {name: list(dict.fromkeys(values)) for name, values in self.zip.items()}
        for block in self.include:
            for name, values in block.items():
                known = axes.setdefault(name, [self.fixed[name]] if name in self.fixed else [])
                known += [value for value in values if value not in known]
        return {name: tuple(values) for name, values in axes.items()}

    def to_toml(self) -> str:
        """The same sweep as a file, canonical: equal sweeps give equal text."""
        seeds = self.until.to_toml() if self.until else self.seeds
        lines = [f"name = {_toml(self.name)}", f"seeds = {seeds}"]
        lines += ["", "[fixed]", *(f"{name} = {_toml(value)}" for name, value in self.fixed.items())]
        for title, block in (("[grid]", self.grid), ("[zip]", self.zip)):
            lines += ["", title, *_block_lines(block)] if block else []
        for title, blocks in (("[[include]]", self.include), ("[[exclude]]", self.exclude)):
            for block in blocks:
                lines += ["", title, *_block_lines(block)]
        return "\n".join(lines) + "\n"


def load(source: str, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep by path or by the name of one that ships with the package.

    Arguments:
        source: path of a TOML file, or a bundled name such as ``quickstart``.
        overrides: ``key=value`` as typed on the command line; ``pool.size=64,256`` makes an axis.

    Raises:
        SweepError: no such sweep, not TOML, unknown key, wrong shape.
        workers.errors.ConfigError: a field is unknown, or its value is out of range.
    """
    return parse(_read(source), source, overrides)


def parse(text: str, origin: str, overrides: Sequence[str] = ()) -> Sweep:
    """As :func:`load`, from the text of a sweep file; ``origin`` names it in messages."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SweepError(f"{origin}: not TOML: {error}") from None
    for key in document:
        if key not in _TOP_LEVEL:
            raise SweepError(f"{origin}: unknown key {key!r}; {_hint(key)}")
    seeds = document.get("seeds", 1)
    until = parse_until(seeds) if isinstance(seeds, dict) else None
    sweep = Sweep(
        name=_name(document.get("name")),
        seeds=until.most if until else _seeds(seeds),
        fixed=_fixed(_tables(document, "fixed", origin)[0]),
        grid=_axes(_tables(document, "grid", origin)[0], "grid"),
        zip=_axes(_tables(document, "zip", origin)[0], "zip"),
        include=tuple(_axes(t, "include", one=True) for t in _tables(document, "include", origin, many=True)),
        exclude=tuple(_axes(t, "exclude", one=True) for t in _tables(document, "exclude", origin, many=True)),
        until=until,
    )
    for override in overrides:
        sweep = _overridden(sweep, override)
    return _resolved(sweep)


def bundled() -> list[str]:
    """Names of the sweeps that ship with the package."""
    directory = resources.files("farm") / "sweeps"
    return sorted(entry.name[:-5] for entry in directory.iterdir() if entry.name.endswith(".toml"))


def summary(name: str) -> str:
    """What a bundled sweep is for: the comment that it starts with."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), _read(name).splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)


def _read(source: str) -> str:
    if source in bundled():
        return (resources.files("farm") / "sweeps" / f"{source}.toml").read_text()
    try:
        return Path(source).read_text()
    except FileNotFoundError:
        known = ", ".join(bundled())
        raise SweepError(
            f"sweep {source!r}: no such file; name a TOML file or a bundled sweep ({known})"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"sweep {source!r}: cannot be read ({error}); name a TOML file") from None


def _name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SweepError(
            f"name = {name!r}: use a plain word, not a path: at most 64 of a-z, 0-9, '.', '_' and '-'"
        )
    return name


def _seeds(seeds: object) -> int:
    if not isinstance(seeds, int) or isinstance(seeds, bool) or not 1 <= seeds <= SEEDS_LIMIT:
        raise SweepError(
            f"seeds = {seeds!r}: use an integer 1..{SEEDS_LIMIT}, or a table such as "
            '{ until = "busy_ns_per_packet", relative_ci = 0.01, max = 50 }'
        )
    return seeds


def _tables(
    document: Mapping[str, Any], key: str, origin: str, many: bool = False
) -> list[dict[str, object]]:
    """The tables under a key with dotted names; one, possibly empty, unless ``many``."""
    found = document.get(key, [] if many else {})
    tables = found if many else [found]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        form = f"[[{key}]]" if many else f"[{key}]"
        raise SweepError(f"{origin}: {key} = {found!r}: write it as a table, {form}")
    return [flat(table) for table in tables]


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """TOML reads dotted names as nested tables: the names again, with their values."""
    found: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _fixed(table: Mapping[str, object]) -> dict[str, Value]:
    return {name: _value(name, value) for name, value in table.items()}


def _axes(table: Mapping[str, object], key: str, one: bool = False) -> dict[str, tuple[Value, ...]]:
    """The axes of a table; ``one``: a single value may stand without brackets."""
    axes: dict[str, tuple[Value, ...]] = {}
    for name, values in table.items():
        _check_field(name)
        if one and not isinstance(values, list):
            values = [values]
        if not isinstance(values, list):
            raise SweepError(f"{key}: {name} = {values!r}: use a list, or set it under [fixed]")
        if not values:
            raise SweepError(f"{key}: {name} = []: an axis needs at least one value")
        axes[name] = tuple(_value(name, value) for value in values)
        if key != "zip" and len(set(map(repr, axes[name]))) < len(values):
            raise SweepError(f"{key}: {name} = {values!r}: names a value twice; leave one out")
    if one and not axes:
        raise SweepError(f"{key}: the table is empty; name at least one field")
    lengths = {name: len(values) for name, values in axes.items()}
    if key == "zip" and len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise SweepError(f"zip: axes that advance together need equally many values: {listed}")
    rows = list(zip(*axes.values(), strict=True)) if key == "zip" else []
    if len(set(map(repr, rows))) < len(rows):
        raise SweepError(f"zip: {', '.join(axes)}: a combination stands there twice; leave one out")
    return axes


def _value(name: str, value: object) -> Value:
    _check_field(name)
    if not isinstance(value, int | float | str | bool):
        raise SweepError(f"{name} = {value!r}: use a single value here; lists stand under [grid] or [zip]")
    config = TrialConfig.unchecked({name: value})
    group, _, leaf = name.rpartition(".")
    checked: Value = getattr(getattr(config, group) if group else config, leaf)
    return checked


def _check_field(name: str) -> None:
    if name == "seed":
        raise SweepError("seed: set seeds = N at the top of the sweep; each cell runs with seeds 0..N-1")
    check_name(name)


def _overridden(sweep: Sweep, override: str) -> Sweep:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals:
        raise SweepError(f"{override!r}: an override is written key=value, such as pool.size=64,256")
    if key == "name":
        return replace(sweep, name=_name(text))
    if key == "seeds":
        return replace(sweep, seeds=_seeds(int(text) if text.isdecimal() else text), until=None)
    if key != "seed" and key not in (known := [f.name for f in fields()]):
        near = difflib.get_close_matches(key, [*known, "name", "seeds"], n=1, cutoff=0.5)
        raise SweepError(
            f"{key}={text}: unknown field; " + (f"did you mean {near[0]}?" if near else "see farm fields")
        )
    _check_field(key)
    values = tuple(field(key).parse(part.strip()) for part in text.split(","))
    fixed = {name: value for name, value in sweep.fixed.items() if name != key}
    grid = dict(sweep.grid)
    zipped = {name: rows for name, rows in sweep.zip.items() if name != key}
    if len(values) > 1:
        grid[key] = _axes({key: list(values)}, "override")[key]
        include = [{**block, key: values} for block in sweep.include]
    else:
        grid.pop(key, None)
        fixed[key] = values[0]
        include = [{n: v for n, v in block.items() if n != key} for block in sweep.include]
    return replace(sweep, fixed=fixed, grid=grid, zip=zipped, include=tuple(filter(None, include)))


def _resolved(sweep: Sweep) -> Sweep:
    """Fill in the defaults and check that no field is set in two places."""
    swept = [*sweep.grid, *sweep.zip]
    for name in swept:
        if name in sweep.fixed or swept.count(name) > 1:
            raise SweepError(f"{name}: set in two of [fixed], [grid] and [zip]; keep one")
    for block in sweep.include:
        missing = [name for name in swept if name not in block]
        if missing:
            raise SweepError(f"include: {missing[0]} is swept and has no value here; name one")
    fixed = {
        f.name: sweep.fixed.get(f.name, f.default)
        for f in fields()
        if f.name not in swept and f.name != "seed"
    }
    return replace(sweep, fixed=fixed)


def _hint(key: str) -> str:
    places: dict[str, str] = {name: name for name in _TOP_LEVEL}
    names = [f.name for f in fields()]
    if key in names or key in {name.partition(".")[0] for name in names}:
        return "fields stand under [fixed], [grid] or [zip]"
    near = difflib.get_close_matches(key, places, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"use {', '.join(_TOP_LEVEL)}"


def _block_lines(block: Block) -> Iterable[str]:
    return (f"{name} = [{', '.join(map(_toml, values))}]" for name, values in block.items())


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # TOML basic strings have JSON's escapes, and DEL has to be escaped too
    return json.dumps(value).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)
