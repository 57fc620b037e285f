"""Stored results and the farm's own health as Prometheus metrics.

The collector reads the store whenever it is scraped: what was stored once is exposed again at every
scrape, so that plain queries find it for as long as the exporter runs. What a run yielded is kept
between scrapes and computed anew only when the run has new files.
"""

import gzip
import json
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import ThreadingWSGIServer, choose_encoder, gzip_accepted
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

import dashboards
from dashboards import HealthMetric
from farm import query, store
from farm.errors import FarmError, StoreError
from farm.place import File, Root, reason, remedy
from farm.plan import Plan
from farm.query import Cell
from farm.rounds import trials_of
from farm.store import Run
from workers.errors import TrialError
from workers.fields.groups import Value

SERIES_BUDGET = 50_000
"""result series at most: scraping them stays well below Prometheus' default timeout of 10 s, and a
sweep that needs more has an axis too many for anyone to look at"""

METRICS_PATH = "/metrics"

Warn = Callable[[str], None]

_Files = tuple[File, ...]
"""names and sizes of a run's files: equal listings mean equal content, since parts never change"""

_HealthRows = dict[HealthMetric, list[tuple[tuple[str, ...], float]]]


def warn(message: str) -> None:
    """Say something on standard error."""
    print(f"farm: {message}", file=sys.stderr, flush=True)


@dataclass(frozen=True, eq=False)
class _Exposed:
    """What a run looks like from outside; good until the run has new files."""

    run: Run
    files: _Files
    trials: Mapping[str, int] = field(default_factory=dict)
    """number of trials by state"""
    provenance: Sequence[tuple[str, ...]] = ()
    """label values of the run's info metric: one row for each model and versions that took part"""
    results: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    """by name of the metric; empty if they alone exceed the series budget"""
    series: int = 0
    """result series that the run's whole plan makes; what counts against the budget"""
    problem: str = ""
    """why nothing of the run can be exposed, or empty"""


