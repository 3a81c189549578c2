"""The feed of `event_store`: everything in the log, in the order of `seq`, for readers that catch up and go on.

An event gets its `seq` a moment before it can be seen, so the newest ones may appear out of order: a reader that took
what is there and went on behind it would skip one that commits late. The feed stays below what is settled
(`mongo.settled`): before a place up to which it has read, nothing appears any more.
"""

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from bson.timestamp import Timestamp
from pydantic import BaseModel, Field
from pymongo import ASCENDING

from twofold.errors import Unreadable
from twofold.mongo.client import Database, RawDocument, driver_errors
from twofold.mongo.documents import undecoded
from twofold.mongo.safe_time import read_safe_time
from twofold.query.cursors import decode_cursor, encode_cursor, invalid_cursor
from twofold.read.models import EventOut, UnreadableEvent

MAX_WAIT_S = 25
"""How long a reader may ask to wait: less than a stopping server gives to the requests that are under way."""


POLL_S = 1.0
"""How often one who waits looks again."""


_CURSOR = struct.Struct(">II")


_QUESTION = b"feed"


_LAST_SECOND = 2**32 - 1
"""The last that BSON's timestamps have: in 2106."""


@dataclass(frozen=True, slots=True)
class FeedCursor:
    """How far a reader has come: `seq` of the last event that it has, which no other event shares."""

    seconds: int
    increment: int

    @classmethod
    def start(cls) -> Self:
        """Before the first event of all."""
        return cls(0, 0)

    @classmethod
    def at(cls, moment: datetime) -> Self:
        """Before the first event that came into the log at `moment`, by the server's clock, or later."""
        return cls(min(max(int(moment.astimezone(UTC).timestamp()), 0), _LAST_SECOND), 0)

    @classmethod
    def of_cursor(cls, cursor: str) -> Self:
        """The place that `cursor` was made for. Raises `Malformed` for what is no cursor of the feed."""
        try:
            return cls(*_CURSOR.unpack(decode_cursor(cursor, _QUESTION)))
        except struct.error:
            raise invalid_cursor() from None

    @property
    def cursor(self) -> str:
        """The place as readers keep it: opaque, and fit for a URL."""
        return encode_cursor(_CURSOR.pack(self.seconds, self.increment), _QUESTION)


@dataclass(frozen=True, slots=True)
class FeedBatch:
    """Some events of the feed, undecoded, and the place behind them."""

    documents: Sequence[RawDocument]
    place: FeedCursor
    up_to: datetime
    """No event that came into the log before this moment, by the server's clock, can still appear."""


class FeedPage(BaseModel):
    """What comes next in the feed."""

    events: Annotated[
        list[EventOut | UnreadableEvent],
        Field(description="in the order of the feed; one that can't be read has its place"),
    ]
    cursor: Annotated[str, Field(description="for what comes behind these")]
    up_to: Annotated[
        datetime, Field(description="nothing that came into the log before this time can still appear; server's clock")
    ]

    @classmethod
    def of(cls, stretch: FeedBatch) -> Self:
        """The same as people get it."""
        return cls(
            events=[_shown(each) for each in stretch.documents], cursor=stretch.place.cursor, up_to=stretch.up_to
        )


def _shown(document: RawDocument) -> EventOut | UnreadableEvent:
    try:
        return EventOut.of(document)
    except Unreadable:
        return UnreadableEvent(event_id=str(document["_id"]), unreadable=True)


class Feed:
    """Reads the log in the order of `seq`: each event exactly once, if each call begins where the last one ended.

    `longest_insert` is how long an insert may take at most: `mongodb_timeout_s`, which goes with each as `maxTimeMS`.
    `seconds` is a monotonic clock. Every method raises `Unavailable` when MongoDB is away.
    """

    def __init__(
        self, database: Database, longest_insert: timedelta, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._event_store = undecoded(database["event_store"])
        self._longest_insert = longest_insert
        self._seconds = seconds

    async def read(self, after: FeedCursor, limit: int, max_bytes: int) -> FeedBatch:
        """The next events behind `after`: up to `limit` of them, and no more once `max_bytes` are reached."""
        documents: list[RawDocument] = []
        size = 0
        with driver_errors():
            async with self._database.client.start_session(causal_consistency=True) as session:
                settled = await read_safe_time(session, self._longest_insert)
                there = {"seq": {"$gt": Timestamp(after.seconds, after.increment), "$lt": settled.up_to}}
                found = self._event_store.find(there, session=session, batch_size=min(limit, 100))
                async for document in found.sort("seq", ASCENDING).limit(limit):
                    documents.append(document)
                    size += len(document.raw)
                    if size >= max_bytes:
                        await found.close()
                        break
        last = documents[-1]["seq"] if documents else None
        place = FeedCursor(last.time, last.inc) if last else after
        return FeedBatch(documents, place, settled.up_to.as_datetime())

    async def wait(self, after: FeedCursor, limit: int, max_bytes: int, longest: timedelta) -> FeedBatch:
        """The same, but if there is nothing yet, wait for it, up to `longest`; an empty stretch when that is over."""
        until = self._seconds() + longest.total_seconds()
        while True:
            stretch = await self.read(after, limit, max_bytes)
            left = until - self._seconds()
            if stretch.documents or left <= 0:
                return stretch
            await asyncio.sleep(min(POLL_S, left))
