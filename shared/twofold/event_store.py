"""`EventStore`: the collection `event_store`, the permanent log. It is inserted into and read, and never changed."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from bson.timestamp import Timestamp

from twofold.cloudevents import Received
from twofold.errors import TwofoldError
from twofold.event import Event
from twofold.mongo import Database, Encoded, driver_errors, encode, event_of, insert_once, known, raw
from twofold.reading import EventReader
from twofold.settings import Settings


class EventStore:
    """The append-only log. Every method raises `Unavailable` when MongoDB is away."""

    INDEXED = ("aggregate", "correlation", "user", "types")
    """The filters that have an index: few, since each one costs every insert for ever. No reader asks by service."""

    def __init__(self, database: Database) -> None:
        self._event_store = database["event_store"]

    @staticmethod
    def encode(received: Received, stored_at: datetime) -> Encoded:
        """The document of an event, with the Kafka coordinates that it came from. Raises `Invalid`."""
        log = {"partition": received.partition, "offset": received.offset}
        return encode(
            received.event.document()
            | {
                "stored_at": stored_at,
                "seq": Timestamp(0, 0),  # the server fills it in at insert
                "log": log,
            }
        )

    async def append(self, documents: Sequence[Encoded], ids: Sequence[UUID]) -> list[bytes | TwofoldError | None]:
        """Append each once: see `mongo.insert_once`."""
        return await insert_once(self._event_store, documents, ids)

    async def known(self, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """The digests of those events that are in the log."""
        return await known(self._event_store, ids)

    def reader(self, settings: Settings) -> EventReader:
        """Pages of it, by filters."""
        return EventReader(self._event_store, self.INDEXED, settings.query_timeout_s, settings.search_s)

    async def get(self, event_id: UUID) -> Event | None:
        """The event, or None."""
        with driver_errors():
            document = await raw(self._event_store).find_one({"_id": event_id})
        return event_of(document) if document else None
