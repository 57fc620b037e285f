"""What travels with a submitted run, and what the cluster makes of it."""

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from farm.cli.progress import progress_shown
from farm.errors import ExecutorError, StoreError, SweepError
from farm.execution.progress import Progress
from farm.jobs import bundle as bundles
from farm.jobs import drive, fetch
from farm.jobs import runs as jobs
from farm.jobs.bundle import Bundle, BundledPlan
from farm.jobs.server import Job
from farm.plan import Plan
from farm.store.place import LocalPlace
from farm.store.runs import Run
from farm.sweep import parse

Farm = Callable[..., tuple[int, str, str]]

OWN = """
name = "own"
[fixed]
arch = "mine.toml"
pool.variant = "mine.py"
[grid]
pool.size = [64, 1024]
"""

NAME = "20261126T120000.000Z-0123"

VARIANT = """
from pool_impl.variant import pool_variant

@pool_variant
class Small:
    def cache_limit(self, host, pool):
        return 16
"""


@pytest.fixture(autouse=True)
def _stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is not refused would replace the process of the tests."""

    def refuse(*command: object) -> None:
        raise AssertionError(f"became {command}")

    monkeypatch.setattr("os.execv", refuse)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A sweep that names a profile and a variant in the working directory."""
    from workers.profiles import arch

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(arch.load("armada-3720").path.read_text())
    (tmp_path / "mine.py").write_text(VARIANT)
    return Plan(parse(OWN, "x"))


def _written(plan: Plan, directory: Path) -> Path:
    directory.mkdir()
    Bundle.of(plan).write(directory)
    return directory


def test_trials_of_a_bundle_have_the_ids_that_they_have_where_it_was_made(own: Plan, tmp_path: Path) -> None:
    ids = [own.trial_id(number) for number in range(own.trials)]
    directory = _written(own, tmp_path / "bundle")
    for name in ("mine.toml", "mine.py"):
        (tmp_path / name).unlink()
    accepted = drive.start_or_resume(drive.bundled_plan(directory), tmp_path / "runs", "serial", NAME)
    run = Run(LocalPlace(tmp_path / "runs" / "own" / NAME))
    assert (accepted.run, accepted.stored, accepted.trials) == (NAME, 0, 2)

    import workers
    from farm.execution.execute import job_of

    assert [workers.trial_id(job_of(run).stored_config(number)) for number in range(own.trials)] == ids


def test_an_input_that_changed_on_its_way_is_refused(own: Plan, tmp_path: Path) -> None:
    directory = _written(own, tmp_path / "bundle")
    [path] = [p for p in (directory / "inputs").iterdir() if b"pool_variant" in p.read_bytes()]
    path.write_text(VARIANT + "# changed\n")
    with pytest.raises(SweepError, match=r"'mine\.py' is not what was submitted"):
        BundledPlan(directory).inputs()
    path.unlink()
    with pytest.raises(SweepError, match=r"'mine\.py': No such file"):
        BundledPlan(directory).inputs()


