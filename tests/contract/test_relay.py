"""The relay on real servers: outbox entries, retention, and sending again."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from bson.timestamp import Timestamp
from kafka import KafkaConsumer, TopicPartition

from tests.helpers import (
    accept,
    altered,
    an_event,
    delivered,
    eventually,
    failing,
    listened,
    log,
    some_events,
    without_kafka,
)
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.errors import Conflict, Unavailable
from twofold.event.model import Event
from twofold.kafka.lag import Backlog
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database, open_database
from twofold.mongo.safe_time import server_time
from twofold.settings import Settings
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.failed_delivery import DeadLetter
from twofold.storage.outbox import Outbox
from twofold.write.relay import Relay, open_relay
from twofold.write.relay_run import RelayRun

pytestmark = pytest.mark.guarantee("G5", "R9")

MINUTE = timedelta(minutes=1)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings with entries that are due at once: a new entry is due by the server's whole seconds."""
    return settings.model_copy(update={"relay_first_look_s": -2.0})


async def nothing_waits() -> Backlog:
    """Return the backlog of a consumer group without waiting records."""
    return Backlog({}, {})


def a_relay(
    database: Database,
    sender: Sender,
    settings: Settings,
    seconds: Callable[[], float] = time.monotonic,
    backlog: Callable[[], Awaitable[Backlog]] = nothing_waits,
) -> Relay:
    return Relay(database, sender, settings, seconds, backlog)


@pytest.fixture
def relay(database: Database, sender: Sender, settings: Settings) -> Relay:
    return a_relay(database, sender, settings)


async def ran(relay: Relay) -> RelayRun | None:
    """Run the relay, and return the result without its checkpoint. Checkpoints have their own tests."""
    run = await relay.run()
    return run and replace(run, checkpoint=None)


async def keep_dead_letter(database: Database, event: Event) -> None:
    headers, body = delivered(event)
    dead_letter = DeadLetter(headers, body, Conflict("other content"), 0, 0, DeliveredEvent(event.to_document()))
    await DeadLetters(database).keep(dead_letter)


async def document(database: Database, event: Event) -> dict[str, Any]:
    found = await database["events"].find_one({"_id": event.event_id})
    assert found is not None
    return found


async def make_due(database: Database) -> None:
    """Make every outbox entry due."""
    due = {"$set": {"outbox.next_try": datetime.now(UTC) - MINUTE}}
    await database["events"].update_many({"outbox.next_try": {"$exists": True}}, due)


def sent(settings: Settings, number: int) -> list[str]:
    """Return the ids of the first `number` events in the topic."""
    found: list[str] = []
    with KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest") as consumer:
        partitions = consumer.partitions_for_topic(settings.kafka_topic) or set()
        consumer.assign([TopicPartition(settings.kafka_topic, partition) for partition in partitions])
        consumer.seek_to_beginning()
        deadline = time.monotonic() + 20
        while len(found) < number and time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=200).values():
                found += [dict(record.headers)["ce_id"].decode() for record in records]
    return found


