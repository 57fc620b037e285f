"""The store: runs as directories of append-only Parquet parts.

    <root>/<sweep>/<run>/sweep.toml          the resolved sweep
                         inputs/<sha256>     profiles and captures by content
                         manifests/*.json    one per start of a driver
                         records/*.parquet   what trials yielded; the only proof that one is done
                         attempts/*.parquet  how that came about
                         failures/*.parquet  trials that broke

Everything is written under a temporary name that starts with a dot, then renamed; nothing is
written twice. Readers ignore dotted names and take each trial id once.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm import sweep as sweeps
from farm.errors import FarmError, StoreError
from farm.rows import KINDS, Kind, Outcome, canonical, table
from farm.sweep import Sweep
from workers.errors import TrialError
from workers.fields.groups import Value

if TYPE_CHECKING:
    import pyarrow

FORMAT = 1
"""version of the layout above; written into every manifest"""


DONE_KINDS: tuple[Kind, ...] = ("records", "failures")
"""a row here says that its trial need not run again"""

WRITE_ORDER: tuple[Kind, ...] = ("attempts", "failures", "records")
"""attempts first: a record whose attempt is missing would be a result without a source"""


def default_root() -> Path:
    """``$FARM_STORE``, or ``runs`` in the working directory."""
    return Path(os.environ.get("FARM_STORE", "runs"))


@dataclass(frozen=True)
class Run:
    """One run in a store. Opening it reads nothing; see :meth:`check`."""

    path: Path

    @property
    def name(self) -> str:
        """Time of its start in UTC and a random tail; sorts by time."""
        return self.path.name

    @property
    def sweep_name(self) -> str:
        return self.path.parent.name

    @property
    def inputs_directory(self) -> Path:
        return self.path / "inputs"

    @cached_property
    def sweep(self) -> Sweep:
        """The resolved sweep.

        Raises:
            StoreError: sweep.toml is missing or garbled.
        """
        path = self.path / "sweep.toml"
        try:
            return sweeps.parse(path.read_text(), str(path))
        except (OSError, UnicodeDecodeError, FarmError, TrialError) as error:
            raise StoreError(f"{path}: damaged ({_one_line(error)}); {_DAMAGE_REMEDY}") from None

    def manifests(self) -> list[dict[str, Any]]:
        """What each driver wrote when it started, oldest first.

        Raises:
            StoreError: there is none, or one is garbled.
        """
        paths = _visible(self.path / "manifests", ".json")
        if not paths:
            raise StoreError(f"{self.path / 'manifests'}: no manifest; {_DAMAGE_REMEDY}")
        return [self._manifest(path) for path in paths]

    def parts(self, kind: Kind) -> list[Path]:
        """The Parquet parts of a kind, in order of their names."""
        return _visible(self.path / kind, ".parquet")

    def query(
        self, kind: Kind, sql: str, parameters: Mapping[str, object] | None = None
    ) -> list[dict[str, Any]]:
        """Ask SQL of the rows of a kind, each trial id once: ``SELECT ... FROM records``.

        Without any part there is no row, whatever is asked.

        Raises:
            StoreError: a part is broken; the message names it.
        """
        import duckdb

        paths = [str(path) for path in self.parts(kind)]
        if not paths:
            return []
        once = (
            f"WITH {kind} AS (SELECT DISTINCT ON (trial_id) * "
            "FROM read_parquet($paths, union_by_name = true) ORDER BY trial_id)"
        )
        try:
            with duckdb.connect() as connection:
                found = connection.execute(f"{once} {sql}", {"paths": paths, **(parameters or {})})
                names = [column[0] for column in found.description or ()]
                return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        except duckdb.Error as error:
            raise self._damage(error) from None

    def read_records(self) -> list[dict[str, Value]]:
        """All records, sorted by trial id, each once."""
        return self.query("records", "SELECT * FROM records ORDER BY trial_id")

    def canonical_records(self) -> bytes:
        """The records in the encoding in which two runs are equal when their bytes are."""
        return b"".join(canonical(row) + b"\n" for row in self.read_records())

    def done(self, retry_failures: bool = False) -> set[str]:
        """Ids of the trials that need not run again: those with a record, or a failure unless those are to be
        retried."""
        kinds: tuple[Kind, ...] = ("records",) if retry_failures else DONE_KINDS
        return {row["trial_id"] for kind in kinds for row in self.query(kind, f"SELECT trial_id FROM {kind}")}

    def failures(self) -> list[dict[str, Any]]:
        """Trials that broke and have no record, sorted by trial id."""
        recorded = {row["trial_id"] for row in self.query("records", "SELECT trial_id FROM records")}
        failed = self.query("failures", "SELECT * FROM failures ORDER BY trial_id")
        return [row for row in failed if row["trial_id"] not in recorded]

    def check(self) -> None:
        """Read what every use of the run needs.

        Raises:
            StoreError: something is missing or garbled; the message names the file.
        """
        _ = self.sweep
        self.manifests()

    def _damage(self, error: Exception) -> StoreError:
        """The error that names the broken part behind a failed read."""
        import pyarrow
        import pyarrow.parquet

        for kind in KINDS:
            for path in self.parts(kind):
                try:
                    pyarrow.parquet.read_table(path)
                except (pyarrow.ArrowException, OSError) as broken:
                    return StoreError(f"{path}: not a readable part ({_one_line(broken)}); {_PART_REMEDY}")
        return StoreError(f"{self.path}: cannot be read ({_one_line(error)}); {_DAMAGE_REMEDY}")

    def _manifest(self, path: Path) -> dict[str, Any]:
        try:
            manifest = json.loads(path.read_text())
            known = manifest["format"] == FORMAT
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: damaged ({_one_line(error)}); {_DAMAGE_REMEDY}") from None
        if not known:
            raise StoreError(f"{path}: format {manifest['format']!r}: read it with the version that wrote it")
        return dict(manifest)


class Writer:
    """Adds the outcomes of one driver to a run, a part of each kind at a time."""

    def __init__(self, run: Run, driver: str) -> None:
        self._run = run
        self._driver = driver
        self._parts = 0

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Store these outcomes; when it returns they are on disk.

        Raises:
            StoreError: the disk refuses; parts already written stay as they are.
        """
        self.write_rows({kind: table(kind, outcomes) for kind in WRITE_ORDER})

    def write_rows(self, found: "Mapping[Kind, pyarrow.Table]") -> None:
        """The same with the rows of each kind, as :func:`farm.results.together` makes them."""
        import pyarrow.parquet

        self._parts += 1
        for kind in WRITE_ORDER:
            rows = found.get(kind)
            if rows is not None and rows.num_rows:
                sink = pyarrow.BufferOutputStream()
                pyarrow.parquet.write_table(rows, sink)
                name = f"{self._driver}-{self._parts:06d}.parquet"
                _write_new(self._run.path / kind / name, memoryview(sink.getvalue()))


