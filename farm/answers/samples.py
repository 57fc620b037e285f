"""Files of measured samples, and two of them compared.

What a clock measured differs between two runs of the same thing, so no difference is exact: a rank test says
whether there is one, a bootstrap how large it is, and both together for all that is compared at once. See
:mod:`farm.answers.statistics`.

```json
{
 "conditions": {"machine": "...", "kernel": "..."},
 "measures": {"ns_per_packet": {"unit": "ns", "better": "lower"}},
 "rows": [{"setting": {"ring": 64}, "samples": {"ns_per_packet": [56.1, 55.8, 57.0, 56.3]}}]
}
```

``farm bench host --json`` writes such files, any other program can. Two files are compared where their
conditions are equal, or differ in what ``--across`` names. Samples of one row must not hang together: repeats
that share their memory's place, or a boot, are one sample.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy
import pydantic

from farm.answers.compare import Comparison, Differences, refuse_unnamed
from farm.answers.statistics import LEVEL, Shift, adjusted, measured_verdict, shift, smallest_p
from farm.errors import IncomparableError, SamplesError
from workers.fields.groups import Value
from workers.measures import Better, Unit

LEAST_CHANGE = 0.05
"""of the base: two runs of the same thing differ by less, as a machine drifts between them. Of 30 pairs of
six runs of ``farm bench host`` on a shared machine one has a claim with this limit, four with 0.03"""

_STRICT = pydantic.ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

Setting = tuple[tuple[str, Value], ...]


class Measured(pydantic.BaseModel):
    """What was measured."""

    model_config = _STRICT

    unit: Unit
    better: Better


class Row(pydantic.BaseModel):
    """Samples of one setting."""

    model_config = _STRICT

    setting: dict[str, bool | int | float | str]
    samples: dict[str, Annotated[tuple[float, ...], pydantic.Strict(False), pydantic.Field(min_length=1)]]


class Samples(pydantic.BaseModel):
    """A file. What else stands in it is left alone."""

    model_config = _STRICT

    conditions: dict[str, str]
    """under which it was measured: machine, kernel, model, whatever may matter"""
    measures: dict[str, Measured]
    rows: Annotated[tuple[Row, ...], pydantic.Strict(False), pydantic.Field(min_length=1)]

    def by_setting(self) -> dict[Setting, Mapping[str, Sequence[float]]]:
        """Samples of each setting, in the order of the file."""
        return {_setting(row): row.samples for row in self.rows}


def is_file_of_samples(name: str) -> bool:
    """Whether what a user names is such a file and not a run, whose name has no suffix."""
    return name.endswith(".json")


def load(path: Path) -> Samples:
    """The samples of a file.

    Raises:
        SamplesError: it cannot be read, something is missing in it, or a setting stands there twice.
    """
    try:
        found = Samples.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SamplesError(f"{path}: {error.strerror}; name a file of samples") from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise SamplesError(
            f"{path}: {where}: {first['msg']}; farm bench host --json writes such files"
        ) from None
    except ValueError as error:
        raise SamplesError(f"{path}: is no JSON ({error}); measure again") from None
    seen: set[Setting] = set()
    for row in found.rows:
        if unknown := sorted(row.samples.keys() - found.measures.keys()):
            raise SamplesError(
                f"{path}: samples of {unknown[0]}: not among its measures; add unit and better"
            )
        if _setting(row) in seen:
            raise SamplesError(f"{path}: setting {row.setting}: stands there twice; put its samples together")
        seen.add(_setting(row))
    return found


def _setting(row: Row) -> Setting:
    return tuple(sorted(row.setting.items()))


def compare_samples(
    base: Path,
    other: Path,
    across: Sequence[str] = (),
    measures: Sequence[str] = (),
    *,
    least_change: float = LEAST_CHANGE,
    least_difference: float = 0.0,
) -> Comparison:
    """Two files, setting by setting.

    Arguments:
        across: conditions that they may differ in.
        measures: those to compare; all that both have if none is named.
        least_change: effects below it, as a part of the base, do not matter.
        least_difference: likewise, in the unit of the measure.

    Raises:
        SamplesError: a file is malformed, or they give one measure different units.
        IncomparableError: they differ in a condition that ``across`` does not name, or have no setting in
            common.
    """
    left, right = load(base), load(other)
    refuse_unnamed(differing := _differing(left, right), across, str(base), str(other))
    chosen = _measures(left, right, measures, base, other)
    sides = left.by_setting(), right.by_setting()
    common = [setting for setting in sides[0] if setting in sides[1]]
    shifts = {
        (setting, name): shift(*(side[setting][name] for side in sides))
        for setting in common
        for name in chosen
        if all(name in side[setting] for side in sides)
    }
    if not shifts:
        raise IncomparableError(f"{base}, {other}: no setting of the one is in the other; measure the same")
    # of all that is compared at once, so that of what is claimed no more is wrong than of one
    p_values = dict(zip(shifts, adjusted([found.p for found in shifts.values()]), strict=True))
    names = list(dict.fromkeys(name for setting in common for name, _ in setting))
    seeds = [
        min(
            (len(side[setting][name]) for side in sides for name in chosen if (setting, name) in shifts),
            default=0,
        )
        for setting in common
    ]
    limits = {"least_ratio": least_change, "least_difference": least_difference}
    found = {
        name: _differences(
            [shifts.get((setting, name)) for setting in common],
            [
                measured_verdict(
                    shifts[setting, name], p_values[setting, name], left.measures[name].better, **limits
                )
                if (setting, name) in shifts
                else ""
                for setting in common
            ],
        )
        for name in chosen
    }
    return Comparison(
        base=str(base),
        other=str(other),
        across=differing,
        cells=[{name: dict(setting).get(name, "") for name in names} for setting in common],
        seeds=seeds,
        measures=found,
        unpaired=(len(sides[0]) - len(common), len(sides[1]) - len(common)),
        units={name: left.measures[name].unit for name in chosen},
        exact=False,
        caveats=_caveats(list(shifts.values()), min(count for count in seeds if count)),
    )


def _differences(shifts: Sequence[Shift | None], verdicts: Sequence[str]) -> Differences:
    nothing = (math.nan,) * 5
    rows = [
        nothing if one is None else (one.base, one.other, one.difference, *one.interval) for one in shifts
    ]
    base, other, difference, low, high = numpy.array(rows, float).T
    return Differences(base, other, difference, low, high, numpy.array(verdicts, numpy.str_))


def _differing(left: Samples, right: Samples) -> dict[str, tuple[str, str]]:
    names = dict.fromkeys((*left.conditions, *right.conditions))
    sides = {name: tuple(one.conditions.get(name, "unknown") for one in (left, right)) for name in names}
    return {name: (one, two) for name, (one, two) in sides.items() if one != two}


def _measures(
    left: Samples, right: Samples, measures: Sequence[str], base: Path, other: Path
) -> Sequence[str]:
    common = [name for name in left.measures if name in right.measures]
    for name in measures:
        if name not in common:
            raise SamplesError(
                f"--measure {name}: not in both files; they have {', '.join(common) or 'none'}"
            )
    for name in common:
        if left.measures[name] != right.measures[name]:
            raise SamplesError(
                f"{other}: {name}: has another unit or better direction than in {base}; correct one of them"
            )
    return measures or common


def _caveats(found: Sequence[Shift], samples: int) -> list[str]:
    """What samples of this number cannot show."""
    allowed = 1 - LEVEL
    most = max(one.smallest_p for one in found)
    if most > allowed:
        return [f"{samples} samples a side are too few: whatever they were, nothing could have been shown."]
    if most * len(found) > allowed:
        enough = next(n for n in range(samples, 1000) if smallest_p(n, n) * len(found) <= allowed)
        return [
            f"With {samples} samples a side, of {len(found)} comparisons, a difference in a single one could "
            f"not have been shown; take {enough}."
        ]
    return []
