"""Tries of the relay: they wait for the backlog, they have an end, and an operator can begin again."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.helpers import accept, an_event, log, some_events
from twofold.event.model import Event
from twofold.kafka.lag import Backlog
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.mongo.safe_time import server_time
from twofold.settings import Settings
from twofold.storage.checkpoints import Checkpoints
from twofold.storage.outbox import Outbox
from twofold.write.relay import Relay
from twofold.write.relay_run import RelayRun

pytestmark = pytest.mark.guarantee("G10", "R9")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a first look that needs no waiting."""
    return settings.model_copy(update={"relay_first_look_s": -2.0, "relay_max_tries": 3, "relay_batch": 10})


async def no_backlog() -> Backlog:
    """Return the backlog of a consumer group that has read everything."""
    return Backlog({}, {})


@pytest.fixture
def relay(database: Database, sender: Sender, settings: Settings) -> Relay:
    return a_relay(database, sender, settings)


def a_relay(
    database: Database, sender: Sender, settings: Settings, backlog: Callable[[], Awaitable[Backlog]] = no_backlog
) -> Relay:
    return Relay(database, sender, settings, time.monotonic, backlog)


async def ran(relay: Relay) -> RelayRun:
    """Return the decisions of a run for which every entry is due."""
    run = await relay.run(make_due=True)
    assert run is not None
    return replace(run, checkpoint=None)


async def entry(database: Database, event: Event) -> Any:
    found = await database["events"].find_one({"_id": event.event_id})
    assert found is not None
    return found["outbox"]


@pytest.mark.fault("A5")
async def test_no_event_is_sent_again_while_its_record_waits(
    database: Database, sender: Sender, settings: Settings
) -> None:
    """`store` is unavailable for hours. When the group has passed the records, the lost events are sent, once."""
    events = some_events(50)
    await accept(database, *events)
    now = await server_time(database)
    backlog = Backlog({0: 50}, {0: now - timedelta(hours=5)})

    async def read() -> Backlog:
        return backlog

    relay = a_relay(database, sender, settings, read)
    for _ in range(5):
        await database["events"].update_many({}, {"$set": {"outbox.sent_at": now - timedelta(hours=4)}})
        assert await ran(relay) == RelayRun(held=50)
    await log(database, *events[:30])
    backlog = Backlog({0: 3}, {0: now + timedelta(minutes=1)})
    assert await ran(relay) == RelayRun(confirmed=30, resent=20)
    backlog = Backlog({0: 23}, {0: now + timedelta(minutes=1)})
    await database["events"].update_many({}, {"$set": {"outbox.sent_at": now + timedelta(minutes=2)}})
    assert await ran(relay) == RelayRun(held=20)


