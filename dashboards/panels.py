"""The kinds of panel that the dashboards are made of."""

from collections.abc import Sequence

from dashboards import grafana
from dashboards.grafana import DATA_SOURCE, Json


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


def table(
    title: str,
    description: str,
    *queries: Json,
    unit: str,
    transformations: Sequence[Json],
    overrides: Sequence[Json] = (),
) -> Json:
    """A plain table; ``unit`` is that of its values, unless several queries name their columns."""
    return {
        "datasource": DATA_SOURCE,
        "description": description,
        "fieldConfig": {
            "defaults": {"custom": {"align": "auto"}, "unit": "string"},
            "overrides": [grafana.override("Value", unit=unit), *overrides],
        },
        "options": {"cellHeight": "sm", "footer": {"show": False}, "showHeader": True},
        "targets": list(queries),
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
        # in the order of the bars: by name, several categories get the same colour
        "color": {"mode": "palette-classic"},
        "custom": {"axisPlacement": "auto", "fillOpacity": 85, "gradientMode": "none", "lineWidth": 1},
        "min": 0,
        "unit": unit,
    }
    if maximum is not None:
        defaults["max"] = maximum
    elif unit == "percentunit":
        # an axis of nothing but zeros would go up to 10,000 %
        defaults["custom"]["axisSoftMax"] = 0.01
    return {
        "datasource": DATA_SOURCE,
        "description": description,
        # text that looks like a number would be shown in the unit of the bars
        "fieldConfig": {
            "defaults": defaults,
            "overrides": [grafana.override(x_field, unit="string"), *overrides],
        },
        "options": {
            "barWidth": 0.9,
            "groupWidth": 0.8,
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
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


def time_series(title: str, description: str, queries: Sequence[Json], *, unit: str) -> Json:
    """Lines over the dashboard's time."""
    return {
        "datasource": DATA_SOURCE,
        "description": description,
        "fieldConfig": {
            "defaults": {
                "color": {"mode": "palette-classic-by-name"},
                "custom": {"drawStyle": "line", "fillOpacity": 0, "lineWidth": 2, "showPoints": "auto"},
                "min": 0,
                "unit": unit,
            },
            "overrides": [],
        },
        "options": {
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
        "targets": list(queries),
        "title": title,
        "type": "timeseries",
    }
