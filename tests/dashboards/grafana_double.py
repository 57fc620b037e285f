"""A double of Grafana on loopback that keeps state and records every request."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

SECRET = "glsa_not-a-real-token"

Json = dict[str, Any]


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    """by name in small letters"""
    body: Json | None


class Reply(NamedTuple):
    status: int
    body: object
    location: str = ""


class Grafana:
    """As much of Grafana as the publisher uses, with its answers and its checks of versions."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.authorizations: set[str] = set()
        self.data_sources: dict[str, Json] = {}
        self.folders: dict[str, Json] = {}
        self.dashboards: dict[str, Json] = {}
        self.annotations: dict[int, Json] = {}
        self.overrule: Callable[[Request], Reply | None] = lambda request: None
        self.prefix = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{self.prefix}"

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [(request.method, request.path) for request in self.requests if request.method != "GET"]

    def __enter__(self) -> "Grafana":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: Request, authorization: str) -> Reply:
        self.requests.append(request)
        self.authorizations.add(authorization)
        if overruled := self.overrule(request):
            return overruled
        if authorization != f"Bearer {SECRET}":
            return Reply(401, {"message": f"Invalid API key: {authorization}"})
        if not request.path.startswith(f"{self.prefix}/api/"):
            return Reply(404, {"message": "Not found"})
        path = request.path.removeprefix(f"{self.prefix}/api/")
        body = request.body or {}
        match request.method, path.split("/"):
            case "GET", ["datasources", "uid", uid]:
                return self._stored(self.data_sources, uid)
            case "POST", ["datasources"]:
                self.data_sources[body["uid"]] = body | {"id": 7, "readOnly": False, "version": 1}
                return Reply(200, {"message": "Datasource added"})
            case "PUT", ["datasources", "uid", uid] if uid in self.data_sources:
                self.data_sources[uid] |= body
                return Reply(200, {"message": "Datasource updated"})
            case "GET", ["folders", uid]:
                return self._stored(self.folders, uid)
            case "POST", ["folders"]:
                self.folders[body["uid"]] = body | {"id": 8, "version": 1}
                return Reply(200, self.folders[body["uid"]])
            case "PUT", ["folders", uid] if uid in self.folders:
                if body.get("version") != self.folders[uid]["version"]:
                    return Reply(412, {"message": "the folder has been changed by someone else"})
                self.folders[uid] |= {"title": body["title"], "version": body["version"] + 1}
                return Reply(200, self.folders[uid])
            case "GET", ["dashboards", "uid", uid]:
                return self._stored(self.dashboards, uid)
            case "POST", ["dashboards", "db"]:
                return self._save_dashboard(body)
            case "DELETE", ["dashboards", "uid", uid] if uid in self.dashboards:
                return Reply(200, {"title": self.dashboards.pop(uid)["dashboard"]["title"]})
            case "GET", ["org"]:
                return Reply(200, {"id": 1, "name": "Main Org."})
            case "POST", ["annotations"]:
                number = len(self.annotations) + 1
                self.annotations[number] = dict(body)
                return Reply(200, {"id": number, "message": "Annotation added"})
            case "PATCH", ["annotations", number] if int(number) in self.annotations:
                self.annotations[int(number)] |= body
                return Reply(200, {"message": "Annotation patched"})
            case "GET", [search] if search.startswith("search?"):
                return self._search(parse_qs(urlsplit(search).query))
        return Reply(404, {"message": "Not found"})

    def _stored(self, kind: dict[str, Json], uid: str) -> Reply:
        return Reply(200, kind[uid]) if uid in kind else Reply(404, {"message": "not found"})

    def _search(self, asked: dict[str, list[str]]) -> Reply:
        found = [
            {"uid": uid, "type": "dash-db"}
            for uid, one in self.dashboards.items()
            if asked["tag"][0] in one["dashboard"]["tags"] and one["meta"]["folderUid"] in asked["folderUIDs"]
        ]
        return Reply(200, found)

    def _save_dashboard(self, body: Json) -> Reply:
        dashboard, folder_uid = body["dashboard"], body["folderUid"]
        if folder_uid not in self.folders:
            return Reply(400, {"message": "folder not found"})
        there = self.dashboards.get(dashboard["uid"])
        version = there["dashboard"]["version"] if there else 0
        if there and not body["overwrite"] and dashboard.get("version") != version:
            message = "The dashboard has been changed by someone else"
            return Reply(412, {"message": message, "status": "version-mismatch"})
        stored = dashboard | {"id": 9, "version": version + 1}
        self.dashboards[dashboard["uid"]] = {"dashboard": stored, "meta": {"folderUid": folder_uid}}
        return Reply(200, {"status": "success", "uid": dashboard["uid"], "version": version + 1})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        grafana = self

        class Handler(BaseHTTPRequestHandler):
            def _respond(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, json.loads(content) if content else None)
                reply = grafana.answer(request, self.headers.get("Authorization", ""))
                text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
                self.send_response(reply.status)
                if reply.location:
                    self.send_header("Location", reply.location)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                # a client that has given up
                with suppress(BrokenPipeError):
                    self.wfile.write(text.encode())

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _respond  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
