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
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure, PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern

from twofold.errors import Unavailable
from twofold.mongo.failures import driver_failure
from twofold.settings import MongoSettings

Document = dict[str, Any]
Client = AsyncMongoClient[Document]
RawDocument = RawBSONDocument
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]
Session = AsyncClientSession

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
        yield database_of(client, settings)
    finally:
        await client.close()


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

    After a time-out the message ends with `advice`, a smaller request for the caller.
    """
    try:
        yield
    except PyMongoError as error:
        if advice and error.timeout:
            raise Unavailable(f"MongoDB did not answer in time: try again, or {advice}") from driver_failure(error)
        raise Unavailable(_describe(error)) from driver_failure(error)


def _describe(error: PyMongoError) -> str:
    """Return a message without the command, the hosts or the user: clients read it."""
    if isinstance(error, ServerSelectionTimeoutError):
        return "MongoDB has no reachable primary: check the servers in MONGODB_URI"
    if isinstance(error, OperationFailure) and error.code in _REFUSALS:
        return _REFUSALS[error.code]
    return f"MongoDB did not carry out the operation ({type(error).__name__}): try again"


def time_limit(seconds: float) -> AbstractContextManager[object]:
    """Limit the total time of the operations in the block, also in the server. It replaces `mongodb_timeout_s`."""
    return pymongo.timeout(seconds)
