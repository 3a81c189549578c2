"""`events` for admins: browse in any order, one event with its related events, and exports.

`admin_statistics.py` has the counts for admins. `storage/archive.py` has the deletions.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from twofold.mongo.client import Database, driver_errors, time_limit
from twofold.query.cursors import PAGE_CURSOR_BYTES, PageCursor, decode_cursor, encode_cursor, invalid_cursor
from twofold.query.filters import FIELDS, Filter, Order, PageKey, field_value
from twofold.read.models import EventOut, EventPage, ShownOrder, UnreadableEvent
from twofold.read.pages import EventReader
from twofold.read.scan import chunks_in_order
from twofold.settings import AdminSettings

ORDERS: tuple[Order, ...] = ("newest", "oldest")
MAX_RELATED = 50
"""The largest number of related events before an event, and also after it, for each relation."""

Relation = Literal["aggregate", "correlation"]
Sort = Literal["timestamp", "type", "service"]

_FILTER_OF_SORT = {"type": "types", "service": "service"}
"""The filter whose index has the order."""


class Browse(Filter):
    """A page of `events`, by any filters, in the order of a field that has an index for this order."""

    sort_by: Annotated[
        Sort,
        Field(
            alias="sort",
            description="the order; events with an equal value are in the order of time",
        ),
    ] = "timestamp"
    cursor: Annotated[
        str | None,
        Field(min_length=1, max_length=2048, description="`next` of the previous page, with the same parameters"),
    ] = None

    @property
    def field(self) -> str:
        """The field of the order, if the order is not the time."""
        return FIELDS[_FILTER_OF_SORT[self.sort_by]]

    @property
    def sort(self) -> list[tuple[str, int]]:
        """The order in MongoDB's form."""
        by_time = super().sort
        return by_time if self.sort_by == "timestamp" else [(self.field, by_time[0][1]), *by_time]

    def next_cursor(self, document: Mapping[str, Any]) -> str | None:
        """Return the cursor behind a stored document. See `PageCursor.of` for None."""
        if self.sort_by == "timestamp":
            return super().next_cursor(document)
        key = self.key(document)
        if key is None:
            return None
        value, *place = key
        return encode_cursor(PageCursor(*place).to_bytes() + value.encode(), self.cursor_key)

    def key(self, document: Mapping[str, Any]) -> PageKey | None:
        """Return the document's place in the order. A document that was changed in the database can have none."""
        cursor = PageCursor.of(document)
        if cursor is None or self.sort_by == "timestamp":
            return cursor
        try:
            value = field_value(document, self.field)
        except (KeyError, TypeError):
            return None
        return (value, *cursor) if isinstance(value, str) else None

    def start_key(self) -> PageKey | None:
        """Return the index key before the page, for an order other than the time. None is the first page."""
        if self.cursor is None:
            return None
        value, cursor = self._decode_with_value(self.cursor)
        return value, *cursor

    def _decode(self, cursor: str) -> PageCursor:
        return super()._decode(cursor) if self.sort_by == "timestamp" else self._decode_with_value(cursor)[1]

    def _decode_with_value(self, cursor: str) -> tuple[str, PageCursor]:
        """Return the value of the order's field and the cursor. Raise `Malformed` for the cursor of another query."""
        content = decode_cursor(cursor, self.cursor_key)
        try:
            return content[PAGE_CURSOR_BYTES:].decode(), PageCursor.from_bytes(content[:PAGE_CURSOR_BYTES])
        except ValueError:
            raise invalid_cursor() from None


class RelatedEvent(BaseModel):
    """A related event, without its payload."""

    event_id: UUID
    event_type: str
    timestamp: datetime
    order: ShownOrder
    service_name: str
    user_id: str | None
    aggregate_id: str | None
    correlation_id: str | None
    related_by: Annotated[list[Relation], Field(description="the shared values; empty: this is the event itself")]


