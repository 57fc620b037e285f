"""The page of ``farm report`` in a real browser: Debian's chromium, headless."""

import json
import os
import shutil
import statistics
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from farm.metrics.collector import StoreCollector
from farm.metrics.server import MetricsServer
from farm.plan import Plan
from farm.report import data, page, site
from farm.store import answers
from farm.store.answers import Answer, Table
from farm.store.place import LocalPlace
from farm.store.runs import Run
from farm.store.writer import create_run
from farm.sweep import parse
from tests.farm.made_up import GAINS, HOSTILE, made_up, outcome

PATIENCE_MS = 60_000

GROUND = "getComputedStyle(document.documentElement).backgroundColor"
TEXTS = "found => found.map(one => one.textContent)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")
    with sync_playwright() as driver:
        # CI runs as root, where the browser's sandbox does not start, and containers have little /dev/shm
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        started = driver.chromium.launch(executable_path=found, args=arguments)
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """A page, drawn; at the end nothing must have gone wrong in it, nor have been fetched from elsewhere."""
    made = browser.new_context(viewport={"width": 1280, "height": 900}, **context)
    made.set_default_timeout(PATIENCE_MS)
    shown = made.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    shown.on("console", lambda message: wrong.append(message.text))
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(url)
    drawn(shown)
    yield shown
    origin = url.rsplit("/", 1)[0]
    assert wrong == []
    assert [one for one in asked if not one.startswith((origin, "data:", "blob:"))] == []
    made.close()


def drawn(shown: Page) -> None:
    shown.wait_for_selector("html[data-drawn=yes]")


def written(run: Run, path: Path) -> str:
    path.write_text(page.render(data.report(run)), encoding="utf-8")
    return path.as_uri()


def traces(shown: Page, section: str) -> list[list[dict[str, Any]]]:
    """What plotly has drawn in a section: x, y and name of the traces of each chart."""
    found = shown.evaluate(
        """section => [...document.querySelectorAll(`#${section} .js-plotly-plot`)].map(chart =>
            chart.data.map(({ x, y, name, type, customdata }) => ({ x, y, name, type, customdata })))""",
        section,
    )
    return list(found)


@pytest.fixture(scope="module")
def gains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    root = tmp_path_factory.mktemp("gains")
    run = made_up(root)
    return run, written(run, root / "page.html")


def test_charts_are_drawn_with_the_stored_values(browser: Browser, gains: tuple[Run, str]) -> None:
    run, url = gains
    times: dict[tuple[str, int, bool], list[float]] = {}
    for row in run.read_records():
        key = (str(row["arch"]), int(row["pool.size"]), bool(row["pool.recycle"]))
        times.setdefault(key, []).append(float(row["busy_ns_per_packet"]))
    medians = {key: statistics.median(found) for key, found in times.items()}
    with opened(browser, url) as shown:
        [gain] = traces(shown, "gain")
        assert [(trace["name"], trace["x"]) for trace in gain] == [
            ("broadwell-ep", [64, 1024, 4096]),
            ("armada-3720", [64, 1024, 4096]),
        ]
        for trace in gain:
            for size, value in zip(trace["x"], trace["y"], strict=True):
                on, off = (medians[trace["name"], size, recycle] for recycle in (True, False))
                assert value == pytest.approx(100 * (off / on - 1))
        [curves] = traces(shown, "curves")
        assert sorted(value for trace in curves for value in trace["y"]) == sorted(medians.values())
        bars = traces(shown, "time")
        assert len(bars) == 2
        sums = [
            sum(x) for chart in bars for x in zip(*(t["x"] for t in chart if t["type"] == "bar"), strict=True)
        ]
        assert sorted(sums) == pytest.approx(sorted(medians.values()))
        # what plotly was given it has drawn: a mark for each point, a box for each part of a bar
        assert shown.locator("#gain .scatterlayer .point").count() == 6
        assert shown.locator("#time .barlayer .point").count() == 2 * 12


def test_a_filter_acts_on_charts_and_tables(browser: Browser, gains: tuple[Run, str]) -> None:
    with opened(browser, gains[1]) as shown:
        assert shown.locator("#cells tbody tr").count() == 12
        shown.locator("fieldset[data-axis=arch]").get_by_text("armada-3720").click()
        drawn(shown)
        assert {trace["name"] for trace in traces(shown, "gain")[0]} == {"broadwell-ep"}
        assert {trace["name"] for trace in traces(shown, "curves")[0]} == {"broadwell-ep"}
        assert len(traces(shown, "time")) == len(traces(shown, "pages")) == 1
        assert shown.locator("#cells tbody tr").count() == 6
        assert "armada" not in shown.locator("#gain table").inner_text()
        assert shown.locator("#state").inner_text().startswith("6 of 12 cells shown")
        shown.locator("#reset").click()
        drawn(shown)
        assert shown.locator("#cells tbody tr").count() == 12
        # nothing left to show is no error
        for word in ("true", "false"):
            shown.locator("fieldset[data-axis='pool.recycle']").get_by_text(word).click()
        drawn(shown)
        assert shown.locator("#cells tbody tr").count() == 0


