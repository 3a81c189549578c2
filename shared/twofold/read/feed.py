"""The feed: every event of `event_store` in the order of `seq`, for readers that catch up and then follow.

MongoDB gives an event its `seq` when the insert begins, but the event becomes visible when the insert commits. A newer
event can therefore become visible before an older one. A reader that moved its cursor past the newer event would skip
the older event for ever.

The feed skips no event because it reads only below the safe time (`mongo/safe_time.py`). No insert with a `seq` below
the safe time can still become visible. So every event below the safe time is visible now, and no event will appear
behind a cursor that the feed gave out. The price is a delay: the feed stays a few seconds behind the newest event.

A restored backup breaks this: it puts events behind cursors. So a cursor carries the epoch of the log, which
`twofold reconcile` raises (`storage/log_state.py`). The feed answers a cursor of an old epoch with 410, and the
reader begins again before the loss. While the log has regressed, the feed does not answer at all.
"""

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from bson.timestamp import Timestamp
from pydantic import BaseModel, Field
from pymongo import ASCENDING

from twofold.errors import Gone, Unavailable, Unreadable
from twofold.mongo.client import Database, RawDocument, driver_errors
from twofold.mongo.documents import undecoded
from twofold.mongo.safe_time import LONGEST_INSERT, read_safe_time
from twofold.query.cursors import decode_cursor, encode_cursor, invalid_cursor
from twofold.read.models import EventOut, UnreadableEvent
from twofold.storage.log_state import LogState, LogStates

MAX_WAIT_S = 25
"""The longest wait that a reader may ask for, in seconds: less than the time a stopping server gives its requests."""
POLL_S = 1.0
"""Seconds between two looks while a reader waits."""

_CURSOR = struct.Struct(">III")
_CURSOR_KEY = b"feed"
_LAST_SECOND = 2**32 - 1
"""The last second of a BSON timestamp, in the year 2106."""


@dataclass(frozen=True, slots=True)
class FeedCursor:
    """A place in the feed: the `seq` of the last event that a reader has. The `seq` of an event is unique."""

    seconds: int
    increment: int
    epoch: int | None = None
    """The epoch of the log. None is for a reader that begins now: it gets the present epoch."""

    @classmethod
    def start(cls) -> Self:
        """Return the cursor before the first event."""
        return cls(0, 0)

    @classmethod
    def at(cls, moment: datetime) -> Self:
        """Return the cursor before the first event that was stored at `moment` or later, by the server's clock."""
        return cls(min(max(int(moment.astimezone(UTC).timestamp()), 0), _LAST_SECOND), 0)

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the cursor of a text from `encode`. Raise `Malformed` for an invalid text."""
        try:
            return cls(*_CURSOR.unpack(decode_cursor(text, _CURSOR_KEY)))
        except struct.error:
            raise invalid_cursor() from None

    def encode(self) -> str:
        """Return the cursor as readers keep it: opaque, and safe in a URL."""
        return encode_cursor(_CURSOR.pack(self.seconds, self.increment, self.epoch or 0), _CURSOR_KEY)


@dataclass(frozen=True, slots=True)
class FeedBatch:
    """Some events of the feed, undecoded, and the cursor behind them."""

    documents: Sequence[RawDocument]
    cursor: FeedCursor
    safe_time: datetime
    """No event that was stored before this time, by the server's clock, can still appear."""


class FeedPage(BaseModel):
    """A page of the feed."""

    events: Annotated[
        list[EventOut | UnreadableEvent],
        Field(description="in the order of the feed; an unreadable event keeps its place"),
    ]
    cursor: Annotated[str, Field(description="the cursor of the next request")]
    safe_time: Annotated[
        datetime,
        Field(description="no event that was stored before this time, by the server's clock, can still appear"),
    ]

    @classmethod
    def of(cls, batch: FeedBatch) -> Self:
        """Return the page of a batch."""
        events = [_decoded(document) for document in batch.documents]
        return cls(events=events, cursor=batch.cursor.encode(), safe_time=batch.safe_time)


def _present_epoch(log: LogState, cursor: FeedCursor) -> int:
    """Return the epoch of the log. Raises `Unavailable` for a regressed log, `Gone` for a cursor of another epoch."""
    if log.regressed:
        raise Unavailable("the log lacks events that it had: an operator must run `twofold reconcile` first")
    if cursor.epoch not in (None, log.epoch):
        raise Gone(
            "the log was restored after this cursor was given out, so events may lie behind the cursor: begin again "
            "with `since`: the time of the loss or of the backup, or `stored_at` of your last event if this is "
            "earlier. Some events come a second time",
            "cursor",
        )
    return log.epoch


def _decoded(document: RawDocument) -> EventOut | UnreadableEvent:
    try:
        return EventOut.of(document)
    except Unreadable:
        return UnreadableEvent(event_id=str(document["_id"]), unreadable=True)


class Feed:
    """Reads the log in the order of `seq`. A reader gets every event once if each call begins at the last cursor.

    `clock` gives monotonic seconds. Every method raises `Unavailable` when MongoDB is unavailable or the log has
    regressed, and `Gone` for a cursor of an old epoch.
    """

    def __init__(
        self,
        database: Database,
        longest_insert: timedelta = LONGEST_INSERT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._event_store = undecoded(database["event_store"])
        self._log = LogStates(database)
        self._longest_insert = longest_insert
        self._clock = clock

    async def read(self, after: FeedCursor, limit: int, max_bytes: int) -> FeedBatch:
        """Return up to `limit` events after the cursor. The event that reaches `max_bytes` ends the batch."""
        documents: list[RawDocument] = []
        size = 0
        with driver_errors():
            async with self._database.client.start_session(causal_consistency=True) as session:
                safe = await read_safe_time(session, self._longest_insert)
                query = {"seq": {"$gt": Timestamp(after.seconds, after.increment), "$lt": safe.safe_time}}
                found = self._event_store.find(query, session=session, batch_size=min(limit, 100))
                async for document in found.sort("seq", ASCENDING).limit(limit):
                    documents.append(document)
                    size += len(document.raw)
                    if size >= max_bytes:
                        await found.close()
                        break
                # After the read of the events: a log that was whole now was whole then.
                epoch = _present_epoch(await self._log.read(session), after)
        last = documents[-1]["seq"] if documents else None
        cursor = FeedCursor(last.time, last.inc, epoch) if last else replace(after, epoch=epoch)
        return FeedBatch(documents, cursor, safe.safe_time.as_datetime())

    async def wait(self, after: FeedCursor, limit: int, max_bytes: int, longest: timedelta) -> FeedBatch:
        """Return the next events as `read` does, but wait up to `longest` for them. The batch is empty after that."""
        until = self._clock() + longest.total_seconds()
        while True:
            batch = await self.read(after, limit, max_bytes)
            left = until - self._clock()
            if batch.documents or left <= 0:
                return batch
            await asyncio.sleep(min(POLL_S, left))
