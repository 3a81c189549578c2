"""Completeness checkpoints: recorded statements of how far the log holds every accepted event.

A checkpoint has a low watermark. Every event that was accepted before the low watermark is in `event_store`, except the
events counted as dead, conflicting, unreadable or stuck. Four rules keep a checkpoint from claiming more than is true:

1. An event with an outbox entry may be missing in the log. So the watermark stops at the `seq` of the oldest entry in
   the states `new` and `pending`.
2. An insert into `events` may have its `seq` already and become visible later. So the watermark stops at the safe time
   (`mongo/safe_time.py`).
3. Outbox entries change while a checkpoint reads. So one transaction reads everything from one majority snapshot,
   causally after the safe time.
4. A restored backup of `event_store` lacks events whose outbox entries were confirmed long ago. So checkpoints keep the
   heads of the log (`storage/log_state.py`). From the moment when the log lacks a head until `reconcile`, checkpoints
   have no watermark, the relay lets no event expire, and the feed does not answer.

`reconcile` begins a new *epoch* of the log. The feed's cursors carry the epoch, because events of a restored backup lie
behind cursors that were given out before.

No function's clock is used: `seq` and the safe time come from the server.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson.timestamp import Timestamp
from pymongo import ASCENDING, DESCENDING, WriteConcern
from pymongo.read_concern import ReadConcern

from twofold.errors import Malformed
from twofold.mongo.client import Database, Document, Session, driver_errors
from twofold.mongo.safe_time import LONGEST_INSERT, SafeTime, read_safe_time
from twofold.storage.log_state import LogState, LogStates
from twofold.storage.outbox import FINAL_STATES

MAX_COUNT = 1_000_000
"""The counts of a checkpoint end here, so a large backlog does not slow it down. This value means "or more"."""

_SEQ = Timestamp(0, 0)
"""A placeholder: the server replaces it at insert."""


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
        self._log = LogStates(database)

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

    async def record(self, retention_days: float | None = None) -> Checkpoint:
        """Record the checkpoint of this moment, and return it.

        `retention_days` is the retention of the relay that records it: see `retention_days`.
        """
        async with self._session() as session:
            document = await self._measure(session)
            kept = {"seq": _SEQ, "kind": "checkpoint", **document, "retention_days": retention_days}
            await self._checkpoints.insert_one(kept, session=session)
        return _checkpoint_in(document)

    async def retention_days(self) -> float | None:
        """Return the retention of the relay that recorded the last checkpoint. None before the first."""
        with driver_errors():
            newest = self._checkpoints.find({"kind": "checkpoint"}).sort("seq", DESCENDING).limit(1)
            last = await anext(newest, None)
        days: float | None = last["retention_days"] if last else None
        return days

    async def note_head(self) -> LogState:
        """Record the present head of the log, and return the log's state.

        The relay calls it before it confirms events, so a head at or above their `seq` is durable then.
        """
        async with self._session() as session:
            state = await self._log.read(session)
            if not state.is_known:
                await self._checkpoints.insert_one({"seq": _SEQ, "kind": "head", **state.entry()}, session=session)
            return state

    async def begin_reconciliation(self, since: datetime) -> LogState:
        """Return the state of the log before its comparison with `events`.

        Raises `Malformed` if the log lacks a document from before `since`: a comparison from there would miss it.
        """
        async with self._session() as session:
            state = await self._log.read(session)
        if state.missing_from and since > state.missing_from.as_datetime():
            from_there = state.missing_from.as_datetime().strftime("%Y-%m-%dT%H:%M:%SZ")
            raise Malformed(f"the log lacks an event that was stored at {from_there}: give this time or an earlier one")
        return state

    async def record_reconciliation(self, before: LogState, result: Document) -> None:
        """Record that `reconcile` compared the log with `events`: a new epoch of the log begins.

        `before` is the log's state at the start of the comparison. A later loss is a new regression.
        """
        async with self._session() as session:
            entry = before.next_epoch(await self._log.last(session))
            await self._checkpoints.insert_one(
                {"seq": _SEQ, "kind": "reconciliation", **entry, **result}, session=session
            )

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
        log = await self._log.read(session)
        return {
            "at": safe.now,
            "low_watermark": None if log.regressed else min(safe.safe_time, oldest or safe.safe_time),
            "stored": await self._stored_since(log.stored_to, session),
            **await self._counts(session),
            "oldest_pending": oldest,
            **log.entry(log.head["seq"] if log.head else None),
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

    async def _stored_since(self, seq: Timestamp, session: Session) -> int:
        newer = {"seq": {"$gt": seq}}
        return await self._event_store.count_documents(newer, hint="feed", limit=self._max_count, session=session)


def _checkpoint_in(document: Document) -> Checkpoint:
    fields = {name: document[name] for name in Checkpoint.__dataclass_fields__}
    for name in ("low_watermark", "oldest_pending"):
        if fields[name] is not None:
            fields[name] = fields[name].as_datetime()
    return Checkpoint(**fields)
