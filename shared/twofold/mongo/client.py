"""MongoDB's client, and the one way to insert an event once.

Write concern, read concern and read preference are set here and never left to the URI: a 2xx means majority.
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
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from twofold.errors import Unavailable
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


@asynccontextmanager
async def open_database(settings: MongoSettings, application: str) -> AsyncIterator[Database]:
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
        yield database_of(client, settings)
    finally:
        await client.close()


def database_of(client: Client, settings: MongoSettings) -> Database:
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


def time_limit(seconds: float) -> AbstractContextManager[object]:
    """Bound all operations of the block together, in the server too (`maxTimeMS`); the client's own bound rests."""
    return pymongo.timeout(seconds)
