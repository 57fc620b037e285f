"""The workflow for GitHub Actions is valid, and its steps, run by bash as a runner does, end as they say."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.deploy.manifests import DEPLOY
from tests.farm.s3_server import BUCKET, put, s3_server

FILE = DEPLOY / "github-actions.yml"
PROJECT = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
BIN = Path(sys.executable).parent

WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE.read_text())
# YAML 1.1 reads the key ``on`` as a truth value
TRIGGERS = WORKFLOW[True]
[JOB] = WORKFLOW["jobs"].values()
STEPS: list[dict[str, Any]] = JOB["steps"]
SCRIPTS = {step["name"]: step["run"] for step in STEPS if "run" in step}

INSTALL, CODE, SWEEP, GATE, REPORT = SCRIPTS

EVEN_AFTER_A_FAILURE = "${{ !cancelled() && steps.sweep.outcome != 'skipped' }}"

PAGE = (DEPLOY / "README.md").read_text()

[_SWEEP] = re.findall(r"^```toml\n# gate.toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
WITH_VARIANT = _SWEEP.replace("duration_ms = 50", "duration_ms = 20")
RULES = (DEPLOY / "rules.toml").read_text()


def _step(name: str) -> dict[str, Any]:
    [found] = [step for step in STEPS if step.get("name") == name]
    return found


def _uses(action: str) -> dict[str, Any]:
    [found] = [step for step in STEPS if step.get("uses", "").startswith(f"{action}@")]
    return found


# --- its format, and what it may do ---


def test_it_is_a_workflow_by_the_published_schema() -> None:
    command = [f"{BIN}/check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_has_no_fault_that_a_linter_finds(script: str) -> None:
    variables = [*WORKFLOW["env"], "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "MACHINE"]
    before = "set -eo pipefail\nexport " + " ".join(f"{name}=''" for name in variables)
    command = [f"{BIN}/shellcheck", "--shell", "bash", "--enable", "check-unassigned-uppercase", "-"]
    done = subprocess.run(command, input=f"{before}\n{script}", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_nothing_that_somebody_sends_becomes_part_of_a_script() -> None:
    assert not [name for name, script in SCRIPTS.items() if "${{" in script]
    assert "github.event" not in FILE.read_text()


def test_it_may_only_read_and_what_a_stranger_sends_gets_no_secret() -> None:
    assert set(TRIGGERS) == {"pull_request", "workflow_dispatch"}
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in JOB
    assert _uses("actions/checkout")["with"] == {"persist-credentials": False}
    assert "secrets." not in yaml.safe_dump(WORKFLOW)


def test_actions_are_named_by_their_whole_version() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert len(used) == 5
    assert all(re.fullmatch(r"actions/[a-z/-]+@v\d+\.\d+\.\d+", name) for name in used)


def test_it_names_the_versions_of_this_package() -> None:
    assert WORKFLOW["env"]["FARM_SOURCE"] == f"./page_pool_farm-{PROJECT['version']}-py3-none-any.whl"
    python = _uses("actions/setup-python")["with"]["python-version"]
    assert PROJECT["requires-python"] == f">={python}"


def test_the_cache_is_the_directory_where_compiled_code_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    from pool_impl.jit import code_cache

    # not set on a runner
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for action in ("actions/cache/restore", "actions/cache/save"):
        assert Path(_uses(action)["with"]["path"]).expanduser() == code_cache()


# --- its steps ---


class Done(NamedTuple):
    """What a job left behind."""

    codes: dict[str, int]
    """exit codes of the scripts that were run, by the names of their steps"""
    directory: Path
    """the checked-out repository"""
    summary: str

    @property
    def code(self) -> int:
        """The first one that is not 0, which a runner shows as the job's."""
        return next((code for code in self.codes.values() if code), 0)

    @property
    def verdict(self) -> str:
        """What the gate printed."""
        return (self.directory / "gate.txt").read_text()


