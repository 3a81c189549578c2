"""Pages and streams of `events` and of `event_store`, by the same filters and with the same answers.

A page ends when it is full, when its events reach `page_bytes`, or when its search time is over. `next` is then the
cursor behind the last document that the search looked at. `scan.py` proves that a reader of pages gets every event
once. Every query uses an index, and the server ends it after `query_timeout_s`.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from twofold.errors import Unreadable
from twofold.mongo.client import Collection, Document, driver_errors, time_limit
from twofold.mongo.documents import decode_document, undecoded
from twofold.query.filters import FIELDS, Filter
from twofold.read.models import EventOut, EventPage, UnreadableEvent
from twofold.read.scan import Chunk, chunks_by_time, cursor_after, raise_no_cursor
from twofold.settings import QuerySettings
from twofold.storage.indexes import index_for

NARROWER = "narrow the time or the filters"
"""The advice in an error when a query takes too long."""
STREAM_CHUNK = 5_000
"""Events of one query in a stream. Every query has a time limit in the server, so a stream takes several queries."""
STREAM_BATCH = 200


class EventReader:
    """Pages and streams of one collection. Every method raises `Unavailable` when MongoDB is unavailable or too slow.

    A query ends within `query_timeout_s`. A page that looks through unwanted events is cut after `search_s`. A page
    ends when its events have `page_bytes` in MongoDB.
    """

    def __init__(self, collection: Collection, settings: QuerySettings) -> None:
        self._collection = collection
        self._timeout_s = settings.query_timeout_s
        self._search_s = min(settings.search_s, settings.query_timeout_s / 2)
        self._search_keys = settings.search_keys
        self._page_bytes = settings.page_bytes

    async def get(self, event_id: UUID, user: str | None = None) -> EventOut | None:
        """Return the event, or None if it does not exist. With `user`, only an event of this user exists."""
        query: Document = {"_id": event_id} | ({FIELDS["user"]: user} if user is not None else {})
        with driver_errors(), time_limit(self._timeout_s):
            document = await undecoded(self._collection).find_one(query)
        return EventOut.of(document) if document else None

    async def page(self, wanted: Filter, visible_user: str | None = None) -> EventPage:
        """Return the page that `wanted` describes.

        `visible_user` is the only user whose events the caller may read, or None. `wanted` already selects this user.
        """
        name = index_for(self._collection.name, wanted, visible_user)
        chunks = chunks_by_time(self._collection, wanted, f"by_{name}", FIELDS.get(name), self._search_keys)
        return await self.fill(wanted, chunks)

    async def fill(self, wanted: Filter, chunks: AsyncGenerator[Chunk]) -> EventPage:
        """Return the page that `wanted` describes, from the chunks of its scan."""
        page, size, last = EventPage(events=[]), 0, None
        deadline = time.monotonic() + self._search_s
        with driver_errors(NARROWER), time_limit(self._timeout_s):
            async with aclosing(chunks):
                async for chunk in chunks:
                    async with chunk.found as found:
                        async for encoded in found:
                            if size >= self._page_bytes or len(page.events) + len(page.unreadable) == wanted.limit:
                                page.next = last or raise_no_cursor()
                                return page
                            document = decode_document(encoded)
                            last = wanted.next_cursor(document) or last
                            if _add(page, wanted, document):
                                size += len(encoded.raw)
                            elif last and time.monotonic() > deadline:
                                return _cut(page, last, document)
                    if chunk.end is not None and time.monotonic() > deadline:
                        return _cut(page, cursor_after(wanted, chunk.end), chunk.end)
        return page

    async def stream(self, wanted: Filter, timeout_s: float) -> AsyncGenerator[EventOut | UnreadableEvent]:
        """Yield every event that `wanted` selects, from its cursor on.

        The stream holds at most one batch of the server in memory. `timeout_s` bounds every answer of the server.
        """
        rest, seen = wanted, STREAM_CHUNK
        while seen == STREAM_CHUNK:
            seen, cursor = 0, None
            async for document in self._chunk(rest, timeout_s):
                seen += 1
                cursor = wanted.next_cursor(document) or cursor
                try:
                    event = EventOut.of_decoded(document)
                except Unreadable:
                    yield UnreadableEvent(event_id=str(document["_id"]), unreadable=True)
                    continue
                if wanted.has_text(document):
                    yield event
            if seen == STREAM_CHUNK:
                rest = wanted.model_copy(update={"cursor": cursor or raise_no_cursor()})

    async def _chunk(self, wanted: Filter, timeout_s: float) -> AsyncGenerator[Document]:
        hint = f"by_{index_for(self._collection.name, wanted)}"
        found = undecoded(self._collection).find(wanted.query(), hint=hint, batch_size=STREAM_BATCH)
        async with found.sort(wanted.sort).limit(STREAM_CHUNK):
            while True:
                with driver_errors(NARROWER), time_limit(timeout_s):
                    document = await anext(found, None)
                if document is None:
                    return
                yield decode_document(document)


def _add(page: EventPage, wanted: Filter, document: Document) -> bool:
    """Add a found document to the page, and return True. Return False for a document without the wanted text."""
    try:
        event = EventOut.of_decoded(document)
    except Unreadable:
        page.unreadable.append(str(document["_id"]))
        return True
    if wanted.has_text(document):
        page.events.append(event)
        return True
    return False


def _cut(page: EventPage, cursor: str, last: Document) -> EventPage:
    """Return the unfinished page. `cursor` lies behind `last`, the last document that the search looked at."""
    page.next, page.cut, page.searched_to = cursor, True, last["timestamp"]
    return page
