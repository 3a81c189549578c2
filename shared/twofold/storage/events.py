"""`EventRepository`: the collection `events`, the operational projection, and its outbox.

An event that isn't known to be in `event_store` carries its mark, `outbox`: the document is its own outbox row, so one
atomic insert makes both. `expires_at` is there only once the mark is gone. A mark's `state` is

- `new`: not looked for yet. It is due by the event's `seq`, which the server gave: no publisher's clock matters.
- `pending`: looked for and sent again, `tries` times, last at `sent_at`; due at `next_try`.
- `dead`, `conflicting`, `unreadable`: tried no more. Somebody must look.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from bson.timestamp import Timestamp

from twofold.errors import DigestMismatch, Rejected, TwofoldError
from twofold.event.model import Event
from twofold.mongo.client import Database, Document, RawDocument, driver_errors
from twofold.mongo.documents import encode_event, event_of, undecoded
from twofold.mongo.insert import find_digests, insert_once
from twofold.query.filters import FIELDS
from twofold.read.live import LiveEvents
from twofold.read.pages import EventReader
from twofold.read.statistics import EventStatistics
from twofold.settings import Settings

BACK_OFF = timedelta(minutes=1)
"""How long after its first resending an event is looked for again."""


LONGEST_BACK_OFF = 60
"""How much longer than the first a back-off may become."""


_ENTRY_FIELDS = {"digest": 1, "seq": 1, "outbox": 1}


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A marked event: which, and when it was last sent, by the server's clock."""

    event_id: UUID
    digest: bytes
    sent_at: datetime


