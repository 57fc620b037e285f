"""The cells of a run as a table for other programs: CSV, JSON or Parquet.

One row per cell: sweep and run, every field by its dotted name, ``seeds``, and of each measure its median
under its own name, lowest and highest seed with ``.low`` and ``.high``; what a cell does not have is empty.
"""

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from farm import query
from farm.errors import OutputError
from farm.store.runs import Run
from workers.measures import MEASURES

if TYPE_CHECKING:
    import pyarrow

Format = Literal["csv", "json", "parquet"]


def cells_table(run: Run) -> "pyarrow.Table":
    """The table.

    Raises:
        farm.errors.StoreError: the run is damaged.
    """
    import pyarrow

    rows = []
    for cell in query.cells(run):
        row: dict[str, object] = {
            "sweep": run.sweep_name,
            "run": run.name,
            **cell.fields,
            "seeds": cell.seeds,
        }
        for measure in MEASURES:
            row[measure.name] = cell.measures.get(measure.name)
            row[f"{measure.name}.low"] = cell.low.get(measure.name)
            row[f"{measure.name}.high"] = cell.high.get(measure.name)
        rows.append(row)
    floats = {f"{m.name}{end}": pyarrow.float64() for m in MEASURES for end in ("", ".low", ".high")}
    inferred = pyarrow.Table.from_pylist(rows)
    types = [(field.name, floats.get(field.name, field.type)) for field in inferred.schema]
    return pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(types))


def encoded(table: "pyarrow.Table", form: Format) -> bytes:
    """The table in a format; JSON is a list of objects."""
    if form == "json":
        return json.dumps(table.to_pylist(), indent=1).encode() + b"\n"
    sink = io.BytesIO()
    if form == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(table, sink)
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def write_file(path: Path, content: bytes) -> None:
    """Write a file that appears complete or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(
            f"--output {str(path)!r}: {error.strerror}; name a file in a writable directory"
        ) from None
