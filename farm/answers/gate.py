"""A gate: whether a comparison keeps the rules of a file, or the strict ones that hold without one.

```toml
[[rule]]
measures = ["busy_ns_per_packet"]      # default: all
where = { arch = ["zen4"] }            # cells; default: all
verdicts = ["worse"]                   # what fails; default: worse and differs
least_change = 0.01                    # of the base; smaller ones pass
least_difference = 0                   # in the measure's unit, likewise
```
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic

from farm.answers.compare import Comparison, Difference, Pair
from farm.answers.statistics import Verdict
from farm.errors import GateError, IncomparableError
from workers.config import check_name, field
from workers.errors import ConfigError
from workers.fields.groups import Value
from workers.measures import by_name


class Rule(pydantic.BaseModel):
    """What fails. Without anything: each measure of each cell that is worse, or differs."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    measures: tuple[str, ...] = ()
    where: Mapping[str, tuple[Value, ...]] = {}
    verdicts: tuple[Verdict, ...] = ("worse", "differs")
    least_change: Annotated[float, pydantic.Field(ge=0)] = 0.0
    least_difference: Annotated[float, pydantic.Field(ge=0)] = 0.0

    def fails(self, name: str, found: Difference) -> bool:
        """Whether a difference is one that this rule is about, and too large."""
        if self.measures and name not in self.measures:
            return False
        change = abs(found.difference / found.base) if found.base else float("inf")
        return (
            found.verdict in self.verdicts
            and change >= self.least_change
            and abs(found.difference) >= self.least_difference
        )


@dataclass(frozen=True)
class Broken:
    """A difference that a rule does not let through."""

    pair: Pair
    measure: str
    difference: Difference


def load(path: Path) -> tuple[Rule, ...]:
    """The rules of a file.

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
    return tuple(_rule(f"{path}: rule {number}", entry) for number, entry in enumerate(listed, 1))


def _rule(where: str, entry: Any) -> Rule:
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
    for name in rule.measures:
        if name not in by_name():
            raise GateError(f"{where}: measures: {name!r}: no such measure; see farm fields --measures")
    try:
        for name in rule.where:
            check_name(name)
    except ConfigError as error:
        raise GateError(f"{where}: where: {error}") from None
    return rule.model_copy(
        update={
            "where": {
                name: tuple(field(name).parse(str(v)) if isinstance(v, str) else v for v in values)
                for name, values in rule.where.items()
            }
        }
    )


STRICT = (Rule(),)
"""of simulated runs: what differs at all is a finding"""


def broken(found: Comparison, rules: Sequence[Rule]) -> list[Broken]:
    """What the rules do not let through, in the order of the cells.

    Raises:
        IncomparableError: no cell is one that a rule is about.
    """
    seen = 0
    listed: list[Broken] = []
    for pair in found.pairs:
        applying = [rule for rule in rules if _is_about(rule, pair)]
        seen += bool(applying)
        listed += _broken(pair, applying)
    if not seen:
        raise IncomparableError(
            "rules: none of them is about a cell that both runs have; nothing was checked"
        )
    return listed


def _is_about(rule: Rule, pair: Pair) -> bool:
    return all(
        name in pair.fields and str(pair.fields[name]) in {str(value) for value in values}
        for name, values in rule.where.items()
    )


def _broken(pair: Pair, rules: Sequence[Rule]) -> Iterator[Broken]:
    for name, difference in pair.measures.items():
        if any(rule.fails(name, difference) for rule in rules):
            yield Broken(pair, name, difference)
