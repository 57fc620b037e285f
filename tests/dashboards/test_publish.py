"""Publishing to a Grafana: a double on loopback that keeps state and records every request."""

import json
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dashboards.panels import all_dashboards
from dashboards.publish import Publisher, PublishError, Token, read_token

SECRET = "glsa_not-a-real-token"
PROMETHEUS = "http://localhost:9090"

Json = dict[str, Any]


class Request(NamedTuple):
    method: str
    path: str
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
        return Reply(404, {"message": "Not found"})

    def _stored(self, kind: dict[str, Json], uid: str) -> Reply:
        return Reply(200, kind[uid]) if uid in kind else Reply(404, {"message": "not found"})

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
                request = Request(self.command, self.path, json.loads(content) if content else None)
                reply = grafana.answer(request, self.headers.get("Authorization", ""))
                text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
                self.send_response(reply.status)
                if reply.location:
                    self.send_header("Location", reply.location)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PUT = do_DELETE = _respond  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    with Grafana() as server:
        yield server


@pytest.fixture
def publisher(grafana: Grafana) -> Iterator[Publisher]:
    with Publisher(grafana.url, Token(SECRET)) as publisher:
        yield publisher


def publish(publisher: Publisher) -> list[tuple[str, str]]:
    published = publisher.publish(all_dashboards(), prometheus_url=PROMETHEUS, folder_title="Page pool farm")
    return [(one.kind, one.change) for one in published]


def refuse(method: str, path_end: str, status: int, body: object = None) -> Callable[[Request], Reply | None]:
    body = {"message": "no"} if body is None else body

    def overrule(request: Request) -> Reply | None:
        matches = request.method == method and request.path.endswith(path_end)
        return Reply(status, body) if matches else None

    return overrule


def test_first_publishing_creates_everything(grafana: Grafana, publisher: Publisher) -> None:
    assert publish(publisher) == [("data source", "created"), ("folder", "created"), ("dashboard", "created")]
    assert [(request.method, request.path) for request in grafana.requests] == [
        ("GET", "/api/datasources/uid/page-pool-farm-prometheus"),
        ("POST", "/api/datasources"),
        ("GET", "/api/folders/page-pool-farm"),
        ("POST", "/api/folders"),
        ("GET", "/api/dashboards/uid/page-pool-farm-recycling"),
        ("POST", "/api/dashboards/db"),
    ]
    assert grafana.requests[1].body == {
        "access": "proxy",
        "name": "page-pool-farm",
        "type": "prometheus",
        "uid": "page-pool-farm-prometheus",
        "url": "http://localhost:9090",
    }
    assert grafana.requests[3].body == {"title": "Page pool farm", "uid": "page-pool-farm"}
    sent = grafana.requests[5].body
    assert sent is not None
    assert (sent["folderUid"], sent["overwrite"]) == ("page-pool-farm", False)
    assert grafana.authorizations == {f"Bearer {SECRET}"}


def test_the_dashboard_is_sent_as_generated_but_with_the_farms_data_source_picked(
    grafana: Grafana, publisher: Publisher
) -> None:
    publish(publisher)
    (generated,) = all_dashboards()
    sent = grafana.requests[-1].body
    assert sent is not None
    picked = sent["dashboard"]["templating"]["list"][0].pop("current")
    generated["templating"]["list"][0].pop("current")
    assert picked["value"] == "page-pool-farm-prometheus"
    assert sent["dashboard"] == generated


def test_publishing_again_writes_nothing(grafana: Grafana, publisher: Publisher) -> None:
    publish(publisher)
    grafana.requests.clear()
    assert [change for _, change in publish(publisher)] == ["unchanged"] * 3
    assert grafana.writes == []


