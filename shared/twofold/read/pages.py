"""Pages and streams of `events` and of `event_store`, by the same filters and with the same answers.

A page ends when it is full, when its events reach `page_bytes`, or when its search time is over. It ends at the end of
a group of equal keys: see `equal_keys.py`. `next` is then the cursor behind the last document that the search looked
at. `scan.py` proves that a reader of pages gets every event once. Every query uses an index, and the server ends it
after `query_timeout_s`.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from twofold.errors import Unreadable
from twofold.mongo.client import Collection, Document, driver_errors, time_limit
from twofold.mongo.documents import decode_document, undecoded
from twofold.query.filters import FIELDS, Filter
from twofold.read.equal_keys import EqualKeys
from twofold.read.models import EventOut, EventPage, UnreadableEvent
from twofold.read.scan import Chunk, chunks_by_time, cursor_after
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
    ends when its events have `page_bytes` in MongoDB. The rest of a group of equal keys comes on top: at most
    `MAX_EQUAL` events of `MAX_EQUAL_BYTES`.
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
        hint = f"by_{name}"
        chunks = chunks_by_time(self._collection, wanted, hint, FIELDS.get(name), self._search_keys)
        return await self.fill(wanted, hint, chunks)

    async def fill(self, wanted: Filter, hint: str, chunks: AsyncGenerator[Chunk]) -> EventPage:
        """Return the page that `wanted` describes, from the chunks of its scan of the index `hint`."""
        page, size, keys = EventPage(events=[]), 0, EqualKeys(wanted)
        deadline = time.monotonic() + self._search_s
        with driver_errors(NARROWER), time_limit(self._timeout_s):
            async with aclosing(chunks):
                async for chunk in chunks:
                    async with chunk.found as found:
                        async for encoded in found:
                            if size >= self._page_bytes or len(page.events) + len(page.unreadable) >= wanted.limit:
                                if keys.continues_with(encoded):
                                    await self._complete(page, wanted, keys, hint)
                                page.next = cursor_after(wanted, keys.last)
                                return page
                            document = decode_document(encoded)
                            keys.add(document)
                            if _add(page, wanted, document):
                                size += len(encoded.raw)
                            elif keys.last is not None and time.monotonic() > deadline:
                                await self._complete(page, wanted, keys, hint)
                                return _cut(page, cursor_after(wanted, keys.last), document)
                    if chunk.end is not None and time.monotonic() > deadline:
                        return _cut(page, cursor_after(wanted, chunk.end), chunk.end)
        return page

    async def _complete(self, page: EventPage, wanted: Filter, keys: EqualKeys, hint: str) -> None:
        """Add the rest of the last group to the page. Raises `Unreadable` for a group that is too large."""
        for encoded in await keys.rest(self._collection, hint):
            _add(page, wanted, decode_document(encoded))

    async def equal(self, wanted: Filter, event: EventOut) -> list[EventOut]:
        """Return the readable events of `wanted` with the time and the order of `event`, and `event` itself."""
        hint = f"by_{index_for(self._collection.name, wanted)}"
        keys, page = EqualKeys(wanted), EventPage(events=[])
        keys.start(event.cursor._asdict())
        with driver_errors(NARROWER), time_limit(self._timeout_s):
            await self._complete(page, wanted, keys, hint)
        return page.events

    async def stream(self, wanted: Filter, timeout_s: float) -> AsyncGenerator[EventOut | UnreadableEvent]:
        """Yield every event that `wanted` selects, from its cursor on.

        The stream holds at most one batch of the server in memory. `timeout_s` bounds every answer of the server.
        """
        async for document in self._documents(wanted, timeout_s):
            try:
                event = EventOut.of_decoded(document)
            except Unreadable:
                yield UnreadableEvent(event_id=str(document["_id"]), unreadable=True)
                continue
            if wanted.has_text(document):
                yield event

    async def _documents(self, wanted: Filter, timeout_s: float) -> AsyncGenerator[Document]:
        """Yield the documents of the stream, chunk by chunk. A chunk ends at the end of a group of equal keys."""
        hint = f"by_{index_for(self._collection.name, wanted)}"
        rest, seen = wanted, STREAM_CHUNK
        while seen == STREAM_CHUNK:
            seen, keys = 0, EqualKeys(wanted)
            async for document in self._chunk(rest, hint, timeout_s):
                seen += 1
                keys.add(document)
                yield document
            if seen == STREAM_CHUNK:
                with driver_errors(NARROWER), time_limit(timeout_s):
                    group = await keys.rest(self._collection, hint)
                for encoded in group:
                    yield decode_document(encoded)
                rest = wanted.model_copy(update={"cursor": cursor_after(wanted, keys.last)})

    async def _chunk(self, wanted: Filter, hint: str, timeout_s: float) -> AsyncGenerator[Document]:
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
