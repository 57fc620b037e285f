"""The few parts of Grafana's classic dashboard JSON that the farm's dashboards are built from.

Plain functions that return plain dictionaries: what they leave out, Grafana fills in when it loads
the dashboard. Panels are in :mod:`dashboards.panels` and get id and place from :class:`Grid`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

SCHEMA_VERSION = 39
"""what Grafana 11 writes: old enough for every release still in use, below 42 where the classic form ends"""

COLUMNS = 24

DATA_SOURCE = {"type": "prometheus", "uid": "${data_source}"}
"""every query goes to the data source that the reader picks at the top of the dashboard"""


def data_source_variable() -> Json:
    """The variable that :data:`DATA_SOURCE` refers to."""
    return {
        "current": {},
        "hide": 0,
        "includeAll": False,
        "label": "data source",
        "multi": False,
        "name": "data_source",
        "options": [],
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "type": "datasource",
    }


def label_variable(name: str, title: str, selector: str, *, label: str = "", multiple: bool = False) -> Json:
    """A variable over the values of a label, by default that of its name, on the series of a selector."""
    query = f"label_values({selector}, {label or name})"
    every = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return {
        "current": every if multiple else {},
        "datasource": DATA_SOURCE,
        "definition": query,
        "hide": 0,
        "includeAll": multiple,
        "label": title,
        "multi": multiple,
        "name": name,
        "options": [],
        "query": {"query": query, "refId": "values"},
        # each time the time range changes: sweeps are added while a dashboard is open
        "refresh": 2,
        "regex": "",
        "sort": 1,
        "type": "query",
    }


def table_query(expression: str, name: str = "A") -> Json:
    """The newest values of an expression, one row per series with its labels as columns."""
    return _query(expression, "table", "") | {"refId": name}


def newest_query(expression: str, legend: str) -> Json:
    """The newest values of an expression, each named by ``legend``."""
    return _query(expression, "time_series", legend)


def range_query(expression: str, legend: str, name: str = "A") -> Json:
    """An expression over the dashboard's time, each series named by ``legend``."""
    return _query(expression, "time_series", legend) | {"instant": False, "range": True, "refId": name}


def _query(expression: str, form: str, legend: str) -> Json:
    return {
        "datasource": DATA_SOURCE,
        "editorMode": "code",
        "expr": expression,
        "format": form,
        "instant": True,
        "legendFormat": legend,
        "range": False,
        "refId": "A",
    }


def hide(*fields: str) -> Json:
    """Transformation: leave these columns out."""
    options = {"excludeByName": dict.fromkeys(fields, True), "indexByName": {}, "renameByName": {}}
    return {"id": "organize", "options": options}


def order(*fields: str, hidden: Sequence[str] = ()) -> Json:
    """Transformation: columns in this order, and some left out."""
    places = {field: place for place, field in enumerate(fields)}
    options = {"excludeByName": dict.fromkeys(hidden, True), "indexByName": places, "renameByName": {}}
    return {"id": "organize", "options": options}


