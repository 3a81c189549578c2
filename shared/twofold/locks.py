"""A lock between processes: one document with an expiry, by the server's clock, so that a dead holder holds nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

from pymongo.errors import DuplicateKeyError

from twofold.mongo import Database, driver_errors, server_time


@asynccontextmanager
async def locked(database: Database, name: str, longest: timedelta) -> AsyncIterator[bool]:
    """Whether the lock `name` is ours for this block, which must end within `longest`. Raises `Unavailable`."""
    locks, holder = database["locks"], uuid4()
    free = {"_id": name, "expires_at": {"$lte": await server_time(database)}}
    expires_at = {"$add": ["$$NOW", round(longest.total_seconds() * 1000)]}
    with driver_errors():
        try:
            await locks.update_one(free, [{"$set": {"holder": holder, "expires_at": expires_at}}], upsert=True)
        except DuplicateKeyError:  # it is there and not free, so the upsert tried to insert it
            yield False
            return
    try:
        yield True
    finally:
        with driver_errors():
            await locks.update_one({"_id": name, "holder": holder}, [{"$set": {"expires_at": "$$NOW"}}])