def test_tables_are_sorted_from_the_keyboard(browser: Browser, gains: tuple[Run, str]) -> None:
    with opened(browser, gains[1]) as shown:
        head = shown.locator("#gain th", has_text="gain")
        column = "#gain tbody tr td:nth-child(3)"
        for order, sign in (("ascending", 1), ("descending", -1)):
            head.locator("button").focus()
            shown.keyboard.press("Enter")
            assert head.get_attribute("aria-sort") == order
            values = [float(text.strip("%+")) for text in shown.locator(column).all_inner_texts()]
            assert values == sorted(values, key=lambda value: sign * value)
        shown.keyboard.press("Tab")
        ring = "getComputedStyle(document.activeElement).outlineStyle"
        assert shown.evaluate(ring) == "solid"


def test_every_chart_has_a_name_and_a_table(browser: Browser, gains: tuple[Run, str]) -> None:
    with opened(browser, gains[1]) as shown:
        charts = shown.locator(".chart")
        assert charts.count() > 0
        for chart in charts.all():
            assert chart.get_attribute("role") == "img"
            assert chart.get_attribute("aria-label")
        for section in ("curves", "time", "pages"):
            shown.locator(f"#{section} summary").click()
            shown.wait_for_selector(f"#{section} tbody tr")
            assert shown.locator(f"#{section} tbody tr").count() == 12
        assert shown.evaluate(
            "[...document.querySelectorAll('input,select')].every(e => e.labels?.length || e.ariaLabel)"
        )


def test_the_theme_follows_the_system_until_it_is_switched(browser: Browser, gains: tuple[Run, str]) -> None:
    with opened(browser, gains[1], color_scheme="light") as shown:

        def colours() -> tuple[str, str]:
            drawn(shown)
            tick = "document.querySelector('#gain .xtick text').style.fill"
            return shown.evaluate(GROUND), shown.evaluate(tick)

        light = colours()
        shown.emulate_media(color_scheme="dark")
        dark = colours()
        assert dark[0] != light[0]
        assert dark[1] != light[1]
        shown.locator("#theme").click()
        assert colours() == light
        shown.locator("#theme").click()
        assert colours() == dark


def test_paper_is_light_and_holds_all_of_a_page(browser: Browser, gains: tuple[Run, str]) -> None:
    with opened(browser, gains[1], color_scheme="dark") as shown:
        shown.emulate_media(media="print")
        shown.set_viewport_size({"width": 718, "height": 1000})  # A4 between margins of 10 mm
        shown.evaluate("dispatchEvent(new Event('beforeprint'))")
        drawn(shown)
        assert (
            shown.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            == "rgb(255, 255, 255)"
        )
        assert shown.evaluate("document.documentElement.scrollWidth") <= 718
        assert not shown.locator("#filters").is_visible()
        shown.evaluate("dispatchEvent(new Event('afterprint'))")
        drawn(shown)


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    long = "/p/" + "x" * 10_000
    marked = "<b>bold</b> &amp; %{x}<br>.toml"  # what plotly would read as markup, short enough to stay whole
    archs = json.dumps([HOSTILE, long, long + "y", marked])
    run = made_up(tmp_path, f'name = "hostile"\n[grid]\narch = {archs}\npool.recycle = [true, false]\n')
    with opened(browser, written(run, tmp_path / "page.html")) as shown:
        assert shown.evaluate("window.hacked") is None
        assert shown.locator("main img, main b, main a, header a, #filters a").count() == 0
        assert HOSTILE in shown.locator("#cells td").evaluate_all(
            "cells => cells.map(cell => cell.textContent)"
        )
        ticks = shown.locator("#gain .xtick text").evaluate_all(
            "ticks => ticks.map(tick => tick.textContent)"
        )
        assert len(set(ticks)) == 4
        assert marked in ticks
        assert max(map(len, ticks)) < 50
        assert shown.evaluate("document.documentElement.scrollWidth") <= 1280


SHAPES = {
    "no recycling": '[grid]\npool.size = [64, 256, 1024]\ntraffic.kind = ["poisson", "bursts"]\n',
    "one architecture": "[grid]\npool.size = [64, 1024]\npool.recycle = [true, false]\n",
    "recycling only": "[grid]\npool.recycle = [true, false]\n",
    "one cell": "",
    "loops": '[grid]\nworkload = ["pool_fast", "pool_ring"]\n',
    "zipped": "[zip]\npool.size = [64, 256]\nnic.rx_ring = [256, 512]\n",
    "many values": f"[grid]\npool.size = {list(range(64, 104))}\nkernel = ['6.1', '6.12']\n",
    "many axes": "[grid]\npool.size = [64, 256]\npool.recycle = [true, false]\nnic.queues = [1, 2]\n"
    "nic.rx_ring = [256, 512]\napp.work_ns = [0, 10]\ntraffic.flows = [1, 2]\nstack.gro = [true, false]\n",
}


