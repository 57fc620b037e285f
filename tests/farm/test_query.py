"""Aggregates and comparisons against SQL and arithmetic written here."""

import math
import shutil
from pathlib import Path
from statistics import median

import duckdb
import pytest
from pyarrow import parquet

from farm import cli, query
from farm.answers.compare import compare_axis
from farm.errors import IncomparableError
from farm.store import writer as writing
from farm.store.place import LocalPlace
from farm.store.runs import Run, runs
from workers.books.histogram import bucket_low_ps
from workers.measures import CATEGORIES


def sql(run: Run, text: str) -> list[tuple]:
    return duckdb.sql(text.replace("RECORDS", f"read_parquet('{run.path}/records/*.parquet')")).fetchall()


def test_a_cell_is_the_median_of_its_seeds(small_run: Run) -> None:
    cells = query.cells(small_run)
    assert len(cells) == 16
    for cell in cells:
        where = " AND ".join(f"\"{name}\" = '{cell.fields[name]}'" for name in cell.axes)
        for name in ("busy_ns_per_packet", "recycle_ratio", "latency_max_ns"):
            (expected,) = sql(
                small_run,
                f"SELECT quantile_cont({name}, 0.5), min({name}), max({name}), count(*) "
                f"FROM RECORDS WHERE {where}",
            )
            found = (cell.measures[name], cell.low[name], cell.high[name], cell.seeds)
            assert found == pytest.approx(expected, rel=1e-12)


def test_a_quantile_is_that_of_all_packets_of_all_seeds(small_run: Run) -> None:
    differing = 0
    for cell in query.cells(small_run):
        where = " AND ".join(f"\"{name}\" = '{cell.fields[name]}'" for name in cell.axes)
        rows = sql(small_run, f"SELECT latency_histogram, latency_p99_ns FROM RECORDS WHERE {where}")
        times_ps: list[int] = []
        for histogram, _ in rows:
            for bucket, count in zip(histogram[::2], histogram[1::2], strict=True):
                times_ps += [bucket_low_ps(bucket)] * count
        times_ps.sort()
        found = cell.measures["latency_p99_ns"]
        assert found == times_ps[math.ceil(len(times_ps) * 0.99) - 1] // 1000
        assert cell.low["latency_p99_ns"] <= found <= cell.high["latency_p99_ns"]
        differing += found != median(alone for _, alone in rows)
    assert differing > 0


def test_cells_come_in_the_order_of_the_sweep(small_run: Run) -> None:
    order = [tuple(cell.fields[name] for name in cell.axes) for cell in query.cells(small_run)]
    assert order == [
        (arch, kind, size, recycle)
        for arch in ("broadwell-ep", "armada-3720")
        for kind in ("constant", "poisson")
        for size in (64, 1024)
        for recycle in (True, False)
    ]


def test_gains_pair_what_differs_in_recycling_only(small_run: Run) -> None:
    gains = query.gains(query.cells(small_run))
    assert len(gains) == 8
    for gain in gains:
        on, off = gain.on.fields, gain.off.fields
        assert {name for name in on if on[name] != off[name]} == {"pool.recycle"}
        busy = [cell.measures["busy_ns_per_packet"] for cell in (gain.off, gain.on)]
        assert gain.gain == busy[0] / busy[1] - 1


def test_the_rate_is_that_of_this_models_attempts(small_run: Run) -> None:
    digest = small_run.manifests()[0]["model_digest"]
    ((packets, seconds),) = duckdb.sql(
        f"SELECT sum(packets), sum(wall_seconds) FROM read_parquet('{small_run.path}/attempts/*.parquet')"
    ).fetchall()
    assert query.packet_rate([small_run], digest) == pytest.approx(float(packets) / seconds)
    assert query.packet_rate([small_run, small_run], digest) == pytest.approx(float(packets) / seconds)
    assert query.packet_rate([small_run], "another") is None


def test_a_run_without_records_has_no_cells(tmp_path: Path, small_run: Run) -> None:
    run, _ = writing.create_run(tmp_path, small_run.sweep, {}, {})
    assert query.cells(run) == []
    with pytest.raises(IncomparableError, match="holds no two records"):
        compare_axis(run, "pool.recycle")


def test_a_measure_that_no_seed_could_take_is_missing_and_not_zero(tmp_path: Path) -> None:
    """Nothing arrives: no busy time per packet, and so no gain, but every verb still answers."""
    sweep = tmp_path / "silent.toml"
    sweep.write_text(
        'name = "silent"\n[fixed]\ntraffic.kind = "constant"\ntraffic.rate_pps = 1\n'
        "[grid]\npool.recycle = [true, false]\n"
    )
    store = ["--store", str(tmp_path / "store")]
    for verb in (["run", str(sweep), "--executor", "serial"], ["show", "last"]):
        with pytest.raises(SystemExit) as exit_info:
            cli.main([*verb, *store])
        assert exit_info.value.code == 0
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["compare", "last", "--axis", "pool.recycle", *store])
    assert exit_info.value.code == 0
    [run] = runs(tmp_path / "store")
    for cell in query.cells(run):
        assert "busy_ns_per_packet" not in cell.measures
        assert cell.measures["packets_offered"] == 0
    assert query.gains(query.cells(run)) == []


def test_time_by_cpu_adds_up_to_that_of_each_category_and_of_the_busiest_cpu(small_run: Run) -> None:
    for cell, by_cpu in zip(query.cells(small_run), query.times_by_cpu(small_run), strict=True):
        where = " AND ".join(f"\"{name}\" = '{cell.fields[name]}'" for name in cell.axes)
        categories = [f"{name}_ns_per_packet" for name in CATEGORIES]
        # packets of a seed are what its busy CPUs had time for; the reader has a CPU of its own
        packets = (
            "1e9 * measured_seconds * (busy_ratio_queue_cpu + busy_ratio_reader_cpu) / busy_ns_per_packet"
        )
        weighted = ", ".join(f"sum({packets} * {name}) / sum({packets})" for name in categories)
        shares = f"sum({packets} * busy_ns_per_packet * busy_ratio_queue_cpu / (busy_ratio_queue_cpu + "
        shares += f"busy_ratio_reader_cpu)) / sum({packets})"
        [expected] = sql(small_run, f"SELECT {shares}, {weighted} FROM RECORDS WHERE {where}")
        found = [sum(by.get(name, 0) for by in by_cpu.values()) for name in CATEGORIES]
        assert [sum(by_cpu["queue 0"].values()), *found] == pytest.approx(expected, rel=1e-9)


def test_a_run_of_an_older_version_is_read_without_what_it_did_not_write(
    small_run: Run, tmp_path: Path
) -> None:
    """A field has its default then, a measure no value."""
    run = Run(LocalPlace(shutil.copytree(small_run.path, tmp_path / "small" / small_run.name)))
    for part in (run.path / "records").glob("*.parquet"):
        older = parquet.read_table(part).drop_columns(
            ["app.slice_us", "driver.copybreak_bytes", "drop_ratio"]
        )
        parquet.write_table(older, part)
    for cell, whole in zip(query.cells(run), query.cells(small_run), strict=True):
        assert cell.fields == whole.fields
        assert "drop_ratio" not in cell.measures
        assert cell.measures == {name: v for name, v in whole.measures.items() if name != "drop_ratio"}
    assert query.times_by_cpu(run) == query.times_by_cpu(small_run)
    [older] = compare_axis(run, "pool.recycle", measures=["recycle_ratio", "drop_ratio"])
    [compared] = compare_axis(small_run, "pool.recycle", measures=["recycle_ratio"])
    assert older.pairs == compared.pairs
