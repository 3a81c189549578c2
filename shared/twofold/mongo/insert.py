"""TODO module."""

from collections.abc import Sequence
from uuid import UUID

from pymongo.errors import BulkWriteError

from twofold.errors import TwofoldError, Unavailable
from twofold.mongo.client import DUPLICATE_KEY, Collection, RawDocument, driver_errors


async def insert_once(
    collection: Collection, documents: Sequence[RawDocument], ids: Sequence[UUID]
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


async def find_digests(collection: Collection, ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """The digests of those events that are there, durably."""
    with driver_errors():
        found = collection.find({"_id": {"$in": list(ids)}}, {"digest": 1})
        return {document["_id"]: document["digest"] async for document in found}
