"""Published measurements as data: files of cases, each a set-up, what was published for it and a band.

A case is one trial, or two that are compared. ``farm/cases/README.md`` documents the keys. The reader is
strict: an unknown key, measure, field or architecture, or a missing band, is an error that names the file,
the place and the remedy.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from farm.errors import CaseError
from farm.sweep import flat
from workers.config import TrialConfig
from workers.errors import TrialError
from workers.fields.groups import Value
from workers.measures import CATEGORIES, MEASURES
from workers.profiles import arch
from workers.profiles.parameters import PARAMETERS

Role = Literal["input", "fitted", "predicted"]
Compare = Literal["value", "ratio", "gain_percent", "difference"]

NEUTRAL: Mapping[Compare, float | None] = {"value": None, "ratio": 1, "gain_percent": 0, "difference": 0}
"""what a comparison yields if nothing changes; below and above it are the two signs"""


class _Table(BaseModel):
    """A table of a case file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Setup(_Table):
    """What has a name, a source and trials."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
    what: Annotated[str, Field(min_length=1)]
    fields: dict[str, Any] = {}
    source: Annotated[str, Field(min_length=1)]
    certainty: Annotated[str, Field(min_length=1)] = "verified"
    caveat: str = ""


class CaseTable(_Setup):
    """One ``[[case]]``."""

    baseline: dict[str, Any] | None = None
    variant: dict[str, Any] | None = None
    measure: str | Annotated[list[str], Field(min_length=1)] = "busy_ns_per_packet"
    share_of: list[str] = []
    compare: Compare = "value"
    published: float
    band: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    weight: Annotated[float, Field(gt=0)] = 1
    role: Role
    constants: list[str] = []
    scored: bool = True
    reason: str = ""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        alone = self.compare == "value"
        for key, wrong, remedy in (
            ("band", self.scored and self.band is None, "missing; write [low, high], or scored = false"),
            ("band", self.band is not None and self.band[0] > self.band[1], "write the lower end first"),
            ("reason", not self.scored and not self.reason, "missing; say why it is not scored"),
            ("reason", self.scored and bool(self.reason), "only what is not scored has one; leave it out"),
            (
                "compare",
                alone and self.variant is not None,
                "a variant is compared with the baseline; use ratio, gain_percent or difference",
            ),
            (
                "variant",
                not alone and self.variant is None,
                "missing; it is what the baseline is compared with",
            ),
            (
                "constants",
                self.role == "fitted" and not self.constants,
                "missing; name the parameters of the profile that were set from this value",
            ),
            (
                "constants",
                self.role == "predicted" and bool(self.constants),
                "a value that went into the profile is input or fitted, not predicted",
            ),
        ):
            if wrong:
                raise PydanticCustomError("case", "{key}: {remedy}", {"key": key, "remedy": remedy})
        return self


class GroupTable(_Table):
    """One ``[[shares.group]]``."""

    symbols: Annotated[dict[str, float], Field(min_length=1)]
    categories: list[str]


class SharesTable(_Setup):
    """One ``[[shares]]``: where a published profile says the time went."""

    packet_ns: Annotated[float, Field(gt=0)]
    group: Annotated[list[GroupTable], Field(min_length=1)]


class ChoiceTable(_Setup):
    """One ``[[choice]]``: which value of a field is best there."""

    source: str = "no source"
    arch: Annotated[list[str], Field(min_length=1)]
    axis: str
    values: Annotated[list[int], Field(min_length=2)]
    measure: str = "busy_ns_per_packet"


class _File(_Table):
    title: Annotated[str, Field(min_length=1)]
    fields: dict[str, Any] = {}
    case: list[CaseTable] = []
    shares: list[SharesTable] = []
    choice: list[ChoiceTable] = []


class Case(NamedTuple):
    """A published value, and the trials that predict it."""

    table: CaseTable
    file: str
    baseline: TrialConfig
    variant: TrialConfig | None

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def arch(self) -> str:
        """The architecture; two if they are compared."""
        archs = [self.baseline.arch, *([self.variant.arch] if self.variant else [])]
        return " / ".join(dict.fromkeys(archs))

    @property
    def measures(self) -> tuple[str, ...]:
        """What is added up of a record."""
        measure = self.table.measure
        return (measure,) if isinstance(measure, str) else tuple(measure)


class Shares(NamedTuple):
    """A published profile, and the trial whose categories are laid beside it."""

    table: SharesTable
    file: str
    trial: TrialConfig


class Choice(NamedTuple):
    """A question of which value is best, on one architecture; its trials in the order of the values."""

    table: ChoiceTable
    file: str
    arch: str
    trials: tuple[TrialConfig, ...]


class CaseSet(NamedTuple):
    """All that some case files hold, in their order."""

    cases: tuple[Case, ...]
    shares: tuple[Shares, ...]
    choices: tuple[Choice, ...]


def bundled() -> list[Path]:
    """The case files that ship with the package, by name."""
    directory = Path(str(resources.files("farm.validation") / "cases"))
    return sorted(directory.glob("*.toml"))


def load(paths: Sequence[Path] = ()) -> CaseSet:
    """Read case files; without any, those that ship with the package.

    Raises:
        CaseError: a file cannot be read, or something in it is unknown, missing or impossible.
    """
    cases: list[Case] = []
    shares: list[Shares] = []
    choices: list[Choice] = []
    places: dict[str, str] = {}
    for path in paths or bundled():
        origin = path.name if path in bundled() else str(path)
        file = _parse(path, origin)
        for table in file.case:
            where = _place(origin, "case", table.name)
            if table.name in places:
                raise CaseError(f"{where}: name: {places[table.name]} has it already; use another one")
            places[table.name] = origin
            cases.append(_case(table, file, origin, where))
        for shown in file.shares:
            where = _place(origin, "shares", shown.name)
            for group in shown.group:
                for category in group.categories:
                    _known(where, "categories", category, CATEGORIES)
            shares.append(Shares(shown, origin, _trial(where, file.fields, shown.fields)))
        for asked in file.choice:
            where = _place(origin, "choice", asked.name)
            _known(where, "measure", asked.measure, [m.name for m in MEASURES])
            choices += _choices(asked, file, origin, where)
    if not cases and not shares and not choices:
        raise CaseError(f"{', '.join(map(str, paths))}: no [[case]]; name a file that has one")
    return CaseSet(tuple(cases), tuple(shares), tuple(choices))


def _parse(path: Path, origin: str) -> _File:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CaseError(f"{origin}: {error.strerror}; name a file of cases") from None
    except ValueError as error:
        raise CaseError(f"{origin}: not TOML: {error}") from None
    try:
        return TypeAdapter(_File).validate_python(content)
    except ValidationError as error:
        raise CaseError(f"{origin}: {_words(error, content)}") from None


def _words(error: ValidationError, content: Mapping[str, Any]) -> str:
    """The first thing wrong with a file: place, key and remedy."""
    detail = error.errors()[0]
    path = [part for part in detail["loc"] if part in _KEYS or isinstance(part, int)]
    names: list[str] = []
    found: Any = content
    for part in path:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            found = None
        if isinstance(part, int):
            names[-1] += f" {found['name'] if isinstance(found, dict) and 'name' in found else part + 1}"
        else:
            names.append(part)
    if detail["type"] == "extra_forbidden":
        last = str(detail["loc"][-1])
        near = difflib.get_close_matches(last, sorted(_KEYS), n=1, cutoff=0.6)
        remedy = f"did you mean {near[0]}?" if near else "see farm/cases/README.md"
        if last in _KEYS:
            return f"{': '.join(names)}: has no place here; see farm/cases/README.md"
        return f"{': '.join([*names, last])}: unknown key; {remedy}"
    where = ": ".join(names)
    if detail["type"] == "missing":
        return f"{where}: missing; add it"
    if detail["type"] == "case":
        return f"{where}: {detail['msg']}"
    shown = "" if isinstance(detail["input"], dict | list) else f" = {detail['input']!r}"
    message = detail["msg"]
    return f"{where}{shown}: {message[0].lower()}{message[1:]}"


_KEYS = frozenset(
    name for model in (_File, CaseTable, SharesTable, GroupTable, ChoiceTable) for name in model.model_fields
)


def _place(origin: str, kind: str, name: str) -> str:
    return f"{origin}: {kind} {name}"


def _case(table: CaseTable, file: _File, origin: str, where: str) -> Case:
    measures = [table.measure] if isinstance(table.measure, str) else table.measure
    for key, names in (("measure", measures), ("share_of", table.share_of)):
        for name in names:
            _known(where, key, name, [m.name for m in MEASURES])
    for name in table.constants:
        _known(where, "constants", name, PARAMETERS)
    baseline = _trial(where, file.fields, table.fields, table.baseline or {})
    variant = None
    if table.variant is not None:
        variant = _trial(where, file.fields, table.fields, table.variant)
        if variant == baseline:
            raise CaseError(f"{where}: variant: the same trial as the baseline; let a field differ")
    return Case(table, origin, baseline, variant)


def _choices(table: ChoiceTable, file: _File, origin: str, where: str) -> Iterator[Choice]:
    for name in table.arch:
        trials = tuple(
            _trial(where, file.fields, table.fields, {"arch": name, table.axis: value})
            for value in table.values
        )
        yield Choice(table, origin, name, trials)


def _trial(where: str, *tables: Mapping[str, Any]) -> TrialConfig:
    """A trial whose fields stand in several tables, the later ones first."""
    fields: dict[str, Value] = {}
    for table in tables:
        fields |= flat(table)  # type: ignore[arg-type]  # from_fields checks the types
    try:
        arch.load(str(fields.get("arch", TrialConfig.model_fields["arch"].default)))
        return TrialConfig.from_fields(fields)
    except TrialError as error:
        raise CaseError(f"{where}: {error}") from None


def _known(where: str, key: str, name: str, known: Sequence[str] | Mapping[str, str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else "see farm fields --measures and workers/profiles"
        raise CaseError(f"{where}: {key} = {name!r}: unknown; {remedy}")
