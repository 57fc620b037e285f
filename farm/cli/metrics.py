"""Verbs for Prometheus and Grafana."""

from pathlib import Path
from typing import Annotated

import typer

from farm.cli.options import Json, Store
from farm.errors import FarmError


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
    from farm import export
    from farm.report import site
    from farm.store import default_root, find

    root = store or default_root()
    chosen = [find(root, name) for name in run or []]
    budget = export.SERIES_BUDGET if series_budget is None else series_budget
    page = site.application(site.Site(root, chosen))
    export.serve(root, port, address, chosen=chosen, series_budget=budget, other=page)


def publish(
    url: Annotated[str, typer.Argument(metavar="URL", help="The Grafana, http://HOST:PORT/PATH.")],
    prometheus: Annotated[
        str, typer.Option(metavar="URL", help="Where that Grafana finds Prometheus.")
    ] = "http://localhost:9090",
    folder: Annotated[str, typer.Option(metavar="TITLE", help="Title of the folder.")] = "page_pool farm",
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds the token; default $GRAFANA_TOKEN.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put the data source and the dashboards on a Grafana."""
    import os

    from dashboards import panels
    from dashboards.publish import Publisher, PublishError, read_token
    from farm import tables
    from farm.terminal import print_json

    try:
        with Publisher(url, read_token(os.environ, token_file)) as publisher:
            published = publisher.publish(
                panels.all_dashboards(), prometheus_url=prometheus, folder_title=folder
            )
    except PublishError as error:
        raise FarmError(str(error)) from None
    if as_json:
        print_json([thing._asdict() for thing in published])
        return
    tables.console().print(tables.rows(("kind", "uid", "change"), published, text_columns=3))