class EventRepository:
    """Events of the last days, as people query them. Every method raises `Unavailable` when MongoDB is away."""

    INDEXED = tuple(FIELDS)
    """The filters that have an index."""

    def __init__(self, database: Database, back_off: timedelta = BACK_OFF) -> None:
        self._events = database["events"]
        self._back_off_ms = round(back_off.total_seconds() * 1000)

    @staticmethod
    def encode(document: Document, stored_at: datetime) -> RawDocument:
        """The document of a new event (see `Event.document`) with its mark. Raises `Invalid`."""
        return encode_event(document, stored_at, outbox={"state": "new", "tries": 0})

    async def insert(self, documents: Sequence[RawDocument], ids: Sequence[UUID]) -> list[bytes | TwofoldError | None]:
        """Insert each once: see `mongo.insert_once`."""
        return await insert_once(self._events, documents, ids)

    async def known(self, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """The digests of those events that are there."""
        return await find_digests(self._events, ids)

    async def get(self, event_id: UUID) -> Event | None:
        """The event, or None."""
        with driver_errors():
            document = await undecoded(self._events).find_one({"_id": event_id})
        return event_of(document) if document else None

    def reader(self, settings: Settings) -> EventReader:
        """Pages of it, by filters."""
        return EventReader(self._events, self.INDEXED, settings)

    def statistics(self, settings: Settings) -> EventStatistics:
        """Counts of it."""
        return EventStatistics(self._events, self.INDEXED, settings)

    def live(self, settings: Settings) -> LiveEvents:
        """What comes into it, as it comes."""
        return LiveEvents(self._events, settings)

    async def due(self, now: datetime, first_look: timedelta, limit: int) -> list[OutboxEntry]:
        """Up to `limit` marks that are due at `now`, the server's time: first those tried before, then the new ones.

        A new one is due `first_look` after its insert.
        """
        tried = (
            self._events.find({"outbox.next_try": {"$lte": now}}, _ENTRY_FIELDS).sort("outbox.next_try", 1).limit(limit)
        )
        until = Timestamp(int((now - first_look).timestamp()), 0)
        new = self._events.find({"outbox.state": "new", "seq": {"$lt": until}}, _ENTRY_FIELDS).sort("seq", 1)
        with driver_errors():
            marks = [_entry_in(document) async for document in tried]
            if len(marks) < limit:
                marks += [_entry_in(document) async for document in new.limit(limit - len(marks))]
        return marks

    async def after(self, event_id: UUID | None, limit: int) -> list[Document]:
        """The next `limit` documents by `_id`: their `digest`, `seq`, `outbox` and `expires_at`.

        For going through all in pieces.
        """
        with driver_errors():
            beyond = self._events.find(
                {"_id": {"$gt": event_id}} if event_id else {}, {**_ENTRY_FIELDS, "expires_at": 1}
            )
            return [document async for document in beyond.sort("_id", 1).limit(limit)]

    async def sizes(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        """How many bytes each of those events that are there takes in MongoDB."""
        if not ids:
            return {}
        with driver_errors():
            found = self._events.find({"_id": {"$in": list(ids)}}, {"size": {"$bsonSize": "$$ROOT"}})
            return {document["_id"]: document["size"] async for document in found}

    async def load(self, ids: Sequence[UUID]) -> dict[UUID, Event | Rejected]:
        """Those events that are there; for one that somebody made unreadable, what is wrong with it."""
        with driver_errors():
            found = undecoded(self._events).find({"_id": {"$in": list(ids)}})
            return {document["_id"]: _readable(document) async for document in found}

    async def confirm(self, ids: Sequence[UUID], retention: timedelta) -> int:
        """Take the marks off, and start the clock of retention by the server's time. Returns how many had one."""
        expires_at = {"$add": ["$$NOW", round(retention.total_seconds() * 1000)]}
        return await self._change_marks(ids, [{"$set": {"expires_at": expires_at}}, {"$unset": "outbox"}])

    async def postpone(self, ids: Sequence[UUID]) -> int:
        """Note one more try; each wait is twice the one before, up to 60 times the first, by the server's time."""
        doubled = {"$multiply": [self._back_off_ms, {"$pow": [2, {"$min": ["$outbox.tries", 10]}]}]}
        mark = {
            "state": "pending",
            "tries": {"$add": ["$outbox.tries", 1]},
            "sent_at": "$$NOW",
            "next_try": {"$add": ["$$NOW", {"$min": [LONGEST_BACK_OFF * self._back_off_ms, doubled]}]},
        }
        return await self._change_marks(ids, [{"$set": {"outbox": mark}}])

    async def hold(self, ids: Sequence[UUID]) -> int:
        """Look again after the first back-off, without having tried: they may still be on their way."""
        later = {"state": "pending", "next_try": {"$add": ["$$NOW", self._back_off_ms]}}
        return await self._change_marks(ids, [{"$set": {"outbox": later}}])

    async def give_up(self, ids: Sequence[UUID], state: str) -> int:
        """Keep the marks, since these are not in the log, but try no more, because of `state`."""
        return await self._change_marks(ids, [{"$set": {"outbox.state": state}}, {"$unset": "outbox.next_try"}])

    async def retry(self, ids: Sequence[UUID]) -> int:
        """Make marks that were given up due again, after the first back-off."""
        given_up = {"_id": {"$in": list(ids)}, "outbox.state": {"$in": ["dead", "conflicting", "unreadable"]}}
        again = {"state": "pending", "next_try": {"$add": ["$$NOW", self._back_off_ms]}}
        with driver_errors():
            result = await self._events.update_many(given_up, [{"$set": {"outbox": again}}])
        return result.modified_count

    async def mark(self, ids: Sequence[UUID]) -> int:
        """Mark events as not known to be in the log, due now: they expire no more, and the relay sees to them."""
        due: list[Document] = [
            {"$set": {"outbox": {"state": "pending", "tries": 0, "next_try": "$$NOW"}}},
            {"$unset": "expires_at"},
        ]
        with driver_errors():
            result = await self._events.update_many({"_id": {"$in": list(ids)}}, due)
        return result.modified_count

    async def _change_marks(self, ids: Sequence[UUID], pipeline: list[Document]) -> int:
        if not ids:
            return 0
        marked: dict[str, Any] = {"_id": {"$in": list(ids)}, "outbox": {"$exists": True}}
        with driver_errors():
            result = await self._events.update_many(marked, pipeline)
        return result.modified_count


def _readable(document: RawDocument) -> Event | Rejected:
    """The event; or what is wrong with it, which is never sent: the digest of a changed one would vouch for it."""
    try:
        event = event_of(document)
    except Rejected as refusal:
        return refusal
    if event.digest != document["digest"]:
        return DigestMismatch("somebody changed the document: the event is not the one that its digest was made for")
    return event


def _entry_in(document: Document) -> OutboxEntry:
    sent_at = document["outbox"].get("sent_at") or document["seq"].as_datetime()
    return OutboxEntry(document["_id"], document["digest"], sent_at)
