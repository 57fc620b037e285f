"""Marks of runs on a Grafana, start to end: on the sweep overview, and on all dashboards by their tag."""

from collections.abc import Sequence

from dashboards.boards import OVERVIEW_UID
from dashboards.connection import Connection, PublishError
from dashboards.grafana import TAG


class Annotator:
    """Marks runs through one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._api = connection.grafana.api

    def check(self) -> None:
        """Whether the server answers and takes the token.

        Raises:
            PublishError: it does not.
        """
        self._connection.call("organization", lambda: self._api.GET("/org"))

    def start(self, time_ms: int, text: str, tags: Sequence[str]) -> int:
        """Mark a start; the id under which :meth:`end` finds the mark.

        Arguments:
            time_ms: milliseconds since 1970.

        Raises:
            PublishError: the server refuses.
        """
        body = {"dashboardUID": OVERVIEW_UID, "tags": [TAG, *tags], "text": text, "time": time_ms}
        made = self._connection.call("annotation", lambda: self._api.POST("/annotations", json=body))
        number = made.get("id")
        if not isinstance(number, int):
            raise PublishError(f"{self._connection.url}: annotation: the answer has no id; is it a Grafana?")
        return number

    def end(self, number: int, time_ms: int, text: str) -> None:
        """Let a mark reach up to a time, with a new text.

        Raises:
            PublishError: the server refuses.
        """
        body = {"text": text, "timeEnd": time_ms}
        self._connection.call("annotation", lambda: self._api.PATCH(f"/annotations/{number}", json=body))
