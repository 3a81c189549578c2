"""What could not be taken into the log: kept as it came, with the reason, until somebody decides.

A letter is `dead`; redriving makes it `redriving`, and it ends as `stored`, or comes back as `dead` with its history.
Somebody may also make it `discarded`. Each change names the state that it starts from, so two at once do no harm.
"""

import base64
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from twofold.cloudevents import Delivered, Record, letter_of, record_of_letter
from twofold.errors import Rejected, Undelivered, UnknownReplay
from twofold.mongo import Database, Document, driver_errors
from twofold.telemetry import LETTERS, SILENT, Telemetry

logger = logging.getLogger(__name__)

REDRIVE_WITHIN = timedelta(minutes=10)
"""How long a redriven letter may be on its way before it counts as dead again."""
PASSING = (Undelivered.title, UnknownReplay.title)
"""Reasons that say nothing against the event itself: sent as it was published, it can still come into the log."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A request that was refused for good: its CloudEvents headers and body to the byte, and why."""

    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    reason: Rejected
    partition: int | None
    offset: int | None
    received: Delivered | None = None
    """The event, if it could be read."""
    sink: str = "store"
    """The function that could not take it."""
    content: bytes | None = None
    """What makes two deliveries the same letter, for a source that gives each an id of its own."""

    @property
    def letter_id(self) -> UUID:
        """The same for every redelivery: an event's by identity and digest, else the record's by place and bytes.

        A redriven record names its letter, since its place is a new one. A replay has a letter of its own: what becomes
        of it says nothing of the event.
        """
        if self.content is not None:
            return UUID(bytes=hashlib.sha256(self.sink.encode() + self.content).digest()[:16], version=5)
        if (letter_id := letter_of(self.headers)) is not None:
            return letter_id
        content = hashlib.sha256()
        if self.received:
            content.update(self.received.event_id.bytes + self.received.digest)
            if self.received.replay_id is not None:
                content.update(b"replayed")
        else:
            content.update(f"{self.partition}/{self.offset}".encode())
            for name, value in sorted(self.kept_headers):
                content.update(b"%d:%b%d:%b" % (len(name), name, len(value), value))
            content.update(self.body)
        return UUID(bytes=content.digest()[:16], version=5)

    @property
    def kept_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that are the event's; the others are the connection's or the source's, and differ each time."""
        return [
            (name, value)
            for name, value in self.headers
            if name == b"content-type" or (name.startswith(b"ce-") and not name.startswith(b"ce-knativeerror"))
        ]


def undelivered(headers: Sequence[tuple[bytes, bytes]]) -> Undelivered:
    """Why a source gave up, from the extensions that KafkaSource adds to a dead letter."""
    said = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    try:
        answer = base64.b64decode(said.get("ce-knativeerrordata", "")).decode("utf-8", "replace")
    except ValueError:
        answer = said["ce-knativeerrordata"]
    code = said.get("ce-knativeerrorcode", "no answer")
    return Undelivered(f"{said.get('ce-knativeerrordest', 'the sink')} answered {code}: {answer}"[:2000])


