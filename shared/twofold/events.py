"""`EventRepository`: the collection `events`, the operational projection, and its outbox.

An event that isn't known to be in `event_store` carries its mark, `outbox`: the document is its own outbox row, so one
atomic insert makes both. `expires_at` is there only once the mark is gone.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from bson.timestamp import Timestamp

from twofold.errors import Rejected, TwofoldError
from twofold.event import Event
from twofold.mongo import Database, Document, Encoded, driver_errors, encode, event_of, insert_once, known, raw

FIRST_BACK_OFF_MS = 60_000
LONGEST_BACK_OFF_MS = 3_600_000


class EventRepository:
    """Events of the last days, as people query them. Every method raises `Unavailable` when MongoDB is away."""

    def __init__(self, database: Database) -> None:
        self._events = database["events"]

    @staticmethod
    def encode(event: Event, stored_at: datetime, first_look: timedelta) -> Encoded:
        """The document of a new event, marked to be looked for `first_look` from now. Raises `Invalid`."""
        return encode(
            event.document()
            | {
                "stored_at": stored_at,
                "seq": Timestamp(0, 0),  # the server fills it in at insert
                "outbox": {"next_try": stored_at + first_look, "tries": 0},
            }
        )

    async def insert(self, documents: Sequence[Encoded], ids: Sequence[UUID]) -> list[bytes | TwofoldError | None]:
        """Insert each once: see `mongo.insert_once`."""
        return await insert_once(self._events, documents, ids)

    async def known(self, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """The digests of those events that are there."""
        return await known(self._events, ids)

    async def get(self, event_id: UUID) -> Event | None:
        """The event, or None."""
        with driver_errors():
            document = await raw(self._events).find_one({"_id": event_id})
        return event_of(document) if document else None

    async def due(self, now: datetime, limit: int) -> dict[UUID, bytes]:
        """The digests of up to `limit` events whose marks are due, the longest due first."""
        with driver_errors():
            marked = self._events.find({"outbox.next_try": {"$lte": now}}, {"digest": 1})
            longest_due = marked.sort("outbox.next_try", 1).limit(limit)
            return {document["_id"]: document["digest"] async for document in longest_due}

    async def load(self, ids: Sequence[UUID]) -> dict[UUID, Event | Rejected]:
        """Those events that are there; for one that somebody made unreadable, what is wrong with it."""
        with driver_errors():
            found = raw(self._events).find({"_id": {"$in": list(ids)}})
            return {document["_id"]: _readable(document) async for document in found}

    async def confirm(self, ids: Sequence[UUID], retention: timedelta) -> int:
        """Take the marks off, and start the clock of retention by the server's time. Returns how many had one."""
        expires_at = {"$add": ["$$NOW", round(retention.total_seconds() * 1000)]}
        return await self._change_marks(ids, [{"$set": {"expires_at": expires_at}}, {"$unset": "outbox"}])

    async def postpone(self, ids: Sequence[UUID]) -> int:
        """Note one more try, and let the next wait twice as long: from a minute to an hour, by the server's time."""
        doubled = {"$multiply": [FIRST_BACK_OFF_MS, {"$pow": [2, {"$min": ["$outbox.tries", 10]}]}]}
        next_try = {"$add": ["$$NOW", {"$min": [LONGEST_BACK_OFF_MS, doubled]}]}
        tries = {"$add": ["$outbox.tries", 1]}
        return await self._change_marks(ids, [{"$set": {"outbox": {"next_try": next_try, "tries": tries}}}])

    async def give_up(self, ids: Sequence[UUID], state: str) -> int:
        """Keep the marks, since these are not in the log, but try no more, because of `state`."""
        return await self._change_marks(ids, [{"$set": {"outbox.state": state}}, {"$unset": "outbox.next_try"}])

    async def _change_marks(self, ids: Sequence[UUID], pipeline: list[Document]) -> int:
        if not ids:
            return 0
        marked: dict[str, Any] = {"_id": {"$in": list(ids)}, "outbox": {"$exists": True}}
        with driver_errors():
            result = await self._events.update_many(marked, pipeline)
        return result.modified_count


def _readable(document: Encoded) -> Event | Rejected:
    try:
        return event_of(document)
    except Rejected as refusal:
        return refusal
