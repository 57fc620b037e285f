"""Every query of every dashboard, asked of a real Prometheus, against SQL on the stored Parquet parts."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

from dashboards.boards import all_dashboards
from farm.store.runs import Run
from tests.dashboards import history, questions
from tests.dashboards.history import slope_of
from tests.dashboards.questions import CELLS, GAINS, HOLD_BUCKETS, LABELS, PACKETS, Question
from tests.dashboards.test_rules import name_of, rules
from workers.measures import COUNTERS

Json = dict[str, Any]
Values = dict[frozenset[tuple[str, str]], float]
"""what a query returns: values by labels"""

PANELS: dict[tuple[str, str, str], Json] = {
    (dashboard["uid"].removeprefix("page-pool-farm-"), panel["title"], target["refId"]): panel
    for dashboard in all_dashboards()
    for panel in dashboard["panels"]
    for target in panel.get("targets", [])
}
"""by dashboard, title and name of the query"""

FROM_SQL: dict[tuple[str, str, str], Question] = {
    (board, title, name): question
    for board, name, asked in (
        ("recycling", "A", questions.RECYCLING),
        ("pool-size", "A", questions.POOL_SIZE),
        ("pages", "A", questions.PAGES),
        ("architectures", "A", questions.ARCHITECTURES),
        ("real-host", "B", questions.REAL),
    )
    for title, question in asked.items()
}

FROM_ANSWERS: dict[tuple[str, str, str], str] = {
    ("decisions", title, name): sql for (title, name), sql in questions.DECISIONS.items()
}

CHOICES = {
    "recycling": ("archs", "traffic_kind"),
    "pool-size": ("archs", "traffic_kind"),
    "pages": ("arch", "traffic_kind", "pool_recycle"),
    "architectures": ("traffic_kind", "pool_size", "pool_recycle", "base"),
    "real-host": ("arch", "traffic_kind", "pool_size", "pool_recycle"),
}
"""variables of each dashboard about results"""


class Scraped(NamedTuple):
    """A stored run that a Prometheus has scraped."""

    prometheus: Any
    root: Path
    run: Run
    other_axis: str
    """axis that the dashboards average over"""
    planned: int
    until: float
    """end of the history that the Prometheus holds beside"""
    connection: duckdb.DuckDBPyConnection

    def ask(self, sql: str, **parameters: object) -> list[Json]:
        """Rows of SQL on the parts of the run."""
        for kind in ("records", "failures", "attempts"):
            if f"${kind}" in sql:
                parameters[kind] = str(self.run.path / kind / "*.parquet")
        parameters["answers"] = str(self.root / ".answers" / "*.json")
        used = {name: value for name, value in parameters.items() if f"${name}" in sql}
        answer = self.connection.execute(sql, used)
        names = [column[0] for column in answer.description or ()]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    def choices(self, board: str) -> Iterator[Json]:
        """What a reader can pick for a dashboard's variables."""

        def column(name: str) -> list[str]:
            rows = self.ask(f'SELECT DISTINCT "{name}"::VARCHAR AS value FROM read_parquet($records)')
            return sorted(row["value"] for row in rows)

        archs = column("arch")
        options: dict[str, list[Any]] = {
            "archs": [archs, archs[:1]],
            "arch": archs,
            "base": archs[:1],
            "traffic_kind": column("traffic.kind"),
            "pool_size": column("pool.size")[:1],
            "pool_recycle": column("pool.recycle"),
        }
        names = CHOICES[board]
        every = list(product(*(options[name] for name in names)))
        # all of them would take minutes
        for values in (every[0], every[len(every) // 2], every[-1]):
            chosen = dict(zip(names, values, strict=True))
            yield {"arch" if name == "archs" else name: value for name, value in chosen.items()}

    def decisions(self) -> Iterator[Json]:
        """The same for the dashboard of decisions: each comparison with each of its sides."""
        sides = self.ask(
            f"{questions.FIGURES} SELECT DISTINCT answer AS comparison, other FROM figures "
            "WHERE metric = 'compared_cells' ORDER BY ALL"
        )
        (advice,) = self.ask(
            f"{questions.FIGURES} SELECT DISTINCT answer AS advice FROM figures "
            "WHERE metric = 'advice_new_pages_ratio'"
        )
        yield from (one | advice for one in sides)


@pytest.fixture(scope="module", params=["made-up", "simulated"])
def scraped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, run_prometheus: Any
) -> Iterator[Scraped]:
    directory = tmp_path_factory.mktemp("prometheus")
    if request.param == "made-up":
        root, run = request.getfixturevalue("made_up_store")
        axis, planned = "app.work_ns", 144
    else:
        root, run = request.getfixturevalue("simulated_store")
        axis, planned = "nic.rx_ring", 32
    until = history.end()
    with (
        run_prometheus(root, directory, history.openmetrics(run.sweep_name, until)) as prometheus,
        duckdb.connect() as connection,
    ):
        yield Scraped(prometheus, root, run, axis, planned, until, connection)


def query_of(board: str, title: str, name: str = "A") -> str:
    """The query of a panel."""
    (query,) = (t["expr"] for t in PANELS[board, title, name]["targets"] if t["refId"] == name)
    return str(query)


def filled_in(query: str, run: Run, choice: Mapping[str, Any]) -> str:
    """A query as Grafana sends it: several values of a variable become a group of a regular expression."""
    values = {"sweep": run.sweep_name, "host": "host", "device": "eth0", "__rate_interval": "5m"}
    for name, value in choice.items():
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        values[name] = f"({'|'.join(one)})" if isinstance(one, list) else one
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], query)