class Repository:
    """A checked-out repository, in which jobs are run by the rules of a runner on Linux."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("FARM_", "GITHUB_", "AWS_"))},
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        without = re.sub(r"^pool\.variant = .*\n", "", WITH_VARIANT, flags=re.MULTILINE)
        assert without != WITH_VARIANT
        (directory / "gate.toml").write_text(without)
        (directory / "rules.toml").write_text(RULES)

    def shell(self, script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a script as ``shell: bash`` is documented to."""
        path = self.directory.parent / "script.sh"
        path.write_text(script)
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", path],
            cwd=self.directory,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
        )

    def job(
        self,
        fields: str = "",
        across: str = "",
        scripts: tuple[str, ...] = (SWEEP, GATE, REPORT),
        **environment: str,
    ) -> Done:
        """Run these scripts with these inputs, and these variables in place of the file's."""
        assert WORKFLOW["defaults"]["run"]["shell"] == "bash"
        inputs = {"${{ inputs.fields }}": fields, "${{ inputs.across || 'inputs' }}": across or "inputs"}
        variables = {
            name: inputs[value] if "${{" in value else value for name, value in WORKFLOW["env"].items()
        }
        # the machine's own code, which other tests have compiled
        del variables["NUMBA_CPU_NAME"]
        summary = self.directory.parent / "summary.md"
        summary.write_text("")
        codes: dict[str, int] = {}
        for name in scripts:
            condition = _step(name).get("if")
            assert condition in (None, EVEN_AFTER_A_FAILURE)
            if condition is None and any(codes.values()):
                continue
            given = {**variables, **environment, "GITHUB_STEP_SUMMARY": str(summary)}
            codes[name] = self.shell(SCRIPTS[name], **given).returncode
        return Done(codes, self.directory, summary.read_text())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the run that is the baseline."""
    repository = Repository(tmp_path_factory.mktemp("recorded"))
    done = repository.shell("farm run gate.toml --executor serial --store recorded")
    assert done.returncode == 0, done.stderr
    return repository.directory / "recorded"


@pytest.fixture
def repository(tmp_path: Path, recorded: Path) -> Repository:
    """One with a baseline, as a clone brings it: without directories that are empty."""
    directory = tmp_path / "checkout"
    directory.mkdir()
    [run] = (recorded / "gate").iterdir()
    for path in run.rglob("*"):
        if path.is_file():
            copy = directory / "baseline" / path.relative_to(run)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return Repository(directory)


def test_what_did_not_change_passes(repository: Repository) -> None:
    done = repository.job(RULES="rules.toml")
    assert done.codes == {SWEEP: 0, GATE: 0, REPORT: 0}
    assert done.verdict.endswith("\npassed: 0 differences in 4 cells\n")
    assert "Gate: exit code 0" in done.summary
    # the median of both sides and no difference
    assert re.search(
        r"^\| broadwell-ep \| 64 \| (\S+) \| \1 \| \+0\.0% \| exact \| same \|$", done.summary, re.MULTILINE
    )


def test_what_is_worse_fails_with_summary_and_report(repository: Repository) -> None:
    (repository.directory / "rules.toml").write_text(
        '[[rule]]\nmeasures = ["memory_peak_bytes"]\nleast_change = 0.1\n'
    )
    done = repository.job("nic.rx_ring=2048", "inputs nic.rx_ring", RULES="rules.toml")
    assert done.codes == {SWEEP: 0, GATE: 1, REPORT: 0}
    # each descriptor holds a page, whatever the traffic: 1,536 more of 4 KiB
    assert re.search(
        r"^arch = broadwell-ep, pool\.size = 64: memory_peak_bytes .*: worse$", done.verdict, re.MULTILINE
    )
    assert done.verdict.endswith("FAILED: 4 differences in 4 cells\n")
    assert "Gate: exit code 1" in done.summary
    assert done.verdict in done.summary
    assert done.summary.count("| worse |") >= 2
    kept = _uses("actions/upload-artifact")
    assert kept["if"] == EVEN_AFTER_A_FAILURE
    for name in kept["with"]["path"].split():
        assert (repository.directory / name).exists()
    report = (repository.directory / "report.html").read_text()
    assert "</html>" in report
    assert "Gate from" in report


@pytest.mark.parametrize(
    ("fields", "says"),
    [("pool.size=128", "no cell and seed in common"), ("nic.rx_ring=2048", "--across nic.rx_ring")],
)
def test_what_cannot_be_compared_is_not_green(repository: Repository, fields: str, says: str) -> None:
    done = repository.job(fields)
    assert done.codes == {SWEEP: 0, GATE: 4, REPORT: 0}
    assert "Gate: exit code 4" in done.summary
    assert says in done.summary
    assert "| verdict |" not in done.summary


def test_a_sweep_that_does_not_run_is_no_verdict_and_fields_are_no_commands(repository: Repository) -> None:
    done = repository.job('pool.size=64 $(touch${IFS}made) `touch\tmade` ";touch made;" *')
    assert (done.code, done.codes[SWEEP]) == (2, 2)
    assert GATE not in done.codes
    assert done.summary == ""
    assert not (repository.directory / "made").exists()


def test_a_baseline_may_lie_in_an_object_store(repository: Repository, recorded: Path) -> None:
    baseline = repository.directory / "baseline"
    with s3_server() as proxy:
        for path in baseline.rglob("*"):
            if path.is_file():
                put(proxy, f"runs/gate/recorded/{path.relative_to(baseline)}", path.read_bytes())
        where = f"?scheme=http&endpoint_override=127.0.0.1:{proxy.port}&region=us-east-1"
        done = repository.job(
            scripts=(GATE,),
            FARM_STORE=str(recorded),
            BASELINE=f"s3://{BUCKET}/runs/gate/recorded{where}",
            AWS_ACCESS_KEY_ID="of-the-tests",
            AWS_SECRET_ACCESS_KEY="of-the-tests",
        )
    assert done.codes == {GATE: 0}
    assert done.verdict.endswith("\npassed: 0 differences in 4 cells\n")
    assert "recorded (base) against" in done.summary


def test_compiled_code_is_named_by_the_model_and_by_numba(repository: Repository) -> None:
    import numba

    import workers

    output = repository.directory.parent / "output"
    done = repository.shell(SCRIPTS[CODE], GITHUB_OUTPUT=str(output), MACHINE="Linux-X64-3.11.9")
    assert done.returncode == 0, done.stderr
    expected = f"farm-code-Linux-X64-3.11.9-{workers.model_digest()}-{numba.__version__}"
    assert output.read_text() == f"key={expected}\n"
    cached = _uses("actions/cache/restore")["with"]
    assert cached["key"].startswith("${{ steps.code.outputs.key }}-")


# --- a variant ---

VARIANT = """
from pool_impl.variant import pool_variant

