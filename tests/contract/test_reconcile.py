"""`reconcile` on the real server: what a restored log lacks is marked again, and the relay brings it back."""

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
    """In pieces of 7, and with a first look that never has to be waited for."""
    return settings.model_copy(update={"relay_first_look_s": -2.0, "relay_batch": 7})


async def confirmed(database: Database, number: int) -> list[Event]:
    """New events, in `events` and in the log, whose clocks have started."""
    events = some_events(number)
    await accept(database, *events)
    await log(database, *events)
    await Outbox(database).confirm([event.event_id for event in events], DAY)
    return events


async def lose(database: Database, events: Sequence[Event]) -> None:
    """Restore a backup that was made before these were stored."""
    await database["event_store"].delete_many({"_id": {"$in": [event.event_id for event in events]}})


async def marked(database: Database) -> int:
    return await database["events"].count_documents({"outbox.state": "pending", "expires_at": {"$exists": False}})


async def test_what_the_log_lacks_is_marked_and_expires_no_more(database: Database, settings: Settings) -> None:
    """And what it has is let alone. What it did is written down among the checkpoints."""
    events = await confirmed(database, 20)
    await lose(database, events[15:])
    since = datetime.now(UTC) - DAY
    assert await reconcile(database, settings, since) == Reconciliation(looked_at=20, reopened=5)
    assert await marked(database) == 5
    assert await database["events"].count_documents({"expires_at": {"$exists": True}}) == 15
    (line,) = [found async for found in database["checkpoints"].find()]
    assert (line["kind"], line["looked_at"], line["reopened"]) == ("reconciliation", 20, 5)


async def test_what_was_accepted_before_the_backup_and_logged_after_it_is_marked_too(
    database: Database, settings: Settings
) -> None:
    """Kafka was away while the backup was made."""
    events = some_events(3)
    await accept(database, *events)
    await asyncio.sleep(2.1)  # `seq` has seconds
    backup = await server_time(database)
    await log(database, *events)
    await Outbox(database).confirm([event.event_id for event in events], timedelta(days=settings.retention_days))
    await lose(database, events)
    assert await reconcile(database, settings, backup) == Reconciliation(looked_at=3, reopened=3)


async def test_what_was_in_the_log_before_the_backup_is_not_asked_for(database: Database, settings: Settings) -> None:
    events = await confirmed(database, 3)
    await lose(database, events)
    later = await server_time(database) + timedelta(seconds=5)
    assert await reconcile(database, settings, later) == Reconciliation(looked_at=3)


async def test_the_relay_then_refills_the_log_and_the_checkpoints_show_it(
    database: Database, settings: Settings
) -> None:
    """Set back; then pending; then complete."""

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
    await log(database, *events[5:])  # as `store` does with what was sent
    await database["events"].update_many(
        {"outbox": {"$exists": True}}, {"$set": {"outbox.next_try": datetime.now(UTC) - DAY}}
    )
    run = await relay.run()
    await asyncio.to_thread(sender.close, 0.0)
    assert run is not None
    assert run.checkpoint is not None
    assert (run.confirmed, run.checkpoint.pending) == (15, 0)
    assert run.checkpoint.low_watermark is not None


async def test_stopped_half_way_it_is_run_again(database: Database, settings: Settings) -> None:
    """What it marked by then is marked; the second run finds the rest."""
    events = await confirmed(database, 30)
    await lose(database, events)
    since = datetime.now(UTC) - DAY

    def stop(looked_at: int) -> None:
        if looked_at == 14:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await reconcile(database, settings, since, stop)
    assert await marked(database) == 14
    assert await database["checkpoints"].count_documents({}) == 0, "and the log isn't trusted yet"
    assert await reconcile(database, settings, since) == Reconciliation(looked_at=30, reopened=16)
    assert await marked(database) == 30


async def test_it_tells_how_far_it_has_come(database: Database, settings: Settings) -> None:
    await confirmed(database, 20)
    heard: list[int] = []
    await reconcile(database, settings, datetime.now(UTC) - DAY, heard.append)
    assert heard == [7, 14, 20]


async def test_what_is_older_than_the_backup_is_not_looked_for(database: Database, settings: Settings) -> None:
    """By the server's time of its insert."""
    events = await confirmed(database, 5)
    await lose(database, events)
    assert (await reconcile(database, settings, datetime.now(UTC) + DAY)).reopened == 0


async def test_other_content_under_an_id_is_counted_and_nothing_is_overwritten(
    database: Database, settings: Settings
) -> None:
    (event,) = await confirmed(database, 1)
    await lose(database, [event])
    await log(database, altered(event))
    assert await reconcile(database, settings, datetime.now(UTC) - DAY) == Reconciliation(looked_at=1, conflicting=1)


async def test_a_conflict_that_it_found_is_stated(database: Database, settings: Settings) -> None:
    """The log has another event under its id: what `events` has must not expire unseen."""
    (event,) = await confirmed(database, 1)
    await lose(database, [event])
    await log(database, altered(event))
    await reconcile(database, settings, datetime.now(UTC) - DAY)
    document = await database["events"].find_one({"_id": event.event_id})
    assert document is not None
    assert "expires_at" not in document
    stated = await Checkpoints(database, timedelta(seconds=4)).measure()
    assert stated.conflicting + stated.pending == 1
