"""Completeness: what can be said, at any time, of how far the log holds everything that was accepted.

A checkpoint must never say more than is true, so it stands on no function's clock. Time is the server's cluster time,
and an event's `seq` is given by the server at insert. Whatever was accepted with a `seq` below the checkpoint's has been
read back from `event_store`, for three reasons:

- all that it says is read from one majority snapshot, which is causally after the moment that it speaks of: a mark that
  changes its state meanwhile, or a `reconcile` that ends, is seen as it was or as it is, never in between;
- an insert gets its `seq` when it is carried out, and can commit only within its `maxTimeMS`; the checkpoint stays that
  much below the snapshot, so no insert from before it can still appear (`mongo.settled`);
- the newest document that the last checkpoint saw in the log must still be there. If it isn't, the log was set back (a
  backup was restored), and nothing is stated until `reconcile` has run.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson.timestamp import Timestamp
from pymongo import ASCENDING, DESCENDING, WriteConcern
from pymongo.read_concern import ReadConcern

from twofold.mongo.client import Collection, Database, Document, Session, driver_errors
from twofold.mongo.safe_time import SafeTime, read_safe_time

COUNTED_UP_TO = 1_000_000
"""No more are counted of a kind, so that a backlog of any size leaves a checkpoint its time: then there are this many or
more."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What holds at `at` (the server's clock)."""

    at: datetime
    low_watermark: datetime | None
    """Every event that was accepted before this moment, by the server's clock, is in the log, but for those counted as
    dead, conflicting or unreadable. None if the log was set back."""
    stored: int
    """Events that came into the log since the last checkpoint. This count and those below end at `COUNTED_UP_TO`."""
    pending: int
    """Accepted events that are not known to be in the log, and will be tried again."""
    dead: int
    conflicting: int
    unreadable: int
    oldest_pending: datetime | None
    """When the oldest pending event was accepted, by the server's clock."""
    log_regressed: bool
    """The log lacks what it had at the last checkpoint: run `twofold reconcile`."""


_NOTHING = Timestamp(0, 0)


_ENTRY = {"kind": {"$in": ["checkpoint", "reconciliation"]}}


class Checkpoints:
    """The append-only collection `checkpoints`. Every method raises `Unavailable` when MongoDB is away."""

    def __init__(self, database: Database, longest_insert: timedelta, counted_up_to: int = COUNTED_UP_TO) -> None:
        self._database = database
        self._checkpoints = database["checkpoints"]
        self._longest_insert = longest_insert
        self._counted_up_to = counted_up_to

    async def last(self) -> Checkpoint | None:
        """The newest checkpoint."""
        document = await self._newest({"kind": "checkpoint"})
        return _checkpoint_in(document) if document else None

    async def list(self, limit: int) -> list[Checkpoint]:
        """The newest checkpoints, newest first."""
        with driver_errors():
            newest = self._checkpoints.find({"kind": "checkpoint"}).sort("seq", DESCENDING).limit(limit)
            return [_checkpoint_in(document) async for document in newest]

    async def find_out(self) -> Checkpoint:
        """Find out what holds, without writing it down."""
        async with self._session() as session:
            return _checkpoint_in(await self._document(session))

    async def record(self) -> Checkpoint:
        """Find out what holds, write it down, and return it."""
        async with self._session() as session:
            document = await self._document(session)
            await self._checkpoints.insert_one({"seq": _NOTHING, "kind": "checkpoint", **document}, session=session)
        return _checkpoint_in(document)

    async def record_reconciliation(self, done: Document) -> None:
        """Write down that the log was compared with `events`: checkpoints may trust the log again as it is."""
        async with self._session() as session:
            head = await self._log_head(session)
            entry = {"seq": _NOTHING, "kind": "reconciliation", "log_head": head, **done}
            await self._checkpoints.insert_one(entry, session=session)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        with driver_errors():
            async with self._database.client.start_session(causal_consistency=True) as session:
                yield session

    async def _document(self, session: Session) -> Document:
        """What holds. Committed with majority concern, all reads of a transaction are of one majority snapshot:
        https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/
        """
        settled = await read_safe_time(session, self._longest_insert)
        async with await session.start_transaction(ReadConcern("snapshot"), WriteConcern("majority")):
            return await self._seen(session, settled)

    async def _seen(self, session: Session, settled: SafeTime) -> Document:
        oldest = await self._oldest_pending(session)
        last = await self._newest(_ENTRY, session)
        before = last["log_head"] if last else None
        log_regressed = await self._has_regressed(last, session)
        head = await self._log_head(session)
        return {
            "at": settled.at,
            "low_watermark": None if log_regressed else min(settled.up_to, oldest or settled.up_to),
            "stored": await self._stored_since(before, session),
            **await self._counts(session),
            "oldest_pending": oldest,
            "log_regressed": log_regressed,
            "log_head": before if log_regressed else head,
        }

    async def _oldest_pending(self, session: Session) -> Timestamp | None:
        """The `seq` of the oldest event whose mark will be tried again."""
        oldest: list[Timestamp] = []
        for state in ("new", "pending"):
            marked = self._database["events"].find({"outbox.state": state}, {"seq": 1}, session=session)
            oldest += [document["seq"] async for document in marked.hint("outbox").sort("seq", ASCENDING).limit(1)]
        return min(oldest, default=None)

    async def _counts(self, session: Session) -> Document:
        marks = self._database["events"]
        count = {
            state: await self._count(marks, {"outbox.state": state}, "outbox", session)
            for state in ("new", "pending", "dead", "conflicting", "unreadable")
        }
        count["pending"] = min(count["pending"] + count.pop("new"), self._counted_up_to)
        return count

    async def _count(self, collection: Collection, filter_: Document, index: str, session: Session) -> int:
        return await collection.count_documents(filter_, hint=index, limit=self._counted_up_to, session=session)

    async def _log_head(self, session: Session) -> Document | None:
        newest = self._database["event_store"].find({}, {"seq": 1}, session=session).sort("seq", DESCENDING).limit(1)
        async for document in newest:
            return document
        return None

    async def _has_regressed(self, last: Document | None, session: Session) -> bool:
        if last is None or last["log_head"] is None:
            return False
        there = await self._database["event_store"].find_one(
            {"_id": last["log_head"]["_id"]}, {"_id": 1}, session=session
        )
        return there is None

    async def _stored_since(self, head: Document | None, session: Session) -> int:
        since = {"seq": {"$gt": head["seq"] if head else _NOTHING}}
        return await self._count(self._database["event_store"], since, "feed", session)

    async def _newest(self, filter_: Document, session: Session | None = None) -> Document | None:
        with driver_errors():
            async for document in self._checkpoints.find(filter_, session=session).sort("seq", DESCENDING).limit(1):
                return document
        return None


def _checkpoint_in(document: Document) -> Checkpoint:
    fields = {name: document[name] for name in Checkpoint.__dataclass_fields__}
    for name in ("low_watermark", "oldest_pending"):
        if fields[name] is not None:
            fields[name] = fields[name].as_datetime()
    return Checkpoint(**fields)
