"""The rules that every dashboard keeps, and that the checked-in JSON is what the code makes."""

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import promql_parser
import pytest

import dashboards
from dashboards.panels import FOLDER, all_dashboards, files
from workers.config import fields

Json = dict[str, Any]

DASHBOARDS = pytest.mark.parametrize("dashboard", all_dashboards(), ids=lambda dashboard: dashboard["uid"])

KNOWN_UNITS = {"bytes", "none", "percentunit", "s", "short", "string"}
"""units of Grafana that the dashboards may use; all of them are in its list of formats"""

LABELS_FROM_SCRAPING = {"instance", "job"}


def queries(dashboard: Json) -> list[tuple[Json, Json]]:
    return [(panel, target) for panel in dashboard["panels"] for target in panel.get("targets", [])]


def selectors(node: Any) -> Iterator[Any]:
    """Every vector selector in a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "vector_selector", "args", "lhs", "rhs"):
        below = getattr(node, name, None)
        for child in below if isinstance(below, list) else [below]:
            if child is not None and not isinstance(child, str | int | float):
                yield from selectors(child)


def labels_of_metrics() -> dict[str, set[str]]:
    every_axis = {dashboards.axis_label(field.name) for field in fields()} - {"seed"}
    results = {
        metric.name: every_axis | {dashboards.SWEEP_LABEL, metric.label} - {""}
        for metric in dashboards.result_metrics()
    }
    return results | {metric.name: set(metric.labels) for metric in dashboards.HEALTH_METRICS}


def labels_made_by(node: Any) -> set[str]:
    """Labels that a query's own functions add."""
    if not isinstance(node, promql_parser.Call):
        return set()
    below = set().union(*(labels_made_by(argument) for argument in node.args))
    return below | ({node.args[1].val} if node.func.name in ("label_replace", "label_join") else set())


@pytest.mark.parametrize(("path", "text"), files().items(), ids=lambda value: getattr(value, "name", ""))
def test_checked_in_json_is_current(path: Any, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text, "stale: run python -m dashboards"


def test_no_json_is_left_over() -> None:
    assert sorted(FOLDER.glob("*.json")) == sorted(files())


def test_uids_and_titles_are_unique() -> None:
    for key in ("uid", "title"):
        values = [dashboard[key] for dashboard in all_dashboards()]
        assert len(set(values)) == len(values)


@DASHBOARDS
def test_uid_and_schema_suit_the_servers_in_use(dashboard: Json) -> None:
    assert re.fullmatch(r"[a-z0-9-]{1,40}", dashboard["uid"])
    assert dashboard["schemaVersion"] <= 42


@DASHBOARDS
def test_panel_ids_are_unique(dashboard: Json) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


@DASHBOARDS
def test_panels_lie_on_the_grid_without_overlap(dashboard: Json) -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in dashboard["panels"]]
    for title, place in places:
        assert place["x"] >= 0, title
        assert place["w"] > 0, title
        assert place["h"] > 0, title
        assert place["x"] + place["w"] <= 24, title
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one!r} and {other!r} overlap"


@DASHBOARDS
def test_every_query_goes_to_the_chosen_data_source(dashboard: Json) -> None:
    chosen = {"type": "prometheus", "uid": "${data_source}"}
    for panel, target in queries(dashboard):
        assert panel["datasource"] == target["datasource"] == chosen
    variables = dashboard["templating"]["list"]
    assert [v["name"] for v in variables if v["type"] == "datasource"] == ["data_source"]
    assert all(v["datasource"] == chosen for v in variables if v["type"] == "query")


@DASHBOARDS
def test_units_are_known(dashboard: Json) -> None:
    configs = [panel["fieldConfig"] for panel in dashboard["panels"] if panel["type"] != "row"]
    units = {config["defaults"]["unit"] for config in configs}
    units |= {
        setting["value"]
        for config in configs
        for override in config["overrides"]
        for setting in override["properties"]
        if setting["id"] == "unit"
    }
    assert units <= KNOWN_UNITS


@DASHBOARDS
def test_every_panel_says_what_good_looks_like(dashboard: Json) -> None:
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert "Good:" in panel["description"], panel["title"]


@DASHBOARDS
def test_variables_are_declared_before_they_are_used(dashboard: Json) -> None:
    declared: set[str] = set()
    for variable in dashboard["templating"]["list"]:
        assert used_variables(variable.get("definition", "")) <= declared
        declared.add(variable["name"])
    for panel in dashboard["panels"]:
        texts = [panel["title"], *(t["expr"] + t["legendFormat"] for t in panel.get("targets", []))]
        assert used_variables(" ".join(texts)) <= declared, panel["title"]
        assert {panel["repeat"]} <= declared if "repeat" in panel else True


@DASHBOARDS
def test_queries_read_known_metrics_by_known_labels(dashboard: Json) -> None:
    known = labels_of_metrics()
    for panel, target in queries(dashboard):
        expression = promql_parser.parse(target["expr"])
        found = list(selectors(expression))
        assert found, panel["title"]
        for selector in found:
            labels = {matcher.name for matcher in selector.matchers.matchers}
            assert selector.name in known, panel["title"]
            assert labels <= known[selector.name] | LABELS_FROM_SCRAPING, panel["title"]


@DASHBOARDS
def test_queries_group_and_name_series_by_known_labels(dashboard: Json) -> None:
    for panel, target in queries(dashboard):
        names = [selector.name for selector in selectors(promql_parser.parse(target["expr"]))]
        known = set().union(*(labels_of_metrics()[name] for name in names))
        grouped = re.findall(r"(?:by|ignoring|on|without) \(([\w, ]+)\)", target["expr"])
        legend = re.findall(r"{{(\w+)}}", target["legendFormat"])
        used = {label for group in grouped for label in group.split(", ")} | set(legend)
        assert used <= known, panel["title"]


@DASHBOARDS
def test_transformations_use_fields_that_the_query_returns(dashboard: Json) -> None:
    for panel, target in queries(dashboard):
        (grouped,) = re.findall(r"by \(([\w, ]+)\)", target["expr"])[:1] or [""]
        present = {*grouped.split(", "), *labels_made_by(promql_parser.parse(target["expr"])), "Value"}
        for step in panel.get("transformations", []):
            options = step["options"]
            if step["id"] == "sortBy":
                assert {order["field"] for order in options["sort"]} <= present, panel["title"]
            elif step["id"] == "convertFieldType":
                assert {c["targetField"] for c in options["conversions"]} <= present, panel["title"]
            else:
                assert step["id"] == "groupingToMatrix", panel["title"]
                rows, columns, value = (options[f"{n}Field"] for n in ("row", "column", "value"))
                assert {rows, columns, value} <= present, panel["title"]
                present = {f"{rows}\\{columns}"}


@DASHBOARDS
def test_queries_ask_for_the_newest_values_only(dashboard: Json) -> None:
    """The exporter exposes stored results again at every scrape, so that an instant query suffices."""
    for panel, target in queries(dashboard):
        assert (target["instant"], target["range"]) == (True, False), panel["title"]
        assert "_over_time" not in target["expr"], panel["title"]


def used_variables(text: str) -> set[str]:
    return set(re.findall(r"\$\{?(\w+)", text))
