"""Redriven dead letters on real servers: through Kafka to `store`, with their ids."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from kafka import KafkaConsumer, TopicPartition

from tests.helpers import Raw, accept, altered, an_event, delivered, plain_record, without_kafka
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.errors import Conflict, Malformed, TooLarge
from twofold.event.model import Event
from twofold.kafka.lag import Backlog, read_backlog
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database, Document
from twofold.settings import Settings
from twofold.storage.dead_letters import REDRIVE_WITHIN, DeadLetters
from twofold.storage.event_store import EventStore
from twofold.storage.failed_delivery import DeadLetter
from twofold.storage.outbox import Outbox
from twofold.write.redrive import Redrive, RedriveResult
from twofold.write.relay import Relay
from twofold.write.store import Store, keep_undelivered

pytestmark = pytest.mark.guarantee("G4", "R12")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings with a group of this test, and with entries that are due at once."""
    changes = {"kafka_consumer_group": settings.kafka_topic, "relay_first_look_s": -2.0}
    return settings.model_copy(update=changes)


@pytest.fixture
def dead_letters(database: Database) -> DeadLetters:
    return DeadLetters(database)


@pytest.fixture
def redrive(database: Database, dead_letters: DeadLetters, sender: Sender) -> Redrive:
    return Redrive(dead_letters, Outbox(database), sender)


@pytest.fixture
def store(database: Database, settings: Settings) -> Store:
    return Store(database, settings, clock=lambda: datetime.now(UTC))


@pytest.fixture
def relay(database: Database, sender: Sender, settings: Settings) -> Relay:
    async def nothing_waits() -> Backlog:
        return Backlog({}, {})

    return Relay(database, sender, settings, time.monotonic, nothing_waits)


async def keep_valid(dead_letters: DeadLetters, event: Event) -> DeadLetter:
    """Keep a dead letter of a valid event: the reason of its rejection no longer exists."""
    dead_letter = DeadLetter(*delivered(event), Conflict("other content"), 0, 0, DeliveredEvent(event.to_document()))
    await dead_letters.keep(dead_letter)
    return dead_letter


async def shown(dead_letters: DeadLetters, dead_letter: DeadLetter) -> Document:
    document = await dead_letters.get(dead_letter.dead_letter_id)
    assert document is not None
    return document


async def lines(dead_letters: DeadLetters, dead_letter: DeadLetter) -> list[str]:
    return [line["what"] for line in (await shown(dead_letters, dead_letter))["history"]]


def next_delivery(settings: Settings) -> tuple[Raw, bytes]:
    """Return KafkaSource's request for the first record in the topic."""
    with KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, consumer_timeout_ms=20_000) as consumer:
        partitions = consumer.partitions_for_topic(settings.kafka_topic) or set()
        consumer.assign([TopicPartition(settings.kafka_topic, number) for number in partitions])
        consumer.seek_to_beginning()
        record = next(consumer)
    headers = [(name.replace("ce_", "ce-", 1).encode(), value) for name, value in record.headers]
    coordinates = [(b"ce-knativekafkapartition", record.partition), (b"ce-knativekafkaoffset", record.offset)]
    return [*headers, *((name, str(number).encode()) for name, number in coordinates)], record.value


async def test_a_redriven_event_goes_through_kafka_into_the_log(
    dead_letters: DeadLetters, redrive: Redrive, store: Store, database: Database, settings: Settings
) -> None:
    """The states are dead, redriving and stored. The history has an entry for every change."""
    event = an_event()
    dead_letter = await keep_valid(dead_letters, event)
    assert await redrive.redrive([dead_letter.dead_letter_id], "Ada") == RedriveResult(sent=1)
    assert (await shown(dead_letters, dead_letter))["state"] == "redriving"
    await store.take(*await asyncio.to_thread(next_delivery, settings))
    assert await EventStore(database).get(event.event_id) == event
    kept = await shown(dead_letters, dead_letter)
    assert kept["state"] == "stored"
    assert [(line["what"], line.get("by")) for line in kept["history"]] == [("redriven", "Ada"), ("stored", None)]


