"""Draw the dashboards as PNG files, with Grafana's panel components and a real Prometheus.

``python dashboards/pictures/draw.py --help``; needs ``npm install`` in this directory, and Debian's
``prometheus`` and ``chromium``. All that is started listens on loopback and ends with this program.
"""

import argparse
import functools
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
JSON = HERE.parent / "json"
PROMETHEUS = HERE.parents[1] / "deploy" / "prometheus"
PREFIX = "page-pool-farm-"

SWEEP = ("quickstart",)
"""three architectures, four pool sizes, with and without recycling: what the dashboards compare"""

WIDTH_PIXELS = 1400
PATIENCE_SECONDS = 60.0
SCRAPE_SECONDS = 1
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=15000",
]


class DrawError(Exception):
    """What is missing or went wrong, in one line."""


def main() -> int:
    """Parse the command line, draw, print the files. Exit code 2 with one line if something is missing."""
    parser = argparse.ArgumentParser(description="Draw the dashboards as PNG files.")
    parser.add_argument("boards", nargs="*", help="recycling, pool-size and so on; default all")
    parser.add_argument("--store", type=Path, help="root of a store with results; default: run a small sweep")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="directory of the PNG files")
    parser.add_argument(
        "--theme", choices=("light", "dark"), action="append", help="may be repeated; default light"
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="value of a variable; repeat for several",
    )
    parser.add_argument("--height", metavar="PIXELS", type=int, default=100_000, help="cut what is below")
    arguments = parser.parse_args()
    try:
        draw(arguments)
    except DrawError as error:
        print(f"draw: {error}", file=sys.stderr)
        return 2
    return 0


