"""What could not be taken into the log: kept as it came, with the reason, until somebody decides.

A letter is `dead`; redriving makes it `redriving`, and it ends as `stored`, or comes back as `dead` with its history.
Somebody may also make it `discarded`. Each change names the state that it starts from, so two at once do no harm. What
fails again is `dead` again, unless it was discarded for that very reason; its reason is the latest that doesn't pass.
"""

import base64
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from twofold.cloudevents.attributes import RawHeaders
from twofold.cloudevents.decode_kafka import DeliveredEvent, redriven_dead_letter_id
from twofold.cloudevents.encode import KafkaRecord, redrive_record
from twofold.errors import Rejected, Undelivered, UnknownReplay
from twofold.event.metadata import HOP_ATTRIBUTES
from twofold.mongo.client import Database, Document, driver_errors
from twofold.observability.metrics import DEAD_LETTERS
from twofold.observability.telemetry import SILENT, Telemetry

logger = logging.getLogger(__name__)


REDRIVE_WITHIN = timedelta(minutes=10)
"""How long a redriven letter may be on its way before it counts as dead again."""


PASSING_REASONS = (Undelivered.title, UnknownReplay.title)
"""Reasons that say nothing against the event itself: sent as it was published, it can still come into the log."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A request that was refused for good: its CloudEvents headers and body to the byte, and why."""

    headers: RawHeaders
    body: bytes
    reason: Rejected
    partition: int | None
    offset: int | None
    received: DeliveredEvent | None = None
    """The event, if it could be read."""
    sink: str = "store"
    """The function that could not take it."""
    content: bytes | None = None
    """What makes two deliveries the same letter, for a source that gives each an id of its own."""

    @property
    def dead_letter_id(self) -> UUID:
        """The same for every redelivery: an event's by identity and digest, else the record's by place and bytes.

        A replay has a letter of its own: what becomes of it says nothing of the event.
        """
        if self.content is not None:
            return UUID(bytes=hashlib.sha256(self.sink.encode() + self.content).digest()[:16], version=5)
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
        return _kept(self.headers)


def undelivered_reason(headers: RawHeaders) -> Undelivered:
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

        One that fails again is dead again, with a line in its history. A redriven record's letter is the one that it
        names, since its place is a new one.
        """
        named = await self._named(letter.headers, letter.body, letter.received)
        dead_letter_id = named or letter.dead_letter_id
        with driver_errors():
            await self._dead_letters.update_one({"_id": dead_letter_id}, _upsert_of(letter), upsert=True)
        self._telemetry.record(DEAD_LETTERS, 1, {"error.type": letter.reason.title})
        about = {"dead_letter_id": str(dead_letter_id), "reason": letter.reason.title}
        logger.warning("dead letter", extra=about | {"partition": letter.partition, "offset": letter.offset})

    async def dead(self, ids: Sequence[UUID]) -> set[tuple[UUID, bytes]]:
        """Which of the events are dead for a reason of their own: (event_id, digest) of each.

        One that a source gave up on is not, nor one whose replay came before it was known: sending it again may help.
        """
        final = {
            "event_id": {"$in": list(ids)},
            "state": {"$in": ["dead", "discarded"]},
            "reason": {"$nin": list(PASSING_REASONS)},
        }
        with driver_errors():
            found = self._dead_letters.find(final, {"event_id": 1, "digest": 1})
            return {(document["event_id"], document["digest"]) async for document in found}

    async def get(self, dead_letter_id: UUID) -> Document | None:
        """The whole letter, or None."""
        with driver_errors():
            return await self._dead_letters.find_one({"_id": dead_letter_id})

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

    async def start_redrive(self, dead_letter_id: UUID, by: str) -> KafkaRecord | None:
        """Take a dead letter for redriving, and return its record; None if it isn't dead, or not any more.

        None too for one of another sink than `store`: Kafka does not lead there.
        """
        line = {"what": "redriven", "by": by}
        document = await self._change(dead_letter_id, "dead", "redriving", line, {"sink": {"$in": ["store", None]}})
        return redrive_record(document) if document else None

    async def fail_redrive(self, dead_letter_id: UUID, why: str) -> bool:
        """Put a letter back that could not be sent."""
        return await self._change(dead_letter_id, "redriving", "dead", {"what": "not sent", "why": why}) is not None

    async def discard(self, dead_letter_id: UUID, by: str, why: str) -> bool:
        """Decide that a dead letter stays out of the log; False if it isn't dead. It is kept all the same."""
        return (
            await self._change(dead_letter_id, "dead", "discarded", {"what": "discarded", "by": by, "why": why})
            is not None
        )

    async def stored(self, headers: RawHeaders, body: bytes, received: DeliveredEvent) -> None:
        """Note that a redriven record is in the log: its letter is done, even if it counted as lost by then."""
        if (dead_letter_id := await self._named(headers, body, received)) is not None:
            await self._change(dead_letter_id, {"$ne": "stored"}, "stored", {"what": "stored"})

    async def events_stored(self, digests: Mapping[UUID, bytes]) -> int:
        """Note that these events are in the log: their letters that are on their way or dead for a passing reason end.

        Returns how many.
        """
        if not digests:
            return 0
        waiting = {"$or": [{"state": "redriving"}, {"state": "dead", "reason": {"$in": list(PASSING_REASONS)}}]}
        with driver_errors():
            found = self._dead_letters.find(
                {"event_id": {"$in": list(digests)}} | waiting, {"event_id": 1, "digest": 1}
            )
            ids = [letter["_id"] async for letter in found if letter["digest"] == digests[letter["event_id"]]]
            if not ids:
                return 0
            line = {"at": "$$NOW", "what": "stored"}
            change = [{"$set": {"state": "stored", "history": _with_line(line)}}]
            return (await self._dead_letters.update_many({"_id": {"$in": ids}} | waiting, change)).modified_count

    async def to_look_up(self, limit: int) -> Sequence[Document]:
        """Up to `limit` letters of events that nobody has looked for in the log since they were kept."""
        needed = {"event_id": 1, "digest": 1, "last_at": 1}
        with driver_errors():
            found = self._dead_letters.find({"to_look_up": True}, needed).limit(limit)
            return [letter async for letter in found]

    async def looked_up(self, letters: Sequence[Document]) -> None:
        """Note that these were looked for, as far as they were not kept once more since."""
        if not letters:
            return
        newest = max(letter["last_at"] for letter in letters)
        these = {"_id": {"$in": [letter["_id"] for letter in letters]}, "last_at": {"$lte": newest}}
        with driver_errors():
            await self._dead_letters.update_many(these, {"$unset": {"to_look_up": True}})

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

    async def _named(self, headers: RawHeaders, body: bytes, received: DeliveredEvent | None) -> UUID | None:
        """The letter that a redriven record names, if it is that letter's record: whoever writes into the topic can
        name any.
        """
        if (dead_letter_id := redriven_dead_letter_id(headers)) is None:
            return None
        letter = await self.get(dead_letter_id)
        return dead_letter_id if letter and _is_of(letter, headers, body, received) else None

    async def _change(
        self, dead_letter_id: UUID, before: str | Document, after: str, line: Document, only: Document | None = None
    ) -> Document | None:
        """The letter, if its state was `before`, and it is as `only` says."""
        line = {name: {"$literal": value} for name, value in line.items()} | {"at": "$$NOW"}
        change = [{"$set": {"state": after, "history": _with_line(line)}}]
        which: Document = {"_id": dead_letter_id, "state": before} | (only or {})
        with driver_errors():
            return await self._dead_letters.find_one_and_update(which, change)