async def test_a_redriven_event_that_is_rejected_again_is_the_same_dead_letter(
    dead_letters: DeadLetters, redrive: Redrive, store: Store, database: Database, settings: Settings
) -> None:
    event = an_event()
    await store.take(*delivered(event))
    dead_letter = await keep_valid(dead_letters, altered(event))
    await redrive.redrive([dead_letter.dead_letter_id], "Ada")
    await store.take(*await asyncio.to_thread(next_delivery, settings))
    kept = await shown(dead_letters, dead_letter)
    assert (kept["state"], kept["times"]) == ("dead", 2)
    assert await lines(dead_letters, dead_letter) == ["redriven", "failed again"]
    assert await database["dead_letters"].count_documents({}) == 1
    assert await EventStore(database).get(event.event_id) == event


async def test_redriven_poison_is_the_same_dead_letter(
    dead_letters: DeadLetters, redrive: Redrive, store: Store, database: Database, settings: Settings
) -> None:
    """Its place in the topic is new, and its bytes stay as in the first delivery."""
    await store.take(*plain_record(b"\x00\xffpoison", partition=3, offset=7))
    (before,) = [found async for found in database["dead_letters"].find()]
    await redrive.redrive([before["_id"]], "Ada")
    await store.take(*await asyncio.to_thread(next_delivery, settings))
    (after,) = [found async for found in database["dead_letters"].find()]
    assert (after["_id"], after["state"], after["times"]) == (before["_id"], "dead", 2)
    for name in ("body", "headers", "kafka", "reason", "first_at"):
        assert after[name] == before[name]


async def test_redrives_at_once_send_a_dead_letter_once(
    dead_letters: DeadLetters, database: Database, sender: Sender, settings: Settings
) -> None:
    dead_letter = await keep_valid(dead_letters, an_event())
    redrives = [Redrive(DeadLetters(database), Outbox(database), sender) for _ in range(5)]
    done = await asyncio.gather(*(each.redrive([dead_letter.dead_letter_id], "Ada") for each in redrives))
    assert (sum(each.sent for each in done), sum(each.not_dead for each in done)) == (1, 4)
    assert sum((await asyncio.to_thread(read_backlog, settings)).lag.values()) == 1


async def test_a_redrive_that_was_killed_leaves_a_dead_letter_that_is_dead_again_later(
    dead_letters: DeadLetters, relay: Relay, database: Database
) -> None:
    """The process was killed between the change of the state and the sending."""
    dead_letter = await keep_valid(dead_letters, an_event())
    assert await dead_letters.start_redrive(dead_letter.dead_letter_id, "Ada") is not None
    await relay.run()
    assert (await shown(dead_letters, dead_letter))["state"] == "redriving"
    long_ago = datetime.now(UTC) - REDRIVE_WITHIN - timedelta(minutes=1)
    await database["dead_letters"].update_one({}, {"$set": {"history.0.at": long_ago}})
    await relay.run()
    assert (await shown(dead_letters, dead_letter))["state"] == "dead"
    assert await lines(dead_letters, dead_letter) == ["redriven", "lost on its way"]


async def test_without_kafka_a_dead_letter_stays_dead(
    dead_letters: DeadLetters, database: Database, settings: Settings
) -> None:
    sender = Sender(without_kafka(settings))
    dead_letter = await keep_valid(dead_letters, an_event())
    done = await Redrive(dead_letters, Outbox(database), sender).redrive([dead_letter.dead_letter_id], "Ada")
    await asyncio.to_thread(sender.close, 0.0)
    assert done == RedriveResult(not_sent=1)
    assert (await shown(dead_letters, dead_letter))["state"] == "dead"
    assert await lines(dead_letters, dead_letter) == ["redriven", "not sent"]


