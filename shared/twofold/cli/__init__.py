"""`twofold`, the operator's command line. Settings come from the environment, as for the functions."""

import sys

import typer
from pydantic import ValidationError
from rich.console import Console

from twofold.cli import operate, publish, read
from twofold.cli.letters import letters
from twofold.errors import TwofoldError

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
for command in (
    *(operate.setup, operate.status, operate.checkpoints, operate.reconcile),
    *(publish.publish, read.history, read.export, read.feed),
):
    app.command()(command)
app.add_typer(operate.relay, name="relay")
app.add_typer(letters, name="dead-letters")


def main() -> None:
    """Run the command line; trouble is one line and exit status 1."""
    try:
        app()
    except (TwofoldError, ValidationError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
