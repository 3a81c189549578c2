"""The collection `events`: the operational projection, for the queries of the last 30 days.

A document also carries the event's outbox entry until the relay has found the event in the log: see `outbox.py`.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from twofold.event.model import Event
from twofold.mongo.client import Database, Document, RawDocument, driver_errors
from twofold.mongo.documents import encode_event, event_of, undecoded
from twofold.mongo.insert import InsertResult, NewDocument, find_digests, insert_once
from twofold.storage.outbox import NEW_ENTRY


class EventRepository:
    """The collection `events`. Every method raises `Unavailable` when MongoDB is unavailable."""

    def __init__(self, database: Database) -> None:
        self._events = database["events"]

    @staticmethod
    def encode(document: Document, stored_at: datetime) -> RawDocument:
        """Encode the document of a new event (see `Event.to_document`) with its outbox entry. Raises `Invalid`."""
        return encode_event(document, stored_at, outbox=NEW_ENTRY)

    async def insert(self, documents: Sequence[NewDocument]) -> list[InsertResult]:
        """Insert events once: see `insert_once`."""
        return await insert_once(self._events, documents)

    async def known(self, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """Return the digests of existing events."""
        return await find_digests(self._events, ids)

    async def get(self, event_id: UUID) -> Event | None:
        """Return the event; None for an unknown id."""
        with driver_errors():
            document = await undecoded(self._events).find_one({"_id": event_id})
        return event_of(document) if document else None

    async def after(self, event_id: UUID | None, limit: int) -> list[Document]:
        """Return the next `limit` documents in the order of `_id`: `digest`, `seq`, `outbox` and `confirmed_at`."""
        fields = {"digest": 1, "seq": 1, "outbox": 1, "confirmed_at": 1}
        with driver_errors():
            found = self._events.find({"_id": {"$gt": event_id}} if event_id else {}, fields)
            return [document async for document in found.sort("_id", 1).limit(limit)]
