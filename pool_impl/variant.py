"""What a pool decides, and how a variant decides otherwise: the one module that a variant's file imports.

A variant is a class with some of the methods of :class:`Kernel`; what it leaves out stays the kernel's::

    from pool_impl.variant import CACHE, RELEASE, pool_variant

    @pool_variant
    class LocalOnly:
        def destination(self, host, pool, page, direct):
            return CACHE if direct else RELEASE

The methods are compiled into the pool's hot paths, as those of ``Host.observer`` and ``Host.access`` are:
the type of ``Host.variant`` selects them, and the kernel's own cost nothing. They may read what ``host``
(:class:`pool_impl.layout.Host`) and ``pool`` (a POOL record) hold and must not write to it. ``self`` has
nothing: constants and helpers stand beside the class, helpers decorated with ``compiled()``.

What keeps pages safe is not a variant's to decide: a page with other references or of the emergency
reserves leaves the pool whatever it says, and the cache is for the pool's consumer only.
"""

import collections
import difflib
import inspect
from typing import Any, NamedTuple

from pool_impl.errors import VariantError
from pool_impl.jit import compiled, methods
from pool_impl.layout import CACHE_CAPACITY, CACHE_SIZE, REFILL

__all__ = [
    "CACHE",
    "CACHE_CAPACITY",
    "CACHE_SIZE",
    "REFILL",
    "RELEASE",
    "RING",
    "Kernel",
    "compiled",
    "pool_variant",
]

RELEASE, RING, CACHE = range(3)
"""where a returned page goes: out of the pool, through the ring, or to the cache if there is room, else
through the ring. A full ring releases it"""


class Kernel(NamedTuple):
    """The decisions as the kernel takes them."""

    unused: int = 0

    def cache_limit(self, host: Any, pool: Any) -> int:
        """Pages that the alloc cache may hold, 1..CACHE_CAPACITY; cut to that when it changes later."""
        return CACHE_SIZE

    def refill_limit(self, host: Any, pool: Any) -> int:
        """Pages that one refill from the ring or the page allocator may bring into the empty cache; cut to
        1..cache_limit."""
        return REFILL

    def destination(self, host: Any, pool: Any, page: int, direct: bool) -> int:
        """RELEASE, RING or CACHE for a page that could be recycled. ``direct``: this is the pool's consumer;
        if it is not, CACHE means RING. A page that is released here counts as declined, not synced."""
        return CACHE if direct else RING

    def skb_recycles(self, host: Any, page: int, marked: bool) -> bool:
        """Whether an skb that is done with a page asks it for its pool; without a pool, or if not, it drops
        a plain reference. ``marked``: the skb has the recycle bit."""
        return marked


methods(Kernel)

DECISIONS = tuple(
    name for name, value in vars(Kernel).items() if inspect.isfunction(value) and name[0] != "_"
)
"""names of the methods that a variant may have"""


def pool_variant(described: type) -> Any:
    """Make a variant of a class that has some of the methods of :class:`Kernel`.

    Raises:
        VariantError: it has none of them, something else, or one with other parameters.
    """
    own = {name: value for name, value in vars(described).items() if not name.startswith("__")}
    for name, value in own.items():
        _check(f"{described.__name__}.{name}", name, value)
    if not own:
        raise VariantError(f"{described.__name__}: decides nothing; give it one of {', '.join(DECISIONS)}")
    # NamedTuple classes inherit no methods, so it becomes one by name and place
    made = collections.namedtuple(described.__name__, ["unused"], defaults=[0])  # type: ignore[misc]
    made.__module__ = described.__module__
    made.__qualname__ = described.__qualname__
    made.__doc__ = described.__doc__
    for name in DECISIONS:
        setattr(made, name, own.get(name, vars(Kernel)[name]))
    return made


def _check(where: str, name: str, value: Any) -> None:
    if name not in DECISIONS:
        near = difflib.get_close_matches(name, DECISIONS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}" if near else f"it may have {', '.join(DECISIONS)}"
        raise VariantError(f"{where}: no decision of a variant; {hint}")
    expected = inspect.signature(vars(Kernel)[name])
    if (
        not inspect.isfunction(value)
        or inspect.isgeneratorfunction(value)
        or list(inspect.signature(value).parameters) != list(expected.parameters)
    ):
        raise VariantError(f"{where}: write it as def {name}({', '.join(expected.parameters)})")


def is_variant(value: object) -> bool:
    """Whether this is a class that has every decision, such as those that ``pool_variant`` makes."""
    return isinstance(value, type) and issubclass(value, tuple) and all(hasattr(value, n) for n in DECISIONS)
