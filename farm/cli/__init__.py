"""The command ``farm``. A verb parses its arguments, calls the rest, prints.

Exit codes: 0 done; 1 a check said no; 2 bad usage or input (one line, no traceback); 3 some trials
failed; 4 incomparable or nothing to compare; 5 cluster or driver lost, 130 interrupted, both with the
partial results safe.

Heavy packages are imported inside the verbs, so that ``farm --help`` answers at once.
"""

import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from farm.cli import arch, checks, cluster, decisions, host, metrics, predictions, results, runs
from farm.cli.options import EXIT_INCOMPARABLE, EXIT_INTERRUPTED, EXIT_USAGE, remember_command
from farm.errors import FarmError, IncomparableError
from pool_impl.errors import PoolError
from workers.errors import TrialError

app = typer.Typer(
    name="farm",
    help="Load-test and benchmark Linux page_pool and skb recycling on simulated architectures.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)
arch_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
export_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
# a callback keeps the name of a single verb: farm dashboards push
dashboards_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, callback=lambda: None)

# in the order of use, which is that of the help text
VERBS: tuple[tuple[str, Callable[..., int | None]], ...] = (
    ("plan", runs.plan),
    ("run", runs.run),
    ("search", runs.search),
    ("advise", decisions.advise),
    ("list", results.list_),
    ("show", results.show),
    ("report", results.report),
    ("compare", decisions.compare),
    ("gate", decisions.gate),
    ("explain", predictions.explain),
    ("validate", predictions.validate),
    ("doctor", host.doctor),
    ("fields", results.fields),
    ("serve", metrics.serve),
    ("submit", cluster.submit),
    ("status", cluster.status),
    ("logs", cluster.logs),
    ("cancel", cluster.cancel),
    ("fetch", cluster.fetch),
    ("drive", cluster.drive),
    ("pack", cluster.pack),
    ("conformance", checks.conformance),
    ("bench", checks.bench),
)
HIDDEN = ("pack",)
"""verbs that only another one calls, on a cluster"""
ARCH_VERBS: tuple[tuple[str, Callable[..., int | None]], ...] = (
    ("list", arch.list_),
    ("show", arch.show),
    ("diff", arch.diff),
    ("check", arch.check),
    ("calibrate", arch.calibrate),
)
DASHBOARD_VERBS: tuple[tuple[str, Callable[..., int | None]], ...] = (("push", metrics.push),)
for name, verb in VERBS:
    app.command(name, hidden=name in HIDDEN)(verb)
for name, verb in ARCH_VERBS:
    arch_app.command(name)(verb)
EXPORT_VERBS: tuple[tuple[str, Callable[..., int | None]], ...] = (
    ("openmetrics", metrics.openmetrics),
    ("csv", metrics.csv),
    ("json", metrics.json),
    ("parquet", metrics.parquet),
)
for name, verb in EXPORT_VERBS:
    export_app.command(name)(verb)
app.add_typer(export_app, name="export", help="Runs for other programs.")
for name, verb in DASHBOARD_VERBS:
    dashboards_app.command(name)(verb)
app.add_typer(dashboards_app, name="dashboards", help="Dashboards on a Grafana.")
app.add_typer(arch_app, name="arch", help="Architecture profiles and where their numbers come from.")


def _print_version(asked: bool) -> None:
    if asked:
        import json

        from farm.execution.batch import versions
        from workers import model_digest

        listed = ", ".join(f"{name} {version}" for name, version in json.loads(versions()).items())
        print(f"{listed}, model {model_digest()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Versions and the model's digest."
        ),
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    from farm.terminal import say

    remember_command(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(arguments, standalone_mode=False)
    except typer.TyperException as error:
        # asking for a verb without one is answered with help, already in the message
        text = error.format_message()
        if "\n" in text:
            print(text, file=sys.stderr)
        else:
            say(" ".join(text.split()))
        code = EXIT_USAGE
    except IncomparableError as error:
        say(str(error))
        code = EXIT_INCOMPARABLE
    except (FarmError, TrialError, PoolError) as error:
        say(str(error))
        code = EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        code = EXIT_INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