def returned(scraped: Scraped, query: str, time: float | None = None) -> Values:
    """What Prometheus answers."""
    series = scraped.prometheus.query(query, time)
    values = {frozenset(one["metric"].items()): float(one["value"][1]) for one in series}
    assert len(values) == len(series)
    return values


def rows_of(scraped: Scraped, question: Question, choice: Mapping[str, Any]) -> list[Json]:
    """What SQL says of the stored records."""
    conditions = [
        f"{name} IN (SELECT unnest($arch))" if isinstance(choice[name], list) else f"{name} = ${name}"
        for name in choice
        if name != "base"
    ]
    sql = CELLS + (PACKETS if question.histogram else "") + (GAINS if question.gains else "")
    filled = (sql + question.select).format(
        labels=LABELS,
        others=f'"{scraped.other_axis}"',
        columns=question.columns,
        choice=" AND ".join(conditions),
        histogram=question.histogram,
    )
    return scraped.ask(filled, **choice)


def by_labels(rows: list[Json]) -> Values:
    values = {frozenset((n, v) for n, v in row.items() if n != "value"): row["value"] for row in rows}
    assert len(values) == len(rows)
    # an average over nothing is no value
    return {labels: value for labels, value in values.items() if value is not None}


def expected_quantiles(rows: list[Json]) -> Values:
    """Quantiles as Prometheus' manual has them: linear within the bucket that holds the rank."""
    values: Values = {}
    bounds = [((1 << bits) - 1) / 1e12 for bits in range(18, 39)]
    for size in {row["pool_size"] for row in rows}:
        times = [(row["low_ps"] / 1e12, row["packets"]) for row in rows if row["pool_size"] == size]
        up_to = [sum(n for time, n in times if time <= bound) for bound in bounds]
        total = sum(n for _, n in times)
        for share, word in ((0.5, "p50"), (0.99, "p99")):
            at = next((i for i, count in enumerate(up_to) if count >= share * total), None)
            if at is None:
                value = bounds[-1]
            else:
                low, below = (bounds[at - 1], up_to[at - 1]) if at else (0.0, 0)
                value = low + (bounds[at] - low) * (share * total - below) / (up_to[at] - below)
            values[frozenset({("pool_size", size), ("quantile", word)})] = value
    return values


