"""Architecture profiles: what one operation costs on a machine, and who says so.

A profile is a TOML file with ``title``, ``description``, an optional ``parent`` (a bundled name, or a
.toml file beside it) and one table per parameter::

    [dram_ns]
    value = 95
    low = 90            # low and high default to value
    high = 96
    certainty = "verified"
    source = "AnandTech, Xeon E5-2699 v4"
    note = "..."        # optional
    row = "intel_broadwell_ep dram_latency"     # optional: row of the table of sources

A child replaces whole tables of its parent, since a source belongs to its value. If it states how many cycles
its core takes for the parent's work, in a table ``cycles_of_parent``, then the times of instructions that it
does not state itself are the parent's, scaled by that and by the clock (see ``scale``). After that a
profile has every parameter of :data:`PARAMETERS`; nothing else is filled in by code.
"""

import hashlib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from workers.errors import ProfileError
from workers.files import Stamp, stamp
from workers.profiles.parameters import CYCLES_OF_PARENT, PARAMETERS, Parameter
from workers.profiles.profile_rules import (
    HEADER,
    KEYS,
    check_complete,
    check_table,
    fail,
    nearest,
    unknown_parameter,
)
from workers.profiles.scale import scaled

BUNDLED = Path(__file__).parents[1] / "archs"


@dataclass(frozen=True, eq=False)
class Profile:
    """An architecture: every parameter of :data:`PARAMETERS`, inheritance resolved."""

    name: str
    title: str
    description: str
    path: Path
    parameters: Mapping[str, Parameter]
    """in the order of :data:`PARAMETERS`"""
    free_misses: tuple[str, ...] = ()
    """of which objects (``workers.pricing.cache.MISSES``) cache misses cost nothing: only in a what-if, see
    :func:`varied`"""

    def __getitem__(self, parameter: str) -> float:
        """The value of a parameter, in the unit of its name."""
        return self.parameters[parameter].value

    @cached_property
    def canonical(self) -> str:
        """The resolved profile as one TOML file in fixed order and spelling; :func:`load` reads it back."""
        lines = [f"title = {_quoted(self.title)}", f"description = {_quoted(self.description)}"]
        for parameter in self.parameters.values():
            lines += ["", f"[{parameter.name}]"]
            lines += [f"{key} = {_quoted(getattr(parameter, key))}" for key in KEYS]
        return "\n".join(lines) + "\n"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of :attr:`canonical`, in hexadecimal."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


def names() -> tuple[str, ...]:
    """The bundled architectures, sorted."""
    return tuple(sorted(path.stem for path in BUNDLED.glob("*.toml")))


def load(name: str) -> Profile:
    """Read a profile; files that did not change are read only once.

    Args:
        name: a bundled architecture (see :func:`names`) or a path: what ends in .toml or holds a slash.

    Raises:
        ProfileError: unknown architecture, or a malformed or incomplete profile.
    """
    if name in _VARIED:
        return _VARIED[name]
    known = _LOADED.get(name)
    if known is not None and all(_unchanged(file) for file in known[0]):
        return known[1]
    files = tuple(_lineage(name))
    profile = _resolve(files)
    if os.path.isabs(name) or name in names():
        # what another name stands for depends on the working directory
        _LOADED[name] = (files, profile)
    return profile


def _unchanged(file: Stamp) -> bool:
    try:
        return stamp(file.path) == file
    except OSError:
        return False


_LOADED: dict[str, tuple[tuple[Stamp, ...], Profile]] = {}
"""profiles by name, with the files that they came from; a trial asks for its profile many times"""


_VARIED: dict[str, Profile] = {}


