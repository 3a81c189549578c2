"""A lock between processes: one document with an expiry, by the server's clock, so that a dead holder holds nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

from pymongo.errors import DuplicateKeyError

from twofold.errors import Unavailable
from twofold.mongo.client import Collection, Database, Document, driver_errors
from twofold.mongo.safe_time import server_time


class Lock:
    """A lock that is ours until its time is up."""

    def __init__(self, locks: Collection, ours: Document, extended: Document) -> None:
        self._locks = locks
        self._ours = ours
        self._extended = extended

    async def renew(self) -> None:
        """Have its whole time before us once more. Raises `Unavailable`, also if it was too late and another has it."""
        with driver_errors():
            renewed = await self._locks.update_one(self._ours, [{"$set": self._extended}])
        if not renewed.matched_count:
            raise Unavailable(f"the lock {self._ours['_id']!r} is another's by now")


@asynccontextmanager
async def hold_lock(database: Database, name: str, longest: timedelta) -> AsyncIterator[Lock | None]:
    """The lock `name` for this block, or None if another has it.

    The block must end, or renew the lock, within `longest`; so long does it stay locked if this process dies. Raises
    `Unavailable`.
    """
    locks, holder = database["locks"], uuid4()
    free = {"_id": name, "expires_at": {"$lte": await server_time(database)}}
    ours = {"_id": name, "holder": holder}
    extended: Document = {"expires_at": {"$add": ["$$NOW", round(longest.total_seconds() * 1000)]}}
    with driver_errors():
        try:
            await locks.update_one(free, [{"$set": {"holder": holder, **extended}}], upsert=True)
        except DuplicateKeyError:  # it is there and not free, so the upsert tried to insert it
            yield None
            return
    try:
        yield Lock(locks, ours, extended)
    finally:
        with driver_errors():
            await locks.update_one(ours, [{"$set": {"expires_at": "$$NOW"}}])
