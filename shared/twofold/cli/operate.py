"""The commands of daily operation: setup, status, checkpoints, relay and reconcile."""

import asyncio
import os
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from twofold.cli.options import JsonOption, LimitOption, time_text
from twofold.cli.output import print_line, progress, run_with, show, warn
from twofold.errors import InvalidSettings, Unavailable
from twofold.kafka.lag import read_backlog
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.settings import Settings, SetupSettings
from twofold.settings.environment import read_settings
from twofold.setup.roles import passwords_in
from twofold.setup.run import set_up
from twofold.storage.checkpoints import Checkpoints
from twofold.write.reconcile import reconcile as reconcile_
from twofold.write.relay import open_relay

relay = typer.Typer(no_args_is_help=True, help="Confirm events that the log has, and send missing events again.")


def setup() -> None:
    """Create or correct collections, indexes, roles, users and the topic. A second run changes nothing."""
    for line in asyncio.run(set_up(read_settings(SetupSettings), passwords_in(os.environ))):
        print_line(line)


def status(as_json: JsonOption = False) -> None:
    """Show how far the log is complete, and the number of events that are not in the log. Records no checkpoint.

    When Kafka is unavailable, the lag is null.
    """

    async def look(database: Database, settings: Settings) -> dict[str, Any]:
        checkpoint = await Checkpoints(database).measure()
        return {**asdict(checkpoint), "lag": await asyncio.to_thread(_lag, settings)}

    show(run_with(look), as_json, "now")


def _lag(settings: Settings) -> dict[str, int] | None:
    try:
        backlog = read_backlog(settings)
    except (Unavailable, InvalidSettings) as error:
        warn(str(error))
        return None
    return {str(number): lag for number, lag in sorted(backlog.lag.items())}


def checkpoints(limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List the completeness checkpoints, the newest first."""
    found = run_with(lambda database, _: Checkpoints(database).list(limit))
    show([asdict(checkpoint) for checkpoint in found], as_json)


@relay.command("run")
def relay_run(as_json: JsonOption = False) -> None:
    """Run the relay once, for all pending events, whatever their back-off is.

    The retention is that of the last run of the function `relay`, whatever RETENTION_DAYS is here.
    """

    async def run(database: Database, settings: Settings) -> dict[str, Any]:
        if retention := await Checkpoints(database).retention_days():
            settings = settings.model_copy(update={"retention_days": retention})
        done = await open_relay(database, Sender(settings), settings).run(make_due=True)
        return asdict(done) if done else {"busy": "another relay is running"}

    show(run_with(run), as_json, "events")


def reconcile(
    since: Annotated[
        datetime,
        typer.Option(
            "--from",
            parser=time_text,
            metavar="TIME",
            help="The time at which the backup began, or earlier: UTC, or with an offset.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Compare `events` with the log, and make the relay send the events that the log lacks.

    Run it after `event_store` was restored from a backup.
    """

    async def run(database: Database, settings: Settings) -> dict[str, Any]:
        with progress("comparing", await database["events"].estimated_document_count()) as advance:
            return asdict(await reconcile_(database, settings, since, advance))

    show(run_with(run), as_json, "events")
