"""The doctor names the regime of pools from counters alone: those of trials whose regime is known, published
ones, and dumps written to the published family specification."""

import errno
import json
import platform
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from farm import sweep
from farm.answers.doctor import counters, netlink, regimes, report, reproduce
from farm.errors import CountersError
from farm.plan import Plan
from workers import run_trial
from workers.config import TrialConfig
from workers.fields.groups import Value
from workers.measures import COUNTERS

Farm = Callable[..., tuple[int, str, str]]

STEADY: dict[str, Value] = {"traffic.kind": "constant", "traffic.rate_pps": 400_000}
BURSTS: dict[str, Value] = {
    "traffic.kind": "bursts",
    "traffic.rate_pps": 150_000,
    "app.reader": "slow",
    "app.socket_bytes": 4 << 20,
}
LARGE: dict[str, Value] = {
    "traffic.kind": "constant",
    "traffic.rate_pps": 200_000,
    "traffic.packet_size": 1500,
}
STALLED: dict[str, Value] = {"app.reader": "stalled", "app.socket_bytes": 1 << 26}
MOVED: dict[str, Value] = {"numa.nodes": 2, "life.event": "irq-moved", "driver.pool_node": "local"}
SCENARIOS: dict[str, tuple[regimes.Regime, dict[str, Value]]] = {
    "early-drop": ("direct", {**STEADY, "app.reader": "drop", "kernel": "6.12"}),
    "early-drop-poisson": ("direct", {"traffic.kind": "poisson", "app.reader": "drop", "kernel": "6.12"}),
    "early-drop-before-napi-local-returns": ("through the ring", {**STEADY, "app.reader": "drop"}),
    "xdp-drop": ("direct", {**STEADY, "xdp.pass_percent": 0, "xdp.drop_percent": 100}),
    "reader-elsewhere": ("through the ring", {**STEADY, "app.reader": "fast"}),
    "fragments": ("through the ring", {**LARGE, "app.reader": "fast", "driver.model": "fragments"}),
    "small-ring": ("ring overflow", {**BURSTS, "pool.size": 64}),
    "smaller-ring": ("ring overflow", {**BURSTS, "pool.size": 16, "kernel": "6.12"}),
    "off": ("not recycled", {**STEADY, "app.reader": "fast", "pool.recycle": False}),
    "off-early-drop": ("not recycled", {**STEADY, "app.reader": "drop", "pool.recycle": False}),
    "unread-socket": ("pages held", {**STEADY, **STALLED, "app.stall_ms": 590, "app.stall_every_ms": 600}),
    "references": (
        "other references",
        {**BURSTS, "driver.model": "split", "driver.buffer_bytes": 4096, "pool.recycle": False},
    ),
    "irq-moved": ("node mismatch", {**STEADY, **MOVED, "app.reader": "fast"}),
}
BEFORE_MS, AFTER_MS = 10, 50


def counted(fields: Mapping[str, Value], duration_ms: int) -> dict[str, Any]:
    """A trial from its start: what its pool has counted by then."""
    more: dict[str, Value] = {"warmup_ms": 0, "duration_ms": duration_ms}
    return run_trial(TrialConfig.from_fields({**fields, **more}))


def dumps(tmp_path: Path, name: str, record: Mapping[str, Any], detached: bool = False) -> list[Path]:
    """Counters and state of one pool as netlink has them."""
    statistics = {name.replace("_", "-"): record[name] for name in COUNTERS}
    state = {"id": 3, "ifindex": 2, "inflight": max(0, int(record["pages_inflight"])), "inflight-mem": 0}
    if detached:
        state["detach-time"] = 77
    contents = {"stats": [{"info": {"id": 3, "ifindex": 2}, **statistics}], "get": [state]}
    paths = []
    for kind, content in contents.items():
        paths.append(tmp_path / f"{name}-{kind}.json")
        paths[-1].write_text(json.dumps(content))
    return paths


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_regime_of_a_trial_is_named_from_its_counters(name: str, tmp_path: Path) -> None:
    regime, fields = SCENARIOS[name]
    before, after = (
        counters.read(dumps(tmp_path, str(ms), counted(fields, ms))) for ms in (BEFORE_MS, AFTER_MS)
    )
    found = report.examine(before, after, (AFTER_MS - BEFORE_MS) / 1000)
    assert found.together.regime == regime
    assert all(evidence.of for evidence in found.together.evidence)
    rate = found.rates["alloc_fast"] * (AFTER_MS - BEFORE_MS) / 1000
    assert rate == pytest.approx(after.counts["3"]["alloc_fast"] - before.counts["3"]["alloc_fast"])


HNS3 = {
    "alloc_fast": (13_794_308, 60_066_264),
    "alloc_slow": (108_625, 16_512),
    "alloc_empty": (8_192, 16_512),
    "alloc_refill": (0, 473_841),
    "alloc_waive": (100_433, 0),
    "recycle_ring": (362_400, 29_754_145),
    "recycle_ring_full": (6_064_893, 0),
}
"""as published with the fix of the bulk allocation that ignored the node: before and after it"""


