"""The commands for dead letters."""

import getpass
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import typer

from twofold.cli.output import Json, Limit, progress, run_with
from twofold.cli.output import show as show_value
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.settings import Settings
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.outbox import Outbox
from twofold.write.redrive import Redrive

letters = typer.Typer(no_args_is_help=True, help="Dead letters: what could not be taken into the log.")

State = Annotated[str | None, typer.Option(help="Only those: dead, redriving, stored or discarded.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason, as `dead-letters count` names it.")]
By = Annotated[str, typer.Option(help="Who does this; kept in the history.", default_factory=getpass.getuser)]


@letters.command("list")
def list_letters(state: State = "dead", reason: Reason = None, limit: Limit = 50, as_json: Json = False) -> None:
    """List dead letters, the oldest first."""
    found = run_with(lambda db, _: DeadLetters(db).list(_filter(state, reason), limit))
    shown = ("_id", "state", "reason", "detail", "event_id", "first_at", "last_at", "times")
    show_value([{name: letter[name] for name in shown} for letter in found], as_json)


@letters.command()
def count(as_json: Json = False) -> None:
    """Count dead letters by state and reason."""
    counted = run_with(lambda db, _: DeadLetters(db).count())
    show_value([{"state": state, "reason": reason, "letters": n} for (state, reason), n in counted.items()], as_json)


@letters.command()
def show(dead_letter_id: UUID) -> None:
    """Show a whole dead letter, with its history, as JSON; bytes are base64."""
    letter = run_with(lambda db, _: DeadLetters(db).get(dead_letter_id))
    if letter is None:
        raise typer.BadParameter(f"there is no letter {dead_letter_id}")
    show_value(letter, as_json=True)


@letters.command()
def redrive(
    by: By,
    dead_letter_ids: Annotated[
        list[UUID] | None, typer.Argument(help="The letters; or all that --reason names.")
    ] = None,
    reason: Reason = None,
    limit: Limit = 10_000,
    as_json: Json = False,
) -> None:
    """Send dead letters the normal way again, through Kafka to `store`."""
    if bool(dead_letter_ids) == bool(reason):
        raise typer.BadParameter("name either letters or a --reason")

    async def run(database: Database, settings: Settings) -> dict[str, Any]:
        dead_letters = DeadLetters(database)
        ids = dead_letter_ids or [letter["_id"] for letter in await dead_letters.list(_filter("dead", reason), limit)]
        redriving = Redrive(dead_letters, Outbox(database), Sender(settings))
        with progress("redriving", len(ids)) as advance:
            return asdict(await redriving.redrive(ids, by, advance))

    show_value(run_with(run), as_json, "letters")


@letters.command()
def discard(
    by: By, dead_letter_ids: list[UUID], why: Annotated[str, typer.Option(help="Why; kept in the history.")]
) -> None:
    """Decide that dead letters stay out of the log. They are kept all the same."""

    async def run(database: Database, _: Settings) -> list[UUID]:
        return [
            dead_letter_id
            for dead_letter_id in dead_letter_ids
            if not await DeadLetters(database).discard(dead_letter_id, by, why)
        ]

    if untouched := run_with(run):
        raise typer.BadParameter(f"not dead, so not discarded: {', '.join(map(str, untouched))}")


def _filter(state: str | None, reason: str | None) -> dict[str, Any]:
    return {name: value for name, value in (("state", state), ("reason", reason)) if value}
