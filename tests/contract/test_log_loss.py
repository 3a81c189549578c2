"""A log that lost events on the real server: the alarm stays until the log was compared with `events`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from bson.timestamp import Timestamp
from pymongo import MongoClient

from tests.helpers import accept, an_event, log, some_events
from twofold.errors import Gone, Malformed, Unavailable
from twofold.event.model import Event
from twofold.kafka.lag import Backlog
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database, Document
from twofold.mongo.lock import hold_lock
from twofold.mongo.safe_time import server_time
from twofold.read.feed import Feed, FeedCursor
from twofold.settings import Settings
from twofold.storage.checkpoints import Checkpoint, Checkpoints
from twofold.storage.outbox import Outbox
from twofold.write.reconcile import reconcile
from twofold.write.relay import Relay

pytestmark = pytest.mark.guarantee("G5", "G10")

DAY = timedelta(days=1)
NO_INSERT = timedelta(seconds=-3)
"""The longest insert of a test without concurrent inserts: its feed is not behind the log."""
MUCH = 16_000_000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a first look that needs no waiting, and small chunks."""
    return settings.model_copy(update={"relay_first_look_s": -2.0, "relay_batch": 20})


async def no_backlog() -> Backlog:
    """Return the backlog of a consumer group that has read everything."""
    return Backlog({}, {})


def a_relay(
    database: Database, sender: Sender, settings: Settings, backlog: Callable[[], Awaitable[Backlog]] = no_backlog
) -> Relay:
    return Relay(database, sender, settings, time.monotonic, backlog)


@pytest.fixture
def relay(database: Database, sender: Sender, settings: Settings) -> Relay:
    return a_relay(database, sender, settings)


async def checkpoint_of(relay: Relay, *, make_due: bool = False) -> Checkpoint:
    run = await relay.run(make_due=make_due)
    assert run is not None
    assert run.checkpoint is not None
    return run.checkpoint


async def published(database: Database, number: int) -> list[Event]:
    """Return new events that are in `events` and in the log, and that no relay has confirmed."""
    events = some_events(number)
    await accept(database, *events)
    await log(database, *events)
    return events


async def cut(database: Database, events: Sequence[Event]) -> list[Document]:
    """Remove the events from the log. Return their documents, as a backup would have them."""
    lost = {"_id": {"$in": [event.event_id for event in events]}}
    documents = [document async for document in database["event_store"].find(lost)]
    assert (await database["event_store"].delete_many(lost)).deleted_count == len(events)
    return documents


def is_regressed(checkpoint: Checkpoint) -> bool:
    assert (checkpoint.low_watermark is None) == checkpoint.log_regressed
    return checkpoint.log_regressed


