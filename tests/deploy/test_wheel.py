"""The wheel that nodes install has all that the packages have."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = sorted({name.partition(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]})

# for those who read the repository, and for those who draw its pictures
LEFT_OUT = ("README.md", "predicted.svg")
LEFT_OUT_DIRECTORIES = ("__pycache__", "pictures")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy, so that nothing that an earlier build left behind gets into it."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns(*LEFT_OUT_DIRECTORIES))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--disable-pip-version-check", "--wheel-dir", "dist", "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    [path] = (source / "dist").iterdir()
    return path


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and not set(path.parts) & set(LEFT_OUT_DIRECTORIES)
    }
    missing = {name for name in there - packed if Path(name).name not in LEFT_OUT}
    assert missing == set()
    assert packed <= there


def test_the_farm_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        "import farm, workers, sys\n"
        "from farm.cli import main\n"
        f"assert all(m.__file__.startswith({str(tmp_path)!r}) for m in (farm, workers))\n"
        "main(sys.argv[1:])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    for arguments, says in (
        (("run", "--list"), "quickstart"),
        (("arch", "show", "armada-3720"), "Cortex-A53"),
    ):
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert says in done.stdout
