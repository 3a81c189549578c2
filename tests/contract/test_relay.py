"""The relay on real servers: marks, the clock of retention, and what is sent again."""

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
from twofold.storage.dead_letter import DeadLetter
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.outbox import Outbox
from twofold.write.relay import Relay, open_relay
from twofold.write.relay_run import RelayRun

pytestmark = pytest.mark.guarantee("G5", "R9")

MINUTE = timedelta(minutes=1)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a first look that never has to be waited for: a new mark is due by the server's whole seconds."""
    return settings.model_copy(update={"relay_first_look_s": -2.0})


async def nothing_waits() -> Backlog:
    """What a consumer group has before it that has read everything."""
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
    """What a run did, without the checkpoint that it ended with: that has tests of its own."""
    run = await relay.run()
    return run and replace(run, checkpoint=None)


async def bury(database: Database, event: Event) -> None:
    headers, body = delivered(event)
    letter = DeadLetter(headers, body, Conflict("other content"), 0, 0, DeliveredEvent(event.to_document()))
    await DeadLetters(database).keep(letter)


async def document(database: Database, event: Event) -> dict[str, Any]:
    found = await database["events"].find_one({"_id": event.event_id})
    assert found is not None
    return found


async def make_due(database: Database) -> None:
    """Let the time of every mark come."""
    due = {"$set": {"outbox.next_try": datetime.now(UTC) - MINUTE}}
    await database["events"].update_many({"outbox.next_try": {"$exists": True}}, due)


