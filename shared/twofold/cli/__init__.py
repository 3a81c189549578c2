"""`twofold`, the operator's command line. It reads its settings from environment variables, like the functions."""

import sys

import typer
from pydantic import ValidationError
from rich.console import Console

from twofold.cli import operate
from twofold.cli.dead_letters import dead_letters
from twofold.cli.export import export
from twofold.cli.feed import feed
from twofold.cli.history import history
from twofold.cli.outbox import outbox
from twofold.cli.publish import publish
from twofold.errors import TwofoldError

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
for command in (
    *(operate.setup, operate.status, operate.checkpoints, operate.reconcile),
    *(publish, history, export, feed),
):
    app.command()(command)
app.add_typer(operate.relay, name="relay")
app.add_typer(outbox, name="outbox")
app.add_typer(dead_letters, name="dead-letters")


def main() -> None:
    """Run the command line. An error gives a line on standard error and exit status 1."""
    try:
        app()
    except (TwofoldError, ValidationError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
