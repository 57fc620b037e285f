"""Verbs for Prometheus and Grafana."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.options import Json, RunName, Store
from farm.errors import FarmError

if TYPE_CHECKING:
    from farm.cells_table import Format


def serve(
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.")] = 9464,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    run: Annotated[
        list[str] | None, typer.Option(help="Run to expose in place of its sweep's newest; may be repeated.")
    ] = None,
    series_budget: Annotated[
        int | None, typer.Option(metavar="N", help="Metric series at most; default 50000.")
    ] = None,
    store: Store = None,
) -> None:
    """Expose results and the farm's own health as Prometheus metrics, and the latest report as a page."""
    from farm.metrics import collector
    from farm.report import site
    from farm.store.runs import default_root, find

    root = store or default_root()
    chosen = [find(root, name) for name in run or []]
    budget = collector.SERIES_BUDGET if series_budget is None else series_budget
    page = site.application(site.Site(root, chosen))
    collector.serve(root, port, address, chosen=chosen, series_budget=budget, other=page)


def push(
    url: Annotated[str, typer.Option(metavar="URL", help="The Grafana, http://HOST:PORT/PATH.")],
    prometheus: Annotated[
        str, typer.Option(metavar="URL", help="Where that Grafana finds Prometheus.")
    ] = "http://localhost:9090",
    folder: Annotated[str, typer.Option(metavar="TITLE", help="Title of the folder.")] = "page_pool farm",
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds the token; default $GRAFANA_TOKEN.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete dashboards of the farm that it no longer has.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change, change nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Put dashboards over newer ones on the server.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put the data source and the dashboards on a Grafana."""
    import os

    from dashboards.boards import all_dashboards
    from dashboards.connection import Connection, PublishError, read_token
    from dashboards.publish import Publisher
    from farm import tables
    from farm.terminal import print_json

    try:
        with Connection(url, read_token(os.environ, token_file)) as connection:
            published = Publisher(connection, dry_run=dry_run, force=force).publish(
                all_dashboards(), prometheus_url=prometheus, folder_title=folder, prune=prune
            )
    except PublishError as error:
        raise FarmError(str(error)) from None
    if as_json:
        print_json([thing._asdict() for thing in published])
        return
    head = "would be" if dry_run else "change"
    tables.console().print(tables.rows(("kind", "uid", head), published, text_columns=3))


Output = Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write; default standard output.")]


def openmetrics(run: RunName, output: Output = None, store: Store = None) -> None:
    """Write a run's metrics with their time, for promtool tsdb create-blocks-from openmetrics."""
    from farm.metrics import history
    from farm.store.runs import default_root, find

    _write(history.openmetrics(find(store or default_root(), run)).encode(), output)


def csv(run: RunName, output: Output = None, store: Store = None) -> None:
    """Write a run's cells as CSV."""
    _write(_table(run, "csv", store), output)


def json(run: RunName, output: Output = None, store: Store = None) -> None:
    """Write a run's cells as JSON."""
    _write(_table(run, "json", store), output)


def parquet(
    run: RunName,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where to write.")],
    store: Store = None,
) -> None:
    """Write a run's cells as Parquet."""
    _write(_table(run, "parquet", store), output)


def _table(run: str, form: "Format", store: str | None) -> bytes:
    from farm.cells_table import cells_table, encoded
    from farm.store.runs import default_root, find

    return encoded(cells_table(find(store or default_root(), run)), form)


def _write(content: bytes, output: Path | None) -> None:
    import sys

    from farm.cells_table import write_file

    if output is not None:
        write_file(output, content)
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
