"""numba's back end, told to optimise once.

numba optimises each function at its highest level and makes machine code of it, with all functions that it
calls in whole: much of an entry of some hundred functions is compiled again and again on the way up.
Functions that only compiled code calls need neither. Their bodies are linked into the entry's module, and
what matters is how that one is optimised: a trial's loop compiles in a third of the time, and is as fast.

Symbols are shortened as well: by default the name of each function spells out every field of every record
that its arguments lead to, some 20,000 characters. All this reaches into numba, so pyproject.toml names the
version.
"""

import hashlib
from typing import Any

from numba.core import codegen, dispatcher, types

_inner = False
"""whether what is being compiled is called by compiled code only"""

_types: Any = types
_FunctionCompiler: Any = dispatcher._FunctionCompiler  # type: ignore[attr-defined]
_CPUCodeLibrary: Any = codegen.CPUCodeLibrary
_JITCPUCodegen: Any = codegen.JITCPUCodegen

_compile = _FunctionCompiler.compile
_optimize = _CPUCodeLibrary._optimize_final_module
_finalize = _CPUCodeLibrary._finalize_final_module
_set_env = _JITCPUCodegen.set_env


def _compile_once(self: Any, arguments: Any, return_type: Any) -> Any:
    """Functions without a wrapper for Python are inner ones, with all that they are the first to call."""
    global _inner
    before = _inner
    _inner = before or bool(self.targetoptions.get("no_cpython_wrapper"))
    try:
        return _compile(self, arguments, return_type)
    finally:
        _inner = before


def _optimize_outer(self: Any) -> None:
    """Of an inner function, only inline what has to be."""
    if not _inner:
        _optimize(self)
        return
    manager, builder = self._codegen._module_pass_manager(
        opt=0, loop_vectorize=False, slp_vectorize=False, cost="cheap"
    )
    manager.run(self._final_module, builder)


def _finalize_outer(self: Any) -> None:
    """No machine code of an inner function: it stays a module to link."""
    if not _inner:
        _finalize(self)
        return
    self._finalize_dynamic_globals()
    self._verify_declare_only_symbols()
    self._finalized = True


def _set_env_outer(self: Any, name: str, env: Any) -> None:
    """An inner function's environment has no address, as it has none in code from the disk cache."""
    if not _inner:
        _set_env(self, name, env)


def one_for_all_constants(function: Any) -> Any:
    """Compile a function that is not inlined for integers, not again for each constant it is called with."""
    choose = getattr(function, "get_call_template", None)
    if choose is not None:
        function.get_call_template = lambda arguments, named: choose(
            tuple(map(_types.unliteral, arguments)),
            {name: _types.unliteral(kind) for name, kind in named.items()},
        )
    return function


def short_name(self: Any) -> tuple[str, tuple[()]]:
    """How a type is called in symbols (``Type.mangling_args``): by a hash of its name."""
    digest = hashlib.sha256(self.name.encode()).hexdigest()[:16]
    return f"{type(self).__name__}_{digest}", ()


_FunctionCompiler.compile = _compile_once
_CPUCodeLibrary._optimize_final_module = _optimize_outer
_CPUCodeLibrary._finalize_final_module = _finalize_outer
_JITCPUCodegen.set_env = _set_env_outer
for _kind in (_types.NamedTuple, _types.NamedUniTuple, _types.Record):
    _kind.mangling_args = property(short_name)
