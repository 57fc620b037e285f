"""Replay of recorded kernel operations against this implementation.

The pool is given operations and arguments only. After each one its state is compared, field by field,
with the recorded one; it is never resynchronised.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pool_impl.errors import RecordingError
from pool_impl.host import new_buffers, new_host
from pool_impl.layout import (
    BH_DISABLED,
    MAX_NAPIS,
    NO_CPU,
    NO_NAPI,
    PROCESS,
    SERVING_SOFTIRQ,
)
from pool_impl.recording import Operation, Recording
from pool_impl.release import rules_of, skb_rules_of
from pool_impl.replay_skbs import OPERATIONS, SkbReplay

NOT_COMPARED = (
    ("header: params, description", "what the trace is about; every create operation has its parameters"),
)
"""what a recording holds and replay deliberately leaves aside, with the reason"""

PAGES_OF_A_TRACE = 1 << 18
SKBS_OF_A_TRACE = 1 << 14

_RESULTS = ("ret", "off", "size", "nid", "stolen", "delta", "free", "warn")
_STATE_FIELDS = {*_RESULTS, "pools", "pages", "skbs", "dma"}

_IN_SOFTIRQ = {"softirq": SERVING_SOFTIRQ, "bh": BH_DISABLED, "process": PROCESS}


class Divergence(NamedTuple):
    """One field in which this implementation differs from the kernel."""

    operation: Operation
    field: str
    """such as ``pools[0].ring_head`` or ``pages[12]``"""
    expected: object
    actual: object

    def __str__(self) -> str:
        operation = self.operation
        return (
            f"operation {operation.number}, {operation.name}: {self.field}: "
            f"expected {self.expected}, actual {self.actual}"
        )


class Result(NamedTuple):
    """Outcome of one trace."""

    recording: Recording
    operations: int
    divergences: int
    first: Divergence | None

    def summary(self) -> dict[str, Any]:
        """What ``farm conformance --json`` prints of a trace."""
        first = self.first
        return {
            "path": str(self.recording.path),
            "kernel": self.recording.kernel,
            "operations": self.operations,
            "divergences": self.divergences,
            "first": first
            and {
                "operation": first.operation.number,
                "name": first.operation.name,
                "field": first.field,
                "expected": first.expected,
                "actual": first.actual,
            },
        }


def replay(recording: Recording) -> Result:
    """Run all operations of a recording.

    Raises:
        RecordingError: there are no rules for the recording's kernel.
    """
    try:
        rules = rules_of(recording.kernel)
    except KeyError:
        raise RecordingError(
            f"{recording.path}:1: kernel {recording.kernel}: no rules for this release"
        ) from None
    host = new_host(rules, pages=PAGES_OF_A_TRACE, pools=recording.pools)
    replayed = _Replay(new_buffers(host, skb_rules_of(recording.kernel), skbs=SKBS_OF_A_TRACE))
    divergences = 0
    first = None
    for operation in recording.operations:
        for field, expected, actual in replayed.run(operation):
            divergences += 1
            first = first or Divergence(operation, field, expected, actual)
    return Result(recording, len(recording.operations), divergences, first)


class _Replay(SkbReplay):
    def run(self, operation: Operation) -> Iterator[tuple[str, object, object]]:
        """Do one operation and yield field, expected and actual wherever the state differs."""
        perform = OPERATIONS.get(operation.name)
        napi = None if perform is None else self.enter(operation.context)
        if perform is None or napi is None:
            name = "op" if perform is None else "ctx"
            yield name, getattr(operation, "name" if name == "op" else "context"), "unknown"
            return
        context = self.host.context
        context.warnings = 0
        try:
            actual = perform(self, operation.arguments)
        except (KeyError, TypeError, IndexError) as error:
            yield "arguments", operation.arguments, f"not understood: {error!r}"
            return
        finally:
            self.leave(napi)
        if context.warnings:
            actual["warn"] = int(context.warnings)
        actual |= self.state()
        expected = operation.state
        for field in sorted(expected.keys() - _STATE_FIELDS):
            yield field, expected[field], "unknown field"
        for field in _RESULTS:
            if expected.get(field) != actual.get(field):
                yield field, expected.get(field), actual.get(field)
        for field in ("dma", "pages", "skbs"):
            yield from _differences(field, expected.get(field), actual.get(field))
        yield from self.pool_differences(expected.get("pools"))

    def enter(self, context: str) -> int | None:
        """Be in a recorded context; the NAPI instance that is polled, NO_NAPI, or None if unknown."""
        host = self.host
        if context in _IN_SOFTIRQ:
            host.context.in_softirq = _IN_SOFTIRQ[context]
            return NO_NAPI
        number = context.removeprefix("napi")
        if not host.rules.local_recycling or not number.isdecimal() or int(number) >= MAX_NAPIS:
            return None
        host.context.in_softirq = SERVING_SOFTIRQ
        host.device.napi_owner[int(number)] = host.context.cpu
        host.device.napi_scheduled[int(number)] = 1
        return int(number)

    def leave(self, napi: int) -> None:
        """The poll completes, and with it the instance's time on this CPU."""
        if napi != NO_NAPI:
            self.host.device.napi_owner[napi] = NO_CPU
            self.host.device.napi_scheduled[napi] = 0

    def pool_differences(self, expected: object) -> Iterator[tuple[str, object, object]]:
        actual = self.pool_states()
        if not isinstance(expected, list) or len(expected) != len(actual):
            yield "pools", expected, actual
            return
        for number, (before, after) in enumerate(zip(expected, actual, strict=True)):
            yield from _differences(f"pools[{number}]", before, after)

    def state(self) -> dict[str, Any]:
        # skbs first: pages that they name for the first time get their ids in this order
        state: dict[str, Any] = {"skbs": self.changed_skbs(), "pages": self.changed_pages()}
        device = self.host.device
        if device.maps:  # the recorder leaves it out until then
            state["dma"] = {
                name: int(device[name]) for name in ("maps", "unmaps", "syncs", "last_off", "last_len")
            }
        return state


def _differences(name: str, expected: object, actual: object) -> Iterator[tuple[str, object, object]]:
    """Where two values differ, named as deep as both are objects."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            inner = f"{name}[{key}]" if name in ("pages", "skbs") else f"{name}.{key}"
            yield from _differences(inner, expected.get(key), actual.get(key))
    elif expected != actual:
        yield name, expected, actual
