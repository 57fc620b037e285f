"""The debug build notices what nobody may do, and nothing else (spec 6.1, 14)."""

from pathlib import Path

import numpy as np
import pytest

from pool_impl import audit, conformance, page_calls, recording
from pool_impl.conformance import Replay
from pool_impl.release import RELEASES

RECORDINGS = Path(__file__).parent / "recordings"

MISUSES = {
    **dict.fromkeys(
        ("frag-whole-pages",),
        "a share given up, or doubled, that nobody has",  # whole pages of a pool for fragments
    ),
    **dict.fromkeys(
        (
            *("page-leak", "skb-clone-then-mark", "skb-coalesce-unmarked-pool", "skb-dma", "skb-expand-head"),
            *("skb-frag-list", "skb-frag-ref-unref", "skb-frags-unmarked", "skb-gro-head"),
            *("skb-head-unmarked", "skb-split", "napi-skb-modify", "napi-skb-unmarked"),
        ),
        "a plain reference given up that nobody has",  # pages of a pool in skbs without a mark
    ),
    **dict.fromkeys(
        ("random-page-06-odd-1024", "random-page-12-odd-1", "random-page-18-odd-1024"),
        "a plain reference given up that nobody has",  # leak_page
    ),
}
"""recordings in which a kernel was made to lose pages, or to count shares below zero, and how"""

ALL = pytest.mark.parametrize("kernel", list(RELEASES))


class Machine(Replay):
    """Two pools, audited, and pages of the first."""

    def __init__(self, kernel: str) -> None:
        super().__init__(kernel, 2, pages=1024, skbs=16, audit=True)
        later = {"napi": -1, "cpuid": -1, "nosync": 0} if self.host.rules.local_recycling else {}
        params = {"pool_size": 8, "flags": 0, "order": 0, "nid": -1, "dma_dir": 0, "max_len": 0, "offset": 0}
        for number in range(2):
            self.do_operation("create", "softirq", {"pool": number, **params, **later})
        self.pages = [self.call(page_calls.ALLOC, 0) for _ in range(3)]

    def call(self, code: int, *numbers: int) -> int:
        return int(page_calls.step(self.host, code, np.array(numbers, np.int64)))

    def put(self, page: int, pool: int = 0) -> None:
        self.call(page_calls.PUT, page, -1, 0, pool)

    def faults(self) -> list[str]:
        return audit.faults(self.host)


@ALL
@pytest.mark.parametrize("references", [0, 1])
def test_what_callers_may_do_is_no_fault(kernel: str, references: int) -> None:
    machine = Machine(kernel)
    first, second, third = machine.pages
    if references:
        machine.call(page_calls.GET_PAGE, first)
    machine.put(first)
    if references:
        machine.call(page_calls.PUT_PAGE, first)
    machine.put(second)
    machine.call(page_calls.RELEASE_PAGE, third, 0)
    machine.call(page_calls.PUT_PAGE, third)
    assert machine.faults() == []
    machine.call(page_calls.DESTROY, 0)
    assert machine.faults() == []
    assert machine.host.pools[0].freed


@ALL
@pytest.mark.parametrize("between", [True, False])
def test_a_page_put_twice_is_a_fault(kernel: str, between: bool) -> None:
    machine = Machine(kernel)
    for page in (machine.pages[0], machine.pages[0]):
        if between:
            assert machine.faults() == []
        machine.put(page)
    first = machine.pages[0]
    assert f"page {first}: a share given up, or doubled, that nobody has (-1)" in machine.faults()
    assert any(fault.startswith("pool 0: idle are") for fault in machine.faults())


@ALL
def test_a_page_known_as_the_last_and_put_twice_is_a_fault(kernel: str) -> None:
    machine = Machine(kernel)
    page = machine.pages[0]
    for _ in range(2):
        machine.call(page_calls.PUT_DEFRAGGED, page, -1, 0, 0)
    assert machine.faults()[0].startswith(f"page {page}: returned twice, to another pool than its own")


@ALL
def test_a_page_of_another_pool_is_a_fault(kernel: str) -> None:
    machine = Machine(kernel)
    machine.put(machine.pages[0], pool=1)
    assert machine.faults()[0].startswith(f"page {machine.pages[0]}: returned twice, to another pool")


