"""The parts of every command: settings, the connection to MongoDB, and the output."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from twofold.cli.table import printable, render, rows_of
from twofold.mongo.client import Database, open_database
from twofold.read.models import EventOut
from twofold.settings import Settings
from twofold.settings.environment import read_settings

Done = TypeVar("Done")

_PIPE_WIDTH = 250
"""The width of a pipe, which has none of its own. `COLUMNS` sets another."""


def stdout_console() -> Console:
    """Return the console on standard output."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH)


def run_with(work: Callable[[Database, Settings], Awaitable[Done]]) -> Done:
    """Connect to MongoDB, and return the result of `work`. Raises `InvalidSettings`."""

    async def connected() -> Done:
        settings = read_settings(Settings)
        async with open_database(settings, "cli") as database:
            return await work(database, settings)

    return asyncio.run(connected())


def show(value: Any, as_json: bool, title: str = "") -> None:
    """Print JSON or a table. A dict gives a line for every key; a list of dicts gives a column for every key."""
    plain = to_jsonable_python(value, bytes_mode="base64")
    if as_json:
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
        return
    console = stdout_console()
    console.print(render(rows_of(plain, title), console, title or "nothing"), soft_wrap=True)


def print_line(line: str) -> None:
    """Print a line on standard output. The line is never markup."""
    stdout_console().print(printable(line), highlight=False, markup=False, emoji=False, soft_wrap=True)


def warn(line: str) -> None:
    """Print a line on standard error. The line is never markup."""
    text = printable(" ".join(line.splitlines()))
    Console(stderr=True).print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def warn_unreadable(event_id: str) -> None:
    """Warn of an unreadable event, whose document was changed in the database."""
    warn(f"event {event_id} is unreadable: its document was changed in the database")


def warn_altered(events: Iterable[EventOut]) -> None:
    """Warn of events whose content was changed in the database, and still is a valid event."""
    for event in events:
        if event.altered:
            warn(f"event {event.event_id} was altered in the database: it does not fit its digest or its identity")


def event_columns(event: EventOut) -> dict[str, str | None]:
    """Return the columns of an event's line."""
    return {
        "time": event.timestamp.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event_type": event.event_type,
        "event_id": str(event.event_id),
        "id": event.id,
        "aggregate": event.aggregate_id,
        "user": event.metadata.user_id,
        "service": event.metadata.service_name,
    }


class _Rate(ProgressColumn):
    """The number of items a second."""

    def render(self, task: Task) -> Text:
        """Return the rate, or a dash at the start."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "-/s")


def progress_bars(console: Console) -> Progress:
    """Return a progress bar with count, share, rate and time."""
    description = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TaskProgressColumn(), _Rate(), TimeElapsedColumn())
    return Progress(description, *columns, console=console, transient=True)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal's standard error. The block passes the number of finished items."""
    with progress_bars(Console(stderr=True)) as bars:
        task = bars.add_task(description, total=total)
        yield lambda completed: bars.update(task, completed=completed)
