"""Reading events as people ask for them: pages of `events` and of `event_store`, by the same filters.

No query runs without an index, and none for longer than it may. What is shown is `EventOut`, whatever the collection.
"""

import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pymongo import ASCENDING, IndexModel

from twofold.cursors import Position
from twofold.errors import Unreadable
from twofold.filters import FIELDS, Conditions, Filter
from twofold.mongo import Collection, Document, Encoded, driver_errors, plain, raw, within
from twofold.scanning import Piece, by_time, nowhere, place_behind
from twofold.settings import Settings

NARROWER = "narrow the time or the filters"

STREAM_PIECE = 5_000
"""How many events one query of a stream reads: a cursor must end before the server has worked on it for too long."""
STREAM_BATCH = 200

_TAIL = [("timestamp", ASCENDING), ("_id", ASCENDING)]
_OPTIONAL = {
    "aggregate": {"aggregate_id": {"$gt": ""}},  # it is stored as null where it is absent
    "correlation": {"metadata.correlation_id": {"$exists": True}},
    "user": {"metadata.user_id": {"$exists": True}},
}
"""Only events that have the field are in its index: it costs the others nothing."""


def filter_indexes(filters: Iterable[str]) -> list[IndexModel]:
    """The indexes that pages by `filters` need, each in the order of pages, and the one for all other pages."""
    wanted = set(filters)
    by_filter = [
        IndexModel(
            [(field, ASCENDING), *_TAIL],
            name=f"by_{name}",
            **({"partialFilterExpression": _OPTIONAL[name]} if name in _OPTIONAL else {}),
        )
        for name, field in FIELDS.items()
        if name in wanted
    ]
    return [IndexModel(_TAIL, name="by_time"), *by_filter]


def _is_none(value: object) -> bool:
    return value is None


_Present = TypeVar("_Present")
Optional = Annotated[_Present | None, Field(exclude_if=_is_none)]
"""Absent, rather than null, where it isn't given."""


def index_for(wanted: Conditions, indexed: frozenset[str], scope: str | None = None) -> str:
    """The filter whose index serves `wanted`: the one that leaves the fewest events, or else `time`.

    For a caller who may read the events of one user alone, `scope`, it is always that user's: nobody can tell from how
    long an answer takes what others have.
    """
    if scope is not None:
        return "user"
    return next((name for name in FIELDS if name in indexed and getattr(wanted, name)), "time")


class MetadataOut(BaseModel):
    """Who and what an event came from. What the producer did not give is absent."""

    model_config = ConfigDict(extra="allow")

    service_name: Annotated[str, Field(description="CloudEvents' source")]
    service_version: Optional[str] = None
    correlation_id: Optional[str] = None
    causation_id: Optional[str] = None
    user_id: Optional[str] = None
    environment: Optional[str] = None
    ip_address: Optional[str] = None
    user_agent: Optional[str] = None
    traceparent: Optional[str] = None
    source_event_id: Annotated[Optional[str], Field(description="the id as it was given, if it is no UUID")] = None
    time_assigned: Annotated[Optional[bool], Field(description="the producer gave no time, so publish did")] = None
    extensions: Optional[dict[str, str]] = None


class EventOut(BaseModel):
    """An event as every reader shows it."""

    event_id: UUID
    event_type: str
    event_version: str
    timestamp: datetime
    aggregate_id: str | None
    metadata: MetadataOut
    payload: dict[str, Any]
    digest: Annotated[str, Field(description="SHA-256 of what the producer said, in hexadecimal digits")]
    stored_at: datetime

    @classmethod
    def of(cls, document: Encoded) -> Self:
        """The event of a stored document that was read undecoded. Raises `Unreadable`."""
        return cls.of_plain(plain(document))

    @classmethod
    def of_plain(cls, document: Document) -> Self:
        """The same, of a document that `mongo.plain` decoded."""
        fields = {name: document.get(name) for name in cls.model_fields if name != "event_id"}
        try:
            fields["digest"] = bytes(document["digest"]).hex()
            return cls.model_validate(fields | {"event_id": document["_id"]})
        except (KeyError, TypeError, ValidationError) as error:
            raise Unreadable(f"event {document['_id']} was made unreadable in the database") from error

    @property
    def position(self) -> Position:
        """Its place in the order of pages."""
        return Position(self.timestamp, self.event_id)


class Unread(BaseModel):
    """What stands in the place of an event that somebody made unreadable in the database."""

    event_id: str
    unreadable: Literal[True]


