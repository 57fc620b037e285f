"""Writing a run: parts that appear complete or not at all, and what happens when the store refuses."""

import json
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from farm.errors import StoreError
from farm.store.patience import patiently
from farm.store.place import LocalPlace, Root, place_of, reason, remedy, write_new
from farm.store.results import MOST_WAITING, Results, together
from farm.store.rows import KINDS, Kind, Outcome, table
from farm.store.runs import FORMAT, SWEEP_FILE, Run, runs_in
from farm.sweep import Sweep
from farm.terminal import say

if TYPE_CHECKING:
    import pyarrow

WRITE_ORDER: tuple[Kind, ...] = ("attempts", "failures", "records")
"""attempts first: a record whose attempt is missing would be a result without a source. Records last: where
a part of them is, all parts of that name are, by which :meth:`farm.store.runs.Run.done` knows what is done"""

PATIENCE_SECONDS = 300.0
"""a store that refuses a part is tried again for so long: a full disk or a restarted server should not
end a night's run"""

LEAST_WRITE_SECONDS = 1.0
MOST_WRITE_SECONDS = 60.0
WRITE_SHARE = 0.02
"""outcomes wait for their part no longer than this share of the time that the driver has run, within the
bounds above: a killed driver loses little, and a long run does not end as tens of thousands of parts"""


