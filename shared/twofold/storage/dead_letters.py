"""The collection `dead_letters`: deliveries without success, kept in one of four states.

| state | meaning | next |
|---|---|---|
| `dead` | The delivery is not in the log. | `redriving` or `discarded` by an operator; `stored` (1, 2) |
| `redriving` | An operator sent the record to Kafka again. | `stored` (1, 2); `dead` (3, 4, 5) |
| `stored` | The log has the event. | `dead` (3) |
| `discarded` | An operator decided to leave the delivery out of the log. | `stored` (1); `dead` (3) |

1. `store` appends the redriven record: `finish_redrive`.
2. The relay finds the event in the log: `finish_stored`. A `dead` dead letter must have a transient reason for this.
3. The same delivery is rejected again: `keep`. A `discarded` dead letter becomes `dead` only for another reason. A
   `dead` dead letter takes another reason over. In both states a transient reason never replaces a lasting reason.
4. Kafka does not take the redriven record: `fail_redrive`.
5. The redriven record does not come back within `REDRIVE_WITHIN`: `expire_redrives`.

A delivery that is too large for a document of MongoDB is kept shortened (`DeadLetter.kept`), and is never redriven.

Every update names the state at its start, so two processes at once do no harm. Every change of the state adds an entry
to `history`. Dead letters are never deleted.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from twofold.cloudevents.attributes import RawHeaders
from twofold.cloudevents.decode_kafka import DeliveredEvent, redriven_dead_letter_id
from twofold.cloudevents.encode import KafkaRecord, redrive_record
from twofold.mongo.client import Database, Document, driver_errors
from twofold.observability.metrics import DEAD_LETTERS
from twofold.observability.telemetry import SILENT, Telemetry
from twofold.storage.failed_delivery import TRANSIENT_REASONS, DeadLetter, is_same_delivery

logger = logging.getLogger(__name__)

REDRIVE_WITHIN = timedelta(minutes=10)
"""The time for a redriven record to come back. After it, the dead letter is `dead` again."""


class DeadLetters:
    """Dead letters in MongoDB. Every method raises `Unavailable` when MongoDB is unavailable."""

    def __init__(self, database: Database, telemetry: Telemetry = SILENT) -> None:
        self._dead_letters = database["dead_letters"]
        self._telemetry = telemetry

    async def keep(self, dead_letter: DeadLetter) -> None:
        """Store the dead letter durably. The same delivery, rejected again, is counted in `times`."""
        redriven = await self._redriven_id(dead_letter.headers, dead_letter.body, dead_letter.delivered)
        dead_letter_id = redriven or dead_letter.dead_letter_id  # a redriven record has a new place in Kafka
        with driver_errors():
            await self._dead_letters.update_one({"_id": dead_letter_id}, _upsert(dead_letter), upsert=True)
        reason = dead_letter.reason.title
        self._telemetry.record(DEAD_LETTERS, 1, {"error.type": reason})
        kafka = {"partition": dead_letter.partition, "offset": dead_letter.offset}
        logger.warning("dead letter", extra={"dead_letter_id": str(dead_letter_id), "reason": reason, **kafka})

    async def dead(self, ids: Sequence[UUID]) -> set[tuple[UUID, bytes]]:
        """Return id and digest of the events that were rejected for a lasting reason, and are not redriven or stored.

        An event with a transient reason is left out: sending it again may help.
        """
        final = {
            "event_id": {"$in": list(ids)},
            "state": {"$in": ["dead", "discarded"]},
            "reason": {"$nin": list(TRANSIENT_REASONS)},
        }
        with driver_errors():
            found = self._dead_letters.find(final, {"event_id": 1, "digest": 1})
            return {(document["event_id"], document["digest"]) async for document in found}

    async def get(self, dead_letter_id: UUID) -> Document | None:
        """Return the whole document; None for an unknown id."""
        with driver_errors():
            return await self._dead_letters.find_one({"_id": dead_letter_id})

    async def list(self, filter_: Document, limit: int) -> list[Document]:
        """Return documents without headers and body, oldest first. `filter_` may name `state` and `reason`."""
        with driver_errors():
            found = self._dead_letters.find(filter_, {"body": 0, "headers": 0}).sort("first_at", 1).limit(limit)
            return [document async for document in found]

    async def count(self) -> dict[tuple[str, str], int]:
        """Return the number of dead letters by state and reason."""
        counting = [{"$group": {"_id": {"state": "$state", "reason": "$reason"}, "count": {"$sum": 1}}}]
        with driver_errors():
            counted = await self._dead_letters.aggregate(counting)
            return {(line["_id"]["state"], line["_id"]["reason"]): line["count"] async for line in counted}

    async def start_redrive(self, dead_letter_id: UUID, by: str) -> KafkaRecord | None:
        """Change `dead` to `redriving`, and return the record to send.

        Returns None for another state, for a shortened dead letter, and for a dead letter of another sink than `store`:
        Kafka does not lead there.
        """
        entry = {"what": "redriven", "by": by}
        can_be_sent = {"sink": {"$in": ["store", None]}, "shortened": {"$exists": False}}
        document = await self._change(dead_letter_id, "dead", "redriving", entry, can_be_sent)
        return redrive_record(document) if document else None

    async def fail_redrive(self, dead_letter_id: UUID, why: str) -> bool:
        """Change `redriving` back to `dead`: Kafka did not take the record. Return False for another state."""
        entry = {"what": "not sent", "why": why}
        return await self._change(dead_letter_id, "redriving", "dead", entry) is not None

    async def discard(self, dead_letter_id: UUID, by: str, why: str) -> bool:
        """Change `dead` to `discarded`. Return False for another state."""
        entry = {"what": "discarded", "by": by, "why": why}
        return await self._change(dead_letter_id, "dead", "discarded", entry) is not None

    async def finish_redrive(self, headers: RawHeaders, body: bytes, delivered: DeliveredEvent) -> None:
        """Change the dead letter of a redriven record to `stored`, also if it counted as lost by then."""
        if (dead_letter_id := await self._redriven_id(headers, body, delivered)) is not None:
            await self._change(dead_letter_id, {"$ne": "stored"}, "stored", {"what": "stored"})

    async def finish_stored(self, digests: Mapping[UUID, bytes]) -> int:
        """Change dead letters of these events, which the log has, to `stored`. Return their number.

        Only dead letters in `redriving`, or in `dead` for a transient reason, with an equal digest change.
        """
        if not digests:
            return 0
        waiting = {"$or": [{"state": "redriving"}, {"state": "dead", "reason": {"$in": list(TRANSIENT_REASONS)}}]}
        of_events = {"event_id": {"$in": list(digests)}}
        with driver_errors():
            found = self._dead_letters.find(of_events | waiting, {"event_id": 1, "digest": 1})
            ids = [kept["_id"] async for kept in found if kept["digest"] == digests[kept["event_id"]]]
            if not ids:
                return 0
            change = [{"$set": {"state": "stored", "history": _history_with({"at": "$$NOW", "what": "stored"})}}]
            return (await self._dead_letters.update_many({"_id": {"$in": ids}} | waiting, change)).modified_count

    async def to_look_up(self, limit: int) -> Sequence[Document]:
        """Return up to `limit` documents whose events the relay must still look for in the log.

        A source can stop retrying an event that is in the log. Its outbox entry is confirmed by then, so no other look
        at the log would end the dead letter.
        """
        fields = {"event_id": 1, "digest": 1, "last_at": 1}
        with driver_errors():
            found = self._dead_letters.find({"to_look_up": True}, fields).limit(limit)
            return [document async for document in found]

    async def looked_up(self, documents: Sequence[Document]) -> None:
        """Note that the relay looked for these events, unless the delivery was rejected once more since then."""
        if not documents:
            return
        newest = max(document["last_at"] for document in documents)
        unchanged = {"_id": {"$in": [document["_id"] for document in documents]}, "last_at": {"$lte": newest}}
        with driver_errors():
            await self._dead_letters.update_many(unchanged, {"$unset": {"to_look_up": True}})

    async def expire_redrives(self) -> int:
        """Change `redriving` back to `dead` after `REDRIVE_WITHIN`. Return the number of dead letters."""
        since = {"$subtract": ["$$NOW", round(REDRIVE_WITHIN.total_seconds() * 1000)]}
        late = {"state": "redriving", "$expr": {"$lt": [{"$last": "$history.at"}, since]}}
        entry = {"at": "$$NOW", "what": "lost on its way"}
        change = [{"$set": {"state": "dead", "history": _history_with(entry)}}]
        with driver_errors():
            return (await self._dead_letters.update_many(late, change)).modified_count

    async def _redriven_id(self, headers: RawHeaders, body: bytes, delivered: DeliveredEvent | None) -> UUID | None:
        """Return the id in `redriveof` if the delivery is the same. Any writer of the topic can name any id."""
        if (dead_letter_id := redriven_dead_letter_id(headers)) is None:
            return None
        kept = await self.get(dead_letter_id)
        return dead_letter_id if kept and is_same_delivery(kept, headers, body, delivered) else None

    async def _change(
        self, dead_letter_id: UUID, before: str | Document, after: str, entry: Document, only: Document | None = None
    ) -> Document | None:
        """Change the state from `before` to `after`. Return the document, or None if it does not match."""
        literals = {name: {"$literal": value} for name, value in entry.items()}
        change = [{"$set": {"state": after, "history": _history_with(literals | {"at": "$$NOW"})}}]
        matching: Document = {"_id": dead_letter_id, "state": before} | (only or {})
        with driver_errors():
            return await self._dead_letters.find_one_and_update(matching, change)


def _upsert(dead_letter: DeadLetter) -> list[Document]:
    """Return the update that inserts the dead letter, or counts a repeated delivery and decides on its state."""
    reason, detail = dead_letter.reason.title, dead_letter.reason.detail
    kept = dead_letter.kept()
    transient = reason in TRANSIENT_REASONS
    first = {
        "reason": reason,
        "detail": detail,
        "headers": [{"name": name.decode("latin-1"), "value": value} for name, value in kept.headers],
        "body": kept.body,
        **({"shortened": kept.shortened} if kept.shortened else {}),
        "sink": dead_letter.sink,
        "kafka": {"partition": dead_letter.partition, "offset": dead_letter.offset},
        "event_id": dead_letter.delivered.event_id if dead_letter.delivered else None,
        "digest": dead_letter.delivered.digest if dead_letter.delivered else None,
        "state": "dead",
        "history": [],
    }
    left_dead = {"$in": ["$state", ["redriving", "stored"]]}
    other = {"$ne": ["$reason", reason]}
    replaces = {"$and": [other, {"$in": ["$reason", list(TRANSIENT_REASONS)]}]} if transient else other
    entry = {"at": "$$NOW", "what": "failed again", "why": {"$literal": detail}}
    again = {"state": "dead", "reason": reason, "detail": {"$literal": detail}, "history": _history_with(entry)}
    look_up: Document = {"to_look_up": True} if transient and dead_letter.delivered else {}
    counted = {"last_at": "$$NOW", "times": {"$add": ["$times", 1]}, **look_up}
    return [
        {"$replaceWith": {"$mergeObjects": [{"$literal": first}, {"first_at": "$$NOW", "times": 0}, "$$ROOT"]}},
        {"$set": counted | {"dead_again": {"$or": [left_dead, replaces]}}},
        {"$set": {name: {"$cond": ["$dead_again", value, f"${name}"]} for name, value in again.items()}},
        {"$unset": "dead_again"},
    ]


def _history_with(entry: Document) -> Document:
    return {"$concatArrays": ["$history", [entry]]}
