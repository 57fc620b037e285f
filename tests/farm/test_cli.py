"""The command line: what it prints, and that bad input is one line and leaves nothing behind."""

import gzip
import json
import re
import signal
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from farm import cli, sweep
from farm.store import runs as store
from farm.store.runs import Run
from workers import model_digest
from workers.config import fields
from workers.measures import MEASURES

Farm = Callable[..., tuple[int, str, str]]


def test_a_plan_does_not_wait_for_a_compiler(
    farm: Farm, small_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plan = json.loads(farm("plan", small_file, "--json")[1])
    assert (plan["trials"], plan["seconds"], plan["packets_per_second"]) == (24, None, None)
    assert "not known before a trial has run here" in " ".join(farm("plan", small_file)[1].split())
    assert not list((tmp_path / "cache").rglob("*.nbi"))


def test_a_plan_says_what_would_run_and_writes_nothing(
    farm: Farm, small_file: str, small_run: Run, tmp_path: Path
) -> None:
    code, out, _ = farm("plan", small_file, "--json")
    plan = json.loads(out)
    assert code == 0
    assert (plan["cells"], plan["trials"], plan["seeds_collapsed"]) == (16, 24, 8)
    assert plan["metric_series"] >= 16 * len(MEASURES)
    assert plan["packets"] == pytest.approx(24 * 600, rel=0.2)
    assert plan["seconds"] > 0
    code, out, _ = farm("plan", small_file)
    assert code == 0
    assert "16" in out
    assert "collapsed" in out
    assert not (tmp_path / "runs").exists()


def test_a_run_ends_in_a_table_and_the_path(farm: Farm, small_file: str, last_run: Callable[[], Run]) -> None:
    code, out, err = farm("run", small_file, "--executor", "serial")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].strip() == "broadwell-ep"
    assert "Recycling pays most on " in out
    assert "The pool size changed " in out
    assert out.splitlines()[-1] == f"Stored in {last_run().path}"
    assert all(len(line) <= 80 for line in out.splitlines()[:-1])
    assert "\x1b" not in out


def test_show_repeats_what_run_printed(farm: Farm, small_file: str) -> None:
    _, printed, _ = farm("run", small_file, "--executor", "serial")
    assert farm("show", "last") == (0, printed, "")
    _, shown, _ = farm("show", "small", "--json")
    assert len(json.loads(shown)["gains"]) == 8


def test_a_run_without_recycling_on_and_off_shows_its_cells(farm: Farm, small_file: str) -> None:
    code, out, _ = farm("run", small_file, "pool.recycle=true", "--executor", "serial")
    assert code == 0
    assert len(re.findall("(?m)^broadwell-ep ", out)) == 4


def test_a_second_table_says_what_a_sweep_is_about(farm: Farm, small_file: str) -> None:
    kept = ("app.hold_percent=0,20", "app.hold_ms=1", "traffic.kind=constant")
    code, out, _ = farm("run", small_file, "pool.recycle=true", "pool.size=64", *kept, "--executor", "serial")
    assert code == 0
    table = out.split("\n\n")[1].splitlines()
    assert table[1].split()[-3:] == ["held", "ns", "kept"]
    assert [float(row.split()[-1]) > 0 for row in table[3:]] == [False, True, False, True]
    assert all(len(line) <= 80 for line in table)


def test_list_names_the_runs_and_survives_a_damaged_one(
    farm: Farm, small_file: str, last_run: Callable[[], Run]
) -> None:
    assert farm("list") == (0, "no runs\n", "")
    farm("run", small_file, "--executor", "serial")
    whole = last_run()
    farm("run", small_file, "--executor", "serial")
    (last_run().path / "sweep.toml").write_text("?")
    code, out, _ = farm("list", "--json")
    assert code == 0
    first, second = json.loads(out)
    assert first == {
        "run": whole.name,
        "sweep": "small",
        "executor": "serial",
        "trials": 24,
        "records": 24,
        "failures": 0,
        "problem": "",
    }
    assert "restore it" in second["problem"]
    assert "damaged" in farm("list")[1]


def test_compare_prints_verdicts(farm: Farm, small_run: Run) -> None:
    code, out, _ = farm("compare", str(small_run.path), "--axis", "pool.recycle")
    assert code == 0
    assert "better" in out
    code, out, _ = farm("compare", str(small_run.path), "--axis", "pool.recycle", "--json")
    assert code == 0
    [found] = json.loads(out)
    assert len(found["cells"]) == 8
    code, out, err = farm("compare", str(small_run.path), "--axis", "nic.budget")
    assert (code, out) == (4, "")
    assert err.count("\n") == 1


