"""Operations to measure that Python has no name for, each with a plain twin as in :mod:`pool_impl.jit`."""

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _relaxed_add_twin(record: Any, name: str, amount: int) -> int:
    before = int(record[name])
    record[name] = before + amount
    return before


def _relaxed_add(_typing: Any, record: Any, name: Any, amount: Any) -> Any:
    def generate(_context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kind = signature.args[0]
        field = name.literal_value
        word = ir.IntType(kind.typeof(field).bitwidth)
        pointer = cgutils.get_record_member(builder, arguments[0], kind.offset(field), word)
        return builder.atomic_rmw("add", pointer, arguments[2], "monotonic")

    return types.int64(record, name, types.int64), generate


def _barrier_twin() -> None:
    pass


def _barrier(_typing: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, _signature: Any, _arguments: Any) -> ir.Value:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), generate


def _called_twin(value: int) -> int:
    return value + 1


def _called(_typing: Any, value: Any) -> Any:
    def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        word = ir.IntType(64)
        name = "page_pool_farm_called"
        function = builder.module.globals.get(name)
        if function is None:
            function = ir.Function(builder.module, ir.FunctionType(word, [word]), name)
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            body = ir.IRBuilder(function.append_basic_block())
            body.ret(body.add(function.args[0], word(1)))
        return builder.call(function, [arguments[0]])

    return types.int64(types.int64), generate


def _twinned(twin: Callable[..., Any], typed: Callable[..., Any]) -> Any:
    return twin if numba.config.DISABLE_JIT else intrinsic(prefer_literal=True)(typed)


relaxed_add = _twinned(_relaxed_add_twin, _relaxed_add)
"""``relaxed_add(record, "field", amount)``: atomic, orders nothing else; returns the value before"""
barrier = _twinned(_barrier_twin, _barrier)
"""``barrier()``: everything before it is seen before anything behind it"""
called = _twinned(_called_twin, _called)
"""``called(value)``: value + 1 by way of a function that is called and never inlined"""
