"""Checkpoints of completeness on the real server: never more than is true."""

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


async def mark(database: Database, state: str, seconds_ago: int = 0) -> datetime:
    """Put an event into `events` with a mark of that state, accepted that long ago by the server's clock."""
    accepted = Timestamp(int((await server_time(database)).timestamp()) - seconds_ago, 1)
    event = an_event()
    await database["events"].insert_one(
        {**event.to_document(), "seq": accepted, "outbox": {"state": state, "tries": 0}}
    )
    return accepted.as_datetime()


class TestCompleteUpTo:
    @pytest.mark.parametrize("state", ["new", "pending"])
    async def test_it_is_never_beyond_the_oldest_pending_event(
        self, checkpoints: Checkpoints, database: Database, state: str
    ) -> None:
        """However long it has been waiting, and however much came after it."""
        oldest = await mark(database, state, seconds_ago=1000)
        await mark(database, "new", seconds_ago=500)
        await mark(database, "pending", seconds_ago=600)
        stated = await checkpoints.measure()
        assert stated.low_watermark == stated.oldest_pending == oldest

    async def test_without_pending_events_it_follows_the_servers_time(
        self, checkpoints: Checkpoints, database: Database
    ) -> None:
        before = await server_time(database)
        stated = await checkpoints.measure()
        assert stated.low_watermark is not None
        assert before - timedelta(seconds=8) < stated.low_watermark < stated.at - LONGEST_INSERT
        assert before <= stated.at <= await server_time(database)
        assert stated.oldest_pending is None

    async def test_it_stays_below_what_an_insert_under_way_may_add(
        self, checkpoints: Checkpoints, database: Database
    ) -> None:
        """An event gets its `seq` before it can be seen: what is stated meanwhile must not speak of its moment."""
        event = an_event()
        async with database.client.start_session() as session:
            await session.start_transaction()
            await database["events"].insert_one(
                EventRepository.encode(event.to_document(), datetime.now(UTC)), session=session
            )
            await asyncio.sleep(1.5)
            stated = await checkpoints.measure()
            await session.commit_transaction()
        document = await database["events"].find_one({"_id": event.event_id})
        assert document is not None
        assert stated.pending == 0, "it could not be seen then"
        assert stated.low_watermark is not None
        assert stated.low_watermark < document["seq"].as_datetime()

    @pytest.mark.parametrize(("before", "after"), [("dead", "pending"), ("pending", "dead")])
    async def test_a_mark_that_changes_its_state_meanwhile_is_said_to_be_in_the_first(
        self, settings: Settings, database: Database, before: str, after: str
    ) -> None:
        """A letter is redriven, or an event given up, between two of the checkpoint's reads."""
        accepted = await mark(database, before, seconds_ago=1000)

        async def change() -> None:
            await database["events"].update_one({}, {"$set": {"outbox.state": after}})

        stated = await stated_while(settings, database, "aggregate", "events", change)
        assert (stated.dead, stated.pending) == ((1, 0) if before == "dead" else (0, 1))
        assert stated.low_watermark is not None
        assert stated.dead or stated.low_watermark <= accepted

    async def test_a_reconciliation_that_ends_meanwhile_does_not_end_its_caution(
        self, settings: Settings, database: Database
    ) -> None:
        """The last marks of `reconcile`, and its entry, come while a checkpoint is made of a log that was set back."""
        await log(database, an_event())
        checkpoints = Checkpoints(database, LONGEST_INSERT)
        await checkpoints.record()
        await database["event_store"].delete_many({})
        await mark(database, "dead", seconds_ago=1000)
        before = await checkpoints.begin_reconciliation(datetime.now(UTC) - HOUR)

        async def end() -> None:
            await database["events"].update_one({}, {"$set": {"outbox.state": "pending"}})
            await checkpoints.record_reconciliation(before, {})

        stated = await stated_while(settings, database, "find", "checkpoints", end)
        assert (stated.log_regressed, stated.low_watermark) == (True, None)
        again = await checkpoints.measure()
        assert (again.log_regressed, again.low_watermark) == (False, again.oldest_pending)

    @pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])
    async def test_a_publishers_clock_changes_nothing(
        self, checkpoints: Checkpoints, database: Database, settings: Settings, off: timedelta
    ) -> None:
        """Not when an event was accepted, and not how far the log is complete."""
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
        stated = await checkpoints.measure()
        assert stated.pending == 1
        assert stated.oldest_pending is not None
        assert abs(stated.oldest_pending - before) < timedelta(seconds=3)
        assert stated.low_watermark is not None
        assert before - timedelta(seconds=8) < stated.low_watermark <= stated.oldest_pending

    @pytest.mark.parametrize("off_s", [3600, -3600], ids=["ahead", "behind"])
    async def test_the_clock_of_who_states_it_changes_nothing(
        self, settings: Settings, database: Database, off_s: int
    ) -> None:
        """A process whose clock is an hour off says what any other says."""
        before = await server_time(database)
        stated = await asyncio.to_thread(status_by_a_clock_that_is_off, settings, off_s)
        at = datetime.fromisoformat(stated["at"])
        assert before <= at <= await server_time(database)
        assert before - timedelta(seconds=8) < datetime.fromisoformat(stated["low_watermark"]) < at - LONGEST_INSERT


