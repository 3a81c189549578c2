"""The feed on a real MongoDB: every event once and in order, also with slow and concurrent writers."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.helpers import an_event, listened, log, some_events
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.errors import Malformed
from twofold.event.model import Event
from twofold.mongo.client import Database
from twofold.mongo.safe_time import server_time
from twofold.read.feed import Feed, FeedCursor
from twofold.settings import Settings
from twofold.storage.event_store import EventStore

LONGEST_INSERT = timedelta(seconds=1)
MUCH = 16_000_000
WRITERS = 8

pytestmark = pytest.mark.guarantee("G2")


@pytest.fixture
def feed(database: Database) -> Feed:
    """Return a feed for inserts of at most a second."""
    return Feed(database, LONGEST_INSERT)


@asynccontextmanager
async def late_commit(database: Database, events: Sequence[Event]) -> AsyncIterator[None]:
    """Insert the events with their `seq` now, and make them visible at the end of the block."""
    documents = [EventStore.encode(DeliveredEvent(event.to_document()), datetime.now(UTC)) for event in events]
    async with database.client.start_session() as session, await session.start_transaction():
        await database["event_store"].insert_many(documents, session=session)
        yield


async def follow(feed: Feed, number: int, limit: int = 1000, after: FeedCursor | None = None) -> list[UUID]:
    """Read the feed until `number` events came, then read once more. Return the ids."""
    cursor, got = after or FeedCursor.start(), list[UUID]()
    while len(got) < number:
        batch = await feed.wait(cursor, limit, MUCH, timedelta(seconds=20))
        if not batch.documents:
            break
        cursor = batch.cursor
        got += [document["_id"] for document in batch.documents]
    return got + [document["_id"] for document in (await feed.read(cursor, limit, MUCH)).documents]


async def in_order(database: Database) -> list[UUID]:
    """Return the ids in the log, by `seq`."""
    return [document["_id"] async for document in database["event_store"].find({}, {"_id": 1}).sort("seq", 1)]


async def test_an_event_that_commits_late_is_never_skipped(database: Database, feed: Feed) -> None:
    """Its `seq` is below the `seq` of a visible event. A reader must not pass it before it is visible."""
    late, early = an_event(), an_event()
    async with late_commit(database, [late]):
        await log(database, early)
        first = await feed.read(FeedCursor.start(), 10, MUCH)
    got = [document["_id"] for document in first.documents]
    got += await follow(feed, 2 - len(got), after=first.cursor)
    assert got == [late.event_id, early.event_id]


@pytest.mark.slow
async def test_a_follower_sees_each_event_of_many_writers_once(database: Database) -> None:
    """8 concurrent writers store 20,000 events at random moments. Some inserts commit late."""
    feed = Feed(database)
    events = some_events(20_000)
    chance = random.Random(8)

    async def write(own: Sequence[Event]) -> None:
        for first in range(0, len(own), 125):
            some = own[first : first + 125]
            await asyncio.sleep(chance.uniform(0, 0.1))
            if chance.random() < 0.1:
                async with late_commit(database, some):
                    await asyncio.sleep(chance.uniform(0, 0.8))
            else:
                await log(database, *some)

    following = asyncio.create_task(follow(feed, len(events), limit=700))
    await asyncio.gather(*(write(events[number::WRITERS]) for number in range(WRITERS)))
    got = await following
    assert len(got) == len(set(got)) == len(events)
    assert got == await in_order(database)


async def test_pages_are_bounded_by_number_and_by_bytes(database: Database, feed: Feed) -> None:
    """The event that reaches the bytes is the last of its batch, so a larger event comes alone."""
    await log(database, *some_events(10, payload={"text": "x" * 1000}))
    assert len(await follow(feed, 10)) == 10
    assert len((await feed.read(FeedCursor.start(), 3, MUCH)).documents) == 3
    assert len((await feed.read(FeedCursor.start(), 10, 3000)).documents) == 3
    assert len((await feed.read(FeedCursor.start(), 10, 1)).documents) == 1
    assert len(await follow(feed, 10, limit=1)) == 10


async def test_a_waiting_reader_gets_new_events_or_an_empty_batch(database: Database, feed: Feed) -> None:
    """An empty batch keeps the cursor."""
    nothing = await feed.wait(FeedCursor.start(), 10, MUCH, timedelta(seconds=0.1))
    assert (list(nothing.documents), nothing.cursor) == ([], FeedCursor(0, 0, epoch=0))
    event = an_event()
    waiting = asyncio.create_task(feed.wait(nothing.cursor, 10, MUCH, timedelta(seconds=30)))
    await log(database, event)
    assert [document["_id"] for document in (await waiting).documents] == [event.event_id]


async def test_a_batch_names_its_safe_time(database: Database, feed: Feed) -> None:
    before = await server_time(database)
    batch = await feed.read(FeedCursor.start(), 10, MUCH)
    assert batch.safe_time < await server_time(database) - LONGEST_INSERT
    assert batch.safe_time > before - LONGEST_INSERT - timedelta(seconds=3)


async def test_a_reader_can_begin_at_a_time_of_storage(database: Database, feed: Feed) -> None:
    """The server's time of storage counts, not the producer's time."""
    await log(database, *some_events(2))
    await asyncio.sleep(1.1)
    since = (await server_time(database)).replace(microsecond=0)
    later = an_event(timestamp=datetime(2020, 1, 1, tzinfo=UTC))
    await log(database, later)
    assert await follow(feed, 1, after=FeedCursor.at(since)) == [later.event_id]


async def test_a_batch_is_an_index_scan_from_its_cursor(database: Database, settings: Settings) -> None:
    """The scan does not sort, and does not read the events before the cursor."""
    await log(database, *some_events(50))
    feed = Feed(database, LONGEST_INSERT)
    await follow(feed, 50)
    middle = (await feed.read(FeedCursor.start(), 30, MUCH)).cursor
    async with listened(settings) as (heard, commands):
        await Feed(heard, LONGEST_INSERT).read(middle, 10, MUCH)
        find = next(event.command for event in commands.sent if event.command_name == "find")
    command = {name: find[name] for name in ("find", "filter", "sort", "limit")}
    explained = await database.command("explain", command, verbosity="executionStats")
    assert "SORT" not in str(explained["queryPlanner"]["winningPlan"])
    assert "COLLSCAN" not in str(explained["queryPlanner"]["winningPlan"])
    assert explained["executionStats"]["totalKeysExamined"] == 10


class TestCursor:
    def test_decoding_inverts_encoding(self) -> None:
        for cursor in (FeedCursor(0, 0, 0), FeedCursor(1, 2, 3), FeedCursor(2**32 - 1, 2**32 - 1, 2**32 - 1)):
            assert FeedCursor.decode(cursor.encode()) == cursor

    async def test_a_time_beyond_bson_timestamps_is_behind_every_event(self, database: Database, feed: Feed) -> None:
        """A reader can ask for such a time, from 2106-02-07T06:28:16Z on."""
        await log(database, *some_events(1))
        for moment in (
            datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC),
            datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),
            datetime.max.replace(tzinfo=UTC),
        ):
            batch = await feed.read(FeedCursor.at(moment), 10, MUCH)
            assert not batch.documents
            assert FeedCursor.decode(batch.cursor.encode()) == batch.cursor

    @pytest.mark.parametrize(
        "cursor", ["", "x", "ZgAAAAAAAAA", "ZwAAAAAAAAAA", "Zg AAAAAAAAAA", "é", '{"$gt":0}', "A" * 12]
    )
    def test_an_invalid_cursor_is_refused(self, cursor: str) -> None:
        with pytest.raises(Malformed, match="not a cursor of this query"):
            FeedCursor.decode(cursor)