class DeadLetters:
    """The collection `dead_letters`. Every method raises `Unavailable` when MongoDB is away."""

    def __init__(self, database: Database, telemetry: Telemetry = SILENT) -> None:
        self._dead_letters = database["dead_letters"]
        self._telemetry = telemetry

    async def keep(self, letter: DeadLetter) -> None:
        """Make the letter durable, once; a redelivery is counted. Returns when a majority has it.

        One that was redriven and fails again is dead again, with a line in its history.
        """
        first = {
            "reason": letter.reason.title,
            "detail": letter.reason.detail,
            "headers": [{"name": name.decode("latin-1"), "value": value} for name, value in letter.kept_headers],
            "body": letter.body,
            "sink": letter.sink,
            "log": {"partition": letter.partition, "offset": letter.offset},
            "event_id": letter.received.event_id if letter.received else None,
            "digest": letter.received.digest if letter.received else None,
            "state": "dead",
            "history": [],
        }
        failed_again = {"at": "$$NOW", "what": "failed again", "why": {"$literal": letter.reason.detail}}
        change: list[dict[str, Any]] = [
            {"$replaceWith": {"$mergeObjects": [{"$literal": first}, {"first_at": "$$NOW", "times": 0}, "$$ROOT"]}},
            {"$set": {"last_at": "$$NOW", "times": {"$add": ["$times", 1]}}},
            {"$set": _if_state("redriving", {"state": "dead", "history": _with_line(failed_again)})},
        ]
        with driver_errors():
            await self._dead_letters.update_one({"_id": letter.letter_id}, change, upsert=True)
        self._telemetry.record(LETTERS, 1, {"error.type": letter.reason.title})
        about = {"letter_id": str(letter.letter_id), "reason": letter.reason.title}
        logger.warning("dead letter", extra=about | {"partition": letter.partition, "offset": letter.offset})

    async def dead(self, ids: Sequence[UUID]) -> set[tuple[UUID, bytes]]:
        """Which of the events are dead for a reason of their own: (event_id, digest) of each.

        One that a source gave up on is not, nor one whose replay came before it was known: sending it again may help.
        """
        final = {
            "event_id": {"$in": list(ids)},
            "state": {"$in": ["dead", "discarded"]},
            "reason": {"$nin": list(PASSING)},
        }
        with driver_errors():
            found = self._dead_letters.find(final, {"event_id": 1, "digest": 1})
            return {(document["event_id"], document["digest"]) async for document in found}

    async def get(self, letter_id: UUID) -> Document | None:
        """The whole letter, or None."""
        with driver_errors():
            return await self._dead_letters.find_one({"_id": letter_id})

    async def list(self, filter_: Document, limit: int) -> list[Document]:
        """Letters without their bodies, the oldest first; `filter_` may name `state` and `reason`."""
        with driver_errors():
            found = self._dead_letters.find(filter_, {"body": 0, "headers": 0}).sort("first_at", 1).limit(limit)
            return [document async for document in found]

    async def count(self) -> dict[tuple[str, str], int]:
        """How many there are of each (state, reason)."""
        counting = [{"$group": {"_id": {"state": "$state", "reason": "$reason"}, "count": {"$sum": 1}}}]
        with driver_errors():
            counted = await self._dead_letters.aggregate(counting)
            return {(line["_id"]["state"], line["_id"]["reason"]): line["count"] async for line in counted}

    async def start_redrive(self, letter_id: UUID, by: str) -> Record | None:
        """Take a dead letter for redriving, and return its record; None if it isn't dead, or not any more.

        None too for one of another sink than `store`: Kafka does not lead there.
        """
        line = {"what": "redriven", "by": by}
        document = await self._change(letter_id, "dead", "redriving", line, {"sink": {"$in": ["store", None]}})
        return record_of_letter(document) if document else None

    async def fail_redrive(self, letter_id: UUID, why: str) -> bool:
        """Put a letter back that could not be sent."""
        return await self._change(letter_id, "redriving", "dead", {"what": "not sent", "why": why}) is not None

    async def discard(self, letter_id: UUID, by: str, why: str) -> bool:
        """Decide that a dead letter stays out of the log; False if it isn't dead. It is kept all the same."""
        return (
            await self._change(letter_id, "dead", "discarded", {"what": "discarded", "by": by, "why": why}) is not None
        )

    async def stored(self, letter_id: UUID) -> None:
        """Note that a redriven letter has come into the log."""
        await self._change(letter_id, "redriving", "stored", {"what": "stored"})

    async def events_stored(self, ids: Sequence[UUID]) -> int:
        """Note that events are in the log whose letters were redriven, or are dead for a passing reason; how many."""
        waiting = {
            "event_id": {"$in": list(ids)},
            "$or": [{"state": "redriving"}, {"state": "dead", "reason": {"$in": list(PASSING)}}],
        }
        line = {"at": "$$NOW", "what": "stored"}
        with driver_errors():
            result = await self._dead_letters.update_many(
                waiting, [{"$set": {"state": "stored", "history": _with_line(line)}}]
            )
        return result.modified_count

    async def expire_redrives(self) -> int:
        """Make letters dead again whose redriven record has not come back in time. Returns how many."""
        since = {"$subtract": ["$$NOW", round(REDRIVE_WITHIN.total_seconds() * 1000)]}
        line = {"at": "$$NOW", "what": "lost on its way"}
        late = {"state": "redriving", "$expr": {"$lt": [{"$last": "$history.at"}, since]}}
        with driver_errors():
            result = await self._dead_letters.update_many(
                late, [{"$set": {"state": "dead", "history": _with_line(line)}}]
            )
        return result.modified_count

    async def _change(
        self, letter_id: UUID, before: str, after: str, line: Document, only: Document | None = None
    ) -> Document | None:
        """The letter, if its state was `before`, and it is as `only` says."""
        line = {name: {"$literal": value} for name, value in line.items()} | {"at": "$$NOW"}
        change = [{"$set": {"state": after, "history": _with_line(line)}}]
        which: Document = {"_id": letter_id, "state": before} | (only or {})
        with driver_errors():
            return await self._dead_letters.find_one_and_update(which, change)


def _with_line(line: Document) -> Document:
    return {"$concatArrays": ["$history", [line]]}


def _if_state(state: str, fields: Document) -> Document:
    """Each field's new value where the letter's state is `state`, else the one that it has."""
    return {name: {"$cond": [{"$eq": ["$state", state]}, value, f"${name}"]} for name, value in fields.items()}
