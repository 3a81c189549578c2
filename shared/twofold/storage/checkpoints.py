"""Completeness checkpoints: recorded statements of how far the log holds every accepted event.

A checkpoint has a low watermark. Every event that was accepted before the low watermark is in `event_store`, except the
events counted as dead, conflicting or unreadable. Four rules keep a checkpoint from claiming more than is true:

1. An event with an outbox entry may be missing in the log. So the watermark stops at the `seq` of the oldest entry in
   the states `new` and `pending`.
2. An insert into `events` may have its `seq` already and become visible later. So the watermark stops at the safe time
   (`mongo/safe_time.py`).
3. Outbox entries change while a checkpoint reads. So one transaction reads everything from one majority snapshot,
   causally after the safe time.
4. A restored backup of `event_store` lacks events whose outbox entries were confirmed long ago. So each checkpoint
   records the head of the log: its newest document. When the recorded head is missing, the log has regressed. Then a
   checkpoint has no watermark until `reconcile` has compared the log with `events`.

No function's clock is used: `seq` and the safe time come from the server.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson.timestamp import Timestamp
from pymongo import ASCENDING, DESCENDING, WriteConcern
from pymongo.read_concern import ReadConcern

from twofold.mongo.client import Database, Document, Session, driver_errors
from twofold.mongo.safe_time import SafeTime, read_safe_time

MAX_COUNT = 1_000_000
"""The counts of a checkpoint end here, so a large backlog does not slow it down. This value means "or more"."""

_SEQ = Timestamp(0, 0)
"""A placeholder: the server replaces it at insert. It is also lower than every real `seq`."""

_WITH_LOG_HEAD = {"kind": {"$in": ["checkpoint", "reconciliation"]}}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The completeness of the log at a moment."""

    at: datetime
    """The moment, by the server's clock."""
    low_watermark: datetime | None
    """Every event that was accepted before this moment, by the server's clock, is in the log, except those counted as
    dead, conflicting or unreadable. None if the log regressed."""
    stored: int
    """New events in the log since the last checkpoint. This count and the counts below end at `MAX_COUNT`."""
    pending: int
    """Accepted events that are not yet known to be in the log. The relay tries them again."""
    dead: int
    conflicting: int
    unreadable: int
    oldest_pending: datetime | None
    """The time when the oldest pending event was accepted, by the server's clock."""
    log_regressed: bool
    """The log lacks its head of the last checkpoint: run `twofold reconcile`."""


class Checkpoints:
    """The append-only collection `checkpoints`. Every method raises `Unavailable` when MongoDB is unavailable."""

    def __init__(self, database: Database, longest_insert: timedelta, max_count: int = MAX_COUNT) -> None:
        self._client = database.client
        self._checkpoints = database["checkpoints"]
        self._events = database["events"]
        self._event_store = database["event_store"]
        self._longest_insert = longest_insert
        self._max_count = max_count

    async def last(self) -> Checkpoint | None:
        """Return the newest checkpoint; None before the first."""
        return next(iter(await self.list(1)), None)

    async def list(self, limit: int) -> list[Checkpoint]:
        """Return the newest checkpoints, newest first."""
        with driver_errors():
            newest = self._checkpoints.find({"kind": "checkpoint"}).sort("seq", DESCENDING).limit(limit)
            return [_checkpoint_in(document) async for document in newest]

    async def measure(self) -> Checkpoint:
        """Return the checkpoint of this moment without recording it."""
        async with self._session() as session:
            return _checkpoint_in(await self._measure(session))

    async def record(self) -> Checkpoint:
        """Record the checkpoint of this moment, and return it."""
        async with self._session() as session:
            document = await self._measure(session)
            await self._checkpoints.insert_one({"seq": _SEQ, "kind": "checkpoint", **document}, session=session)
        return _checkpoint_in(document)

    async def record_reconciliation(self, result: Document) -> None:
        """Record that `reconcile` compared the log with `events`. The log's present head is trusted from now on."""
        async with self._session() as session:
            head = await self._log_head(session)
            entry = {"seq": _SEQ, "kind": "reconciliation", "log_head": head, **result}
            await self._checkpoints.insert_one(entry, session=session)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        with driver_errors():
            async with self._client.start_session(causal_consistency=True) as session:
                yield session

    async def _measure(self, session: Session) -> Document:
        """Read the document of a checkpoint in one transaction, whose snapshot is causally after the safe time.

        With a majority commit, a transaction's reads come from one snapshot of majority-committed data:
        https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/
        """
        safe = await read_safe_time(session, self._longest_insert)
        async with await session.start_transaction(ReadConcern("snapshot"), WriteConcern("majority")):
            return await self._read(session, safe)

    async def _read(self, session: Session, safe: SafeTime) -> Document:
        oldest = await self._oldest_pending(session)
        last_head = await self._last_head(session)
        log_regressed = last_head is not None and not await self._is_in_log(last_head, session)
        head = await self._log_head(session)
        return {
            "at": safe.now,
            "low_watermark": None if log_regressed else min(safe.safe_time, oldest or safe.safe_time),
            "stored": await self._stored_since(last_head, session),
            **await self._counts(session),
            "oldest_pending": oldest,
            "log_regressed": log_regressed,
            "log_head": last_head if log_regressed else head,
        }

    async def _oldest_pending(self, session: Session) -> Timestamp | None:
        """Return the lowest `seq` of the outbox entries that the relay will try again."""
        oldest: list[Timestamp] = []
        for state in ("new", "pending"):
            found = self._events.find({"outbox.state": state}, {"seq": 1}, session=session)
            oldest += [document["seq"] async for document in found.hint("outbox").sort("seq", ASCENDING).limit(1)]
        return min(oldest, default=None)

    async def _counts(self, session: Session) -> Document:
        counts = {
            state: await self._events.count_documents(
                {"outbox.state": state}, hint="outbox", limit=self._max_count, session=session
            )
            for state in ("new", "pending", "dead", "conflicting", "unreadable")
        }
        counts["pending"] = min(counts["pending"] + counts.pop("new"), self._max_count)
        return counts

    async def _stored_since(self, head: Document | None, session: Session) -> int:
        newer = {"seq": {"$gt": head["seq"] if head else _SEQ}}
        return await self._event_store.count_documents(newer, hint="feed", limit=self._max_count, session=session)

    async def _last_head(self, session: Session) -> Document | None:
        """Return the log's head as the last checkpoint or reconciliation recorded it."""
        async for entry in self._checkpoints.find(_WITH_LOG_HEAD, session=session).sort("seq", DESCENDING).limit(1):
            head: Document | None = entry["log_head"]
            return head
        return None

    async def _log_head(self, session: Session) -> Document | None:
        """Return `_id` and `seq` of the newest document in the log."""
        async for document in self._event_store.find({}, {"seq": 1}, session=session).sort("seq", DESCENDING).limit(1):
            return document
        return None

    async def _is_in_log(self, head: Document, session: Session) -> bool:
        return await self._event_store.find_one({"_id": head["_id"]}, {"_id": 1}, session=session) is not None


def _checkpoint_in(document: Document) -> Checkpoint:
    fields = {name: document[name] for name in Checkpoint.__dataclass_fields__}
    for name in ("low_watermark", "oldest_pending"):
        if fields[name] is not None:
            fields[name] = fields[name].as_datetime()
    return Checkpoint(**fields)
