"""How far a run is: a bar on a terminal, else lines on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from farm.execution.progress import Progress
from farm.terminal import say

Report = Callable[[Progress], None]

LINE_SECONDS = 10.0
"""between two lines of progress where no terminal can show a bar"""


@contextmanager
def progress_shown() -> Iterator[Report]:
    """Show the progress reported inside: as a bar on a terminal, else as a line now and then."""
    if sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("trials"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    with Bar(*columns, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task("starting; the first use compiles", total=None)

        def report(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.trials, description=_words(progress))

        yield report


def _lines() -> Report:
    last = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            most = "at most " if progress.may_need_fewer else ""
            say(f"{progress.done} of {most}{progress.trials} trials, {_words(progress)}")

    return report


def _words(progress: Progress) -> str:
    from farm.tables import duration, in_unit

    left = progress.seconds_left
    most = "at most " if progress.may_need_fewer else ""
    return f"{in_unit('per second', progress.packets_per_second)} packets/s" + (
        f", {most}{duration(left)} left" if left is not None else ""
    )
