"""TODO module."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from bson.timestamp import Timestamp

from twofold.mongo.client import CODEC, Database, Session, driver_errors


async def server_time(database: Database) -> datetime:
    """The primary's clock (UTC): the one clock that all functions share."""
    with driver_errors():
        answer = await database.client.admin.command("hello", codec_options=CODEC)
    now: datetime = answer["localTime"]
    return now


@dataclass(frozen=True, slots=True)
class SafeTime:
    """What a session's reads, from here on, can say of the past."""

    at: datetime
    """The server's clock."""
    up_to: Timestamp
    """Each insert whose `seq` is below this is seen, or never will be."""


async def read_safe_time(session: Session, longest_insert: timedelta) -> SafeTime:
    """How far the past is settled for the reads of a causally consistent `session` that follow.

    It stands on the server's clocks alone. An insert gets its `seq`, which is never below the wall clock nor below what
    the cluster has written, when it is carried out, and can commit only within its `maxTimeMS`; `up_to` stays that much
    and a second below both, and the reads that follow are from majority snapshots at that moment or later. Raises the
    driver's errors.
    """
    hello = await session.client.admin.command("hello", session=session, codec_options=CODEC)
    now = max(hello["operationTime"].time, int(hello["localTime"].timestamp()))
    margin_s = ceil(longest_insert.total_seconds()) + 1
    return SafeTime(hello["localTime"], Timestamp(max(now - margin_s, 0), 0))
