"""The feed of the log on the real server: every event once and in order, whoever writes meanwhile, however slowly."""

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
    """A feed whose writers end within a second."""
    return Feed(database, LONGEST_INSERT)


@asynccontextmanager
async def committing_late(database: Database, events: Sequence[Event]) -> AsyncIterator[None]:
    """Insert the events, with their `seq`, and let nobody see them before the end of the block."""
    documents = [EventStore.encode(DeliveredEvent(event.to_document()), datetime.now(UTC)) for event in events]
    async with database.client.start_session() as session, await session.start_transaction():
        await database["event_store"].insert_many(documents, session=session)
        yield


async def follow(feed: Feed, number: int, limit: int = 1000, after: FeedCursor | None = None) -> list[UUID]:
    """What a reader gets from the feed until it has that many; and then what still comes."""
    place, got = after or FeedCursor.start(), list[UUID]()
    while len(got) < number:
        stretch = await feed.wait(place, limit, MUCH, timedelta(seconds=20))
        if not stretch.documents:
            break
        place = stretch.place
        got += [document["_id"] for document in stretch.documents]
    return got + [document["_id"] for document in (await feed.read(place, limit, MUCH)).documents]


async def in_order(database: Database) -> list[UUID]:
    """All that is in the log, by `seq`."""
    return [document["_id"] async for document in database["event_store"].find({}, {"_id": 1}).sort("seq", 1)]


async def test_an_event_that_commits_late_is_never_skipped(database: Database, feed: Feed) -> None:
    """Its `seq` is below that of one which can be seen already: a reader must not have gone past it by then."""
    late, early = an_event(), an_event()
    async with committing_late(database, [late]):
        await log(database, early)
        first = await feed.read(FeedCursor.start(), 10, MUCH)
    got = [document["_id"] for document in first.documents]
    got += await follow(feed, 2 - len(got), after=first.place)
    assert got == [late.event_id, early.event_id]


@pytest.mark.slow
async def test_a_follower_sees_each_event_of_many_writers_once(database: Database, settings: Settings) -> None:
    """8 writers at once, 20,000 events, at random moments; some commit late, as an insert that has to wait does."""
    feed = Feed(database, timedelta(seconds=settings.mongodb_timeout_s))
    events = some_events(20_000)
    chance = random.Random(8)

    async def write(own: Sequence[Event]) -> None:
        for first in range(0, len(own), 125):
            some = own[first : first + 125]
            await asyncio.sleep(chance.uniform(0, 0.1))
            if chance.random() < 0.1:
                async with committing_late(database, some):
                    await asyncio.sleep(chance.uniform(0, 0.8))
            else:
                await log(database, *some)

    following = asyncio.create_task(follow(feed, len(events), limit=700))
    await asyncio.gather(*(write(events[number::WRITERS]) for number in range(WRITERS)))
    got = await following
    assert len(got) == len(set(got)) == len(events)
    assert got == await in_order(database)


async def test_pages_are_bounded_by_number_and_by_bytes(database: Database, feed: Feed) -> None:
    """The event with which the bytes are reached is the last; one that is larger alone still comes."""
    await log(database, *some_events(10, payload={"text": "x" * 1000}))
    assert len(await follow(feed, 10)) == 10
    assert len((await feed.read(FeedCursor.start(), 3, MUCH)).documents) == 3
    assert len((await feed.read(FeedCursor.start(), 10, 3000)).documents) == 3
    assert len((await feed.read(FeedCursor.start(), 10, 1)).documents) == 1
    assert len(await follow(feed, 10, limit=1)) == 10


async def test_who_waits_gets_what_comes_or_an_empty_stretch(database: Database, feed: Feed) -> None:
    """And its place is kept."""
    nothing = await feed.wait(FeedCursor.start(), 10, MUCH, timedelta(seconds=0.1))
    assert (list(nothing.documents), nothing.place) == ([], FeedCursor.start())
    event = an_event()
    waiting = asyncio.create_task(feed.wait(nothing.place, 10, MUCH, timedelta(seconds=30)))
    await log(database, event)
    assert [document["_id"] for document in (await waiting).documents] == [event.event_id]


async def test_it_says_up_to_when_nothing_more_can_appear(database: Database, feed: Feed) -> None:
    before = await server_time(database)
    stretch = await feed.read(FeedCursor.start(), 10, MUCH)
    assert stretch.up_to < await server_time(database) - LONGEST_INSERT
    assert stretch.up_to > before - LONGEST_INSERT - timedelta(seconds=3)


async def test_a_reader_can_begin_at_a_time(database: Database, feed: Feed) -> None:
    """The server's time at which events came into the log, whatever the producers said."""
    await log(database, *some_events(2))
    await asyncio.sleep(1.1)
    since = (await server_time(database)).replace(microsecond=0)
    later = an_event(timestamp=datetime(2020, 1, 1, tzinfo=UTC))
    await log(database, later)
    assert await follow(feed, 1, after=FeedCursor.at(since)) == [later.event_id]


async def test_it_is_a_scan_of_its_index_from_the_place_on(database: Database, settings: Settings) -> None:
    """However much lies before it, and without sorting."""
    await log(database, *some_events(50))
    feed = Feed(database, LONGEST_INSERT)
    await follow(feed, 50)
    middle = (await feed.read(FeedCursor.start(), 30, MUCH)).place
    async with listened(settings) as (heard, commands):
        await Feed(heard, LONGEST_INSERT).read(middle, 10, MUCH)
        find = next(event.command for event in commands.sent if event.command_name == "find")
    command = {name: find[name] for name in ("find", "filter", "sort", "limit")}
    explained = await database.command("explain", command, verbosity="executionStats")
    assert "SORT" not in str(explained["queryPlanner"]["winningPlan"])
    assert "COLLSCAN" not in str(explained["queryPlanner"]["winningPlan"])
    assert explained["executionStats"]["totalKeysExamined"] == 10


class TestCursor:
    def test_it_brings_back_its_place(self) -> None:
        for place in (FeedCursor.start(), FeedCursor(1, 2), FeedCursor(2**32 - 1, 2**32 - 1)):
            assert FeedCursor.of_cursor(place.cursor) == place

    async def test_a_time_beyond_those_that_the_log_can_have_is_behind_all_of_it(
        self, database: Database, feed: Feed
    ) -> None:
        """From 2106-02-07T06:28:16Z on: a date that people can ask for, and no BSON timestamp."""
        await log(database, *some_events(1))
        for moment in (
            datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC),
            datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),
            datetime.max.replace(tzinfo=UTC),
        ):
            assert not (await feed.read(FeedCursor.at(moment), 10, MUCH)).documents
            assert FeedCursor.of_cursor(FeedCursor.at(moment).cursor) == FeedCursor.at(moment)

    @pytest.mark.parametrize(
        "cursor", ["", "x", "ZgAAAAAAAAA", "ZwAAAAAAAAAA", "Zg AAAAAAAAAA", "é", '{"$gt":0}', "A" * 12]
    )
    def test_what_is_none_is_refused(self, cursor: str) -> None:
        with pytest.raises(Malformed, match="not a cursor of this query"):
            FeedCursor.of_cursor(cursor)