def test_what_was_changed_on_the_server_is_put_right(grafana: Grafana, publisher: Publisher) -> None:
    publish(publisher)
    grafana.data_sources["page-pool-farm-prometheus"] |= {"url": "http://old:9090", "name": "renamed"}
    grafana.folders["page-pool-farm"]["title"] = "old"
    grafana.dashboards["page-pool-farm-recycling"]["dashboard"]["title"] = "old"
    grafana.requests.clear()
    assert [change for _, change in publish(publisher)] == ["updated"] * 3
    assert grafana.writes == [
        ("PUT", "/api/datasources/uid/page-pool-farm-prometheus"),
        ("PUT", "/api/folders/page-pool-farm"),
        ("POST", "/api/dashboards/db"),
    ]
    assert grafana.data_sources["page-pool-farm-prometheus"]["url"] == PROMETHEUS
    assert grafana.data_sources["page-pool-farm-prometheus"]["name"] == "renamed"
    assert grafana.dashboards["page-pool-farm-recycling"]["dashboard"]["version"] == 2


def test_a_dashboard_moved_elsewhere_comes_back(grafana: Grafana, publisher: Publisher) -> None:
    publish(publisher)
    grafana.dashboards["page-pool-farm-recycling"]["meta"]["folderUid"] = "elsewhere"
    assert publish(publisher)[-1] == ("dashboard", "updated")
    assert grafana.dashboards["page-pool-farm-recycling"]["meta"]["folderUid"] == "page-pool-farm"


def test_a_provisioned_data_source_is_left_alone(grafana: Grafana, publisher: Publisher) -> None:
    publish(publisher)
    grafana.data_sources["page-pool-farm-prometheus"] |= {"readOnly": True}
    assert publish(publisher)[0] == ("data source", "unchanged")
    grafana.data_sources["page-pool-farm-prometheus"] |= {"url": "http://other:9090"}
    with pytest.raises(PublishError, match="provisioning file with url 'http://other:9090'"):
        publish(publisher)


def test_a_grafana_below_a_path_is_reached(grafana: Grafana) -> None:
    grafana.prefix = "/monitoring/grafana"
    with Publisher(f"{grafana.url}/", Token(SECRET)) as publisher:
        assert [change for _, change in publish(publisher)] == ["created"] * 3


def test_a_change_that_comes_in_between_is_not_overwritten(grafana: Grafana, publisher: Publisher) -> None:
    publish(publisher)
    stored = grafana.dashboards["page-pool-farm-recycling"]["dashboard"]
    stored["title"] = "old"

    def edit_before_writing(request: Request) -> None:
        if request.path.endswith("/dashboards/db"):
            stored["version"] += 1

    grafana.overrule = edit_before_writing
    with pytest.raises(PublishError, match=r"dashboard 'page-pool-farm-recycling': 412: .* publish again"):
        publish(publisher)
    grafana.overrule = lambda request: None
    assert publish(publisher)[-1] == ("dashboard", "updated")


@pytest.mark.parametrize(
    ("method", "path_end", "status", "message"),
    [
        ("GET", "-prometheus", 401, "data source .*: 401: the token is not accepted; make a new one"),
        ("POST", "/datasources", 403, "data source .*: 403: the token lacks the permission; give .* Admin"),
        ("POST", "/datasources", 404, "data source .*: 404: no Grafana answers there; check the address"),
        ("POST", "/datasources", 409, "data source .*: 409: something else has that name"),
        ("POST", "/folders", 412, "folder .*: 412: it was changed on the server meanwhile"),
        ("POST", "/dashboards/db", 400, "dashboard .*: 400: the server does not take it"),
        ("GET", "-recycling", 503, "dashboard .*: 503: the server failed; look into its log"),
    ],
)
def test_refusals_name_what_was_refused_and_the_remedy(
    grafana: Grafana, publisher: Publisher, method: str, path_end: str, status: int, message: str
) -> None:
    grafana.overrule = refuse(method, path_end, status)
    with pytest.raises(PublishError, match=message) as caught:
        publish(publisher)
    assert str(caught.value).startswith(f"{grafana.url}/: ")


