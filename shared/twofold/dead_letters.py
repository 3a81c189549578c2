"""What could not be taken into the log: kept as it came, with the reason, until somebody decides."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from twofold.cloudevents import Received
from twofold.errors import Rejected
from twofold.mongo import Database, driver_errors


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A request that was refused for good: its CloudEvents headers and body to the byte, and why."""

    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    reason: Rejected
    partition: int | None
    offset: int | None
    received: Received | None = None
    """The event, if it could be read."""

    @property
    def letter_id(self) -> UUID:
        """The same for every redelivery: an event's by identity and digest, else the record's by place and bytes."""
        content = hashlib.sha256()
        if self.received:
            content.update(self.received.event.event_id.bytes + self.received.event.digest)
        else:
            content.update(f"{self.partition}/{self.offset}".encode())
            for name, value in sorted(self.kept_headers):
                content.update(b"%d:%b%d:%b" % (len(name), name, len(value), value))
            content.update(self.body)
        return UUID(bytes=content.digest()[:16], version=5)

    @property
    def kept_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that are the event's; the others are the HTTP connection's, and differ for each delivery."""
        return [(name, value) for name, value in self.headers if name.startswith(b"ce-") or name == b"content-type"]


class DeadLetters:
    """The collection `dead_letters`. Every method raises `Unavailable` when MongoDB is away."""

    def __init__(self, database: Database) -> None:
        self._dead_letters = database["dead_letters"]

    async def keep(self, letter: DeadLetter) -> None:
        """Make the letter durable, once; a redelivery is counted. Returns when a majority has it."""
        event = letter.received.event if letter.received else None
        first = {
            "reason": letter.reason.title,
            "detail": letter.reason.detail,
            "headers": [{"name": name.decode("latin-1"), "value": value} for name, value in letter.kept_headers],
            "body": letter.body,
            "log": {"partition": letter.partition, "offset": letter.offset},
            "event_id": event.event_id if event else None,
            "digest": event.digest if event else None,
            "state": "dead",
        }
        change: list[dict[str, Any]] = [
            {"$replaceWith": {"$mergeObjects": [{"$literal": first}, {"first_at": "$$NOW", "times": 0}, "$$ROOT"]}},
            {"$set": {"last_at": "$$NOW", "times": {"$add": ["$times", 1]}}},
        ]
        with driver_errors():
            await self._dead_letters.update_one({"_id": letter.letter_id}, change, upsert=True)

    async def dead(self, ids: Sequence[UUID]) -> set[tuple[UUID, bytes]]:
        """Which of the events are dead letters: (event_id, digest) of each."""
        with driver_errors():
            found = self._dead_letters.find(
                {"event_id": {"$in": list(ids)}, "state": "dead"}, {"event_id": 1, "digest": 1}
            )
            return {(document["event_id"], document["digest"]) async for document in found}
