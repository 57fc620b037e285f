"""A gate: whether a comparison keeps the rules of a file, or the strict ones that hold without one.

```toml
[[rule]]
measures = ["busy_ns_per_packet"]      # default: all
where = { arch = ["zen4"] }            # cells; default: all
verdicts = ["worse"]                   # what fails; default: all but better and same
least_change = 0.01                    # of the base; smaller ones pass
least_difference = 0                   # in the measure's unit, likewise
```
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy
import pydantic

from farm.answers.compare import Comparison, Differences
from farm.answers.statistics import Verdict
from farm.errors import GateError, IncomparableError
from farm.pairing import Flags
from workers.config import check_name, field
from workers.errors import ConfigError
from workers.fields.groups import Value
from workers.measures import by_name

FAILING: tuple[Verdict, ...] = ("worse", "differs")
"""of measured samples, where two runs of the same thing differ too"""

FAILING_EXACT: tuple[Verdict, ...] = (*FAILING, "not shown")
"""of records: what differs at all is a finding, whether or not other seeds would show it"""


class Rule(pydantic.BaseModel):
    """What fails. Without anything: each measure of each cell that differs, but for the better."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    measures: tuple[str, ...] = ()
    where: Mapping[str, tuple[Value, ...]] = {}
    verdicts: tuple[Verdict, ...] | None = None
    """by default FAILING_EXACT or FAILING"""
    least_change: Annotated[float, pydantic.Field(ge=0)] = 0.0
    least_difference: Annotated[float, pydantic.Field(ge=0)] = 0.0

    def is_about(self, name: str) -> bool:
        """Whether it limits this measure."""
        return not self.measures or name in self.measures

    def failing(self, found: Differences, exact: bool) -> Flags:
        """In which cells a measure that this rule is about changed too much."""
        verdicts = self.verdicts or (FAILING_EXACT if exact else FAILING)
        # what one side does not have is no small change
        small = (found.change < self.least_change) | (numpy.abs(found.difference) < self.least_difference)
        return numpy.isin(found.verdicts, verdicts) & ~small

    def holds_in(self, fields: Mapping[str, Value]) -> bool:
        """Whether it is about a cell."""
        return all(
            name in fields and str(fields[name]) in {str(value) for value in values}
            for name, values in self.where.items()
        )


class Broken(NamedTuple):
    """A difference that a rule does not let through."""

    cell: int
    measure: str


def load(path: Path, samples: Comparison | None = None) -> tuple[Rule, ...]:
    """The rules of a file.

    Arguments:
        samples: what they are for, if that is not records: its measures and settings have names of their own.

    Raises:
        GateError: it cannot be read, or has a key, measure or field that does not exist.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GateError(f"{path}: {error.strerror}; name a file of rules") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise GateError(f"{path}: {error}; correct the file") from None
    unknown = [key for key in document if key != "rule"]
    listed = document.get("rule")
    if unknown or not isinstance(listed, list) or not listed:
        what = f"unknown key {unknown[0]!r}" if unknown else "no rule"
        raise GateError(f"{path}: {what}; write [[rule]] with {', '.join(Rule.model_fields)}")
    return tuple(_rule(f"{path}: rule {number}", entry, samples) for number, entry in enumerate(listed, 1))


def _rule(where: str, entry: Any, samples: Comparison | None) -> Rule:
    if isinstance(entry, dict):
        entry = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}
        chosen = entry.get("where")
        if isinstance(chosen, dict):
            entry["where"] = {
                name: tuple(values) if isinstance(values, list) else (values,)
                for name, values in chosen.items()
            }
    try:
        rule = Rule.model_validate(entry)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "rule"
        remedy = f"use {', '.join(Rule.model_fields)}" if first["type"] == "extra_forbidden" else first["msg"]
        raise GateError(f"{where}: {key} = {first['input']!r}: {remedy}") from None
    measures = by_name() if samples is None else samples.units
    for name in rule.measures:
        if name not in measures:
            remedy = "see farm fields --measures" if samples is None else f"use {', '.join(measures)}"
            raise GateError(f"{where}: measures: {name!r}: no such measure; {remedy}")
    if samples is not None:
        settings = list(samples.cells[0])
        for name in rule.where:
            if name not in settings:
                raise GateError(f"{where}: where: {name!r}: no such setting; use {', '.join(settings)}")
        return rule
    try:
        for name in rule.where:
            check_name(name)
    except ConfigError as error:
        raise GateError(f"{where}: where: {error}") from None
    parsed = {
        name: tuple(field(name).parse(str(v)) if isinstance(v, str) else v for v in values)
        for name, values in rule.where.items()
    }
    return rule.model_copy(update={"where": parsed})


STRICT = (Rule(),)
"""nothing may differ but for the better"""


def broken(found: Comparison, rules: Sequence[Rule]) -> list[Broken]:
    """What the rules do not let through, in the order of the cells.

    Raises:
        IncomparableError: the rules are about nothing that both sides have, or nothing could have been shown.
    """
    cells = [numpy.array([rule.holds_in(fields) for fields in found.cells], numpy.bool_) for rule in rules]
    broken: list[Broken] = []
    checked = shown = False
    for name, differences in found.measures.items():
        failing = numpy.zeros(len(found.cells), numpy.bool_)
        for rule, about in zip(rules, cells, strict=True):
            if rule.is_about(name):
                verdicts = differences.verdicts[about]
                checked |= bool((verdicts != "").any())
                shown |= bool(((verdicts != "") & (verdicts != "too few")).any())
                failing |= rule.failing(differences, found.exact) & about
        broken += [Broken(int(cell), name) for cell in numpy.flatnonzero(failing)]
    if not checked:
        raise IncomparableError(
            "rules: none of them is about a measure of a cell that both sides have; nothing was checked"
        )
    if not shown:
        raise IncomparableError(f"{found.base}, {found.other}: {' '.join(found.caveats)} Measure more often")
    return sorted(broken, key=lambda one: one.cell)
