"""MongoDB's client, and the one way to insert an event once.

Write concern, read concern and read preference are set here and never left to the URI: a 2xx means majority.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any
from uuid import UUID

import bson
import pymongo
from bson.binary import UUID_SUBTYPE, Binary, UuidRepresentation
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, PyMongoError
from pymongo.read_concern import ReadConcern

from twofold.errors import Invalid, TooLarge, TwofoldError, Unavailable
from twofold.event import Event
from twofold.settings import Settings

Document = dict[str, Any]
Client = AsyncMongoClient[Document]
Encoded = RawBSONDocument
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]
Session = AsyncClientSession

CODEC: CodecOptions[Document] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD, tz_aware=True)
_RAW: CodecOptions[Encoded] = CODEC.with_options(document_class=Encoded)
MAX_DOCUMENT_BYTES = 16_000_000
"""Below the server's 16 MiB: an oversized document would fail the whole group that it is written with."""
DUPLICATE_KEY = 11000


@asynccontextmanager
async def connect(settings: Settings, application: str) -> AsyncIterator[Database]:
    """The database, with majority concerns and the primary, whatever the URI says. Open it after the fork.

    No operation takes longer than `mongodb_timeout_s`, retries and fail-over included: pymongo's `timeoutMS` also sends
    `maxTimeMS` with each command.
    """
    client: Client = AsyncMongoClient(
        settings.mongodb_uri.get_secret_value(),
        appname=f"twofold-{application}",
        timeoutMS=round(settings.mongodb_timeout_s * 1000),
        connectTimeoutMS=2000,
        serverSelectionTimeoutMS=round(settings.mongodb_timeout_s * 1000),
        retryWrites=True,
        retryReads=True,
    )
    try:
        yield database(client, settings)
    finally:
        await client.close()


def database(client: Client, settings: Settings) -> Database:
    """Twofold's database on `client`, with the concerns that its guarantees need."""
    return client.get_database(
        settings.mongodb_database,
        codec_options=CODEC,
        read_preference=ReadPreference.PRIMARY,
        write_concern=WriteConcern("majority"),
        read_concern=ReadConcern("majority"),
    )


@contextmanager
def driver_errors(advice: str = "") -> Iterator[None]:
    """Turn the driver's errors into `Unavailable`: none of them is the event's fault.

    `advice` says what to ask for instead, if there was not enough time.
    """
    try:
        yield
    except PyMongoError as error:
        if advice and error.timeout:
            raise Unavailable(f"MongoDB did not answer in time: try again, or {advice}") from error
        raise Unavailable(f"MongoDB did not answer as it should: {type(error).__name__}") from error


def within(seconds: float) -> AbstractContextManager[object]:
    """Bound all operations of the block together, in the server too (`maxTimeMS`); the client's own bound rests."""
    return pymongo.timeout(seconds)