@pytest.mark.fault("A5")
async def test_behind_a_large_backlog_a_run_sends_one_batch(
    database: Database, sender: Sender, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records were lost, so the backlog holds none of them. The rest waits for the next runs."""
    monkeypatch.setattr("twofold.write.send_window.PAUSE_S", 0.01)
    await accept(database, *some_events(25))
    now = await server_time(database)

    async def large() -> Backlog:
        return Backlog({0: 1_000_000}, {0: now + timedelta(minutes=1)})

    relay = a_relay(database, sender, settings, large)
    assert await ran(relay) == RelayRun(resent=10, held=15)
    await database["events"].update_many({"outbox.tries": 1}, {"$set": {"outbox.sent_at": now + timedelta(minutes=2)}})
    assert await ran(relay) == RelayRun(resent=10, held=15)


@pytest.mark.fault("A10")
class TestStuck:
    async def test_an_event_that_never_arrives_ends_as_stuck_and_holds_nothing_back(
        self, database: Database, relay: Relay
    ) -> None:
        """It is counted and listed, the low watermark passes it, and it does not expire."""
        lost = an_event()
        await accept(database, lost)
        for _ in range(3):
            assert await ran(relay) == RelayRun(resent=1)
        assert await ran(relay) == RelayRun(stuck=1)
        assert await ran(relay) == RelayRun()
        checkpoint = await Checkpoints(database, timedelta(seconds=-3)).measure()
        assert (checkpoint.stuck, checkpoint.pending, checkpoint.oldest_pending) == (1, 0, None)
        (listed,) = await Outbox(database).in_state("stuck", 10)
        assert (listed["_id"], listed["outbox"]["tries"], listed["source"]) == (lost.event_id, 3, "/shop")
        assert checkpoint.low_watermark is not None
        assert checkpoint.low_watermark > listed["accepted_at"]
        found = await database["events"].find_one({"_id": lost.event_id})
        assert found is not None
        assert "expires_at" not in found

    async def test_an_operator_begins_again(self, database: Database, relay: Relay) -> None:
        lost, arriving = some_events(2)
        await accept(database, lost, arriving)
        for _ in range(4):
            await ran(relay)
        assert await Outbox(database).retry([lost.event_id, arriving.event_id]) == 2
        await log(database, arriving)
        assert await ran(relay) == RelayRun(resent=1, confirmed=1)
        assert (await entry(database, lost))["tries"] == 1

    async def test_an_event_in_the_backlog_or_with_a_dead_letter_is_not_stuck(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        event = an_event()
        await accept(database, event)
        await database["events"].update_one({}, {"$set": {"outbox.tries": 99, "outbox.state": "pending"}})
        await database["events"].update_one({}, {"$set": {"outbox.next_try": await server_time(database)}})
        now = await server_time(database)

        async def waiting() -> Backlog:
            return Backlog({0: 1}, {0: now - timedelta(minutes=1)})

        assert await ran(a_relay(database, sender, settings, waiting)) == RelayRun(held=1)


@pytest.mark.fault("A11")
class TestWayBack:
    async def test_an_unreadable_event_can_be_retried(self, database: Database, relay: Relay) -> None:
        """A person corrected the document."""
        event = an_event()
        await accept(database, event)
        await database["events"].update_one({}, {"$set": {"payload": {"total": 4}}})
        assert await ran(relay) == RelayRun(unreadable=1)
        await database["events"].update_one({}, {"$set": {"payload": {"total": 3}}})
        assert await ran(relay) == RelayRun()
        assert await Outbox(database).retry([event.event_id]) == 1
        assert await ran(relay) == RelayRun(resent=1)

    @pytest.mark.parametrize("field", ["priority", "metadata.tenant"])
    async def test_a_field_of_a_newer_version_makes_the_relay_wait(
        self, database: Database, relay: Relay, field: str
    ) -> None:
        """An old relay runs beside a newer `publish`. A newer relay then sends the event."""
        event = an_event()
        await accept(database, event)
        await database["events"].update_one({}, {"$set": {field: "high"}})
        assert await ran(relay) == RelayRun(held=1)
        assert (await entry(database, event))["state"] == "pending"
        await database["events"].update_one({}, {"$unset": {field: ""}})
        assert await ran(relay) == RelayRun(resent=1)

    async def test_waiting_for_a_newer_version_has_an_end(self, database: Database, relay: Relay) -> None:
        await accept(database, an_event())
        await database["events"].update_one({}, {"$set": {"priority": "high"}})
        for _ in range(3):
            assert await ran(relay) == RelayRun(held=1)
        assert await ran(relay) == RelayRun(stuck=1)

    @pytest.mark.parametrize(
        "change", [{"metadata": 5}, {"metadata": None}, {"digest": None}, {"payload": "text"}, {"aggregate_id": 7}]
    )
    async def test_a_changed_document_stops_no_other_event(
        self, database: Database, relay: Relay, change: dict[str, Any]
    ) -> None:
        changed, event = some_events(2)
        await accept(database, changed, event)
        await database["events"].update_one({"_id": changed.event_id}, {"$set": change})
        assert await ran(relay) == RelayRun(unreadable=1, resent=1)

    async def test_a_document_without_a_digest_stops_no_other_event(self, database: Database, relay: Relay) -> None:
        changed, event = some_events(2)
        await accept(database, changed, event)
        await database["events"].update_one({"_id": changed.event_id}, {"$unset": {"digest": ""}})
        assert await ran(relay) == RelayRun(unreadable=1, resent=1)


@pytest.mark.fault("A6")
async def test_relay_run_makes_every_entry_due(database: Database, relay: Relay) -> None:
    """An operator who calls `twofold relay run` does not wait for a back-off of an hour."""
    await accept(database, *some_events(35))
    assert await ran(relay) == RelayRun(resent=35)
    run = await relay.run()
    assert run is not None
    assert (run.resent, run.held) == (0, 0)
    assert await ran(relay) == RelayRun(resent=35)
