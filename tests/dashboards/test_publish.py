"""Publishing to a Grafana: a double on loopback that keeps state and records every request."""

import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.annotations import Annotator
from dashboards.boards import all_dashboards
from dashboards.connection import Connection, PublishError, Token, read_token
from dashboards.publish import Publisher, stamped
from tests.dashboards.grafana_double import SECRET, Grafana, Reply, Request

PROMETHEUS = "http://localhost:9090"

Json = dict[str, Any]

UIDS = [dashboard["uid"] for dashboard in all_dashboards()]
FIRST = "page-pool-farm-recycling"


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    with Grafana() as server:
        yield server


@pytest.fixture
def publisher(grafana: Grafana) -> Iterator[Publisher]:
    with connect(grafana.url) as connection:
        yield Publisher(connection)


def connect(url: str, token: str = SECRET, timeout_seconds: float = 10.0) -> Connection:
    return Connection(url, Token(token), timeout_seconds=timeout_seconds, backoff_seconds=0.001)


def publish(publisher: Publisher, *, prune: bool = False) -> list[tuple[str, str]]:
    """One dashboard, which shows as much as all."""
    chosen = [dashboard for dashboard in all_dashboards() if dashboard["uid"] == FIRST]
    published = publisher.publish(
        chosen, prometheus_url=PROMETHEUS, folder_title="Page pool farm", prune=prune
    )
    return [(one.kind, one.change) for one in published]


def as_pushed_before(grafana: Grafana) -> Json:
    """Let the server have the dashboard as an earlier version of the farm made it."""
    there: Json = grafana.dashboards[FIRST]["dashboard"]
    plain = there | {"title": "old", "tags": ["page-pool-farm"]}
    there |= stamped(plain)
    return there


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
    for request in grafana.requests:
        assert request.headers["authorization"] == f"Bearer {SECRET}"
        assert request.headers["host"] == grafana.url.removeprefix("http://")
        written = request.method != "GET"
        assert (request.headers.get("content-type") == "application/json") == written
        assert (request.body is not None) == written


def test_all_dashboards_go_into_the_folder(grafana: Grafana, publisher: Publisher) -> None:
    published = publisher.publish(all_dashboards(), prometheus_url=PROMETHEUS, folder_title="Farm")
    assert [one.uid for one in published if one.kind == "dashboard"] == UIDS
    assert list(grafana.dashboards) == UIDS
    assert {one["meta"]["folderUid"] for one in grafana.dashboards.values()} == {"page-pool-farm"}


def test_the_dashboard_is_sent_as_generated_but_with_the_farms_data_source_picked(
    grafana: Grafana, publisher: Publisher
) -> None:
    publish(publisher)
    (generated,) = (dashboard for dashboard in all_dashboards() if dashboard["uid"] == FIRST)
    sent = grafana.requests[-1].body
    assert sent is not None
    picked = sent["dashboard"]["templating"]["list"][0].pop("current")
    generated["templating"]["list"][0].pop("current")
    assert picked["value"] == "page-pool-farm-prometheus"
    tags = sent["dashboard"].pop("tags")
    assert generated.pop("tags") == [tag for tag in tags if not tag.startswith(("farm-", "content-"))]
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
    as_pushed_before(grafana)
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
    with connect(f"{grafana.url}/") as connection:
        assert [change for _, change in publish(Publisher(connection))] == ["created"] * 3


def test_a_change_that_comes_in_between_is_not_overwritten(grafana: Grafana, publisher: Publisher) -> None:
    publish(publisher)
    stored = as_pushed_before(grafana)

    def edit_before_writing(request: Request) -> None:
        if request.path.endswith("/dashboards/db"):
            stored["version"] += 1

    grafana.overrule = edit_before_writing
    with pytest.raises(PublishError, match=r"dashboard 'page-pool-farm-recycling': 412: .* push again"):
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
        connect(url) as connection,
        pytest.raises(PublishError, match=f"^{url}/: cannot be reached"),
    ):
        publish(Publisher(connection))


def test_a_server_that_is_away_for_a_moment_is_asked_again(grafana: Grafana, publisher: Publisher) -> None:
    left = [503, 502, 429]
    grafana.overrule = lambda request: Reply(left.pop(), {"message": "busy"}) if left else None
    assert [change for _, change in publish(publisher)] == ["created"] * 3
    assert [request.path for request in grafana.requests[:4]] == [
        "/api/datasources/uid/page-pool-farm-prometheus"
    ] * 4


def test_what_may_have_been_written_is_not_sent_twice(grafana: Grafana, publisher: Publisher) -> None:
    grafana.overrule = refuse("POST", "/datasources", 503)
    with pytest.raises(PublishError, match="503"):
        publish(publisher)
    assert grafana.writes == [("POST", "/api/datasources")]


def test_a_dashboard_edited_on_the_server_is_left_alone_unless_told(
    grafana: Grafana, publisher: Publisher
) -> None:
    publish(publisher)
    grafana.dashboards[FIRST]["dashboard"]["title"] = "mine"
    grafana.requests.clear()
    message = f"dashboard '{FIRST}' is newer on the server: somebody has edited it; .* push with --force"
    with pytest.raises(PublishError, match=message):
        publish(publisher)
    assert grafana.writes == []
    with connect(grafana.url) as connection:
        assert publish(Publisher(connection, force=True))[-1] == ("dashboard", "updated")
    assert grafana.dashboards[FIRST]["dashboard"]["title"] == "Does recycling pay"