def merge(columns: Mapping[str, str]) -> list[Json]:
    """Transformations: answers of several table queries side by side, each value in a column of its own.

    Arguments:
        columns: names of the columns by name of the query.
    """
    renamed = {f"Value #{query}": column for query, column in columns.items()}
    options = {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": renamed}
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": options}]


def to_number(field: str) -> Json:
    """Transformation: read a label as a number, so that 64 sorts before 1024."""
    conversion = {"destinationType": "number", "targetField": field}
    return {"id": "convertFieldType", "options": {"conversions": [conversion], "fields": {}}}


def to_text(field: str) -> Json:
    """Transformation: read a field as text, which the axis of a bar chart has to be."""
    conversion = {"destinationType": "string", "targetField": field}
    return {"id": "convertFieldType", "options": {"conversions": [conversion], "fields": {}}}


def sort_by(field: str, *, descending: bool = False) -> Json:
    """Transformation: sort rows by a field; rows that tie stay in the order they had."""
    return {"id": "sortBy", "options": {"fields": {}, "sort": [{"desc": descending, "field": field}]}}


def matrix(rows: str, columns: str) -> Json:
    """Transformation: one row per value of ``rows`` and one column per value of ``columns``."""
    # what is missing has no bar; the default is an empty text, which becomes a bar of height 0
    options = {"columnField": columns, "emptyValue": "null", "rowField": rows, "valueField": "Value"}
    return {"id": "groupingToMatrix", "options": options}


def corner(rows: str, columns: str) -> str:
    """The name that :func:`matrix` gives to the field holding the rows' own values."""
    return f"{rows}\\{columns}"


def override(field: str, **properties: object) -> Json:
    """Settings of one field; ``__`` in a property's name stands for a dot."""
    return {
        "matcher": {"id": "byName", "options": field},
        "properties": [
            {"id": name.replace("__", "."), "value": value} for name, value in sorted(properties.items())
        ],
    }


def words(meanings: Mapping[str, tuple[str, str]]) -> list[Json]:
    """Mappings: what a value is shown as, and in which colour."""
    options = {
        value: {"color": colour, "index": place, "text": word}
        for place, (value, (word, colour)) in enumerate(meanings.items())
    }
    return [{"options": options, "type": "value"}]


def thresholds(base: str, *steps: tuple[float, str]) -> Json:
    """Colours by value: ``base`` up to the first step, then each step's colour from its value on."""
    return {
        "mode": "absolute",
        "steps": [
            {"color": base, "value": None},
            *({"color": color, "value": value} for value, color in steps),
        ],
    }


class Grid:
    """Places panels from left to right and from top to bottom, and numbers them."""

    def __init__(self) -> None:
        self.panels: list[Json] = []
        self._x = 0
        self._y = 0
        self._line_height = 0

    def place(self, panel: Json, width: int, height: int) -> None:
        """Put a panel beside the last one, or below if the line is full."""
        if self._x + width > COLUMNS:
            self._break_line()
        position = {"h": height, "w": width, "x": self._x, "y": self._y}
        self.panels.append(panel | {"gridPos": position, "id": len(self.panels) + 1})
        self._x += width
        self._line_height = max(self._line_height, height)

    def row(self, title: str, repeat: str = "") -> None:
        """Start a titled row, which is repeated for every value of a variable if one is named."""
        self._break_line()
        row: Json = {"collapsed": False, "panels": [], "title": title, "type": "row"}
        self.place(row | ({"repeat": repeat} if repeat else {}), COLUMNS, 1)

    def _break_line(self) -> None:
        self._x = 0
        self._y += self._line_height
        self._line_height = 0


TAG = "page-pool-farm"
"""of the dashboards, which link to each other by it, and of the annotations that mark runs"""

_RUNS = {
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": False,
    "iconColor": "blue",
    "name": "runs",
    "target": {"limit": 100, "matchAny": False, "tags": [TAG], "type": "tags"},
}

_OTHERS = {
    "asDropdown": False,
    "icon": "external link",
    "includeVars": True,
    "keepTime": True,
    "tags": [TAG],
    "targetBlank": False,
    "title": "page_pool farm",
    "type": "dashboards",
    "url": "",
}


def dashboard(
    uid: str, title: str, description: str, variables: Sequence[Json], grid: Grid, *, refresh: str = ""
) -> Json:
    """A whole dashboard, with links to those beside it and a mark for each run."""
    return {
        "annotations": {"list": [_RUNS]},
        "description": description,
        "editable": True,
        "graphTooltip": 1,
        "links": [_OTHERS],
        "panels": grid.panels,
        "refresh": refresh,
        "schemaVersion": SCHEMA_VERSION,
        "tags": [TAG],
        "templating": {"list": list(variables)},
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "title": title,
        "uid": uid,
    }
