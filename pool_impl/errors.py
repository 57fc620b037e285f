"""Errors of the allocator.

PoolError            base
├── CreateError      a pool parameter is refused, with the errno the kernel returns
└── RecordingError   a recording cannot be read
"""

import errno


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


class RecordingError(PoolError):
    """A recording is missing, truncated, of another format or not JSON; names file and line."""