async def test_many_dead_letters_are_redriven_with_progress(dead_letters: DeadLetters, redrive: Redrive) -> None:
    """An unknown id is counted and stops nothing."""
    kept = [await keep_valid(dead_letters, an_event()) for _ in range(3)]
    ids = [dead_letter.dead_letter_id for dead_letter in kept]
    heard: list[int] = []
    assert await redrive.redrive([ids[0], an_event().event_id, *ids[1:]], "Ada", heard.append) == RedriveResult(3, 1)
    assert heard == [1, 2, 3, 4]


async def test_discarding_records_operator_and_reason_and_removes_nothing(
    dead_letters: DeadLetters, redrive: Redrive
) -> None:
    dead_letter = await keep_valid(dead_letters, an_event())
    before = await shown(dead_letters, dead_letter)
    assert await dead_letters.discard(dead_letter.dead_letter_id, "Ada", "a $test of $$ROOT")
    kept = await shown(dead_letters, dead_letter)
    assert (kept["state"], kept["body"], kept["headers"]) == ("discarded", before["body"], before["headers"])
    (line,) = kept["history"]
    assert (line["what"], line["by"], line["why"]) == ("discarded", "Ada", "a $test of $$ROOT")
    assert not await dead_letters.discard(dead_letter.dead_letter_id, "Bob", "once more")
    assert await redrive.redrive([dead_letter.dead_letter_id], "Bob") == RedriveResult(not_dead=1)


@pytest.mark.guarantee("G5")
async def test_the_outbox_entry_of_a_redriven_event_is_tried_again(
    redrive: Redrive, relay: Relay, store: Store, database: Database, settings: Settings
) -> None:
    """Its entry was in the final state `dead`. It is confirmed when the log has the event."""
    event = an_event()
    await accept(database, event)
    dead_letter = await keep_valid(DeadLetters(database), event)
    assert (await relay.run()) is not None
    await redrive.redrive([dead_letter.dead_letter_id], "Ada")
    await store.take(*await asyncio.to_thread(next_delivery, settings))
    await database["events"].update_one({}, {"$set": {"outbox.next_try": datetime.now(UTC) - timedelta(minutes=1)}})
    run = await relay.run()
    assert run is not None
    assert run.confirmed == 1
    document = await database["events"].find_one({"_id": event.event_id})
    assert document is not None
    assert "outbox" not in document
    assert "expires_at" in document


async def test_a_redriven_event_that_counted_as_lost_is_stored_when_it_arrives(
    dead_letters: DeadLetters, relay: Relay, store: Store, database: Database
) -> None:
    """Its record waited in Kafka for longer than a redrive may take."""
    event = an_event()
    dead_letter = await keep_valid(dead_letters, event)
    await dead_letters.start_redrive(dead_letter.dead_letter_id, "Ada")
    long_ago = datetime.now(UTC) - REDRIVE_WITHIN - timedelta(minutes=1)
    await database["dead_letters"].update_one({}, {"$set": {"history.0.at": long_ago}})
    await relay.run()
    assert (await shown(dead_letters, dead_letter))["state"] == "dead"
    await store.take(*delivered(event, redriveof=str(dead_letter.dead_letter_id)))
    assert (await shown(dead_letters, dead_letter))["state"] == "stored"
    assert await lines(dead_letters, dead_letter) == ["redriven", "lost on its way", "stored"]


