"""Verdicts over synthetic pairs: false alarms at most as often as stated, effects of the stated size found,
and intervals that cover what they say. Seeds are fixed; each bound has slack for the number of repeats."""

from collections.abc import Callable

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from farm.answers import statistics
from farm.answers.statistics import LEVEL, Shift
from farm.pairing import Column

REPEATS = 200
SLACK = 0.047
"""three standard errors of a share of 0.05 in REPEATS"""

POWER_SLACK = 0.064
"""likewise of a share of 0.9"""

Draw = Callable[[numpy.random.Generator, int], numpy.ndarray]

DRAWS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(100, 5, n),
    "skewed": lambda rng, n: 100 + rng.lognormal(1, 0.8, n),
    "outliers": lambda rng, n: rng.normal(100, 2, n) + 200 * (rng.random(n) < 0.05),
}


def verdicts(draw: Draw, size: int, effect: float) -> list[str]:
    rng = numpy.random.default_rng(7)
    found = []
    for _ in range(REPEATS):
        shifted = statistics.shift(list(draw(rng, size)), list(draw(rng, size) * (1 + effect)))
        found.append(statistics.measured_verdict(shifted, shifted.p, "lower"))
    return found


@pytest.mark.parametrize("name", DRAWS)
def test_without_an_effect_no_more_alarms_than_stated(name: str) -> None:
    alarms = sum(verdict in ("better", "worse") for verdict in verdicts(DRAWS[name], 12, 0.0))
    assert alarms / REPEATS <= 1 - LEVEL + SLACK


@pytest.mark.parametrize("name", DRAWS)
def test_an_effect_of_two_spreads_is_found_in_nine_of_ten(name: str) -> None:
    rng = numpy.random.default_rng(1)
    sample = DRAWS[name](rng, 10_000)
    spread = float(stats.iqr(sample)) / 1.349
    effect = 2 * spread / float(numpy.median(sample))
    found = verdicts(DRAWS[name], 12, effect)
    assert found.count("worse") / REPEATS >= 0.9 - POWER_SLACK
    assert "better" not in found


@pytest.mark.parametrize("name", DRAWS)
def test_the_interval_of_the_median_covers_as_stated(name: str) -> None:
    rng = numpy.random.default_rng(11)
    draw = DRAWS[name]
    covered = 0
    for _ in range(REPEATS):
        shifted = statistics.shift(list(draw(rng, 20)), list(draw(rng, 20) + 3.0))
        covered += not shifted.interval.excludes(3.0)
    assert covered / REPEATS >= LEVEL - SLACK


def column(differences: numpy.ndarray) -> Column:
    """Of cells whose seeds differ by these, a row each."""
    cells, seeds = differences.shape
    return Column(
        base=numpy.zeros(cells),
        other=numpy.median(differences, axis=1),
        mean=differences.mean(axis=1),
        spread=differences.std(axis=1, ddof=1) if seeds > 1 else numpy.full(cells, numpy.nan),
        least=differences.min(axis=1),
        most=differences.max(axis=1),
        pairs=numpy.full(cells, seeds),
        one_sided=numpy.zeros(cells, bool),
    )


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_the_interval_over_seeds_covers_as_stated(seeds: int) -> None:
    rng = numpy.random.default_rng(3)
    low, high = statistics.paired_intervals(column(rng.normal(1.0, 4.0, (2000, seeds))))
    covered = float(((low <= 1.0) & (high >= 1.0)).mean())
    assert covered == pytest.approx(LEVEL, abs=0.015)


def test_of_many_comparisons_without_an_effect_hardly_one_is_claimed() -> None:
    """A family of 50: with the correction some claim is made in at most 5% of the families."""
    rng = numpy.random.default_rng(5)
    claimed = plain = 0
    for _ in range(200):
        p_values = [stats.mannwhitneyu(*rng.normal(0, 1, (2, 10))).pvalue for _ in range(50)]
        claimed += min(statistics.adjusted(p_values)) <= 1 - LEVEL
        plain += min(p_values) <= 1 - LEVEL
    assert claimed / 200 <= 1 - LEVEL + 0.05
    assert plain / 200 > 0.8


def test_too_few_samples_show_nothing() -> None:
    """Three against three differ by chance in 1 of 10 orders at the least."""
    assert statistics.smallest_p(3, 3) == pytest.approx(0.1)
    shifted = statistics.shift([1.0, 1.1, 1.2], [9.0, 9.1, 9.2])
    assert shifted.p >= shifted.smallest_p > 1 - LEVEL
    assert statistics.measured_verdict(shifted, shifted.p, "lower") == "too few"


@given(sizes=st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_the_smallest_p_is_that_of_the_clearest_samples(sizes: tuple[int, int]) -> None:
    base, other = (list(map(float, range(size))) for size in sizes)
    exact = stats.mannwhitneyu(base, [100 + value for value in other], method="exact").pvalue
    assert statistics.smallest_p(*sizes) == pytest.approx(min(1.0, exact))


def test_effects_too_small_to_matter_are_the_same() -> None:
    rng = numpy.random.default_rng(2)
    shifted = statistics.shift(list(rng.normal(100, 0.1, 60)), list(rng.normal(100.2, 0.1, 60)))
    assert statistics.measured_verdict(shifted, shifted.p, "lower") == "worse"
    assert statistics.measured_verdict(shifted, shifted.p, "lower", least_ratio=0.01) == "same"
    assert statistics.measured_verdict(shifted, shifted.p, "lower", least_difference=1.0) == "same"


@pytest.mark.parametrize(
    ("differences", "better", "seeds_matter", "verdict"),
    [
        ([0.0, 0.0], "lower", True, "same"),
        ([0.0], "lower", False, "same"),
        ([-1.0], "lower", False, "better"),
        ([1.0], "lower", False, "worse"),
        ([1.0], "higher", False, "better"),
        ([1.0], "neither", False, "differs"),
        ([1.0], "lower", True, "not shown"),
        ([1.0, 1.0], "lower", True, "worse"),
        ([1.0, -1.0, 1.0], "lower", True, "not shown"),
        ([5.0, 5.1, 4.9], "higher", True, "better"),
    ],
)
def test_a_single_page_is_a_finding_where_no_seed_could_change_it(
    differences: list[float], better: str, seeds_matter: bool, verdict: str
) -> None:
    found = column(numpy.array([differences]))
    low, high = statistics.paired_intervals(found)
    matters = numpy.array([seeds_matter])
    assert statistics.paired_verdicts(found, low, high, better, matters) == [verdict]  # type: ignore[arg-type]


def test_the_same_samples_give_the_same_interval() -> None:
    rng = numpy.random.default_rng(4)
    samples = list(rng.normal(0, 1, 30)), list(rng.normal(1, 1, 30))
    assert statistics.shift(*samples) == statistics.shift(*samples)
    assert isinstance(statistics.shift(*samples), Shift)
