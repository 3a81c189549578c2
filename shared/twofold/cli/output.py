"""What the commands share: settings, the database, and how a result is shown."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from twofold.mongo.client import Database, open_database
from twofold.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]

Done = TypeVar("Done")
console = Console(width=None if sys.stdout.isatty() else 250)  # nobody's window: a pipe gets whole lines


def settings() -> Settings:
    """The environment's."""
    return Settings()


def run_with(work: Callable[[Database, Settings], Awaitable[Done]]) -> Done:
    """Do `work` on the database."""

    async def connected() -> Done:
        own = settings()
        async with open_database(own, "cli") as database:
            return await work(database, own)

    return asyncio.run(connected())


def show(value: Any, as_json: bool, title: str = "") -> None:
    """A dict as a table of names and values, a list of dicts as a table with a column for each name; or JSON."""
    plain = to_jsonable_python(value, bytes_mode="base64")
    if as_json:
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
        return
    rows = plain if isinstance(plain, list) else [{"": name, title or "value": item} for name, item in plain.items()]
    table = Table(*(rows[0] if rows else [title or "nothing"]))
    for row in rows:
        table.add_row(*("-" if item is None else str(item) for item in row.values()))
    console.print(table)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal; the block says how far it has come."""
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda completed: bars.update(task, completed=completed)
