"""Completeness checkpoints on a real server: they never claim more than is true."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson.timestamp import Timestamp
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from dev.stack import Stack
from tests.helpers import accept, an_event, failing, log, some_events
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database, Document, open_database
from twofold.mongo.safe_time import server_time
from twofold.settings import Settings
from twofold.storage.checkpoints import Checkpoint, Checkpoints
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.storage.outbox import Outbox
from twofold.write.publisher import Publisher
from twofold.write.reconcile import reconcile

pytestmark = pytest.mark.guarantee("G10")

LONGEST_INSERT = timedelta(seconds=4)
HOUR = timedelta(hours=1)


@pytest.fixture
def checkpoints(database: Database) -> Checkpoints:
    return Checkpoints(database, LONGEST_INSERT)


async def insert_with_entry(database: Database, state: str, seconds_ago: int = 0) -> datetime:
    """Insert an event with an outbox entry of this state, accepted `ago` by the server's clock."""
    accepted = Timestamp(int((await server_time(database)).timestamp()) - seconds_ago, 1)
    event = an_event()
    await database["events"].insert_one(
        {**event.to_document(), "seq": accepted, "outbox": {"state": state, "tries": 0}}
    )
    return accepted.as_datetime()


class TestLowWatermark:
    @pytest.mark.parametrize("state", ["new", "pending"])
    async def test_the_watermark_stops_at_the_oldest_pending_event(
        self, checkpoints: Checkpoints, database: Database, state: str
    ) -> None:
        """The age of the event and the later events do not matter."""
        oldest = await insert_with_entry(database, state, seconds_ago=1000)
        await insert_with_entry(database, "new", seconds_ago=500)
        await insert_with_entry(database, "pending", seconds_ago=600)
        checkpoint = await checkpoints.measure()
        assert checkpoint.low_watermark == checkpoint.oldest_pending == oldest

    async def test_without_pending_events_the_watermark_follows_the_servers_time(
        self, checkpoints: Checkpoints, database: Database
    ) -> None:
        before = await server_time(database)
        checkpoint = await checkpoints.measure()
        assert checkpoint.low_watermark is not None
        assert before - timedelta(seconds=8) < checkpoint.low_watermark < checkpoint.at - LONGEST_INSERT
        assert before <= checkpoint.at <= await server_time(database)
        assert checkpoint.oldest_pending is None

    async def test_the_watermark_stays_below_inserts_under_way(
        self, checkpoints: Checkpoints, database: Database
    ) -> None:
        """An event gets its `seq` before it is visible, so a checkpoint must not include that moment yet."""
        event = an_event()
        async with database.client.start_session() as session:
            await session.start_transaction()
            await database["events"].insert_one(
                EventRepository.encode(event.to_document(), datetime.now(UTC)), session=session
            )
            await asyncio.sleep(1.5)
            checkpoint = await checkpoints.measure()
            await session.commit_transaction()
        document = await database["events"].find_one({"_id": event.event_id})
        assert document is not None
        assert checkpoint.pending == 0, "the event was not visible then"
        assert checkpoint.low_watermark is not None
        assert checkpoint.low_watermark < document["seq"].as_datetime()

    @pytest.mark.parametrize(("before", "after"), [("dead", "pending"), ("pending", "dead")])
    async def test_an_entry_that_changes_during_a_checkpoint_counts_in_its_first_state(
        self, settings: Settings, database: Database, before: str, after: str
    ) -> None:
        """A redrive or the relay changes the entry between two reads of the checkpoint."""
        accepted = await insert_with_entry(database, before, seconds_ago=1000)

        async def change() -> None:
            await database["events"].update_one({}, {"$set": {"outbox.state": after}})

        checkpoint = await measured_while(settings, database, "aggregate", "events", change)
        assert (checkpoint.dead, checkpoint.pending) == ((1, 0) if before == "dead" else (0, 1))
        assert checkpoint.low_watermark is not None
        assert checkpoint.dead or checkpoint.low_watermark <= accepted

    async def test_a_reconciliation_that_ends_during_a_checkpoint_does_not_change_it(
        self, settings: Settings, database: Database
    ) -> None:
        """The last entries of `reconcile` and its record arrive during the checkpoint of a regressed log."""
        await log(database, an_event())
        checkpoints = Checkpoints(database, LONGEST_INSERT)
        await checkpoints.record()
        await database["event_store"].delete_many({})
        await insert_with_entry(database, "dead", seconds_ago=1000)
        before = await checkpoints.begin_reconciliation(datetime.now(UTC) - HOUR)

        async def end() -> None:
            await database["events"].update_one({}, {"$set": {"outbox.state": "pending"}})
            await checkpoints.record_reconciliation(before, {})

        checkpoint = await measured_while(settings, database, "find", "checkpoints", end)
        assert (checkpoint.log_regressed, checkpoint.low_watermark) == (True, None)
        again = await checkpoints.measure()
        assert (again.log_regressed, again.low_watermark) == (False, again.oldest_pending)

    @pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])
    async def test_a_publishers_clock_changes_nothing(
        self, checkpoints: Checkpoints, database: Database, settings: Settings, off: timedelta
    ) -> None:
        """It changes neither the time of acceptance nor the watermark."""
        publisher = Publisher(
            EventRepository(database),
            EventStore(database),
            Sender(settings),
            settings,
            clock=lambda: datetime.now(UTC) + off,
        )
        before = await server_time(database)
        await publisher.publish_event("order.created", {}, source="/shop")
        await publisher.close()
        checkpoint = await checkpoints.measure()
        assert checkpoint.pending == 1
        assert checkpoint.oldest_pending is not None
        assert abs(checkpoint.oldest_pending - before) < timedelta(seconds=3)
        assert checkpoint.low_watermark is not None
        assert before - timedelta(seconds=8) < checkpoint.low_watermark <= checkpoint.oldest_pending

    @pytest.mark.parametrize("off_s", [3600, -3600], ids=["ahead", "behind"])
    async def test_the_clock_of_the_measuring_process_changes_nothing(
        self, settings: Settings, database: Database, off_s: int
    ) -> None:
        """A process with a clock that is wrong by an hour measures the same checkpoint."""
        before = await server_time(database)
        checkpoint = await asyncio.to_thread(measured_with_a_wrong_clock, settings, off_s)
        at = datetime.fromisoformat(checkpoint["at"])
        assert before <= at <= await server_time(database)
        assert before - timedelta(seconds=8) < datetime.fromisoformat(checkpoint["low_watermark"]) < at - LONGEST_INSERT


