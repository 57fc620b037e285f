"""The configuration of a trial: the one door from dotted names to checked fields.

:meth:`TrialConfig.from_fields` fills in defaults, checks every field (``groups``), then the rules between
fields (``rules``), and raises :class:`~workers.errors.ConfigError` with the field, the value and the remedy.
"""

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, NamedTuple, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from workers.errors import ConfigError
from workers.fields.groups import Group, TrialFields, Value
from workers.rules import RULES


class TrialConfig(TrialFields):
    """One trial: one cell of a sweep with one seed."""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Value]) -> Self:
        """Build a checked configuration from dotted names; what is not named has its default.

        Raises:
            ConfigError: unknown name, wrong type, value out of range, or a rule between fields.
        """
        config = cls.unchecked(fields)
        for rule in RULES:
            rule.check(config)
        return config

    @classmethod
    def unchecked(cls, fields: Mapping[str, Value]) -> Self:
        """As :meth:`from_fields`, without the rules between fields (a planner checks those once)."""
        tree: dict[str, Any] = {}
        for name, value in fields.items():
            check_name(name)
            group, _, leaf = name.rpartition(".")
            (tree.setdefault(group, {}) if group else tree)[leaf] = value
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            detail = error.errors()[0]
            name = ".".join(str(part) for part in detail["loc"][:2] if part in _known_parts())
            raise ConfigError(name, detail["input"], _remedy(name)) from None

    def to_fields(self) -> dict[str, Value]:
        """Every leaf by dotted name, in the order of :func:`fields`."""
        tree = self.model_dump()
        return {name: tree[group][leaf] if group else tree[leaf] for name, group, leaf in _places()}


class TrialField(NamedTuple):
    """One leaf of the configuration, as ``farm fields`` prints it."""

    name: str
    """dotted name"""
    kind: str
    """type and range or choices, in words"""
    default: Value
    description: str
    adapter: TypeAdapter[Any]

    @property
    def group(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    def parse(self, text: str) -> Value:
        """Read a value typed on the command line.

        Raises:
            ConfigError: the text is no value of this field.
        """
        for candidate in (text, _literal(text)):
            try:
                value: Value = self.adapter.validate_python(candidate)
            except ValidationError:
                continue
            return value
        raise ConfigError(self.name, text, _remedy(self.name))


@cache
def fields() -> tuple[TrialField, ...]:
    """All leaves in the order of declaration, groups after the plain ones."""
    plain: list[TrialField] = []
    grouped: list[TrialField] = []
    for name, info in TrialConfig.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Group):
            grouped += [_field(f"{name}.{leaf}", i) for leaf, i in info.annotation.model_fields.items()]
        else:
            plain.append(_field(name, info))
    return tuple(plain + grouped)


def field(name: str) -> TrialField:
    """The field of this name.

    Raises:
        ConfigError: unknown; the message names the nearest one.
    """
    check_name(name)
    return _by_name()[name]


def check_name(name: str) -> None:
    """Raise :class:`ConfigError` naming the nearest field if there is no field of this name."""
    if name not in _by_name():
        near = difflib.get_close_matches(name, list(_by_name()), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see farm fields"
        raise ConfigError(name, None, f"unknown field; {hint}")


@cache
def _places() -> tuple[tuple[str, str, str], ...]:
    """Name, group and leaf of each field, once for all trials."""
    return tuple((field.name, field.group, field.leaf) for field in fields())


@cache
def _by_name() -> dict[str, TrialField]:
    return {field.name: field for field in fields()}


@cache
def _known_parts() -> frozenset[str]:
    return frozenset(part for name in _by_name() for part in name.split("."))


def _field(name: str, info: FieldInfo) -> TrialField:
    # rebuilt from the annotation and its constraints: the adapter has to be as strict as the model
    annotation: Any = info.annotation
    for constraint in info.metadata:
        annotation = Annotated[annotation, constraint]
    adapter = TypeAdapter(annotation, config=ConfigDict(strict=True))
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    schema = {**adapter.json_schema(), **extra}
    return TrialField(name, _kind(schema), info.default, info.description or "", adapter)


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(str(choice) for choice in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    words = {"integer": "integer", "number": "number", "boolean": "true | false", "string": "text"}
    word = words[schema["type"]]
    low = schema.get("minimum")
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    return word if low is None else f"{word} {low}..{high}"


def _remedy(name: str) -> str:
    return f"use {_by_name()[name].kind}" if name in _by_name() else "see farm fields"


def _literal(text: str) -> Value:
    """The TOML scalar that a text spells, or the text itself."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text.replace("_", ""))
        except ValueError:
            continue
    return text
