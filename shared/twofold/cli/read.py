"""The commands that read events: history and feed of the log, and exports of either collection.

They ask MongoDB itself, as all of `twofold` does, with the operator's user: no token is needed, and nothing bounds how
long an export may take.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import typer
from rich.console import Console

from twofold.cli.output import Json, console, progress, run_with, show
from twofold.mongo.client import Database
from twofold.query.filters import Filter, Order
from twofold.query.limits import MAX_LIMIT
from twofold.query.parameters import validate_parameters
from twofold.read.export import ExportItem, Format
from twofold.read.export import encode_export as exported
from twofold.read.export import event_json as json_of
from twofold.read.feed import Feed, FeedCursor, FeedPage
from twofold.read.models import EventOut
from twofold.read.pages import EventReader
from twofold.settings import Settings

LOOK_EVERY = timedelta(seconds=1)
"""How often who follows looks whether it is to end."""

Types = Annotated[list[str] | None, typer.Option("--type", help="Of this type; may be given more than once.")]
Aggregate = Annotated[str | None, typer.Option(help="Of this aggregate.")]
Correlation = Annotated[str | None, typer.Option(help="With this correlation id.")]
User = Annotated[str | None, typer.Option(help="Of this user.")]
Service = Annotated[str | None, typer.Option(help="From this service (CloudEvents' source); of `events` only.")]
Text = Annotated[str | None, typer.Option(help="With this text in an id, a type, the metadata or the payload.")]
From = Annotated[datetime | None, typer.Option("--from", help="At this time (UTC) or later, by the producers' clocks.")]
To = Annotated[datetime | None, typer.Option("--to", help="Before this time (UTC), by the producers' clocks.")]
Ordered = Annotated[Order, typer.Option(help="By time: newest or oldest first.")]


def history(
    *,
    types: Types = None,
    aggregate: Aggregate = None,
    correlation: Correlation = None,
    user: User = None,
    since: From = None,
    until: To = None,
    order: Ordered = "oldest",
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="How many events at most.")] = 100,
    as_json: Json = False,
) -> None:
    """Show the history of an aggregate, a correlation, a user, a type or a time, from the log."""
    asked = {"type": types, "aggregate": aggregate, "correlation": correlation, "user": user}
    wanted = _filter(**asked, **{"from": since, "to": until, "order": order, "limit": limit})
    page = run_with(lambda database, settings: EventReader(database["event_store"], settings).page(wanted))
    if as_json:
        show(page, as_json=True)
        return
    show([_line(event) for event in page.events], as_json=False, title="no events")
    for event_id in page.unreadable:
        _say(f"event {event_id} was made unreadable in the database")
    if page.next:
        _say(f"there are more than these {limit}: narrow the times, or raise --limit")


def export(
    file: Annotated[Path, typer.Argument(help="Where to write; - is standard output.")] = Path("-"),
    *,
    form: Annotated[
        Format, typer.Option("--format", help="csv, json (one array) or ndjson (one event a line).")
    ] = "ndjson",
    collection: Annotated[
        Literal["events", "event_store"], typer.Option(help="Of the last days, or of the log.")
    ] = "events",
    types: Types = None,
    aggregate: Aggregate = None,
    correlation: Correlation = None,
    user: User = None,
    service: Service = None,
    text: Text = None,
    since: From = None,
    until: To = None,
    order: Ordered = "oldest",
) -> None:
    """Export all events that the options select, however many. In CSV, no value begins a formula.

    A file appears under its name only once it is whole.
    """
    if service and collection == "event_store":
        raise typer.BadParameter("the log has no index by service: only --collection events takes it")
    asked = {"type": types, "aggregate": aggregate, "correlation": correlation, "user": user, "service": service}
    wanted = _filter(**asked, **{"text": text, "from": since, "to": until, "order": order})

    async def run(database: Database, settings: Settings) -> int:
        items = EventReader(database[collection], settings).stream(wanted, settings.export_timeout_s)
        with progress("exporting", None) as advance, _whole(file) as output:
            async with aclosing(items):
                counted = _Counted(items, advance)
                async for piece in exported(counted, form):
                    output.write(piece)
        return counted.number

    _say(f"{run_with(run)} events")


class _Counted:
    """The same items, counted as they pass."""

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
def _whole(file: Path) -> Iterator[BinaryIO]:
    """A file that gets its name at the end: what broke off is not taken for the whole."""
    if str(file) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    unfinished = file.with_name(f"{file.name}.unfinished")
    try:
        output = unfinished.open("wb")
    except OSError as error:
        raise typer.BadParameter(f"{unfinished} can't be written: {error.strerror}") from error
    try:
        with output:
            yield output
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def feed(
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for what is to come, until Ctrl-C.")] = False,
    cursor: Annotated[str | None, typer.Option(help="Go on behind this place, which an earlier run has told.")] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Begin with what came into the log at this time (UTC), by MongoDB's clock.")
    ] = None,
    place_file: Annotated[
        Path | None, typer.Option("--place", help="Keep the place in this file, and go on from there the next time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the log in the order in which it came in: each event once, and none skipped that commits late.

    Some seconds behind, for that. With --json, one event a line. At the end, the place to go on from.
    """
    if cursor and since:
        raise typer.BadParameter("--cursor says where to begin, and so does --since")
    kept = place_file.read_text().strip() if place_file and place_file.is_file() else None
    place = (
        FeedCursor.of_cursor(given)
        if (given := cursor or kept)
        else FeedCursor.at(_utc(since))
        if since
        else FeedCursor.start()
    )

    async def run(database: Database, settings: Settings) -> None:
        nonlocal place
        reading = Feed(database, timedelta(seconds=settings.mongodb_timeout_s))
        with _ctrl_c() as pressed:
            more = True
            while more and not pressed.is_set():
                wait = LOOK_EVERY if follow else timedelta(0)
                stretch = await reading.wait(place, MAX_LIMIT, settings.page_bytes, wait)
                _print_events(FeedPage.of(stretch), as_json)
                place = stretch.place
                if place_file:
                    _keep(place_file, place)
                more = follow or bool(stretch.documents)

    run_with(run)
    _say(f"cursor {place.cursor}")