def test_inputs_too_large_to_travel_are_refused(own: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MOST_BYTES", 1000)
    with pytest.raises(SweepError, match=r"more than the .* that travel with a job, most of it 'mine\.toml'"):
        Bundle.of(own)


@pytest.mark.parametrize("run", ["../x", "a/b", ".hidden", "x\n"])
def test_a_bundle_cannot_name_a_path_as_its_run(run: str, own: Plan, tmp_path: Path) -> None:
    directory = tmp_path / "bundle"
    directory.mkdir()
    Bundle.of(own).for_run(run).write(directory)
    with pytest.raises(SweepError, match="not the name of a run"):
        BundledPlan(directory)


def test_what_would_run_has_one_digest_whatever_made_it(own: Plan, tmp_path: Path) -> None:
    digest = Bundle.of(own).head.digest
    assert Bundle.of(Plan(parse(OWN, "elsewhere"))).head.digest == digest
    assert Bundle.of(Plan(parse(OWN, "x", ["seeds=2"]))).head.digest != digest
    (tmp_path / "mine.py").write_text(VARIANT.replace("16", "17"))
    assert Bundle.of(Plan(parse(OWN, "x"))).head.digest != digest


def test_only_a_run_of_the_same_content_is_taken_up_again(own: Plan, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    first = drive.start_or_resume(own, root, "serial")
    assert first.run.endswith("Z-" + Bundle.of(own).head.digest[:4])
    assert drive.start_or_resume(own, root, "serial").run == first.run
    more = Plan(parse(OWN, "x", ["seeds=2"]))
    assert drive.start_or_resume(more, root, "serial").run != first.run
    (tmp_path / "mine.py").write_text(VARIANT.replace("16", "17"))
    assert drive.start_or_resume(Plan(parse(OWN, "x")), root, "serial").run != first.run


def test_a_bundle_of_another_model_is_refused_with_the_versions_of_both_sides(
    own: Plan, tmp_path: Path, farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = _written(own, tmp_path / "bundle")
    text = json.loads((directory / "bundle.json").read_text())
    there = {"ray": "2.49.0", "python": "3.13.1", "page-pool-farm": "0.0.9"}
    changed = {"model_digest": "0" * 64, "versions": json.dumps(there)}
    (directory / "bundle.json").write_text(json.dumps(text | changed))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    code, out, err = farm("drive", "--bundle", str(directory), "--store", str(tmp_path / "runs"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "here page-pool-farm 0.0.9, Ray 2.49.0, Python 3.13.1; install the same wheel on both" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (("drive", "quickstart"), {}, "RAY_ADDRESS: not set"),
        (("drive",), {"RAY_ADDRESS": "h:1", "FARM_STORE": "/nowhere"}, "SWEEP: name a TOML file"),
        (("drive", "quickstart"), {"RAY_ADDRESS": "h:1", "FARM_STORE": ""}, "no store: set FARM_STORE"),
        (("drive", "quickstart", "--store", "runs"), {"RAY_ADDRESS": "h:1"}, "'runs': a relative path"),
        (("drive", "--bundle", "/nowhere"), {"RAY_ADDRESS": "h:1", "FARM_STORE": "/x"}, "no bundle"),
        (("submit", "quickstart", "--store", "runs", "--address", "http://h"), {}, "a relative path"),
        (("submit", "quickstart", "--address", "h:8265"), {}, "write http://HOST:8265"),
        (("submit", "quickstart", "--address", "http://a:b@h:8265"), {}, "write http://HOST:8265"),
        (("submit", "quickstart", "--address", "http://127.0.0.1:1"), {}, "nothing answers"),
        (("status", "--address", "http://127.0.0.1:1", "--token-file", "/nowhere"), {}, "nothing answers"),
        (("status",), {}, "--address"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    says: str,
    farm: Farm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, out, err = farm(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_status_reads_what_the_driver_prints(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.cli.progress.LINE_SECONDS", 0.0)
    with progress_shown() as report:
        report(Progress(trials=120, stored=7, slots=2))
    printed = capfd.readouterr().err
    accepted = drive.Accepted("r", "s", "/runs", 7, 120, {"ray": "2"})
    log = f"noise\n{accepted.line()}\n{printed}"
    assert drive.Accepted.in_log(log) == accepted

    class Server:
        def log(self, job_id: str) -> str:
            return log

    job = Job("farm-s-r-1", "RUNNING", None, "", {}, 0)
    now = jobs.status(Server(), jobs.Submission(job, "r", "s", "d", 1))  # type: ignore[arg-type]
    assert (now.done, now.trials, now.state, now.store) == (7, 120, "running", "/runs")


def test_versions_that_differ_are_named() -> None:
    here = {"page-pool-farm": "0.1.0", "ray": "2.60.0", "python": "3.11.7", "numpy": "2.4.6"}
    assert jobs.differences(here, {**here, "numpy": "2.4.5"}) == ""
    assert jobs.differences(here, {"ray": "2.60.0"}) == ""
    assert jobs.differences(here, {**here, "python": "3.12.1", "ray": "2.59.0"}) == (
        "the cluster has page-pool-farm 0.1.0, Ray 2.59.0, Python 3.12.1; "
        "here page-pool-farm 0.1.0, Ray 2.60.0, Python 3.11.7"
    )


@pytest.fixture
def echoing_head() -> Iterator[str]:
    """A head that answers everything but its version with the header that it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/api/version"
            answer = {"ray_version": "2.60.0"} if known else {"sent": self.headers["Authorization"]}
            self.send_response(200 if known else 500)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_token_that_a_server_echoes_is_not_printed(
    echoing_head: str, farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-token-0123456789")
    code, out, err = farm("status", "--address", echoing_head)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "refuses" in err
    assert "Bearer ***" in err
    assert "a-token" not in err


def _submission(run: str, sweep: str, digest: str, number: int = 1) -> jobs.Submission:
    job = Job(f"farm-{sweep}-{run}-{number}", "SUCCEEDED", 0, "", {}, 0)
    return jobs.Submission(job, run, sweep, digest, number)


KNOWN = [
    _submission("20260101T000000.000Z-aaaa", "quick", "aaaaaaaaaaaa"),
    _submission("20260101T000000.000Z-aaaa", "quick", "aaaaaaaaaaaa", 2),
    _submission("20260102T000000.000Z-bbbb", "quick", "bbbbbbbbbbbb"),
    _submission("20260103T000000.000Z-cccc", "slow", "cccccccccccc"),
]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("20260101T000000.000Z-aaaa", KNOWN[1]),
        ("20260101", KNOWN[1]),
        ("aaaaaaaaaaaa", KNOWN[1]),
        # a head that was started anew forgot the time that the store knows
        ("20251231T000000.000Z-aaaa", KNOWN[1]),
        ("20260102T000000.000Z-bbb", KNOWN[2]),
        ("quick", KNOWN[2]),
        ("slow/20260103T000000.000Z-cccc", KNOWN[3]),
        ("last", KNOWN[3]),
    ],
)
def test_a_run_is_found_by_name_among_the_jobs(name: str, found: jobs.Submission) -> None:
    assert jobs.find(KNOWN, name) == found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("2026", "matches 3 runs"),
        ("qiuck", r"did you mean quick\?"),
        ("zzz", "farm status lists"),
    ],
)
def test_a_run_that_is_not_there_is_refused(name: str, says: str) -> None:
    with pytest.raises(ExecutorError, match=says):
        jobs.find(KNOWN, name)


def test_a_run_arrives_as_it_was_and_grows(small_run: Run, tmp_path: Path) -> None:
    files = fetch.unprinted("noise\n" + "\n".join(fetch.printed(small_run)) + "\nnoise\n")
    last = list(files)[-1]
    assert last.startswith("records/")
    early = {name: content for name, content in files.items() if name != last}
    assert fetch.written(early, tmp_path, "small", small_run.name) == len(early)
    assert fetch.written(files, tmp_path, "small", small_run.name) == 1
    assert fetch.written(files, tmp_path, "small", small_run.name) == 0
    copy = Run(LocalPlace(tmp_path / "small" / small_run.name))
    assert copy.canonical_records() == small_run.canonical_records()
    assert copy.manifests() == small_run.manifests()

    (copy.path / last).write_bytes(b"other")
    with pytest.raises(StoreError, match="differs from the run's"):
        fetch.written(files, tmp_path, "small", small_run.name)
    assert (copy.path / last).read_bytes() == b"other"


def test_a_run_damaged_on_its_way_is_refused(small_run: Run) -> None:
    lines = list(fetch.printed(small_run))
    for damaged in (lines[:-1], [lines[0], *lines[2:]], [lines[0], "A" + lines[1][1:], *lines[2:]], []):
        with pytest.raises(ExecutorError, match="fetch again"):
            fetch.unprinted("\n".join(damaged))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "records/../../x", "records/.x", "other/x", "sweep.toml/x"]
)
def test_no_file_is_written_outside_the_run(name: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ExecutorError, match="is no file of a run"):
        fetch.unprinted("\n".join(fetch.as_lines(packed.getvalue())))
    with pytest.raises(StoreError, match="not the name of a run"):
        fetch.written({"sweep.toml": b""}, tmp_path, "small", name)
    assert list(tmp_path.iterdir()) == []


def test_a_run_too_large_for_a_job_is_refused(small_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MOST_BYTES", 1000)
    with pytest.raises(StoreError, match=r"more than the .* that a job can hand over; copy "):
        list(fetch.printed(small_run))