class StoreCollector(Collector):
    """The newest run of each sweep of a store as metric families.

    Arguments:
        root: the store; it may not exist yet.
        chosen: runs to expose in place of the newest ones of their sweeps.
        series_budget: result series at most. Sweeps that ran last come first; one that does not fit is
            left out as a whole, which a health metric says.
        warn: told once of each run that is left out.
    """

    def __init__(
        self,
        root: Root,
        *,
        chosen: Sequence[Run] = (),
        series_budget: int = SERIES_BUDGET,
        warn: Warn = warn,
    ) -> None:
        self._root = root
        self._chosen = {run.sweep_name: run for run in chosen}
        self._series_budget = series_budget
        self._warn = warn
        self._kept: dict[Run, _Exposed] = {}
        self._shown: list[_Exposed] = []
        self._families: list[GaugeMetricFamily] = []
        self._warned: set[str] = set()
        # each scrape comes on a thread of its own
        self._lock = threading.Lock()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: to register the collector must not read the store."""
        return ()

    def check(self) -> None:
        """Refuse what the first scrape would have to leave out for want of budget.

        Raises:
            FarmError: the results exceed the series budget, or the store cannot be read.
        """
        with self._lock:
            exposed, _ = self._look()
            for one in self._refused(exposed):
                raise FarmError(self._refusal(one))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All metrics as of now.

        Raises:
            StoreError: the store as a whole cannot be read.
        """
        started = time.perf_counter()
        with self._lock:
            exposed, stored = self._look()
            refused = self._refused(exposed)
            self._warn_once([self._refusal(one) for one in refused])
            families = self._result_families([one for one in exposed if one not in refused])
        health = _health(stored, exposed, refused)
        health[dashboards.SERIES_BUDGET] = [((), self._series_budget)]
        health[dashboards.COLLECT_SECONDS] = [((), time.perf_counter() - started)]
        yield from families
        yield from _health_families(health)

    def _look(self) -> tuple[list[_Exposed], dict[Run, _Files]]:
        """What to expose, one run of each sweep by the sweep's name, and the files of every run."""
        stored = {run: _files(run) for run in sorted(store.runs(self._root), key=lambda run: run.name)}
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

    def _refused(self, exposed: Sequence[_Exposed]) -> list[_Exposed]:
        """What does not fit into the series budget when the newest runs come first."""
        left = self._series_budget
        refused = []
        for one in sorted(exposed, key=lambda one: one.run.name, reverse=True):
            if one.series > left:
                refused.append(one)
            else:
                left -= one.series
        return refused

    def _result_families(self, shown: list[_Exposed]) -> list[GaugeMetricFamily]:
        """The results, the same objects while there is nothing new, so that they are encoded once."""
        if shown != self._shown or not self._families:
            self._shown, self._families = shown, list(_result_families(shown))
        return self._families

    def _refusal(self, exposed: _Exposed) -> str:
        return (
            f"sweep {exposed.run.sweep_name!r}: its {exposed.series} series do not fit into the budget of "
            f"{self._series_budget} for all sweeps; raise --series-budget or serve a smaller run"
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
    plan = Plan(run.sweep)
    series = plan.cells * dashboards.series_per_cell()
    recorded = run.query("records", "SELECT count(*) AS trials FROM records")
    attempts = run.query("attempts", "SELECT DISTINCT model_digest, versions FROM attempts ORDER BY ALL")
    return _Exposed(
        run,
        files,
        trials={
            "failed": len(run.failures()),
            "planned": trials_of(plan, run),
            "recorded": sum(row["trials"] for row in recorded),
        },
        provenance=[
            (run.sweep_name, run.name, row["model_digest"], *_versions(row["versions"])) for row in attempts
        ],
        # the cells of a sweep far above the budget might not even fit into memory
        results=_results(run.sweep_name, query.cells(run)) if series <= series_budget else {},
        series=series,
    )


def _versions(text: str) -> Iterator[str]:
    """Versions in the order of :data:`dashboards.VERSION_LABELS`."""
    versions = json.loads(text)
    return (str(versions.get(package, "")) for package in dashboards.VERSION_LABELS)


def _results(sweep_name: str, cells: Sequence[Cell]) -> dict[str, list[Sample]]:
    results: dict[str, list[Sample]] = {metric.name: [] for metric in dashboards.result_metrics()}
    for cell in cells:
        labels = _cell_labels(sweep_name, cell)
        statistics = {"median": cell.measures, "low": cell.low, "high": cell.high}
        for metric in dashboards.result_metrics():
            for source in metric.sources:
                value = metric.value(source, statistics[metric.statistic])
                if value is not None:
                    own = labels | {metric.label: source.part} if metric.label else labels
                    results[metric.name].append(Sample(metric.name, own, value))
    return results


def _cell_labels(sweep_name: str, cell: Cell) -> dict[str, str]:
    names = dict.fromkeys((*dashboards.CELL_FIELDS, *cell.axes))
    values = {dashboards.axis_label(name): _label_value(cell.fields[name]) for name in names}
    return {dashboards.SWEEP_LABEL: sweep_name, **values}


def _label_value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _health(
    stored: Mapping[Run, _Files], exposed: Sequence[_Exposed], refused: Sequence[_Exposed]
) -> _HealthRows:
    readable = [one for one in exposed if not one.problem]
    runs = Counter(run.sweep_name for run in stored)
    return {
        dashboards.TRIALS: [
            ((one.run.sweep_name, state), count) for one in readable for state, count in one.trials.items()
        ],
        dashboards.RUNS: [((sweep,), count) for sweep, count in sorted(runs.items())],
        dashboards.RUN_INFO: [(labels, 1) for one in readable for labels in dict.fromkeys(one.provenance)],
        dashboards.UNREADABLE_RUNS: [((one.run.sweep_name,), bool(one.problem)) for one in exposed],
        dashboards.REFUSED_SERIES: [
            ((one.run.sweep_name,), one.series if one in refused else 0) for one in exposed
        ],
        dashboards.STORE_BYTES: [((), sum(size for files in stored.values() for _, size in files))],
    }


def _result_families(exposed: Sequence[_Exposed]) -> Iterator[GaugeMetricFamily]:
    for metric in dashboards.result_metrics():
        family = GaugeMetricFamily(metric.name, metric.help, unit=metric.unit)
        for one in exposed:
            family.samples.extend(one.results.get(metric.name, ()))
        yield family


def _health_families(rows: _HealthRows) -> Iterator[GaugeMetricFamily]:
    for metric in dashboards.HEALTH_METRICS:
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
        for label_values, value in rows[metric]:
            family.add_metric(label_values, value)
        yield family


class _Pages:
    """Makes pages of a collector's metrics.

    To encode ten thousand series takes longer than a scrape should, so the text of each family is kept
    for as long as the collector hands out that same family again.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._content_type = ""
        self._texts: dict[int, tuple[Metric, bytes]] = {}
        self._lock = threading.Lock()

    def page(self, accept: str) -> tuple[str, bytes]:
        """Content type and content of a page for a client that accepts these formats."""
        encode, content_type = choose_encoder(accept)
        with self._lock:
            if content_type != self._content_type:
                self._content_type, self._texts = content_type, {}
            texts: dict[int, tuple[Metric, bytes]] = {}
            for family in self._collector.collect():
                known, text = self._texts.get(id(family), (None, b""))
                if known is not family:
                    text = encode(_One(family)).removesuffix(_END)
                texts[id(family)] = family, text
            self._texts = texts
        end = _END if content_type.startswith("application/openmetrics-text") else b""
        return content_type, b"".join(text for _, text in texts.values()) + end


_END = b"# EOF\n"
"""how a page of OpenMetrics ends"""


class _One(Collector):
    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        """The one family."""
        return (self._family,)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line per scrape helps nobody."""


class MetricsServer:
    """Serves a collector over HTTP on a thread of its own while used as a context manager.

    Arguments:
        port: TCP port; 0 takes a free one, see :attr:`port`.
        address: where to listen; a name, or an address of IPv4 or IPv6.
        other: answers what is asked besides the metrics; without it that is not found.

    Raises:
        FarmError: the port is in use, or the address is not one of this machine.
    """

    def __init__(
        self, collector: Collector, port: int, address: str, other: WSGIApplication | None = None
    ) -> None:
        try:
            family, _, _, _, _ = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
            server_class = type("_Server", (ThreadingWSGIServer,), {"address_family": family})
            application = _application(_Pages(collector), other)
            self._server: WSGIServer = make_server(
                address, port, application, server_class, handler_class=_QuietHandler
            )
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no such port"
            raise FarmError(
                f"port {port} of {address!r}: {reason}; choose another with --port, or 0 for any free one"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics")

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self._server.server_port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _application(pages: _Pages, other: WSGIApplication | None) -> WSGIApplication:
    """The metrics under their usual path; a store that cannot be read is a failed scrape."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if other is not None and environ["PATH_INFO"] != METRICS_PATH:
            return other(environ, start_response)
        status, headers = "200 OK", {"Content-Type": "text/plain; charset=utf-8"}
        if environ["PATH_INFO"] != METRICS_PATH:
            status, content = "404 Not Found", f"see {METRICS_PATH}\n".encode()
        else:
            try:
                headers["Content-Type"], content = pages.page(environ.get("HTTP_ACCEPT", ""))
            except StoreError as error:
                status, content = "503 Service Unavailable", f"{error}\n".encode()
        if gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
            # the fastest level already leaves a thirtieth
            headers["Content-Encoding"], content = "gzip", gzip.compress(content, compresslevel=1)
        start_response(status, list(headers.items()))
        return [content]

    return application


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
    stop = threading.Event()
    with MetricsServer(collector, port, address, other) as server:
        before = {
            number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
        }
        host = f"[{address}]" if ":" in address else address
        page = f", report at http://{host}:{server.port}/" if other is not None else ""
        warn(f"serving {root} at http://{host}:{server.port}{METRICS_PATH}{page}; stop with Ctrl-C")
        try:
            stop.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
