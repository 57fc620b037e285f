"""The store: runs as directories of append-only Parquet parts, on a local or shared disk or an object store.

    <root>/<sweep>/<run>/sweep.toml          the resolved sweep
                         inputs/<sha256>     profiles and captures by content
                         manifests/*.json    one per start of a driver
                         records/*.parquet   what trials yielded; the only proof that one is done
                         attempts/*.parquet  how that came about
                         failures/*.parquet  trials that broke

:mod:`farm.store.writer` writes it; nothing is written twice. A part is named by the start that wrote it. Two
starts that run at the same time may both store a trial: readers take one of them.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from farm import sweep as sweeps
from farm.errors import FarmError, StoreError
from farm.store.mirror import local_copies
from farm.store.place import LocalPlace, Place, RemotePlace, Root, place_of, reason, remedy
from farm.store.rows import KINDS, NUMBER, Kind, canonical, schema, text_fields
from farm.sweep import Sweep
from workers.config import field, fields
from workers.errors import TrialError
from workers.fields.groups import Value

if TYPE_CHECKING:
    import duckdb
    import numpy
    import pyarrow
    from numpy.typing import NDArray

FORMAT = 2
"""version of the layout above, in every manifest; 1 had no trial numbers: it can be read, not resumed"""

SWEEP_FILE = "sweep.toml"

_RUN_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{4}")


def default_root() -> Root:
    """``$FARM_STORE``, or ``runs`` in the working directory."""
    return os.environ.get("FARM_STORE", "runs")


class Duplicates(NamedTuple):
    """Trials that were stored more than once."""

    trials: int
    starts: tuple[str, ...]
    """names of the starts that have some of them, oldest first"""


@dataclass(frozen=True)
class Run:
    """One run in a store. Opening it reads nothing; see :meth:`check`."""

    place: Place

    @property
    def name(self) -> str:
        """Time of its start in UTC and a random tail; sorts by time."""
        return self.place.name

    @property
    def sweep_name(self) -> str:
        return self.place.parent.name

    @property
    def path(self) -> Path:
        """Its directory, of a run on this machine.

        Raises:
            StoreError: it is elsewhere.
        """
        if not isinstance(self.place, LocalPlace):
            raise StoreError(f"run {self.place}: is on no disk of this machine; copy it to one")
        return self.place.path

    @property
    def inputs_directory(self) -> Path:
        """A directory of this machine with what the run keeps of its inputs.

        Raises:
            StoreError: they cannot be read.
        """
        inputs = self.place / "inputs"
        try:
            return local_copies(inputs, inputs.files(""))
        except OSError as error:
            raise self._unreadable(str(inputs), error) from None

    @property
    def inputs_root(self) -> str:
        """The same as every machine that reaches the store finds it: a path or a URI."""
        inputs = self.place / "inputs"
        return str(inputs.path.resolve() if isinstance(inputs, LocalPlace) else inputs)

    @cached_property
    def sweep(self) -> Sweep:
        """The resolved sweep.

        Raises:
            StoreError: sweep.toml is missing or garbled.
        """
        path = str(self.place / SWEEP_FILE)
        try:
            return sweeps.parse(self.place.read(SWEEP_FILE).decode(), path)
        except (OSError, UnicodeDecodeError, FarmError, TrialError) as error:
            raise self._unreadable(path, error) from None

    def manifests(self) -> list[dict[str, Any]]:
        """What each driver wrote when it started, oldest first.

        Raises:
            StoreError: there is none, one is garbled, or a newer version wrote one.
        """
        place = self.place / "manifests"
        try:
            names = place.files(".json")
        except OSError as error:
            raise self._unreadable(str(place), error) from None
        if not names:
            raise StoreError(f"{place}: no manifest; {_DAMAGE_REMEDY}")
        return [self._manifest(place, name) for name in names]

    @cached_property
    def format(self) -> int:
        """Version of the layout that the run has.

        Raises:
            StoreError: as :meth:`manifests`.
        """
        return min(int(manifest["format"]) for manifest in self.manifests())

    def part_names(self, kind: Kind) -> list[str]:
        """Names of the Parquet parts of a kind, in order.

        Raises:
            StoreError: they cannot be listed.
        """
        try:
            return (self.place / kind).files(".parquet")
        except OSError as error:
            raise self._unreadable(str(self.place / kind), error) from None

    def parts(self, kind: Kind) -> list[Path]:
        """The same as files of this machine, fetched if the store is elsewhere.

        Raises:
            StoreError: they cannot be read.
        """
        names = self.part_names(kind)
        try:
            directory = local_copies(self.place / kind, names)
        except OSError as error:
            raise self._unreadable(str(self.place / kind), error) from None
        return [directory / name for name in names]

    def query(
        self, kind: Kind, sql: str, parameters: Mapping[str, object] | None = None
    ) -> list[dict[str, Any]]:
        """Ask SQL of the rows of a kind, each trial once: ``SELECT ... FROM records``.

        Without any part there is no row, whatever is asked.

        Raises:
            StoreError: a part is broken; the message names it.
        """
        import duckdb

        once, paths = self.rows(kind, "paths")
        if not paths:
            return []
        try:
            with connected() as connection:
                found = connection.execute(
                    f"WITH {kind} AS ({once}) {sql}", {"paths": paths, **(parameters or {})}
                )
                names = [column[0] for column in found.description or ()]
                return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        except duckdb.Error as error:
            raise self._damage(error) from None

    def rows(self, kind: Kind, parameter: str) -> tuple[str, list[str]]:
        """The SELECT of a kind's rows, each trial once and with the columns that rows have now; and the paths
        that it takes as a parameter of this name. Empty without any part.

        Raises:
            StoreError: a part is broken; the message names it.
        """
        paths = [str(path) for path in self.parts(kind)]
        if not paths:
            return "", []
        newer = self._newer_columns(kind, paths[0])
        return f"SELECT *{newer} FROM ({self._each_once(kind, parameter)})", paths

    def read_records(self) -> list[dict[str, Value]]:
        """All records, sorted by trial id, each once, without what holds in this run alone."""
        chosen = f"* EXCLUDE ({NUMBER})" if self.format >= FORMAT else "*"
        return self.query("records", f"SELECT {chosen} FROM records ORDER BY trial_id")

    def canonical_records(self) -> bytes:
        """The records in the encoding in which two runs are equal when their bytes are."""
        return b"".join(canonical(row) + b"\n" for row in self.read_records())

    def columns(
        self, kind: Kind, names: Sequence[str], parts: Sequence[str] | None = None
    ) -> "pyarrow.Table":
        """Some columns of all rows of a kind, or of some parts, without reading the others; a trial that
        was stored twice is there twice.

        Raises:
            StoreError: a part is broken; the message names it.
        """
        import pyarrow
        import pyarrow.dataset

        chosen = list(self.part_names(kind) if parts is None else parts)
        if not chosen:
            return schema(kind).empty_table().select(list(names))
        paths, system = (self.place / kind).dataset_of(chosen)
        try:
            found = pyarrow.dataset.dataset(paths, filesystem=system, format="parquet")
            return found.to_table(columns=list(names))
        except (pyarrow.ArrowException, OSError) as error:
            raise self._damage(error) from None

    def numbers(self, kind: Kind, parts: Sequence[str] | None = None) -> "NDArray[numpy.int64]":
        """Numbers of the trials in a kind's rows, in no order; of a run that has numbers."""
        import numpy

        return self.columns(kind, [NUMBER], parts)[NUMBER].to_numpy().astype(numpy.int64)

    def done(self, retry_failures: bool = False) -> "pyarrow.Table":
        """Id and number of the trials that need not run again, of a run that has numbers: those with a
        record, or a failure unless those are to be retried. A trial that was stored twice is there twice.

        Raises:
            StoreError: a part is broken; the message names it.
        """
        import pyarrow

        if retry_failures:
            return self.columns("records", ["trial_id", NUMBER])
        # of parts with the same name that of records is written last: where it is, all attempts of that
        # name are done, and theirs have few columns, so that they are read in a moment
        recorded = set(self.part_names("records"))
        parts: dict[Kind, list[str]] = {
            "attempts": [name for name in self.part_names("attempts") if name in recorded],
            "failures": [name for name in self.part_names("failures") if name not in recorded],
        }
        return pyarrow.concat_tables(
            self.columns(kind, ["trial_id", NUMBER], names) for kind, names in parts.items()
        )

    def recorded(self) -> "NDArray[numpy.int64]":
        """Numbers of the trials that have a record, each once, of a run that has numbers."""
        return _recorded(self, tuple(self.part_names("records")))[0]

    def counts(self) -> tuple[int, int]:
        """How many trials have a record, and how many have a failure and no record."""
        import numpy

        if self.format < FORMAT:
            [records] = self.query("records", "SELECT count(*) AS n FROM records") or [{"n": 0}]
            return records["n"], len(self.failures())
        recorded = self.recorded()
        return len(recorded), len(numpy.setdiff1d(self.numbers("failures"), recorded))

    def failures(self) -> list[dict[str, Any]]:
        """Trials that broke and have no record, sorted by trial id."""
        failed = self.query("failures", "SELECT * FROM failures ORDER BY trial_id")
        if not failed:
            return []
        ids = {"ids": [row["trial_id"] for row in failed]}
        select = "SELECT trial_id FROM records WHERE trial_id IN (SELECT unnest($ids))"
        recorded = {row["trial_id"] for row in self.query("records", select, ids)}
        return [row for row in failed if row["trial_id"] not in recorded]

    def duplicates(self) -> Duplicates | None:
        """What was stored more than once, as when several drivers ran at the same time, if anything."""
        import numpy

        parts = self.part_names("records")
        if self.format < FORMAT:
            return None
        trials, times = _recorded(self, tuple(parts))
        repeated = trials[times > 1]
        if not len(repeated):
            return None
        by_start: dict[str, list[str]] = {}
        for name in parts:
            by_start.setdefault(name.rpartition("-")[0], []).append(name)
        starts = [
            start
            for start, own in by_start.items()
            if numpy.isin(repeated, self.numbers("records", own)).any()
        ]
        return Duplicates(len(repeated), tuple(starts))

    def check(self) -> None:
        """Read what every use of the run needs.

        Raises:
            StoreError: something is missing or garbled; the message names the file.
        """
        # first, since a newer version may have a sweep that this one cannot read
        self.manifests()
        _ = self.sweep

    def _each_once(self, kind: Kind, parameter: str) -> str:
        """The SELECT that gives the rows of a kind, a trial that is there several times once."""
        if self.format < FORMAT:
            return (
                "SELECT DISTINCT ON (trial_id) * "
                f"FROM read_parquet(${parameter}, union_by_name = true) ORDER BY trial_id"
            )
        if self._repeats(kind):
            return f"SELECT DISTINCT ON ({NUMBER}) * FROM read_parquet(${parameter}) ORDER BY {NUMBER}"
        return f"SELECT * FROM read_parquet(${parameter})"

    def _newer_columns(self, kind: Kind, path: str) -> str:
        """Columns that rows have now and an older version did not write: fields with their default, as its
        sweep reads now, and measures without a value."""
        import pyarrow
        import pyarrow.parquet

        try:
            there = set(pyarrow.parquet.read_schema(path).names)
        except (pyarrow.ArrowException, OSError) as error:
            raise self._damage(error) from None
        added = ""
        for column in schema(kind):
            if column.name not in there and column.name != NUMBER:
                added += f', {_default_of(column.name)} AS "{column.name}"'
        return added

    def _repeats(self, kind: Kind) -> bool:
        """Whether some trial is in the rows of a kind twice."""
        import numpy

        if kind == "records":
            return bool((_recorded(self, tuple(self.part_names(kind)))[1] > 1).any())
        numbers = self.numbers(kind)
        return len(numpy.unique(numbers)) < len(numbers)

    def _unreadable(self, what: str, error: Exception) -> StoreError:
        """What a failed read means: a file that is missing or garbled, or a store that refuses."""
        missing = isinstance(error, FileNotFoundError) or not isinstance(error, OSError)
        if missing or isinstance(self.place, LocalPlace):
            return StoreError(f"{what}: damaged ({reason(error)}); {_DAMAGE_REMEDY}")
        return StoreError(f"{what}: cannot be read ({reason(error)}); {remedy(error, _DAMAGE_REMEDY)}")

    def _damage(self, error: Exception) -> StoreError:
        """The error that names the broken part behind a failed read."""
        import pyarrow
        import pyarrow.parquet

        for kind in KINDS:
            for path in self.parts(kind):
                try:
                    pyarrow.parquet.read_table(path)
                except (pyarrow.ArrowException, OSError) as broken:
                    part = self.place / kind / path.name
                    if not isinstance(part, LocalPlace):
                        # what is restored under the same name has to be fetched again
                        path.unlink(missing_ok=True)
                    return StoreError(f"{part}: not a readable part ({reason(broken)}); {_PART_REMEDY}")
        return StoreError(f"{self.place}: cannot be read ({reason(error)}); {remedy(error, _DAMAGE_REMEDY)}")

    def _manifest(self, place: Place, name: str) -> dict[str, Any]:
        path = place / name
        try:
            manifest = dict(json.loads(place.read(name)))
            version = int(manifest["format"])
        except OSError as error:
            raise self._unreadable(str(path), error) from None
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: damaged ({reason(error)}); {_DAMAGE_REMEDY}") from None
        if not 1 <= version <= FORMAT:
            raise StoreError(
                f"{path}: format {version} is of a newer version, this one reads up to {FORMAT}; "
                "install the version that wrote it"
            )
        return manifest


