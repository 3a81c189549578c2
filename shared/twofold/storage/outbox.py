"""The outbox: an entry in an `events` document, as long as the event is not yet known to be in the log.

One atomic insert makes the event and its outbox entry, so no event can be in `events` without being sent. The relay
removes the entry when it has read the event back from `event_store` with an equal digest: `confirm`. Only then does
the document get `expires_at`, and its retention starts. An entry has one of these states:

| state | meaning | next |
|---|---|---|
| `new` | Inserted, and not looked for yet. The relay looks some seconds after its `seq`. | `confirm`, or `pending` |
| `pending` | Sent again `tries` times, last at `sent_at`. The relay looks again at `next_try`. | `confirm`, or final |
| `dead` | `store` keeps the event as a dead letter. | `retry` |
| `conflicting` | The log has another event under this id. | `retry` |
| `unreadable` | The document was changed in the database. | `retry` |
| `stuck` | Sent again `RELAY_MAX_TRIES` times, and neither the log nor the dead letters have the event. | `retry` |

The last four states are final: the relay does not try again, and an operator must look (`twofold outbox list`). All
times are the server's, so no publisher's clock matters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from bson.timestamp import Timestamp
from pymongo import ASCENDING

from twofold.errors import DigestMismatch, Invalid, Rejected, TwofoldError, Unavailable
from twofold.event.metadata import Metadata
from twofold.event.model import Event
from twofold.mongo.client import Database, Document, RawDocument, driver_errors
from twofold.mongo.documents import event_of, undecoded

BACK_OFF = timedelta(minutes=1)
"""The default time between the first resending and the next look."""
LONGEST_BACK_OFF = 60
"""The longest back-off, as a multiple of the first."""

FinalState = Literal["dead", "conflicting", "unreadable", "stuck"]
FINAL_STATES: tuple[FinalState, ...] = ("dead", "conflicting", "unreadable", "stuck")

NEW_ENTRY = {"state": "new", "tries": 0}
"""The outbox entry of a new event."""

_FIELDS = {"id": 1, "digest": 1, "seq": 1, "outbox": 1, "aggregate_id": 1}
_KNOWN_FIELDS = {*("_id", "digest", "stored_at", "seq", "outbox", "expires_at", "confirmed_at"), *Event.model_fields}


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An event with an outbox entry, and the time of its last sending by the server's clock."""

    event_id: UUID
    digest: bytes
    sent_at: datetime
    tries: int
    key: bytes
    """The key of the event's Kafka record."""