def ethtool_of_hns3(column: int) -> str:
    """As ``ethtool -S`` prints them."""
    lines = [f"     rx_pp_{name}: {HNS3.get(name, (0, 0))[column]}" for name in COUNTERS]
    lines = [line.replace("high_order", "ho").replace("refcnt", "ref") for line in lines]
    return "NIC statistics:\n     rx_packets: 12\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(("column", "regime"), [(0, "node mismatch"), (1, "through the ring")])
def test_the_published_counters_of_hns3_are_recognised(
    column: int, regime: str, farm: Farm, tmp_path: Path
) -> None:
    path = tmp_path / "ethtool.txt"
    path.write_text(ethtool_of_hns3(column))
    code, output, errors = farm("doctor", str(path), "--json")
    assert (code, errors) == (0, "")
    assert json.loads(output)["together"]["regime"] == regime


def test_counters_by_queue_are_not_added_to_their_sum(tmp_path: Path) -> None:
    path = tmp_path / "ethtool.txt"
    names = [(0, name.replace("high_order", "ho").replace("refcnt", "ref")) for name in COUNTERS]
    prefixes = ("rx_", "rx0_", "rx1_")
    path.write_text("".join(f"  {prefix}pp_{name}: 5\n" for prefix in prefixes for _, name in names))
    assert set(counters.read([path]).counts) == {"rx0", "rx1"}


def test_a_pool_that_differs_from_all_together_is_named() -> None:
    good = dict.fromkeys(COUNTERS, 0) | {
        "alloc_fast": 900_000,
        "alloc_refill": 9_000,
        "recycle_ring": 900_000,
    }
    bad = dict.fromkeys(COUNTERS, 0) | {"alloc_fast": 4_000, "alloc_slow": 100, "recycle_ring": 2_000}
    bad["recycle_ring_full"] = 2_000
    found = report.examine(None, counters.Snapshot("x", {"1": good, "2": bad}, {}), None)
    assert found.together.regime == "through the ring"
    assert {pool: one.regime for pool, one in found.differing.items()} == {"2": "ring overflow"}


# A pool whose driver has given it up


@pytest.mark.parametrize(
    ("left", "seconds", "regime"),
    [
        ((500, 400), 1.0, "draining"),
        ((500, 490), 60.0, "long hold"),
        ((500, 500), 60.0, "leak or stall"),
        ((500, 0), 1.0, "shut down"),
    ],
)
def test_a_stalled_shutdown_is_a_leak_a_long_hold_or_normal(
    left: tuple[int, int], seconds: float, regime: regimes.Regime
) -> None:
    before, after = ({"9": counters.State(pages, True)} for pages in left)
    found = regimes.diagnose_detached(before, after, seconds)
    assert found is not None
    assert found.regime == regime


def test_a_trial_whose_device_went_down_drains(tmp_path: Path) -> None:
    """Its counters of in-flight pages, at two moments after it went down."""
    down: dict[str, Value] = {**BURSTS, "life.event": "down", "life.at_ms": 10, "app.work_ns": 20_000}
    snapshots = []
    for ms in (12, 14):
        record = counted(down, ms)
        record["pages_inflight"] = record["pages_not_returned"]
        snapshots.append(counters.read(dumps(tmp_path, str(ms), record, True)))
    found = report.examine(snapshots[0], snapshots[1], 0.002)
    assert found.together.regime == "draining"


# What cannot be told


def snapshot_of(**counts: int) -> counters.Snapshot:
    return counters.Snapshot("x", {"1": dict.fromkeys(COUNTERS, 0) | counts}, {})


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (None, snapshot_of(alloc_fast=300), "300 allocations are too few to tell"),
        (None, snapshot_of(alloc_fast=64_000, alloc_slow=1_000), "give page-pool-get of both moments"),
        (snapshot_of(alloc_fast=9), snapshot_of(alloc_fast=8), "goes back from 9 to 8: another boot"),
        (
            counters.Snapshot("x", {"7": dict.fromkeys(COUNTERS, 0)}, {}),
            snapshot_of(alloc_fast=9_000),
            "no pool of x in it",
        ),
        (
            None,
            counters.Snapshot("x", {}, {"4": counters.State(12, True)}),
            "one moment does not say whether they come back",
        ),
        (None, counters.Snapshot("x", {}, {"4": counters.State(12, False)}), "pools without counters"),
    ],
)
def test_what_counters_cannot_tell_is_refused(
    before: counters.Snapshot | None, after: counters.Snapshot, message: str
) -> None:
    with pytest.raises(CountersError, match=message) as caught:
        report.examine(before, after, None)
    assert "\n" not in str(caught.value)


