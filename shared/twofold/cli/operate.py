"""The commands that look after the whole: setup, completeness, relay, reconcile."""

import asyncio
import os
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console

from twofold.cli.output import Json, Limit, console, progress, run_with, settings, show
from twofold.errors import Unavailable
from twofold.kafka.lag import read_backlog
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.settings import Settings
from twofold.setup.roles import passwords_in
from twofold.setup.run import set_up
from twofold.storage.checkpoints import Checkpoints
from twofold.write.reconcile import reconcile as reconcile_
from twofold.write.relay import open_relay

relay = typer.Typer(no_args_is_help=True, help="The relay: takes marks off, and sends again what isn't in the log.")


def setup() -> None:
    """Bring collections, indexes, roles, users and the topic to what they should be. Safe to repeat."""
    for line in asyncio.run(set_up(settings(), passwords_in(os.environ))):
        console.print(line)


def status(as_json: Json = False) -> None:
    """Say how far the log is complete, and what is pending, dead or conflicting. Records no checkpoint.

    While Kafka is away, the lag is null.
    """

    async def look(database: Database, settings: Settings) -> dict[str, Any]:
        checkpoint = await _checkpoints(database, settings).find_out()
        return {**asdict(checkpoint), "lag": await asyncio.to_thread(_lag, settings)}

    show(run_with(look), as_json, "now")


def _lag(settings: Settings) -> dict[str, int] | None:
    try:
        backlog = read_backlog(settings)
    except Unavailable as error:
        Console(stderr=True).print(str(error), markup=False, highlight=False, soft_wrap=True)
        return None
    return {str(number): lag for number, lag in sorted(backlog.lag.items())}


def checkpoints(limit: Limit = 20, as_json: Json = False) -> None:
    """List the checkpoints of completeness, newest first."""
    show([asdict(line) for line in run_with(lambda db, settings: _checkpoints(db, settings).list(limit))], as_json)


def _checkpoints(database: Database, settings: Settings) -> Checkpoints:
    return Checkpoints(database, timedelta(seconds=settings.mongodb_timeout_s))


@relay.command("run")
def relay_run(as_json: Json = False) -> None:
    """Do what the function `relay` does when its timer wakes it, once."""

    async def run(database: Database, settings: Settings) -> dict[str, Any]:
        done = await open_relay(database, Sender(settings), settings).run()
        return asdict(done) if done else {"busy": "another relay is at it"}

    show(run_with(run), as_json, "events")


def reconcile(
    since: Annotated[datetime, typer.Option("--from", help="When the backup was made, or earlier (UTC).")],
    as_json: Json = False,
) -> None:
    """Compare `events` with the log, and mark again what the log lacks, so that the relay sends it.

    For the day on which `event_store` was restored from a backup.
    """

    async def run(database: Database, settings: Settings) -> dict[str, Any]:
        with progress("comparing", await database["events"].estimated_document_count()) as advance:
            return asdict(await reconcile_(database, settings, since.replace(tzinfo=UTC), advance))

    show(run_with(run), as_json, "events")