async def measured_while(
    settings: Settings, database: Database, command: str, collection: str, change: Callable[[], Awaitable[None]]
) -> Checkpoint:
    """Measure a checkpoint with a `change` just before the first such command on the collection."""
    name = settings.mongodb_database
    where = f"{name}.{collection}"
    slow = failing(database, name, namespace=where, failCommands=[command], blockConnection=True, blockTimeMS=1500)
    admin = database.client.admin
    entered = (await admin.command("configureFailPoint", "failCommand", mode="off"))["count"]
    async with open_database(settings, name) as own, slow:
        finding_out = asyncio.create_task(Checkpoints(own, LONGEST_INSERT).measure())
        await admin.command("waitForFailPoint", "failCommand", timesEntered=entered + 1, maxTimeMS=20_000)
        await change()
        return await finding_out


OFF_CLOCK = """
import datetime, sys, time
shift, real, real_time = float(sys.argv.pop(1)), datetime.datetime, time.time
class Instances(type):
    def __instancecheck__(cls, value):
        return isinstance(value, real)
class Off(real, metaclass=Instances):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(seconds=shift)
datetime.datetime, time.time = Off, lambda: real_time() + shift
from twofold.cli import main
main()
"""


def measured_with_a_wrong_clock(settings: Settings, off_s: int) -> Any:
    env = os.environ | {
        "MONGODB_URI": settings.mongodb_uri.get_secret_value(),
        "MONGODB_DATABASE": settings.mongodb_database,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_TOPIC": settings.kafka_topic,
    }
    command = [sys.executable, "-c", OFF_CLOCK, str(off_s), "status", "--json"]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


