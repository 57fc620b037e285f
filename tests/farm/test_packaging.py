"""The wheel alone on a node: nothing of the checkout is there, and the records are the same."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farm.store import runs as store
from farm.store.runs import Run
from tests.farm.cluster import Cluster, cluster
from workers.arrivals import capture

CHECKOUT = Path(__file__).parents[2]

MINE = """
from pool_impl.variant import pool_variant

@pool_variant
class Tiny:
    \"\"\"A cache of eight pages.\"\"\"

    def cache_limit(self, host, pool):
        return 8
"""

SWEEP = """
name = "packed"
[fixed]
kernel = "6.12"
warmup_ms = 1
duration_ms = 10
pool.variant = "mine.py:Tiny"
[zip]
traffic.kind = ["capture", "constant"]
traffic.capture = ["own.pcap.gz", ""]
[grid]
pool.size = [64, 256]
"""

WHERE = """
import json, sys
from farm.ray.executor import RayExecutor

def where():
    import farm, pool_impl, ray, workers
    return [sys.executable, sys.path, [package.__file__ for package in (farm, pool_impl, workers)]]

with RayExecutor(sys.argv[1]) as executor:
    [found] = executor.on_nodes(where, ()).values()
print(json.dumps(found))
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A Python that has the wheel, and of the packages here all but this one."""
    wheels = tmp_path / "wheels"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(wheels), "."]
    source = tmp_path / "source"
    # a build leaves files beside the sources
    names = ["farm", "workers", "pool_impl", "dashboards"]
    ignored = shutil.ignore_patterns("__pycache__")
    for name in names:
        shutil.copytree(CHECKOUT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source / name)
    subprocess.run(command, cwd=source, check=True)
    [wheel] = wheels.glob("*.whl")
    directory = tmp_path / "elsewhere"
    venv.create(directory, with_pip=True)
    python = directory / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    # a directory that is named in a .pth is searched for packages; the .pth files in it, such as that of the
    # editable install, are not read
    [packages] = directory.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.rmtree(source)
    return python


@pytest.fixture
def lonely(elsewhere: Path, tmp_path: Path) -> Iterator[Cluster]:
    """A head, and a node with the wheel in an empty directory, with a home of its own."""
    empty = tmp_path / "empty"
    empty.mkdir()
    own = {"HOME": str(empty), "XDG_CACHE_HOME": str(empty / "cache"), "PYTHONPATH": ""}
    with cluster(nodes=0) as found:
        found.add_node(python=str(elsewhere), cwd=empty, environment=own)
        yield found


@pytest.mark.long
def test_a_node_with_the_wheel_runs_a_variant_and_a_capture(
    lonely: Cluster,
    elsewhere: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runner: Callable[..., Run],
) -> None:
    user = tmp_path / "user"
    user.mkdir()
    monkeypatch.chdir(user)
    Path("mine.py").write_text(MINE)
    Path("packed.toml").write_text(SWEEP)
    shutil.copy(capture.resolve("tcp_bulk"), "own.pcap.gz")

    asked = subprocess.run(
        [sys.executable, "-c", WHERE, lonely.address],
        env=lonely.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    python, path, packages = json.loads(asked.stdout.splitlines()[-1])
    assert python == str(elsewhere)
    assert not any(Path(entry).is_relative_to(CHECKOUT) for entry in path if "site-packages" not in entry)
    assert all(Path(file).is_relative_to(elsewhere.parents[1]) for file in packages)

    command = ["run", "packed.toml", "--store", "runs", "--address", lonely.address]
    process = lonely.farm(*command, cwd=user)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    [run] = store.runs(user / "runs")
    serial = runner(tmp_path / "serial", SWEEP)
    assert len(run.read_records()) == 4
    assert run.canonical_records() == serial.canonical_records()

    # the node's model is no longer the driver's
    changed = Path(packages[2]).with_name("limits.py")
    changed.write_text(changed.read_text() + "# edited\n")
    [node] = lonely.nodes
    lonely.kill_node(node)
    empty = tmp_path / "empty"
    lonely.add_node(python=str(elsewhere), cwd=empty, environment={"HOME": str(empty), "PYTHONPATH": ""})
    process = lonely.farm(*command, cwd=user)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, "")
    assert err.count("\n") == 1
    assert "farm: node 127.0." in err
    assert ": model " in err
    assert "install the same version of the farm on every node" in err
    assert len(store.runs(user / "runs")) == 1
