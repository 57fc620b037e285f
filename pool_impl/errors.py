"""Errors of the allocator.

PoolError            base
├── CreateError      a pool parameter is refused, with the errno the kernel returns
├── LeakError        a pool's ``with`` block ended with pages outstanding
├── RecordingError   a recording cannot be read
└── VariantError     a class does not describe a variant
"""

import errno
from collections.abc import Sequence
from typing import NamedTuple


class PoolError(Exception):
    """Base of everything that pool_impl raises on purpose."""


class CreateError(PoolError):
    """Pool creation failed as ``page_pool_create`` does.

    ``errno`` is the positive number, ``field`` the parameter at fault.
    """

    def __init__(self, number: int, field: str, value: object, remedy: str) -> None:
        self.errno = number
        self.field = field
        super().__init__(f"{errno.errorcode[number]}: {field} = {value!r}: {remedy}")


class Leak(NamedTuple):
    """A page that did not come back, or part of one."""

    id: int
    """number of the page"""
    offset: int
    """where in the page the part starts, bytes"""
    refcount: int
    """plain references to the page, the pool's own included"""
    holder: str
    """``caller``, ``skb``, or ``reference`` for a plain reference of the caller"""


class LeakError(PoolError):
    """A pool's ``with`` block ended with pages outstanding; ``leaks`` has all of them, by page."""

    def __init__(self, leaks: Sequence[Leak]) -> None:
        self.leaks = tuple(leaks)
        shown = [f"page {id} at {offset} (refcount {count}, {who})" for id, offset, count, who in leaks[:8]]
        more = [f"{len(leaks) - 8} more"] if len(leaks) > 8 else []
        super().__init__(f"{len(leaks)} not returned: {', '.join(shown + more)}")


class RecordingError(PoolError):
    """A recording is missing, truncated, of another format or not JSON; names file and line."""


class VariantError(PoolError):
    """A class given to ``pool_variant`` decides nothing, or something that is no variant's to decide."""