@contextmanager
def _ctrl_c() -> Iterator[asyncio.Event]:
    """Whether Ctrl-C was pressed in the block: what is under way is done, and printed, first.

    asyncio would cancel it, and until Python 3.12 `wait_for`, which the driver uses, can lose a cancellation.
    """
    loop, pressed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, pressed.set)
    try:
        yield pressed
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _print_events(page: FeedPage, as_json: bool) -> None:
    for event in page.events:
        if as_json:
            sys.stdout.write(json_of(event) + "\n")
        elif isinstance(event, EventOut):
            text = "  ".join(value or "-" for value in _line(event).values())
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            _say(f"event {event.event_id} was made unreadable in the database")
    sys.stdout.flush()


def _keep(file: Path, place: FeedCursor) -> None:
    """Behind what is printed: who is interrupted in between sees some events twice, and none never."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.write_text(place.cursor + "\n")
    unfinished.replace(file)


def _filter(**asked: Any) -> Filter:
    """The filter. Raises `Malformed`, which names the option that is wrong."""
    values = {name: _utc(value) if isinstance(value, datetime) else value for name, value in asked.items()}
    return validate_parameters({name: value for name, value in values.items() if value is not None}, Filter)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def _line(event: EventOut) -> dict[str, str | None]:
    return {
        "time": event.timestamp.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event_type": event.event_type,
        "event_id": str(event.event_id),
        "aggregate": event.aggregate_id,
        "user": event.metadata.user_id,
        "service": event.metadata.service_name,
    }


def _say(line: str) -> None:
    Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