def check_transformations(panel: Json, values: Values) -> None:
    """A panel's transformations name what the query returns."""
    present = {"Time", "Value"} | {name for labels in values for name, _ in labels}
    if len(panel["targets"]) > 1:
        present |= {f"Value #{target['refId']}" for target in panel["targets"]}
    for step in panel.get("transformations", []):
        options = step["options"]
        match step["id"]:
            case "sortBy":
                used = {order["field"] for order in options["sort"]}
            case "convertFieldType":
                used = {conversion["targetField"] for conversion in options["conversions"]}
            case "merge":
                used = set()
            case "organize":
                used = set(options["excludeByName"]) | set(options["indexByName"])
                used |= set(options["renameByName"])
                present |= set(options["renameByName"].values())
            case "groupingToMatrix":
                used = {options[f"{name}Field"] for name in ("row", "column", "value")}
            case other:
                pytest.fail(f"unknown transformation {other}")
        assert used <= present, panel["title"]
        if step["id"] == "groupingToMatrix":
            present = {f"{options['rowField']}\\{options['columnField']}"}


@pytest.mark.parametrize("key", FROM_SQL, ids="/".join)
def test_results_are_those_of_the_stored_records(scraped: Scraped, key: tuple[str, str, str]) -> None:
    board, title, name = key
    question = FROM_SQL[key]
    choices = list(scraped.choices(board))
    assert choices
    answers = 0
    for choice in choices:
        chosen = {n: v for n, v in choice.items() if n != "pool_recycle" or title not in questions.BOTH_WAYS}
        wanted = by_labels(rows_of(scraped, question, chosen))
        found = returned(scraped, filled_in(query_of(board, title, name), scraped.run, choice))
        # with nothing returned there is no share of it, on either side
        assert found == pytest.approx(wanted, rel=1e-12, abs=1e-15, nan_ok=True), choice
        answers += len(found)
        if found:
            check_transformations(PANELS[key], found)
    assert answers or question.may_be_empty


def test_hold_times_are_quantiles_of_the_records_packets(scraped: Scraped) -> None:
    key = ("pages", "Hold time", "A")
    for choice in scraped.choices("pages"):
        wanted = expected_quantiles(rows_of(scraped, HOLD_BUCKETS, choice))
        found = returned(scraped, filled_in(query_of(*key), scraped.run, choice))
        assert wanted
        assert found == pytest.approx(wanted, rel=1e-9)
        check_transformations(PANELS[key], found)


@pytest.mark.parametrize("key", FROM_ANSWERS, ids="/".join)
def test_decisions_are_those_of_the_answers_that_were_kept(
    scraped: Scraped, key: tuple[str, str, str]
) -> None:
    """The same rows as SQL finds in the answers' files."""
    choices = list(scraped.decisions())
    assert len({choice["comparison"] for choice in choices}) == 2
    for choice in choices:
        wanted = by_labels(scraped.ask(questions.FIGURES + FROM_ANSWERS[key], **choice))
        found = returned(scraped, filled_in(query_of(*key), scraped.run, choice))
        assert wanted
        assert found == pytest.approx(wanted, rel=1e-12)
        if found:
            check_transformations(PANELS[key], found)


def check(
    scraped: Scraped, board: str, title: str, wanted: Mapping[tuple[tuple[str, str], ...], float]
) -> None:
    found = returned(scraped, filled_in(query_of(board, title), scraped.run, {}))
    assert found == pytest.approx({frozenset(labels): value for labels, value in wanted.items()}), title
    if found:
        check_transformations(PANELS[board, title, "A"], found)


def test_the_state_of_the_sweep_is_that_of_the_stored_run(scraped: Scraped) -> None:
    (recorded,) = scraped.ask("SELECT count(DISTINCT trial_id) AS n FROM read_parquet($records)")
    failed = {}
    if list((scraped.run.path / "failures").glob("*.parquet")):
        rows = scraped.ask(
            "SELECT kind, count(DISTINCT trial_id) AS n FROM read_parquet($failures) WHERE trial_id NOT IN "
            "(SELECT trial_id FROM read_parquet($records)) GROUP BY kind"
        )
        failed = {(("kind", row["kind"]),): row["n"] for row in rows}
    broken, done = sum(failed.values()), recorded["n"]
    states = {"recorded": done, "failed": broken, "planned": scraped.planned}
    trials = {(("state", state),): count for state, count in states.items()}
    check(scraped, "overview", "Trials", trials)
    check(scraped, "recycling", "Trials", trials)
    check(scraped, "overview", "Done", {(): (done + broken) / scraped.planned})
    check(scraped, "overview", "Failed", {(): broken / (done + broken)})
    check(scraped, "overview", "Failures by kind", failed)
    (packets,) = scraped.ask("SELECT sum(packets)::INT AS n FROM read_parquet($attempts)")
    check(scraped, "overview", "Packets simulated", {(): packets["n"]})
    times = scraped.ask(
        'SELECT arch, "traffic.kind" AS traffic_kind, avg(wall_seconds) AS value FROM read_parquet($records) '
        "JOIN read_parquet($attempts) USING (trial_id) GROUP BY ALL"
    )
    wanted = {(("arch", row["arch"]), ("traffic_kind", row["traffic_kind"])): row["value"] for row in times}
    check(scraped, "overview", "Real time per trial", wanted)