def create_run(
    root: Path, sweep: Sweep, inputs: Mapping[str, bytes], manifest: Mapping[str, object]
) -> tuple[Run, Writer]:
    """Make a new run that holds no record yet; it appears complete or not at all.

    Arguments:
        root: the store; made if it is missing.
        inputs: content of the files that the trials read, by SHA-256.
        manifest: what the driver says of itself.

    Raises:
        StoreError: the root cannot be written.
    """
    driver = _new_name()
    final = root / sweep.name / driver
    aside = final.with_name(f".{driver}")
    try:
        for kind in KINDS:
            (aside / kind).mkdir(parents=True)
        (aside / "manifests").mkdir()
        (aside / "inputs").mkdir()
        for sha256, content in inputs.items():
            _write_new(aside / "inputs" / sha256, content)
        _write_new(aside / "sweep.toml", sweep.to_toml().encode())
        _write_new(aside / "manifests" / f"{driver}.json", _manifest_bytes(manifest))
        aside.rename(final)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StoreError(f"store {str(root)!r}: {_os_reason(error)}; name a writable directory") from None
    run = Run(final)
    return run, Writer(run, driver)


def reopen_run(run: Run, manifest: Mapping[str, object]) -> Writer:
    """Start another driver on a run.

    Raises:
        StoreError: the run cannot be written.
    """
    driver = _new_name()
    try:
        _write_new(run.path / "manifests" / f"{driver}.json", _manifest_bytes(manifest))
    except OSError as error:
        raise StoreError(f"run {str(run.path)!r}: {_os_reason(error)}; make it writable") from None
    return Writer(run, driver)


def runs(root: Path) -> list[Run]:
    """All runs of a store, by sweep and then oldest first; none if the store does not exist.

    Raises:
        StoreError: the root is not a directory or cannot be listed.
    """
    if not root.exists():
        return []
    try:
        return [Run(path) for sweep in _directories(root) for path in _directories(sweep)]
    except OSError as error:
        raise StoreError(f"store {str(root)!r}: {_os_reason(error)}; name a directory of runs") from None


def find(root: Path, name: str) -> Run:
    """A run by its directory, its name or the unique start of its name, a sweep's name for that
    sweep's latest run, or ``last`` for the latest of all.

    Raises:
        StoreError: no such run, or more than one.
    """
    if (Path(name) / "sweep.toml").is_file():
        return _checked(Run(Path(name)))
    known = sorted(runs(root), key=lambda run: run.name)
    found = (
        [run for run in known if name in (run.name, f"{run.sweep_name}/{run.name}")]
        or [run for run in known if name in ("last", run.sweep_name)][-1:]
        or [run for run in known if run.name.startswith(name)]
    )
    if len(found) == 1:
        return _checked(found[0])
    if found:
        listed = ", ".join(run.name for run in found[:4])
        raise StoreError(f"run {name!r}: matches {len(found)} runs ({listed}); write more of the name")
    remedy = "farm list names them" if known else "the store holds no run"
    raise StoreError(f"run {name!r}: not in store {str(root)!r}; {remedy}")


_DAMAGE_REMEDY = "restore it from a copy or remove the run"
_PART_REMEDY = "restore it from a copy, or remove that file and run farm run --resume"


def _checked(run: Run) -> Run:
    run.check()
    return run


def _new_name() -> str:
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{secrets.token_hex(2)}"


def _directories(parent: Path) -> Iterator[Path]:
    return (path for path in sorted(parent.iterdir()) if path.is_dir() and not path.name.startswith("."))


def _visible(directory: Path, suffix: str) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(p for p in directory.iterdir() if p.suffix == suffix and not p.name.startswith("."))


def _manifest_bytes(manifest: Mapping[str, object]) -> bytes:
    return json.dumps({"format": FORMAT, **manifest}, indent=1, sort_keys=True).encode() + b"\n"


def _write_new(path: Path, content: bytes | memoryview) -> None:
    """Write a file that appears complete or not at all, and is on disk when this returns."""
    aside = path.with_name(f".{path.name}")
    with aside.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _os_reason(error: OSError) -> str:
    return f"{error.strerror or error} ({error.filename})" if error.filename else str(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
