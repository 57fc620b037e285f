"""Variants of the pool: what each must do, what makes a trial's id, and bad files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pool_impl.variant import CACHE_CAPACITY, DECISIONS, Kernel, pool_variant
from tests.elsewhere import evaluate
from workers import assemble, audit, run_trial, trial, trial_id, variants
from workers.config import TrialConfig, field
from workers.errors import ConfigError
from workers.fields.groups import KERNEL_VARIANT, Value

SMALL_RING: dict[str, Value] = {
    "kernel": "6.12",
    "duration_ms": 20,
    "traffic.kind": "bursts",
    "traffic.rate_pps": 300_000,
    "app.reader": "slow",
    "app.socket_bytes": 4 << 20,
    "pool.size": 16,
}

HEADER = "from pool_impl.variant import CACHE, RELEASE, RING, compiled, pool_variant\n"

SAME_AS_KERNEL = (
    HEADER
    + """
@pool_variant
class Mine:
    def cache_limit(self, host, pool):
        return 128
"""
)


def run(variant: str = KERNEL_VARIANT, **more: Value) -> dict[str, Any]:
    named = {name.replace("__", "."): value for name, value in more.items()}
    return run_trial(TrialConfig.from_fields({**SMALL_RING, "pool.variant": variant, **named}))


def run_plain(variant: str, **more: Value) -> dict[str, Any]:
    """The same without the compiler, which would take a minute for each variant."""
    found: dict[str, Any] = evaluate(__name__, f"run({variant!r}, **{more!r})", NUMBA_DISABLE_JIT="1")
    return found


def identity(variant: str) -> str:
    return trial_id(TrialConfig.from_fields({"pool.variant": variant}))


def written(directory: Path, text: str, name: str = "mine.py") -> str:
    path = directory / name
    path.write_text(text)
    return str(path)


def most_cached(variant: str, milliseconds: int = 20) -> int:
    """The most pages that the cache holds at any of many moments of a trial."""
    config = TrialConfig.from_fields({**SMALL_RING, "pool.variant": variant})
    prepared = assemble.new_trial(config)
    step = trial._loop(variants.load(variant).code)
    most = 0
    for microsecond in range(0, milliseconds * 1000, 20):
        step(prepared, microsecond * 10**6)
        most = max(most, int(prepared.host.pools[0].cache_count))
    audit.check(prepared)
    return most


def most_cached_in_plain_python(variant: str) -> int:
    """The same without compiling the loop for a variant that no other test has."""
    found: int = evaluate(__name__, f"most_cached({variant!r}, milliseconds=6)", NUMBA_DISABLE_JIT="1")
    return found


def test_a_cache_capped_by_the_ring_holds_no_more_than_twice_its_refill() -> None:
    """Shape A of the RFC: refill = min(64, ring), cache = 2 x refill."""
    assert most_cached(KERNEL_VARIANT) > 32
    assert most_cached("ring_capped") <= 32


def test_a_capped_cache_needs_fewer_pages_and_fills_in_smaller_steps() -> None:
    kernel, capped = run(), run("ring_capped")
    assert capped["memory_peak_bytes"] < kernel["memory_peak_bytes"]
    assert capped["pages_in_cache"] < kernel["pages_in_cache"]
    assert capped["pages_from_page_allocator"] <= 16 * capped["alloc_slow"]
    assert kernel["pages_from_page_allocator"] > 16 * kernel["alloc_slow"]


def test_with_a_ring_of_64_the_cap_changes_nothing() -> None:
    assert run("ring_capped", pool__size=64) == run(pool__size=64)


def test_local_only_recycles_nothing_from_another_cpu() -> None:
    kernel, local = (
        run(name, app__reader="fast", traffic__kind="constant") for name in ("kernel", "local_only")
    )
    assert kernel["recycle_ratio"] == 1
    assert kernel["returns_declined"] == 0
    assert local["recycle_ratio"] == pytest.approx(0, abs=0.02)
    assert local["recycle_ring"] == local["slow_held"] == 0
    # what is left of it is the reader's disabling of bottom halves
    assert local["ring_lock_ns_per_packet"] < kernel["ring_lock_ns_per_packet"]
    assert local["slow_declined"] == pytest.approx(local["returns_declined"], abs=64)
    assert local["dma_unmaps"] == local["returns_declined"] > 0 == kernel["dma_maps"]
    # a page that leaves the pool is not made ready for the device; one that enters is
    assert local["dma_syncs"] == local["dma_maps"]


def test_local_only_is_the_kernels_pool_where_all_returns_are_local() -> None:
    assert run("local_only", app__reader="drop", pool__size=1024) == run(app__reader="drop", pool__size=1024)


def test_near_only_is_the_kernels_pool_on_one_node() -> None:
    assert run_plain("near_only") == run()


@pytest.mark.parametrize("recycle", [True, False])
def test_asking_the_page_instead_of_the_bit_costs_a_trial_no_time(recycle: bool) -> None:
    """Without recycling each free reads the page first; what it waits for there, the next write does not."""
    kernel, page = run(pool__recycle=recycle), run_plain("page_decides", pool__recycle=recycle)
    differing = {name for name in kernel if kernel[name] != page[name]}
    assert differing == (set() if recycle else {"cache_hit_struct_page"})


def test_a_variant_may_have_a_larger_cache_than_the_kernel(tmp_path: Path) -> None:
    text = HEADER + (
        "@pool_variant\nclass Large:\n    def cache_limit(self, host, pool):\n        return 512\n"
        "    def refill_limit(self, host, pool):\n        return 256\n"
    )
    assert most_cached_in_plain_python(written(tmp_path, text)) > 200


def test_a_limit_beyond_the_room_is_cut_when_it_comes_later(tmp_path: Path) -> None:
    """In a new pool it is refused, see below; afterwards the books must hold whatever a variant says."""
    text = HEADER + (
        "@pool_variant\nclass Growing:\n    def cache_limit(self, host, pool):\n"
        "        return 10 if pool.hold == 0 else 1 << 40\n"
        "    def refill_limit(self, host, pool):\n"
        "        return 10 if pool.hold == 0 else (1 << 40) * (pool.alloc_slow % 2) - 5\n"
    )
    assert 0 < most_cached_in_plain_python(written(tmp_path, text)) <= CACHE_CAPACITY


def test_a_users_variant_that_decides_as_the_kernel_gives_its_record(tmp_path: Path) -> None:
    mine = written(tmp_path, SAME_AS_KERNEL)
    assert run(mine) == run()
    assert identity(mine) != identity(KERNEL_VARIANT)


def test_the_id_follows_the_files_content_and_the_class_only(tmp_path: Path) -> None:
    mine = written(tmp_path, SAME_AS_KERNEL)
    first = identity(mine)
    other = tmp_path / "elsewhere.py"
    shutil.copy(mine, other)
    assert identity(str(other)) == identity(f"{other}:Mine") == first
    other.write_text(SAME_AS_KERNEL.replace("128", "127"))
    assert identity(str(other)) != first
    two = written(tmp_path, SAME_AS_KERNEL + SAME_AS_KERNEL.replace("Mine", "Yours"), "two.py")
    assert identity(f"{two}:Mine") != identity(f"{two}:Yours")


def test_a_module_name_is_a_file_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, SAME_AS_KERNEL)
    (tmp_path / "inner").mkdir()
    written(tmp_path / "inner", SAME_AS_KERNEL, "deep.py")
    monkeypatch.chdir(tmp_path)
    assert identity("mine:Mine") == identity("inner.deep:Mine") == identity("./mine.py")


def test_a_variant_is_read_by_content_elsewhere(tmp_path: Path) -> None:
    for name in (written(tmp_path, SAME_AS_KERNEL), "ring_capped"):
        config = TrialConfig.from_fields({**SMALL_RING, "pool.variant": name})
        stored = tmp_path / "inputs"
        stored.mkdir(exist_ok=True)
        found = trial.inputs(config)
        for one in found:
            (stored / one.sha256).write_bytes(one.content())
        located = trial.locate(config, stored, {one.name: one.sha256 for one in found})
        assert str(stored) in located.pool.variant
        assert trial_id(located) == trial_id(config)
        expected = run_trial(config)
        if name != "ring_capped":
            Path(name).unlink()
        assert run_trial(located) == expected


def test_the_code_of_a_variant_is_cached_in_a_place_of_its_own() -> None:
    kernel: Any = trial._run
    capped: Any = trial._loop(variants.load("ring_capped").code)
    assert kernel._cache.cache_path != capped._cache.cache_path
    assert variants.load("ring_capped").code in capped._cache.cache_path
    assert variants.load("ring_capped").code in type(variants.load("ring_capped").instance).__module__


def test_cached_code_is_found_by_another_process(tmp_path: Path) -> None:
    """Its types have to be there when the index of the cache is read."""
    mine = written(tmp_path, SAME_AS_KERNEL)
    trial.prepare(mine)
    code = (
        "import sys; from workers import trial, variants\n"
        "trial.prepare(sys.argv[1])\n"
        "loop = trial._loop(variants.load(sys.argv[1]).code)\n"
        "print(sum(loop.stats.cache_hits.values()), sum(loop.stats.cache_misses.values()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, mine], capture_output=True, text=True, check=True)
    assert done.stdout == "1 0\n"


def test_plain_python_gives_the_same() -> None:
    """As an error in compiled code would be found: without the compiler."""
    code = (
        "import json, sys; from workers import run_trial; from workers.config import TrialConfig\n"
        "for name in ('local_only', 'ring_capped'):\n"
        "    fields = json.loads(sys.argv[1]) | {'pool.variant': name}\n"
        "    print(json.dumps(run_trial(TrialConfig.from_fields(fields))))\n"
    )
    fields = {**SMALL_RING, "duration_ms": 3, "traffic.burst_packets": 100}
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(fields)],
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for disabled in ("0", "1")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 2


def test_what_ships_is_named_in_the_fields_description() -> None:
    for name in (KERNEL_VARIANT, *variants.names()):
        assert name in field("pool.variant").description
        variants.check(variants.load(name), name, "6.1", 0)


def test_every_decision_is_checked_before_a_run() -> None:
    assert len(DECISIONS) == len(variants._ARGUMENTS)


# Bad input: one line with field, value and remedy

METHOD = "@pool_variant\nclass Mine:\n    def cache_limit(self, host, pool):\n        "


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def x(:", r"line 1: SyntaxError: .*; correct the file"),
        ("import no_such_thing", r"ModuleNotFoundError: No module named 'no_such_thing'; correct the file"),
        ("raise SystemExit(3)", r"SystemExit: 3; correct the file"),
        ("x = 1", r"name one variant: the file has none"),
        (
            METHOD + "return 1\n" + METHOD.replace("Mine", "Yours") + "return 2",
            r"Mine, Yours; add one as :CLASS",
        ),
        ("@pool_variant\nclass Mine:\n    pass", r"decides nothing; give it one of cache_limit, "),
        (METHOD.replace("limit", "limits") + "return 1", r"Mine.cache_limits: .* did you mean cache_limit;"),
        (METHOD.replace(", host", "") + "return 1", r"write it as def cache_limit\(self, host, pool\)"),
        (METHOD + "yield 1", r"write it as def cache_limit\(self, host, pool\)"),
        (METHOD + "return helper()\ndef helper():\n    return 1", r"line 5: Untyped global name 'helper'"),
        (METHOD + "return pool.nothing", r"cache_limit cannot be compiled: KeyError: 'nothing'"),
        (METHOD + "return len([1, 2])", r"it makes an object, such as a list or an array; use plain numbers"),
        (METHOD + "return 5 + 'a'", r"line 5: No implementation of function .*add"),
        (METHOD + "pass", r"cache_limit gives None; let it return an integer"),
        (METHOD + "return pool.ring_size / 2", r"cache_limit gives 512\.0; let it return an integer"),
        (METHOD + "return 0", r"cache_limit gives 0 for a ring of 1024; let it return 1\.\.512"),
        (METHOD + "return 513", r"cache_limit gives 513 for a ring of 1024; let it return 1\.\.512"),
        (METHOD.replace("cache", "refill") + "return 0", r"refill_limit gives 0 .*; let it return 1\.\.512"),
    ],
    ids=lambda value: value.splitlines()[-1].strip()[:40] if isinstance(value, str) else "",
)
def test_a_bad_file_is_named_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    name = written(tmp_path, HEADER + text if text != "def x(:" else text)
    with pytest.raises(ConfigError, match=says) as refused:
        trial.inputs(TrialConfig.from_fields({"pool.variant": name}))
    message = str(refused.value)
    assert message.startswith(f"pool.variant = {name!r}: ")
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "ring_caped",
            r"unknown variant; did you mean ring_capped, or name a file of your own as FILE.py:CLASS",
        ),
        ("zzz", r"unknown variant; known are kernel, local_only, .*ring_capped, or name a file"),
        ("missing.py", r"missing.py: No such file or directory; name a Python file"),
        ("missing:Mine", r"missing.py: No such file or directory; name a Python file"),
        ("ring_capped:Nope", r"no Nope there; it has RingCapped"),
        ("ring_capped:REFILL", r"REFILL is no variant; make it a class and decorate it with @pool_variant"),
        ("a\0b.py", r"no valid file name"),
        ("", r"unknown variant"),
    ],
)
def test_a_bad_name_is_one_line(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        trial.inputs(TrialConfig.from_fields({"pool.variant": name}))


def test_a_limit_that_only_this_pools_size_breaks_fails_the_trial(tmp_path: Path) -> None:
    mine = written(tmp_path, HEADER + METHOD + "return pool.ring_size // 2")
    with pytest.raises(ConfigError, match="cache_limit gives 2048 for a ring of 4096"):
        run(mine, pool__size=4096)


def test_a_hidden_class_is_refused(tmp_path: Path) -> None:
    """Cached code finds its types by name."""
    inner = "\n".join("    " + line for line in (METHOD + "return 1").splitlines())
    text = f"{HEADER}def make():\n{inner}\n    return Mine\nMade = make()\n"
    with pytest.raises(ConfigError, match=r"Made is hidden in make\.<locals>\.Mine; put it at the top"):
        variants.load(written(tmp_path, text))


def test_what_a_variant_leaves_out_stays_the_kernels() -> None:
    @pool_variant
    class OneDecision:
        """Says what it tries."""

        def refill_limit(self: Any, host: Any, pool: Any) -> int:
            return 7

    made = OneDecision()
    assert made.refill_limit(None, None) == 7
    assert made.cache_limit(None, None) == Kernel().cache_limit(None, None) == 128
    assert OneDecision.__doc__ == "Says what it tries."
