"""Puts data source, folder and dashboards on a Grafana, through grafana-api.

All calls go by uid: numeric ids are gone from newer servers. What grafana-api has no call for is sent
through its own ``api``. To publish the same again changes nothing.
"""

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self
from urllib.parse import urlsplit

import requests
from grafana_api.grafana_api import GrafanaException
from grafana_api.grafana_face import GrafanaFace

from dashboards.grafana import Json

TOKEN_VARIABLE = "GRAFANA_TOKEN"

DATA_SOURCE_UID = "page-pool-farm-prometheus"
DATA_SOURCE_NAME = "page-pool-farm"
FOLDER_UID = "page-pool-farm"

Kind = Literal["data source", "folder", "dashboard"]
Change = Literal["created", "updated", "unchanged"]

_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_ANSWER_SHOWN = 200
"""characters of a server's answer that an error message repeats"""

_REMEDIES = {
    401: "the token is not accepted; make a new one and set it again",
    403: "the token lacks the permission; give its service account the role Admin",
    404: "no Grafana answers there; check the address and its path",
    409: "something else has that name; rename or remove it on the server",
    412: "it was changed on the server meanwhile; publish again to put the new version over it",
}


class PublishError(Exception):
    """A Grafana cannot be reached or refuses: one line that says what to do, never the token."""


class Published(NamedTuple):
    """What became of one thing on the server."""

    kind: Kind
    uid: str
    change: Change


