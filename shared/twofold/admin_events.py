"""`AdminEventsRepository`: `events` as those see it who look after it: browse, one event with its kin, export.

What it counts is in `admin_statistics.py`; what it deletes, in `archive.py`.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from pydantic import BaseModel, Field

from twofold.cursors import PACKED_BYTES, Position, cursor_of, not_given_out, place_of
from twofold.errors import Unreadable
from twofold.events import EventRepository
from twofold.filters import FIELDS, Filter, Order
from twofold.mongo import Database, Document, driver_errors, plain, raw, within
from twofold.reading import SEARCH_BATCH, EventOut, Page, Unread
from twofold.settings import Settings

KIN = 50
"""How many related events are shown before an event, and behind it, for each relation."""

Relation = Literal["aggregate", "correlation"]
Sort = Literal["timestamp", "type", "service"]
_SORTED_BY = {"type": "types", "service": "service"}
"""The filter, and so the index, whose order it is."""


class Browse(Filter):
    """A page of `events`, by any filters, in the order of a field that has an index for it."""

    sort_by: Annotated[
        Sort, Field(alias="sort", description="in the order of this; where it is equal, by time and by id")
    ] = "timestamp"
    cursor: Annotated[
        str | None,
        Field(min_length=1, max_length=2048, description="`next` of the page before, with the same parameters"),
    ] = None

    @property
    def field(self) -> str:
        """The field that it is sorted by, if that is not the time."""
        return FIELDS[_SORTED_BY[self.sort_by]]

    def cursor_behind(self, value: str, position: Position) -> str:
        """The cursor for what comes behind the event at `position`, whose field is `value`."""
        return cursor_of(position.packed() + value.encode(), self.question)

    def place(self) -> tuple[str, Position] | None:
        """The field's value, and the position, behind which a page that isn't sorted by time begins."""
        return None if self.cursor is None else self._read_place(self.cursor)

    def _read(self, cursor: str) -> Position:
        return super()._read(cursor) if self.sort_by == "timestamp" else self._read_place(cursor)[1]

    def _read_place(self, cursor: str) -> tuple[str, Position]:
        """Raises `Malformed` unless `cursor_behind` made it for the same selection and order."""
        place = place_of(cursor, self.question)
        try:
            return place[PACKED_BYTES:].decode(), Position.of_packed(place[:PACKED_BYTES])
        except ValueError:
            raise not_given_out() from None


class Kin(BaseModel):
    """A related event, without its payload."""

    event_id: UUID
    event_type: str
    timestamp: datetime
    service_name: str
    user_id: str | None
    aggregate_id: str | None
    correlation_id: str | None
    related_by: Annotated[list[Relation], Field(description="what it shares; none: itself")]


class Mark(BaseModel):
    """Where an event is on its way into the log."""

    state: Annotated[
        str,
        Field(description="in_log: read back from `event_store`; new, pending: not yet; dead, conflicting, unreadable"),
    ]
    tries: Annotated[int | None, Field(description="how often it was sent again")] = None
    expires_at: Annotated[datetime | None, Field(description="when it leaves `events`")] = None


class Detail(BaseModel):
    """An event with those that share its correlation or its aggregate, before it and behind it."""

    event: EventOut
    mark: Mark
    timeline: Annotated[list[Kin], Field(description="the event and its kin, the oldest first")]
    complete: Annotated[bool, Field(description=f"false: there are more than {KIN} before or behind it")]


class AdminEventsRepository:
    """`events` for admins. Every method raises `Unavailable`."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._events = database["events"]
        self._reader = EventRepository(database).reader(settings)
        self._timeout_s = settings.query_timeout_s
        self._search_s = min(settings.search_s, settings.query_timeout_s / 2)
        self._export_timeout_s = settings.export_timeout_s

    async def browse(self, wanted: Browse) -> Page:
        """The page that `wanted` describes.

        If it isn't sorted by time, filters don't choose the index: it is a search then, which may be cut.
        """
        return await (self._reader.page(wanted) if wanted.sort_by == "timestamp" else self._sorted_page(wanted))

    async def export(self, wanted: Filter) -> AsyncGenerator[EventOut | Unread]:
        """Every event that `wanted` selects, however many."""
        async with aclosing(self._reader.stream(wanted, self._export_timeout_s)) as events:
            async for event in events:
                yield event

    async def detail(self, event_id: UUID) -> Detail | None:
        """The event and its kin; None if there is no such event."""
        event = await self._reader.get(event_id)
        mark = await self._mark(event_id)
        if event is None or mark is None:
            return None
        timeline = {event.event_id: _kin(event)}
        complete = True
        relations: dict[Relation, str | None] = {
            "aggregate": event.aggregate_id,
            "correlation": event.metadata.correlation_id,
        }
        for relation, value in relations.items():
            for order in ("newest", "oldest") if value is not None else ():
                page = await self._kin(relation, str(value), order, event.position)
                complete = complete and page.next is None
                for one in page.events:
                    timeline.setdefault(one.event_id, _kin(one)).related_by.append(relation)
        in_order = sorted(timeline.values(), key=lambda kin: (kin.timestamp, kin.event_id.bytes))
        return Detail(event=event, mark=mark, timeline=in_order, complete=complete)

    async def _kin(self, relation: Relation, value: str, order: Order, position: Position) -> Page:
        around = Filter.model_validate({relation: value, "order": order, "limit": KIN})
        return await self._reader.page(around.after(position))

    async def _mark(self, event_id: UUID) -> Mark | None:
        with driver_errors(), within(self._timeout_s):
            document = await self._events.find_one({"_id": event_id}, {"outbox": 1, "expires_at": 1})
        if document is None:
            return None
        mark = document.get("outbox") or {"state": "in_log"}
        return Mark(state=mark["state"], tries=mark.get("tries"), expires_at=document.get("expires_at"))

    async def _sorted_page(self, wanted: Browse) -> Page:
        page = Page(events=[])
        deadline = time.monotonic() + self._search_s
        last: _Seen | None = None
        with driver_errors(), within(self._timeout_s):
            async with aclosing(self._sorted(wanted)) as documents:
                async for document in documents:
                    full = len(page.events) == wanted.limit
                    if last and (full or time.monotonic() > deadline):
                        page.next = wanted.cursor_behind(*last)
                        page.cut = not full
                        page.searched_to = None if full else last.position.timestamp
                        return page
                    try:
                        event = EventOut.of_plain(document)
                    except Unreadable:
                        page.unreadable.append(str(document["_id"]))
                        continue
                    last = _Seen(_value(document, wanted.field), event.position)
                    if _selects(wanted, document):
                        page.events.append(event)
        return page

    async def _sorted(self, wanted: Browse) -> AsyncGenerator[Document]:
        """All events in the order that is wanted, from the cursor on: the index has them in it."""
        direction = -1 if wanted.order == "newest" else 1
        fields = (wanted.field, "timestamp", "_id")
        hint = f"by_{_SORTED_BY[wanted.sort_by]}"
        found = raw(self._events).find({}, hint=hint, batch_size=SEARCH_BATCH)
        found = found.sort([(field, direction) for field in fields])
        place = wanted.place()
        if place is not None:
            value, position = place
            bound: list[tuple[str, Any]] = list(zip(fields, (value, *position), strict=True))
            found = found.max(bound) if direction == -1 else found.min(bound)
        async with found:
            async for document in found:
                if place is None or document["_id"] != place[1].event_id:  # `min` includes its bound
                    yield plain(document)


