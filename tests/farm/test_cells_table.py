"""``farm export``: a run's cells for other programs."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow
import pytest

from farm.cells_table import encoded
from farm.store.runs import Run

Farm = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(farm: Farm, small_file: str, last_run: Callable[[], Run]) -> Run:
    assert farm("run", small_file, "--executor", "serial")[0] == 0
    return last_run()


def test_all_formats_hold_the_medians_of_the_records(farm: Farm, run: Run, tmp_path: Path) -> None:
    code, out, _ = farm("export", "csv", "last")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    decoded = json.loads(farm("export", "json", "last")[1])
    file = tmp_path / "cells.parquet"
    assert farm("export", "parquet", run.name, "--output", str(file)) == (0, "", "")
    with duckdb.connect() as connection:
        stored = connection.execute(
            'SELECT arch, "traffic.kind", "pool.size", "pool.recycle", median(busy_ns_per_packet), '
            "max(busy_ns_per_packet), count(*) FROM read_parquet($path) GROUP BY ALL",
            {"path": str(run.path / "records" / "*.parquet")},
        ).fetchall()
        in_parquet = connection.execute(
            'SELECT arch, "traffic.kind", "pool.size", "pool.recycle", busy_ns_per_packet, '
            '"busy_ns_per_packet.high", seeds FROM read_parquet($path)',
            {"path": str(file)},
        ).fetchall()
    names = ("arch", "traffic.kind", "pool.size", "pool.recycle")
    values = ("busy_ns_per_packet", "busy_ns_per_packet.high", "seeds")
    assert len(stored) == 16
    assert sorted(in_parquet) == sorted(stored)
    assert sorted(tuple(row[n] for n in names + values) for row in decoded) == sorted(stored)
    from_csv = sorted(
        (
            row["arch"],
            row["traffic.kind"],
            int(row["pool.size"]),
            row["pool.recycle"] == "true",
            *(float(row[n]) for n in values),
        )
        for row in rows
    )
    assert from_csv == sorted(stored)
    assert {row["run"] for row in rows} == {run.name}


def test_nothing_is_half_written(farm: Farm, run: Run, tmp_path: Path) -> None:
    code, _, err = farm("export", "csv", "last", "--output", str(tmp_path / "absent" / "cells.csv"))
    assert (code, err.count("\n")) == (2, 1)
    assert "No such file or directory; name a file in a writable directory" in err
    code, _, err = farm("export", "openmetrics", "nothing")
    assert (code, err.count("\n")) == (2, 1)
    (tmp_path / "taken").mkdir()
    assert farm("export", "json", "last", "--output", str(tmp_path / "taken"))[0] == 2
    assert not list(tmp_path.glob(".*"))


def test_a_run_without_a_trial_has_no_history(farm: Farm, run: Run) -> None:
    for part in (*run.parts("attempts"), *run.parts("records")):
        part.unlink()
    code, _, err = farm("export", "openmetrics", "last")
    assert code == 2
    assert err.startswith(f"farm: run {run.name}: no trial is stored")


def test_hostile_strings_survive_as_what_they_are() -> None:
    hostile = ['a"b,c\nd\r\n;\t', "=HYPERLINK(1)", "<script>", "\\", "x" * 10_000]
    table = pyarrow.table({"pool.variant": hostile, "value": [1.0, 2.0, 3.0, 4.0, None]})
    read = list(csv.DictReader(io.StringIO(encoded(table, "csv").decode(), newline="")))
    assert [row["pool.variant"] for row in read] == hostile
    assert read[-1]["value"] == ""
    assert [row["pool.variant"] for row in json.loads(encoded(table, "json"))] == hostile
