"""A run marked on a Grafana from its start to its end."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dashboards.annotations import Annotator
from dashboards.connection import Connection, PublishError, read_token
from farm.errors import FarmError
from farm.execution.progress import Progress
from farm.metrics.server import warn
from farm.store.runs import Run


@contextmanager
def annotated(url: str) -> Iterator[Callable[[Run, Progress], None]]:
    """Call what this yields when a run starts; the end is marked on leaving. The token is ``GRAFANA_TOKEN``.

    Once the run has started, a Grafana that fails is warned of and does not stop it.

    Raises:
        FarmError: the address is not one, there is no token, or the server does not take it.
    """
    begun: list[tuple[int, Run, Progress]] = []
    try:
        connection = Connection(url, read_token(os.environ))
        annotator = Annotator(connection)
        annotator.check()
    except PublishError as error:
        raise FarmError(str(error)) from None

    def begin(run: Run, progress: Progress) -> None:
        text = (
            f"sweep {run.sweep_name}: run {run.name} started, {progress.trials - progress.done} trials to do"
        )
        try:
            number = annotator.start(_now_ms(), text, ["run", run.sweep_name])
        except PublishError as error:
            warn(f"not marked: {error}")
        else:
            begun.append((number, run, progress))

    with connection:
        try:
            yield begin
        finally:
            for number, run, progress in begun:
                text = (
                    f"sweep {run.sweep_name}: run {run.name}, {progress.done} of {progress.trials} trials, "
                    f"{progress.failed} failed"
                )
                try:
                    annotator.end(number, _now_ms(), text)
                except PublishError as error:
                    warn(f"end not marked: {error}")


def _now_ms() -> int:
    return int(time.time() * 1000)
