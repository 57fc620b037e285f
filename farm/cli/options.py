"""What several verbs have in common: options, exit codes."""

from enum import StrEnum
from typing import Annotated

import typer

EXIT_CHECK_SAID_NO = 1
EXIT_USAGE = 2
EXIT_FAILED_TRIALS = 3
EXIT_INCOMPARABLE = 4
EXIT_LOST = 5
EXIT_INTERRUPTED = 130


_command: list[str] = []
"""the arguments that the command was called with"""


def remember_command(arguments: list[str]) -> None:
    """For :func:`current_command`."""
    _command[:] = arguments


def current_command() -> list[str]:
    """The arguments that the command was called with, to start it again in another process."""
    return list(_command)


class ExecutorName(StrEnum):
    """Where trials run."""

    RAY = "ray"
    SERIAL = "serial"


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="ROOT",
        help="Directory of runs, or s3://BUCKET/PATH and the like; default $FARM_STORE, else ./runs.",
    ),
]
SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A TOML file, or a bundled sweep.")]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Name, its unique start, a directory, a sweep for its latest run, or 'last'."
    ),
]
Where = Annotated[ExecutorName, typer.Option("--executor", help="Ray (local without --address) or serial.")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Ray cluster: HOST:PORT of its head, ray://HOST:PORT, or auto; else a local Ray.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Set a field, or an axis: pool.size=64,256; also seeds=N, name=X."
    ),
]