@contextmanager
def varied(name: str, values: Mapping[str, float], free_misses: Sequence[str] = ()) -> Iterator[str]:
    """A what-if: a profile with other values of some parameters, without a file.

    Args:
        name: of the profile, as for :func:`load`.
        values: by parameter; neither its range nor the order of parameters holds for them.
        free_misses: see :class:`Profile`.

    Yields:
        The name by which :func:`load` knows the profile, in this process and inside the block.
    """
    profile = load(name)
    changed = {key: profile.parameters[key]._replace(value=float(value)) for key, value in values.items()}
    listed = ", ".join([*(f"{key} = {value:g}" for key, value in values.items()), *free_misses])
    what_if = f"{name} with {listed}"
    parameters = MappingProxyType({**profile.parameters, **changed})
    _VARIED[what_if] = replace(profile, parameters=parameters, free_misses=tuple(free_misses))
    try:
        yield what_if
    finally:
        del _VARIED[what_if]


class _Document(NamedTuple):
    title: str
    description: str
    parent: str
    parameters: dict[str, Parameter]
    cycles: Parameter | None
    """those of the parent's work"""


def _lineage(name: str) -> Iterable[Stamp]:
    """The files of a profile from the child to its oldest ancestor."""
    if name.endswith(".toml") or os.sep in name:
        file = _stamp(Path(name), f"arch = {name!r}")
    else:
        file = _stamp(_bundled(name, "arch"), f"arch = {name!r}")
    seen = set()
    while True:
        yield file
        seen.add(file.path.resolve())
        parent = _parse(file).parent
        if not parent:
            return
        where = f"{file.path}: parent"
        path = file.path.parent / parent if parent.endswith(".toml") else _bundled(parent, where)
        if path.resolve() in seen:
            fail(where, parent, "leads back to this profile; name one that does not inherit from it")
        file = _stamp(path, f"{where} = {parent!r}")


def _bundled(name: str, where: str) -> Path:
    if name not in names():
        remedy = f"unknown architecture; {nearest(name, names())}, or name a .toml file of your own"
        fail(where, name, remedy)
    return BUNDLED / f"{name}.toml"


def _stamp(path: Path, where: str) -> Stamp:
    try:
        return stamp(path)
    except OSError as error:
        raise ProfileError(f"{where}: {error.strerror}; name a profile that exists") from None


@lru_cache(maxsize=64)
def _resolve(files: tuple[Stamp, ...]) -> Profile:
    child = _parse(files[0])
    found: dict[str, Parameter] = {}
    elder = ""
    for file in reversed(files):
        document = _parse(file)
        if document.cycles and "clock_ghz" in found:
            clock_ghz = document.parameters.get("clock_ghz", found["clock_ghz"]).value
            found |= scaled(elder, found, clock_ghz, document.cycles)
        found |= document.parameters
        elder = file.path.stem
    path = files[0].path
    check_complete(path, found)
    parameters = MappingProxyType({name: found[name] for name in PARAMETERS})
    return Profile(path.stem, child.title, child.description, path, parameters)


@lru_cache(maxsize=64)
def _parse(file: Stamp) -> _Document:
    try:
        content = tomllib.loads(file.path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"{file.path}: cannot be read ({error.strerror}); check its permissions") from None
    except ValueError as error:
        raise ProfileError(f"{file.path}: not a TOML file ({error}); correct it") from None
    header = {key: content.pop(key, "") for key in HEADER}
    for key, value in header.items():
        if not isinstance(value, str) or (key != "parent" and not value.strip()):
            fail(f"{file.path}: {key}", value, "write a text")
    cycles = None
    if CYCLES_OF_PARENT in content:
        where = f"{file.path}: {CYCLES_OF_PARENT}"
        cycles = check_table(where, CYCLES_OF_PARENT, content.pop(CYCLES_OF_PARENT))
        if not header["parent"]:
            raise ProfileError(f"{where}: there is no parent; name one, or leave this out")
    parameters = {}
    for name, table in content.items():
        if name not in PARAMETERS:
            raise ProfileError(f"{file.path}: {name}: {unknown_parameter(name)}")
        parameters[name] = check_table(f"{file.path}: {name}", name, table)
    return _Document(**header, parameters=parameters, cycles=cycles)


def _quoted(value: str | float) -> str:
    # a JSON string is a TOML string as well, and repr gives the shortest exact number
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
