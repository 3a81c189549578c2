"""`EventStore`: the collection `event_store`, the permanent log. It is inserted into and read, and never changed."""

import time
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import PyMongoError

from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.errors import TwofoldError
from twofold.event.model import Event
from twofold.mongo.client import Database, RawDocument, driver_errors, time_limit
from twofold.mongo.documents import encode_event, event_of, undecoded
from twofold.mongo.insert import find_digests, insert_once
from twofold.query.filters import Range, Selection
from twofold.read.log_summary import LogHealth, TypeLine, TypePage
from twofold.read.pages import EventReader
from twofold.settings import Settings


class EventStore:
    """The append-only log. Every method raises `Unavailable` when MongoDB is away."""

    INDEXED = ("aggregate", "correlation", "user", "types")
    """The filters that have an index: few, since each one costs every insert for ever. No reader asks by service."""

    def __init__(self, database: Database) -> None:
        self._event_store = database["event_store"]

    @staticmethod
    def encode(delivered: DeliveredEvent, stored_at: datetime) -> RawDocument:
        """The document of an event, with the Kafka coordinates that it came from. Raises `Invalid`."""
        log = {"partition": delivered.partition, "offset": delivered.offset}
        return encode_event(delivered.document, stored_at, log=log)

    async def append(self, documents: Sequence[RawDocument], ids: Sequence[UUID]) -> list[bytes | TwofoldError | None]:
        """Append each once: see `mongo.insert_once`."""
        return await insert_once(self._event_store, documents, ids)

    async def known(self, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """The digests of those events that are in the log."""
        return await find_digests(self._event_store, ids)

    def reader(self, settings: Settings) -> EventReader:
        """Pages of it, by filters."""
        return EventReader(self._event_store, self.INDEXED, settings)

    async def health(self) -> LogHealth:
        """What the log holds. Raises `Unavailable` if it doesn't answer."""
        ends = []
        with driver_errors():
            events = await self._event_store.estimated_document_count()
            for direction in (ASCENDING, DESCENDING):
                found = self._event_store.find({}, {"seq": 1, "_id": 0}, hint="feed").sort("seq", direction).limit(1)
                ends.append(next(iter([end["seq"].as_datetime() async for end in found]), None))
        return LogHealth(status="ok", events=events, first=ends[0], last=ends[1])

    async def types(self, within_: Range, after: str | None, limit: int, seconds: float) -> TypePage:
        """Statistics of up to `limit` types in a range, in the order of their names, behind the name `after`.

        It walks the index by type: from a type to the next one, and to its first and last event. Counting reads each
        of the type's events in the range, in the index alone; whatever is not counted in `seconds` is said to be so.
        """
        until = time.monotonic() + seconds
        page, first = TypePage(types=[]), after or ""
        last = first
        with driver_errors():
            while len(page.types) < limit and (event_type := await self._next_type(last)) is not None:
                if time.monotonic() > until and last != first:  # each page gets on by one type at least
                    page.next = last
                    return page
                last = event_type
                if (line := await self._line(event_type, within_, until)) is not None:
                    page.types.append(line)
            if len(page.types) == limit and await self._next_type(last) is not None:
                page.next = last
        return page

    async def _next_type(self, after: str) -> str | None:
        behind = self._event_store.find({"event_type": {"$gt": after}}, {"event_type": 1, "_id": 0}, hint="by_types")
        async for document in behind.sort("event_type", ASCENDING).limit(1):
            return str(document["event_type"])
        return None

    async def _line(self, event_type: str, within_: Range, until: float) -> TypeLine | None:
        there = Selection(types=(event_type,), since=within_.since, until=within_.until).query()
        ends = []
        for direction in (ASCENDING, DESCENDING):
            found = self._event_store.find(there, {"timestamp": 1, "_id": 0}, hint="by_types")
            ends += [end["timestamp"] async for end in found.sort("timestamp", direction).limit(1)]
        if not ends:
            return None
        try:
            with time_limit(max(until - time.monotonic(), 0.001)):
                count = await self._event_store.count_documents(there, hint="by_types")
        except PyMongoError as error:
            if not error.timeout:
                raise
            return TypeLine(event_type=event_type, count=None, first=ends[0], last=ends[-1])
        return TypeLine(event_type=event_type, count=count, first=ends[0], last=ends[-1])

    async def get(self, event_id: UUID) -> Event | None:
        """The event, or None."""
        with driver_errors():
            document = await undecoded(self._event_store).find_one({"_id": event_id})
        return event_of(document) if document else None
