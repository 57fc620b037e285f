"""Serves a collector over HTTP, each family encoded once for as long as it stays the same."""

import gzip
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client.exposition import ThreadingWSGIServer, choose_encoder, gzip_accepted
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from farm.errors import FarmError, StoreError

METRICS_PATH = "/metrics"


def warn(message: str) -> None:
    """Say something on standard error."""
    print(f"farm: {message}", file=sys.stderr, flush=True)


class _Pages:
    """Makes pages of a collector's metrics.

    To encode ten thousand series takes longer than a scrape should, so the text of each family is kept
    for as long as the collector hands out that same family again.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._texts: dict[str, dict[int, tuple[Metric, bytes]]] = {}
        """by content type and identity of the family"""
        self._lock = threading.Lock()

    def page(self, accept: str) -> tuple[str, bytes]:
        """Content type and content of a page for a client that accepts these formats."""
        encode, content_type = choose_encoder(accept)
        with self._lock:
            before = self._texts.get(content_type, {})
            texts: dict[int, tuple[Metric, bytes]] = {}
            for family in self._collector.collect():
                known, text = before.get(id(family), (None, b""))
                if known is not family:
                    text = encode(_One(family)).removesuffix(_END)
                texts[id(family)] = family, text
            self._texts[content_type] = texts
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
        option: what the port is called on the command line.
        other: answers what is asked besides the metrics; without it that is not found.

    Raises:
        FarmError: the port is in use, or the address is not one of this machine.
    """

    def __init__(
        self,
        collector: Collector,
        port: int,
        address: str,
        option: str = "--port",
        other: WSGIApplication | None = None,
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
                f"port {port} of {address!r}: {reason}; choose another with {option}, or 0 for any free one"
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


def wait_for_a_signal() -> None:
    """Return when the process gets SIGINT or SIGTERM. Main thread only."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def address_of(address: str, port: int, path: str = METRICS_PATH) -> str:
    """Where the metrics are, for people."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}{path}"
