"""Attribution of a difference: on a machine where one mechanism alone costs anything, all goes to it."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import workers
from farm.answers import explain
from farm.cli.options import EXIT_INCOMPARABLE, EXIT_USAGE
from workers.config import TrialConfig
from workers.pricing.cache import KINDS, MISSES
from workers.profiles import arch
from workers.profiles.parameters import PARAMETERS

Farm = Callable[..., tuple[int, str, str]]

PRICES = [name for name in PARAMETERS if name.endswith("_ns")]


def pair(machine: str, **more: object) -> explain.Pair:
    fields = {
        "arch": machine,
        "kernel": "6.1",
        "traffic.kind": "constant",
        "traffic.rate_pps": 200_000,
        "duration_ms": 12,
        **more,
    }
    off, on = (TrialConfig.from_fields({**fields, "pool.recycle": on}) for on in (False, True))
    return explain.Pair("off", "on", (off,), (on,))


@pytest.mark.parametrize(
    ("mechanism", "prices", "less_ns"),
    [
        # a page that leaves the pool is freed; its atomics have prices of their own
        ("page allocator", {"page_free_ns": 100.0}, 100),
        ("DMA map and unmap", {"dma_map_ns": 40.0, "dma_unmap_ns": 30.0}, 70),
        # one release count and one drop of the last reference
        ("atomics", {"atomic_ns": 10.0}, 20),
        # a page that comes back is put and locked; one that does not is neither
        ("page_pool", {"pool_put_ns": 50.0}, -50),
        ("ring and lock", {"lock_unlock_ns": 25.0}, -25),
        # the same skb is built and freed either way
        ("skb", {"skb_alloc_ns": 25.0}, 0),
    ],
)
def test_all_of_a_difference_goes_to_the_only_mechanism_that_costs(
    mechanism: str, prices: dict[str, float], less_ns: float
) -> None:
    nothing = dict.fromkeys(PRICES, 0.0) | {"copy_bytes_per_ns": explain.FREE_BYTES_PER_NS}
    with arch.varied("broadwell-ep", nothing | prices) as machine:
        found = explain.explain(pair(machine))
    shares = {one.mechanism: one for one in found.shares}
    assert found.difference == pytest.approx(-less_ns, abs=0.03 * max(prices.values()))
    assert shares[mechanism].first_off == shares[mechanism].last_off == found.difference
    assert {one.share for name, one in shares.items() if name != mechanism} == {0}
    assert (found.interaction, found.rest) == (0, 0)


@pytest.mark.parametrize("machine", ["armada-8040", "armada-3720"])
def test_shares_interaction_and_rest_add_up(machine: str) -> None:
    found = explain.explain(pair(machine))
    total = sum(one.share for one in found.shares) + found.interaction + found.rest
    assert total == pytest.approx(found.busy_b - found.busy_a, abs=1e-9)
    assert found.difference < 0
    assert explain.sentence(found).startswith(f"on saves {-found.difference:,.0f} ns of ")


def test_misses_of_one_object_are_switched_off_alone() -> None:
    """The device writes each header to memory: it misses once in each packet, later touches find it near."""
    profile = arch.load("armada-3720")
    dram_ns, l2_ns = (profile[name] * profile["miss_exposed_ratio"] for name in ("dram_ns", "l2_ns"))
    with ExitStack() as stack:
        free = stack.enter_context(arch.varied("armada-3720", {}, ["packet"]))
        usual = pair("armada-3720").b[0]
        records = [workers.run_trial(usual.model_copy(update={"arch": n})) for n in ("armada-3720", free)]
    less = records[0]["cache_misses_ns_per_packet"] - records[1]["cache_misses_ns_per_packet"]
    assert dram_ns <= less <= dram_ns + l2_ns


def test_every_price_belongs_to_one_mechanism() -> None:
    owned = [name for one in explain.MECHANISMS for name in one.constants if name.endswith("_ns")]
    assert sorted([*owned, *explain.NEVER_OFF, *explain.LATENCIES]) == sorted(PRICES)
    assert sorted(kind for kinds in MISSES.values() for kind in kinds) == sorted(all_kinds())
    assert {name for one in explain.MECHANISMS for name in one.misses} == set(MISSES)


def all_kinds() -> list[int]:
    from pool_impl import observe

    return [*range(observe.FIRST_OWN_OBJECT), *range(observe.FIRST_OWN_OBJECT, KINDS)]


def test_a_cell_is_named_by_fields_of_a_sweep(farm: Farm, small_file: str) -> None:
    cell = ["arch=armada-3720", "traffic.kind=poisson", "pool.size=64"]
    code, out, err = farm("explain", small_file, "pool.recycle=false", "pool.recycle=true", *cell)
    assert (code, err) == (0, "")
    assert "pool.recycle=true saves" in " ".join(out.split())
    assert all(len(line) <= 80 for line in out.splitlines())
    code, out, _ = farm("explain", small_file, "pool.recycle=false", "pool.recycle=true", *cell, "--json")
    found = json.loads(out)
    parts = [one["share"] for one in found["mechanisms"]] + [found["rest_ns"], found["interaction_ns"]]
    assert sum(parts) == pytest.approx(found["difference_ns"])


def test_a_stored_run_is_explained_with_what_it_read(farm: Farm, small_file: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(arch.load("armada-3720").canonical)
    cell = ["pool.recycle=false", "pool.recycle=true", "traffic.kind=constant", "pool.size=64", "--json"]
    _, before, _ = farm("explain", small_file, *cell, f"arch={mine}")
    farm("run", small_file, f"arch={mine}", "traffic.kind=constant", "--executor", "serial")
    mine.unlink()
    code, after, err = farm("explain", "last", *cell)
    assert (code, err) == (0, "")
    assert json.loads(after) == json.loads(before)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["pool.recycle=true", "pool.recycle=false", "arch=armada-3720"], EXIT_USAGE, "traffic.kind: the"),
        (["pool.recicle=true", "pool.recycle=false"], EXIT_USAGE, "did you mean pool.recycle?"),
        (["pool.size", "pool.recycle=false"], EXIT_USAGE, "key=value"),
        (["pool.size=64 arch=armada-3720", "pool.size=64 arch=armada-3720", "pool.recycle=true",
          "traffic.kind=constant"], EXIT_INCOMPARABLE, "the same cell"),
        (["pool.size=64", "pool.size=1024", "pool.size=64"], EXIT_USAGE, "pool.size: set for one cell and"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(farm: Farm, small_file: str, words: list[str], code: int, said: str) -> None:
    got, out, err = farm("explain", small_file, *words)
    assert (got, out) == (code, "")
    assert err.count("\n") == 1
    assert said in err
