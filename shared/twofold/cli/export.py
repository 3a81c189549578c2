"""The command `twofold export`.

The command reads from MongoDB with the operator's user. So it needs no token, and an export may take any time.
"""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import typer

from twofold.cli.options import (
    AggregateOption,
    CorrelationOption,
    FromOption,
    OrderOption,
    ToOption,
    TypesOption,
    UserOption,
    event_filter,
)
from twofold.cli.output import progress, run_with, warn
from twofold.mongo.client import Database
from twofold.read.export import ExportItem, Format, encode_export
from twofold.read.pages import EventReader
from twofold.settings import Settings


def export(
    file: Annotated[Path, typer.Argument(help="The file to write; - is standard output.")] = Path("-"),
    *,
    form: Annotated[
        Format, typer.Option("--format", help="csv, json (one array) or ndjson (one event a line).")
    ] = "ndjson",
    collection: Annotated[
        Literal["events", "event_store"], typer.Option(help="The events of the last days, or the whole log.")
    ] = "events",
    types: TypesOption = None,
    aggregate: AggregateOption = None,
    correlation: CorrelationOption = None,
    user: UserOption = None,
    service: Annotated[
        str | None, typer.Option(help="Only events from this service (the CloudEvents source), in `events` only.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Only events with this text in an id, the type, the metadata or the payload.")
    ] = None,
    since: FromOption = None,
    until: ToOption = None,
    order: OrderOption = "oldest",
) -> None:
    """Write the selected events into a file.

    The file gets its name when it is complete. In CSV, no value is a formula for a spreadsheet.
    """
    if service and collection == "event_store":
        raise typer.BadParameter("event_store has no index by service: use --service with --collection events only")
    asked = {"type": types, "aggregate": aggregate, "correlation": correlation, "user": user, "service": service}
    wanted = event_filter(**asked, **{"text": text, "from": since, "to": until, "order": order})

    async def run(database: Database, settings: Settings) -> int:
        items = EventReader(database[collection], settings).stream(wanted, settings.export_timeout_s)
        with progress("exporting", None) as advance, _complete_file(file) as output:
            async with aclosing(items):
                counted = _CountedItems(items, advance)
                async for chunk in encode_export(counted, form):
                    output.write(chunk)
        return counted.number

    warn(f"{run_with(run)} events")


class _CountedItems:
    """An iterator over `items` with a count, which moves the progress bar."""

    def __init__(self, items: AsyncIterator[ExportItem], advance: Callable[[int], None]) -> None:
        self._items = items
        self._advance = advance
        self.number = 0

    def __aiter__(self) -> AsyncIterator[ExportItem]:
        return self

    async def __anext__(self) -> ExportItem:
        item = await anext(self._items)
        self.number += 1
        if self.number % 1000 == 0:
            self._advance(self.number)
        return item


@contextmanager
def _complete_file(file: Path) -> Iterator[BinaryIO]:
    """Open a file under a temporary name, and rename the file at the end: a part never has the name of the export."""
    if str(file) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    unfinished = file.with_name(f"{file.name}.unfinished")
    try:
        output = unfinished.open("wb")
    except OSError as error:
        raise typer.BadParameter(f"cannot write the file {unfinished}: {error.strerror}") from error
    try:
        with output:
            yield output
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
