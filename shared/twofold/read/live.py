"""Live streams of a collection: events as they are inserted, from now on or after a cursor.

A stream is a change stream with majority read concern, so it shows no insert that MongoDB could still roll back. The
cursor is MongoDB's resume token. When the oplog no longer holds the place of a cursor, the reader gets `Gone` (410), so
no reader misses events without an error.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import OperationFailure

from twofold.errors import Gone, Unavailable, Unreadable
from twofold.mongo.client import Collection, RawDocument, driver_errors
from twofold.mongo.documents import undecoded
from twofold.query.cursors import decode_cursor, encode_cursor
from twofold.query.filters import Conditions
from twofold.read.models import EventOut
from twofold.settings import StreamSettings

MAX_AWAIT_MS = 1000
"""Milliseconds that the server waits for the next event. A stream notices its end after at most this time."""

_LOST = (280, 286, 260)
"""MongoDB 6.0's error codes for a resume token that the server can't use: its place left the oplog, or it belongs to
another collection. An invented token fails earlier, because its checksum is wrong. Any other error may pass."""
_CURSOR_KEY = b"stream"

Changes = AsyncChangeStream[RawDocument]


@dataclass(frozen=True, slots=True)
class StreamItem:
    """An event of a stream, or a heartbeat without an event. `cursor` continues the stream behind the item."""

    cursor: str
    event: EventOut | None = None


class LiveEvents:
    """The live streams of one collection. Every method raises `Unavailable` when MongoDB is unavailable.

    A process serves at most `streams` streams at once, and at most `streams_each` streams of one caller.
    """

    def __init__(self, collection: Collection, settings: StreamSettings) -> None:
        self._collection = undecoded(collection)
        self._free = settings.streams
        self._max_of_caller = settings.streams_each
        self._of_caller: Counter[str] = Counter()
        self._longest_s = settings.stream_s
        self._heartbeat_s = settings.stream_heartbeat_s
        self._closing = asyncio.Event()

    async def close(self) -> None:
        """End every stream. The readers connect to another process and continue at their cursors."""
        self._closing.set()

    @asynccontextmanager
    async def follow(
        self, wanted: Conditions, cursor: str | None, caller: str, seconds: float = inf
    ) -> AsyncIterator[AsyncGenerator[StreamItem]]:
        """Open the stream of `wanted`, after `cursor` or from now on. A heartbeat comes at the start and at intervals.

        The stream ends after `seconds`, the lifetime of the caller's token, or after `stream_s`. `caller` is the
        subject of the token. Raises `Malformed` for an invalid cursor, `Gone` for a cursor that is too old, and
        `Unavailable` when the process or the caller has too many streams.
        """
        if self._free < 1 or self._closing.is_set():
            raise Unavailable("this process serves no more live streams: try again")
        if self._of_caller[caller] >= self._max_of_caller:
            raise Unavailable(f"you have {self._max_of_caller} live streams already: end a stream, then try again")
        self._free -= 1
        self._of_caller[caller] += 1
        try:
            with driver_errors():
                async with await self._open(wanted, cursor) as changes:
                    yield self._items(changes, time.monotonic() + min(seconds, self._longest_s))
        finally:
            self._free += 1
            self._of_caller -= Counter([caller])  # the subtraction drops callers without a stream

    async def _open(self, wanted: Conditions, cursor: str | None) -> Changes:
        query = {f"fullDocument.{field}": value for field, value in wanted.query().items()}
        pipeline = [{"$match": {"operationType": "insert"} | query}]
        token = None if cursor is None else _resume_token(cursor)
        try:
            return await self._collection.watch(pipeline, resume_after=token, max_await_time_ms=MAX_AWAIT_MS)
        except OperationFailure as error:
            if token is not None and error.code in _LOST:
                raise Gone(
                    "this Last-Event-ID is too old: start a stream without it, and read the missed events page by page"
                ) from None
            raise

    async def _items(self, changes: Changes, end: float) -> AsyncGenerator[StreamItem]:
        next_heartbeat = 0.0
        while (now := time.monotonic()) < end and not self._closing.is_set():
            change = await changes.try_next()
            event = _event_in(change) if change is not None else None
            if event is not None or now >= next_heartbeat:
                next_heartbeat = time.monotonic() + self._heartbeat_s
                yield StreamItem(_cursor_at(changes), event)


def _event_in(change: Any) -> EventOut | None:
    """Return the inserted event, or None if its document was made unreadable in the database meanwhile."""
    try:
        return EventOut.of(change["fullDocument"])
    except Unreadable:
        return None


def _cursor_at(changes: Changes) -> str:
    token: Any = changes.resume_token
    return encode_cursor(bytes.fromhex(token["_data"]), _CURSOR_KEY)


def _resume_token(cursor: str) -> dict[str, str]:
    return {"_data": decode_cursor(cursor, _CURSOR_KEY, "Last-Event-ID").hex().upper()}