def test_a_dashboard_of_a_newer_farm_is_left_alone(grafana: Grafana, publisher: Publisher) -> None:
    publish(publisher)
    there = as_pushed_before(grafana)
    there["tags"] = [tag if not tag.startswith("farm-") else "farm-99.0.1" for tag in there["tags"]]
    with pytest.raises(PublishError, match=r"newer on the server: page-pool-farm 99\.0\.1 made it"):
        publish(publisher)


def test_a_provisioned_dashboard_is_left_alone(grafana: Grafana, publisher: Publisher) -> None:
    publish(publisher)
    as_pushed_before(grafana)
    grafana.dashboards[FIRST]["meta"]["provisioned"] = True
    with pytest.raises(PublishError, match="comes from a provisioning file; change it there"):
        publish(publisher)


def test_a_dry_run_says_what_would_change_and_writes_nothing(grafana: Grafana) -> None:
    with connect(grafana.url) as connection:
        assert [change for _, change in publish(Publisher(connection, dry_run=True))] == ["created"] * 3
    assert grafana.writes == []
    assert grafana.dashboards == {}


def test_pruning_deletes_what_the_farm_no_longer_has(grafana: Grafana, publisher: Publisher) -> None:
    publisher.publish(all_dashboards(), prometheus_url=PROMETHEUS, folder_title="Page pool farm")
    mine = {"uid": "mine", "tags": ["other"], "title": "mine"}
    grafana.dashboards["mine"] = {"dashboard": mine, "meta": {"folderUid": "page-pool-farm"}}
    copied = grafana.dashboards["page-pool-farm-health"]["dashboard"] | {"uid": "copy"}
    grafana.dashboards["copy"] = {"dashboard": copied, "meta": {"folderUid": "elsewhere"}}
    grafana.requests.clear()
    gone = publish(publisher, prune=True)[3:]
    assert gone == [("dashboard", "deleted")] * (len(UIDS) - 1)
    assert set(grafana.dashboards) == {FIRST, "mine", "copy"}
    assert grafana.writes == [
        ("DELETE", f"/api/dashboards/uid/{uid}") for uid in sorted(UIDS) if uid != FIRST
    ]
    search = "/api/search?type=dash-db&tag=page-pool-farm&folderUIDs=page-pool-farm&limit=5000"
    assert [request.path for request in grafana.requests].count(search) == 1


def test_pruning_spares_what_was_edited(grafana: Grafana, publisher: Publisher) -> None:
    publisher.publish(all_dashboards(), prometheus_url=PROMETHEUS, folder_title="Page pool farm")
    grafana.dashboards["page-pool-farm-health"]["dashboard"]["title"] = "mine"
    with pytest.raises(PublishError, match="'page-pool-farm-health' is newer on the server"):
        publish(publisher, prune=True)
    assert "page-pool-farm-health" in grafana.dashboards


def test_runs_are_marked_from_start_to_end(grafana: Grafana) -> None:
    with connect(grafana.url) as connection:
        annotator = Annotator(connection)
        annotator.check()
        number = annotator.start(1_000, "started <b>", ["run", "sweep"])
        annotator.end(number, 2_500, "ended")
    assert [(request.method, request.path, request.body) for request in grafana.requests] == [
        ("GET", "/api/org", None),
        (
            "POST",
            "/api/annotations",
            {
                "dashboardUID": "page-pool-farm-overview",
                "tags": ["page-pool-farm", "run", "sweep"],
                "text": "started <b>",
                "time": 1_000,
            },
        ),
        ("PATCH", f"/api/annotations/{number}", {"text": "ended", "timeEnd": 2_500}),
    ]
    assert grafana.authorizations == {f"Bearer {SECRET}"}


def test_a_silent_server_times_out(grafana: Grafana) -> None:
    release = threading.Event()
    grafana.overrule = lambda request: refuse("GET", "", 500)(request) if release.wait(10) else None
    with connect(grafana.url, timeout_seconds=0.2) as connection:
        with pytest.raises(PublishError, match="no answer in time"):
            publish(Publisher(connection))
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
        connect(url)
    assert SECRET not in str(caught.value)


def test_a_uid_that_grafana_would_cut_is_refused(publisher: Publisher) -> None:
    with pytest.raises(PublishError, match="uid 'a/b': use at most 40"):
        publisher.put_dashboard({"uid": "a/b", "templating": {"list": []}, "tags": []})


def test_the_token_is_never_shown(grafana: Grafana) -> None:
    wrong = Token("glsa_wrong-token")
    with (
        connect(grafana.url, "glsa_wrong-token") as connection,
        pytest.raises(PublishError, match="401") as caught,
    ):
        publish(Publisher(connection))
    assert "Bearer glsa_wrong-token" in grafana.authorizations
    shown = [str(caught.value), repr(caught.value), repr(connection), repr(wrong), str(wrong)]
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
