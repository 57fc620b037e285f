"""The few parts of Grafana's classic dashboard JSON that the farm's dashboards are built from.

Plain functions that return plain dictionaries: what they leave out, Grafana fills in when it loads
the dashboard. Panels get their id and place from :class:`Grid`.
"""

from collections.abc import Sequence
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


def label_variable(name: str, label: str, selector: str, *, multiple: bool = False) -> Json:
    """A variable over the values that the Prometheus label ``name`` has on the series of ``selector``."""
    query = f"label_values({selector}, {name})"
    every = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return {
        "current": every if multiple else {},
        "datasource": DATA_SOURCE,
        "definition": query,
        "hide": 0,
        "includeAll": multiple,
        "label": label,
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


def table_query(expression: str) -> Json:
    """The newest values of an expression, one row per series with its labels as columns."""
    return _query(expression, "table", "")


def newest_query(expression: str, legend: str) -> Json:
    """The newest values of an expression, each named by ``legend``."""
    return _query(expression, "time_series", legend)


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


def to_number(field: str) -> Json:
    """Transformation: read a label as a number, so that 64 sorts before 1024."""
    conversion = {"destinationType": "number", "targetField": field}
    return {"id": "convertFieldType", "options": {"conversions": [conversion], "fields": {}}}


def to_text(field: str) -> Json:
    """Transformation: read a field as text, which the axis of a bar chart has to be."""
    conversion = {"destinationType": "string", "targetField": field}
    return {"id": "convertFieldType", "options": {"conversions": [conversion], "fields": {}}}


def sort_by(field: str) -> Json:
    """Transformation: sort rows by a field; rows that tie stay in the order they had."""
    return {"id": "sortBy", "options": {"fields": {}, "sort": [{"desc": False, "field": field}]}}


def matrix(rows: str, columns: str) -> Json:
    """Transformation: one row per value of ``rows`` and one column per value of ``columns``."""
    options = {"columnField": columns, "rowField": rows, "valueField": "Value"}
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


def thresholds(base: str, *steps: tuple[float, str]) -> Json:
    """Colours by value: ``base`` up to the first step, then each step's colour from its value on."""
    return {
        "mode": "absolute",
        "steps": [
            {"color": base, "value": None},
            *({"color": color, "value": value} for value, color in steps),
        ],
    }


def stat(
    title: str,
    description: str,
    query: Json,
    *,
    unit: str,
    decimals: int = 0,
    text_mode: str = "value_and_name",
) -> Json:
    """A panel with a few values in large type."""
    return {
        "datasource": DATA_SOURCE,
        "description": description,
        "fieldConfig": {
            "defaults": {
                "color": {"fixedColor": "text", "mode": "fixed"},
                "decimals": decimals,
                "unit": unit,
            },
            "overrides": [],
        },
        "options": {
            "colorMode": "none",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": text_mode,
        },
        "targets": [query],
        "title": title,
        "type": "stat",
    }


def coloured_table(
    title: str,
    description: str,
    query: Json,
    *,
    unit: str,
    colours: Json,
    transformations: Sequence[Json],
    overrides: Sequence[Json],
) -> Json:
    """A table whose cells are coloured by value."""
    return {
        "datasource": DATA_SOURCE,
        "description": description,
        "fieldConfig": {
            "defaults": {
                "color": {"mode": "thresholds"},
                "custom": {"align": "auto", "cellOptions": {"mode": "basic", "type": "color-background"}},
                "decimals": 1,
                "thresholds": colours,
                "unit": unit,
            },
            "overrides": list(overrides),
        },
        "options": {"cellHeight": "sm", "footer": {"show": False}, "showHeader": True},
        "targets": [query],
        "title": title,
        "transformations": list(transformations),
        "type": "table",
    }


def bar_chart(
    title: str,
    description: str,
    query: Json,
    *,
    unit: str,
    x_field: str,
    transformations: Sequence[Json],
    overrides: Sequence[Json] = (),
    stacked: bool = False,
    maximum: float | None = None,
) -> Json:
    """Bars over the values of a field, side by side or stacked."""
    defaults: Json = {
        "color": {"mode": "palette-classic-by-name"},
        "custom": {"axisPlacement": "auto", "fillOpacity": 85, "gradientMode": "none", "lineWidth": 1},
        "min": 0,
        "unit": unit,
    }
    if maximum is not None:
        defaults["max"] = maximum
    return {
        "datasource": DATA_SOURCE,
        "description": description,
        # text that looks like a number would be shown in the unit of the bars
        "fieldConfig": {"defaults": defaults, "overrides": [override(x_field, unit="string"), *overrides]},
        "options": {
            "barWidth": 0.9,
            "groupWidth": 0.8,
            "legend": {
                "calcs": [],
                "displayMode": "list",
                "placement": "right" if stacked else "bottom",
                "showLegend": True,
            },
            "orientation": "vertical",
            "showValue": "never",
            "stacking": "normal" if stacked else "none",
            "tooltip": {"mode": "multi", "sort": "desc" if stacked else "none"},
            "xField": x_field,
            "xTickLabelRotation": 0,
        },
        "targets": [query],
        "title": title,
        "transformations": list(transformations),
        "type": "barchart",
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

    def row(self, title: str, repeat: str) -> None:
        """Start a titled row, which is repeated for every value of a variable."""
        self._break_line()
        row = {"collapsed": False, "panels": [], "repeat": repeat, "title": title, "type": "row"}
        self.place(row, COLUMNS, 1)

    def _break_line(self) -> None:
        self._x = 0
        self._y += self._line_height
        self._line_height = 0


def dashboard(uid: str, title: str, description: str, variables: Sequence[Json], grid: Grid) -> Json:
    """A whole dashboard."""
    return {
        "annotations": {"list": []},
        "description": description,
        "editable": True,
        "graphTooltip": 0,
        "links": [],
        "panels": grid.panels,
        "refresh": "",
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["page-pool-farm"],
        "templating": {"list": list(variables)},
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "title": title,
        "uid": uid,
    }