class OutboxState(BaseModel):
    """The way of an event into the log."""

    state: Annotated[
        str,
        Field(
            description="in_log: the relay read the event back from `event_store`; new or pending: not yet; "
            "dead, conflicting or unreadable: the relay stopped retrying"
        ),
    ]
    tries: Annotated[int | None, Field(description="the number of times that the relay sent the event again")] = None
    expires_at: Annotated[datetime | None, Field(description="the time at which the event leaves `events`")] = None


class EventDetail(BaseModel):
    """An event, its outbox state, and the events before and after it with its correlation or its aggregate."""

    event: EventOut
    outbox: OutboxState
    timeline: Annotated[list[RelatedEvent], Field(description="the event and its related events, oldest first")]
    complete: Annotated[
        bool, Field(description=f"false: more than {MAX_RELATED} related events are before or after the event")
    ]


class AdminEventsRepository:
    """`events` for admins. Every method raises `Unavailable` when MongoDB is unavailable or too slow."""

    def __init__(self, database: Database, settings: AdminSettings) -> None:
        self._events = database["events"]
        self._reader = EventReader(database["events"], settings)
        self._timeout_s = settings.query_timeout_s
        self._search_keys = settings.search_keys
        self._export_timeout_s = settings.export_timeout_s

    async def browse(self, wanted: Browse) -> EventPage:
        """Return the page that `wanted` describes.

        The order chooses the index. In an order other than the time, the filters are therefore a search, which may be
        cut.
        """
        if wanted.sort_by == "timestamp":
            return await self._reader.page(wanted)
        hint = f"by_{_FILTER_OF_SORT[wanted.sort_by]}"
        chunks = chunks_in_order(self._events, wanted, hint, wanted.start_key(), self._search_keys)
        return await self._reader.fill(wanted, hint, chunks)

    async def export(self, wanted: Filter) -> AsyncGenerator[EventOut | UnreadableEvent]:
        """Yield the events of a filter, in its order, for an export."""
        async with aclosing(self._reader.stream(wanted, self._export_timeout_s)) as events:
            async for event in events:
                yield event

    async def detail(self, event_id: UUID) -> EventDetail | None:
        """Return the event with its related events, or None if it does not exist."""
        event = await self._reader.get(event_id)
        outbox = await self._outbox_state(event_id)
        if event is None or outbox is None:
            return None
        timeline = {event.event_id: _related(event)}
        complete = True
        relations: dict[Relation, str | None] = {
            "aggregate": event.aggregate_id,
            "correlation": event.metadata.correlation_id,
        }
        for relation, value in relations.items():
            if not value:  # an empty value relates no events
                continue
            related = await self._reader.equal(_related_filter(relation, value, "newest"), event)
            for order in ORDERS:
                page = await self._reader.page(_related_filter(relation, value, order).with_cursor(event.cursor))
                complete = complete and page.next is None
                related += page.events
            for found in related:
                if found.event_id != event.event_id:
                    timeline.setdefault(found.event_id, _related(found)).related_by.append(relation)
        in_order = sorted(timeline.values(), key=lambda related: (related.timestamp, related.order))
        return EventDetail(event=event, outbox=outbox, timeline=in_order, complete=complete)

    async def _outbox_state(self, event_id: UUID) -> OutboxState | None:
        with driver_errors(), time_limit(self._timeout_s):
            document = await self._events.find_one({"_id": event_id}, {"outbox": 1, "expires_at": 1})
        if document is None:
            return None
        entry = document.get("outbox") or {"state": "in_log"}
        return OutboxState(state=entry["state"], tries=entry.get("tries"), expires_at=document.get("expires_at"))


def _related_filter(relation: Relation, value: str, order: Order) -> Filter:
    return Filter.model_validate({relation: value, "order": order, "limit": MAX_RELATED})


def _related(event: EventOut) -> RelatedEvent:
    return RelatedEvent(
        event_id=event.event_id,
        event_type=event.event_type,
        timestamp=event.timestamp,
        order=event.order,
        service_name=event.metadata.service_name,
        user_id=event.metadata.user_id,
        aggregate_id=event.aggregate_id,
        correlation_id=event.metadata.correlation_id,
        related_by=[],
    )
