"""`reconcile` on a real server: events that a restored log lacks get an outbox entry, and the relay sends them."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tests.helpers import accept, altered, log, some_events
from twofold.event.model import Event
from twofold.kafka.lag import Backlog
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.mongo.safe_time import server_time
from twofold.settings import Settings
from twofold.storage.checkpoints import Checkpoints
from twofold.storage.outbox import Outbox
from twofold.write.reconcile import Reconciliation, reconcile
from twofold.write.relay import Relay

pytestmark = pytest.mark.guarantee("G1", "G5", "R9")

DAY = timedelta(days=1)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings with chunks of 7, and with entries that are due at once."""
    return settings.model_copy(update={"relay_first_look_s": -2.0, "relay_batch": 7})


async def confirmed(database: Database, number: int) -> list[Event]:
    """Insert new events into `events` and the log, and confirm them."""
    events = some_events(number)
    await accept(database, *events)
    await log(database, *events)
    await Outbox(database).confirm([event.event_id for event in events], DAY)
    return events


async def lose(database: Database, events: Sequence[Event]) -> None:
    """Restore a backup from before these events."""
    await database["event_store"].delete_many({"_id": {"$in": [event.event_id for event in events]}})


async def with_due_entry(database: Database) -> int:
    return await database["events"].count_documents({"outbox.state": "pending", "expires_at": {"$exists": False}})


async def test_an_event_that_the_log_lacks_gets_an_entry_and_no_longer_expires(
    database: Database, settings: Settings
) -> None:
    """The other events do not change. The result is recorded among the checkpoints."""
    events = await confirmed(database, 20)
    await lose(database, events[15:])
    since = datetime.now(UTC) - DAY
    assert await reconcile(database, settings, since) == Reconciliation(looked_at=20, reopened=5)
    assert await with_due_entry(database) == 5
    assert await database["events"].count_documents({"expires_at": {"$exists": True}}) == 15
    (line,) = [found async for found in database["checkpoints"].find()]
    assert (line["kind"], line["looked_at"], line["reopened"]) == ("reconciliation", 20, 5)


async def test_an_event_accepted_before_the_backup_and_stored_after_it_gets_an_entry(
    database: Database, settings: Settings
) -> None:
    """Kafka was unavailable during the backup."""
    events = some_events(3)
    await accept(database, *events)
    await asyncio.sleep(2.1)  # the resolution of `seq` is a second
    backup = await server_time(database)
    await log(database, *events)
    await Outbox(database).confirm([event.event_id for event in events], timedelta(days=settings.retention_days))
    await lose(database, events)
    assert await reconcile(database, settings, backup) == Reconciliation(looked_at=3, reopened=3)


async def test_events_from_before_the_backup_are_not_looked_up(database: Database, settings: Settings) -> None:
    events = await confirmed(database, 3)
    await lose(database, events)
    later = await server_time(database) + timedelta(seconds=5)
    assert await reconcile(database, settings, later) == Reconciliation(looked_at=3)


async def test_the_relay_then_completes_the_log_and_checkpoints_show_it(database: Database, settings: Settings) -> None:
    """The log is regressed, then events are pending, then the log is complete."""

    async def nothing_waits() -> Backlog:
        return Backlog({}, {})

    sender = Sender(settings)
    relay = Relay(database, sender, settings, time.monotonic, nothing_waits)
    events = await confirmed(database, 20)
    assert (await relay.run()) is not None
    await lose(database, events[5:])
    run = await relay.run()
    assert run is not None
    assert run.checkpoint is not None
    assert run.checkpoint.log_regressed
    await reconcile(database, settings, datetime.now(UTC) - DAY)
    run = await relay.run()
    assert run is not None
    assert run.checkpoint is not None
    assert (run.resent, run.checkpoint.log_regressed, run.checkpoint.pending) == (15, False, 15)
    await log(database, *events[5:])  # as `store` does with sent events
    await database["events"].update_many(
        {"outbox": {"$exists": True}}, {"$set": {"outbox.next_try": datetime.now(UTC) - DAY}}
    )
    run = await relay.run()
    await asyncio.to_thread(sender.close, 0.0)
    assert run is not None
    assert run.checkpoint is not None
    assert (run.confirmed, run.checkpoint.pending) == (15, 0)
    assert run.checkpoint.low_watermark is not None


async def test_an_interrupted_run_is_run_again(database: Database, settings: Settings) -> None:
    """The entries of the first run stay, and the second run finds the rest."""
    events = await confirmed(database, 30)
    await lose(database, events)
    since = datetime.now(UTC) - DAY

    def stop(looked_at: int) -> None:
        if looked_at == 14:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await reconcile(database, settings, since, stop)
    assert await with_due_entry(database) == 14
    assert await database["checkpoints"].count_documents({}) == 0, "the log is not trusted yet"
    assert await reconcile(database, settings, since) == Reconciliation(looked_at=30, reopened=16)
    assert await with_due_entry(database) == 30


async def test_it_reports_its_progress(database: Database, settings: Settings) -> None:
    await confirmed(database, 20)
    heard: list[int] = []
    await reconcile(database, settings, datetime.now(UTC) - DAY, heard.append)
    assert heard == [7, 14, 20]


async def test_events_older_than_since_are_not_looked_up(database: Database, settings: Settings) -> None:
    """Their age is the server's time of the insert."""
    events = await confirmed(database, 5)
    await lose(database, events)
    assert (await reconcile(database, settings, datetime.now(UTC) + DAY)).reopened == 0


async def test_a_conflict_is_counted_and_changes_no_event(database: Database, settings: Settings) -> None:
    (event,) = await confirmed(database, 1)
    await lose(database, [event])
    await log(database, altered(event))
    assert await reconcile(database, settings, datetime.now(UTC) - DAY) == Reconciliation(looked_at=1, conflicting=1)


async def test_a_conflict_is_in_the_checkpoints(database: Database, settings: Settings) -> None:
    """The log has another event under the id, so the event in `events` must not expire unnoticed."""
    (event,) = await confirmed(database, 1)
    await lose(database, [event])
    await log(database, altered(event))
    await reconcile(database, settings, datetime.now(UTC) - DAY)
    document = await database["events"].find_one({"_id": event.event_id})
    assert document is not None
    assert "expires_at" not in document
    checkpoint = await Checkpoints(database, timedelta(seconds=4)).measure()
    assert checkpoint.conflicting + checkpoint.pending == 1
