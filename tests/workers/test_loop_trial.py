"""Loops of the page_pool benchmark on simulated architectures."""

import pytest

from pool_impl import PoolParams
from workers import audit, machine, micro, run_trial
from workers.config import TrialConfig
from workers.errors import CheckError, ConfigError
from workers.fields.derived import seed_matters
from workers.measures import CATEGORIES, LISTS, MEASURES
from workers.profiles import arch as arch_profiles

LOOPS = ("pool_fast", "pool_ring", "pool_slow", "page_single", "page_bulk")


def loop(workload: str, arch: str = "broadwell-ep", **more: int) -> dict[str, float]:
    fields = {"workload": workload, "arch": arch, **{k.replace("__", "."): v for k, v in more.items()}}
    return run_trial(TrialConfig.from_fields(fields))  # type: ignore[return-value]


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_costs_what_the_kernels_benchmark_printed(name: str) -> None:
    """Xeon E5-1650 v4 (spec 9.1). The costs of the cache and of pages without a pool stand in the profile as
    input; ring and slow path come out of operation counts."""
    [published] = [one.kernel_ns for one in micro.LOOPS if one.name == name]
    assert loop(name)["busy_ns_per_packet"] == pytest.approx(published, rel=0.15)


@pytest.mark.parametrize("arch", ["broadwell-ep", "armada-8040", "armada-3720"])
def test_the_paths_are_ordered_as_everywhere_published(arch: str) -> None:
    """Spec 9.1: the cache below the ring below the page allocator, at 1 to 2.3..3 to 7.8..12.4, and less far
    apart on a core with dear calls."""
    fast, ring, slow = (loop(name, arch)["busy_ns_per_packet"] for name in LOOPS[:3])
    assert 2 * fast < ring < 3.5 * fast
    assert 2 * ring < slow < 5 * ring


@pytest.mark.parametrize("arch", ["broadwell-ep", "armada-8040", "armada-3720"])
def test_a_page_alone_differs_from_one_of_a_bulk_by_the_price_of_its_allocation(arch: str) -> None:
    """Both drop one reference and free one page a turn, and find their page in the same list."""
    single, bulk = loop("page_single", arch), loop("page_bulk", arch)
    profile = arch_profiles.load(arch)
    assert single["page_alloc_ns_per_packet"] == pytest.approx(profile["page_single_alloc_ns"])
    assert bulk["page_alloc_ns_per_packet"] == pytest.approx(profile["page_bulk_alloc_ns"])
    assert single["page_free_ns_per_packet"] == bulk["page_free_ns_per_packet"]


@pytest.mark.parametrize("name", LOOPS)
def test_a_record_has_every_measure_and_no_packets(name: str) -> None:
    record = loop(name)
    assert list(record) == [*(measure.name for measure in MEASURES), *LISTS]
    assert record["packets_offered"] is None
    spent = sum(record[f"{category}_ns_per_packet"] for category in CATEGORIES)
    assert spent == pytest.approx(record["busy_ns_per_packet"], rel=1e-9)


def test_a_small_ring_does_not_matter_to_a_loop_of_one_page() -> None:
    assert loop("pool_ring", pool__size=128) == loop("pool_ring", pool__size=4096)


def test_seeds_do_not_matter_and_recycling_off_is_refused() -> None:
    assert not seed_matters(TrialConfig.from_fields({"workload": "pool_fast"}))
    with pytest.raises(ConfigError, match=r"pool\.recycle = False: workload = pool_ring has no packets"):
        TrialConfig.from_fields({"workload": "pool_ring", "pool.recycle": False})


def test_books_of_a_loop_that_do_not_balance_are_refused() -> None:
    host = machine.new_machine(TrialConfig(), pages=4096)
    micro.fill(host, PoolParams())
    audit.check_idle_pool(host)
    host.pools[0].hold += 1
    with pytest.raises(CheckError, match="pages in flight: 65, but pages in cache and ring: 64"):
        audit.check_idle_pool(host)