class _Seen(NamedTuple):
    value: str
    position: Position


def _value(document: Document, field: str) -> str:
    """The value of a field whose name may have a dot."""
    value = document
    for name in field.split("."):
        value = value[name]
    return str(value)


def _selects(wanted: Browse, document: Document) -> bool:
    """Whether the readable event in `document` is one that is wanted."""
    asked = {name: getattr(wanted, name) for name in FIELDS if getattr(wanted, name)}
    found = {name: _optional(document, FIELDS[name]) for name in asked}
    return (
        all(found[name] in value if isinstance(value, tuple) else found[name] == value for name, value in asked.items())
        and (wanted.since is None or document["timestamp"] >= wanted.since)
        and (wanted.until is None or document["timestamp"] < wanted.until)
        and wanted.has_text(document)
    )


def _optional(document: Document, field: str) -> str | None:
    outer, _, inner = field.rpartition(".")
    value: str | None = (document[outer] if outer else document).get(inner)
    return value


def _kin(event: EventOut) -> Kin:
    return Kin(
        event_id=event.event_id,
        event_type=event.event_type,
        timestamp=event.timestamp,
        service_name=event.metadata.service_name,
        user_id=event.metadata.user_id,
        aggregate_id=event.aggregate_id,
        correlation_id=event.metadata.correlation_id,
        related_by=[],
    )
