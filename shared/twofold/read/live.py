"""Live events: what comes into `events` from now on, or from where a reader left off, as it comes.

It stands on a change stream of a majority, so nothing is shown that could still be rolled back. A reader that fell
further behind than the oplog reaches is told so, and loses nothing silently.
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

LOOK_EVERY_MS = 1000
"""How long the server waits for the next event before it says that there is none: an end is noticed after that."""


_LOST = (280, 286, 260)
"""MongoDB 6.0's codes for a change stream that can't be resumed: its place is not in the oplog, or no more, or it is
another collection's. A made-up place never gets as far: its checksum is wrong. Whatever else fails may pass."""


_QUESTION = b"stream"


Changes = AsyncChangeStream[RawDocument]


@dataclass(frozen=True, slots=True)
class StreamItem:
    """Something, or nothing, happened: `place` is where to go on behind it."""

    place: str
    event: EventOut | None = None


class LiveEvents:
    """Streams over one collection, so many at once. Every method raises `Unavailable` when MongoDB is away."""

    def __init__(self, collection: Collection, settings: StreamSettings) -> None:
        self._collection = undecoded(collection)
        self._free = settings.streams
        self._each = settings.streams_each
        self._of_caller: Counter[str] = Counter()
        self._lasts_s = settings.stream_s
        self._heartbeat_s = settings.stream_heartbeat_s
        self._closing = asyncio.Event()

    async def close(self) -> None:
        """End all streams: their readers go on elsewhere, from where they are."""
        self._closing.set()

    @asynccontextmanager
    async def follow(
        self, wanted: Conditions, place: str | None, caller: str, seconds: float = inf
    ) -> AsyncIterator[AsyncGenerator[StreamItem]]:
        """What `wanted` selects, from `place` on, or from now on; with a moment at the start and at each heart-beat.

        It ends after `seconds`, if not before: as long as `caller`, the subject of a token, is good for. Raises
        `Malformed` for a place that was never given out, `Gone` for one that is too long ago, and `Unavailable` when
        there are too many streams already, or too many of the caller's.
        """
        if self._free < 1 or self._closing.is_set():
            raise Unavailable("there are as many live streams as this process serves: try again")
        if self._of_caller[caller] >= self._each:
            raise Unavailable(f"there are {self._each} live streams of yours already: end one, and try again")
        self._free -= 1
        self._of_caller[caller] += 1
        try:
            with driver_errors():
                async with await self._open(wanted, place) as changes:
                    yield self._moments(changes, time.monotonic() + min(seconds, self._lasts_s))
        finally:
            self._free += 1
            self._of_caller -= Counter([caller])  # whoever has none left is forgotten

    async def _open(self, wanted: Conditions, place: str | None) -> Changes:
        query = {f"fullDocument.{field}": value for field, value in wanted.query().items()}
        pipeline = [{"$match": {"operationType": "insert"} | query}]
        token = None if place is None else _resume_token(place)
        try:
            return await self._collection.watch(pipeline, resume_after=token, max_await_time_ms=LOOK_EVERY_MS)
        except OperationFailure as error:
            if token is not None and error.code in _LOST:
                raise Gone("that is too long ago: begin anew, and read what came between by its time") from error
            raise

    async def _moments(self, changes: Changes, end: float) -> AsyncGenerator[StreamItem]:
        beat = 0.0
        while (now := time.monotonic()) < end and not self._closing.is_set():
            change = await changes.try_next()
            event = _event_in(change) if change is not None else None
            if event is not None or now >= beat:
                beat = time.monotonic() + self._heartbeat_s
                yield StreamItem(_cursor_at(changes), event)


def _event_in(change: Any) -> EventOut | None:
    """The event that came; None for one that somebody made unreadable in the database meanwhile."""
    try:
        return EventOut.of(change["fullDocument"])
    except Unreadable:
        return None


def _cursor_at(changes: Changes) -> str:
    token: Any = changes.resume_token
    return encode_cursor(bytes.fromhex(token["_data"]), _QUESTION)


def _resume_token(place: str) -> dict[str, str]:
    return {"_data": decode_cursor(place, _QUESTION, "Last-Event-ID").hex().upper()}