def _kept(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    return [
        (name, value)
        for name, value in headers
        if name == b"content-type" or (name.startswith(b"ce-") and not name.startswith(b"ce-knativeerror"))
    ]


def _is_of(letter: Document, headers: RawHeaders, body: bytes, received: DeliveredEvent | None) -> bool:
    """Whether a record is the letter's: the same event, or the same bytes."""
    if received is not None and letter["event_id"] is not None:
        return (letter["event_id"], letter["digest"]) == (received.event_id, received.digest)
    first = [(header["name"].encode("latin-1"), header["value"]) for header in letter["headers"]]
    return letter["body"] == body and _of_no_hop(first) == _of_no_hop(_kept(headers))


def _of_no_hop(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    return sorted(
        (name, value) for name, value in headers if name.decode("latin-1").removeprefix("ce-") not in HOP_ATTRIBUTES
    )


def _upsert_of(letter: DeadLetter) -> list[Document]:
    """The update that makes the letter, or counts one that is there: then what was first kept of it stays."""
    reason, detail, passing = letter.reason.title, letter.reason.detail, letter.reason.title in PASSING_REASONS
    first = {
        "reason": reason,
        "detail": detail,
        "headers": [{"name": name.decode("latin-1"), "value": value} for name, value in letter.kept_headers],
        "body": letter.body,
        "sink": letter.sink,
        "kafka": {"partition": letter.partition, "offset": letter.offset},
        "event_id": letter.received.event_id if letter.received else None,
        "digest": letter.received.digest if letter.received else None,
        "state": "dead",
        "history": [],
    }
    ended = {"$in": ["$state", ["redriving", "stored"]]}
    other = {"$ne": ["$reason", reason]}
    news = {"$or": [ended, {"$and": [other, {"$in": ["$reason", list(PASSING_REASONS)]}]} if passing else other]}
    line = {"at": "$$NOW", "what": "failed again", "why": {"$literal": detail}}
    again = {"state": "dead", "reason": reason, "detail": {"$literal": detail}, "history": _with_line(line)}
    look_up: Document = {"to_look_up": True} if passing and letter.received else {}
    return [
        {"$replaceWith": {"$mergeObjects": [{"$literal": first}, {"first_at": "$$NOW", "times": 0}, "$$ROOT"]}},
        {"$set": {"last_at": "$$NOW", "times": {"$add": ["$times", 1]}, "news": news, **look_up}},
        {"$set": {name: {"$cond": ["$news", value, f"${name}"]} for name, value in again.items()}},
        {"$unset": "news"},
    ]


def _with_line(line: Document) -> Document:
    return {"$concatArrays": ["$history", [line]]}