def encode(document: Mapping[str, Any]) -> Encoded:
    """`document` as BSON, so that one that can't be stored is found before it joins a group.

    Raises `Invalid` or `TooLarge`.
    """
    try:
        encoded = bson.encode(document, codec_options=CODEC)
    except (BSONError, OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise Invalid(f"can't be stored: {error}", "data") from error
    if len(encoded) > MAX_DOCUMENT_BYTES:
        raise TooLarge(f"the event takes {len(encoded)} bytes in MongoDB: at most {MAX_DOCUMENT_BYTES} are taken")
    return Encoded(encoded, _RAW)


_SEQ = Timestamp(0, 0)
"""The server fills it in at insert: unique, and increasing."""


def encode_event(document: Document, stored_at: datetime, **added: object) -> Encoded:
    """An event's document with what every collection adds, and `added`. Raises `Invalid` or `TooLarge`."""
    whole = {
        **document,
        "_id": Binary(document["_id"].bytes, UUID_SUBTYPE),  # what bson makes of a UUID, by a detour
        "timestamp": _utc(document["timestamp"]),
        "stored_at": _utc(stored_at),
        "seq": _SEQ,
        **added,
    }
    return encode(whole)


def _utc(date: datetime) -> datetime:
    """`date`, which is UTC, as BSON takes it: a date with a zone is asked for its offset, twice."""
    return date.replace(tzinfo=None)


async def insert_once(
    collection: Collection, documents: Sequence[Encoded], ids: Sequence[UUID]
) -> list[bytes | TwofoldError | None]:
    """Insert `documents`; each one's outcome is None if it is new, or the digest of the one that is there already.

    Both are durable by then: inserted with majority concern, and seen there by a majority read that is causally after
    the insert (an id can be taken by a document that is not yet, or never will be, on a majority). An error in the list
    is that document's alone. Raises `Unavailable` when nobody may be acknowledged.
    """
    outcomes: list[bytes | TwofoldError | None] = [None] * len(documents)
    with driver_errors():
        async with collection.database.client.start_session(causal_consistency=True) as session:
            try:
                await collection.insert_many(documents, ordered=False, session=session)
            except BulkWriteError as error:
                failed = _failed(error)
                taken = [ids[position] for position, code in failed.items() if code == DUPLICATE_KEY]
                found = {
                    document["_id"]: document["digest"]
                    async for document in collection.find({"_id": {"$in": taken}}, {"digest": 1}, session=session)
                }
                for position in failed:
                    outcomes[position] = found.get(ids[position]) or Unavailable("MongoDB refused the write for now")
    return outcomes


def _failed(error: BulkWriteError) -> dict[int, int]:
    """Position and code of each write that failed. Raises `Unavailable` if what did not fail isn't durable either."""
    if error.details["writeConcernErrors"]:
        raise Unavailable("MongoDB could not make the write durable") from error
    return {failure["index"]: failure["code"] for failure in error.details["writeErrors"]}


async def known(collection: Collection, ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """The digests of those events that are there, durably."""
    with driver_errors():
        found = collection.find({"_id": {"$in": list(ids)}}, {"digest": 1})
        return {document["_id"]: document["digest"] async for document in found}


async def server_time(database: Database) -> datetime:
    """The primary's clock (UTC): the one clock that all functions share."""
    with driver_errors():
        answer = await database.client.admin.command("hello", codec_options=CODEC)
    now: datetime = answer["localTime"]
    return now


@dataclass(frozen=True, slots=True)
class Settled:
    """What a session's reads, from here on, can say of the past."""

    at: datetime
    """The server's clock."""
    up_to: Timestamp
    """Each insert whose `seq` is below this is seen, or never will be."""


async def settled(session: Session, longest_insert: timedelta) -> Settled:
    """How far the past is settled for the reads of a causally consistent `session` that follow.

    It stands on the server's clocks alone. An insert gets its `seq`, which is never below the wall clock nor below what
    the cluster has written, when it is carried out, and can commit only within its `maxTimeMS`; `up_to` stays that much
    and a second below both, and the reads that follow are from majority snapshots at that moment or later. Raises the
    driver's errors.
    """
    hello = await session.client.admin.command("hello", session=session, codec_options=CODEC)
    now = max(hello["operationTime"].time, int(hello["localTime"].timestamp()))
    margin_s = ceil(longest_insert.total_seconds()) + 1
    return Settled(hello["localTime"], Timestamp(max(now - margin_s, 0), 0))


def raw(collection: Collection) -> AsyncCollection[Encoded]:
    """`collection`, read undecoded, as `event_of` needs it."""
    return collection.with_options(codec_options=_RAW)


def event_of(document: Encoded) -> Event:
    """The event that a stored document, read undecoded, holds."""
    return Event.from_document(plain(document))


def plain(document: Encoded) -> Document:
    """A stored document, read undecoded, as dicts and lists.

    Decoded, a sub-document with `$ref` and `$id` would be a DBRef, which forgets that its `$db` was null.
    """
    if b"$ref" not in document.raw:
        return bson.decode(document.raw, codec_options=CODEC)
    return {name: _plain(member) for name, member in document.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Encoded):
        return plain(value)
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return value
