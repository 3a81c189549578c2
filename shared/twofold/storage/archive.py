"""The collection `archive`: events that an admin deleted from `events`, with name, time and reason.

An event can be deleted only if the log has it with an equal digest, because `events` is the source for sending an event
again. For the same reason the archive keeps the whole document. After the restore of an older backup the log may lack a
deleted event. Then `reconcile` finds it here and restores it to `events` (docs/operations.md).
"""

import struct
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
from twofold.event.time import EARLIEST
from twofold.mongo.client import DUPLICATE_KEY, Database, Document, RawDocument, Session, driver_errors
from twofold.mongo.documents import undecoded
from twofold.mongo.insert import find_digests
from twofold.mongo.safe_time import server_time
from twofold.query.cursors import decode_cursor, encode_cursor, invalid_cursor

_CURSOR_KEY = b"deletions"
_CURSOR = struct.Struct(">q16s")
"""A cursor: milliseconds since 1970, then the deletion's id."""
_MILLISECOND = timedelta(milliseconds=1)


class Deletion(BaseModel):
    """A deletion from `events`."""

    deletion_id: UUID
    event_id: UUID
    event_type: str
    deleted_at: Annotated[datetime, Field(description="by the server's clock")]
    deleted_by: Annotated[str, Field(description="the subject of the token")]
    reason: str

    @property
    def cursor(self) -> str:
        """The cursor of the deletions after this deletion."""
        milliseconds = (self.deleted_at - EARLIEST) // _MILLISECOND
        return encode_cursor(_CURSOR.pack(milliseconds, self.deletion_id.bytes), _CURSOR_KEY)


class Deletions(BaseModel):
    """A page of deletions, newest first."""

    deletions: list[Deletion]
    next: Annotated[str | None, Field(description="the cursor of the next page; null on the last page")] = None


@dataclass(frozen=True, slots=True)
class ArchivedEvent:
    """The fields of an archived event for `reconcile`."""

    deletion_id: UUID
    event_id: UUID
    digest: bytes
    deleted_at: datetime


class Archive:
    """The append-only archive. Every method raises `Unavailable` when MongoDB is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._events = database["events"]
        self._archive = database["archive"]

    async def delete(self, event_id: UUID, by: str, reason: str) -> Deletion:
        """Move the event from `events` to the archive, in one transaction.

        Raises `NotFound` for an unknown event, and `NotInLog` for an event with an outbox entry, or without an equal
        digest in the log. The transaction checks the outbox entry once more.
        """
        at = await server_time(self._database)
        with driver_errors():
            document = await undecoded(self._events).find_one({"_id": event_id})
        if document is None:
            raise NotFound("`events` has no event with this id")
        if "outbox" in document:
            raise NotInLog("the log may lack the event: try again when the relay has confirmed its outbox entry")
        if (await find_digests(self._database["event_store"], [event_id])).get(event_id) != document["digest"]:
            raise NotInLog("the log lacks this event although it has no outbox entry: run `twofold reconcile`")
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
        confirmed = {"_id": deletion.event_id, "digest": document["digest"], "outbox": {"$exists": False}}

        async def move(session: Session) -> None:
            removed = await self._events.delete_one(confirmed, session=session)
            if removed.deleted_count == 0:
                raise NotInLog("the event was changed or removed at the same time: try again")
            await self._archive.insert_one(kept, session=session)

        with driver_errors():
            async with self._database.client.start_session() as session:
                await session.with_transaction(
                    move, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
                )

    async def deletions(self, limit: int, cursor: str | None = None) -> Deletions:
        """Return the deletions after `cursor`, newest first. Raises `Malformed` for an invalid cursor."""
        after: Document = {}
        if cursor is not None:
            at, deletion_id = _decode(cursor)
            after = {
                "deleted_at": {"$lte": at},
                "$or": [{"deleted_at": {"$lt": at}}, {"_id": {"$lt": deletion_id}}],
            }
        with driver_errors():
            found = self._archive.find(after, {"event": 0}, hint="newest")
            found = found.sort([("deleted_at", DESCENDING), ("_id", DESCENDING)]).limit(limit + 1)
            listed = [Deletion(deletion_id=document.pop("_id"), **document) async for document in found]
        return Deletions(deletions=listed[:limit], next=listed[limit - 1].cursor if len(listed) > limit else None)

    async def after(self, deletion_id: UUID | None, limit: int) -> list[ArchivedEvent]:
        """Return the next `limit` archived events in the order of their deletion ids."""
        fields = {"event_id": 1, "event.digest": 1, "deleted_at": 1}
        with driver_errors():
            found = self._archive.find({"_id": {"$gt": deletion_id}} if deletion_id else {}, fields).sort("_id", 1)
            return [
                ArchivedEvent(
                    document["_id"], document["event_id"], document["event"]["digest"], document["deleted_at"]
                )
                async for document in found.limit(limit)
            ]

    async def bring_back(self, deletion_ids: Sequence[UUID]) -> int:
        """Insert archived events into `events` again, and return their number.

        They keep their `seq`, and get an outbox entry that is due now. An event with a document in `events` is left
        alone. The archive does not change.
        """
        if not deletion_ids:
            return 0
        entry = {"state": "pending", "tries": 0, "next_try": await server_time(self._database) - timedelta(seconds=1)}
        with driver_errors():
            found = undecoded(self._archive).find({"_id": {"$in": list(deletion_ids)}}, {"event": 1})
            documents = {
                document["event"]["_id"]: _without(document["event"], "expires_at", "confirmed_at") | {"outbox": entry}
                async for document in found
            }
            try:
                await self._events.insert_many(documents.values(), ordered=False)
            except BulkWriteError as error:
                failed = error.details["writeErrors"]
                if error.details["writeConcernErrors"] or any(failure["code"] != DUPLICATE_KEY for failure in failed):
                    raise
                return len(documents) - len(failed)
        return len(documents)


def _without(document: RawDocument, *names: str) -> Document:
    return {field: value for field, value in document.items() if field not in names}


def _decode(cursor: str) -> tuple[datetime, UUID]:
    """Return the time and the id of a deletion. Raises `Malformed` unless `Deletion.cursor` made the cursor."""
    try:
        milliseconds, deletion_id = _CURSOR.unpack(decode_cursor(cursor, _CURSOR_KEY))
        return EARLIEST + milliseconds * _MILLISECOND, UUID(bytes=deletion_id)
    except (struct.error, OverflowError):
        raise invalid_cursor() from None