@ALL
def test_page_0_is_a_fault(kernel: str) -> None:
    machine = Machine(kernel)
    machine.call(page_calls.PUT_DEFRAGGED, 0, -1, 0, 0)
    assert machine.faults()[0].startswith("page 0: returned")


@ALL
def test_a_reference_too_few_is_a_fault(kernel: str) -> None:
    """The pool's own reference is dropped: the page is lost to it."""
    machine = Machine(kernel)
    machine.call(page_calls.PUT_PAGE, machine.pages[0])
    assert machine.faults()[0] == f"page {machine.pages[0]}: a plain reference given up that nobody has (-1)"


@ALL
def test_a_page_that_leaves_twice_is_a_fault(kernel: str) -> None:
    """It would make the number of pages in flight negative (spec 12, 36)."""
    machine = Machine(kernel)
    page = machine.pages[0]
    for _ in range(2):
        machine.call(page_calls.RELEASE_PAGE, page, 0)
    assert machine.faults()[0].startswith(f"page {page}: left a pool that is not its own")


@ALL
def test_a_page_that_left_and_is_put_is_a_fault(kernel: str) -> None:
    machine = Machine(kernel)
    page = machine.pages[0]
    machine.call(page_calls.RELEASE_PAGE, page, 0)
    machine.put(page)
    assert machine.faults()[0].startswith(f"page {page}: ")


def test_a_page_is_not_cut_up_while_others_have_shares() -> None:
    machine = Machine("6.12")
    page = machine.pages[0]
    machine.call(page_calls.ADD_SHARE, page)
    machine.call(page_calls.SET_SHARES, page, 4)
    assert machine.faults()[0] == f"page {page}: cut up while others have shares of it (4)"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("refcount", 2, "refcount 2, but 1 by the books"),
        ("frag_count", 7, "fragment count 7, but 1 by the books"),
        ("magic", 0, "signature False, but True by the books"),
        ("pp", 1, "pool 1, but 0 by the books"),
    ],
)
def test_a_changed_word_is_a_fault(field: str, value: int, message: str) -> None:
    machine = Machine("6.12")
    machine.host.pages[machine.pages[0]][field] = value
    assert machine.faults() == [f"page {machine.pages[0]}: {message}"]


@pytest.mark.parametrize("field", ["hold", "release"])
def test_a_changed_count_is_a_fault(field: str) -> None:
    machine = Machine("6.1")
    machine.host.pools[0][field] += 1
    assert machine.faults()[0].startswith("pool 0: 6")


def replayed(source: recording.Recording) -> list[str]:
    """The first faults of a recording in a debug build."""
    machine = Replay(source.kernel, source.pools, pages=1 << 13, skbs=1 << 10, audit=True)
    for operation in source.operations:
        assert list(machine.run(operation)) == []
        found = audit.faults(machine.host)
        if found:
            return found
    return []


@pytest.mark.parametrize("largest", [40, pytest.param(1 << 16, marks=pytest.mark.long)])
def test_only_recordings_of_misuse_have_faults(largest: int) -> None:
    """What real kernels did is right by the shadow counters, but where they were made to lose pages."""
    sources = [recording.read(path) for path in recording.find([RECORDINGS])]
    sources = [source for source in sources if len(source.operations) <= largest]
    found = {source.path: replayed(source) for source in sources}
    faulty = {path.name.split(".")[0]: faults[0] for path, faults in found.items() if faults}
    in_random = {name: fault for name, fault in faulty.items() if name.startswith("random-skb")}
    # random operations free unmarked skbs that hold pages of a pool, which lose them
    assert all("a plain reference given up that nobody has" in fault for fault in in_random.values())
    assert faulty.keys() - in_random.keys() == MISUSES.keys() & {source.name for source in sources}
    for name in faulty.keys() - in_random.keys():
        assert MISUSES[name] in faulty[name]


def test_the_normal_build_knows_no_shadows() -> None:
    assert not hasattr(conformance.Replay("6.1", 1).host.observer, "shadows")