def test_none_back_in_a_short_time_is_neither_leak_nor_hold() -> None:
    states = {"9": counters.State(500, True)}
    with pytest.raises(CountersError, match="too short to tell a leak from a long hold"):
        regimes.diagnose_detached(states, states, 5.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no page_pool counter in it"),
        ("NIC statistics:\n  rx_packets: 3\n", "no page_pool counter in it"),
        ("  rx_pp_alloc_fast: 3\n", "alloc_slow, .* missing; is the file truncated"),
        ('[{"info": {"id": 1}, "alloc-fast"', "truncated or no JSON"),
        ('[{"info": {"id": 1}, "alloc-fast": 4}]', "alloc_slow, .* missing"),
        ('[{"id": 1, "inflight": -4}]', "inflight = -4"),
        ('{"id": 1}', "not a list of pools"),
        ("[3]", "not a list of pools"),
        ('[{"id": 1, "inflight": 4}, {"name": "lo"}]', "id = None"),
    ],
)
def test_a_file_that_is_no_dump_is_refused_in_one_line(
    text: str, message: str, farm: Farm, tmp_path: Path
) -> None:
    path = tmp_path / "dump"
    path.write_text(text)
    with pytest.raises(CountersError, match=message):
        counters.read([path])
    code, output, errors = farm("doctor", str(path))
    assert (code, output, errors.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    "arguments", [(), ("--live", "x"), ("--live", "--then", "x"), ("nowhere",), ("{tmp}",)]
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], farm: Farm, tmp_path: Path) -> None:
    code, output, errors = farm("doctor", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (code, output, errors.count("\n")) == (2, "", 1)


# Netlink


def test_the_running_kernel_answers() -> None:
    """Without a NIC that has pools the dump is empty, which is an answer."""
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 8):
        pytest.skip("the kernel is older than the operation")
    found = netlink.snapshot()
    assert found.counts.keys() <= found.states.keys()
    if not found.states:
        assert report.examine(found, found, 1.0).together.regime == "no pools"


def attribute(number: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), number) + payload + b"\0" * (-len(payload) % 4)


def decoded(message: type[Any], *attributes: bytes) -> dict[str, Any]:
    payload = struct.pack("=BBH", 5, 1, 0) + b"".join(attributes)
    parsed = message(struct.pack("=IHHII", 16 + len(payload), 30, 0, 1, 0) + payload)
    parsed.decode()
    return netlink.objects_of(parsed)


def test_a_pool_in_bytes_of_the_family_specification() -> None:
    """Numbers of attributes from netdev.yaml: id 1, ifindex 2, napi-id 3, inflight 4, inflight-mem 5,
    detach-time 6; uint has 4 bytes, or 8 where it is larger. What is newer is left out."""
    found = decoded(
        netlink._pool_message(),
        attribute(1, struct.pack("=I", 12)),
        attribute(2, struct.pack("=I", 4)),
        attribute(4, struct.pack("=Q", 1 << 33)),
        attribute(6, struct.pack("=I", 900)),
        attribute(7, struct.pack("=I", 1)),
    )
    assert found == {"id": 12, "ifindex": 4, "inflight": 1 << 33, "detach-time": 900}
    assert counters.of_dump("x", [found]).states == {"12": counters.State(1 << 33, True)}


def test_statistics_in_bytes_of_the_family_specification() -> None:
    info = attribute(1, struct.pack("=I", 12)) + attribute(2, struct.pack("=I", 4))
    numbers = [attribute(8 + place, struct.pack("=I", 100 + place)) for place in range(len(COUNTERS))]
    found = decoded(netlink._statistics_message(), attribute(1 | 0x8000, info), *numbers)
    counts = counters.of_dump("x", [found]).counts["12"]
    assert list(counts.items()) == [(name, 100 + place) for place, name in enumerate(COUNTERS)]


def test_a_kernel_without_the_family_or_statistics_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.generic import GenericNetlinkSocket

    for code, message in ((errno.ENOENT, "shows no pools"), (errno.EOPNOTSUPP, "CONFIG_PAGE_POOL_STATS")):

        def refuse(*_: object, code: int = code, **__: object) -> None:
            raise NetlinkError(code)

        monkeypatch.setattr(GenericNetlinkSocket, "bind", refuse)
        with pytest.raises(CountersError, match=message):
            netlink.snapshot()


# The sweep that goes with it


@pytest.mark.parametrize("regime", reproduce._BODIES)
def test_the_sweep_of_a_regime_can_be_planned(regime: regimes.Regime) -> None:
    plan = Plan(sweep.parse(reproduce.sweep_of(regime, "broadwell-ep"), "x"))
    assert 2 <= plan.trials <= 16


def test_a_sweep_is_written_once(farm: Farm, tmp_path: Path) -> None:
    files = [
        str(path) for path in dumps(tmp_path, "x", {**dict.fromkeys(COUNTERS, 9_000), "pages_inflight": 1})
    ]
    output = tmp_path / "sweep.toml"
    assert farm("doctor", *files, "-o", str(output))[0] == 0
    assert farm("plan", str(output))[0] == 0
    code, _, errors = farm("doctor", *files, "-o", str(output))
    assert (code, errors.count("\n")) == (2, 1)
    assert "exists; name another file" in errors