class TestConfirmed:
    @pytest.mark.guarantee("R34")
    async def test_confirming_removes_the_entry_and_starts_the_retention(
        self, relay: Relay, database: Database, settings: Settings
    ) -> None:
        """`expires_at` is the time of the look into the log, by the server's clock, plus RETENTION_DAYS."""
        event = an_event()
        await accept(database, event)
        await log(database, event)
        before = await server_time(database)
        assert await ran(relay) == RelayRun(confirmed=1)
        found = await document(database, event)
        assert "outbox" not in found
        started = found["expires_at"].replace(tzinfo=UTC) - timedelta(days=settings.retention_days)
        assert before <= started <= await server_time(database)
        assert settings.retention_days == 3.0

    async def test_the_expiry_is_computed_by_the_server(self, settings: Settings, database: Database) -> None:
        """The update contains an expression, so a client with a wrong clock cannot expire an event too early."""
        event = an_event()
        await accept(database, event)
        async with listened(settings) as (own, commands):
            assert await Outbox(own).confirm([event.event_id], timedelta(days=3)) == 1
        (update,) = [sent.command for sent in commands.sent if sent.command_name == "update"]
        stages = update["updates"][0]["u"]
        assert stages[0] == {"$set": {"confirmed_at": "$$NOW", "expires_at": {"$add": ["$$NOW", 3 * 86_400_000]}}}

    async def test_confirming_twice_does_not_move_the_expiry(self, database: Database) -> None:
        """Two runs can overlap after a lock has expired. The second run finds no entry."""
        event, outbox = an_event(), Outbox(database)
        await accept(database, event)
        assert await outbox.confirm([event.event_id], timedelta(days=3)) == 1
        before = await document(database, event)
        assert await outbox.confirm([event.event_id], timedelta(days=9)) == 0
        assert await document(database, event) == before

    async def test_without_its_event_in_the_log_an_entry_stays(self, relay: Relay, database: Database) -> None:
        """An acknowledgement of Kafka only proves that the event was sent."""
        event = an_event()
        await accept(database, event)
        assert await ran(relay) == RelayRun(resent=1)
        found = await document(database, event)
        assert "outbox" in found
        assert "expires_at" not in found

    async def test_an_entry_that_is_not_due_does_not_change(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        """The first look comes later, counted from the insert by the server's clock."""
        event = an_event()
        await accept(database, event)
        await log(database, event)
        relay = a_relay(database, sender, settings.model_copy(update={"relay_first_look_s": 60.0}))
        assert await ran(relay) == RelayRun()
        assert (await document(database, event))["outbox"] == {"state": "new", "tries": 0}

    async def test_a_confirmed_event_is_not_looked_at_again(self, relay: Relay, database: Database) -> None:
        """A later run must not restart its retention."""
        event = an_event()
        await accept(database, event)
        await log(database, event)
        await relay.run()
        before = await document(database, event)
        assert await ran(relay) == RelayRun()
        assert await document(database, event) == before

    async def test_a_run_continues_until_no_entry_is_due(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        small = settings.model_copy(update={"relay_batch": 7})
        events = some_events(50)
        await accept(database, *events)
        await log(database, *events)
        assert await ran(a_relay(database, sender, small)) == RelayRun(confirmed=50)

    async def test_a_run_ends_when_its_budget_is_spent(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        """The next run takes the rest. The test passes a clock."""
        events = some_events(50)
        await accept(database, *events)
        await log(database, *events)
        small = settings.model_copy(update={"relay_batch": 7, "relay_budget_s": 2.5})
        ticks = iter(range(100))
        assert await ran(a_relay(database, sender, small, lambda: next(ticks))) == RelayRun(confirmed=14)

    async def test_a_run_decides_on_every_kind_of_event_at_once(self, relay: Relay, database: Database) -> None:
        confirmed, missing = some_events(5), some_events(4)
        conflicting, dead = some_events(3), some_events(2)
        await accept(database, *confirmed, *missing, *conflicting, *dead)
        await log(database, *confirmed, *map(altered, conflicting))
        for event in dead:
            await keep_dead_letter(database, event)
        assert await ran(relay) == RelayRun(confirmed=5, resent=4, conflicting=3, dead=2)


class TestExpiry:
    async def test_only_an_event_in_the_log_expires(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        """Both events were accepted 40 days ago. The server's TTL monitor runs every second here."""
        there, missing = some_events(2, timestamp=datetime.now(UTC) - timedelta(days=40))
        await accept(database, there, missing)
        long_ago = Timestamp(int(datetime.now(UTC).timestamp()) - 40 * 86_400, 1)
        await database["events"].update_many({}, {"$set": {"seq": long_ago, "stored_at": long_ago.as_datetime()}})
        await log(database, there)
        relay = a_relay(database, sender, settings.model_copy(update={"retention_days": 1e-9}))
        assert await ran(relay) == RelayRun(confirmed=1, resent=1)

        async def left() -> set[UUID]:
            return {found["_id"] async for found in database["events"].find({}, {"_id": 1})}

        async def one_is_gone() -> bool:
            return len(await left()) < 2

        async def both_are_gone() -> bool:
            return not await left()

        await eventually(one_is_gone)
        assert await left() == {missing.event_id}
        await log(database, missing)
        await make_due(database)
        assert await ran(relay) == RelayRun(confirmed=1)
        await eventually(both_are_gone)


@pytest.mark.guarantee("G10")
class TestNotRetried:
    async def test_a_conflict_keeps_its_entry_and_is_not_retried(
        self, relay: Relay, database: Database, settings: Settings
    ) -> None:
        """The log has another event under the id, so this event is not in the log and must not expire."""
        event = an_event()
        await accept(database, event)
        await log(database, altered(event))
        assert await ran(relay) == RelayRun(conflicting=1)
        found = await document(database, event)
        assert found["outbox"] == {"tries": 0, "state": "conflicting"}
        assert "expires_at" not in found
        assert await ran(relay) == RelayRun()

    async def test_a_dead_event_keeps_its_entry_and_is_not_retried(self, relay: Relay, database: Database) -> None:
        event = an_event()
        await accept(database, event)
        await keep_dead_letter(database, event)
        assert await ran(relay) == RelayRun(dead=1)
        found = await document(database, event)
        assert found["outbox"] == {"tries": 0, "state": "dead"}
        assert "expires_at" not in found
        assert await ran(relay) == RelayRun()

    async def test_a_dead_letter_of_another_event_with_its_id_does_not_stop_it(
        self, relay: Relay, database: Database
    ) -> None:
        """A forged dead letter is another event."""
        event = an_event()
        await accept(database, event)
        await keep_dead_letter(database, altered(event))
        assert await ran(relay) == RelayRun(resent=1)

    async def test_an_unreadable_document_does_not_stop_other_events(self, relay: Relay, database: Database) -> None:
        """An operator may have changed the document by hand."""
        broken, event = some_events(2)
        await accept(database, broken, event)
        await database["events"].update_one({"_id": broken.event_id}, {"$set": {"event_type": "no type"}})
        assert await ran(relay) == RelayRun(unreadable=1, resent=1)
        assert (await document(database, broken))["outbox"]["state"] == "unreadable"

    async def test_a_changed_document_never_reaches_the_log(self, relay: Relay, database: Database) -> None:
        """A new digest would approve a content that no producer published."""
        changed, event = some_events(2)
        await accept(database, changed, event)
        await database["events"].update_one({"_id": changed.event_id}, {"$set": {"payload": {"total": 1_000_000}}})
        assert await ran(relay) == RelayRun(unreadable=1, resent=1)
        assert (await document(database, changed))["outbox"]["state"] == "unreadable"


@pytest.mark.guarantee("R2")
class TestSentAgain:
    async def test_missing_events_are_sent_again_the_longest_due_first(
        self, relay: Relay, database: Database, settings: Settings
    ) -> None:
        events = [an_event(aggregate_id="one") for _ in range(20)]
        for event in events:
            await accept(database, event)
            await asyncio.sleep(0.002)
        assert await ran(relay) == RelayRun(resent=20)
        assert sent(settings, 20) == [event.id for event in events]

    @pytest.mark.guarantee("R5", "R26")
    async def test_an_event_is_sent_again_as_it_was_published(
        self, relay: Relay, database: Database, settings: Settings
    ) -> None:
        """The digest of the document is the same. Otherwise `store` would reject the event."""
        event = an_event(payload={"big": 2**62, "float": 1.0, "$ref": "x", "$id": 1, "text": "é", "list": [{}, None]})
        await accept(database, event)
        await relay.run()
        with KafkaConsumer(
            settings.kafka_topic,
            bootstrap_servers=settings.kafka_bootstrap_servers,
            auto_offset_reset="earliest",
            consumer_timeout_ms=20_000,
        ) as consumer:
            record = next(consumer)
        assert dict(record.headers)["ce_twofolddigest"].decode() == event.digest.hex()
        assert record.value == event.data.data

    async def test_the_wait_grows_with_every_try(self, relay: Relay, database: Database) -> None:
        """The wait starts at a minute and doubles up to an hour."""
        event = an_event()
        await accept(database, event)
        waits = []
        for tries in range(1, 9):
            now = await server_time(database)
            assert await ran(relay) == RelayRun(resent=1)
            entry = (await document(database, event))["outbox"]
            assert entry["tries"] == tries
            waits.append(round((entry["next_try"].replace(tzinfo=UTC) - now) / MINUTE))
            await make_due(database)
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60]

    async def test_the_next_try_is_set_before_the_event_is_sent(self, database: Database, settings: Settings) -> None:
        """A relay that is killed in between must not send the event again in every run."""
        event = an_event()
        await accept(database, event)
        sender = Sender(without_kafka(settings, send_timeout_s=5.0))
        running = asyncio.create_task(ran(a_relay(database, sender, settings)))

        async def noted() -> bool:
            return bool((await document(database, event))["outbox"]["tries"] == 1)

        await eventually(noted, within=4)
        assert not running.done()
        assert await running == RelayRun(unsent=1)
        await asyncio.to_thread(sender.close, 0.0)

    async def test_an_event_is_not_sent_again_before_its_next_try(self, relay: Relay, database: Database) -> None:
        await accept(database, an_event())
        assert await ran(relay) == RelayRun(resent=1)
        assert await ran(relay) == RelayRun()

    async def test_an_event_that_arrives_is_confirmed(self, relay: Relay, database: Database) -> None:
        event = an_event()
        await accept(database, event)
        await relay.run()
        await log(database, event)
        await make_due(database)
        assert await ran(relay) == RelayRun(confirmed=1)

    @pytest.mark.guarantee("G7")
    @pytest.mark.fault("A6")
    async def test_a_try_that_kafka_did_not_accept_is_not_counted(self, database: Database, settings: Settings) -> None:
        """After a long outage, the event is due again after the first back-off, and no hour later."""
        unreachable = without_kafka(settings)
        events = some_events(5)
        await accept(database, *events)
        sender = Sender(unreachable)
        for _ in range(3):
            assert await ran(a_relay(database, sender, unreachable)) == RelayRun(unsent=5)
            for event in events:
                entry = (await document(database, event))["outbox"]
                assert entry["tries"] == 0
                assert entry["next_try"] <= await server_time(database) + MINUTE
            await make_due(database)
        await asyncio.to_thread(sender.close, 0.0)

    @pytest.mark.guarantee("G7")
    async def test_without_kafka_events_are_confirmed_and_no_try_is_counted(
        self, database: Database, settings: Settings
    ) -> None:
        """The back-off must not grow during an outage: the first run after the outage sends every event."""
        unreachable = without_kafka(settings)
        there, missing = some_events(2)
        await accept(database, there, missing)
        await log(database, there)
        assert await ran(open_relay(database, Sender(unreachable), unreachable)) == RelayRun(confirmed=1)
        assert (await document(database, missing))["outbox"] == {"state": "new", "tries": 0}

    @pytest.mark.guarantee("G4")
    async def test_a_record_that_kafka_refuses_for_good_becomes_a_dead_letter_and_the_run_continues(
        self, database: Database, settings: Settings
    ) -> None:
        """This happens after the limit of the topic was lowered. The dead letter has the whole event."""
        events, large = some_events(5), an_event(payload={"text": "x" * 20_000})
        await accept(database, events[0], large, *events[1:])
        sender = Sender(settings.model_copy(update={"max_record_bytes": 10_000}))
        assert await ran(a_relay(database, sender, settings)) == RelayRun(resent=5, dead=1)
        await asyncio.to_thread(sender.close, 0.0)
        (dead_letter,) = [found async for found in database["dead_letters"].find()]
        assert (dead_letter["reason"], dead_letter["body"], dead_letter["event_id"]) == (
            "too-large",
            large.data.data,
            large.event_id,
        )
        assert (await document(database, large))["outbox"]["state"] == "dead"
        again = DeadLetter(*delivered(large), Conflict("other content"), 0, 0, DeliveredEvent(large.to_document()))
        assert again.dead_letter_id == dead_letter["_id"], "it is the same dead letter at any place of the failure"


@pytest.mark.guarantee("G1", "R9")
class TestLarge:
    """The memory of relay and sender is bounded in bytes, because the number of events says little."""

    SIZE = 20_000

    @pytest.fixture
    async def large(self, database: Database) -> list[Event]:
        events = some_events(30, payload={"text": "x" * self.SIZE})
        await accept(database, *events)
        return events

    async def tried(self, database: Database) -> int:
        return await database["events"].count_documents({"outbox.tries": {"$gt": 0}})

    async def test_events_are_loaded_and_sent_in_chunks(
        self, database: Database, sender: Sender, settings: Settings, large: list[Event]
    ) -> None:
        """A chunk has three events here. A larger event is a chunk of its own."""
        huge = an_event(payload={"text": "x" * (5 * self.SIZE)})
        await accept(database, huge)
        small = settings.model_copy(update={"relay_bytes": 3 * self.SIZE + 5_000})
        async with listened(settings) as (own, commands):
            assert await ran(a_relay(own, sender, small)) == RelayRun(resent=31)
        loads = [
            sent.command for sent in commands.sent if sent.command_name == "find" and sent.command["find"] == "events"
        ]
        asked = [len(command["filter"]["_id"]["$in"]) for command in loads if "projection" not in command]
        assert asked == [3] * 10 + [1]
        assert set(sent(settings, 31)) == {event.id for event in [*large, huge]}

    async def test_a_chunk_is_no_larger_than_the_sender_holds(
        self, database: Database, settings: Settings, large: list[Event]
    ) -> None:
        """A refused record is no try, so its back-off must not grow."""
        narrow = settings.model_copy(update={"send_capacity": 7, "send_capacity_bytes": 5 * self.SIZE})
        sender = Sender(narrow)
        assert await ran(a_relay(database, sender, narrow)) == RelayRun(resent=30)
        await asyncio.to_thread(sender.close, 0.0)
        assert await database["events"].count_documents({"outbox.tries": 1}) == 30

    async def test_a_lost_broker_ends_the_run_after_a_chunk(
        self, database: Database, settings: Settings, large: list[Event]
    ) -> None:
        """The first run after its return sends the rest of the batch."""
        unreachable = without_kafka(settings, relay_bytes=5 * self.SIZE)
        sender = Sender(unreachable)
        run = await ran(a_relay(database, sender, unreachable))
        await asyncio.to_thread(sender.close, 0.0)
        assert run is not None
        assert run.unsent == 4
        assert await self.tried(database) == 0
        assert await database["events"].count_documents({"outbox.state": "pending"}) == 4

    async def test_a_run_ends_between_two_chunks_when_its_budget_is_spent(
        self, database: Database, sender: Sender, settings: Settings, large: list[Event]
    ) -> None:
        small = settings.model_copy(update={"relay_bytes": 5 * self.SIZE, "relay_budget_s": 2.5})
        ticks = iter(range(100))
        assert await ran(a_relay(database, sender, small, lambda: next(ticks))) == RelayRun(resent=8)


@pytest.mark.guarantee("R9")
class TestHeld:
    """An event is not sent again while the consumer group may still reach its record."""

    async def test_an_event_in_the_backlog_is_held_without_counting_a_try(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        event = an_event()
        await accept(database, event)
        behind = waiting(datetime.now(UTC) - MINUTE)
        assert await ran(a_relay(database, sender, settings, backlog=behind)) == RelayRun(held=1)
        entry = (await document(database, event))["outbox"]
        assert (entry["state"], entry["tries"]) == ("pending", 0)
        assert "sent_at" not in entry

    @pytest.mark.parametrize("later_s", [-5, 20])
    async def test_an_event_sent_at_about_the_time_of_the_oldest_record_is_held(
        self, database: Database, sender: Sender, settings: Settings, later_s: int
    ) -> None:
        """The time of the record is a publisher's, and the time of the entry is the server's. They may differ by
        seconds.
        """
        await accept(database, an_event())
        behind = waiting(await server_time(database) + timedelta(seconds=later_s))
        assert await ran(a_relay(database, sender, settings, backlog=behind)) == RelayRun(held=1)

    async def test_an_event_that_the_group_has_passed_is_sent_again(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        """The oldest waiting record was sent long after the event."""
        await accept(database, an_event())
        behind = waiting(datetime.now(UTC) + MINUTE)
        assert await ran(a_relay(database, sender, settings, backlog=behind)) == RelayRun(resent=1)

    @pytest.mark.fault("A5")
    async def test_an_event_is_held_however_long_its_record_waits(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        """Sending the event again would make the backlog longer. Only the group can make it shorter."""
        event = an_event()
        await accept(database, event)
        long_ago = datetime.now(UTC) - timedelta(days=2)
        sent_at = {"outbox": {"state": "pending", "tries": 1, "sent_at": long_ago, "next_try": long_ago}}
        await database["events"].update_one({"_id": event.event_id}, {"$set": sent_at})
        behind = waiting(long_ago - MINUTE)
        assert await ran(a_relay(database, sender, settings, backlog=behind)) == RelayRun(held=1)

    async def test_an_event_in_the_log_is_confirmed_despite_a_backlog(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        event = an_event()
        await accept(database, event)
        await log(database, event)
        behind = waiting(datetime.now(UTC) - MINUTE)
        assert await ran(a_relay(database, sender, settings, backlog=behind)) == RelayRun(confirmed=1)


def waiting(since: datetime) -> Callable[[], Awaitable[Backlog]]:
    """Return the backlog of a consumer group with one waiting record of this time."""

    async def backlog() -> Backlog:
        return Backlog({0: 1}, {0: since})

    return backlog


class TestOneAtATime:
    async def test_a_second_relay_does_nothing_at_the_same_time(
        self, relay: Relay, database: Database, sender: Sender, settings: Settings
    ) -> None:
        await accept(database, an_event())
        under_way, may_end = asyncio.Event(), asyncio.Event()

        async def slow_backlog() -> Backlog:
            under_way.set()
            await may_end.wait()
            return await nothing_waits()

        running = asyncio.create_task(ran(a_relay(database, sender, settings, backlog=slow_backlog)))
        await under_way.wait()
        assert await relay.run() is None
        may_end.set()
        assert await running == RelayRun(resent=1)
        assert await ran(relay) == RelayRun()

    async def test_many_relays_at_once_send_every_event_once(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        await accept(database, *some_events(30))
        relays = [a_relay(database, sender, settings) for _ in range(5)]
        runs = await asyncio.gather(*(relay.run() for relay in relays))
        assert sum(run.resent for run in runs if run) == 30
        assert len(sent(settings, 30)) == 30

    async def test_without_mongodb_a_run_raises_unavailable(
        self, sender: Sender, settings: Settings, database: Database
    ) -> None:
        """PingSource gets 503 and tries again, and no event counts as confirmed."""
        name = settings.mongodb_database
        await accept(database, an_event())
        async with open_database(settings, name) as own:
            once = a_relay(own, sender, settings)
            async with failing(database, name, failCommands=["find"], times=5, errorCode=13):
                with pytest.raises(Unavailable):
                    await once.run()
            assert await ran(once) == RelayRun(resent=1), "the lock is free again"