def test_fields_and_measures_are_listed(farm: Farm) -> None:
    _, out, _ = farm("fields", "--json")
    assert [row["name"] for row in json.loads(out)] == [field.name for field in fields()]
    _, out, _ = farm("fields", "--measures", "--json")
    assert [row["name"] for row in json.loads(out)] == [measure.name for measure in MEASURES]
    assert "pool.size" in farm("fields")[1]


def test_bundled_sweeps_are_listed_with_what_they_are_for(farm: Farm) -> None:
    code, out, err = farm("run", "--list", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert list(found) == sweep.bundled()
    assert found["quickstart"].startswith("Does recycling pay, where, and how large must the pool be?")
    assert "Does recycling pay" in farm("run", "--list")[1]


def test_a_sweep_of_loops_ends_in_a_table(farm: Farm) -> None:
    code, out, _ = farm("run", "pool-bench", "arch=broadwell-ep", "--executor", "serial")
    assert code == 0
    assert "pool_ring" in out
    assert "15.8" in out


def test_architectures_are_listed_and_shown(farm: Farm) -> None:
    names = {row["name"] for row in json.loads(farm("arch", "list", "--json")[1])}
    assert names >= {"broadwell-ep", "armada-8040", "armada-3720"}
    profile = json.loads(farm("arch", "show", "armada-3720", "--json")[1])
    assert all(p["source"] and p["low"] <= p["value"] <= p["high"] for p in profile["parameters"])
    assert "dram_ns" in farm("arch", "show", "armada-3720")[1]


def test_help_is_quick_to_give(farm: Farm) -> None:
    code, out, _ = farm("--help")
    assert code == 0
    order = ["plan", "run", "list", "show", "compare", "fields", "serve"]
    places = [out.index(f"\n  {verb} ") for verb in order]
    assert places == sorted(places)


@pytest.fixture
def bad_files(tmp_path: Path) -> dict[str, Path]:
    bundled = next(Path(sweep.__file__).parent.parent.glob("workers/captures/tcp_bulk*"))
    whole = bundled.read_bytes()
    plain = gzip.decompress(whole) if whole[:2] == b"\x1f\x8b" else whole
    files = {
        "truncated": plain[: len(plain) // 2 + 7],
        "no capture": b"hello, this is text and no capture at all\n",
        "empty": b"",
    }
    for name, content in files.items():
        (tmp_path / f"{name}.pcap").write_bytes(content)
    (tmp_path / "file").write_text("")
    return {name: tmp_path / f"{name}.pcap" for name in files} | {"a file": tmp_path / "file"}


CAPTURE = ("traffic.kind=capture", "arch=broadwell-ep")

BAD: dict[str, tuple[list[str], str]] = {
    "no verb": (["rnu"], "rnu"),
    "an unknown option": (["run", "small", "--exekutor", "ray"], "--exekutor"),
    "an unknown executor": (["run", "small", "--executor", "dask"], "dask"),
    "no sweep": (["run"], "SWEEP"),
    "a missing sweep": (["run", "nope.toml"], "nope.toml"),
    "a directory for a sweep": (["run", "/"], "TOML file"),
    "a misspelt key": (["run", "small", "pool.siez=3"], "did you mean pool.size?"),
    "a wrong type": (["run", "small", "pool.size=large"], "pool.size = 'large'"),
    "an empty axis": (["run", "small", "pool.size="], "pool.size = ''"),
    "a negative size": (["run", "small", "pool.size=-1"], "pool.size = '-1'"),
    "an absurd size": (["run", "small", "pool.size=99999999999"], "pool.size = '99999999999'"),
    "a broken rule": (["run", "small", "warmup_ms=3"], "warmup_ms = 3"),
    "an unknown architecture": (["run", "small", "arch=z80"], "z80"),
    "a name that is a path": (["run", "small", "name=../../x"], "not a path"),
    "a missing capture": (["run", "small", *CAPTURE, "traffic.capture=/nope.pcap"], "/nope.pcap"),
    "a truncated capture": (["run", "small", *CAPTURE, "traffic.capture={truncated}"], "truncated.pcap"),
    "no capture at all": (["run", "small", *CAPTURE, "traffic.capture={no capture}"], "no capture.pcap"),
    "an empty capture": (["run", "small", *CAPTURE, "traffic.capture={empty}"], "empty.pcap"),
    "no packet this way": (["run", "small", *CAPTURE, "traffic.capture_destination=10.9.9.9"], "10.9.9.9"),
    "no address": (["run", "small", *CAPTURE, "traffic.capture_destination=x"], "'x'"),
    "a store that is a file": (["run", "small", "--store", "{a file}"], "name a writable directory"),
    "an unreachable address": (
        ["run", "small", "--executor", "ray", "--address", "127.0.0.1:1"],
        "127.0.0.1:1",
    ),
    "an address for serial": (["run", "small", "--address", "127.0.0.1:1"], "--address"),
    "an unknown run": (["show", "nope"], "nope"),
    "an unknown run to resume": (["run", "--resume", "nope"], "nope"),
    "an unknown measure": (["compare", "x", "--axis", "arch", "--measure", "speed"], "speed"),
    "an unknown profile": (["arch", "show", "z80"], "z80"),
    "a port that is none": (["serve", "--port", "99999"], "99999"),
    "a plan of nothing": (["plan", "nope"], "nope"),
}


@pytest.mark.parametrize(("arguments", "says"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_leaves_nothing(
    farm: Farm, small_file: str, bad_files: dict[str, Path], tmp_path: Path, arguments: list[str], says: str
) -> None:
    words = [small_file if word == "small" else word for word in arguments]
    words = [re.sub(r"\{(.+)\}", lambda found: str(bad_files[found[1]]), word) for word in words]
    if words[0] == "run" and "--executor" not in words:
        words += ["--executor", "serial"]
    code, out, err = farm(*words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert says in err
    assert not (tmp_path / "runs").exists()


def test_failed_trials_are_told_and_counted(
    farm: Farm, small_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import workers
    from workers.errors import CheckError

    def broken(config: object, stopper: object, *, alone: bool) -> workers.Record:
        raise CheckError("wire packets 7 != fates 6")

    monkeypatch.setattr(workers, "run_trial", broken, raising=False)
    code, out, err = farm("run", small_file, "--executor", "serial")
    assert code == 3
    assert "no records" in out
    assert "24 trials failed; the first: CheckError: wire packets 7 != fates 6" in err


def test_the_version_names_the_model(farm: Farm) -> None:
    code, output, errors = farm("--version")
    assert (code, errors, output.count("\n")) == (0, "", 1)
    assert output.endswith(f", model {model_digest()}\n")
    assert f"page-pool-farm {metadata.version('page-pool-farm')}," in output


def test_an_interrupt_keeps_what_was_done_and_says_how_to_go_on(
    farm: Farm, small_file: str, farm_process: Callable[..., object], tmp_path: Path, small_run: Run
) -> None:
    long = ["duration_ms=300", "seeds=50", "--executor", "serial"]
    process = farm_process(["run", small_file, *long])
    deadline = time.monotonic() + 60
    while not list((tmp_path / "runs").rglob("records/*.parquet")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    told = err.splitlines()[-1]  # on a busy machine a line about the time to load comes before
    words = told.partition("go on with: farm ")[2].split()
    run = store.find(tmp_path / "runs", "last")
    stored = len(run.read_records())
    assert 0 < stored < 600
    assert f"{stored} of " in told
    assert words == ["run", "--resume", run.name]


def test_recycling_off_is_labelled_where_the_release_does_not_offer_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "forced.toml"
    sweep.write_text(
        'name = "forced"\n[fixed]\ntraffic.kind = "constant"\nduration_ms = 3\n'
        '[grid]\nkernel = ["6.1", "6.12"]\npool.recycle = [true, false]\n'
    )
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["run", str(sweep), "--executor", "serial", "--store", str(tmp_path / "store")])
    assert exit_info.value.code == 0
    assert "off is a counterfactual on 6.12, which" in " ".join(capsys.readouterr().out.split())


def test_show_cpus_prints_a_table_for_each_cell(farm: Farm, small_run: Run) -> None:
    code, out, _ = farm("show", str(small_run.path), "--cpus")
    assert code == 0
    assert out.count("queue 0") == out.count("reader 0") == 16
    code, out, _ = farm("show", str(small_run.path), "--cpus", "--json")
    found = json.loads(out)
    assert len(found) == 16
    assert all(cell["ns_per_packet"]["reader 0"]["application"] > 0 for cell in found)
