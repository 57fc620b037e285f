"""The compiled form of a table: one pointer.

numba passes an array as seven words and lets negative indices count from the end. A host of such arrays is
some twenty-five arguments to each call on the slow paths, and four instructions for each index on the fast
ones. Compiled code indexes a :class:`~pool_impl.layout.Table` with no look at its length.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import NativeValue, lower_builtin, models, register_model, typeof_impl, unbox
from numba.np.numpy_support import from_dtype

from pool_impl.backend import short_name
from pool_impl.fields import mark
from pool_impl.layout import Table


class TableType(types.Type):
    """The numba type of a Table."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(name=f"Table({dtype})")

    mangling_args = property(short_name)


register_model(TableType)(models.OpaqueModel)


@typeof_impl.register(Table)
def _typeof(table: Table, _context: Any) -> TableType:
    if table.ndim != 1 or not table.flags.c_contiguous:
        raise TypeError(f"a table in compiled code is contiguous, got strides {table.strides}")
    return TableType(from_dtype(table.dtype))


@unbox(TableType)
def _unbox(_kind: TableType, value: ir.Value, context: Any) -> NativeValue:
    # NumPy's ABI: what an array points to is the word after the object's head
    builder = context.builder
    fields = builder.bitcast(value, ir.IntType(8).as_pointer().as_pointer())
    place = builder.gep(fields, [ir.Constant(ir.IntType(64), object.__basicsize__ // 8)])
    return NativeValue(builder.load(place))


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, arguments: Any, _keywords: Any) -> Any:
        table, index = arguments
        if isinstance(table, TableType) and isinstance(index, types.Integer):
            return signature(table.dtype, table, types.int64)
        return None


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, arguments: Any, _keywords: Any) -> Any:
        table, index, value = arguments
        if (
            isinstance(table, TableType)
            and isinstance(index, types.Integer)
            and value in types.integer_domain
        ):
            return signature(types.none, table, types.int64, table.dtype)
        return None


def element_pointer(
    context: Any, builder: ir.IRBuilder, table: TableType, value: ir.Value, index: ir.Value
) -> ir.Value:
    """Address of an element."""
    element = context.get_data_type(table.dtype).as_pointer()
    return builder.gep(builder.bitcast(value, element), [index])


@lower_builtin(operator.getitem, TableType, types.int64)
def _lower_get(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
    table = signature.args[0]
    pointer = element_pointer(context, builder, table, *arguments)
    if isinstance(table.dtype, types.Record):
        return pointer
    return mark(builder, builder.load(pointer), table)


@lower_builtin(operator.setitem, TableType, types.int64, types.int64)
def _lower_set(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
    pointer = element_pointer(context, builder, signature.args[0], *arguments[:2])
    mark(builder, builder.store(arguments[2], pointer), signature.args[0])
    return context.get_dummy_value()