def sent(settings: Settings, number: int) -> list[str]:
    """The ids of the first `number` events in the topic."""
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
    async def test_the_mark_goes_and_the_clock_starts_by_the_settings(
        self, relay: Relay, database: Database, settings: Settings
    ) -> None:
        """`expires_at` is the time of the read-back, by the server's clock, plus RETENTION_DAYS."""
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
        """What is sent is an expression: no client's clock, however wrong, can let an event go too soon."""
        event = an_event()
        await accept(database, event)
        async with listened(settings) as (own, commands):
            assert await Outbox(own).confirm([event.event_id], timedelta(days=3)) == 1
        (update,) = [sent.command for sent in commands.sent if sent.command_name == "update"]
        stages = update["updates"][0]["u"]
        assert stages[0] == {"$set": {"confirmed_at": "$$NOW", "expires_at": {"$add": ["$$NOW", 3 * 86_400_000]}}}

    async def test_confirming_twice_does_not_move_the_expiry(self, database: Database) -> None:
        """Two runs may meet, when a lock has run out: the second finds no mark."""
        event, outbox = an_event(), Outbox(database)
        await accept(database, event)
        assert await outbox.confirm([event.event_id], timedelta(days=3)) == 1
        before = await document(database, event)
        assert await outbox.confirm([event.event_id], timedelta(days=9)) == 0
        assert await document(database, event) == before

    async def test_without_its_event_in_the_log_a_mark_stays(self, relay: Relay, database: Database) -> None:
        """Kafka's acknowledgement is none: the event has been sent, and that is all."""
        event = an_event()
        await accept(database, event)
        assert await ran(relay) == RelayRun(resent=1)
        found = await document(database, event)
        assert "outbox" in found
        assert "expires_at" not in found

    async def test_a_mark_that_is_not_due_is_let_alone(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        """Its first look is yet to come, by the server's clock from its insert on."""
        event = an_event()
        await accept(database, event)
        await log(database, event)
        relay = a_relay(database, sender, settings.model_copy(update={"relay_first_look_s": 60.0}))
        assert await ran(relay) == RelayRun()
        assert (await document(database, event))["outbox"] == {"state": "new", "tries": 0}

    async def test_what_was_confirmed_is_not_looked_at_again(self, relay: Relay, database: Database) -> None:
        """Its clock must not start anew with each run."""
        event = an_event()
        await accept(database, event)
        await log(database, event)
        await relay.run()
        before = await document(database, event)
        assert await ran(relay) == RelayRun()
        assert await document(database, event) == before

    async def test_it_goes_on_until_nothing_is_due(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        small = settings.model_copy(update={"relay_batch": 7})
        events = some_events(50)
        await accept(database, *events)
        await log(database, *events)
        assert await ran(a_relay(database, sender, small)) == RelayRun(confirmed=50)

    async def test_it_ends_when_its_budget_is_spent(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        """What is left is the next run's; the clock is passed in."""
        events = some_events(50)
        await accept(database, *events)
        await log(database, *events)
        small = settings.model_copy(update={"relay_batch": 7, "relay_budget_s": 2.5})
        ticks = iter(range(100))
        assert await ran(a_relay(database, sender, small, lambda: next(ticks))) == RelayRun(confirmed=14)

    async def test_all_kinds_at_once_are_each_treated_as_their_own(self, relay: Relay, database: Database) -> None:
        confirmed, missing = some_events(5), some_events(4)
        conflicting, dead = some_events(3), some_events(2)
        await accept(database, *confirmed, *missing, *conflicting, *dead)
        await log(database, *confirmed, *map(altered, conflicting))
        for event in dead:
            await bury(database, event)
        assert await ran(relay) == RelayRun(confirmed=5, resent=4, conflicting=3, dead=2)


class TestExpiry:
    async def test_what_is_not_in_the_log_outlives_its_day_and_what_is_there_goes(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        """Both were accepted 40 days ago, and the server's TTL monitor, which runs each second here, goes over both."""
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
class TestGivenUp:
    async def test_a_conflict_keeps_its_mark_and_is_tried_no_more(
        self, relay: Relay, database: Database, settings: Settings
    ) -> None:
        """The log has another event under its id: this one is not in it, and must not expire."""
        event = an_event()
        await accept(database, event)
        await log(database, altered(event))
        assert await ran(relay) == RelayRun(conflicting=1)
        found = await document(database, event)
        assert found["outbox"] == {"tries": 0, "state": "conflicting"}
        assert "expires_at" not in found
        assert await ran(relay) == RelayRun()

    async def test_a_dead_event_keeps_its_mark_and_is_tried_no_more(self, relay: Relay, database: Database) -> None:
        event = an_event()
        await accept(database, event)
        await bury(database, event)
        assert await ran(relay) == RelayRun(dead=1)
        found = await document(database, event)
        assert found["outbox"] == {"tries": 0, "state": "dead"}
        assert "expires_at" not in found
        assert await ran(relay) == RelayRun()

    async def test_another_dead_event_under_its_id_does_not_stop_it(self, relay: Relay, database: Database) -> None:
        """Somebody's forgery among the dead letters is not this event."""
        event = an_event()
        await accept(database, event)
        await bury(database, altered(event))
        assert await ran(relay) == RelayRun(resent=1)

    async def test_an_unreadable_document_does_not_stop_the_others(self, relay: Relay, database: Database) -> None:
        """Somebody with more rights than ours may have changed it by hand."""
        broken, event = some_events(2)
        await accept(database, broken, event)
        await database["events"].update_one({"_id": broken.event_id}, {"$set": {"event_type": "no type"}})
        assert await ran(relay) == RelayRun(unreadable=1, resent=1)
        assert (await document(database, broken))["outbox"]["state"] == "unreadable"

    async def test_a_document_that_was_changed_never_reaches_the_log(self, relay: Relay, database: Database) -> None:
        """A digest made anew would vouch for what nobody published."""
        changed, event = some_events(2)
        await accept(database, changed, event)
        await database["events"].update_one({"_id": changed.event_id}, {"$set": {"payload": {"total": 1_000_000}}})
        assert await ran(relay) == RelayRun(unreadable=1, resent=1)
        assert (await document(database, changed))["outbox"]["state"] == "unreadable"


@pytest.mark.guarantee("R2")
class TestSentAgain:
    async def test_what_is_missing_is_sent_the_longest_due_first(
        self, relay: Relay, database: Database, settings: Settings
    ) -> None:
        events = [an_event(aggregate_id="one") for _ in range(20)]
        for event in events:
            await accept(database, event)
            await asyncio.sleep(0.002)
        assert await ran(relay) == RelayRun(resent=20)
        assert sent(settings, 20) == [str(event.event_id) for event in events]

    @pytest.mark.guarantee("R5", "R26")
    async def test_it_is_sent_as_it_was_published(self, relay: Relay, database: Database, settings: Settings) -> None:
        """Read back from MongoDB, its digest is the same: `store` would refuse it otherwise."""
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
        assert dict(record.headers)["ce_digest"].decode() == event.digest.hex()
        assert record.value == event.payload_json

    async def test_the_wait_grows_with_each_try(self, relay: Relay, database: Database) -> None:
        """From a minute, twice as long each time, to an hour."""
        event = an_event()
        await accept(database, event)
        waits = []
        for tries in range(1, 9):
            now = await server_time(database)
            assert await ran(relay) == RelayRun(resent=1)
            mark = (await document(database, event))["outbox"]
            assert mark["tries"] == tries
            waits.append(round((mark["next_try"].replace(tzinfo=UTC) - now) / MINUTE))
            await make_due(database)
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60]

    async def test_its_next_try_is_set_before_it_is_sent(self, database: Database, settings: Settings) -> None:
        """Killed behind the sending, a relay that notes it later would send it again with every run."""
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

    async def test_it_is_not_sent_again_before_its_time(self, relay: Relay, database: Database) -> None:
        await accept(database, an_event())
        assert await ran(relay) == RelayRun(resent=1)
        assert await ran(relay) == RelayRun()

    async def test_once_it_arrives_it_is_confirmed(self, relay: Relay, database: Database) -> None:
        event = an_event()
        await accept(database, event)
        await relay.run()
        await log(database, event)
        await make_due(database)
        assert await ran(relay) == RelayRun(confirmed=1)

    @pytest.mark.guarantee("G7")
    @pytest.mark.fault("A6")
    async def test_an_event_that_kafka_did_not_take_costs_no_try(self, database: Database, settings: Settings) -> None:
        """After a long outage, the event is due again after the first back-off, and no hour later."""
        away = without_kafka(settings)
        events = some_events(5)
        await accept(database, *events)
        sender = Sender(away)
        for _ in range(3):
            assert await ran(a_relay(database, sender, away)) == RelayRun(unsent=5)
            for event in events:
                entry = (await document(database, event))["outbox"]
                assert entry["tries"] == 0
                assert entry["next_try"] <= await server_time(database) + MINUTE
            await make_due(database)
        await asyncio.to_thread(sender.close, 0.0)

    @pytest.mark.guarantee("G7")
    async def test_without_kafka_marks_are_taken_off_and_no_try_is_counted(
        self, database: Database, settings: Settings
    ) -> None:
        """The back-off must not grow over an outage: the first run after it sends everything."""
        away = without_kafka(settings)
        there, missing = some_events(2)
        await accept(database, there, missing)
        await log(database, there)
        assert await ran(open_relay(database, Sender(away), away)) == RelayRun(confirmed=1)
        assert (await document(database, missing))["outbox"] == {"state": "new", "tries": 0}

    @pytest.mark.guarantee("G4")
    async def test_a_record_that_kafka_refuses_for_good_is_a_dead_letter_and_the_run_goes_on(
        self, database: Database, settings: Settings
    ) -> None:
        """As when the topic's limit was lowered after it was accepted: its letter holds all of it."""
        events, large = some_events(5), an_event(payload={"text": "x" * 20_000})
        await accept(database, events[0], large, *events[1:])
        sender = Sender(settings.model_copy(update={"max_record_bytes": 10_000}))
        assert await ran(a_relay(database, sender, settings)) == RelayRun(resent=5, dead=1)
        await asyncio.to_thread(sender.close, 0.0)
        (letter,) = [found async for found in database["dead_letters"].find()]
        assert (letter["reason"], letter["body"], letter["event_id"]) == (
            "too-large",
            large.payload_json,
            large.event_id,
        )
        assert (await document(database, large))["outbox"]["state"] == "dead"
        again = DeadLetter(*delivered(large), Conflict("other content"), 0, 0, DeliveredEvent(large.to_document()))
        assert again.dead_letter_id == letter["_id"], "wherever the event fails, it is the same letter"


@pytest.mark.guarantee("G1", "R9")
class TestLarge:
    """Events whose number says little of what they take: the relay's memory and the sender's have bounds in bytes."""

    SIZE = 20_000

    @pytest.fixture
    async def large(self, database: Database) -> list[Event]:
        events = some_events(30, payload={"text": "x" * self.SIZE})
        await accept(database, *events)
        return events

    async def tried(self, database: Database) -> int:
        return await database["events"].count_documents({"outbox.tries": {"$gt": 0}})

    async def test_events_are_loaded_and_sent_in_pieces(
        self, database: Database, sender: Sender, settings: Settings, large: list[Event]
    ) -> None:
        """Of three events each here; one that is larger than a piece is one by itself."""
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
        assert set(sent(settings, 31)) == {str(event.event_id) for event in [*large, huge]}

    async def test_no_more_is_offered_than_the_sender_holds(
        self, database: Database, settings: Settings, large: list[Event]
    ) -> None:
        """What it would not take has not been tried, so its back-off must not grow."""
        narrow = settings.model_copy(update={"send_capacity": 7, "send_capacity_bytes": 5 * self.SIZE})
        sender = Sender(narrow)
        assert await ran(a_relay(database, sender, narrow)) == RelayRun(resent=30)
        await asyncio.to_thread(sender.close, 0.0)
        assert await database["events"].count_documents({"outbox.tries": 1}) == 30

    async def test_a_broker_that_goes_away_ends_the_run_after_a_chunk(
        self, database: Database, settings: Settings, large: list[Event]
    ) -> None:
        """The rest of the batch is sent with the first run that finds it there again."""
        away = without_kafka(settings, relay_bytes=5 * self.SIZE)
        sender = Sender(away)
        run = await ran(a_relay(database, sender, away))
        await asyncio.to_thread(sender.close, 0.0)
        assert run is not None
        assert run.unsent == 4
        assert await self.tried(database) == 0
        assert await database["events"].count_documents({"outbox.state": "pending"}) == 4

    async def test_it_ends_between_two_pieces_when_its_budget_is_spent(
        self, database: Database, sender: Sender, settings: Settings, large: list[Event]
    ) -> None:
        small = settings.model_copy(update={"relay_bytes": 5 * self.SIZE, "relay_budget_s": 2.5})
        ticks = iter(range(100))
        assert await ran(a_relay(database, sender, small, lambda: next(ticks))) == RelayRun(resent=8)


@pytest.mark.guarantee("R9")
class TestHeld:
    """What the consumer group has yet to come to isn't sent a second time."""

    async def test_what_may_still_be_on_its_way_is_held_without_counting_a_try(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        event = an_event()
        await accept(database, event)
        behind = waiting(datetime.now(UTC) - MINUTE)
        assert await ran(a_relay(database, sender, settings, backlog=behind)) == RelayRun(held=1)
        mark = (await document(database, event))["outbox"]
        assert (mark["state"], mark["tries"]) == ("pending", 0)
        assert "sent_at" not in mark

    @pytest.mark.parametrize("later_s", [-5, 20])
    async def test_what_was_sent_about_when_the_oldest_record_was_is_held(
        self, database: Database, sender: Sender, settings: Settings, later_s: int
    ) -> None:
        """The record's time is a publisher's, the mark's is the server's: they may be some seconds apart."""
        await accept(database, an_event())
        behind = waiting(await server_time(database) + timedelta(seconds=later_s))
        assert await ran(a_relay(database, sender, settings, backlog=behind)) == RelayRun(held=1)

    async def test_what_the_group_has_passed_is_sent_again(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        """The oldest record that waits was sent well after it."""
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

    async def test_what_is_in_the_log_is_confirmed_whatever_waits(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        event = an_event()
        await accept(database, event)
        await log(database, event)
        behind = waiting(datetime.now(UTC) - MINUTE)
        assert await ran(a_relay(database, sender, settings, backlog=behind)) == RelayRun(confirmed=1)


def waiting(since: datetime) -> Callable[[], Awaitable[Backlog]]:
    """A consumer group with one record before it, of that time."""

    async def backlog() -> Backlog:
        return Backlog({0: 1}, {0: since})

    return backlog


class TestOneAtATime:
    async def test_a_second_relay_does_nothing_meanwhile(
        self, relay: Relay, database: Database, sender: Sender, settings: Settings
    ) -> None:
        name = settings.mongodb_database
        await accept(database, an_event())

        async def locked() -> bool:
            return await database["locks"].find_one({"_id": "relay"}) is not None

        slow = failing(database, name, failCommands=["find"], blockConnection=True, blockTimeMS=3000)
        async with open_database(settings, name) as own, slow:
            running = asyncio.create_task(ran(a_relay(own, sender, settings)))
            await eventually(locked)
            assert await relay.run() is None
            assert await running == RelayRun(resent=1)
        assert await ran(relay) == RelayRun()

    async def test_many_at_once_send_each_event_once(
        self, database: Database, sender: Sender, settings: Settings
    ) -> None:
        await accept(database, *some_events(30))
        relays = [a_relay(database, sender, settings) for _ in range(5)]
        runs = await asyncio.gather(*(each.run() for each in relays))
        assert sum(run.resent for run in runs if run) == 30
        assert len(sent(settings, 30)) == 30

    async def test_without_mongodb_it_says_so(self, sender: Sender, settings: Settings, database: Database) -> None:
        """503, so that PingSource comes again, and nothing is taken for done."""
        name = settings.mongodb_database
        await accept(database, an_event())
        async with open_database(settings, name) as own:
            once = a_relay(own, sender, settings)
            async with failing(database, name, failCommands=["find"], times=5, errorCode=13):
                with pytest.raises(Unavailable):
                    await once.run()
            assert await ran(once) == RelayRun(resent=1), "and the lock is free again"
