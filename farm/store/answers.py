"""Answers that somebody wanted to keep, beside the runs: ``ROOT/.answers/KIND-DIGEST.json``.

An answer is what a verb found, in words, tables and figures: the report shows the first two, Prometheus gets
the third. It holds neither records nor samples. A file is named by its content: the same answer is kept once.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal

import pydantic

from farm.errors import StoreError
from farm.store.place import LocalPlace, Place, reason, remedy

DIRECTORY = ".answers"

KEEP_REMEDY = "leave --keep out, or name another store"

Kind = Literal["comparison", "gate", "advice", "diagnosis"]

MOST_ROWS = 40
"""of a table that is kept or printed: who wants more takes the JSON"""

_FROZEN = pydantic.ConfigDict(frozen=True, allow_inf_nan=False, extra="forbid")


class Table(pydantic.BaseModel):
    """Rows as text."""

    model_config = _FROZEN

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    """columns on the left that hold words; those that follow hold numbers"""


class Figure(pydantic.BaseModel):
    """A sample of a metric."""

    model_config = _FROZEN

    metric: str
    """a name of :mod:`dashboards.answers`"""
    labels: Mapping[str, str]
    """its own; who shows it adds the answer's name"""
    value: float


class Answer(pydantic.BaseModel):
    """What a verb found."""

    model_config = _FROZEN

    kind: Kind
    title: str
    about: tuple[str, ...]
    """names of runs, or of sweeps; empty if it is about nothing that a store holds"""
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]

    @property
    def content(self) -> bytes:
        """Its file: the same answer is the same bytes."""
        return (json.dumps(self.model_dump(), sort_keys=True, indent=1) + "\n").encode()

    @property
    def name(self) -> str:
        """Of its file, without the suffix."""
        return f"{self.kind}-{hashlib.sha256(self.content).hexdigest()[:12]}"

    def is_about(self, run: str, sweep: str) -> bool:
        """Whether it belongs on the page of this run: it is about it or its sweep, or about nothing here."""
        return not self.about or run in self.about or sweep in self.about


def keep(store: Place, answer: Answer) -> str:
    """Write an answer; where it lies.

    Raises:
        StoreError: it cannot be written.
    """
    place = store / DIRECTORY
    file = f"{answer.name}.json"
    try:
        if isinstance(place, LocalPlace):
            place.path.mkdir(parents=True, exist_ok=True)
        place.put(file, answer.content)
    except OSError as error:
        raise StoreError(f"store {str(store)!r}: {reason(error)}; {remedy(error, KEEP_REMEDY)}") from None
    return f"{place}/{file}"


def names(store: Place, otherwise: str = "make it readable") -> tuple[str, ...]:
    """Files of the answers of a store, sorted.

    Raises:
        StoreError: the store cannot be read.
    """
    try:
        return tuple((store / DIRECTORY).files(".json"))
    except OSError as error:
        raise StoreError(f"store {str(store)!r}: {reason(error)}; {remedy(error, otherwise)}") from None


def read(store: Place, files: Sequence[str]) -> dict[str, Answer]:
    """Answers by name.

    Raises:
        StoreError: one cannot be read, or is garbled.
    """
    place = store / DIRECTORY
    found = {}
    for file in files:
        try:
            found[PurePosixPath(file).stem] = Answer.model_validate_json(place.read(file))
        except OSError as error:
            raise StoreError(f"answer {place}/{file}: {reason(error)}; make it readable") from None
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise StoreError(f"answer {place}/{file}: {where}: {first['msg']}; remove the file") from None
    return found