class TestForgedIds:
    """A writer of the topic can name any dead letter."""

    async def test_other_poison_with_the_id_is_another_dead_letter(
        self, dead_letters: DeadLetters, store: Store, database: Database
    ) -> None:
        """As a redelivery of the named dead letter, its bytes would be lost."""
        await store.take(*plain_record(b"poison"))
        (first,) = [found async for found in database["dead_letters"].find()]
        headers, body = plain_record(b"other poison", offset=7)
        named = [(b"ce-redriveof", str(first["_id"]).encode())]
        await store.take(headers + named, body)
        await store.take([*headers, (b"ce-more", b"1"), *named], b"poison")
        assert await dead_letters.get(first["_id"]) == first
        others = [found["body"] async for found in database["dead_letters"].find({"_id": {"$ne": first["_id"]}})]
        assert sorted(others) == [b"other poison", b"poison"]

    async def test_an_unknown_dead_letter_id_is_ignored(self, store: Store, database: Database) -> None:
        nobody = an_event().event_id
        headers, body = plain_record(b"poison")
        await store.take([*headers, (b"ce-redriveof", str(nobody).encode())], body)
        (kept,) = [found async for found in database["dead_letters"].find()]
        assert kept["_id"] != nobody

    async def test_another_event_with_the_id_does_not_end_a_dead_letter(
        self, dead_letters: DeadLetters, store: Store
    ) -> None:
        dead_letter = await keep_valid(dead_letters, an_event())
        await store.take(*delivered(an_event(), redriveof=str(dead_letter.dead_letter_id)))
        assert (await shown(dead_letters, dead_letter))["state"] == "dead"


@pytest.mark.guarantee("R9")
class TestUndelivered:
    """Valid events that a source stopped retrying."""

    async def test_the_relay_sends_the_event_again_and_its_dead_letter_ends(
        self, dead_letters: DeadLetters, relay: Relay, store: Store, database: Database
    ) -> None:
        event = an_event()
        await accept(database, event)
        await keep_undelivered(dead_letters, *delivered(event, knativeerrorcode="503", knativeerrordest="http://store"))
        run = await relay.run()
        assert run is not None
        assert (run.resent, run.dead) == (1, 0)
        await store.take(*delivered(event))
        await database["events"].update_one({}, {"$set": {"outbox.next_try": datetime.now(UTC) - timedelta(minutes=1)}})
        run = await relay.run()
        assert run is not None
        assert run.confirmed == 1
        (dead_letter,) = [found async for found in database["dead_letters"].find()]
        assert (dead_letter["state"], dead_letter["reason"]) == ("stored", "undelivered")
        assert [line["what"] for line in dead_letter["history"]] == ["stored"]

    @pytest.mark.guarantee("G10")
    async def test_the_next_run_ends_the_dead_letter_of_an_event_in_the_log(
        self, dead_letters: DeadLetters, relay: Relay, store: Store
    ) -> None:
        """The event has no outbox entry, so no relay looks at it again. Events that the log lacks stay dead."""
        there, foreign = an_event(), an_event()
        await store.take(*delivered(there))
        for event in (there, foreign):
            await keep_undelivered(dead_letters, *delivered(event, knativeerrorcode="503"))
        assert len(await dead_letters.to_look_up(10)) == 2
        await relay.run()
        assert {(found["event_id"], found["state"]) for found in await dead_letters.list({}, 10)} == {
            (there.event_id, "stored"),
            (foreign.event_id, "dead"),
        }
        assert await dead_letters.to_look_up(10) == [], "the relay looks for an event once"

    async def test_a_run_looks_up_a_bounded_number_of_dead_letters(
        self, dead_letters: DeadLetters, database: Database, sender: Sender, settings: Settings, store: Store
    ) -> None:
        async def nothing_waits() -> Backlog:
            return Backlog({}, {})

        for event in [an_event() for _ in range(5)]:
            await store.take(*delivered(event))
            await keep_undelivered(dead_letters, *delivered(event, knativeerrorcode="503"))
        small = settings.model_copy(update={"relay_batch": 3})
        relay = Relay(database, sender, small, time.monotonic, nothing_waits)
        for left in (2, 0):
            await relay.run()
            assert len(await dead_letters.list({"state": "dead"}, 10)) == left

    async def test_other_content_in_the_log_does_not_end_a_dead_letter(
        self, dead_letters: DeadLetters, relay: Relay, store: Store
    ) -> None:
        event = an_event()
        await store.take(*delivered(event))
        await keep_undelivered(dead_letters, *delivered(altered(event), knativeerrorcode="503"))
        await relay.run()
        assert [found["state"] for found in await dead_letters.list({}, 10)] == ["dead"]

    @pytest.mark.guarantee("G10")
    async def test_a_lasting_reason_replaces_a_transient_reason(
        self, dead_letters: DeadLetters, relay: Relay, store: Store, database: Database
    ) -> None:
        """Otherwise the relay would send the event for ever, and no checkpoint would count it."""
        event = an_event()
        await accept(database, event)
        await keep_undelivered(dead_letters, *delivered(event, knativeerrorcode="503"))
        dead_letter = await keep_valid(dead_letters, event)
        kept = await shown(dead_letters, dead_letter)
        assert (kept["reason"], kept["detail"], kept["times"]) == ("identity-conflict", "other content", 2)
        assert await lines(dead_letters, dead_letter) == ["failed again"]
        run = await relay.run()
        assert run is not None
        assert run.dead == 1

    async def test_a_transient_reason_does_not_replace_a_lasting_reason(
        self, dead_letters: DeadLetters, relay: Relay
    ) -> None:
        event = an_event()
        dead_letter = await keep_valid(dead_letters, event)
        await keep_undelivered(dead_letters, *delivered(event, knativeerrorcode="503"))
        assert (await shown(dead_letters, dead_letter))["reason"] == "identity-conflict"
        assert await lines(dead_letters, dead_letter) == []


