"""Random operations on pools, pages and skbs keep the books, in each release.

A failure shows the operations as a recording, which ``farm conformance`` replays.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pool_impl import conformance, recording
from pool_impl.release import RELEASES
from tests.pool_impl.books import BooksError
from tests.pool_impl.machine import Machine

NUMBER = st.integers(0, 99)


class Operations(RuleBasedStateMachine):
    """Hypothesis chooses pools and operations; :class:`Machine` knows what callers may do."""

    kernel = ""
    machine: Machine | None = None

    @initialize(first=st.integers(0, 599), second=st.integers(0, 299))
    def begin(self, first: int, second: int) -> None:
        self.machine = Machine(self.kernel, first, second)

    @rule(what=st.sampled_from(Machine.PAGE_PROGRAM), first=NUMBER, second=NUMBER)
    def page_operation(self, what: object, first: int, second: int) -> None:
        what(self.machine, first, second)  # type: ignore[operator]

    @rule(what=st.sampled_from(Machine.SKB_PROGRAM), first=NUMBER, second=NUMBER)
    def skb_operation(self, what: object, first: int, second: int) -> None:
        what(self.machine, first, second)  # type: ignore[operator]

    @invariant()
    def the_books_agree(self) -> None:
        if self.machine is not None:
            self.machine.check()

    def teardown(self) -> None:
        if self.machine is not None:
            self.machine.finish()


MACHINES = {
    release: type(f"Operations{release.replace('.', '')}", (Operations,), {"kernel": release})
    for release in RELEASES
}


def explore(release: str, examples: int, steps: int) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(MACHINES[release], settings=chosen)


@pytest.mark.parametrize("release", RELEASES)
def test_no_page_is_lost_or_used_after_its_return(release: str) -> None:
    """Invariants of pools, pages and skbs after every step; at the end all memory is back (invariant 42)."""
    explore(release, 12, 40)


@pytest.mark.long
@pytest.mark.parametrize("release", RELEASES)
def test_no_page_is_lost_in_long_random_runs(release: str) -> None:
    explore(release, 1500, 100)


@pytest.mark.parametrize("release", RELEASES)
def test_the_books_notice_a_page_that_lost_its_mark(release: str) -> None:
    """An skb unmarked while it holds shares would lose its pages to the pool (spec 6.1, rule 5)."""
    machine = Machine(release)
    machine.make(1, 3)
    machine.check()
    for handle in machine.replay.skbs:
        machine.record(handle).pp_recycle = 0
    with pytest.raises(BooksError, match="refcount 1, but 2 references"):
        machine.check()


def test_the_books_notice_the_coalescing_of_5_14() -> None:
    """The fault repaired in 5.18: plain references enter a marked skb (spec 6.6)."""
    machine = Machine("5.14")
    machine.make(1, 10)
    machine.make(1, 10)
    to, source = sorted(machine.replay.skbs)
    machine.do("skb_clone", s=source, new=99)
    machine.do("try_coalesce", **{"to": to, "from": source})
    with pytest.raises(BooksError, match="refcount 2, but 1 references"):
        machine.check()


@pytest.mark.parametrize("release", RELEASES)
def test_a_failure_is_a_recording_that_replays(release: str, tmp_path: Path) -> None:
    machine = Machine(release)
    machine.alloc(0, 0)
    machine.make(1, 7)
    machine.copy(0, 0)
    machine.host.pools[0].hold += 1
    with pytest.raises(BooksError, match="65 in flight, but 64 by the books") as caught:
        machine.check()
    path = tmp_path / "failure.jsonl"
    path.write_text(str(caught.value).split("the operations as a recording:\n")[1])
    result = conformance.replay(recording.read(path))
    assert (result.operations, result.divergences) == (len(machine.steps), 0)