def test_runs_of_every_shape_make_a_page(browser: Browser, gains: tuple[Run, str], tmp_path: Path) -> None:
    # one page that gets the documents as it would from a server: to load it takes longer than to draw
    with opened(browser, gains[1]) as shown:
        for shape, text in SHAPES.items():
            run = made_up(tmp_path, f'name = "shape"\nseeds = 2\n{text}')
            shown.evaluate("text => show(JSON.parse(text))", json.dumps(data.report(run)))
            drawn(shown)
            assert shown.locator("#question").inner_text().endswith("?"), shape
            assert shown.locator("#cells tbody tr").count() == Plan(run.sweep).cells, shape
            assert shown.locator("#time .barlayer .point").count() > 0, shape
            assert (shown.locator("#gain").count() == 1) == ("pool.recycle" in text), shape


def test_failures_and_no_records_make_a_page(browser: Browser, tmp_path: Path) -> None:
    run = made_up(tmp_path, broken=lambda _: HOSTILE)
    with opened(browser, written(run, tmp_path / "page.html")) as shown:
        assert shown.locator("#failures tbody tr").count() == 36
        assert "36 failed" in shown.locator("#state").inner_text()
        assert shown.locator(".chart").count() == 0


COLUMNS = {
    # ascending, as a person reads them; what is missing comes last whichever way
    "memory": ("512 B", "2 KiB", "1.02e+03 KiB", "1.5 MiB", "-"),
    "change": ("-12.0%", "+0.3%", "+5.0%", "+110.0%", "-"),
    "rate": ("900", "1,500", "1.52 k", "3 M", "-"),
    "time": ("9.5", "999.9", "12,345", "1e+07", "-"),
}
SHUFFLED = (3, 0, 4, 2, 1)


def test_answers_that_were_kept_are_shown_and_sorted_by_number(
    browser: Browser, gains: tuple[Run, str], tmp_path: Path
) -> None:
    rows = tuple((f"cell {i}", *(values[i] for values in COLUMNS.values())) for i in SHUFFLED)
    first = Table(title="first", heads=("cell", *COLUMNS), rows=rows, text_columns=1)
    second = Table(title="second", heads=("size",), rows=(("16",), ("9",)), text_columns=0)
    run = made_up(tmp_path)
    answer = Answer(
        kind="advice",
        title=HOSTILE,
        about=(run.sweep_name,),
        sentences=("A sentence.", HOSTILE),
        tables=(first, second),
        figures=(),
    )
    answers.keep(LocalPlace(tmp_path), answer)
    with opened(browser, gains[1]) as shown:
        assert shown.locator("#answers").count() == 0
    with opened(browser, written(run, tmp_path / "page.html")) as shown:
        section = shown.locator("#answers")
        assert section.locator("h3").evaluate_all(TEXTS) == [HOSTILE]
        assert section.locator("p").evaluate_all(TEXTS)[-2:] == ["A sentence.", HOSTILE]
        assert shown.evaluate("window.hacked") is None
        assert section.locator("table").count() == 1

        def column(number: int) -> list[str]:
            return [
                str(text) for text in section.locator(f"tbody td:nth-child({number})").evaluate_all(TEXTS)
            ]

        assert column(1) == [f"cell {i}" for i in SHUFFLED]
        for number, (head, values) in enumerate(COLUMNS.items(), 2):
            button = section.locator("th button", has_text=head)
            button.click()
            assert column(number) == list(values)
            button.click()
            assert column(number) == [*reversed(values[:-1]), values[-1]]
        section.locator("summary").click()
        last = section.locator("details table")
        last.locator("th button").click()
        assert last.locator("td").evaluate_all(TEXTS) == ["9", "16"]


def test_a_served_page_follows_a_run(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "REFRESH_SECONDS", 1)
    plan = Plan(parse(GAINS, "test"))
    application = site.application(site.Site(tmp_path))
    with MetricsServer(StoreCollector(tmp_path), 0, "127.0.0.1", other=application) as server:
        url = f"http://127.0.0.1:{server.port}/"
        assert b"holds no run" in urllib.request.urlopen(url, timeout=10).read()
        run, writer = create_run(tmp_path, plan.sweep, {}, {})
        with opened(browser, url) as shown:
            assert "0 of 36 trials" in shown.locator("#state").inner_text()
            writer.write([outcome(dict(plan.fields(n)), n) for n in range(plan.trials)])
            shown.wait_for_selector("#gain .scatterlayer .point")
            drawn(shown)
            assert "36 of 36 trials" in shown.locator("#state").inner_text()
            assert run.name in shown.title()
        assert b"pagepool_farm" in urllib.request.urlopen(f"{url}metrics", timeout=10).read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}?run={run.path}", timeout=10)
