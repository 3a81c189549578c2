"""Reading events as people ask for them: pages of `events` and of `event_store`, by the same filters.

No query runs without an index, and none for longer than it may. What is shown is `EventOut`, whatever the collection.
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


STREAM_PIECE = 5_000
"""How many events one query of a stream reads: a cursor must end before the server has worked on it for too long."""


STREAM_BATCH = 200


class EventReader:
    """Pages of one collection that has `filter_indexes(indexed)`. Every method raises `Unavailable`.

    Each query ends within `query_timeout_s`, in the server too; a page that has to look through more than it shows is
    cut after `search_s`, and a page ends once its events have `page_bytes`, as MongoDB stores them.
    """

    def __init__(self, collection: Collection, settings: QuerySettings) -> None:
        self._collection = collection
        self._timeout_s = settings.query_timeout_s
        self._search_s = min(settings.search_s, settings.query_timeout_s / 2)
        self._search_keys = settings.search_keys
        self._page_bytes = settings.page_bytes

    async def get(self, event_id: UUID, user: str | None = None) -> EventOut | None:
        """The event; None if there is none, or if it isn't that of `user`, where one is given."""
        query: Document = {"_id": event_id} | ({FIELDS["user"]: user} if user is not None else {})
        with driver_errors(), time_limit(self._timeout_s):
            document = await undecoded(self._collection).find_one(query)
        return EventOut.of(document) if document else None

    async def page(self, wanted: Filter, scope: str | None = None) -> EventPage:
        """The page that `wanted` describes, for a caller who may read one user's events alone, if that is `scope`."""
        name = index_for(self._collection.name, wanted, scope)
        pieces = chunks_by_time(self._collection, wanted, f"by_{name}", FIELDS.get(name), self._search_keys)
        return await self.fill(wanted, pieces)

    async def fill(self, wanted: Filter, pieces: AsyncGenerator[Chunk]) -> EventPage:
        """The page that `wanted` describes, of what a scan has in `pieces`."""
        page, size, last = EventPage(events=[]), 0, None
        deadline = time.monotonic() + self._search_s
        with driver_errors(NARROWER), time_limit(self._timeout_s):
            async with aclosing(pieces):
                async for piece in pieces:
                    async with piece.found as found:
                        async for encoded in found:
                            if size >= self._page_bytes or len(page.events) + len(page.unreadable) == wanted.limit:
                                page.next = last or raise_no_cursor()
                                return page
                            document = decode_document(encoded)
                            last = wanted.behind(document) or last
                            if _take(page, wanted, document):
                                size += len(encoded.raw)
                            elif last and time.monotonic() > deadline:
                                return _cut(page, last, document)
                    if piece.end is not None and time.monotonic() > deadline:
                        return _cut(page, cursor_after(wanted, piece.end), piece.end)
        return page

    async def stream(self, wanted: Filter, timeout_s: float) -> AsyncGenerator[EventOut | UnreadableEvent]:
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
                    yield UnreadableEvent(event_id=str(document["_id"]), unreadable=True)
                    continue
                if wanted.has_text(document):
                    yield event
            if seen == STREAM_PIECE:
                here = wanted.model_copy(update={"cursor": place or raise_no_cursor()})

    async def _piece(self, wanted: Filter, timeout_s: float) -> AsyncGenerator[Document]:
        hint = f"by_{index_for(self._collection.name, wanted)}"
        found = undecoded(self._collection).find(wanted.query(), hint=hint, batch_size=STREAM_BATCH)
        async with found.sort(wanted.sort).limit(STREAM_PIECE):
            while True:
                with driver_errors(NARROWER), time_limit(timeout_s):
                    document = await anext(found, None)
                if document is None:
                    return
                yield decode_document(document)


def _take(page: EventPage, wanted: Filter, document: Document) -> bool:
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


def _cut(page: EventPage, place: str, seen: Document) -> EventPage:
    """The page as it is, to go on at `place`, behind the last document that was looked at."""
    page.next, page.cut, page.searched_to = place, True, seen["timestamp"]
    return page
