"""What the store keeps of a trial: one record or one failure, and one attempt, as Parquet rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from workers.config import TrialField, fields
from workers.fields.groups import Value
from workers.measures import LISTS, MEASURES

if TYPE_CHECKING:
    import pyarrow

Kind = Literal["records", "attempts", "failures"]
KINDS: tuple[Kind, ...] = ("records", "attempts", "failures")

NUMBER = "trial_number"
"""column of each kind: the trial's number in the plan of its run, by which a resumed run knows in a moment
what is done; across runs a trial is known by its id alone"""


@dataclass(frozen=True)
class Attempt:
    """How a trial came about. Attempts are never compared."""

    host: str
    executor: str
    started_at: str
    """UTC, ISO 8601"""
    wall_seconds: float
    compile_seconds: float
    """compiling the event loop or loading it, where this trial was the first of its process"""
    cpu_seconds: float
    """CPU time of the trial alone"""
    packets: int
    """packets simulated; 0 for a failure"""
    model_digest: str
    versions: str
    """JSON: Python and the packages that matter"""
    retries: int
    """how often the trial was sent out again because its worker died"""


@dataclass(frozen=True)
class Failure:
    """Why a trial has no record."""

    kind: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """One trial that was run: its record or its failure, and the attempt."""

    number: int
    """of the trial in the plan of its run"""
    trial_id: str
    fields: Mapping[str, Value]
    """the configuration by dotted name, the seed among it"""
    result: Mapping[str, Any] | Failure
    attempt: Attempt


def table(kind: Kind, outcomes: Sequence[Outcome]) -> "pyarrow.Table":
    """The rows of one kind that these outcomes make, possibly none."""
    import pyarrow

    # column by column: from rows, Arrow would look up every column's name in every row
    chosen: Sequence[Outcome] = outcomes
    columns: list[list[object]] = []
    if kind == "attempts":
        columns = [
            [getattr(outcome.attempt, name) for outcome in outcomes] for name in Attempt.__annotations__
        ]
    elif kind == "failures":
        broken = [(one, one.result) for one in outcomes if isinstance(one.result, Failure)]
        chosen = [outcome for outcome, _ in broken]
        columns = [
            [json.dumps(dict(outcome.fields)) for outcome in chosen],
            *([getattr(failure, name) for _, failure in broken] for name in Failure.__annotations__),
        ]
    else:
        whole = [(one, one.result) for one in outcomes if not isinstance(one.result, Failure)]
        chosen = [outcome for outcome, _ in whole]
        texts = text_fields()
        for field in fields():
            values: list[object] = [outcome.fields.get(field.name) for outcome in chosen]
            columns.append(list(map(str, values)) if field.name in texts else values)
        columns += [[result.get(name) for _, result in whole] for name in _RESULT_COLUMNS]
    ids: list[object] = [outcome.trial_id for outcome in chosen]
    numbers: list[object] = [outcome.number for outcome in chosen]
    kinds = schema(kind)
    arrays: list[pyarrow.Array[Any]] = [
        pyarrow.array(values, type=field.type)
        for field, values in zip(kinds, [ids, numbers, *columns], strict=True)
    ]
    return pyarrow.Table.from_arrays(arrays, schema=kinds)


def canonical(row: Mapping[str, Any]) -> bytes:
    """One row in the encoding in which equality of records is defined: JSON with sorted keys."""
    return json.dumps(dict(row), sort_keys=True, separators=(",", ":")).encode()


@cache
def text_fields() -> frozenset[str]:
    """Fields that a record holds as text because their values have more than one type."""
    return frozenset(field.name for field in fields() if "anyOf" in field.adapter.json_schema())


_RESULT_COLUMNS = (*(measure.name for measure in MEASURES), *LISTS)


@cache
def schema(kind: Kind) -> "pyarrow.Schema":
    """Columns of a kind and their types."""
    import pyarrow

    types: dict[object, pyarrow.DataType] = {
        "integer": pyarrow.int64(),
        "number": pyarrow.float64(),
        "boolean": pyarrow.bool_(),
        "string": pyarrow.string(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        str: pyarrow.string(),
    }

    def of_field(field: TrialField) -> pyarrow.DataType:
        return types["string" if field.name in text_fields() else field.adapter.json_schema()["type"]]

    columns: dict[str, pyarrow.DataType] = {"trial_id": pyarrow.string(), NUMBER: pyarrow.int64()}
    if kind == "records":
        columns |= {field.name: of_field(field) for field in fields()}
        # one type for all: a part must not differ from the next because a ratio was a whole number
        columns |= {measure.name: pyarrow.float64() for measure in MEASURES}
        columns |= {name: pyarrow.list_(pyarrow.int64()) for name in LISTS}
    elif kind == "attempts":
        columns |= {name: types[type_] for name, type_ in Attempt.__annotations__.items()}
    else:
        columns |= {name: pyarrow.string() for name in ("config", *Failure.__annotations__)}
    return pyarrow.schema(list(columns.items()))
