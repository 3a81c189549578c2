"""`twofold`, the operator's command line. It reads its settings from environment variables, like the functions.

The exit status is 0 for a success, 1 for a failure, and 2 for a wrong call: a wrong option, or a wrong variable.
"""

import sys
from typing import Annotated

import typer

from twofold.cli import operate
from twofold.cli.dead_letters import dead_letters
from twofold.cli.export import export
from twofold.cli.feed import feed
from twofold.cli.history import history
from twofold.cli.outbox import outbox
from twofold.cli.output import warn
from twofold.cli.publish import publish
from twofold.errors import InvalidSettings, MissingExtra, Rejected, TwofoldError, Unavailable
from twofold.settings.environment import package_version

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
for command in (
    *(operate.setup, operate.status, operate.checkpoints, operate.reconcile),
    *(publish, history, export, feed),
):
    app.command()(command)
app.add_typer(operate.relay, name="relay")
app.add_typer(outbox, name="outbox")
app.add_typer(dead_letters, name="dead-letters")

FAILURE, WRONG_CALL = 1, 2


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"twofold {package_version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Operate Twofold: state, dead letters, reading and publishing. Settings are environment variables."""


def run() -> None:
    """Run the command line. An error gives a line on standard error."""
    try:
        app()
    except (InvalidSettings, Rejected) as error:
        _end(str(error), WRONG_CALL)
    except Unavailable as error:
        _end(error.diagnosis or error.detail, FAILURE)
    except (TwofoldError, MissingExtra) as error:
        _end(str(error), FAILURE)


def _end(message: str, status: int) -> None:
    warn(message)
    sys.exit(status)