class Outbox:
    """The outbox entries in `events`. Every method raises `Unavailable` when MongoDB is unavailable."""

    def __init__(self, database: Database, back_off: timedelta = BACK_OFF) -> None:
        self._events = database["events"]
        self._back_off_ms = round(back_off.total_seconds() * 1000)

    async def due(self, now: datetime, first_look: timedelta, limit: int) -> list[OutboxEntry]:
        """Return up to `limit` entries that are due at `now`, the server's time: tried entries first, then new ones.

        A new entry is due `first_look` after its insert.
        """
        tried = self._events.find({"outbox.next_try": {"$lte": now}}, _FIELDS).sort("outbox.next_try", 1).limit(limit)
        until = Timestamp(int((now - first_look).timestamp()), 0)
        new = self._events.find({"outbox.state": "new", "seq": {"$lt": until}}, _FIELDS).sort("seq", 1)
        with driver_errors():
            entries = [_entry_in(document) async for document in tried]
            if len(entries) < limit:
                entries += [_entry_in(document) async for document in new.limit(limit - len(entries))]
        return entries

    async def sizes(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        """Return the bytes in MongoDB of existing events."""
        if not ids:
            return {}
        with driver_errors():
            found = self._events.find({"_id": {"$in": list(ids)}}, {"size": {"$bsonSize": "$$ROOT"}})
            return {document["_id"]: document["size"] async for document in found}

    async def in_state(self, state: FinalState, limit: int) -> list[Document]:
        """Return events in a final state, the oldest first: id, type, source, `seq` as `accepted_at`, and `outbox`."""
        fields = {"event_type": 1, "source": "$metadata.service_name", "outbox": 1, "seq": 1}
        with driver_errors():
            found = self._events.find({"outbox.state": state}, fields).hint("outbox").sort("seq", 1).limit(limit)
            return [document | {"accepted_at": document.pop("seq").as_datetime()} async for document in found]

    async def load(self, ids: Sequence[UUID]) -> dict[UUID, Event | TwofoldError]:
        """Return existing events. An event that was changed in the database gives the error instead."""
        with driver_errors():
            found = undecoded(self._events).find({"_id": {"$in": list(ids)}})
            return {document["_id"]: _intact_event(document) async for document in found}

    async def confirm(self, ids: Sequence[UUID], retention: timedelta) -> int:
        """Remove the entries of events that the log has, and start their retention. Return the number of entries.

        `confirmed_at` keeps the time for `reconcile`.
        """
        expires_at = {"$add": ["$$NOW", round(retention.total_seconds() * 1000)]}
        confirmed = {"confirmed_at": "$$NOW", "expires_at": expires_at}
        return await self._update(ids, [{"$set": confirmed}, {"$unset": "outbox"}])

    async def postpone(self, ids: Sequence[UUID]) -> int:
        """Count a try. A wait is twice the wait before, up to 60 times the first wait."""
        doubled = {"$multiply": [self._back_off_ms, {"$pow": [2, {"$min": ["$outbox.tries", 10]}]}]}
        entry = {
            "state": "pending",
            "tries": {"$add": ["$outbox.tries", 1]},
            "sent_at": "$$NOW",
            "next_try": {"$add": ["$$NOW", {"$min": [LONGEST_BACK_OFF * self._back_off_ms, doubled]}]},
        }
        return await self._update(ids, [{"$set": {"outbox": entry}}])

    async def uncount_try(self, ids: Sequence[UUID]) -> int:
        """Take back a counted try that Kafka did not accept. Look again after the first back-off."""
        again = {
            "tries": {"$max": [0, {"$subtract": ["$outbox.tries", 1]}]},
            "next_try": {"$add": ["$$NOW", self._back_off_ms]},
        }
        return await self._update(ids, [{"$set": {"outbox": again}}])

    async def make_due(self, now: datetime, limit: int) -> int:
        """Make up to `limit` tried entries due at `now`, the server's time. Return their number: 0 if all are due."""
        return await self._change("outbox.next_try", {"$gt": now}, now, limit)

    async def defer_expiry(self, before: datetime, until: datetime, limit: int) -> int:
        """Keep up to `limit` events that would expire before `before` until `until`. Return their number."""
        return await self._change("expires_at", {"$lt": before}, until, limit)

    async def _change(self, field: str, bounds: Document, value: datetime, limit: int) -> int:
        """Set a date in up to `limit` documents whose date is within `bounds`, the earliest first.

        One update of them all would outlast its time limit if they are many.
        """
        within = {field: bounds}
        with driver_errors():
            found = self._events.find(within, {"_id": 1}).sort(field, ASCENDING).limit(limit)
            ids = [document["_id"] async for document in found]
            if not ids:
                return 0
            result = await self._events.update_many({"_id": {"$in": ids}, **within}, {"$set": {field: value}})
        return result.modified_count

    async def hold(self, ids: Sequence[UUID]) -> int:
        """Look again after the first back-off, without counting a try: the records may still be in Kafka."""
        later = {"state": "pending", "next_try": {"$add": ["$$NOW", self._back_off_ms]}}
        return await self._update(ids, [{"$set": {"outbox": later}}])

    async def stop_retrying(self, ids: Sequence[UUID], state: FinalState) -> int:
        """Keep the entries in the final `state`: the events are not in the log, and the relay does not try again."""
        return await self._update(ids, [{"$set": {"outbox.state": state}}, {"$unset": "outbox.next_try"}])

    async def retry(self, ids: Sequence[UUID]) -> int:
        """Make entries in a final state pending again, after the first back-off and with no try counted."""
        final = {"_id": {"$in": list(ids)}, "outbox.state": {"$in": list(FINAL_STATES)}}
        again = {"state": "pending", "tries": 0, "next_try": {"$add": ["$$NOW", self._back_off_ms]}}
        with driver_errors():
            result = await self._events.update_many(final, [{"$set": {"outbox": again}}])
        return result.modified_count

    async def reopen(self, ids: Sequence[UUID]) -> int:
        """Give events a new entry that is due now: they do not expire any more, and the relay sends them."""
        due: list[Document] = [
            {"$set": {"outbox": {"state": "pending", "tries": 0, "next_try": "$$NOW"}}},
            {"$unset": ["expires_at", "confirmed_at"]},
        ]
        if not ids:
            return 0
        with driver_errors():
            result = await self._events.update_many({"_id": {"$in": list(ids)}}, due)
        return result.modified_count

    async def _update(self, ids: Sequence[UUID], pipeline: list[Document]) -> int:
        if not ids:
            return 0
        with_entry: dict[str, Any] = {"_id": {"$in": list(ids)}, "outbox": {"$exists": True}}
        with driver_errors():
            result = await self._events.update_many(with_entry, pipeline)
        return result.modified_count


def _intact_event(document: RawDocument) -> Event | TwofoldError:
    """Return the event, or the error that forbids to send it.

    The digest of a changed event would vouch for the change, so it is never sent. A document with unknown fields comes
    from a newer version of Twofold, and waits for a relay of that version.
    """
    metadata = document.get("metadata")
    unknown = {*document} - _KNOWN_FIELDS
    if isinstance(metadata, Mapping):
        unknown |= {*metadata} - Metadata.model_fields.keys()
    if unknown:
        return Unavailable(f"a newer version of Twofold wrote the fields {', '.join(sorted(unknown))}")
    try:
        event = event_of(document)
    except Rejected as error:
        return error
    if event.order is None:
        return Invalid("is missing: the document was changed in the database", "order")
    if event.digest != document.get("digest"):
        return DigestMismatch("the document was changed in the database: its digest belongs to another event")
    return event


def _entry_in(document: Document) -> OutboxEntry:
    sent_at = document["outbox"].get("sent_at") or document["seq"].as_datetime()
    key = document.get("aggregate_id") or document.get("id", "")
    digest = document.get("digest", b"")  # a document without a digest was changed in the database
    return OutboxEntry(document["_id"], digest, sent_at, document["outbox"].get("tries", 0), str(key).encode())
