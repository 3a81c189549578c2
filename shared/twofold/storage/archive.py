"""`Archive`: takes an event out of `events` before its time, and keeps it with who did it, when and why.

Only what is in the log with an equal digest may go, since `events` is the one place from which an accepted event that
the log lacks can be sent again. For the same reason the archive keeps the whole document: if the log is set back to a
backup that was made before, `reconcile` finds the event here and brings it back (docs/operations.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

from pydantic import BaseModel, Field
from pymongo import DESCENDING, WriteConcern
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from twofold.errors import NotFound, NotInLog
from twofold.mongo.client import DUPLICATE_KEY, Database, Document, RawDocument, Session, driver_errors
from twofold.mongo.documents import undecoded
from twofold.mongo.insert import find_digests
from twofold.mongo.safe_time import server_time
from twofold.query.cursors import PageCursor, decode_cursor, encode_cursor, invalid_cursor

_CURSOR_KEY = b"deletions"


class Deletion(BaseModel):
    """An event that was taken out of `events`."""

    deletion_id: UUID
    event_id: UUID
    event_type: str
    deleted_at: Annotated[datetime, Field(description="by the server's clock")]
    deleted_by: Annotated[str, Field(description="the subject of the token")]
    reason: str

    @property
    def cursor(self) -> str:
        """For what is behind this one."""
        return encode_cursor(PageCursor(self.deleted_at, self.deletion_id).to_bytes(), _CURSOR_KEY)


class Deletions(BaseModel):
    """Some of the deletions, the newest first."""

    deletions: list[Deletion]
    next: Annotated[str | None, Field(description="the cursor of the next page; null: there is none")] = None


@dataclass(frozen=True, slots=True)
class ArchivedEvent:
    """What `reconcile` needs of an archived event."""

    deletion_id: UUID
    event_id: UUID
    digest: bytes
    deleted_at: datetime


class Archive:
    """The collection `archive`, which is only added to. Every method raises `Unavailable` when MongoDB is away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._events = database["events"]
        self._archive = database["archive"]

    async def delete(self, event_id: UUID, by: str, reason: str) -> Deletion:
        """Move the event from `events` to the archive, in one transaction.

        Raises `Missing` if `events` has no such event, and `NotInLog` unless the log is known to have it: the event
        carries no mark, which the transaction sees to, and the log has it with an equal digest.
        """
        at = await server_time(self._database)
        with driver_errors():
            document = await undecoded(self._events).find_one({"_id": event_id})
        if document is None:
            raise NotFound("there is no such event in `events`")
        if "outbox" in document:
            raise NotInLog("the event is not known to be in the log yet: it must stay until it is")
        if (await find_digests(self._database["event_store"], [event_id])).get(event_id) != document["digest"]:
            raise NotInLog("the log does not have this event, though it is unmarked: run `twofold reconcile`")
        deletion = Deletion(
            deletion_id=uuid4(),
            event_id=event_id,
            event_type=document["event_type"],
            deleted_at=at,
            deleted_by=by,
            reason=reason,
        )
        await self._move(deletion, document)
        return deletion

    async def _move(self, deletion: Deletion, document: RawDocument) -> None:
        kept = {"_id": deletion.deletion_id, **deletion.model_dump(exclude={"deletion_id"}), "event": document}
        unmarked = {"_id": deletion.event_id, "digest": document["digest"], "outbox": {"$exists": False}}

        async def move(session: Session) -> None:
            removed = await self._events.delete_one(unmarked, session=session)
            if removed.deleted_count == 0:
                raise NotInLog("the event was removed or marked meanwhile: look at it again")
            await self._archive.insert_one(kept, session=session)

        with driver_errors():
            async with self._database.client.start_session() as session:
                await session.with_transaction(
                    move, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
                )

    async def deletions(self, limit: int, cursor: str | None = None) -> Deletions:
        """The newest deletions, newest first, from `cursor` on. Raises `Malformed` for what is no cursor of theirs."""
        behind: Document = {}
        if cursor is not None:
            at, deletion_id = _place(cursor)
            behind = {
                "deleted_at": {"$lte": at},
                "$or": [{"deleted_at": {"$lt": at}}, {"_id": {"$lt": deletion_id}}],
            }
        with driver_errors():
            found = self._archive.find(behind, {"event": 0}, hint="newest")
            found = found.sort([("deleted_at", DESCENDING), ("_id", DESCENDING)]).limit(limit + 1)
            listed = [Deletion(deletion_id=document.pop("_id"), **document) async for document in found]
        return Deletions(deletions=listed[:limit], next=listed[limit - 1].cursor if len(listed) > limit else None)

    async def after(self, deletion_id: UUID | None, limit: int) -> list[ArchivedEvent]:
        """The next `limit` archived events by the id of their deletion. For going through all in pieces."""
        needed = {"event_id": 1, "event.digest": 1, "deleted_at": 1}
        with driver_errors():
            found = self._archive.find({"_id": {"$gt": deletion_id}} if deletion_id else {}, needed).sort("_id", 1)
            return [
                ArchivedEvent(
                    document["_id"], document["event_id"], document["event"]["digest"], document["deleted_at"]
                )
                async for document in found.limit(limit)
            ]

    async def bring_back(self, deletion_ids: Sequence[UUID]) -> int:
        """Put archived events into `events` again, marked and due, as accepted when they were. Returns how many.

        One that is there again already is let alone. The archive stays as it is.
        """
        if not deletion_ids:
            return 0
        mark = {"state": "pending", "tries": 0, "next_try": await server_time(self._database) - timedelta(seconds=1)}
        with driver_errors():
            found = undecoded(self._archive).find({"_id": {"$in": list(deletion_ids)}}, {"event": 1})
            documents = {
                document["event"]["_id"]: _without(document["event"], "expires_at") | {"outbox": mark}
                async for document in found
            }
            try:
                await self._events.insert_many(documents.values(), ordered=False)
            except BulkWriteError as error:
                failed = error.details["writeErrors"]
                if error.details["writeConcernErrors"] or any(one["code"] != DUPLICATE_KEY for one in failed):
                    raise
                return len(documents) - len(failed)
        return len(documents)


def _without(document: RawDocument, name: str) -> Document:
    return {field: value for field, value in document.items() if field != name}


def _place(cursor: str) -> PageCursor:
    try:
        return PageCursor.from_bytes(decode_cursor(cursor, _CURSOR_KEY))
    except ValueError:
        raise invalid_cursor() from None
