"""Variants of the pool by name: the kernel's own, one that ships, or a class in a user's file.

A name is ``kernel``, the name of a file in ``pool_impl/variants``, ``FILE.py:CLASS`` with a path (relative to
the working directory), or ``MODULE:CLASS`` for ``MODULE.py`` there. ``:CLASS`` may be left out where a file
has one variant only. See :mod:`pool_impl.variant` for what stands in such a file.
"""

import difflib
import hashlib
import os
import re
import sys
import types
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numba
import numpy as np
from numba.core.errors import NumbaError

from pool_impl import variant as decisions
from pool_impl.errors import VariantError
from pool_impl.host import new_host
from pool_impl.jit import OPTIONS, POOL_IMPL_DIGEST, entry
from pool_impl.layout import CACHE_CAPACITY, Host
from pool_impl.pool import PoolParams, create
from pool_impl.release import rules_of
from workers.errors import ConfigError
from workers.fields.groups import KERNEL_VARIANT
from workers.files import Stamp, stamp

SHIPPED = Path(decisions.__file__).parent / "variants"

FIELD = "pool.variant"


class Source(NamedTuple):
    """A file with variants."""

    path: Path
    sha256: str
    """of its bytes"""
    text: bytes


class Loaded(NamedTuple):
    """A variant that is ready to be compiled."""

    instance: Any
    """goes into ``Host.variant``"""
    identity: str
    """content and class, which decide what it does; ``kernel`` for the kernel's own"""
    code: str
    """names the place of its compiled code beside the kernel's, for which it is empty"""


