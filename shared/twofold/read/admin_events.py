"""`AdminEventsRepository`: `events` as those see it who look after it: browse, one event with its kin, export.

What it counts is in `admin_statistics.py`; what it deletes, in `archive.py`.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from twofold.mongo.client import Database, driver_errors, time_limit
from twofold.query.cursors import PAGE_CURSOR_BYTES, PageCursor, decode_cursor, encode_cursor, invalid_cursor
from twofold.query.filters import FIELDS, Filter, Order, field_value
from twofold.read.models import EventOut, EventPage, UnreadableEvent
from twofold.read.pages import EventReader
from twofold.read.scan import chunks_in_order
from twofold.settings import AdminSettings

MAX_RELATED = 50
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

    @property
    def sort(self) -> list[tuple[str, int]]:
        """The order as MongoDB takes it."""
        by_time = super().sort
        return by_time if self.sort_by == "timestamp" else [(self.field, by_time[0][1]), *by_time]

    def next_cursor(self, document: Mapping[str, Any]) -> str | None:
        """The cursor for what comes behind a stored document; None if it has no place in the order."""
        if self.sort_by == "timestamp":
            return super().next_cursor(document)
        cursor, value = PageCursor.of(document), field_value(document, self.field)
        return None if cursor is None else encode_cursor(cursor.to_bytes() + str(value).encode(), self.cursor_key)

    def index_key(self) -> tuple[str, datetime, UUID] | None:
        """The key of its index behind which a page that isn't sorted by time begins."""
        if self.cursor is None:
            return None
        value, cursor = self._decode_sorted(self.cursor)
        return value, *cursor

    def _decode(self, cursor: str) -> PageCursor:
        return super()._decode(cursor) if self.sort_by == "timestamp" else self._decode_sorted(cursor)[1]

    def _decode_sorted(self, cursor: str) -> tuple[str, PageCursor]:
        """Raises `Malformed` unless `next_cursor` made it for the same selection and order."""
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
    service_name: str
    user_id: str | None
    aggregate_id: str | None
    correlation_id: str | None
    related_by: Annotated[list[Relation], Field(description="what it shares; none: itself")]


class OutboxState(BaseModel):
    """Where an event is on its way into the log."""

    state: Annotated[
        str,
        Field(description="in_log: read back from `event_store`; new, pending: not yet; dead, conflicting, unreadable"),
    ]
    tries: Annotated[int | None, Field(description="how often it was sent again")] = None
    expires_at: Annotated[datetime | None, Field(description="when it leaves `events`")] = None


class EventDetail(BaseModel):
    """An event with those that share its correlation or its aggregate, before it and behind it."""

    event: EventOut
    mark: OutboxState
    timeline: Annotated[list[RelatedEvent], Field(description="the event and its kin, the oldest first")]
    complete: Annotated[bool, Field(description=f"false: there are more than {MAX_RELATED} before or behind it")]


class AdminEventsRepository:
    """`events` for admins. Every method raises `Unavailable`."""

    def __init__(self, database: Database, settings: AdminSettings) -> None:
        self._events = database["events"]
        self._reader = EventReader(database["events"], settings)
        self._timeout_s = settings.query_timeout_s
        self._search_keys = settings.search_keys
        self._export_timeout_s = settings.export_timeout_s

    async def browse(self, wanted: Browse) -> EventPage:
        """The page that `wanted` describes.

        If it isn't sorted by time, filters don't choose the index: it is a search then, which may be cut.
        """
        if wanted.sort_by == "timestamp":
            return await self._reader.page(wanted)
        hint = f"by_{_SORTED_BY[wanted.sort_by]}"
        pieces = chunks_in_order(self._events, wanted, hint, wanted.index_key(), self._search_keys)
        return await self._reader.fill(wanted, pieces)

    async def export(self, wanted: Filter) -> AsyncGenerator[EventOut | UnreadableEvent]:
        """Every event that `wanted` selects, however many."""
        async with aclosing(self._reader.stream(wanted, self._export_timeout_s)) as events:
            async for event in events:
                yield event

    async def detail(self, event_id: UUID) -> EventDetail | None:
        """The event and its kin; None if there is no such event."""
        event = await self._reader.get(event_id)
        mark = await self._mark(event_id)
        if event is None or mark is None:
            return None
        timeline = {event.event_id: _related(event)}
        complete = True
        relations: dict[Relation, str | None] = {
            "aggregate": event.aggregate_id,
            "correlation": event.metadata.correlation_id,
        }
        for relation, value in relations.items():
            for order in ("newest", "oldest") if value is not None else ():
                page = await self._kin(relation, str(value), order, event.cursor)
                complete = complete and page.next is None
                for one in page.events:
                    timeline.setdefault(one.event_id, _related(one)).related_by.append(relation)
        chunks_in_order = sorted(timeline.values(), key=lambda kin: (kin.timestamp, kin.event_id.bytes))
        return EventDetail(event=event, mark=mark, timeline=chunks_in_order, complete=complete)

    async def _kin(self, relation: Relation, value: str, order: Order, cursor: PageCursor) -> EventPage:
        around = Filter.model_validate({relation: value, "order": order, "limit": MAX_RELATED})
        return await self._reader.page(around.with_cursor(cursor))

    async def _mark(self, event_id: UUID) -> OutboxState | None:
        with driver_errors(), time_limit(self._timeout_s):
            document = await self._events.find_one({"_id": event_id}, {"outbox": 1, "expires_at": 1})
        if document is None:
            return None
        mark = document.get("outbox") or {"state": "in_log"}
        return OutboxState(state=mark["state"], tries=mark.get("tries"), expires_at=document.get("expires_at"))


def _related(event: EventOut) -> RelatedEvent:
    return RelatedEvent(
        event_id=event.event_id,
        event_type=event.event_type,
        timestamp=event.timestamp,
        service_name=event.metadata.service_name,
        user_id=event.metadata.user_id,
        aggregate_id=event.aggregate_id,
        correlation_id=event.metadata.correlation_id,
        related_by=[],
    )