class Writer:
    """Adds the outcomes of one start of a driver to a run, a part of each kind at a time.

    Arguments:
        patience_seconds: how long a store that refuses is tried again; by default PATIENCE_SECONDS.
        warn: told once when the store refuses, and when it takes parts again.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        run: Run,
        start: str,
        patience_seconds: float | None = None,
        warn: Callable[[str], None] = say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._start = start
        self._patience_seconds = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
        self._warn = warn
        self._clock = clock
        self._started = self._written = clock()
        self._parts = 0
        self._waiting: list[Results] = []
        self._waiting_trials = 0
        self._waiting_rows: list[Mapping[Kind, pyarrow.Table]] = []
        self._unwritten: list[tuple[Kind, str, memoryview]] = []
        """parts that the store has not taken yet, in the order of writing"""

    def add(self, results: Results) -> None:
        """Store these before long.

        Raises:
            StoreError: as :meth:`write`.
        """
        self._waiting.append(results)
        self._waiting_trials += results.trials
        self._flush_if_due()

    def add_rows(self, rows: "Mapping[Kind, pyarrow.Table]") -> None:
        """The same with rows of each kind.

        Raises:
            StoreError: as :meth:`write`.
        """
        self._waiting_rows.append(rows)
        self._waiting_trials += max((table.num_rows for table in rows.values()), default=0)
        self._flush_if_due()

    def _flush_if_due(self) -> None:
        now = self._clock()
        share = WRITE_SHARE * (now - self._started)
        most = min(max(LEAST_WRITE_SECONDS, share), MOST_WRITE_SECONDS)
        if now - self._written > most or self._waiting_trials >= MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Store what was added.

        Raises:
            StoreError: as :meth:`write`.
        """
        import pyarrow

        waiting, self._waiting = self._waiting, []
        others, self._waiting_rows = self._waiting_rows, []
        self._waiting_trials = 0
        found = {}
        for kind, rows in together(waiting).items():
            others.append({kind: rows})
        for kind in KINDS:
            parts = [rows[kind] for rows in others if kind in rows]
            if parts:
                found[kind] = pyarrow.concat_tables(parts)
        self.write_rows(found)
        self._written = self._clock()

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Store these outcomes; when it returns they are safe.

        Raises:
            StoreError: the store refuses for longer than the patience lasts; parts already written stay
                as they are. The next call tries once more.
        """
        self.write_rows({kind: table(kind, outcomes) for kind in KINDS})

    def write_rows(self, found: "Mapping[Kind, pyarrow.Table]") -> None:
        """The same with rows of each kind.

        Raises:
            StoreError: as :meth:`write`.
        """
        if any(rows.num_rows for rows in found.values()):
            self._parts += 1
        for kind in WRITE_ORDER:
            rows = found.get(kind)
            if rows is not None and rows.num_rows:
                self._unwritten.append((kind, f"{self._start}-{self._parts:06d}.parquet", _parquet(rows)))
        while self._unwritten:
            self._put(*self._unwritten[0])
            del self._unwritten[0]

    def _put(self, kind: Kind, name: str, content: memoryview) -> None:
        place = self._run.place / kind
        refused = False

        def told(error: OSError) -> None:
            nonlocal refused
            refused = True
            self._warn(
                f"store refuses {place / name}: {reason(error)}; {_remedy(error)}; "
                f"trying for {self._patience_seconds:.0f} s"
            )

        try:
            patiently(lambda: place.put(name, content), self._patience_seconds, told)
        except OSError as error:
            self._patience_seconds = 0.0
            raise StoreError(
                f"store refuses {place / name}: {reason(error)}; all that was stored before is safe; "
                f"{_remedy(error)}, then go on with: farm run --resume {self._run.name} "
                f"--store {shlex.quote(str(self._run.place.parent.parent))}"
            ) from None
        except KeyboardInterrupt:
            # what follows is the last attempt
            self._patience_seconds = 0.0
            raise
        if refused:
            self._warn("the store takes parts again")


def create_run(
    root: Root,
    sweep: Sweep,
    inputs: Mapping[str, bytes],
    manifest: Mapping[str, object],
    name: str | None = None,
) -> tuple[Run, Writer]:
    """Make a new run that holds no record yet; it appears complete or not at all.

    Arguments:
        root: the store; made if it is missing.
        inputs: content of the files that the trials read, by SHA-256.
        manifest: what the driver says of itself.
        name: of the run, made by :func:`new_name`; a new one by default.

    Raises:
        StoreError: the root cannot be written, or is something else than a store.
    """
    place = place_of(root)
    runs_in(place, _NEW_ROOT)
    start = new_name()
    run = Run(place / sweep.name / (name or start))
    # the sweep last: where no directory can be renamed it says that the run is there
    files = {f"inputs/{sha256}": content for sha256, content in inputs.items()}
    files |= {f"manifests/{start}.json": _manifest_bytes(manifest)}
    files |= {SWEEP_FILE: sweep.to_toml().encode()}
    try:
        if isinstance(run.place, LocalPlace):
            _make_directory(run.place, files)
        else:
            for file, content in files.items():
                run.place.put(file, content)
    except OSError as error:
        raise StoreError(f"store {str(place)!r}: {reason(error)}; {remedy(error, _NEW_ROOT)}") from None
    return run, Writer(run, start)


def reopen_run(run: Run, manifest: Mapping[str, object]) -> Writer:
    """Start another driver on a run.

    Raises:
        StoreError: the run cannot be written.
    """
    start = new_name()
    try:
        (run.place / "manifests").put(f"{start}.json", _manifest_bytes(manifest))
    except OSError as error:
        what = remedy(error, "make it writable")
        raise StoreError(f"run {str(run.place)!r}: {reason(error)}; {what}") from None
    return Writer(run, start)


_NEW_ROOT = "name a writable directory"


def _make_directory(place: LocalPlace, files: Mapping[str, bytes]) -> None:
    final = place.path
    aside = final.with_name(f".{final.name}")
    try:
        for directory in (*KINDS, "manifests", "inputs"):
            (aside / directory).mkdir(parents=True)
        for name, content in files.items():
            write_new(aside / name, content)
        aside.rename(final)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def new_name(tail: str = "") -> str:
    """A name for a run or a start: the time in UTC, and a tail of 4 hex digits, random if none is given."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{tail or secrets.token_hex(2)}"


def _manifest_bytes(manifest: Mapping[str, object]) -> bytes:
    return json.dumps({"format": FORMAT, **manifest}, indent=1, sort_keys=True).encode() + b"\n"


def _parquet(rows: "pyarrow.Table") -> memoryview:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    # statistics only where a reader could use them: with those of two hundred columns the footer of a
    # small part takes longer to read than its rows
    pyarrow.parquet.write_table(rows, sink, compression="zstd", write_statistics=["trial_number"])
    return memoryview(sink.getvalue())


def _remedy(error: OSError) -> str:
    return remedy(error, "make it writable")
