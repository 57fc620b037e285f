"""Stored results and the farm's own health as Prometheus metrics.

The collector reads the store whenever it is scraped: what was stored once is exposed again at every
scrape, so that plain queries find it for as long as the exporter runs. What a run yielded is kept
between scrapes and computed anew only when the run has new files.
"""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from wsgiref.types import WSGIApplication

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dashboards import health
from dashboards.answers import ANSWER_METRICS
from dashboards.catalogue import Intervals, series_per_cell
from farm import query
from farm.errors import FarmError, StoreError
from farm.metrics import results
from farm.metrics.answers import KeptAnswers
from farm.metrics.health import HealthRows, Rows, families, rows_of_run
from farm.metrics.results import Samples
from farm.metrics.server import MetricsServer, address_of, wait_for_a_signal, warn
from farm.plan import Plan
from farm.store import runs as store
from farm.store.place import File, LocalPlace, Root, place_of, reason, remedy
from farm.store.runs import Run
from workers.errors import TrialError

SERIES_BUDGET = 50_000
"""result series at most: scraping them stays well below Prometheus' default timeout of 10 s, and a
sweep that needs more has an axis too many for anyone to look at"""

Warn = Callable[[str], None]

_Files = tuple[File, ...]
"""names and sizes of a run's files: equal listings mean equal content, since parts never change"""


@dataclass(frozen=True, eq=False)
class _Exposed:
    """What a run looks like from outside; good until the run has new files."""

    run: Run
    files: _Files
    rows: HealthRows = field(default_factory=dict)
    """what the run adds to the farm's own metrics"""
    results: Samples = field(default_factory=dict)
    """empty if they alone exceed the series budget"""
    cells: int = 0
    """of the run's whole plan, which counts against the budget"""
    problem: str = ""
    """why nothing of the run can be exposed, or empty"""

    def series(self, intervals: Intervals) -> int:
        return self.cells * series_per_cell(intervals)


@dataclass(frozen=True)
class _Budget:
    """Who gets what of the series budget."""

    granted: Mapping[_Exposed, Intervals]
    refused: Sequence[_Exposed]


class StoreCollector(Collector):
    """The newest run of each sweep of a store as metric families.

    Arguments:
        root: the store; it may not exist yet.
        chosen: runs to expose in place of the newest ones of their sweeps.
        only_chosen: leave all other runs alone.
        series_budget: result series at most. Sweeps that ran last come first; one that does not fit with the
            intervals of all measures gets those of some, and if even that is too much it is left out as a
            whole, which a health metric says.
        warn: told once of each run that is left out.
    """

    def __init__(
        self,
        root: Root,
        *,
        chosen: Sequence[Run] = (),
        only_chosen: bool = False,
        series_budget: int = SERIES_BUDGET,
        warn: Warn = warn,
    ) -> None:
        self._root = root
        self._chosen = {run.sweep_name: run for run in chosen}
        self._only_chosen = only_chosen
        self._series_budget = series_budget
        self._warn = warn
        self._answers = KeptAnswers(root, lambda message: self._warn_once([message]))
        self._kept: dict[Run, _Exposed] = {}
        self._shown: dict[_Exposed, Intervals] = {}
        self._families: list[Metric] = []
        self._warned: set[str] = set()
        # each scrape comes on a thread of its own
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing: to register the collector must not read the store."""
        return ()

    def check(self) -> None:
        """Refuse what the first scrape would have to leave out for want of budget.

        Raises:
            FarmError: the results exceed the series budget, or the store cannot be read.
        """
        with self._lock:
            exposed, _ = self._look()
            for one in self._share_out(exposed).refused:
                raise FarmError(self._refusal(one))

    def collect(self) -> Iterator[Metric]:
        """All metrics as of now.

        Raises:
            StoreError: the store as a whole cannot be read.
        """
        started = time.perf_counter()
        with self._lock:
            exposed, stored = self._look()
            budget = self._share_out(exposed)
            self._warn_once([self._refusal(one) for one in budget.refused])
            found = self._result_families(budget.granted)
            rows = _health(stored, exposed, budget) | _room(self._root)
            rows |= self._answers.rows()
        rows[health.SERIES_BUDGET] = [((), self._series_budget)]
        rows[health.COLLECT_SECONDS] = [((), time.perf_counter() - started)]
        yield from found
        yield from families((*health.STORE_METRICS, *ANSWER_METRICS), rows)

    def _look(self) -> tuple[list[_Exposed], dict[Run, _Files]]:
        """What to expose, one run of each sweep by the sweep's name, and the files of every run."""
        runs = self._chosen.values() if self._only_chosen else store.runs(self._root)
        stored = {run: _files(run) for run in sorted(runs, key=lambda run: run.name)}
        newest = {run.sweep_name: run for run in stored}
        shown = [run for _, run in sorted((newest | self._chosen).items())]
        exposed = [self._read(run, stored[run] if run in stored else _files(run)) for run in shown]
        self._kept = {one.run: one for one in exposed}
        self._warn_once([one.problem for one in exposed if one.problem])
        return exposed, stored

    def _read(self, run: Run, files: _Files) -> _Exposed:
        """What a run exposes, from memory unless its files changed."""
        kept = self._kept.get(run)
        if kept is not None and kept.files == files:
            return kept
        try:
            return _read_run(run, files, self._series_budget)
        except (FarmError, TrialError) as error:
            return _Exposed(run, files, problem=str(error))

    def _share_out(self, exposed: Sequence[_Exposed]) -> _Budget:
        """Which sweeps fit into the series budget, and with which intervals, when the newest come first."""
        left = self._series_budget
        levels: tuple[Intervals, ...] = ("all", "some")
        granted: dict[_Exposed, Intervals] = {}
        refused = []
        for one in sorted(exposed, key=lambda one: one.run.name, reverse=True):
            level = next((level for level in levels if one.series(level) <= left), None)
            if level is None:
                refused.append(one)
            else:
                granted[one] = level
                left -= one.series(level)
        return _Budget({one: granted[one] for one in exposed if one in granted}, refused)

    def _result_families(self, granted: Mapping[_Exposed, Intervals]) -> list[Metric]:
        """The results, the same objects while there is nothing new, so that they are encoded once."""
        if granted != self._shown or not self._families:
            self._shown = dict(granted)
            shown = [(one.results, intervals) for one, intervals in granted.items()]
            self._families = list(results.families(shown))
        return self._families

    def _refusal(self, exposed: _Exposed) -> str:
        return (
            f"sweep {exposed.run.sweep_name!r}: its {exposed.series('some')} series do not fit into the "
            f"budget of {self._series_budget} for all sweeps; raise --series-budget or serve a smaller run"
        )

    def _warn_once(self, messages: Iterable[str]) -> None:
        for message in messages:
            if message not in self._warned:
                self._warned.add(message)
                self._warn(message)


