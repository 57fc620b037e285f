"""Errors of the farm package.

    FarmError
    ├── SweepError        a sweep file or an override: correct the input
    ├── CaseError         a file of published cases: correct the input
    ├── GateError         a file of rules: correct the input
    ├── SamplesError      a file of measured samples: measure again, or correct it
    ├── StoreError        the store, or a run in it: name another, or repair it as the message says
    ├── CountersError     counters of a real host: dump them again, as the message says
    ├── OutputError       a file to write: name another
    ├── ExecutorError     trials cannot be run where they were sent
    │   └── LostError     the cluster went away while they ran: resume the run
    └── IncomparableError nothing to compare, or things that must not be compared

Messages are one line and name the field or file, the value and the remedy.
"""


class FarmError(Exception):
    """Base of everything that the farm raises on purpose."""


class SweepError(FarmError):
    """A sweep file or an override on the command line is malformed."""


class CaseError(FarmError):
    """A file of published cases is malformed, or one of its trials cannot be run."""


class GateError(FarmError):
    """A file of rules for a gate is malformed."""


class SamplesError(FarmError):
    """A file of measured samples is malformed."""


class StoreError(FarmError):
    """A store or a run cannot be written, found or read."""


class CountersError(FarmError):
    """Counters of a real host cannot be read, or do not belong together."""


class OutputError(FarmError):
    """A file that was asked for cannot be written."""


class ExecutorError(FarmError):
    """An executor cannot be reached, or its nodes do not run the same model."""


class LostError(ExecutorError):
    """A cluster went away while trials ran on it; what came back before is stored."""


class IncomparableError(FarmError):
    """There is nothing to compare, or the sides do not match."""