async def stated_while(
    settings: Settings, database: Database, command: str, collection: str, change: Callable[[], Awaitable[None]]
) -> Checkpoint:
    """What is found out if `change` happens just before the first such command on the collection is carried out."""
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


def status_by_a_clock_that_is_off(settings: Settings, off_s: int) -> Any:
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
    async def test_each_state_is_counted_as_its_own(self, checkpoints: Checkpoints, database: Database) -> None:
        """Those that are given up hold nothing back, but are never left unsaid."""
        states = {"new": 5, "pending": 4, "dead": 3, "conflicting": 2, "unreadable": 1}
        for state, number in states.items():
            for _ in range(number):
                await mark(database, state, seconds_ago=1000 if state == "dead" else 0)
        stated = await checkpoints.measure()
        assert (stated.pending, stated.dead, stated.conflicting, stated.unreadable) == (9, 3, 2, 1)
        assert stated.oldest_pending is not None
        assert stated.oldest_pending > stated.at - timedelta(seconds=60)

    async def test_no_more_is_counted_than_there_is_time_for(self, database: Database) -> None:
        """However large the backlog: without a bound, it would leave no checkpoint at all."""
        for state in ("new", "new", "pending", "pending", "dead", "dead", "dead", "dead"):
            await mark(database, state)
        await log(database, *some_events(5))
        stated = await Checkpoints(database, LONGEST_INSERT, max_count=3).measure()
        assert (stated.pending, stated.dead, stated.conflicting, stated.stored) == (3, 3, 0, 3)

    async def test_stored_are_those_since_the_last_checkpoint(
        self, checkpoints: Checkpoints, database: Database
    ) -> None:
        await log(database, *some_events(3))
        assert (await checkpoints.record()).stored == 3
        assert (await checkpoints.record()).stored == 0
        await log(database, *some_events(2))
        assert (await checkpoints.measure()).stored == 2
        assert (await checkpoints.record()).stored == 2


@pytest.mark.guarantee("R9")
class TestSetBack:
    async def test_nothing_is_stated_of_a_log_that_lacks_what_it_had_until_it_is_compared(
        self, checkpoints: Checkpoints, database: Database, settings: Settings
    ) -> None:
        """Somebody restored a backup, whose marks are long gone: then `reconcile` finds what is missing."""
        await log(database, *some_events(3))
        last = an_event()
        await log(database, last)
        await accept(database, last)
        await Outbox(database).confirm([last.event_id], timedelta(days=1))
        assert not (await checkpoints.record()).log_regressed
        await database["event_store"].delete_one({"_id": last.event_id})
        for _ in range(2):
            stated = await checkpoints.record()
            assert (stated.log_regressed, stated.low_watermark) == (True, None)
        await log(database, *some_events(2))
        assert (await checkpoints.record()).low_watermark is None, "what came later doesn't fill the gap"
        await reconcile(database, settings, datetime.now(UTC) - HOUR)
        pending = await checkpoints.record()
        assert (pending.log_regressed, pending.pending) == (False, 1)
        await log(database, last)
        await Outbox(database).confirm([last.event_id], timedelta(days=1))
        complete = await checkpoints.record()
        assert (complete.log_regressed, complete.pending) == (False, 0)
        assert complete.low_watermark is not None


class TestKept:
    async def test_each_is_added_and_none_is_changed(self, checkpoints: Checkpoints, database: Database) -> None:
        async def kept() -> list[Document]:
            return [document async for document in database["checkpoints"].find().sort("seq", 1)]

        assert await checkpoints.last() is None
        first = await checkpoints.record()
        before = await kept()
        await mark(database, "new")
        second = await checkpoints.record()
        assert (await kept())[:1] == before
        assert await checkpoints.list(10) == [second, first]
        assert await checkpoints.last() == second

    async def test_finding_out_writes_nothing(self, checkpoints: Checkpoints, database: Database) -> None:
        await checkpoints.measure()
        assert await database["checkpoints"].count_documents({}) == 0

    @pytest.mark.parametrize("function", ["relay", "operator"])
    def test_the_server_refuses_to_change_them(self, stack: Stack, function: str) -> None:
        """To those who may add to them."""
        with MongoClient[Document](stack.function_environment(function)["MONGODB_URI"]) as client:
            kept = client[stack.database]["checkpoints"]
            for change in (lambda: kept.update_many({}, {"$set": {"dead": 0}}), lambda: kept.delete_many({})):
                with pytest.raises(OperationFailure) as refused:
                    change()
                assert refused.value.code == 13
