"""The compiled loops hold no reference counting, and their cache follows every source."""

from typing import Any

import pytest
from numba.core.caching import NullCache

from pool_impl.jit import entry
from workers import assemble, micro, trial
from workers.config import TrialConfig
from workers.model import MODEL_DIGEST


def compiled_code(loop: Any, *arguments: object) -> str:
    """LLVM code of an entry, compiled anew: one from the cache has none to look at."""
    fresh: Any = entry("unused")(loop.py_func)
    fresh._cache = NullCache()
    fresh(*arguments)
    [code] = fresh.inspect_llvm().values()
    return str(code)


@pytest.mark.parametrize("loop", micro.LOOPS, ids=lambda loop: loop.name)
def test_pool_paths_count_no_references(loop: micro.Loop) -> None:
    code = compiled_code(loop.run, micro.bench_host(), 1)
    assert "define" in code
    assert "NRT_incref" not in code
    assert "NRT_decref" not in code


def test_the_event_loop_counts_no_references() -> None:
    code = compiled_code(trial._run, assemble.new_trial(TrialConfig()), 1)
    assert code.count("\n") > 1000
    assert "NRT_incref" not in code
    assert "NRT_decref" not in code


def test_the_event_loop_is_cached_under_the_model_digest() -> None:
    trial.prepare()
    run: Any = trial._run
    assert MODEL_DIGEST in run._cache.cache_path
