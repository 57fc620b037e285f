"""Trials made from a template: the memory of assembled ones, and the same records whatever ran before."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.elsewhere import evaluate
from tests.workers.test_combinations import CONSUMERS, MODELS
from tests.workers.test_pinned import TRIALS
from workers import assemble, run_trial, template
from workers.arrivals import window
from workers.config import TrialConfig
from workers.fields.derived import seed_matters
from workers.fields.groups import Value

DRAWN: dict[str, Value] = {
    "traffic.kind": "poisson",
    "traffic.flows": 5,
    "traffic.packet_size": 1500,
    "app.socket_bytes": 1 << 16,
    "duration_ms": 6,
}
"""with small tables: all of them is compared"""

FEATURES: dict[str, dict[str, Value]] = {
    **{name: fields for name, fields in TRIALS.items() if seed_matters(TrialConfig.from_fields(fields))},
    **{name: DRAWN | fields for name, fields in CONSUMERS.items()},
    **{name: DRAWN | fields for name, fields in MODELS.items()},
    "strict": {**DRAWN, "machine.iommu": "strict"},
    "bounced": {**DRAWN, "machine.swiotlb": True, "machine.mitigation": "on"},
    "merged in the NIC": {
        **DRAWN,
        "driver.model": "header-split",
        "nic.hw_gro": True,
        "app.protocol": "tcp",
        "app.reader": "fast",
    },
    "resized": {**DRAWN, "life.event": "resize", "life.queues": 2, "life.at_ms": 2, "life.down_ms": 1},
    "variant": {**DRAWN, "pool.variant": "ring_capped"},
    "flows that end, some more popular": {**DRAWN, "traffic.flow_packets": 40, "traffic.flow_skew": 1.1},
}

MIXED = ("slow-poisson-drawn-work", "fast-imix-software-coherence", "slow-bursts-moved-to-the-other-node")
"""with records of other lengths and another event loop; by TRIALS"""


def leaves(part: Any) -> Iterator[Any]:
    if isinstance(part, tuple):
        for member in part:
            yield from leaves(member)
    else:
        yield part


def memory(trial: Any) -> list[Any]:
    """Bytes of each table and record, and what else there is."""
    return [
        np.asarray(leaf).tobytes() if isinstance(leaf, np.ndarray | np.void) else leaf
        for leaf in leaves(trial)
    ]


def digest(name: str, seed: int, *, alone: bool = False) -> str:
    record = run_trial(TrialConfig.from_fields({**TRIALS[name], "seed": seed}), alone=alone)
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def digests(name: str, seed: int) -> list[str]:
    """For :func:`tests.elsewhere.evaluate`."""
    return [digest(name, seed)]


@pytest.mark.parametrize("name", FEATURES)
def test_a_copy_has_the_memory_of_an_assembled_trial(name: str) -> None:
    for seed in (3, 1):
        config = TrialConfig.from_fields({**FEATURES[name], "seed": seed})
        copied, assembled = template.new_trial(config), assemble.new_trial(config)
        assert type(copied.host.observer) is type(assembled.host.observer)
        assert memory(copied) == memory(assembled)


def test_a_seed_changes_the_memory() -> None:
    """Or else the test above would not see a seed that is left out."""
    for name, fields in FEATURES.items():
        one, two = (
            memory(template.new_trial(TrialConfig.from_fields({**fields, "seed": s}))) for s in (1, 2)
        )
        assert one != two, name


def test_parts_of_a_copy_share_memory_as_those_of_the_original_do() -> None:
    copied = template.new_trial(TrialConfig.from_fields(DRAWN))
    copied.host.pages[1].nid = 3
    assert copied.buffers.host.pages[1].nid == copied.host.observer.pages[1].nid == 3
    copied.host.observer.meter.caches.line_bytes = 7
    assert copied.host.observer.caches.line_bytes == 7


def test_what_a_trial_does_is_not_seen_by_the_next() -> None:
    config = TrialConfig.from_fields(DRAWN)
    fresh = memory(template.new_trial(config))
    spoiled = template.new_trial(config)
    for leaf in leaves(spoiled):
        if isinstance(leaf, np.ndarray | np.void):
            np.asarray(leaf).reshape(-1).view(np.uint8)[:] = 0xFF
    assert memory(template.new_trial(config)) == fresh


def test_records_are_those_of_a_process_of_its_own_in_whatever_order() -> None:
    """More cells than are kept in between, so that templates come and go."""
    wanted = {
        (name, seed): evaluate("tests.workers.test_template", f"digests({name!r}, {seed})")
        for name, seed in zip(MIXED, (1, 2, 3), strict=True)
    }
    order = [*wanted, *((name, seed) for name in MIXED for seed in range(3))]
    order += [(name, 4) for name in TRIALS if name not in MIXED]
    assert len(TRIALS) > template.KEPT_CELLS
    found: dict[tuple[str, int], set[str]] = {}
    for turn in range(2):
        random.Random(turn).shuffle(order)
        for name, seed in order:
            found.setdefault((name, seed), set()).add(digest(name, seed, alone=turn == 1 and seed == 2))
    assert all(len(digests) == 1 for digests in found.values())
    for trial, digests_alone in wanted.items():
        assert found[trial] == set(digests_alone)


def test_a_profile_that_changes_gives_another_template(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    config = TrialConfig.from_fields({**DRAWN, "arch": str(path)})
    found = []
    for dram_ns in ("90", "91.5"):
        path.write_text(
            f'title = "own"\ndescription = "own"\nparent = "zen3"\n[dram_ns]\nvalue = {dram_ns}\n'
            'low = 90\nhigh = 99\ncertainty = "estimate"\nsource = "no source"\n'
        )
        found.append(memory(template.new_trial(config)))
        assert found[-1] == memory(assemble.new_trial(config))
    assert found[0] != found[1]


def test_there_is_room_for_the_windows_of_every_seed() -> None:
    """However flows fall on readers: notices never wait in a queue that is too short."""
    fields = {**TRIALS["window-of-three-flows-that-fill-the-ring"], "traffic.flows": 40, "app.readers": 3}
    for seed in range(200):
        found = window.new_windows(TrialConfig.from_fields({**fields, "seed": seed}))
        assert found.senders.allowed.sum() <= found.notices[0].mask + 1
        assert found.sending.senders <= found.sending.mask + 1
