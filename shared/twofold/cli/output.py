"""The parts of every command: settings, the connection to MongoDB, and the output."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from twofold.mongo.client import Database, open_database
from twofold.read.models import EventOut
from twofold.settings import Settings

Done = TypeVar("Done")
console = Console(width=None if sys.stdout.isatty() else 250)  # a pipe has no width, and gets whole lines


def read_settings() -> Settings:
    """Return the settings in the environment variables."""
    return Settings()


def run_with(work: Callable[[Database, Settings], Awaitable[Done]]) -> Done:
    """Connect to MongoDB, and return the result of `work`."""

    async def connected() -> Done:
        settings = read_settings()
        async with open_database(settings, "cli") as database:
            return await work(database, settings)

    return asyncio.run(connected())


def show(value: Any, as_json: bool, title: str = "") -> None:
    """Print JSON or a table. A dict gives a line for every key; a list of dicts gives a column for every key."""
    plain = to_jsonable_python(value, bytes_mode="base64")
    if as_json:
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
        return
    rows = plain if isinstance(plain, list) else [{"": name, title or "value": item} for name, item in plain.items()]
    table = Table(*(rows[0] if rows else [title or "nothing"]))
    for row in rows:
        table.add_row(*("-" if item is None else str(item) for item in row.values()))
    console.print(table)


def warn(line: str) -> None:
    """Print a line on standard error."""
    Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)


def warn_unreadable(event_id: str) -> None:
    """Warn of an unreadable event, whose document was changed in the database."""
    warn(f"event {event_id} is unreadable: its document was changed in the database")


def warn_altered(events: Iterable[EventOut]) -> None:
    """Warn of events whose content was changed in the database, and still is a valid event."""
    for event in events:
        if event.altered:
            warn(f"event {event.event_id} was altered in the database: its content does not fit its digest")


def event_columns(event: EventOut) -> dict[str, str | None]:
    """Return the columns of an event's line."""
    return {
        "time": event.timestamp.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event_type": event.event_type,
        "event_id": str(event.event_id),
        "aggregate": event.aggregate_id,
        "user": event.metadata.user_id,
        "service": event.metadata.service_name,
    }


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal's standard error. The block passes the number of finished items."""
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(description, total=total)
        yield lambda completed: bars.update(task, completed=completed)