def draw(arguments: argparse.Namespace) -> None:
    """Start what is needed, draw each dashboard in each theme, end what was started."""
    known = [path.stem.removeprefix(PREFIX) for path in sorted(JSON.glob("*.json"))]
    for name in arguments.boards:
        if name not in known:
            raise DrawError(f"{name}: no such dashboard; there are {', '.join(known)}")
    if arguments.store is not None and not arguments.store.is_dir():
        raise DrawError(f"--store {arguments.store}: no such directory; name the root of a store")
    chromium, prometheus = program("chromium"), program("prometheus")
    bundle()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pictures")))
        store = arguments.store or scratch / "store"
        store.mkdir(exist_ok=True)
        exporter, live, port = free_port(), free_port(), free_port()
        farm = str(Path(sys.executable).with_name("farm"))
        serve = [farm, "serve", "--store", str(store), "--port", str(exporter)]
        stack.enter_context(started(serve, scratch / "serve.log"))
        configure(scratch / "prometheus", exporter=exporter, run=live)
        server = [
            prometheus,
            f"--config.file={scratch / 'prometheus' / 'prometheus.yml'}",
            f"--storage.tsdb.path={scratch / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        stack.enter_context(started(server, scratch / "prometheus.log"))
        upstream = f"http://127.0.0.1:{port}"
        wait_for(
            "scrape by Prometheus", functools.partial(answers, upstream, 'up{job="page-pool-farm"} == 1')
        )
        began = time.time()
        if arguments.store is None:
            sweep = [*SWEEP, "--executor", "serial", "--store", str(store), "--metrics-port", str(live)]
            subprocess.run([farm, "run", *sweep], check=True, stdout=subprocess.DEVNULL)
        wait_for("results", functools.partial(answers, upstream, "pagepool_farm_busy_seconds_per_packet"))
        # a few more scrapes, for lines over time
        time.sleep(3 * SCRAPE_SECONDS)
        site = stack.enter_context(served(upstream))
        for name in arguments.boards or known:
            for theme in dict.fromkeys(arguments.theme or ["light"]):
                suffix = "" if theme == "light" else f"-{theme}"
                query = [f"board={PREFIX}{name}", f"theme={theme}", f"scrape={SCRAPE_SECONDS}"]
                query += [f"from={began:.0f}", f"to={time.time():.0f}"]
                query += [f"var-{one}" for one in arguments.set]
                page = f"{site}/index.html?{'&'.join(query)}"
                picture = arguments.out / f"{name}{suffix}.png"
                take(chromium, page, picture, scratch, arguments.height)
                print(picture)


def program(name: str) -> str:
    """Where a program of Debian is."""
    path = shutil.which(name)
    if path is None:
        raise DrawError(f"{name} is not installed: apt-get install {name}")
    return path


def bundle() -> None:
    """Make out/main.js and out/main.css of main.jsx and what it imports."""
    esbuild = HERE / "node_modules" / ".bin" / "esbuild"
    if not esbuild.exists():
        raise DrawError(
            "node_modules is missing: npm install --ignore-scripts --no-package-lock, in this directory"
        )
    command = [
        str(esbuild),
        "main.jsx",
        "--bundle",
        "--format=esm",
        "--outdir=out",
        "--log-level=error",
        "--minify",
    ]
    command += [f"--loader:.{kind}=dataurl" for kind in ("svg", "woff2", "png", "ttf")]
    command += ['--define:process.env.NODE_ENV="production"']
    if subprocess.run(command, cwd=HERE).returncode:
        raise DrawError("main.jsx does not bundle: see above")


def configure(directory: Path, *, exporter: int, run: int) -> None:
    """Copy the farm's configuration of Prometheus, with ports and pace of this drawing."""
    directory.mkdir()
    text = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    pace = f"scrape_interval: {SCRAPE_SECONDS}s\n  evaluation_interval: {SCRAPE_SECONDS}s"
    text = re.sub(r"scrape_interval: \w+", pace, text)
    text = re.sub(r"scrape_timeout: \w+", f"scrape_timeout: {SCRAPE_SECONDS}s", text)
    (directory / "prometheus.yml").write_text(text, encoding="utf-8")
    shutil.copy(PROMETHEUS / "rules.yml", directory)
    targets = directory / "targets"
    targets.mkdir()
    for name, port in (("exporter", exporter), ("run", run)):
        (targets / f"{name}.yml").write_text(f"- targets: ['127.0.0.1:{port}']\n", encoding="utf-8")


def free_port() -> int:
    """A TCP port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def started(command: Sequence[str], log: Path) -> Iterator[None]:
    """Run a program while the context lasts."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield
        if process.poll() is not None:
            raise DrawError(
                f"{Path(command[0]).name} ended: {log.read_text(encoding='utf-8').strip()[-300:]}"
            )
    finally:
        process.terminate()
        process.wait(20)


def wait_for(what: str, is_there: Callable[[], bool]) -> None:
    """Ask until it is there."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if is_there():
                return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.5)
    raise DrawError(f"no {what} after {PATIENCE_SECONDS:.0f} s; does the store hold a run?")


def answers(upstream: str, query: str) -> bool:
    """Whether Prometheus finds anything."""
    url = f"{upstream}/api/v1/query?{urllib.parse.urlencode({'query': f'count({query})'})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return b'"value"' in answer.read()


@contextmanager
def served(upstream: str) -> Iterator[str]:
    """Serve page, dashboards and Prometheus from one origin, as a browser demands; gives the URL."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if not self.path.startswith("/api/v1/"):
                super().do_GET()
                return
            try:
                with urllib.request.urlopen(upstream + self.path, timeout=30) as answer:
                    status, content = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, content = error.code, error.read()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def translate_path(self, path: str) -> str:
            if path.startswith("/json/"):
                return str(JSON / os.path.basename(path))
            return super().translate_path(path)

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(HERE))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def take(chromium: str, page: str, picture: Path, scratch: Path, limit: int) -> None:
    """Take a picture of a page: first ask how high it gets, then draw it as high, up to a limit in pixels."""

    def browse(height: int, *options: str) -> str:
        profile = tempfile.mkdtemp(dir=scratch)
        command = [
            chromium,
            *CHROMIUM,
            f"--user-data-dir={profile}",
            f"--window-size={WIDTH_PIXELS},{height}",
        ]
        done = subprocess.run([*command, *options, page], capture_output=True, text=True, timeout=120)
        return done.stdout

    document = browse(1000, "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", document, re.DOTALL)
    found = title.group(1) if title else "no page"
    if not found.startswith("ready "):
        raise DrawError(f"{picture.name}: {found}")
    picture.unlink(missing_ok=True)
    browse(min(limit, int(found.split()[1])), f"--screenshot={picture}")
    if not picture.exists():
        raise DrawError(f"{picture.name}: chromium made no picture")


if __name__ == "__main__":
    sys.exit(main())