@pytest.mark.fault("A1")
class TestAlarm:
    async def test_the_alarm_outlasts_the_return_of_the_newest_event(
        self, database: Database, relay: Relay, settings: Settings
    ) -> None:
        """The newest event still has its outbox entry, so the relay brings it back at once. The others stay lost."""
        kept, lost = await published(database, 5), await published(database, 5)
        assert not is_regressed(await checkpoint_of(relay))
        newest = await published(database, 1)
        assert not is_regressed(await Checkpoints(database).record())
        await cut(database, [*lost, *newest])
        assert is_regressed(await checkpoint_of(relay))
        await log(database, *newest)
        for _ in range(10):
            assert is_regressed(await checkpoint_of(relay, make_due=True))
        assert await database["events"].count_documents({"outbox": {"$exists": True}}) == 0, "the symptom is gone"
        assert is_regressed(await Checkpoints(database).measure())
        done = await reconcile(database, settings, datetime.now(UTC) - DAY)
        assert (done.looked_at, done.reopened) == (len(kept) + 6, len(lost))
        after = await checkpoint_of(relay)
        assert (is_regressed(after), after.pending) == (False, len(lost))
        await log(database, *lost)
        complete = await checkpoint_of(relay, make_due=True)
        assert (is_regressed(complete), complete.pending) == (False, 0)

    async def test_the_alarm_outlasts_the_return_of_every_document(
        self, database: Database, relay: Relay, settings: Settings
    ) -> None:
        """Only `reconcile` begins the new epoch that stops readers with cursors beyond the restored documents."""
        lost = await published(database, 3)
        assert not is_regressed(await checkpoint_of(relay))
        backup = await cut(database, lost)
        assert is_regressed(await checkpoint_of(relay))
        await database["event_store"].insert_many(backup)
        assert is_regressed(await checkpoint_of(relay))
        await reconcile(database, settings, datetime.now(UTC) - DAY)
        assert not is_regressed(await checkpoint_of(relay))

    async def test_a_hole_in_the_middle_shows(self, database: Database, relay: Relay) -> None:
        """Old heads show the hole, although the newest documents are there."""
        events: list[Event] = []
        for _ in range(12):
            events += await published(database, 1)
            assert not is_regressed(await checkpoint_of(relay))
        await cut(database, events[5:6])
        assert is_regressed(await checkpoint_of(relay))

    async def test_a_loss_right_after_a_confirmation_shows(
        self, database: Database, relay: Relay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The relay confirms an event, and the log loses it before the checkpoint of the same run."""
        await published(database, 3)
        await relay.run()
        newest = await published(database, 1)

        async def lose() -> None:
            await cut(database, newest)

        monkeypatch.setattr(relay, "_look_up_dead_letters", lose)
        checkpoint = await checkpoint_of(relay)
        assert (checkpoint.pending, is_regressed(checkpoint)) == (0, True)

    async def test_an_event_that_is_stored_during_a_run_is_confirmed_below_a_head(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        (event,) = some_events(1)
        await accept(database, event)

        async def store_meanwhile() -> Backlog:
            await log(database, event)
            return Backlog({}, {})

        run = await a_relay(database, sender, settings, store_meanwhile).run()
        assert run is not None
        assert run.confirmed == 1
        heads = [
            head["_id"] async for entry in database["checkpoints"].find({"kind": "head"}) for head in entry["heads"]
        ]
        assert event.event_id in heads

    async def test_a_checkpoint_that_was_measured_before_the_loss_does_not_end_the_alarm(
        self, database: Database, relay: Relay
    ) -> None:
        """A relay whose lock expired may record late."""
        events = await published(database, 3)
        await checkpoint_of(relay)
        before = await database["checkpoints"].find_one({"kind": "checkpoint"}, sort=[("seq", -1)])
        assert before is not None
        await cut(database, events)
        assert is_regressed(await checkpoint_of(relay))
        late = {name: value for name, value in before.items() if name != "_id"} | {"seq": Timestamp(0, 0), "heads": []}
        await database["checkpoints"].insert_one(late)
        assert is_regressed(await checkpoint_of(relay))

    async def test_no_event_expires_while_the_log_has_regressed(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        """The only copies of lost events would go. They are more than one update can change."""
        short = settings.model_copy(update={"retention_days": 3 / 86_400})
        events = await published(database, 70)
        relay = a_relay(database, sender, short)
        assert not is_regressed(await checkpoint_of(relay))
        await cut(database, events[:10] + events[60:])
        late = await published(database, 5)
        assert is_regressed(await checkpoint_of(relay, make_due=True))
        await asyncio.sleep(6)  # the TTL monitor runs each second
        assert await database["events"].count_documents({}) == len(events) + len(late)
        soonest = await database["events"].find_one({}, sort=[("expires_at", 1)])
        assert soonest is not None
        assert soonest["expires_at"] > datetime.now(UTC) + DAY

    async def test_after_many_reconciliations_each_loss_shows_again(
        self, database: Database, relay: Relay, settings: Settings
    ) -> None:
        events = await published(database, 9)
        await checkpoint_of(relay)
        for last in (8, 5, 2):
            await cut(database, [events[last]])
            assert is_regressed(await checkpoint_of(relay)) == (last == 8), "the newest document is a head"
            await reconcile(database, settings, datetime.now(UTC) - DAY)
            await log(database, events[last])
            assert not is_regressed(await checkpoint_of(relay, make_due=True))
        await cut(database, [events[8]])
        assert is_regressed(await checkpoint_of(relay))


@pytest.mark.fault("A1", "A2")
class TestReconciliation:
    async def test_a_start_after_a_known_loss_is_refused(
        self, database: Database, relay: Relay, settings: Settings
    ) -> None:
        """The comparison would miss the lost events, and end the alarm."""
        events = await published(database, 3)
        await checkpoint_of(relay)
        await cut(database, events)
        await asyncio.sleep(1.1)  # `seq` has seconds
        with pytest.raises(Malformed, match="give this time or an earlier one"):
            await reconcile(database, settings, await server_time(database))
        assert is_regressed(await checkpoint_of(relay))

    async def test_a_loss_during_the_comparison_shows(
        self, database: Database, relay: Relay, settings: Settings
    ) -> None:
        """The comparison has looked at the events already."""
        await published(database, 30)
        await checkpoint_of(relay)

        def lose(looked_at: int) -> None:
            if looked_at == 30:
                with MongoClient[Document](settings.mongodb_uri.get_secret_value()) as client:
                    client[settings.mongodb_database]["event_store"].delete_many({})

        await reconcile(database, settings, datetime.now(UTC) - DAY, lose)
        assert is_regressed(await checkpoint_of(relay))

    async def test_it_waits_for_a_running_relay(self, database: Database, settings: Settings) -> None:
        """The relay may know the log from before the restore, and would confirm a lost event after the comparison."""
        async with hold_lock(database, "relay", timedelta(seconds=60)):
            comparing = asyncio.create_task(reconcile(database, settings, datetime.now(UTC) - DAY))
            await asyncio.sleep(0.5)
            assert not comparing.done()
        await comparing

    async def test_the_retention_of_another_process_does_not_matter(
        self, database: Database, settings: Settings
    ) -> None:
        """The relay has 7 days, the operator's shell the default of 30 days."""
        events = some_events(3)
        await accept(database, *events)
        await asyncio.sleep(2.1)  # `seq` has seconds
        backup = await server_time(database)
        await log(database, *events)
        await Outbox(database).confirm([event.event_id for event in events], timedelta(days=7))
        await cut(database, events)
        done = await reconcile(database, settings.model_copy(update={"retention_days": 30.0}), backup)
        assert done.reopened == 3


@pytest.mark.fault("A7")
class TestFeed:
    async def read(self, database: Database, cursor: FeedCursor) -> tuple[list[Event], FeedCursor]:
        batch = await Feed(database, NO_INSERT).read(cursor, 100, MUCH)
        return [document["_id"] for document in batch.documents], batch.cursor

    async def test_a_reader_is_stopped_at_a_loss_and_begins_again_after_the_restore(
        self, database: Database, relay: Relay, settings: Settings
    ) -> None:
        """Without it, the reader would pass the events that come back below its cursor."""
        first, lost = await published(database, 4), await published(database, 4)
        await checkpoint_of(relay)
        got, cursor = await self.read(database, FeedCursor.start())
        assert len(got) == 8
        backup = await cut(database, lost)
        await published(database, 2)
        for start in (cursor, FeedCursor.start()):
            with pytest.raises(Unavailable, match="reconcile"):
                await self.read(database, start)
        await database["event_store"].insert_many(backup)
        await checkpoint_of(relay)
        await reconcile(database, settings, datetime.now(UTC) - DAY)
        with pytest.raises(Gone, match="begin again with `since`: the time of the loss"):
            await self.read(database, cursor)
        got, cursor = await self.read(database, FeedCursor.start())
        assert len(got) == len(set(got)) == len(first) + len(lost) + 2
        assert await self.read(database, cursor) == ([], cursor)

    async def test_a_loss_while_a_batch_is_read_refuses_the_batch(
        self, database: Database, relay: Relay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events = await published(database, 3)
        await checkpoint_of(relay)
        feed = Feed(database, NO_INSERT)
        real = feed._log.read

        async def lose_first(session: object) -> object:
            await cut(database, events)
            return await real(session)  # type: ignore[arg-type]

        monkeypatch.setattr(feed._log, "read", lose_first)
        with pytest.raises(Unavailable):
            await feed.read(FeedCursor.start(), 100, MUCH)

    async def test_a_restore_after_the_reconciliation_is_noticed(
        self, database: Database, relay: Relay, settings: Settings
    ) -> None:
        """The backup's events come back below cursors of the new epoch."""
        await published(database, 3)
        await checkpoint_of(relay)
        lost = await published(database, 3)
        await checkpoint_of(relay)
        backup = await cut(database, lost)
        await checkpoint_of(relay)
        await reconcile(database, settings, datetime.now(UTC) - DAY)
        await log(database, an_event())
        _, cursor = await self.read(database, FeedCursor.start())
        await database["event_store"].insert_many(backup)
        with pytest.raises(Unavailable):
            await self.read(database, cursor)
        assert is_regressed(await checkpoint_of(relay))
        await reconcile(database, settings, datetime.now(UTC) - DAY)
        with pytest.raises(Gone):
            await self.read(database, cursor)
        assert not is_regressed(await checkpoint_of(relay, make_due=True))
