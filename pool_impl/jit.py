"""The one compile decorator, atomics with a plain-Python twin, and the digest of sources.

Compiled functions take record scalars (``pools[0]``) and NamedTuples of arrays. Reference counting is
switched off (``_nrt=False``): passing an array through a call would otherwise cost an atomic pair.
The price is that compiled functions must not create arrays.

A NamedTuple class may have methods: ``methods(Class)`` lets compiled code call them, so the *type* of a
value selects behaviour at compile time (observers, serial or threaded access) and costs nothing at run time.

With ``NUMBA_DISABLE_JIT=1`` everything here runs as plain Python with the same results.
"""

import hashlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import platformdirs
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload_method

from pool_impl.backend import one_for_all_constants
from pool_impl.table import TableType, element_pointer

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}


def compiled(inline: bool = True) -> Callable[[Function], Function]:
    """Decorate a function of the hot path; ``inline=False`` for the slow paths, to keep the code small.

    Nothing is cached here: what an entry inlines is part of that entry's cached code.
    """
    options = {**OPTIONS, "forceinline": inline, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

    def decorate(function: Function) -> Function:
        wrapped: Function = numba.njit(**options)(function)
        return wrapped if inline else one_for_all_constants(wrapped)

    return decorate


def entry(digest: str) -> Callable[[Function], Function]:
    """Decorate a function that Python calls; its machine code is cached on disk under ``digest``.

    numba notices an edit only in the file of the entry itself, not in files it inlined. A directory for
    each digest of all sources cures that.
    """

    def decorate(function: Function) -> Function:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(code_cache() / digest)
        try:
            wrapped: Function = numba.njit(**OPTIONS, cache=True)(function)
        finally:
            numba.config.CACHE_DIR = before
        return wrapped

    return decorate


def code_cache() -> Path:
    """Directory of compiled code; one folder for each source digest."""
    return Path(platformdirs.user_cache_dir("page-pool-farm")) / "code"


def source_digest(*directories: Path) -> str:
    """Hash of the Python sources directly in these directories, by name and content; 16 hex digits."""
    digest = hashlib.sha256()
    for directory in directories:
        for path in sorted(directory.glob("*.py")):
            digest.update(f"{directory.name}/{path.name}\0".encode())
            digest.update(path.read_bytes())
            digest.update(b"\0")
    return digest.hexdigest()[:16]


POOL_IMPL_DIGEST = source_digest(Path(__file__).parent)


def methods(protocol: type, *names: str) -> None:
    """Let compiled code call the methods of this NamedTuple class, and those that other NamedTuple
    classes have under the same names; of all its methods, or of those that are named."""
    for name, method in vars(protocol).items():
        if inspect.isfunction(method) and (name in names if names else not name.startswith("_")):
            for kind in (types.NamedTuple, types.NamedUniTuple):
                _method(kind, name, inspect.signature(method))


def _method(kind: type, name: str, signature: inspect.Signature) -> None:
    def select(self: Any, *_arguments: Any) -> Any:
        return getattr(self.instance_class, name, None)

    select.__signature__ = signature  # type: ignore[attr-defined]
    overload_method(kind, name, jit_options={**OPTIONS, "forceinline": True}, strict=False)(select)


# Atomics: intrinsics on a record's field or a table's element, each with a twin for NUMBA_DISABLE_JIT=1.


def _add_twin(record: Any, name: str, amount: int) -> int:
    before = int(record[name])
    record[name] = before + amount
    return before


def _swap_twin(record: Any, name: str, value: int) -> int:
    before = int(record[name])
    record[name] = value
    return before


def _store_twin(record: Any, name: str, value: int) -> None:
    record[name] = value


def _load_twin(record: Any, name: str) -> int:
    return int(record[name])


def _load_at_twin(array: Any, index: int) -> int:
    return int(array[index])


def _store_at_twin(array: Any, index: int, value: int) -> None:
    array[index] = value


def _pause_twin() -> None:
    pass


def _yield_core_twin() -> None:
    os.sched_yield()


def _field_pointer(builder: ir.IRBuilder, record: types.Record, value: ir.Value, name: Any) -> ir.Value:
    return cgutils.get_record_member(
        builder,
        value,
        record.offset(name.literal_value),
        ir.IntType(record.typeof(name.literal_value).bitwidth),
    )


def _atomic_add(_typing: Any, record: Any, name: Any, amount: Any) -> Any:
    def generate(_context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer = _field_pointer(builder, signature.args[0], arguments[0], name)
        return builder.atomic_rmw("add", pointer, arguments[2], "seq_cst")

    return types.int64(record, name, types.int64), generate


def _atomic_swap(_typing: Any, record: Any, name: Any, value: Any) -> Any:
    def generate(_context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer = _field_pointer(builder, signature.args[0], arguments[0], name)
        return builder.atomic_rmw("xchg", pointer, arguments[2], "acquire")

    return types.int64(record, name, types.int64), generate


def _atomic_store(_typing: Any, record: Any, name: Any, value: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer = _field_pointer(builder, signature.args[0], arguments[0], name)
        builder.store_atomic(arguments[2], pointer, "release", 8)
        return context.get_dummy_value()

    return types.none(record, name, types.int64), generate


def _atomic_load(_typing: Any, record: Any, name: Any) -> Any:
    def generate(_context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer = _field_pointer(builder, signature.args[0], arguments[0], name)
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(record, name), generate


def _load_at(_typing: Any, array: Any, index: Any) -> Any:
    if not isinstance(array, TableType):
        return None

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer = element_pointer(context, builder, signature.args[0], *arguments)
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(array, types.int64), generate


def _store_at(_typing: Any, array: Any, index: Any, value: Any) -> Any:
    if not isinstance(array, TableType):
        return None

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer = element_pointer(context, builder, signature.args[0], *arguments[:2])
        builder.store_atomic(arguments[2], pointer, "release", 8)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64), generate


def _yield_core(_typing: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, _signature: Any, _arguments: Any) -> ir.Value:
        kind = ir.FunctionType(ir.VoidType(), [])
        outlined = builder.module.globals.get("page_pool_yield")
        if outlined is None:
            outlined = ir.Function(builder.module, kind, "page_pool_yield")
            outlined.linkage = "linkonce_odr"
            # keeps the caller's registers, or the path without contention would pay for the call too
            outlined.calling_convention = "preserve_mostcc"
            outlined.attributes.add("noinline")
            outlined.attributes.add("cold")
            body = ir.IRBuilder(outlined.append_basic_block())
            give_up = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield"
            )
            body.call(give_up, [])
            body.ret_void()
        builder.call(outlined, [], cconv="preserve_mostcc")
        return context.get_dummy_value()

    return types.none(), generate


def _pause(_typing: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, _signature: Any, _arguments: Any) -> ir.Value:
        triple = builder.module.triple
        if triple.startswith(("x86_64", "i686")):
            hint = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"
            )
            builder.call(hint, [])
        elif triple.startswith("aarch64"):
            kind = ir.IntType(32)
            hint = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [kind]), "llvm.aarch64.hint"
            )
            builder.call(hint, [kind(1)])
        return context.get_dummy_value()

    return types.none(), generate


