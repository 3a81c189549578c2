"""The MongoDB client.

Write concern, read concern and read preference are set here. The URI cannot weaken them, because a 2xx promises a
write on a majority of the members.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import pymongo
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure, PyMongoError, ServerSelectionTimeoutError, WaitQueueTimeoutError
from pymongo.read_concern import ReadConcern

from twofold.errors import Unavailable
from twofold.mongo.diagnosis import diagnose, driver_error, uri_errors
from twofold.mongo.failures import driver_failure
from twofold.settings import MongoSettings

Document = dict[str, Any]
Client = AsyncMongoClient[Document]
RawDocument = RawBSONDocument
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]
Session = AsyncClientSession
Seq = Timestamp
"""The type of `seq`."""

CODEC: CodecOptions[Document] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD, tz_aware=True)
RAW_CODEC: CodecOptions[RawDocument] = CODEC.with_options(document_class=RawDocument)

DUPLICATE_KEY = 11000
"""The server's error code for an existing `_id`."""

_REFUSALS = {
    13: "MongoDB does not allow this operation to the user in MONGODB_URI: run the Job `setup`, which grants the roles",
    18: "MongoDB refused the user in MONGODB_URI: authentication failed",
}
"""Messages for an operator, by the error code of the server."""


@asynccontextmanager
async def open_database(settings: MongoSettings, application: str) -> AsyncIterator[Database]:
    """Open the database with majority concerns and reads from the primary. Call it after the fork.

    No operation takes longer than `mongodb_timeout_s`, with its retries and a fail-over. pymongo's `timeoutMS` also
    sends `maxTimeMS` with each command, so the server stops too.

    Raises `InvalidSettings` for a `MONGODB_URI` that the driver cannot use. An `Unavailable` that leaves the block gets
    its `diagnosis`.
    """
    client = new_client(settings, application)
    try:
        yield database_of(client, settings)
    except Unavailable as error:
        if (cause := driver_error(error)) is not None:
            diagnosis = diagnose(cause, settings.mongodb_uri.get_secret_value())
            error.diagnosis = diagnosis if error.detail == _describe(cause) else f"{error.detail}. {diagnosis}"
        raise
    finally:
        await client.close()


def new_client(settings: MongoSettings, application: str) -> Client:
    """Return a client that connects with its first operation. Raises `InvalidSettings`."""
    uri = settings.mongodb_uri.get_secret_value()
    with uri_errors(uri):
        return AsyncMongoClient(
            uri,
            appname=f"twofold-{application}",
            timeoutMS=round(settings.mongodb_timeout_s * 1000),
            connectTimeoutMS=2000,
            serverSelectionTimeoutMS=round(settings.mongodb_timeout_s * 1000),
            retryWrites=True,
            retryReads=True,
        )


def database_of(client: Client, settings: MongoSettings) -> Database:
    """Return the database on `client` with the concerns that the guarantees need."""
    return client.get_database(
        settings.mongodb_database,
        codec_options=CODEC,
        read_preference=ReadPreference.PRIMARY,
        write_concern=WriteConcern("majority"),
        read_concern=ReadConcern("majority"),
    )


@contextmanager
def driver_errors(advice: str = "") -> Iterator[None]:
    """Turn errors of the driver into `Unavailable`: an event is never their cause.

    After a time-out of an operation the message ends with `advice`, a smaller request for the caller. An operation that
    got no connection did not begin, so a smaller request would not help.
    """
    try:
        yield
    except PyMongoError as error:
        connected = not isinstance(error, ServerSelectionTimeoutError | WaitQueueTimeoutError)
        if advice and error.timeout and connected:
            raise Unavailable(f"MongoDB did not answer in time: try again, or {advice}") from driver_failure(error)
        raise Unavailable(_describe(error)) from driver_failure(error)


def _describe(error: PyMongoError) -> str:
    """Return a message without the command, the hosts or the user: clients read it. `diagnose` names the hosts."""
    if isinstance(error, ServerSelectionTimeoutError):
        return "MongoDB has no reachable primary: check the servers in MONGODB_URI"
    if isinstance(error, OperationFailure) and error.code in _REFUSALS:
        return _REFUSALS[error.code]
    return f"MongoDB did not carry out the operation ({type(error).__name__}): try again"


def time_limit(seconds: float) -> AbstractContextManager[object]:
    """Limit the total time of the operations in the block, also in the server. It replaces `mongodb_timeout_s`."""
    return pymongo.timeout(seconds)
