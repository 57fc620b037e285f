"""Layout, atomics and the code cache."""

import threading
from pathlib import Path
from typing import Any

import numba
import pytest
from numba.core.caching import NullCache

from pool_impl.jit import POOL_IMPL_DIGEST, atomic_add, entry, source_digest
from pool_impl.layout import PAGE, POOL, records


def test_a_page_is_a_cache_line_as_struct_page_is() -> None:
    assert PAGE.itemsize == 64


def test_consumer_and_producer_words_lie_on_lines_of_their_own() -> None:
    """Spec 1.7: a returning CPU must not take the line of the allocating one."""
    fields = POOL.fields
    assert fields is not None
    lines = {
        name: range(offset // 64, (offset + kind.itemsize - 1) // 64 + 1)
        for name, (kind, offset) in ((n, f[:2]) for n, f in fields.items())
        if not name.startswith("_pad")
    }
    consumer = {line for name in ("cache_count", "hold", "ring_head", "cache") for line in lines[name]}
    producer = {line for name in ("ring_prod",) for line in lines[name]}
    release = set(lines["release"])
    assert not consumer & producer
    assert not consumer & release
    assert not producer & release


@entry(POOL_IMPL_DIGEST)
def add_many(pools: object, turns: int) -> None:
    for _ in range(turns):
        atomic_add(pools[0], "release", 1)  # type: ignore[index]


def test_atomic_add_loses_nothing_between_threads() -> None:
    pools = records(POOL, 1)
    add_many(pools, 1)
    threads = [threading.Thread(target=add_many, args=(pools, 2_000_000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pools[0].release == 8_000_001


def test_the_digest_follows_name_and_content_of_sources_only(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    first = source_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("no source\n")
    assert source_digest(tmp_path) == first
    (tmp_path / "a.py").write_text("x = 2\n")
    second = source_digest(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, source_digest(tmp_path)}) == 3


def test_code_is_cached_under_its_digest() -> None:
    assert POOL_IMPL_DIGEST in add_many._cache.cache_path  # type: ignore[attr-defined]


def look_twice(pool: Any, page: Any) -> int:
    """Reads what was read before, after stores to other fields."""
    total = pool.hold + pool.recycle[1, 2] + pool.cache[3]
    pool.release = total
    pool.cache[4] = total
    page.refcount = total
    return int(pool.hold + pool.recycle[1, 2] + total)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="about compiled code")
def test_a_store_to_one_field_leaves_the_others_known() -> None:
    """Five words are read, of which two are the same field before and after."""
    fresh: Any = entry("unused")(look_twice)
    fresh._cache = NullCache()
    pools, pages = records(POOL, 1), records(PAGE, 1)
    pools[0].hold, pools[0].recycle[1, 2], pools[0].cache[3] = 1, 20, 300
    assert fresh(pools[0], pages[0]) == look_twice(pools[0], pages[0]) == 342
    [code] = fresh.inspect_llvm().values()
    assert code[code.index("define") :].partition("}")[0].count("load i64") == 3