def test_provenance_is_that_of_the_attempts(scraped: Scraped) -> None:
    (row,) = scraped.ask("SELECT DISTINCT model_digest, versions FROM read_parquet($attempts)")
    versions = json.loads(row["versions"])
    labels = {
        "run": scraped.run.path.name,
        "model_digest": row["model_digest"],
        "farm_version": versions["page-pool-farm"],
        "python_version": versions["python"],
        "numba_version": versions["numba"],
    }
    check(scraped, "overview", "Where the results come from", {tuple(labels.items()): 1.0})
    (series,) = scraped.prometheus.query(filled_in(query_of("recycling", "Results from"), scraped.run, {}))
    assert labels.items() <= series["metric"].items()


def test_the_health_of_the_farm_is_that_of_the_attempts_and_the_store(scraped: Scraped) -> None:
    (row,) = scraped.ask(
        "SELECT sum(retries) AS retries, count(DISTINCT host) AS hosts, max(compile_seconds) AS compile "
        "FROM read_parquet($attempts)"
    )
    sweep = (("sweep", scraped.run.sweep_name),)
    check(scraped, "health", "Retries", {sweep: row["retries"]})
    check(scraped, "health", "Nodes", {sweep: row["hosts"]})
    check(scraped, "health", "Compile time", {sweep: row["compile"]})
    check(scraped, "health", "Unreadable runs", {sweep: 0})
    check(scraped, "health", "Series refused", {sweep: 0})
    job = (("job", "page-pool-farm"),)
    size = sum(path.stat().st_size for path in scraped.root.glob("[!.]*/**/*") if path.is_file())
    check(scraped, "health", "Size of the store", {job: size})
    room = os.statvfs(scraped.root)
    left = returned(scraped, query_of("health", "Room left for the store"))
    assert left[frozenset(job)] == pytest.approx(room.f_bavail / room.f_blocks, abs=0.05)
    (seconds,) = returned(scraped, query_of("health", "Time of a scrape")).values()
    assert 0 < seconds < math.inf


SLOPES = {name: slope_of(name) for name in COUNTERS}

FROM_HISTORY: dict[tuple[str, str, str], dict[tuple[tuple[str, str], ...], float]] = {
    ("overview", "Time left", "A"): {(): 77},
    ("overview", "Trials done and planned", "A"): {
        (("state", "done"),): 70,
        (("state", "failed"),): 1,
        (("state", "planned"),): 144,
    },
    ("overview", "Packets simulated per second", "A"): {(): 2048},
    ("health", "Slots in use", "A"): {(): 1.5},
    ("health", "Slots in use", "B"): {(): 2},
    ("health", "Seconds per batch", "A"): {(): 3},
    ("health", "Batches per second", "A"): {(): 0.5},
    ("health", "CPU of Ray's nodes", "A"): {(("instance", "head"),): 0.25, (("instance", "worker"),): 0.75},
    ("health", "Memory of Ray's nodes", "A"): {(("instance", "head"),): 0.25},
    ("health", "Ray's tasks by state", "A"): {(("State", "RUNNING"),): 5},
    ("real-host", "Share of slow allocations", "A"): {
        (): SLOPES["alloc_slow"] / (SLOPES["alloc_slow"] + SLOPES["alloc_fast"])
    },
    ("real-host", "Share of returns that found the ring full", "A"): {
        (): SLOPES["recycle_ring_full"] / (SLOPES["recycle_ring_full"] + SLOPES["recycle_ring"])
    },
    **{("real-host", name, "A"): {(): slope} for name, slope in SLOPES.items()},
}
"""what is known of the lines that the history was drawn from"""