class Token:
    """A service account token that does not show itself."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "Token(***)"

    def reveal(self) -> str:
        """The token itself, for the header of a request only."""
        return self._secret

    def hide_in(self, text: str) -> str:
        """The text without the token, should a server have echoed it."""
        return text.replace(self._secret, "***")


def read_token(environment: Mapping[str, str], file: Path | None = None) -> Token:
    """The token from a file if one is named, else from ``GRAFANA_TOKEN``.

    Raises:
        PublishError: there is none, or what is there cannot be a token.
    """
    source = f"token file {str(file)!r}" if file else TOKEN_VARIABLE
    try:
        text = file.read_text(encoding="utf-8") if file else environment.get(TOKEN_VARIABLE, "")
    except OSError as error:
        raise PublishError(f"{source}: {error.strerror}; name a readable file that holds the token") from None
    except UnicodeDecodeError:
        raise PublishError(f"{source}: not text; name a file that holds the token alone") from None
    secret = text.strip()
    if not secret:
        raise PublishError(
            f"{source}: empty; set {TOKEN_VARIABLE}, or name a file, with the token of a Grafana service "
            "account of role Admin"
        )
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise PublishError(f"{source}: not a token, for it has blanks or other than ASCII characters in it")
    return Token(secret)


class Publisher:
    """Publishes to one Grafana. A context manager, for it keeps a connection.

    Arguments:
        url: address of the Grafana, with its path if it does not live at the root.
        token: of a service account that may write data sources, folders and dashboards.
        timeout_seconds: how long each request may take.

    Raises:
        PublishError: the address is not one; later, any refusal.
    """

    def __init__(self, url: str, token: Token, *, timeout_seconds: float = 10.0) -> None:
        host, prefix, protocol = _address(url)
        self._url = f"{protocol}://{host}/{prefix}"
        self._token = token
        self._grafana = GrafanaFace(
            auth=token.reveal(), host=host, url_path_prefix=prefix, protocol=protocol, timeout=timeout_seconds
        )
        # a redirected POST arrives as a GET, which would look like success
        self._grafana.api.s.max_redirects = 0

    def __repr__(self) -> str:
        return f"Publisher({self._url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connection."""
        self._grafana.api.s.close()

    def publish(
        self, dashboards: Iterable[Json], *, prometheus_url: str, folder_title: str
    ) -> list[Published]:
        """Put everything on the server, in the order in which one needs the other.

        Raises:
            PublishError: at the first refusal; what was published before stays.
        """
        published = [self.put_data_source(prometheus_url), self.put_folder(folder_title)]
        return published + [self.put_dashboard(dashboard) for dashboard in dashboards]

    def put_data_source(self, prometheus_url: str) -> Published:
        """Make the farm's data source, or correct its address. Other settings of it are kept.

        Raises:
            PublishError: the server refuses, or has the data source from a provisioning file.
        """
        subject = f"data source {DATA_SOURCE_UID!r}"
        wanted = {
            "access": "proxy",
            "name": DATA_SOURCE_NAME,
            "type": "prometheus",
            "uid": DATA_SOURCE_UID,
            "url": prometheus_url,
        }
        api = self._grafana.api
        path = f"/datasources/uid/{DATA_SOURCE_UID}"
        found = self._find(subject, lambda: api.GET(path))
        if found is None:
            self._call(subject, lambda: api.POST("/datasources", json=wanted))
            return Published("data source", DATA_SOURCE_UID, "created")
        # the name is for people, who may have chosen another one
        kept = {name: found.get(name) for name in ("access", "type", "url")}
        if kept == {name: wanted[name] for name in kept}:
            return Published("data source", DATA_SOURCE_UID, "unchanged")
        if found.get("readOnly"):
            raise PublishError(
                f"{self._url}: {subject} comes from a provisioning file with url {found.get('url')!r}; "
                "change it there, or publish with that url"
            )
        body = found | wanted | {"name": found.get("name", DATA_SOURCE_NAME)}
        self._call(subject, lambda: api.PUT(path, json=body))
        return Published("data source", DATA_SOURCE_UID, "updated")

    def put_folder(self, title: str) -> Published:
        """Make the farm's folder, or give it this title.

        Raises:
            PublishError: the server refuses.
        """
        subject = f"folder {FOLDER_UID!r}"
        folder = self._grafana.folder
        found = self._find(subject, lambda: folder.get_folder(FOLDER_UID))
        if found is None:
            self._call(subject, lambda: folder.create_folder(title, FOLDER_UID))
            return Published("folder", FOLDER_UID, "created")
        if found.get("title") == title:
            return Published("folder", FOLDER_UID, "unchanged")
        version = found.get("version")
        self._call(subject, lambda: folder.update_folder(FOLDER_UID, title, version=version))
        return Published("folder", FOLDER_UID, "updated")

    def put_dashboard(self, dashboard: Json) -> Published:
        """Put a dashboard into the farm's folder, over what the server has under its uid.

        What people changed there by hand is replaced, but stays in Grafana's history of versions; a
        change that comes in between is not overwritten.

        Raises:
            PublishError: the server refuses.
        """
        uid = str(dashboard["uid"])
        if not _UID.fullmatch(uid):
            raise PublishError(f"dashboard uid {uid!r}: use at most 40 of a-z, A-Z, 0-9, '-' and '_'")
        subject = f"dashboard {uid!r}"
        wanted = _with_data_source(dashboard)
        found = self._find(subject, lambda: self._grafana.dashboard.get_dashboard(uid))
        body: Json = {"dashboard": wanted, "folderUid": FOLDER_UID, "overwrite": False}
        if found is not None:
            there, folder_uid = found.get("dashboard", {}), found.get("meta", {}).get("folderUid")
            if folder_uid == FOLDER_UID and _content(there) == _content(wanted):
                return Published("dashboard", uid, "unchanged")
            body["dashboard"] = wanted | {"version": there.get("version")}
        self._call(subject, lambda: self._grafana.dashboard.update_dashboard(body))
        return Published("dashboard", uid, "created" if found is None else "updated")

    def _find(self, subject: str, call: Callable[[], object]) -> Json | None:
        """What a GET finds, or None if it is not there."""
        try:
            return self._call(subject, call)
        except _AbsentError:
            return None

    def _call(self, subject: str, call: Callable[[], object]) -> Json:
        """The answer to a request; whatever goes wrong becomes one line."""
        try:
            answer = call()
        except GrafanaException as error:
            kind = _AbsentError if error.status_code == 404 else PublishError
            raise kind(self._refusal(subject, error)) from None
        except requests.TooManyRedirects:
            raise PublishError(f"{self._url}: redirects; give the address that it redirects to") from None
        except requests.Timeout:
            raise PublishError(
                f"{self._url}: no answer in time; is the server busy or the address wrong?"
            ) from None
        except requests.exceptions.SSLError:
            raise PublishError(
                f"{self._url}: its certificate is not trusted; install its authority's or check the address"
            ) from None
        except requests.exceptions.InvalidJSONError:
            answer = None
        except requests.RequestException:
            raise PublishError(
                f"{self._url}: cannot be reached; check the address and that it runs"
            ) from None
        if not isinstance(answer, dict):
            raise PublishError(f"{self._url}: what answers is not a Grafana; check the address and its path")
        return answer

    def _refusal(self, subject: str, error: GrafanaException) -> str:
        status = error.status_code
        if status >= 500:
            remedy = "the server failed; look into its log, then publish again"
        else:
            remedy = _REMEDIES.get(status, "the server does not take it; its version may be too old")
        said = self._token.hide_in(" ".join(str(error).split()))[:_ANSWER_SHOWN]
        return f"{self._url}: {subject}: {status}: {remedy} (it said: {said})"


class _AbsentError(PublishError):
    """404: nothing there, which is only an error when writing."""


def _address(url: str) -> tuple[str, str, str]:
    """Host with port, path prefix, protocol."""
    try:
        parts = urlsplit(url)
        # reading the port checks it
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        # not repeated: whoever slips here may have pasted the token
        raise PublishError("Grafana url: not an address; write it as http://HOST:PORT/PATH")
    if parts.username is not None:
        raise PublishError(f"Grafana url: holds a user; leave it out and set {TOKEN_VARIABLE}")
    path = parts.path.strip("/")
    return parts.netloc, f"{path}/" if path else "", parts.scheme


def _with_data_source(dashboard: Json) -> Json:
    """The dashboard with the farm's own data source picked, where Grafana would pick its default one."""
    wanted = copy.deepcopy(dashboard)
    for variable in wanted["templating"]["list"]:
        if variable["type"] == "datasource":
            variable["current"] = {"selected": False, "text": DATA_SOURCE_NAME, "value": DATA_SOURCE_UID}
    return wanted


def _content(dashboard: Json) -> Json:
    """A dashboard without what the server adds to it."""
    return {name: value for name, value in dashboard.items() if name not in ("id", "version")}
