"""The command `twofold feed`: print new events of the log."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from twofold.cli.options import JsonOption, time_text
from twofold.cli.output import event_columns, print_line, run_with, warn, warn_altered, warn_unreadable
from twofold.mongo.client import Database
from twofold.query.limits import MAX_LIMIT
from twofold.read.export import event_json
from twofold.read.feed import Feed, FeedCursor, FeedPage
from twofold.read.models import EventOut
from twofold.settings import Settings

POLL_INTERVAL = timedelta(seconds=1)
"""The longest wait of `--follow` until it notices Ctrl-C."""


def feed(
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for new events, until Ctrl-C.")] = False,
    cursor: Annotated[str | None, typer.Option(help="Continue after this cursor of an earlier run.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=time_text,
            metavar="TIME",
            help="Begin with the events stored at this time or later, by MongoDB's clock: UTC, or with an offset.",
        ),
    ] = None,
    cursor_file: Annotated[
        Path | None, typer.Option(help="Keep the cursor in this file. The next run continues from there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the events of the log in the order of storage: every event once, without gaps.

    The output is some seconds behind the log. With --json, every event is a line of JSON. The last line names the
    cursor for the next run.
    """
    if cursor and since:
        raise typer.BadParameter("give either --cursor or --since: each is the place to begin")
    position = _start(cursor or _kept_cursor(cursor_file), since)

    async def run(database: Database, settings: Settings) -> None:
        nonlocal position
        reader = Feed(database)
        with _interruption() as interrupted:
            more = True
            while more and not interrupted.is_set():
                wait = POLL_INTERVAL if follow else timedelta(0)
                batch = await reader.wait(position, MAX_LIMIT, settings.page_bytes, wait)
                _print_events(FeedPage.of(batch), as_json)
                position = batch.cursor
                if cursor_file:
                    _keep_cursor(cursor_file, position)
                more = follow or bool(batch.documents)

    run_with(run)
    warn(f"cursor {position.encode()}")


def _start(cursor: str | None, since: datetime | None) -> FeedCursor:
    if cursor:
        return FeedCursor.decode(cursor)
    return FeedCursor.at(since) if since else FeedCursor.start()


def _kept_cursor(file: Path | None) -> str | None:
    return file.read_text().strip() if file and file.is_file() else None


def _keep_cursor(file: Path, cursor: FeedCursor) -> None:
    """Save the cursor after printing. After an interruption the next run repeats some events and skips none."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.write_text(cursor.encode() + "\n")
    unfinished.replace(file)


@contextmanager
def _interruption() -> Iterator[asyncio.Event]:
    """Set the event on Ctrl-C, so that the batch under way is printed before the end.

    Without this handler asyncio would cancel the batch. Until Python 3.12, `wait_for`, which the driver uses, can lose
    a cancellation.
    """
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _print_events(page: FeedPage, as_json: bool) -> None:
    for event in page.events:
        if as_json:
            sys.stdout.write(event_json(event) + "\n")
        elif isinstance(event, EventOut):
            text = "  ".join(value or "-" for value in event_columns(event).values())
            print_line(text)
            warn_altered([event])
        else:
            warn_unreadable(event.event_id)
    sys.stdout.flush()