@pytest.mark.parametrize("key", FROM_HISTORY, ids="/".join)
def test_what_moves_is_what_the_history_was_made_of(scraped: Scraped, key: tuple[str, str, str]) -> None:
    found = returned(scraped, filled_in(query_of(*key), scraped.run, {}), scraped.until)
    wanted = {frozenset(labels): value for labels, value in FROM_HISTORY[key].items()}
    assert found == pytest.approx(wanted, rel=1e-9)


BY_HAND = {
    ("pages", "Hold time", "A"),
    *(("recycling", title, "A") for title in ("Trials", "Results from")),
    *(
        ("overview", title, "A")
        for title in (
            "Done",
            "Trials",
            "Failed",
            "Failures by kind",
            "Packets simulated",
            "Real time per trial",
            "Where the results come from",
        )
    ),
    *(
        ("health", title, "A")
        for title in (
            "Retries",
            "Nodes",
            "Compile time",
            "Unreadable runs",
            "Series refused",
            "Size of the store",
            "Room left for the store",
            "Time of a scrape",
        )
    ),
}
"""asked above in tests of their own"""


def test_recording_rules_say_what_the_records_do(scraped: Scraped) -> None:
    asked = {name_of(rule): returned(scraped, rule["expr"]) for rule in rules() if "record" in rule}
    sql = f"""
        WITH cells AS (SELECT {LABELS}, "{scraped.other_axis}", median(busy_ns_per_packet) AS value
                       FROM read_parquet($records) GROUP BY ALL)
        SELECT off_side.value / on_side.value - 1 AS value
        FROM (FROM cells WHERE pool_recycle = 'false') AS off_side
        JOIN (FROM cells WHERE pool_recycle = 'true') AS on_side
        USING (arch, traffic_kind, pool_size, "{scraped.other_axis}")
    """
    wanted = sorted(row["value"] for row in scraped.ask(sql))
    gains = asked["cell:pagepool_farm_recycling_gain:ratio"]
    found = [gain for labels, gain in gains.items() if ("sweep", scraped.run.sweep_name) in labels]
    assert sorted(found) == pytest.approx(wanted)
    sweep = frozenset({("sweep", scraped.run.sweep_name)})
    for record, title in (("done", "Done"), ("failed", "Failed")):
        shown = returned(scraped, filled_in(query_of("overview", title), scraped.run, {}))
        assert asked[f"sweep:pagepool_farm_trials_{record}:ratio"][sweep] == shown[frozenset()]
    (free,) = asked["job:pagepool_farm_store_free:ratio"].values()
    assert 0 < free < 1


def test_alert_rules_can_be_asked(scraped: Scraped) -> None:
    """What they find is for the unit tests; that Prometheus takes them as they are is seen here."""
    for rule in rules():
        if "alert" in rule:
            scraped.prometheus.query(rule["expr"])


def test_every_query_is_asked() -> None:
    assert {*FROM_SQL, *FROM_ANSWERS, *FROM_HISTORY, *BY_HAND} == set(PANELS)


def test_every_variable_finds_values(scraped: Scraped) -> None:
    decided = next(scraped.decisions())
    for dashboard in all_dashboards():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                [(selector, label)] = re.findall(r"^label_values\((.*), (\w+)\)$", variable["definition"])
                live = "node_ethtool" in selector
                query = f"count by ({label}) ({filled_in(selector, scraped.run, decided)})"
                assert returned(scraped, query, scraped.until if live else None), variable["name"]


def test_values_do_not_go_stale(scraped: Scraped) -> None:
    """The stored results are there at every scrape: no gap opens after Prometheus' five minutes."""
    samples = scraped.prometheus.query("min(scrape_samples_post_metric_relabeling)")
    assert float(samples[0]["value"][1]) > 100
