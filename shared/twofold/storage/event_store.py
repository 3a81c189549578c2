"""The collection `event_store`: the permanent log. Twofold inserts into it and reads it, and never changes it."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from bson.timestamp import Timestamp

from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.event.model import Event
from twofold.mongo.client import Database, RawDocument, driver_errors
from twofold.mongo.documents import encode_event, event_of, undecoded
from twofold.mongo.insert import InsertResult, NewDocument, find_digests, insert_once


class LoggedEvent(NamedTuple):
    """Two fields of an event in the log."""

    digest: bytes
    seq: Timestamp


class EventStore:
    """The append-only log. Every method raises `Unavailable` when MongoDB is unavailable."""

    def __init__(self, database: Database) -> None:
        self._event_store = database["event_store"]

    @staticmethod
    def encode(delivered: DeliveredEvent, stored_at: datetime) -> RawDocument:
        """Encode the document of an event, with its place in Kafka. Raises `Invalid`."""
        kafka = {"partition": delivered.partition, "offset": delivered.offset}
        return encode_event(delivered.document, stored_at, kafka=kafka)

    async def append(self, documents: Sequence[NewDocument]) -> list[InsertResult]:
        """Append events once: see `insert_once`."""
        return await insert_once(self._event_store, documents)

    async def known(self, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """Return the digests of existing events."""
        return await find_digests(self._event_store, ids)

    async def logged(self, ids: Sequence[UUID]) -> dict[UUID, LoggedEvent]:
        """Return digest and `seq` of existing events, from a majority read."""
        with driver_errors():
            found = self._event_store.find({"_id": {"$in": list(ids)}}, {"digest": 1, "seq": 1})
            return {document["_id"]: LoggedEvent(document["digest"], document["seq"]) async for document in found}

    async def get(self, event_id: UUID) -> Event | None:
        """Return the event; None for an unknown id."""
        with driver_errors():
            document = await undecoded(self._event_store).find_one({"_id": event_id})
        return event_of(document) if document else None
