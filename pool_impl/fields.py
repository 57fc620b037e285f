"""Fields of records in compiled code: what the compiler may take for granted.

All words here are 64-bit integers, so to LLVM a store to any of them could change every other, and each load
has to be done again after each store. But a field of a record type is never another field: loads and stores
say so (type-based alias analysis, what a C compiler does for members of structs).

A field that is an array is a pointer in compiled code, as a table is: indices are not negative, and nobody
looks at the length.

A record that Python passes is a pointer, too; numba would ask it for a buffer first, which takes longer than
all else of a call with tables.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import (
    boxing,  # noqa: F401 - registers what _unbox_record takes the place of
    cgutils,
    pythonapi,
)
from numba.core.imputils import lower_getattr_generic, lower_setattr_generic
from numba.core.typing.arraydecl import RecordAttribute
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import NativeValue, lower_builtin, models, register_model
from numba.np import arrayobj

from pool_impl.backend import short_name


class FieldType(types.Type):
    """The numba type of a record's field that is an array."""

    def __init__(self, record: types.Record, name: str) -> None:
        nested = record.typeof(name)
        self.record = record
        self.field = name
        self.dtype = nested.dtype
        self.shape = nested.shape
        super().__init__(name=f"{record}.{name}")

    mangling_args = property(short_name)


register_model(FieldType)(models.OpaqueModel)


def mark(builder: ir.IRBuilder, access: Any, owner: types.Type, field: str = "") -> Any:
    """Say of a load or store that it is of this field of a record type, or of elements of a table type."""
    module = builder.module
    zero = ir.Constant(ir.IntType(64), 0)
    root = module.add_metadata([ir.MetaDataString(module, "words")])
    kind = module.add_metadata([ir.MetaDataString(module, f"{short_name(owner)[0]}.{field}"), root, zero])
    access.set_metadata("tbaa", module.add_metadata([kind, kind, zero]))
    return access


_resolve = RecordAttribute.generic_resolve
_get_scalar = arrayobj.record_getattr
_set_scalar = arrayobj.record_setattr


def _unbox_record(kind: types.Record, value: ir.Value, context: Any) -> NativeValue:
    # NumPy's ABI: where the fields are is the word after the object's head, which has a length
    builder = context.builder
    fields = builder.bitcast(value, ir.IntType(8).as_pointer().as_pointer())
    place = builder.gep(fields, [ir.Constant(ir.IntType(64), tuple.__basicsize__ // 8)])
    return NativeValue(builder.bitcast(builder.load(place), context.context.get_value_type(kind)))


pythonapi._unboxers.functions[types.Record] = _unbox_record


def _type_of_field(self: Any, record: types.Record, name: str) -> types.Type:
    found = _resolve(self, record, name)
    return FieldType(record, name) if isinstance(found, types.NestedArray) else found


RecordAttribute.generic_resolve = _type_of_field


@lower_getattr_generic(types.Record)
def _get(context: Any, builder: ir.IRBuilder, record: types.Record, value: ir.Value, name: str) -> ir.Value:
    if isinstance(record.typeof(name), types.NestedArray):
        return cgutils.get_record_member(builder, value, record.offset(name), ir.IntType(8))
    found = _get_scalar(context, builder, record, value, name)
    return found if isinstance(record.typeof(name), types.Record) else mark(builder, found, record, name)


@lower_setattr_generic(types.Record)
def _set(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any, name: str) -> None:
    _set_scalar(context, builder, signature, arguments, name)
    mark(builder, builder.block.instructions[-1], signature.args[0], name)


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, arguments: Any, _keywords: Any) -> Any:
        field, index = arguments
        if isinstance(field, FieldType) and _is_index(index, field):
            return signature(field.dtype, field, _index_type(field))
        return None


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, arguments: Any, _keywords: Any) -> Any:
        field, index, value = arguments
        if isinstance(field, FieldType) and _is_index(index, field) and value in types.integer_domain:
            return signature(types.none, field, _index_type(field), field.dtype)
        return None


def _index_type(field: FieldType) -> types.Type:
    return types.int64 if len(field.shape) == 1 else types.UniTuple(types.int64, len(field.shape))


def _is_index(index: types.Type, field: FieldType) -> bool:
    if len(field.shape) == 1:
        return isinstance(index, types.Integer)
    return (
        isinstance(index, types.BaseTuple)
        and len(index) == len(field.shape)
        and all(isinstance(part, types.Integer) for part in index)
    )


def _element(
    context: Any, builder: ir.IRBuilder, field: FieldType, value: ir.Value, index: ir.Value
) -> ir.Value:
    if len(field.shape) > 1:
        parts = cgutils.unpack_tuple(builder, index)
        index = parts[0]
        for size, part in zip(field.shape[1:], parts[1:], strict=True):
            index = builder.add(builder.mul(index, index.type(size)), part)
    kind = context.get_data_type(field.dtype).as_pointer()
    return builder.gep(builder.bitcast(value, kind), [index], inbounds=True)


@lower_builtin(operator.getitem, FieldType, types.Any)
def _lower_get(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
    field = signature.args[0]
    element = _element(context, builder, field, *arguments)
    if isinstance(field.dtype, types.Record):
        return element
    return mark(builder, builder.load(element), field.record, field.field)


@lower_builtin(operator.setitem, FieldType, types.Any, types.int64)
def _lower_set(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
    field = signature.args[0]
    element = _element(context, builder, field, *arguments[:2])
    mark(builder, builder.store(arguments[2], element), field.record, field.field)
    return context.get_dummy_value()