@pool_variant
class Half:
    def cache_limit(self, host, pool):
        return {pages}

    def refill_limit(self, host, pool):
        return {pages}
"""


@pytest.fixture
def with_variant(tmp_path: Path) -> Repository:
    directory = tmp_path / "checkout"
    directory.mkdir()
    repository = Repository(directory)
    (directory / "gate.toml").write_text(WITH_VARIANT)
    (directory / "mine.py").write_text(VARIANT.format(pages=64))
    script = "farm run gate.toml --executor serial --store recorded && mv recorded/gate/* baseline"
    made = repository.shell(script)
    assert made.returncode == 0, made.stderr
    return repository


@pytest.mark.long
def test_a_variant_that_becomes_worse_is_found(with_variant: Repository) -> None:
    assert with_variant.job().codes == {SWEEP: 0, GATE: 0, REPORT: 0}
    (with_variant.directory / "mine.py").write_text(VARIANT.format(pages=1))
    (with_variant.directory / "rules.toml").write_text(
        '[[rule]]\nmeasures = ["alloc_empty"]\nleast_change = 0.5\n'
    )
    done = with_variant.job(RULES="rules.toml")
    # a refill brings one page in place of 64
    assert done.codes == {SWEEP: 0, GATE: 1, REPORT: 0}
    assert "alloc_empty" in done.verdict
    assert "Compared across inputs: mine.py:Half" in done.summary