async def test_a_stored_dead_letter_that_is_rejected_again_is_dead_again(
    dead_letters: DeadLetters, store: Store
) -> None:
    """This happens after the log has regressed."""
    event = an_event()
    dead_letter = await keep_valid(dead_letters, event)
    await store.take(*delivered(event, redriveof=str(dead_letter.dead_letter_id)))
    assert (await shown(dead_letters, dead_letter))["state"] == "stored"
    await keep_valid(dead_letters, event)
    assert (await shown(dead_letters, dead_letter))["state"] == "dead"
    assert await lines(dead_letters, dead_letter) == ["stored", "failed again"]


async def test_a_discarded_dead_letter_is_dead_again_only_for_another_reason(dead_letters: DeadLetters) -> None:
    """A redelivery alone does not reverse the decision of the operator."""
    event = an_event()
    dead_letter = await keep_valid(dead_letters, event)
    await dead_letters.discard(dead_letter.dead_letter_id, "Ada", "a test")
    await keep_valid(dead_letters, event)
    assert (await shown(dead_letters, dead_letter))["state"] == "discarded"
    large = DeadLetter(*delivered(event), TooLarge("Kafka refuses it"), 0, 0, DeliveredEvent(event.to_document()))
    await dead_letters.keep(large)
    kept = await shown(dead_letters, dead_letter)
    assert (kept["state"], kept["reason"], kept["times"]) == ("dead", "too-large", 3)
    assert await lines(dead_letters, dead_letter) == ["discarded", "failed again"]


async def test_dead_letters_are_listed_and_counted_by_state_and_reason(dead_letters: DeadLetters) -> None:
    first, second = await keep_valid(dead_letters, an_event()), await keep_valid(dead_letters, an_event())
    poison = DeadLetter(*plain_record(b"poison"), Malformed("no JSON"), 0, 0)
    await dead_letters.keep(poison)
    await dead_letters.discard(second.dead_letter_id, "Ada", "a test")
    listed = await dead_letters.list({"state": "dead"}, 10)
    assert [dead_letter["_id"] for dead_letter in listed] == [first.dead_letter_id, poison.dead_letter_id]
    assert [dead_letter["_id"] for dead_letter in await dead_letters.list({"reason": "malformed"}, 10)] == [
        poison.dead_letter_id
    ]
    assert not any({"body", "headers"} & dead_letter.keys() for dead_letter in listed)
    assert await dead_letters.count() == {
        ("dead", "identity-conflict"): 1,
        ("discarded", "identity-conflict"): 1,
        ("dead", "malformed"): 1,
    }
