"""Completeness checkpoints: recorded statements of how far the log holds every accepted event.

A checkpoint has a low watermark. Every event that was accepted before the low watermark is in `event_store`, except the
events counted as dead, conflicting, unreadable or stuck. Five rules keep a checkpoint from claiming more than is true:

1. An event with an outbox entry may be missing in the log. So the watermark stops at the `seq` of the oldest entry in
   the states `new` and `pending`.
2. An insert into `events` may have its `seq` already and become visible later. So the watermark stops at the safe time
   (`mongo/safe_time.py`).
3. Outbox entries change while a checkpoint reads. So one transaction reads everything from one majority snapshot,
   causally after the safe time.
4. A restored backup of `event_store` lacks events whose outbox entries were confirmed long ago. So each checkpoint
   records the head of the log, its newest document, and keeps the heads of many earlier checkpoints. All of them must
   be in the log with the recorded `seq`. If one is missing, or was stored again with another `seq`, the log has
   regressed. Many heads also show a hole in the middle of the log.
5. The symptom can go away while the damage stays: the relay may store the missing head again. So a regression lasts
   until `reconcile` has compared the log with `events`. Until then, checkpoints have no watermark, the relay lets no
   event expire, and the feed does not answer.

`reconcile` begins a new *epoch* of the log. The feed's cursors carry the epoch, because events of a restored backup lie
behind cursors that were given out before.

No function's clock is used: `seq` and the safe time come from the server.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson.timestamp import Timestamp
from pymongo import ASCENDING, DESCENDING, WriteConcern
from pymongo.read_concern import ReadConcern

from twofold.mongo.client import Database, Document, Session, driver_errors
from twofold.mongo.safe_time import LONGEST_INSERT, SafeTime, read_safe_time
from twofold.storage.outbox import FINAL_STATES

MAX_COUNT = 1_000_000
"""The counts of a checkpoint end here, so a large backlog does not slow it down. This value means "or more"."""

_SEQ = Timestamp(0, 0)
"""A placeholder: the server replaces it at insert. It is also lower than every real `seq`."""

MAX_HEADS = 32
"""The number of heads in a checkpoint. Older heads are thinned out: a head of last year covers days, a new one a minute."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The completeness of the log at a moment."""

    at: datetime
    """The moment, by the server's clock."""
    low_watermark: datetime | None
    """Every event that was accepted before this moment, by the server's clock, is in the log, except those counted as
    dead, conflicting, unreadable or stuck. None if the log regressed."""
    stored: int
    """New events in the log since the last checkpoint. This count and the counts below end at `MAX_COUNT`."""
    pending: int
    """Accepted events that are not yet known to be in the log. The relay tries them again."""
    dead: int
    conflicting: int
    unreadable: int
    stuck: int
    """Accepted events that were sent again `RELAY_MAX_TRIES` times in vain."""
    oldest_pending: datetime | None
    """The time when the oldest pending event was accepted, by the server's clock."""
    log_regressed: bool
    """The log lacks a head of an earlier checkpoint, and no `twofold reconcile` has run since."""


@dataclass(frozen=True, slots=True)
class LogState:
    """The state of the log since the last checkpoint or reconciliation."""

    epoch: int
    """The number of reconciliations so far."""
    heads: Sequence[Document]
    """`_id` and `seq` of the heads of earlier checkpoints, oldest first."""
    regressed: bool

    def heads_with(self, head: Document | None) -> Sequence[Document]:
        """Return the heads with a new one, thinned out to `MAX_HEADS`. A regressed log keeps its heads."""
        if head is None or self.regressed or head in self.heads:
            return self.heads
        heads = [*self.heads, head]
        if len(heads) <= MAX_HEADS:
            return heads
        half = MAX_HEADS // 2
        return heads[:half:2] + heads[half:]


class Checkpoints:
    """The append-only collection `checkpoints`. Every method raises `Unavailable` when MongoDB is unavailable."""

    def __init__(
        self, database: Database, longest_insert: timedelta = LONGEST_INSERT, max_count: int = MAX_COUNT
    ) -> None:
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
        """Record that `reconcile` compared the log with `events`: a new epoch of the log begins with its present head."""
        async with self._session() as session:
            last = await self._last(session)
            head = await self._log_head(session)
            entry = {
                "seq": _SEQ,
                "kind": "reconciliation",
                "epoch": (last["epoch"] if last else 0) + 1,
                "heads": [head] if head else [],
                "log_regressed": False,
                **result,
            }
            await self._checkpoints.insert_one(entry, session=session)

    async def log_state(self, session: Session) -> LogState:
        """Return the state of the log, as the reads of `session` see it. Raises the driver's errors."""
        last = await self._last(session)
        if last is None:
            return LogState(0, [], regressed=False)
        heads = last["heads"]
        found = self._event_store.find({"_id": {"$in": [head["_id"] for head in heads]}}, {"seq": 1}, session=session)
        seq_of = {document["_id"]: document["seq"] async for document in found}
        missing = any(seq_of.get(head["_id"]) != head["seq"] for head in heads)
        return LogState(last["epoch"], heads, regressed=last["log_regressed"] or missing)

    async def has_regressed(self) -> bool:
        """Return True if the log has regressed, and no `reconcile` has run since."""
        async with self._session() as session:
            return (await self.log_state(session)).regressed

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
        log = await self.log_state(session)
        return {
            "at": safe.now,
            "low_watermark": None if log.regressed else min(safe.safe_time, oldest or safe.safe_time),
            "stored": await self._stored_since(log.heads[-1] if log.heads else None, session),
            **await self._counts(session),
            "oldest_pending": oldest,
            "log_regressed": log.regressed,
            "epoch": log.epoch,
            "heads": log.heads_with(await self._log_head(session)),
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
            for state in ("new", "pending", *FINAL_STATES)
        }
        counts["pending"] = min(counts["pending"] + counts.pop("new"), self._max_count)
        return counts

    async def _stored_since(self, head: Document | None, session: Session) -> int:
        newer = {"seq": {"$gt": head["seq"] if head else _SEQ}}
        return await self._event_store.count_documents(newer, hint="feed", limit=self._max_count, session=session)

    async def _last(self, session: Session) -> Document | None:
        """Return the newest entry of the newest epoch.

        A relay may record a checkpoint while `reconcile` ends. That checkpoint belongs to the old epoch.
        """
        newest = [("epoch", DESCENDING), ("seq", DESCENDING)]
        async for entry in self._checkpoints.find({}, session=session).sort(newest).limit(1):
            return entry
        return None

    async def _log_head(self, session: Session) -> Document | None:
        """Return `_id` and `seq` of the newest document in the log."""
        async for document in self._event_store.find({}, {"seq": 1}, session=session).sort("seq", DESCENDING).limit(1):
            return document
        return None


def _checkpoint_in(document: Document) -> Checkpoint:
    fields = {name: document[name] for name in Checkpoint.__dataclass_fields__}
    for name in ("low_watermark", "oldest_pending"):
        if fields[name] is not None:
            fields[name] = fields[name].as_datetime()
    return Checkpoint(**fields)
