"""Predictions of published cases: what comes out, in which band, and the score.

The headline counts rows whose role is *predicted* and that are scored; beside it stands the number of free
constants. A constant is free if a case with role *fitted* names it: a parameter of a profile that was set so
that this result comes out, and not from a measurement of the operation that it prices. The same parameter of
two profiles counts twice, one that several cases name counts once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import workers
from farm.validation.cases import NEUTRAL, Case, CaseSet, Choice, Shares
from workers.config import TrialConfig
from workers.measures import CATEGORIES, by_name

Record = Mapping[str, Any]
Verdict = Literal["in band", "out of band", "sign wrong", "not scored"]

SAME_RATIO = 0.005
"""values of a measure that differ by less are equally good; the smallest setting wins"""


class Prediction(NamedTuple):
    """A case and what the model says."""

    case: Case
    predicted: float | None
    """in the unit of the case; None if its trials had nothing to measure"""
    verdict: Verdict
    in_band: bool
    sign_right: bool | None
    """None where there is no sign: a plain value, or a published change of nothing"""


class Score(NamedTuple):
    """Over predicted rows that are scored."""

    rows: int
    in_band: int
    weight: float
    weight_in_band: float
    signs: int
    """rows that have a sign"""
    signs_right: int
    free_constants: tuple[str, ...]
    """parameter and profile, over all cases"""


class ShareLine(NamedTuple):
    """A group of symbols beside categories; nanoseconds per packet."""

    symbols: tuple[str, ...]
    categories: tuple[str, ...]
    published_ns: float | None
    predicted_ns: float


def trials(case_set: CaseSet) -> list[TrialConfig]:
    """All trials of cases and shares, each once; several cases may have one in common."""
    found = [trial for case in case_set.cases for trial in (case.baseline, case.variant) if trial is not None]
    return list(dict.fromkeys([*found, *(shares.trial for shares in case_set.shares)]))


def run(configs: Sequence[TrialConfig]) -> dict[TrialConfig, Record]:
    """Run trials in this process, one after the other."""
    return {config: workers.run_trial(config) for config in configs}


def predictions(cases: Sequence[Case], records: Mapping[TrialConfig, Record]) -> list[Prediction]:
    """What records of the trials of these cases say about each."""
    return [_prediction(case, _predicted(case, records)) for case in cases]


def score(found: Sequence[Prediction]) -> Score:
    """The score of predicted rows, and the free constants of all."""
    counted = [p for p in found if p.case.table.role == "predicted" and p.case.table.scored]
    signed = [p for p in counted if p.sign_right is not None]
    free = {
        f"{constant} of {p.case.arch}"
        for p in found
        if p.case.table.role == "fitted"
        for constant in p.case.table.constants
    }
    return Score(
        rows=len(counted),
        in_band=sum(p.in_band for p in counted),
        weight=sum(p.case.table.weight for p in counted),
        weight_in_band=sum(p.case.table.weight for p in counted if p.in_band),
        signs=len(signed),
        signs_right=sum(bool(p.sign_right) for p in signed),
        free_constants=tuple(sorted(free)),
    )


def share_lines(shares: Shares, record: Record) -> list[ShareLine]:
    """Published symbols beside the model's categories: what was published first, then categories that nobody
    claimed."""
    lines = []
    spent = {category: record.get(f"{category}_ns_per_packet") for category in CATEGORIES}
    left = {category: ns for category, ns in spent.items() if ns}
    for group in shares.table.group:
        published_ns = sum(group.symbols.values()) / 100 * shares.table.packet_ns
        predicted_ns = sum(left.pop(category, 0.0) for category in group.categories)
        lines.append(ShareLine(tuple(group.symbols), tuple(group.categories), published_ns, predicted_ns))
    lines += [ShareLine((), (category,), None, ns) for category, ns in left.items()]
    return lines


def best(choice: Choice, records: Mapping[TrialConfig, Record]) -> int:
    """The value that is best by the measure of a choice; of equally good ones the first."""
    higher = by_name()[choice.table.measure].better == "higher"
    found = [records[trial][choice.table.measure] for trial in choice.trials]
    known = [value for value in found if value is not None]
    limit = max(known) * (1 - SAME_RATIO) if higher else min(known) * (1 + SAME_RATIO)
    for value, measured in zip(choice.table.values, found, strict=True):
        if measured is not None and (measured >= limit if higher else measured <= limit):
            return value
    raise AssertionError("the best one is within its own limit")


def _predicted(case: Case, records: Mapping[TrialConfig, Record]) -> float | None:
    before = _measured(case, records[case.baseline])
    if case.variant is None:
        return before
    after = _measured(case, records[case.variant])
    if before is None or after is None:
        return None
    if case.table.compare == "difference":
        return after - before
    if before == 0:
        return None
    return after / before if case.table.compare == "ratio" else 100 * (after / before - 1)


def _measured(case: Case, record: Record) -> float | None:
    parts = [record[name] for name in case.measures]
    wholes = [record[name] for name in case.table.share_of]
    if None in parts or None in wholes:
        return None
    if not wholes:
        return float(sum(parts))
    return sum(parts) / sum(wholes) if sum(wholes) else None


def _prediction(case: Case, predicted: float | None) -> Prediction:
    table = case.table
    band = table.band
    in_band = predicted is not None and band is not None and band[0] <= predicted <= band[1]
    neutral = NEUTRAL[table.compare]
    sign_right = None
    if neutral is not None and table.published != neutral:
        sign_right = predicted is not None and (predicted - neutral) * (table.published - neutral) > 0
    verdict: Verdict
    if not table.scored:
        verdict = "not scored"
    elif in_band:
        verdict = "in band"
    else:
        verdict = "sign wrong" if sign_right is False else "out of band"
    return Prediction(case, predicted, verdict, in_band, sign_right)
