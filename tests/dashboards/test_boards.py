"""The rules that every dashboard keeps, and that the checked-in JSON is what the code makes."""

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any, get_args

import promql_parser
import pytest

from dashboards import answers, catalogue, external, health
from dashboards.boards import FOLDER, OVERVIEW_UID, all_dashboards, decisions, files
from dashboards.grafana import TAG
from farm.answers.doctor.regimes import Regime
from farm.answers.statistics import Verdict
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


def parsed(query: str) -> Any:
    """A query with Grafana's own variables filled in."""
    return promql_parser.parse(query.replace("$__rate_interval", "5m"))


def labels_of_metrics() -> dict[str, set[str]]:
    cell = {catalogue.axis_label(field.name) for field in fields()} - {"seed"} | {catalogue.SWEEP_LABEL}
    known = {metric.name: cell | {metric.label} - {""} for metric in catalogue.result_metrics()}
    known |= dict.fromkeys(catalogue.CELL_METRICS, cell)
    for histogram in catalogue.HISTOGRAM_METRICS:
        known |= {f"{histogram.name}_bucket": cell | {"le"}}
        known |= {f"{histogram.name}_{part}": cell for part in ("sum", "count")}
    own = (*health.STORE_METRICS, *health.LIVE_METRICS, *answers.ANSWER_METRICS)
    known |= {metric.name: set(metric.labels) for metric in own}
    return known | external.LABELS


def labels_made_by(node: Any) -> set[str]:
    """Labels that a query's own functions add."""
    made: set[str] = set()
    if isinstance(node, promql_parser.Call) and node.func.name in ("label_replace", "label_join"):
        made.add(node.args[1].val)
    for name in ("expr", "args", "lhs", "rhs"):
        below = getattr(node, name, None)
        for child in below if isinstance(below, list) else [below]:
            if child is not None and not isinstance(child, str | int | float):
                made |= labels_made_by(child)
    return made


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
        expression = parsed(target["expr"])
        found = list(selectors(expression))
        assert found, panel["title"]
        for selector in found:
            labels = {matcher.name for matcher in selector.matchers.matchers}
            assert selector.name in known, panel["title"]
            assert labels <= known[selector.name] | LABELS_FROM_SCRAPING, panel["title"]


@DASHBOARDS
def test_queries_group_and_name_series_by_known_labels(dashboard: Json) -> None:
    for panel, target in queries(dashboard):
        expression = parsed(target["expr"])
        known = labels_made_by(expression) | LABELS_FROM_SCRAPING
        known = known.union(*(labels_of_metrics()[selector.name] for selector in selectors(expression)))
        grouped = re.findall(r"(?:by|ignoring|on|without) \(([\w, ]+)\)", target["expr"])
        legend = re.findall(r"{{(\w+)}}", target["legendFormat"])
        used = {label for group in grouped for label in group.split(", ")} | set(legend)
        assert used <= known, panel["title"]


@DASHBOARDS
def test_variables_read_known_metrics_by_known_labels(dashboard: Json) -> None:
    known = labels_of_metrics()
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            [(selector, label)] = re.findall(r"^label_values\((.*), (\w+)\)$", variable["definition"])
            found = promql_parser.parse(selector)
            labels = {label} | {matcher.name for matcher in found.matchers.matchers}
            assert labels <= known[found.name] | LABELS_FROM_SCRAPING, variable["name"]


@DASHBOARDS
def test_results_are_asked_for_their_newest_values_only(dashboard: Json) -> None:
    """The exporter exposes stored results again at every scrape, so that an instant query suffices; only what
    moves while one looks is drawn over time, and a line of a result beside what a host does."""
    for panel, target in queries(dashboard):
        over_time = panel["type"] == "timeseries"
        assert (target["instant"], target["range"]) == (not over_time, over_time), panel["title"]
        assert "_over_time" not in target["expr"], panel["title"]
        assert "rate(" not in target["expr"] or over_time, panel["title"]


@DASHBOARDS
def test_several_queries_of_a_panel_have_names_of_their_own(dashboard: Json) -> None:
    for panel in dashboard["panels"]:
        names = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(names)) == len(names), panel["title"]


@DASHBOARDS
def test_dashboards_link_to_each_other_and_show_runs(dashboard: Json) -> None:
    (link,) = dashboard["links"]
    assert link["type"] == "dashboards"
    assert link["tags"] == dashboard["tags"] == [TAG]
    (marks,) = dashboard["annotations"]["list"]
    assert marks["target"]["tags"] == [TAG]


def test_there_is_a_dashboard_for_each_question() -> None:
    assert [dashboard["title"] for dashboard in all_dashboards()] == [
        "Sweep overview",
        "Does recycling pay",
        "Pool size",
        "Where are my pages",
        "Architectures compared",
        "Decisions",
        "Farm health",
        "Real against simulated",
    ]
    assert all_dashboards()[0]["uid"] == OVERVIEW_UID


def test_colours_of_decisions_are_of_words_that_the_farm_uses() -> None:
    [verdicts] = [p for p in decisions.build()["panels"] if p["title"] == "Cells by verdict"]
    coloured = {override["matcher"]["options"] for override in verdicts["fieldConfig"]["overrides"]}
    assert coloured - {verdicts["options"]["xField"]} == set(get_args(Verdict))
    assert set(decisions.GOOD_REGIMES) < set(get_args(Regime))


def test_a_hosts_counters_have_the_names_that_node_exporter_gives_them() -> None:
    """node_exporter spells out rx between underscores; the kernel's strings are as mvneta shows them."""
    kernel = "alloc_fast alloc_slow alloc_slow_ho alloc_empty alloc_refill alloc_waive recycle_cached "
    kernel += "recycle_cache_full recycle_ring recycle_ring_full recycle_released_ref"
    from workers.measures import COUNTERS

    sanitized = [re.sub(r"(^|_)rx(_|$)", r"\1received\2", f"rx_pp_{name}") for name in kernel.split()]
    assert [external.ethtool_name(counter) for counter in COUNTERS] == [
        f"node_ethtool_{n}" for n in sanitized
    ]


def used_variables(text: str) -> set[str]:
    return {name for name in re.findall(r"\$\{?(\w+)", text) if not name.startswith("__")}