@cache
def names() -> tuple[str, ...]:
    """The variants that ship beside the kernel's own, sorted."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("[a-z]*.py")))


def source(name: str) -> Source | None:
    """The file that a name stands for; None for the kernel's own behaviour.

    Raises:
        ConfigError: no such variant, or its file cannot be read.
    """
    if name == KERNEL_VARIANT:
        return None
    try:
        return _read(stamp(_place(name)[0]))
    except OSError as error:
        _fail(name, f"{_place(name)[0]}: {error.strerror}; name a Python file that can be read")


def stored_name(name: str, path: Path) -> str:
    """The name of the same variant when its file is kept elsewhere, under whatever name."""
    chosen = _place(name)[1]
    return f"{path}:{chosen}" if chosen else str(path)


def load(name: str) -> Loaded:
    """Run a variant's file and check that what it names is one; a file that did not change is run once.

    Raises:
        ConfigError: no such variant, or its file breaks.
    """
    found = source(name)
    if found is None:
        return Loaded(decisions.Kernel(), KERNEL_VARIANT, "")
    return _load(name, _place(name)[1], found)


def check(loaded: Loaded, name: str, kernel: str, pool_size: int) -> None:
    """Ask a variant for each decision in a new pool of this release and size.

    Raises:
        ConfigError: it cannot be compiled, decides by something else than a number, or a limit is out
            of range.
    """
    host = new_host(rules_of(kernel), pages=1, variant=loaded.instance)
    create(host, 0, PoolParams(pool_size=pool_size))
    try:
        answers = _asked(loaded.code)(host)
    except Exception as error:  # noqa: BLE001 - whatever a user's methods or their compilation may raise
        _fail(name, f"{_culprit(host, error)}; correct the method")
    for decision, answer in zip(decisions.DECISIONS, answers, strict=True):
        if not isinstance(answer, int | np.integer | np.bool_):
            _fail(name, f"{decision} gives {answer!r}; let it return an integer, or true or false")
    for decision, answer in zip(decisions.DECISIONS[:2], answers[:2], strict=True):
        if not 1 <= answer <= CACHE_CAPACITY:
            _fail(
                name,
                f"{decision} gives {answer} for a ring of {host.pools[0].ring_size}; "
                f"let it return 1..{CACHE_CAPACITY}",
            )


def _place(name: str) -> tuple[Path, str]:
    """File and class of a name; no class where it has none.

    Raises:
        ConfigError: neither a file nor a variant that ships.
    """
    place, _, chosen = name.rpartition(":")
    if not place or not chosen.isidentifier():
        place, chosen = name, ""
    if place in names():
        return SHIPPED / f"{place}.py", chosen
    if place.endswith(".py") or os.sep in place:
        return Path(place), chosen
    if chosen:
        return Path(place.replace(".", os.sep) + ".py"), chosen
    known = (KERNEL_VARIANT, *names())
    near = difflib.get_close_matches(place, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}" if near else f"known are {', '.join(known)}"
    _fail(name, f"unknown variant; {hint}, or name a file of your own as FILE.py:CLASS")


@lru_cache(maxsize=64)
def _read(file: Stamp) -> Source:
    text = file.path.read_bytes()
    return Source(file.path, hashlib.sha256(text).hexdigest(), text)


@lru_cache(maxsize=64)
def _load(name: str, chosen: str, found: Source) -> Loaded:
    module = _module(name, found)
    defined = [
        key
        for key, value in vars(module).items()
        if decisions.is_variant(value) and value.__module__ == module.__name__
    ]
    if not chosen:
        if len(defined) != 1:
            has = (
                f"has {', '.join(defined)}; add one as :CLASS"
                if defined
                else "has none; see pool_impl.variant"
            )
            _fail(name, f"{found.path}: name one variant: the file {has}")
        chosen = defined[0]
    made = getattr(module, chosen, None)
    if made is None:
        _fail(name, f"{found.path}: no {chosen} there; it has {', '.join(defined) or 'no variant'}")
    if not decisions.is_variant(made):
        _fail(
            name, f"{found.path}: {chosen} is no variant; make it a class and decorate it with @pool_variant"
        )
    if getattr(module, made.__qualname__, None) is not made and made.__module__ == module.__name__:
        # compiled code is cached under the name of its types
        _fail(name, f"{found.path}: {chosen} is hidden in {made.__qualname__}; put it at the top of the file")
    return Loaded(made(), f"{found.sha256}:{made.__qualname__}", found.sha256[:16])


def _module(name: str, found: Source) -> types.ModuleType:
    """The file's content as a module, run once for the same content wherever it lies: cached code names
    its types by module, and must never meet another version of them."""
    called = f"pool_variant_{found.sha256[:16]}"
    if called in sys.modules:
        return sys.modules[called]
    module = types.ModuleType(called)
    module.__file__ = str(found.path)
    sys.modules[called] = module
    try:
        exec(compile(found.text, found.path, "exec"), vars(module))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's file may raise
        del sys.modules[called]
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = error.msg if isinstance(error, SyntaxError) else _shortened(error)
        kind = "" if isinstance(error, VariantError) else f"{type(error).__name__}: "
        _fail(name, f"{found.path}{line}: {kind}{reason}; correct the file")
    return module


@cache
def _asked(code: str) -> Any:
    return entry(f"{POOL_IMPL_DIGEST}-{code}")(_ask)


def _ask(host: Host) -> Any:
    return (
        host.variant.cache_limit(host, host.pools[0]),
        host.variant.refill_limit(host, host.pools[0]),
        host.variant.destination(host, host.pools[0], 1, False),
        host.variant.skb_recycles(host, 1, True),
    )


_ARGUMENTS: tuple[Callable[[Host], tuple[Any, ...]], ...] = (
    lambda host: (host, host.pools[0]),
    lambda host: (host, host.pools[0]),
    lambda host: (host, host.pools[0], 1, False),
    lambda host: (host, 1, True),
)
"""what each decision is asked with"""


def _culprit(host: Host, error: Exception) -> str:
    """Which decision fails and why; compiled alone, as the error of all together is long."""
    for decision, arguments in zip(decisions.DECISIONS, _ARGUMENTS, strict=True):
        method = vars(type(host.variant))[decision]
        try:
            numba.njit(**OPTIONS)(method)(host.variant, *arguments(host))
        except Exception as alone:  # noqa: BLE001 - as above
            return f"{decision} cannot be compiled: {_essence(alone, method.__code__.co_filename)}"
    return f"cannot be compiled: {_essence(error, '')}"


MOST_LETTERS = 160
"""of a foreign error that are repeated"""


def _essence(error: Exception, file: str) -> str:
    """What a compiler's error says and where in a file, without its account of what was tried."""
    text = str(error)
    if "NRT required" in text:
        said = "it makes an object, such as a list or an array; use plain numbers"
    else:
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("Failed in")]
        told = 2 if lines and lines[0].endswith(":") else 1
        said = _shortened(" ".join(lines[:told]))
        if not isinstance(error, NumbaError):
            said = f"{type(error).__name__}: {said}"
    place = re.search(rf'^ *File "[^"]*{re.escape(Path(file).name)}", line (\d+)', text, flags=re.MULTILINE)
    return f"line {place[1]}: {said}" if place else said


def _shortened(error: object) -> str:
    words = " ".join(str(error).split())
    return words if len(words) <= MOST_LETTERS else words[: MOST_LETTERS - 3] + "..."


def _fail(name: str, remedy: str) -> NoReturn:
    raise ConfigError(FIELD, name, remedy)
