"""The report of a store's runs over HTTP: what ``farm serve`` shows beside its metrics."""

import gzip
import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client.exposition import gzip_accepted

from farm.errors import FarmError, StoreError
from farm.report import data, page
from farm.store import answers
from farm.store import runs as store
from farm.store.place import Root
from farm.store.rows import KINDS
from farm.store.runs import Run
from workers.errors import TrialError

REFRESH_SECONDS = 5
"""between two questions of an open page"""

PAGE_PATH = "/"
DATA_PATH = "/report.json"

MOST_RUNS = 200
"""runs that a page lets choose from, the latest"""


class UnknownRunError(StoreError):
    """A run that the store does not hold."""


@dataclass(frozen=True)
class _Made:
    """A run's document, good until the run has new parts or its store new answers."""

    run: Run
    parts: tuple[str, ...]
    document: dict[str, Any]


class Site:
    """Makes pages and documents of a store's runs; reads a run again only when it has new parts.

    Arguments:
        root: the store; it may not exist yet.
        chosen: runs of which the first is shown where none is asked for, in place of the latest.
    """

    def __init__(self, root: Root, chosen: Sequence[Run] = ()) -> None:
        self._root = root
        self._chosen = chosen
        self._made: _Made | None = None
        # each request comes on a thread of its own
        self._lock = threading.Lock()

    def document(self, name: str) -> dict[str, Any] | None:
        """What a run's page shows, and which runs there are; None without any run.

        Arguments:
            name: of a run of this store; empty for the first chosen or the latest.

        Raises:
            UnknownRunError: no such run.
            StoreError: it is damaged.
            workers.errors.TrialError: its sweep holds values that no trial can have.
        """
        known = {run.name: run for run in self._chosen} | {run.name: run for run in store.runs(self._root)}
        if name and name not in known:
            # by name only: a path would let whoever asks read any directory
            raise UnknownRunError(f"run {name[:80]!r}: not in this store; farm list names them")
        if not known:
            return None
        run = known[name] if name else self._chosen[0] if self._chosen else known[max(known)]
        names = sorted(known, reverse=True)[:MOST_RUNS]
        return self._read(run) | {"runs": [{"sweep": known[n].sweep_name, "run": n} for n in names]}

    def _read(self, run: Run) -> dict[str, Any]:
        with self._lock:
            parts = tuple(f"{kind}/{name}" for kind in KINDS for name in run.part_names(kind))
            parts += answers.names(run.place.parent.parent)
            if self._made is None or (self._made.run, self._made.parts) != (run, parts):
                self._made = _Made(run, parts, data.report(run))
            return self._made.document


def application(site: Site) -> WSGIApplication:
    """The page under ``/``, its document under ``/report.json``; ``?run=NAME`` chooses one."""

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, kind, text = _answer(site, environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
        content = text.encode()
        headers = {"Content-Type": f"{kind}; charset=utf-8", "X-Content-Type-Options": "nosniff"}
        if status.startswith("200"):
            headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            if environ.get("HTTP_IF_NONE_MATCH") == headers["ETag"]:
                start_response("304 Not Modified", list(headers.items()))
                return [b""]
        if gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
            headers["Content-Encoding"], content = "gzip", gzip.compress(content, compresslevel=1)
        start_response(status, list(headers.items()))
        return [content]

    return respond


def _answer(site: Site, path: str, query: str) -> tuple[str, str, str]:
    """Status, content type and content."""
    plain = "text/plain"
    if path not in (PAGE_PATH, DATA_PATH):
        return "404 Not Found", plain, f"see {PAGE_PATH}\n"
    try:
        document = site.document(parse_qs(query).get("run", [""])[0])
    except UnknownRunError as error:
        return "404 Not Found", plain, f"{error}\n"
    except (FarmError, TrialError) as error:
        return "503 Service Unavailable", plain, f"{error}\n"
    if path == DATA_PATH:
        if document is None:
            return "404 Not Found", plain, "the store holds no run\n"
        return "200 OK", "application/json", page.script_json(document)
    if document is None:
        return "200 OK", "text/html", _EMPTY
    return "200 OK", "text/html", page.render(document, refresh_seconds=REFRESH_SECONDS)


_EMPTY = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{REFRESH_SECONDS}"><link rel="icon" href="data:,"><title>farm</title>
<p>The store holds no run yet; this page shows the first one as it comes.</p></html>
"""