@pytest.mark.parametrize("body", ["<html>welcome</html>", [1, 2], ""])
def test_another_server_is_recognised(grafana: Grafana, publisher: Publisher, body: object) -> None:
    grafana.overrule = refuse("GET", "-prometheus", 200, body)
    with pytest.raises(PublishError, match="what answers is not a Grafana"):
        publish(publisher)


def test_redirects_are_not_followed(grafana: Grafana, publisher: Publisher) -> None:
    grafana.overrule = lambda request: Reply(302, "", f"{grafana.url}/login")
    with pytest.raises(PublishError, match="redirects; give the address that it redirects to"):
        publish(publisher)
    assert len(grafana.requests) == 1


def test_an_unreachable_server_is_one_line() -> None:
    with Grafana() as gone:
        url = gone.url
    with (
        Publisher(url, Token(SECRET)) as publisher,
        pytest.raises(PublishError, match=f"^{url}/: cannot be reached"),
    ):
        publish(publisher)


def test_a_silent_server_times_out(grafana: Grafana) -> None:
    release = threading.Event()
    grafana.overrule = lambda request: refuse("GET", "", 500)(request) if release.wait(10) else None
    with Publisher(grafana.url, Token(SECRET), timeout_seconds=0.2) as publisher:
        with pytest.raises(PublishError, match="no answer in time"):
            publish(publisher)
        release.set()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:3000", "not an address"),
        ("ftp://localhost", "not an address"),
        ("http://", "not an address"),
        ("http://localhost:port", "not an address"),
        ("http://localhost:99999", "not an address"),
        ("http://localhost/?token=" + SECRET, "not an address"),
        (f"http://admin:{SECRET}@localhost", "holds a user"),
    ],
)
def test_bad_addresses_are_refused_without_repeating_them(url: str, message: str) -> None:
    with pytest.raises(PublishError, match=message) as caught:
        Publisher(url, Token(SECRET))
    assert SECRET not in str(caught.value)


def test_a_uid_that_grafana_would_cut_is_refused(publisher: Publisher) -> None:
    with pytest.raises(PublishError, match="uid 'a/b': use at most 40"):
        publisher.put_dashboard({"uid": "a/b", "templating": {"list": []}})


def test_the_token_is_never_shown(grafana: Grafana) -> None:
    wrong = Token("glsa_wrong-token")
    with Publisher(grafana.url, wrong) as publisher, pytest.raises(PublishError, match="401") as caught:
        publish(publisher)
    assert "Bearer glsa_wrong-token" in grafana.authorizations
    shown = [str(caught.value), repr(caught.value), repr(publisher), repr(wrong), str(wrong)]
    shown += traceback.format_exception(caught.value)
    assert not any("glsa_wrong-token" in text for text in shown)


def test_an_echoed_token_is_hidden(grafana: Grafana, publisher: Publisher) -> None:
    grafana.overrule = refuse("GET", "-prometheus", 403, {"message": f"no rights for {SECRET}\nsorry"})
    with pytest.raises(PublishError, match=r"it said: .*no rights for \*\*\* sorry\)$"):
        publish(publisher)


def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    environment = {"GRAFANA_TOKEN": "from-environment"}
    assert read_token(environment).reveal() == "from-environment"
    assert read_token(environment, file).reveal() == "from-file"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty; set GRAFANA_TOKEN, or name a file"),
        (b" \n", "empty"),
        (b"two words", "not a token"),
        (b"two\nlines", "not a token"),
        ("schlüssel".encode(), "not a token"),
        (b"\xff\xfe", "not text"),
    ],
)
def test_files_without_a_token_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(PublishError, match=f"^token file '{file}': {message}"):
        read_token({}, file)


def test_a_missing_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"^GRAFANA_TOKEN: empty"):
        read_token({})
    with pytest.raises(PublishError, match="No such file or directory; name a readable file"):
        read_token({}, tmp_path / "absent")