@contextmanager
def connected() -> "Iterator[duckdb.DuckDBPyConnection]":
    """To a database in memory. Where Python was started without a file, a query of seconds would print a bar
    among the results."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        yield connection


def runs(root: Root) -> list[Run]:
    """All runs of a store, by sweep and then oldest first; none if the store does not exist.

    Raises:
        StoreError: the root cannot be listed, or is something else than a store.
    """
    return runs_in(place_of(root))


def runs_in(root: Place, otherwise: str = "name a directory of runs") -> list[Run]:
    """As :func:`runs`; ``otherwise`` is what to do where the root does not say what is wrong."""
    found: list[Run] = []
    foreign = ""
    try:
        for sweep, is_directory in root.entries().items():
            below = (root / sweep).entries() if is_directory else {}
            named = [name for name, is_run in below.items() if is_run and _RUN_NAME.fullmatch(name)]
            found += [Run(root / sweep / name) for name in named]
            if not is_directory or len(named) < len(below):
                foreign = foreign or sweep
        if isinstance(root, RemotePlace):
            # no directory is renamed there: a run exists when its sweep does, which is written last
            there = set(root.existing([f"{run.sweep_name}/{run.name}/{SWEEP_FILE}" for run in found]))
            found = [run for run in found if f"{run.sweep_name}/{run.name}/{SWEEP_FILE}" in there]
    except OSError as error:
        raise StoreError(f"store {str(root)!r}: {reason(error)}; {remedy(error, otherwise)}") from None
    if foreign and not found:
        raise StoreError(
            f"store {str(root)!r}: is no store, it holds {foreign!r} and no run; "
            "name a store, or an empty or new directory"
        )
    return found


def find(root: Root, name: str) -> Run:
    """A run by its directory or URI, its name or the unique start of its name, a sweep's name for that
    sweep's latest run, or ``last`` for the latest of all.

    Raises:
        StoreError: no such run, or more than one.
    """
    if "://" in name or (Path(name) / SWEEP_FILE).is_file():
        return _checked(run_at(name))
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
    raise StoreError(f"run {name!r}: not in store {str(place_of(root))!r}; {remedy}")


def run_at(place: str) -> Run:
    """The run at a directory or URI, as ``str(run.place)`` gives it; nothing is read."""
    if "://" not in place:
        return Run(LocalPlace(Path(place)))
    parts = urlsplit(place)
    above, _, name = parts.path.rstrip("/").rpartition("/")
    above, _, sweep = above.rpartition("/")
    return Run(place_of(urlunsplit(parts._replace(path=above))) / sweep / name)


_DAMAGE_REMEDY = "restore it from a copy or remove the run"
_PART_REMEDY = "restore it from a copy, or remove that file and run farm run --resume"


def _checked(run: Run) -> Run:
    run.check()
    return run


@lru_cache(maxsize=64)
def _recorded(run: Run, parts: tuple[str, ...]) -> "tuple[NDArray[numpy.int64], NDArray[numpy.int64]]":
    """Numbers of the trials in these parts of records, and how often each is there; from the attempts of
    the same names, see :meth:`Run.done`, less those that failed."""
    import numpy

    names = set(parts)

    def counted(kind: Kind) -> "tuple[NDArray[numpy.int64], NDArray[numpy.int64]]":
        numbers = run.numbers(kind, [name for name in run.part_names(kind) if name in names])
        return numpy.unique(numbers, return_counts=True)

    trials, times = counted("attempts")
    failed, failures = counted("failures")
    times[numpy.searchsorted(trials, failed)] -= failures
    return trials[times > 0], times[times > 0]


def _default_of(column: str) -> str:
    """A column's value in a row that has not got it, as SQL."""
    if column not in {field.name for field in fields()}:
        return "CAST(NULL AS DOUBLE)"
    value = field(column).default
    if column in text_fields() or isinstance(value, str):
        return "'" + str(value).replace("'", "''") + "'"
    return str(value).lower()
