"""Write profiles of real machines: of this one, or of every kind of machine in a Ray cluster."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from farm.errors import OutputError
from farm.ray.kinds import kinds, measure

if TYPE_CHECKING:
    from farm.ray.executor import RayExecutor
    from workers.host.calibrate import Calibration
    from workers.host.facts import Facts


class Written(NamedTuple):
    """A profile that was measured and written."""

    path: Path
    calibration: "Calibration"
    parent: str
    """of which it has what could not be measured"""
    machines: int
    """of this kind"""


def here(output: Path | None, parent: str | None, force: bool, report: Callable[[str], None]) -> Written:
    """Measure this machine.

    Args:
        output: the file to write; default: a name made of the CPU's, in the working directory.
        parent: a bundled profile or a .toml file; default: the nearest bundled one.
        force: whether a file that exists may be replaced.
        report: hears what is measured next.

    Raises:
        OutputError: the file exists or cannot be written; nothing is measured then.
        ProfileError: there is no such parent.
    """
    from workers.host.calibrate import calibrate
    from workers.host.facts import facts
    from workers.profiles import arch

    machine = facts()
    path = output or Path(f"{machine.slug}.toml")
    name = _parent(machine, parent)
    profile = arch.load(name)
    check_output(path, force)
    calibration = calibrate(profile, report)
    _write(path, calibration, name)
    return Written(path, calibration, name, 1)


def on_nodes(
    output: Path | None,
    parent: str | None,
    force: bool,
    executor: "RayExecutor",
    report: Callable[[str], None],
) -> list[Written]:
    """Measure one node of each kind, by its CPU model, all of its CPUs taken meanwhile.

    Args:
        output: the directory of the files, which are named by the CPUs; default: the working directory.

    Raises:
        OutputError: a file exists or cannot be written; nothing is measured then.
        ExecutorError: a node was lost.
        ProfileError: there is no such parent.
    """
    from workers.profiles import arch

    directory = output or Path()
    if parent is not None:
        arch.load(parent)
    if not directory.is_dir():
        raise OutputError(f"-o {str(directory)!r}: no directory; with --executor ray name one that exists")
    found = kinds(executor)
    parents = [_parent(kind.facts, parent) for kind in found]
    for kind in found:
        check_output(directory / f"{kind.facts.slug}.toml", force)
    written = []
    for kind, name in zip(found, parents, strict=True):
        report(f"{kind.facts.model}, {kind.machines} of {sum(one.machines for one in found)} machines")
        # a parent of the user's lies on this machine only
        calibration = measure(executor, kind, measure_with, arch.load(name).canonical)
        path = directory / f"{kind.facts.slug}.toml"
        _write(path, calibration, name)
        written.append(Written(path, calibration, name, kind.machines))
    return written


def measure_with(parent_text: str) -> "Calibration":
    """Measure this machine with a parent by its content."""
    from workers.host.calibrate import calibrate
    from workers.profiles import arch

    with tempfile.TemporaryDirectory(prefix="farm-calibrate-") as directory:
        path = Path(directory) / "parent.toml"
        path.write_text(parent_text, encoding="utf-8")
        return calibrate(arch.load(str(path)))


def _parent(machine: "Facts", parent: str | None) -> str:
    from workers.host.parents import nearest_parent

    return nearest_parent(machine) if parent is None else parent


def check_output(path: Path, force: bool) -> None:
    """Refuse a path before anything is measured.

    Raises:
        OutputError: it exists and is not to be replaced, or cannot be written.
    """
    where = f"-o {str(path)!r}"
    if path.suffix != ".toml":
        raise OutputError(f"{where}: a profile's name ends in .toml; name such a file")
    if path.is_dir():
        raise OutputError(f"{where}: a directory; name a file")
    if path.exists() and not force:
        raise OutputError(f"{where}: exists; name another file, or replace it with --force")
    if not path.parent.is_dir():
        raise OutputError(f"{where}: {str(path.parent)!r} is no directory; create it or name another")
    aside = _aside(path)
    try:
        aside.touch()
    except OSError as error:
        raise OutputError(f"{where}: cannot be written ({error.strerror}); name another file") from None
    finally:
        aside.unlink(missing_ok=True)


def _write(path: Path, calibration: "Calibration", parent: str) -> None:
    from workers.host.calibrate import document

    if parent.endswith(".toml") or os.sep in parent:
        parent = os.path.relpath(Path(parent).resolve(), path.parent.resolve())
    write_profile(path, document(calibration, parent))


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}.toml")


def write_profile(path: Path, text: str) -> None:
    """Write a profile aside, check that it can be read, and only then give it its name.

    Raises:
        OutputError: it cannot be written.
        ProfileError: it is no valid profile.
    """
    from workers.profiles import arch

    # a parent is looked for beside the file
    aside = _aside(path)
    try:
        aside.write_text(text, encoding="utf-8")
        arch.load(str(aside))
        aside.replace(path)
    except OSError as error:
        raise OutputError(f"-o {str(path)!r}: {error.strerror}; name another file") from None
    finally:
        aside.unlink(missing_ok=True)


HEADINGS = ("measured", "value", "least", "most")


def table(written: Written) -> list[tuple[str, ...]]:
    """Rows for the terminal: parameters, then figures that no parameter takes."""
    rows = {**written.calibration.parameters, **written.calibration.beside}
    return [
        (name, f"{row.value:g}", *((f"{row.low:g}", f"{row.high:g}") if row.low < row.high else ("", "")))
        for name, row in rows.items()
        if row.certainty == "measured"
    ]


def words(written: Written) -> str:
    """What was written, in a line or two."""
    machines = f", as {written.machines} machines have" if written.machines > 1 else ""
    return (
        f"{written.calibration.facts.model}{machines}; the rest is of {written.parent}.\n"
        f"Written to {written.path}; farm arch show {written.path} names sources and stand-ins."
    )


def as_json(written: Written) -> dict[str, object]:
    """The same for a program."""
    calibration = written.calibration
    return {
        "path": str(written.path),
        "machine": calibration.facts.model,
        "machines": written.machines,
        "parent": written.parent,
        "parameters": {name: row._asdict() for name, row in calibration.parameters.items()},
        "beside": {name: row._asdict() for name, row in calibration.beside.items()},
    }