class Page(BaseModel):
    """Some of the events that a filter selects."""

    events: list[EventOut]
    next: Annotated[str | None, Field(description="the cursor of the next page; null: there is none")] = None
    cut: Annotated[
        bool, Field(description="the search ran out of time before the page was full: `next` goes on from there")
    ] = False
    unreadable: Annotated[
        list[str], Field(description="ids of events in this page that somebody made unreadable in the database")
    ] = []
    searched_to: Annotated[
        datetime | None, Field(description="the time of the last event that a cut search looked at")
    ] = None


class EventReader:
    """Pages of one collection that has `filter_indexes(indexed)`. Every method raises `Unavailable`.

    Each query ends within `query_timeout_s`, in the server too; a page that has to look through more than it shows is
    cut after `search_s`, and a page ends once its events have `page_bytes`, as MongoDB stores them.
    """

    def __init__(self, collection: Collection, indexed: Iterable[str], settings: Settings) -> None:
        self._collection = collection
        self._indexed = frozenset(indexed)
        self._timeout_s = settings.query_timeout_s
        self._search_s = min(settings.search_s, settings.query_timeout_s / 2)
        self._search_keys = settings.search_keys
        self._page_bytes = settings.page_bytes

    async def get(self, event_id: UUID, user: str | None = None) -> EventOut | None:
        """The event; None if there is none, or if it isn't that of `user`, where one is given."""
        query: Document = {"_id": event_id} | ({FIELDS["user"]: user} if user is not None else {})
        with driver_errors(), within(self._timeout_s):
            document = await raw(self._collection).find_one(query)
        return EventOut.of(document) if document else None

    async def page(self, wanted: Filter, scope: str | None = None) -> Page:
        """The page that `wanted` describes, for a caller who may read one user's events alone, if that is `scope`."""
        name = index_for(wanted, self._indexed, scope)
        pieces = by_time(self._collection, wanted, f"by_{name}", FIELDS.get(name), self._search_keys)
        return await self.fill(wanted, pieces)

    async def fill(self, wanted: Filter, pieces: AsyncGenerator[Piece]) -> Page:
        """The page that `wanted` describes, of what a scan has in `pieces`."""
        page, size, last = Page(events=[]), 0, None
        deadline = time.monotonic() + self._search_s
        with driver_errors(NARROWER), within(self._timeout_s):
            async with aclosing(pieces):
                async for piece in pieces:
                    async with piece.found as found:
                        async for encoded in found:
                            if size >= self._page_bytes or len(page.events) + len(page.unreadable) == wanted.limit:
                                page.next = last or nowhere()
                                return page
                            document = plain(encoded)
                            last = wanted.behind(document) or last
                            if _take(page, wanted, document):
                                size += len(encoded.raw)
                            elif last and time.monotonic() > deadline:
                                return _cut(page, last, document)
                    if piece.end is not None and time.monotonic() > deadline:
                        return _cut(page, place_behind(wanted, piece.end), piece.end)
        return page

    async def stream(self, wanted: Filter, timeout_s: float) -> AsyncGenerator[EventOut | Unread]:
        """Every event that `wanted` selects, from its cursor on, however many and however large.

        No more than one batch of the server's is held at a time. `timeout_s` bounds each of the server's answers.
        """
        here, seen = wanted, STREAM_PIECE
        while seen == STREAM_PIECE:
            seen, place = 0, None
            async for document in self._piece(here, timeout_s):
                seen += 1
                place = wanted.behind(document) or place
                try:
                    event = EventOut.of_plain(document)
                except Unreadable:
                    yield Unread(event_id=str(document["_id"]), unreadable=True)
                    continue
                if wanted.has_text(document):
                    yield event
            if seen == STREAM_PIECE:
                here = wanted.model_copy(update={"cursor": place or nowhere()})

    async def _piece(self, wanted: Filter, timeout_s: float) -> AsyncGenerator[Document]:
        hint = f"by_{index_for(wanted, self._indexed)}"
        found = raw(self._collection).find(wanted.query(), hint=hint, batch_size=STREAM_BATCH)
        async with found.sort(wanted.sort).limit(STREAM_PIECE):
            while True:
                with driver_errors(NARROWER), within(timeout_s):
                    document = await anext(found, None)
                if document is None:
                    return
                yield plain(document)


def _take(page: Page, wanted: Filter, document: Document) -> bool:
    """Put what is wanted of a document that MongoDB found into the page; whether it was wanted."""
    try:
        event = EventOut.of_plain(document)
    except Unreadable:
        page.unreadable.append(str(document["_id"]))
        return True
    if wanted.has_text(document):
        page.events.append(event)
        return True
    return False


def _cut(page: Page, place: str, seen: Document) -> Page:
    """The page as it is, to go on at `place`, behind the last document that was looked at."""
    page.next, page.cut, page.searched_to = place, True, seen["timestamp"]
    return page
