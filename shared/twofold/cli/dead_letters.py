"""The commands for dead letters."""

import getpass
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import typer

from twofold.cli.options import JsonOption, LimitOption
from twofold.cli.output import progress, run_with
from twofold.cli.output import show as show_value
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.settings import Settings
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.outbox import Outbox
from twofold.write.redrive import Redrive

dead_letters = typer.Typer(no_args_is_help=True, help="Look at dead letters, and redrive or discard them.")

State = Literal["dead", "redriving", "stored", "discarded"]
Reason = Literal[
    "digest-mismatch",
    "identity-conflict",
    "invalid",
    "malformed",
    "too-large",
    "undelivered",
    "unexpected",
    "unknown-replay",
    "unsupported-type",
]

StateOption = Annotated[State | None, typer.Option(help="Only dead letters in this state.")]
ReasonOption = Annotated[Reason | None, typer.Option(help="Only dead letters with this reason.")]
ByOption = Annotated[
    str, typer.Option(help="Your name. The history of the dead letter keeps it.", default_factory=getpass.getuser)
]

_LISTED = ("_id", "state", "reason", "detail", "event_id", "first_at", "last_at", "times")


@dead_letters.command("list")
def list_dead_letters(
    state: StateOption = "dead", reason: ReasonOption = None, limit: LimitOption = 50, as_json: JsonOption = False
) -> None:
    """List dead letters, the oldest first."""
    found = run_with(lambda db, _: DeadLetters(db).list(_filter(state, reason), limit))
    show_value([{name: dead_letter[name] for name in _LISTED} for dead_letter in found], as_json)


@dead_letters.command()
def count(as_json: JsonOption = False) -> None:
    """Count dead letters by state and reason."""
    counts = run_with(lambda db, _: DeadLetters(db).count())
    lines = [{"state": state, "reason": reason, "dead_letters": n} for (state, reason), n in counts.items()]
    show_value(lines, as_json)


@dead_letters.command()
def show(dead_letter_id: UUID) -> None:
    """Show a dead letter with its history, as JSON. Bytes are in base64."""
    dead_letter = run_with(lambda db, _: DeadLetters(db).get(dead_letter_id))
    if dead_letter is None:
        raise typer.BadParameter(f"there is no dead letter {dead_letter_id}")
    show_value(dead_letter, as_json=True)


@dead_letters.command()
def redrive(
    by: ByOption,
    dead_letter_ids: Annotated[
        list[UUID] | None, typer.Argument(help="The ids of the dead letters, in place of --reason.")
    ] = None,
    reason: ReasonOption = None,
    limit: LimitOption = 10_000,
    as_json: JsonOption = False,
) -> None:
    """Send dead letters again, through Kafka to `store`."""
    if bool(dead_letter_ids) == bool(reason):
        raise typer.BadParameter("give either the ids of dead letters or a --reason")

    async def run(database: Database, settings: Settings) -> dict[str, Any]:
        stored = DeadLetters(database)
        ids = dead_letter_ids or [found["_id"] for found in await stored.list(_filter("dead", reason), limit)]
        with progress("redriving", len(ids)) as advance:
            outbox = Outbox(database, timedelta(seconds=settings.relay_back_off_s))
            result = await Redrive(stored, outbox, Sender(settings)).redrive(ids, by, advance)
        return asdict(result)

    show_value(run_with(run), as_json, "dead letters")


@dead_letters.command()
def discard(
    by: ByOption,
    dead_letter_ids: Annotated[list[UUID], typer.Argument(help="The ids of the dead letters.")],
    why: Annotated[str, typer.Option(help="The reason. The history of the dead letter keeps it.")],
) -> None:
    """Keep dead letters out of the log. The database keeps their documents."""

    async def run(database: Database, _: Settings) -> list[UUID]:
        stored = DeadLetters(database)
        return [found for found in dead_letter_ids if not await stored.discard(found, by, why)]

    if not_discarded := run_with(run):
        ids = ", ".join(map(str, not_discarded))
        raise typer.BadParameter(f"not discarded, because their state is not dead: {ids}")


def _filter(state: str | None, reason: str | None) -> dict[str, Any]:
    return {name: value for name, value in (("state", state), ("reason", reason)) if value}
