"""The lock of a node's free lists: CPUs whose own lists run empty or over wait for one another."""

from pathlib import Path
from typing import Any

import pytest

from pool_impl.jit import entry
from pool_impl.layout import CONTEXT, PAGE, records
from pool_impl.observe import ZONE_LOCK, ZONE_UNLOCK
from workers import run_trial
from workers.config import TrialConfig
from workers.fields.groups import Value
from workers.model import MODEL_DIGEST
from workers.pricing.cache import stamps_needed
from workers.pricing.cost import APPLICATION, Pricing, charge, clock, new_pricing
from workers.profiles import arch

FLAT = Path(__file__).parent / "profiles" / "flat.toml"

MOVE_NS = 1000
BOUND = 1e9 / (2 * MOVE_NS)
"""packets a second that one lock lets through, if each page is moved at its allocation and at its return"""


@pytest.fixture(name="profile")
def _profile(tmp_path: Path) -> str:
    """Nothing takes time but to move a page between a CPU's list and the free lists."""
    path = tmp_path / "moves.toml"
    path.write_text(
        f'title = "Flat but for the free lists"\ndescription = "one cost"\nparent = "{FLAT}"\n'
        f'[buddy_page_ns]\nvalue = {MOVE_NS}\ncertainty = "derived"\nsource = "a test"\n'
        '[pcp_high_pages]\nvalue = 60\ncertainty = "derived"\nsource = "a test"\n'
        '[pcp_batch_pages]\nvalue = 20\ncertainty = "derived"\nsource = "a test"\n'
    )
    return str(path)


@entry("test-zone-lock-" + MODEL_DIGEST)
def hold(pricing: Pricing, cpu: int, node: int, duration_ps: int) -> int:
    """Have a zone's lock for so long; returns how long the CPU waited for it."""
    pricing.context.cpu = cpu
    before_ps = clock(pricing.meter, cpu)
    pricing.work(ZONE_LOCK, node)
    waited_ps = clock(pricing.meter, cpu) - before_ps
    charge(pricing.meter, cpu, APPLICATION, duration_ps)
    pricing.work(ZONE_UNLOCK, node)
    return waited_ps


def run(profile: str, **more: Value) -> dict[str, Any]:
    """Pages are taken on the CPUs of queues and given back on those of readers."""
    fields: dict[str, Value] = {
        "arch": profile,
        "duration_ms": 30,
        "warmup_ms": 10,
        "pool.recycle": False,
        "traffic.kind": "constant",
        "traffic.rate_pps": 900_000,
        "traffic.flows": 256,
        "app.reader": "fast",
        "nic.rx_ring": 64,
    }
    fields |= {name.replace("__", "."): value for name, value in more.items()}
    return run_trial(TrialConfig.from_fields(fields))


@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_one_lock_bounds_what_all_cpus_can_do(profile: str, pairs: int) -> None:
    """Two CPUs or eight: without waiting, a pair alone would deliver nearly twice the bound."""
    record = run(profile, nic__queues=pairs, app__readers=pairs)
    assert 0.8 * BOUND < record["packets_delivered"] / record["measured_seconds"] < 1.01 * BOUND
    assert record["zone_lock_ns_per_packet"] > 0


def test_who_comes_later_waits_until_the_lock_of_that_node_is_free() -> None:
    context = records(CONTEXT, 1)[0]
    stamps = stamps_needed(pages=1, slots=1, descriptors=1, skbs=1)
    pricing = new_pricing(arch.load("broadwell-ep"), context, records(PAGE, 1), stamps)
    waits_ps = [hold(pricing, cpu, node, 1000) for cpu, node in ((0, 0), (1, 0), (2, 1), (0, 0), (1, 0))]
    assert waits_ps == [0, 1000, 0, 1000, 1000]


def test_more_cpus_wait_longer(profile: str) -> None:
    waits = [
        run(profile, traffic__rate_pps=400_000, nic__queues=n, app__readers=n)["zone_lock_ns_per_packet"]
        for n in (1, 2, 4)
    ]
    assert waits == sorted(waits)
    assert waits[0] < 0.7 * waits[2]


def test_a_cpu_alone_does_not_wait(profile: str) -> None:
    record = run(profile, app__reader="drop", nic__rx_ring=512, traffic__rate_pps=200_000)
    assert record["page_alloc_ns_per_packet"] > 0
    assert record["zone_lock_ns_per_packet"] == 0


def test_recycled_pages_need_no_lock(profile: str) -> None:
    record = run(profile, pool__recycle=True, nic__queues=4, app__readers=4)
    assert record["packets_delivered"] / record["measured_seconds"] == pytest.approx(900_000, rel=0.01)
    assert record["zone_lock_ns_per_packet"] == 0
