"""The longest insert is a constant of all programs: the safe time is true for writers with any settings."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from pymongo import AsyncMongoClient

from tests.helpers import Commands, EncodedDocument, accept, an_event, log
from twofold.errors import Unavailable
from twofold.event.model import Event
from twofold.mongo.client import Database, Document, database_of, open_database, time_limit
from twofold.mongo.safe_time import LONGEST_INSERT
from twofold.read.feed import Feed, FeedCursor
from twofold.settings import Settings
from twofold.storage.checkpoints import Checkpoints
from twofold.storage.events import EventRepository

pytestmark = [pytest.mark.guarantee("G2", "G10"), pytest.mark.fault("A3")]


def encoded(event: Event) -> EncodedDocument:
    return EncodedDocument(event.event_id, event.digest, EventRepository.encode(event.to_document(), datetime.now(UTC)))


@pytest.mark.parametrize("timeout_ms", [None, 30_000, 2_000])
async def test_no_insert_gets_more_than_the_longest_time(settings: Settings, timeout_ms: int | None) -> None:
    """Neither in `events` nor in the log, whatever the client's own limit and the limit around the call are."""
    commands = Commands()
    client: AsyncMongoClient[Document] = AsyncMongoClient(
        settings.mongodb_uri.get_secret_value(), event_listeners=[commands], timeoutMS=timeout_ms
    )
    async with client:
        database = database_of(client, settings)
        await accept(database, an_event())
        await log(database, an_event())
        with time_limit(60):
            await accept(database, an_event())
    inserts = [sent.command["maxTimeMS"] for sent in commands.sent if sent.command_name == "insert"]
    assert len(inserts) == 3
    longest_ms = LONGEST_INSERT.total_seconds() * 1000
    assert max(inserts) <= min(longest_ms, timeout_ms or longest_ms)


async def test_a_checkpoint_stays_below_the_insert_of_a_writer_with_a_longer_limit(settings: Settings) -> None:
    """A write conflict delays the insert. It fails before a checkpoint or the feed passes its `seq`."""
    patient = settings.model_copy(update={"mongodb_timeout_s": 30.0})
    event = an_event()
    async with open_database(patient, "patient") as database, database.client.start_session() as session:
        await session.start_transaction()
        await database["events"].insert_one({"_id": event.event_id}, session=session)
        with pytest.raises(Unavailable):
            async with asyncio.timeout(2 * LONGEST_INSERT.total_seconds()):
                await EventRepository(database).insert([encoded(event)])
        await session.abort_transaction()
        assert await database["events"].count_documents({}) == 0


@pytest.mark.parametrize("timeout_s", [1.0, 30.0])
async def test_the_safe_time_does_not_depend_on_the_readers_settings(
    settings: Settings, database: Database, timeout_s: float
) -> None:
    async with open_database(settings.model_copy(update={"mongodb_timeout_s": timeout_s}), "reader") as own:
        checkpoint = await Checkpoints(own).measure()
        batch = await Feed(own).read(FeedCursor.start(), 1, 1)
    assert checkpoint.low_watermark is not None
    delay = checkpoint.at - checkpoint.low_watermark
    assert LONGEST_INSERT < delay <= LONGEST_INSERT + timedelta(seconds=2.5)
    assert abs(batch.safe_time - checkpoint.low_watermark) <= timedelta(seconds=2)