def _files(run: Run) -> _Files:
    try:
        return tuple(run.place.walk())
    except OSError as error:
        raise StoreError(
            f"run {str(run.place)!r}: {reason(error)}; {remedy(error, 'make it readable')}"
        ) from None


def _read_run(run: Run, files: _Files, series_budget: int) -> _Exposed:
    """Read a run.

    Raises:
        FarmError: it is damaged.
        TrialError: its sweep holds values that no trial can have.
    """
    cells = Plan(run.sweep).cells
    rows = rows_of_run(run)
    # the cells of a sweep far above the budget might not even fit into memory
    if cells * series_per_cell("some") > series_budget:
        return _Exposed(run, files, rows, cells=cells)
    found = query.cells(run)
    return _Exposed(
        run, files, rows, results.samples(run.sweep_name, found, query.histograms(run, found)), cells
    )


def _health(stored: Mapping[Run, _Files], exposed: Sequence[_Exposed], budget: _Budget) -> Rows:
    runs = Counter(run.sweep_name for run in stored)
    rows: Rows = {metric: [] for metric in health.STORE_METRICS}
    for one in exposed:
        for metric, found in one.rows.items():
            rows[metric] += found
    rows[health.RUNS] = [((sweep,), count) for sweep, count in sorted(runs.items())]
    rows[health.UNREADABLE_RUNS] = [((one.run.sweep_name,), bool(one.problem)) for one in exposed]
    rows[health.REFUSED_SERIES] = [
        ((one.run.sweep_name,), one.series("some") if one in budget.refused else 0) for one in exposed
    ]
    rows[health.ALL_INTERVALS] = [
        ((one.run.sweep_name,), intervals == "all") for one, intervals in budget.granted.items()
    ]
    rows[health.STORE_BYTES] = [((), sum(size for files in stored.values() for _, size in files))]
    return rows


def _room(root: Root) -> Rows:
    """Room on the file system of the store; none while the store does not exist, or is on no disk."""
    place = place_of(root)
    if not isinstance(place, LocalPlace):
        return {}
    try:
        usage = shutil.disk_usage(place.path)
    except OSError:
        return {}
    return {
        health.STORE_FREE_BYTES: [((), usage.free)],
        health.STORE_CAPACITY_BYTES: [((), usage.total)],
    }


def serve(
    root: Root,
    port: int,
    address: str = "127.0.0.1",
    *,
    chosen: Sequence[Run] = (),
    series_budget: int = SERIES_BUDGET,
    other: WSGIApplication | None = None,
) -> None:
    """Serve the metrics of a store until the process gets SIGINT or SIGTERM. Main thread only.

    Arguments:
        root: the store; it may still be empty.
        port: TCP port; 0 takes a free one. Standard error says which.
        address: where to listen.
        chosen: runs to expose in place of the newest ones of their sweeps.
        series_budget: result series at most.
        other: answers what is asked besides the metrics.

    Raises:
        FarmError: the port is in use, the store cannot be read, or it exceeds the series budget.
    """
    collector = StoreCollector(root, chosen=chosen, series_budget=series_budget)
    collector.check()
    with MetricsServer(collector, port, address, other=other) as server:
        page = f", report at {address_of(address, server.port, '/')}" if other is not None else ""
        warn(f"serving {root} at {address_of(address, server.port)}{page}; stop with Ctrl-C")
        wait_for_a_signal()
