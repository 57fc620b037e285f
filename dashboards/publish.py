"""Puts data source, folder and dashboards on a Grafana.

All calls go by uid: numeric ids are gone from newer servers. To push the same again changes nothing. What is
on the server is only replaced if it is as some push left it, which its tags say: the version of the farm
that made it, and a digest of its content.
"""

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Literal, NamedTuple
from urllib.parse import quote

from dashboards.connection import Connection, PublishError
from dashboards.grafana import TAG, Json

DATA_SOURCE_UID = "page-pool-farm-prometheus"
DATA_SOURCE_NAME = "page-pool-farm"
FOLDER_UID = "page-pool-farm"

Kind = Literal["data source", "folder", "dashboard"]
Change = Literal["created", "updated", "unchanged", "deleted"]

_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")


class Published(NamedTuple):
    """What became of one thing on the server, or would without ``dry_run``."""

    kind: Kind
    uid: str
    change: Change


class Publisher:
    """Publishes through one connection.

    Arguments:
        dry_run: look, and say what would change, but change nothing.
        force: put dashboards over what was changed on the server by hand or by a newer farm.
    """

    def __init__(self, connection: Connection, *, dry_run: bool = False, force: bool = False) -> None:
        self._connection = connection
        self._api = connection.grafana.api
        self._dry_run = dry_run
        self._force = force

    def publish(
        self, dashboards: Iterable[Json], *, prometheus_url: str, folder_title: str, prune: bool = False
    ) -> list[Published]:
        """Put everything on the server, in the order in which one needs the other.

        Arguments:
            prune: delete dashboards of the farm in its folder that it no longer has.

        Raises:
            PublishError: at the first refusal; what was published before stays.
        """
        published = [self.put_data_source(prometheus_url), self.put_folder(folder_title)]
        published += [self.put_dashboard(dashboard) for dashboard in dashboards]
        if prune:
            kept = {one.uid for one in published if one.kind == "dashboard"}
            published += [self.delete_dashboard(uid) for uid in self.left_over(kept)]
        return published

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
        path = f"/datasources/uid/{DATA_SOURCE_UID}"
        found = self._connection.find(subject, lambda: self._api.GET(path))
        if found is None:
            self._write(subject, lambda: self._api.POST("/datasources", json=wanted))
            return Published("data source", DATA_SOURCE_UID, "created")
        # the name is for people, who may have chosen another one
        kept = {name: found.get(name) for name in ("access", "type", "url")}
        if kept == {name: wanted[name] for name in kept}:
            return Published("data source", DATA_SOURCE_UID, "unchanged")
        if found.get("readOnly"):
            raise PublishError(
                f"{self._connection.url}: {subject} comes from a provisioning file with url "
                f"{found.get('url')!r}; change it there, or push with that url"
            )
        body = found | wanted | {"name": found.get("name", DATA_SOURCE_NAME)}
        self._write(subject, lambda: self._api.PUT(path, json=body))
        return Published("data source", DATA_SOURCE_UID, "updated")

    def put_folder(self, title: str) -> Published:
        """Make the farm's folder, or give it this title.

        Raises:
            PublishError: the server refuses.
        """
        subject = f"folder {FOLDER_UID!r}"
        folder = self._connection.grafana.folder
        found = self._connection.find(subject, lambda: folder.get_folder(FOLDER_UID))
        if found is None:
            self._write(subject, lambda: folder.create_folder(title, FOLDER_UID))
            return Published("folder", FOLDER_UID, "created")
        if found.get("title") == title:
            return Published("folder", FOLDER_UID, "unchanged")
        number = found.get("version")
        self._write(subject, lambda: folder.update_folder(FOLDER_UID, title, version=number))
        return Published("folder", FOLDER_UID, "updated")

    def put_dashboard(self, dashboard: Json) -> Published:
        """Put a dashboard into the farm's folder, over what an earlier push left there under its uid.

        A change that comes in between is not overwritten.

        Raises:
            PublishError: the server refuses, or has a newer one and nobody said ``force``.
        """
        uid = str(dashboard["uid"])
        if not _UID.fullmatch(uid):
            raise PublishError(f"dashboard uid {uid!r}: use at most 40 of a-z, A-Z, 0-9, '-' and '_'")
        subject = f"dashboard {uid!r}"
        wanted = stamped(_with_data_source(dashboard))
        calls = self._connection.grafana.dashboard
        found = self._connection.find(subject, lambda: calls.get_dashboard(uid))
        body: Json = {"dashboard": wanted, "folderUid": FOLDER_UID, "overwrite": False}
        if found is not None:
            there, meta = found.get("dashboard", {}), found.get("meta", {})
            if meta.get("folderUid") == FOLDER_UID and _content(there) == _content(wanted):
                return Published("dashboard", uid, "unchanged")
            if meta.get("provisioned"):
                raise PublishError(
                    f"{self._connection.url}: {subject} comes from a provisioning file; change it there"
                )
            self._check_not_newer(subject, there)
            body["dashboard"] = wanted | {"version": there.get("version")}
        self._write(subject, lambda: calls.update_dashboard(body))
        return Published("dashboard", uid, "created" if found is None else "updated")

    def left_over(self, kept: Iterable[str]) -> list[str]:
        """Uids of the farm's dashboards in its folder that are none of these.

        Raises:
            PublishError: the server refuses.
        """
        path = f"/search?type=dash-db&tag={quote(TAG)}&folderUIDs={quote(FOLDER_UID)}&limit=5000"
        found = self._connection.list_of("search", lambda: self._api.GET(path))
        return sorted({str(one.get("uid")) for one in found} - set(kept))

    def delete_dashboard(self, uid: str) -> Published:
        """Delete a dashboard as an earlier push left it.

        Raises:
            PublishError: the server refuses, or has a newer one and nobody said ``force``.
        """
        subject = f"dashboard {uid!r}"
        calls = self._connection.grafana.dashboard
        found = self._connection.call(subject, lambda: calls.get_dashboard(uid))
        self._check_not_newer(subject, found.get("dashboard", {}))
        self._write(subject, lambda: calls.delete_dashboard(uid))
        return Published("dashboard", uid, "deleted")

    def _write(self, subject: str, call: Callable[[], object]) -> None:
        if not self._dry_run:
            self._connection.call(subject, call)

    def _check_not_newer(self, subject: str, there: Json) -> None:
        reason = _newer(there)
        if reason and not self._force:
            raise PublishError(
                f"{self._connection.url}: {subject} is newer on the server: {reason}; look at its versions "
                "there, then push with --force to put this one over it"
            )


def stamped(dashboard: Json) -> Json:
    """The dashboard with tags that say which farm made it and what its content is."""
    tags = [f"farm-{version('page-pool-farm')}", f"content-{_digest(dashboard)}"]
    return dashboard | {"tags": [*dashboard["tags"], *tags]}


def _newer(there: Json) -> str:
    """Why what is on the server must not be replaced without asking, or empty."""
    tags = [str(tag) for tag in there.get("tags", ())]
    stamps = [tag.removeprefix("content-") for tag in tags if tag.startswith("content-")]
    plain = there | {"tags": [tag for tag in tags if not tag.startswith(("content-", "farm-"))]}
    if stamps != [_digest(plain)]:
        return "somebody has edited it"
    made_by = [tag.removeprefix("farm-") for tag in tags if tag.startswith("farm-")]
    if made_by and _numbers(made_by[0]) > _numbers(version("page-pool-farm")):
        return f"page-pool-farm {made_by[0]} made it"
    return ""


def _digest(dashboard: Json) -> str:
    text = json.dumps(_content(dashboard), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


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
