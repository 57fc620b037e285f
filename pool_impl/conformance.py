"""Replay of recorded kernel operations against this implementation.

The pool is given operations and arguments only. After each one its state is compared, field by field,
with the recorded one; it is never resynchronised.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pool_impl.audit import audited
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


class Step(NamedTuple):
    """One operation to do."""

    name: str
    context: str
    arguments: dict[str, Any]


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
    divergences = 0
    first = None
    for divergence in differences(recording):
        divergences += 1
        first = first or divergence
    return Result(recording, len(recording.operations), divergences, first)


def differences(recording: Recording) -> Iterator[Divergence]:
    """Run all operations of a recording and yield what differs.

    Raises:
        RecordingError: there are no rules for the recording's kernel.
    """
    try:
        replayed = Replay(recording.kernel, recording.pools)
    except KeyError:
        raise RecordingError(
            f"{recording.path}:1: kernel {recording.kernel}: no rules for this release"
        ) from None
    for operation in recording.operations:
        for field, expected, actual in replayed.run(operation):
            yield Divergence(operation, field, expected, actual)


def written(name: str, kernel: str, pools: int, steps: Iterable[Step]) -> str:
    """The text of a recording of these operations, with the states that this implementation has after
    them: a failure in it can be kept and replayed, and looked at in the terms of real ones."""
    replayed = Replay(kernel, pools)
    lines = [
        {"op": step.name, "ctx": step.context, **step.arguments, "state": replayed.perform(*step)}
        for step in steps
    ]
    header = {"name": name, "kernel": kernel, "pools": pools, "ops": len(lines)}
    return "\n".join(json.dumps(line) for line in [header, *lines]) + "\n"


class Replay(SkbReplay):
    """A machine under the rules of a kernel that does operations by name.

    Args:
        audit: whether it is a debug build, see :mod:`pool_impl.audit`.

    Raises:
        KeyError: there are no rules for this kernel.
    """

    def __init__(
        self,
        kernel: str,
        pools: int,
        *,
        pages: int = PAGES_OF_A_TRACE,
        skbs: int = SKBS_OF_A_TRACE,
        audit: bool = False,
    ) -> None:
        host = new_host(rules_of(kernel), pages=pages, pools=pools)
        super().__init__(new_buffers(audited(host) if audit else host, skb_rules_of(kernel), skbs=skbs))

    def run(self, operation: Operation) -> Iterator[tuple[str, object, object]]:
        """Do one operation and yield field, expected and actual wherever the state differs."""
        try:
            actual = self.perform(operation.name, operation.context, operation.arguments)
        except _Unknown as unknown:
            yield unknown.args
            return
        expected = operation.state
        for field in sorted(expected.keys() - _STATE_FIELDS):
            yield field, expected[field], "unknown field"
        for field in _RESULTS:
            if expected.get(field) != actual.get(field):
                yield field, expected.get(field), actual.get(field)
        for field in ("dma", "pages", "skbs"):
            yield from _differences(field, expected.get(field), actual.get(field))
        yield from _pool_differences(expected.get("pools"), actual["pools"])

    def perform(self, name: str, context: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do one operation; returns what a recording says of it afterwards."""
        return self.do_operation(name, context, arguments) | self.state()

    def do_operation(self, name: str, context: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do one operation; returns its results."""
        operation = OPERATIONS.get(name)
        if operation is None:
            raise _Unknown("op", name, "unknown")
        napi = self.enter(context)
        if napi is None:
            raise _Unknown("ctx", context, "unknown")
        where = self.host.context
        where.warnings = 0
        try:
            results = operation(self, arguments)
        except (KeyError, TypeError, IndexError) as error:
            raise _Unknown("arguments", arguments, f"not understood: {error!r}") from None
        finally:
            self.leave(napi)
        return results | {"warn": int(where.warnings)} if where.warnings else results

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

    def state(self) -> dict[str, Any]:
        # skbs first: pages that they name for the first time get their ids in this order
        state: dict[str, Any] = {"skbs": self.changed_skbs(), "pages": self.changed_pages()}
        state["pools"] = self.pool_states()
        device = self.host.device
        if device.maps:  # the recorder leaves it out until then
            state["dma"] = {
                name: int(device[name]) for name in ("maps", "unmaps", "syncs", "last_off", "last_len")
            }
        return state


class _Unknown(Exception):  # noqa: N818 - a finding, not an error
    """What a recording asks for is not known here: field, what it says, and what is wrong with it."""

    args: tuple[str, object, str]


def _pool_differences(expected: object, actual: list[Any]) -> Iterator[tuple[str, object, object]]:
    if not isinstance(expected, list) or len(expected) != len(actual):
        yield "pools", expected, actual
        return
    for number, (before, after) in enumerate(zip(expected, actual, strict=True)):
        yield from _differences(f"pools[{number}]", before, after)


def _differences(name: str, expected: object, actual: object) -> Iterator[tuple[str, object, object]]:
    """Where two values differ, named as deep as both are objects."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            inner = f"{name}[{key}]" if name in ("pages", "skbs") else f"{name}.{key}"
            yield from _differences(inner, expected.get(key), actual.get(key))
    elif expected != actual:
        yield name, expected, actual