class TestCounts:
    async def test_every_state_has_its_own_count(self, checkpoints: Checkpoints, database: Database) -> None:
        """Entries in a final state do not hold the watermark back, but they are counted."""
        states = {"new": 5, "pending": 4, "dead": 3, "conflicting": 2, "unreadable": 1}
        for state, number in states.items():
            for _ in range(number):
                await insert_with_entry(database, state, seconds_ago=1000 if state == "dead" else 0)
        checkpoint = await checkpoints.measure()
        assert (checkpoint.pending, checkpoint.dead, checkpoint.conflicting, checkpoint.unreadable) == (9, 3, 2, 1)
        assert checkpoint.oldest_pending is not None
        assert checkpoint.oldest_pending > checkpoint.at - timedelta(seconds=60)

    async def test_counts_end_at_a_maximum(self, database: Database) -> None:
        """Without a maximum, a large backlog would leave no time for a checkpoint."""
        for state in ("new", "new", "pending", "pending", "dead", "dead", "dead", "dead"):
            await insert_with_entry(database, state)
        await log(database, *some_events(5))
        checkpoint = await Checkpoints(database, LONGEST_INSERT, max_count=3).measure()
        assert (checkpoint.pending, checkpoint.dead, checkpoint.conflicting, checkpoint.stored) == (3, 3, 0, 3)

    async def test_stored_counts_the_events_since_the_last_checkpoint(
        self, checkpoints: Checkpoints, database: Database
    ) -> None:
        await log(database, *some_events(3))
        assert (await checkpoints.record()).stored == 3
        assert (await checkpoints.record()).stored == 0
        await log(database, *some_events(2))
        assert (await checkpoints.measure()).stored == 2
        assert (await checkpoints.record()).stored == 2


@pytest.mark.guarantee("R9")
class TestLogRegressed:
    async def test_a_regressed_log_has_no_watermark_until_reconcile_has_run(
        self, checkpoints: Checkpoints, database: Database, settings: Settings
    ) -> None:
        """After the restore of a backup, the confirmed events have no outbox entries: `reconcile` finds the missing
        events.
        """
        await log(database, *some_events(3))
        last = an_event()
        await log(database, last)
        await accept(database, last)
        await Outbox(database).confirm([last.event_id], timedelta(days=1))
        assert not (await checkpoints.record()).log_regressed
        await database["event_store"].delete_one({"_id": last.event_id})
        for _ in range(2):
            checkpoint = await checkpoints.record()
            assert (checkpoint.log_regressed, checkpoint.low_watermark) == (True, None)
        await log(database, *some_events(2))
        assert (await checkpoints.record()).low_watermark is None, "later events do not fill the gap"
        await reconcile(database, settings, datetime.now(UTC) - HOUR)
        pending = await checkpoints.record()
        assert (pending.log_regressed, pending.pending) == (False, 1)
        await log(database, last)
        await Outbox(database).confirm([last.event_id], timedelta(days=1))
        complete = await checkpoints.record()
        assert (complete.log_regressed, complete.pending) == (False, 0)
        assert complete.low_watermark is not None


class TestAppendOnly:
    async def test_checkpoints_are_only_added(self, checkpoints: Checkpoints, database: Database) -> None:
        async def kept() -> list[Document]:
            return [document async for document in database["checkpoints"].find().sort("seq", 1)]

        assert await checkpoints.last() is None
        first = await checkpoints.record()
        before = await kept()
        await insert_with_entry(database, "new")
        second = await checkpoints.record()
        assert (await kept())[:1] == before
        assert await checkpoints.list(10) == [second, first]
        assert await checkpoints.last() == second

    async def test_measuring_writes_nothing(self, checkpoints: Checkpoints, database: Database) -> None:
        await checkpoints.measure()
        assert await database["checkpoints"].count_documents({}) == 0

    @pytest.mark.parametrize("function", ["relay", "operator"])
    def test_the_server_refuses_changes_of_checkpoints(self, stack: Stack, function: str) -> None:
        """The users of functions may only add checkpoints."""
        with MongoClient[Document](stack.function_environment(function)["MONGODB_URI"]) as client:
            kept = client[stack.database]["checkpoints"]
            for change in (lambda: kept.update_many({}, {"$set": {"dead": 0}}), lambda: kept.delete_many({})):
                with pytest.raises(OperationFailure) as refused:
                    change()
                assert refused.value.code == 13
