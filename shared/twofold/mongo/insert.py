"""Insert events, each once and durably.

A duplicate key only proves a document on the primary, and a fail-over could still roll this document back. So
`insert_once` reads the stored digest with majority concern, causally after the insert. If no majority has the document,
the result is `Unavailable`, and the producer sends the event again.
"""

from collections.abc import Sequence
from typing import Literal, Protocol
from uuid import UUID

from pymongo.errors import BulkWriteError

from twofold.errors import Conflict, TwofoldError, Unavailable
from twofold.mongo.client import DUPLICATE_KEY, Collection, RawDocument, driver_errors, time_limit
from twofold.mongo.failures import driver_failure
from twofold.mongo.safe_time import LONGEST_INSERT

InsertResult = Literal["new", "duplicate"] | TwofoldError
"""`new`: inserted now. `duplicate`: an equal event was stored before. An error concerns this event alone."""


class NewDocument(Protocol):
    """An encoded event, ready for its insert."""

    @property
    def event_id(self) -> UUID:
        """The `_id` of the document."""

    @property
    def digest(self) -> bytes:
        """The digest of the event, 32 bytes."""

    @property
    def document(self) -> RawDocument:
        """The encoded document."""


async def insert_once(collection: Collection, new: Sequence[NewDocument]) -> list[InsertResult]:
    """Insert the documents, and return their results in the same order. New events and duplicates are durable.

    Raises `Unavailable` when no event may be acknowledged.
    """
    results: list[InsertResult] = ["new"] * len(new)
    with driver_errors(), time_limit(_longest(collection)):
        async with collection.database.client.start_session(causal_consistency=True) as session:
            try:
                await collection.insert_many([item.document for item in new], ordered=False, session=session)
            except BulkWriteError as error:
                failed = _failed(error)
                taken = [new[position].event_id for position, code in failed.items() if code == DUPLICATE_KEY]
                stored = {
                    document["_id"]: document["digest"]
                    async for document in collection.find({"_id": {"$in": taken}}, {"digest": 1}, session=session)
                }
                for position in failed:
                    digest = stored.get(new[position].event_id)
                    results[position] = (
                        compare_digests(digest, new[position].digest)
                        if digest
                        else Unavailable("MongoDB refused the write for now")
                    )
    return results


def _longest(collection: Collection) -> float:
    """Return the seconds of one insert: the client's own limit, and at most `LONGEST_INSERT`."""
    own = collection.database.client.options.timeout
    longest = LONGEST_INSERT.total_seconds()
    return longest if own is None else min(own, longest)


def compare_digests(stored: bytes, given: bytes) -> Literal["duplicate"] | Conflict:
    """Return `duplicate` for equal digests, else a `Conflict`."""
    if stored == given:
        return "duplicate"
    return Conflict("another event has this source and id: the content differs", "id")


def _failed(error: BulkWriteError) -> dict[int, int]:
    """Return the error codes by position. Raises `Unavailable` if the successful writes are not durable either."""
    if error.details["writeConcernErrors"]:
        raise Unavailable("MongoDB could not make the write durable") from driver_failure(error)
    return {failure["index"]: failure["code"] for failure in error.details["writeErrors"]}


async def find_digests(collection: Collection, ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """Return the digests of existing events, from a majority read. Raises `Unavailable`."""
    with driver_errors():
        found = collection.find({"_id": {"$in": list(ids)}}, {"digest": 1})
        return {document["_id"]: document["digest"] async for document in found}
