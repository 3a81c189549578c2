"""The commands for outbox entries in a final state: events that the relay does not send again."""

from typing import Annotated, Any
from uuid import UUID

import typer

from twofold.cli.options import JsonOption, LimitOption
from twofold.cli.output import run_with, show
from twofold.mongo.client import Database
from twofold.settings import Settings
from twofold.storage.outbox import FINAL_STATES, FinalState, Outbox

outbox = typer.Typer(no_args_is_help=True, help="Events that the relay does not send again: list and retry them.")

StateOption = Annotated[FinalState, typer.Option(help="The state of the entries.")]


@outbox.command("list")
def list_entries(state: StateOption = "stuck", limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List the events in a final state, the oldest first."""
    found = run_with(lambda database, _: Outbox(database).in_state(state, limit))
    show([_line(document) for document in found], as_json)


def _line(document: dict[str, Any]) -> dict[str, Any]:
    entry = document.pop("outbox")
    return {"event_id": document.pop("_id"), **document, "tries": entry.get("tries"), "sent_at": entry.get("sent_at")}


@outbox.command()
def retry(
    event_ids: Annotated[list[UUID] | None, typer.Argument(help="The events, or all events with --state.")] = None,
    state: Annotated[FinalState | None, typer.Option(help="Retry all events in this state.")] = None,
    limit: LimitOption = 10_000,
    as_json: JsonOption = False,
) -> None:
    """Make the relay try events in a final state again. An event that still can't be sent returns to its state."""
    if bool(event_ids) == bool(state):
        raise typer.BadParameter(f"give event ids, or --state with one of: {', '.join(FINAL_STATES)}")

    async def run(database: Database, _: Settings) -> dict[str, int]:
        entries = Outbox(database)
        ids = event_ids or [document["_id"] for document in await entries.in_state(state or "stuck", limit)]
        return {"retried": await entries.retry(ids)}

    show(run_with(run), as_json, "events")
