"""Errors of the workers package.

    TrialError
    ├── ConfigError      a field, or a rule between fields: correct the input
    ├── ProfileError     an architecture profile: correct the profile
    ├── CaptureError     a packet capture: name another file or direction
    ├── CheckError       a trial whose books do not balance: report it, never a record
    └── StoppedError     somebody else wanted the trial to end before its time

Messages are one line and name the field, the value and the remedy.
"""


class TrialError(Exception):
    """Base of everything that a trial can raise on purpose."""


class ConfigError(TrialError):
    """A trial field, or a rule between fields, is violated; ``value`` is None for an unknown field."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        self.field = field
        self.value = value
        self.remedy = remedy
        super().__init__(f"{field}: {remedy}" if value is None else f"{field} = {value!r}: {remedy}")


class ProfileError(TrialError):
    """An architecture profile is unknown or malformed."""


class CaptureError(TrialError):
    """A packet capture cannot be read or holds nothing to replay."""


class CheckError(TrialError):
    """A conservation check failed after a trial; the message names both sides."""


class StoppedError(TrialError):
    """A trial was ended before its time by whoever runs it, see :class:`workers.stopper.Stopper`."""
