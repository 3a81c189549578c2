"""A lock between processes: one document with an expiry by the server's clock.

The expiry releases the lock of a dead process.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

from pymongo.errors import DuplicateKeyError

from twofold.errors import Unavailable
from twofold.mongo.client import Collection, Database, Document, driver_errors
from twofold.mongo.safe_time import server_time


class Lock:
    """A lock of this process, until its expiry."""

    def __init__(self, locks: Collection, ours: Document, extended: Document) -> None:
        self._locks = locks
        self._ours = ours
        self._extended = extended

    async def renew(self) -> None:
        """Restart the time until the lock expires. Raises `Unavailable`, also if another process holds the lock now."""
        with driver_errors():
            renewed = await self._locks.update_one(self._ours, [{"$set": self._extended}])
        if not renewed.matched_count:
            raise Unavailable(f"another process holds the lock {self._ours['_id']!r} now: this process was too slow")


@asynccontextmanager
async def hold_lock(database: Database, name: str, longest: timedelta) -> AsyncIterator[Lock | None]:
    """Hold the lock `name` during the block. Gives None if another process holds it.

    The block must end or renew the lock within `longest`. After the death of a process its lock stays for that time.
    Raises `Unavailable`.
    """
    locks, holder = database["locks"], uuid4()
    free = {"_id": name, "expires_at": {"$lte": await server_time(database)}}
    ours = {"_id": name, "holder": holder}
    extended: Document = {"expires_at": {"$add": ["$$NOW", round(longest.total_seconds() * 1000)]}}
    with driver_errors():
        try:
            await locks.update_one(free, [{"$set": {"holder": holder, **extended}}], upsert=True)
        except DuplicateKeyError:  # the lock is held, so the filter matched nothing and the upsert tried an insert
            yield None
            return
    try:
        yield Lock(locks, ours, extended)
    finally:
        with driver_errors():
            await locks.update_one(ours, [{"$set": {"expires_at": "$$NOW"}}])
