"""The command ``farm``. A verb parses its arguments, calls the rest, prints.

Exit codes: 0 done; 1 a check said no; 2 bad usage or input (one line, no traceback); 3 some trials
failed; 4 incomparable or nothing to compare; 130 interrupted, with the partial results safe.

Heavy packages are imported inside the verbs, so that ``farm --help`` answers at once.
"""

import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from farm.cli import arch, checks, decisions, host, metrics, predictions, results, runs
from farm.cli.options import EXIT_INCOMPARABLE, EXIT_INTERRUPTED, EXIT_USAGE
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

# in the order of use, which is that of the help text
VERBS: tuple[tuple[str, Callable[..., int | None]], ...] = (
    ("plan", runs.plan),
    ("run", runs.run),
    ("search", runs.search),
    ("advise", decisions.advise),
    ("list", results.list_),
    ("show", results.show),
    ("compare", decisions.compare),
    ("gate", decisions.gate),
    ("explain", predictions.explain),
    ("validate", predictions.validate),
    ("doctor", host.doctor),
    ("fields", results.fields),
    ("serve", metrics.serve),
    ("publish", metrics.publish),
    ("conformance", checks.conformance),
    ("bench", checks.bench),
)
ARCH_VERBS: tuple[tuple[str, Callable[..., int | None]], ...] = (
    ("list", arch.list_),
    ("show", arch.show),
    ("diff", arch.diff),
    ("check", arch.check),
    ("calibrate", arch.calibrate),
)
for name, verb in VERBS:
    app.command(name)(verb)
for name, verb in ARCH_VERBS:
    arch_app.command(name)(verb)
app.add_typer(arch_app, name="arch", help="Architecture profiles and where their numbers come from.")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    from farm.terminal import say

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
