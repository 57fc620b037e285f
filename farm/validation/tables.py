"""What ``farm validate`` prints: as tables, and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from farm.tables import rows
from farm.validation import validate
from farm.validation.cases import CaseSet
from farm.validation.sensitivity import Sensitivity
from farm.validation.validate import Prediction, Record
from workers.config import TrialConfig
from workers.measures import by_name


def result(
    known: CaseSet, found: Sequence[Prediction], records: Mapping[TrialConfig, Record]
) -> RenderableType:
    """Each case, the score, what has to be said about rows that are red or not scored, and profiles."""
    heads = ("row", "arch", "role", "published", "band", "model", "verdict")
    body = [
        (
            p.case.name,
            p.case.arch,
            p.case.table.role,
            number(p, p.case.table.published),
            "..".join(_bare(p, end) for end in p.case.table.band or ()),
            "-" if p.predicted is None else _bare(p, p.predicted),
            p.verdict,
        )
        for p in found
    ]
    parts: list[RenderableType] = [rows(heads, body, text_columns=3, unbroken=3), Text()] if found else []
    if found:
        parts += [Text(_score(validate.score(found))), Text()]
    notes = [
        (p.case.name, f"{p.case.table.what}. {p.case.table.reason or p.case.table.caveat}".rstrip(". "))
        for p in found
        if p.verdict != "in band"
    ]
    if notes:
        parts += [rows(("not in band", ""), notes, text_columns=2), Text()]
    for shares in known.shares:
        lines = validate.share_lines(shares, records[shares.trial])
        parts.append(Text(f"{shares.table.name}, {shares.trial.arch}: {shares.table.what}, ns per packet"))
        text = [
            (
                " + ".join(line.symbols) or "(not listed)",
                " + ".join(line.categories),
                "" if line.published_ns is None else f"{line.published_ns:,.0f}",
                f"{line.predicted_ns:,.0f}",
            )
            for line in lines
        ]
        parts += [
            rows(("published symbols", "categories", "published", "model"), text, text_columns=2),
            Text(),
        ]
    return Group(*parts)


def sensitivity(found: Sensitivity) -> RenderableType:
    """Which constant changes which conclusion."""
    said = (
        f"{found.constants} recalled or estimated constants, each at both ends of its range: {found.trials} "
        f"trials, {found.conclusions} conclusions."
    )
    if not found.effects:
        return Group(Text(said), Text("None of them changes a conclusion."))
    causes: dict[tuple[str, ...], list[str]] = {}
    for effect in found.effects:
        place = (effect.conclusion, effect.arch, f"{effect.before} -> {effect.after}")
        causes.setdefault(place, []).append(f"{effect.constant.name} = {effect.at:g}")
    changed = len({effect.conclusion for effect in found.effects})
    by = len({(effect.arch, effect.constant.name) for effect in found.effects})
    return Group(
        Text(said),
        Text(f"{changed} of these change, by {by} of the constants:\n"),
        rows(
            ("conclusion", "arch", "change", "with any of"),
            [(*place, ", ".join(constants)) for place, constants in causes.items()],
            text_columns=4,
        ),
    )


def as_json(
    known: CaseSet,
    found: Sequence[Prediction],
    records: Mapping[TrialConfig, Record],
    effects: Sensitivity | None,
) -> dict[str, Any]:
    """All of it for a program."""
    score = validate.score(found)
    document: dict[str, Any] = {
        "cases": [
            {
                "name": p.case.name,
                "file": p.case.file,
                "arch": p.case.arch,
                "what": p.case.table.what,
                "measure": list(p.case.measures),
                "compare": p.case.table.compare,
                "published": p.case.table.published,
                "band": p.case.table.band,
                "predicted": p.predicted,
                "role": p.case.table.role,
                "scored": p.case.table.scored,
                "verdict": p.verdict,
                "in_band": p.in_band,
                "sign_right": p.sign_right,
                "weight": p.case.table.weight,
                "source": p.case.table.source,
                "certainty": p.case.table.certainty,
                "note": p.case.table.reason or p.case.table.caveat,
            }
            for p in found
        ],
        "score": score._asdict() | {"free_constants": list(score.free_constants)},
        "shares": [
            {
                "name": shares.table.name,
                "arch": shares.trial.arch,
                "groups": [line._asdict() for line in validate.share_lines(shares, records[shares.trial])],
            }
            for shares in known.shares
        ],
    }
    if effects is not None:
        document["sensitivity"] = {
            "constants": effects.constants,
            "conclusions": effects.conclusions,
            "trials": effects.trials,
            "effects": [
                {
                    "arch": e.arch,
                    "constant": e.constant.name,
                    "certainty": e.constant.certainty,
                    "low": e.constant.low,
                    "high": e.constant.high,
                    "at": e.at,
                    "conclusion": e.conclusion,
                    "before": e.before,
                    "after": e.after,
                }
                for e in effects.effects
            ],
        }
    return document


def number(prediction: Prediction, value: float) -> str:
    """A value in the unit of its case."""
    table = prediction.case.table
    if table.compare == "gain_percent":
        return f"{value:+.3g}%"
    if table.compare == "ratio":
        return f"{value:.3g}x"
    unit = by_name()[prediction.case.measures[0]].unit
    if table.share_of or unit == "ratio":
        return f"{100 * value:.3g}%"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} ns" if unit == "ns" else text


def _bare(prediction: Prediction, value: float) -> str:
    """The same without its unit, which stands with the published value."""
    return number(prediction, value).removesuffix(" ns").rstrip("x%")


def _score(score: validate.Score) -> str:
    weighted = score.weight_in_band / score.weight if score.weight else 0
    free = len(score.free_constants)
    return (
        f"Predicted rows in their band: {score.in_band} of {score.rows} ({100 * weighted:.0f}% by weight); "
        f"sign right: {score.signs_right} of {score.signs}.\n"
        f"Free constants: {free}" + (f" ({', '.join(score.free_constants)})." if free else ".")
    )