def _bit_length_twin(value: int) -> int:
    return int(value).bit_length()


def _bit_length(_typing: Any, value: Any) -> Any:
    def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        word = ir.IntType(64)
        leading = builder.ctlz(arguments[0], ir.IntType(1)(0))
        return builder.sub(word(64), leading)

    return types.int64(types.int64), generate


def _multiply_add_twin(first: int, second: int, third: int) -> int:
    low = (int(first) * int(second) + int(third)) & ((1 << 64) - 1)
    return low - ((low >> 63) << 64)


def _multiply_add(_typing: Any, first: Any, second: Any, third: Any) -> Any:
    def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> ir.Value:
        return builder.add(builder.mul(arguments[0], arguments[1]), arguments[2])

    return types.int64(types.int64, types.int64, types.int64), generate


def _twinned(twin: Callable[..., Any], typed: Callable[..., Any]) -> Any:
    return twin if numba.config.DISABLE_JIT else intrinsic(prefer_literal=True)(typed)


atomic_add = _twinned(_add_twin, _atomic_add)
"""``atomic_add(record, "field", amount)``: sequentially consistent; returns the value before"""
atomic_swap = _twinned(_swap_twin, _atomic_swap)
"""``atomic_swap(record, "field", value)``: with acquire order; returns the value before"""
atomic_store = _twinned(_store_twin, _atomic_store)
"""``atomic_store(record, "field", value)``: with release order"""
atomic_load = _twinned(_load_twin, _atomic_load)
"""``atomic_load(record, "field")``: with acquire order, always from memory"""
bit_length = _twinned(_bit_length_twin, _bit_length)
"""``bit_length(value)``: bits needed for a value that is not negative"""
multiply_add = _twinned(_multiply_add_twin, _multiply_add)
"""``multiply_add(first, second, third)``: first * second + third in 64 bits that wrap"""
pause = _twinned(_pause_twin, _pause)
"""``pause()``: tell the core that this is a spin loop"""
load_at = _twinned(_load_at_twin, _load_at)
"""``load_at(array, index)``: with acquire order: what was written before the element was stored is seen"""
store_at = _twinned(_store_at_twin, _store_at)
"""``store_at(array, index, value)``: with release order"""
yield_core = _twinned(_yield_core_twin, _yield_core)
"""``yield_core()``: let the scheduler run another thread on this core"""

PAUSES = 128
"""turns of a spin loop before it yields: far longer than a lock is held by a thread that runs"""


@compiled()
def back_off(turn: int) -> int:
    """One turn of a spin loop; returns the number of the next.

    The thread waited for may be without a core, then only the scheduler can end the wait.
    """
    if turn < PAUSES:
        pause()
    else:
        yield_core()
    return turn + 1
