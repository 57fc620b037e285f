"""Comparisons and gates: pairs against SQL written here, changes made on purpose, and what is refused."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow
import pyarrow.compute
import pytest
from pyarrow import parquet
from scipy import stats

from farm.answers import gate
from farm.answers.compare import Comparison, compare_axis, compare_runs
from farm.errors import GateError, IncomparableError
from farm.store.place import LocalPlace
from farm.store.rows import NUMBER, Attempt, Failure, Outcome, table
from farm.store.runs import Run
from workers.errors import ConfigError
from workers.measures import MEASURES, by_name
from workers.profiles import arch

Farm = Callable[..., tuple[int, str, str]]
Runner = Callable[..., Run]

# no device went down, nothing was merged and there is one node: nothing to compare of that
NOTHING = {
    "drain_seconds",
    "drain_forecast_seconds",
    "gro_packets_per_skb",
    "buffers_far_from_cpu_ratio",
    "buffers_far_from_nic_ratio",
}


def sql(run: Run, text: str) -> list[tuple]:
    return duckdb.sql(text.replace("RECORDS", f"read_parquet('{run.path}/records/*.parquet')")).fetchall()


def test_a_comparison_is_exact_and_complete(small_run: Run) -> None:
    [found] = compare_axis(small_run, "pool.recycle")
    assert len(found.pairs) == 8
    assert sum(pair.seeds for pair in found.pairs) == 12
    for pair in found.pairs:
        where = " AND ".join(f"\"{name}\" = '{value}'" for name, value in pair.fields.items())
        for measure in ("busy_ns_per_packet", "recycle_ratio"):
            off, on = (
                [
                    value
                    for (value,) in sql(
                        small_run,
                        f"SELECT {measure} FROM RECORDS WHERE {where} "
                        f'AND "pool.recycle" = {side} ORDER BY seed',
                    )
                ]
                for side in (False, True)
            )
            one = pair.measures[measure]
            assert (one.base, one.other) == (sum(off) / len(off), sum(on) / len(on))  # of two, median is mean
            differences = [right - left for left, right in zip(off, on, strict=True)]
            assert one.difference == pytest.approx(sum(differences) / len(differences), rel=1e-9, abs=1e-12)
            if len(differences) == 2 and differences[0] != differences[1]:
                expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
                assert one.interval == pytest.approx(tuple(expected), rel=1e-6)
        assert set(pair.measures) == {measure.name for measure in MEASURES} - NOTHING


def test_a_verdict_follows_the_better_direction(small_run: Run) -> None:
    """Where no seed can matter a difference is a finding; elsewhere the interval has to exclude zero."""
    [found] = compare_axis(small_run, "pool.recycle", base=True)
    for pair in found.pairs:
        for name, one in pair.measures.items():
            better = by_name()[name].better
            expected = {"higher": one.difference > 0, "lower": one.difference < 0}
            if pair.fields["traffic.kind"] == "constant":
                assert pair.seeds == 1
                assert one.interval is None
            if one.verdict == "same":
                assert one.difference == 0
            elif one.verdict == "not shown":
                assert pair.fields["traffic.kind"] == "poisson"
                assert one.interval is not None
                assert not one.interval.excludes(0.0)
            elif better == "neither":
                assert one.verdict == "differs"
            else:
                assert one.verdict == ("better" if expected[better] else "worse")


def test_what_cannot_be_compared_is_refused(small_run: Run) -> None:
    with pytest.raises(IncomparableError, match="does not sweep it; its axes: arch"):
        compare_axis(small_run, "nic.budget")
    with pytest.raises(IncomparableError, match="use one of 64, 1024"):
        compare_axis(small_run, "pool.size", base=65)
    with pytest.raises(ConfigError, match=r"did you mean pool\.size"):
        compare_axis(small_run, "pool.siez")


# Two runs


def test_a_run_is_the_same_as_itself_run_again(
    small: str, small_run: Run, tmp_path: Path, runner: Runner
) -> None:
    found = compare_runs(small_run, runner(tmp_path, small))
    assert {one.verdict for pair in found.pairs for one in pair.measures.values()} == {"same"}
    assert (len(found.pairs), found.unpaired) == (16, (0, 0))
    assert gate.broken(found, gate.STRICT) == []


def edited(run: Run, to: Path, edit: Callable[[pyarrow.Table], pyarrow.Table]) -> Run:
    """A copy of a run with other records."""
    copy = Run(LocalPlace(shutil.copytree(run.path, to / run.sweep_name / run.name)))
    for part in (copy.path / "records").glob("*.parquet"):
        parquet.write_table(edit(parquet.read_table(part)), part)
    return copy


def test_a_trial_that_is_stored_twice_is_paired_once(small_run: Run, tmp_path: Path) -> None:
    """In whatever order its copies come."""
    twice = edited(small_run, tmp_path, lambda records: records)
    for kind in ("records", "attempts"):
        for part in list((twice.path / kind).glob("*.parquet")):
            rows = parquet.read_table(part)
            again = rows.take(pyarrow.array(range(rows.num_rows - 1, -1, -2)))
            parquet.write_table(again, part.with_name(f"again-{part.name}"))
    for sides in ((small_run, twice), (twice, small_run)):
        found = compare_runs(*sides)
        assert (len(found.cells), sum(found.seeds), found.unpaired) == (16, 24, (0, 0))
        assert gate.broken(found, gate.STRICT) == []


def test_a_value_that_only_one_side_has_is_a_finding(small_run: Run, tmp_path: Path) -> None:
    def without_one(records: pyarrow.Table) -> pyarrow.Table:
        at = records.column_names.index("latency_p99_ns")
        gone = [None, *records.column(at).to_pylist()[1:]]
        return records.set_column(at, "latency_p99_ns", pyarrow.array(gone, records.schema.field(at).type))

    other = edited(small_run, tmp_path, without_one)
    parts = len(list((other.path / "records").glob("*.parquet")))
    for sides in ((small_run, other), (other, small_run)):
        found = compare_runs(*sides)
        broken = gate.broken(found, gate.STRICT)
        assert {one.measure for one in broken} == {"latency_p99_ns"}
        assert len(broken) == parts
        assert {str(found.measures[one.measure].verdicts[one.cell]) for one in broken} == {"differs"}


def test_a_measure_that_one_run_never_wrote_is_named(small_run: Run, tmp_path: Path) -> None:
    other = edited(small_run, tmp_path, lambda records: records.drop_columns(["drop_ratio"]))
    found = compare_runs(small_run, other)
    assert "drop_ratio" not in found.measures
    assert list(found.caveats) == ["Not compared, as only one side has them: drop_ratio."]
    assert gate.broken(found, gate.STRICT) == []


def without_the_first_trial(run: Run, to: Path) -> Run:
    def rest(rows: pyarrow.Table) -> pyarrow.Table:
        return rows.filter(pyarrow.compute.field(NUMBER) != 0)

    copy = edited(run, to, rest)
    for part in (copy.path / "attempts").glob("*.parquet"):
        parquet.write_table(rest(parquet.read_table(part)), part)
    return copy


def test_failed_trials_are_named_and_no_gate_is_green_with_them(
    farm: Farm, small_run: Run, tmp_path: Path
) -> None:
    run = without_the_first_trial(small_run, tmp_path)
    attempt = Attempt("host", "serial", "", 0.1, 0.0, 0.1, 0, "made up", "{}", 0)
    failure = Outcome(0, "f" * 32, {}, Failure("CheckError", "made up"), attempt)
    (run.path / "failures").mkdir(exist_ok=True)
    parquet.write_table(table("failures", [failure]), run.path / "failures" / "made-up.parquet")
    paths = str(small_run.path), str(run.path)
    _, output, _ = farm("compare", *paths)
    assert f"Of run {run.name} 1 trials failed and are not compared." in output
    code, output, errors = farm("gate", *paths)
    assert (code, output, errors.count("\n")) == (4, "", 1)
    assert "1 of its trials failed" in errors


def test_a_cell_of_one_seed_may_have_a_swept_packet_size(farm: Farm, tmp_path: Path, runner: Runner) -> None:
    """A record holds it as text, since it may be a word."""
    run = runner(
        tmp_path,
        'name = "sizes"\n[fixed]\nduration_ms = 2\nwarmup_ms = 1\ntraffic.kind = "constant"\n'
        '[grid]\ntraffic.packet_size = [64, 1500, "imix"]\n',
    )
    code, output, _ = farm("gate", str(run.path), str(run.path))
    assert (code, output) == (0, "passed: 0 differences in 3 cells\n")


def test_no_gate_is_green_with_a_run_that_is_not_finished(farm: Farm, small_run: Run, tmp_path: Path) -> None:
    half = without_the_first_trial(small_run, tmp_path)
    for sides in ((small_run, half), (half, small_run)):
        code, output, errors = farm("gate", *(str(run.path) for run in sides))
        assert (code, output, errors.count("\n")) == (4, "", 1)
        assert "1 of its trials have not run; resume it" in errors


def changed(small: str, tmp_path: Path, runner: Runner, old: str, new: str) -> Run:
    assert old in small
    return runner(tmp_path, small.replace(old, new))


def test_runs_that_differ_in_what_nobody_named_are_refused(
    small: str, small_run: Run, tmp_path: Path, runner: Runner
) -> None:
    other = changed(small, tmp_path, runner, "duration_ms = 3", "duration_ms = 4")
    with pytest.raises(IncomparableError, match=r"--across duration_ms: duration_ms is 3 in .* and 4 in"):
        compare_runs(small_run, other)
    found = compare_runs(small_run, other, ["duration_ms"])
    assert len(found.pairs) == 16
    assert found.across == {"duration_ms": ("3", "4")}


def test_runs_of_other_seeds_and_cells_pair_what_they_have_in_common(
    small: str, small_run: Run, tmp_path: Path, runner: Runner
) -> None:
    other = changed(small, tmp_path, runner, "pool.size = [64, 1024]", "pool.size = [256, 64]")
    found = compare_runs(small_run, other)
    assert {pair.fields["pool.size"] for pair in found.pairs} == {64}
    assert found.unpaired == (12, 12)


def test_runs_without_a_common_cell_are_refused(
    small: str, small_run: Run, tmp_path: Path, runner: Runner
) -> None:
    other = changed(small, tmp_path, runner, "pool.size = [64, 1024]", "pool.size = [256, 512]")
    with pytest.raises(IncomparableError, match="no cell and seed in common; their axes are arch, "):
        compare_runs(small_run, other)


def one_cycle_more(path: Path, parent: str) -> None:
    """A profile whose ring costs a cycle more for each page."""
    known = arch.load(parent)
    path.write_text(
        f'title = "mine"\ndescription = "of a test"\nparent = "{parent}"\n'
        "[ring_slot_ns]\nlow = 0\nhigh = 100\n"
        f"value = {known['ring_slot_ns'] + 1 / known['clock_ghz']}\n"
        'certainty = "estimate"\nsource = "no source"\n'
    )


@pytest.mark.parametrize("parent", ["broadwell-ep", "armada-3720", "zen4"])
def test_one_cycle_more_in_the_ring_is_found_where_the_ring_is_used(
    parent: str, small: str, tmp_path: Path, runner: Runner, farm: Farm
) -> None:
    path = tmp_path / "mine.toml"
    mine = small.replace('["broadwell-ep", "armada-3720"]', f'["{path}"]')
    path.write_text(f'title = "mine"\ndescription = "of a test"\nparent = "{parent}"\n')
    runs = [runner(tmp_path / "before", mine)]
    one_cycle_more(path, parent)
    runs.append(runner(tmp_path / "after", mine))
    with pytest.raises(IncomparableError, match=r"--across inputs: inputs is .*mine\.toml"):
        compare_runs(*runs)
    found = compare_runs(*runs, ["inputs"])
    worse = gate.broken(found, (gate.Rule(measures=("pool_put_ns_per_packet",)),))
    assert [one.cell for one in worse] == [n for n, cell in enumerate(found.cells) if cell["pool.recycle"]]
    paths = [str(run.path) for run in runs]
    code, output, _ = farm("gate", *paths, "--across", "inputs")
    assert code == 1
    assert "FAILED" in output
    code, output, errors = farm("gate", *paths)
    assert (code, output, errors.count("\n")) == (4, "", 1)


# Rules of a gate


def rules(tmp_path: Path, text: str) -> tuple[gate.Rule, ...]:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return gate.load(path)


@pytest.fixture
def recycling(small_run: Run) -> Comparison:
    [found] = compare_axis(small_run, "pool.recycle", base=True)
    return found


def test_a_rule_is_about_its_measures_cells_and_limits(recycling: Comparison, tmp_path: Path) -> None:
    text = (
        '[[rule]]\nmeasures = ["busy_ns_per_packet"]\nwhere = {{ arch = "armada-3720" }}\nleast_change = {}\n'
    )
    strict = gate.broken(recycling, rules(tmp_path, text.format(0)))
    assert {recycling.cells[one.cell]["arch"] for one in strict} == {"armada-3720"}
    busy = [recycling.measures[one.measure].at(one.cell) for one in strict]
    changes = sorted(abs(one.difference / one.base) for one in busy)
    limit = changes[len(changes) // 2]
    loose = gate.broken(recycling, rules(tmp_path, text.format(limit)))
    assert len(loose) == len([change for change in changes if change >= limit])


def test_rules_about_no_common_cell_are_never_green(recycling: Comparison, tmp_path: Path) -> None:
    with pytest.raises(IncomparableError, match="nothing was checked"):
        gate.broken(recycling, rules(tmp_path, '[[rule]]\nwhere = { arch = "zen4" }\n'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rule; write"),
        ("x = 3", "unknown key 'x'"),
        ("[[rule]]\nlimit = 3", "limit = 3: use measures, where"),
        ('[[rule]]\nmeasures = ["speed"]', "'speed': no such measure"),
        ('[[rule]]\nwhere = { "pool.siez" = 3 }', "did you mean pool.size"),
        ('[[rule]]\nverdicts = ["bad"]', "verdicts.0 = 'bad'"),
        ("[[rule]]\nleast_change = -1", "least_change = -1"),
        ("[[rule", "correct the file"),
    ],
)
def test_a_malformed_rule_is_one_line(
    text: str, message: str, tmp_path: Path, farm: Farm, small_run: Run
) -> None:
    with pytest.raises(GateError, match=re.escape(message)) as caught:
        rules(tmp_path, text)
    assert "\n" not in str(caught.value)
    code, output, errors = farm(
        "gate", str(small_run.path), str(small_run.path), "--rule", str(tmp_path / "rules.toml")
    )
    assert (code, output, errors.count("\n")) == (2, "", 1)


# The command


def test_a_gate_passes_a_run_against_itself(farm: Farm, small_run: Run) -> None:
    code, output, _ = farm("gate", str(small_run.path), str(small_run.path))
    assert (code, output) == (0, "passed: 0 differences in 16 cells\n")
    code, output, _ = farm("gate", str(small_run.path), str(small_run.path), "--json")
    assert json.loads(output) == {
        "passed": True, "cells": 16, "unpaired": [0, 0], "caveats": [], "broken": []
    }  # fmt: skip


def test_a_comparison_can_be_pasted_as_markdown(farm: Farm, small_run: Run) -> None:
    code, output, _ = farm(
        "compare", str(small_run.path), "--axis", "pool.recycle", "--measure", "recycle_ratio", "--markdown"
    )
    assert code == 0
    rows = [line for line in output.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 8
    assert {row.count("|") for row in rows} == {rows[0].count("|")}


@pytest.mark.parametrize(
    "arguments",
    [("compare", "{run}"), ("compare", "{run}", "{run}", "--axis", "arch"), ("gate", "{run}", "nope")],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], farm: Farm, small_run: Run) -> None:
    code, output, errors = farm(*(argument.format(run=small_run.path) for argument in arguments))
    assert (code, output, errors.count("\n")) == (2, "", 1)
