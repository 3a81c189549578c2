"""Dead letters on their way again, on real servers: through Kafka to `store`, with their names on them."""

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
from twofold.storage.dead_letter import DeadLetter
from twofold.storage.dead_letters import REDRIVE_WITHIN, DeadLetters
from twofold.storage.event_store import EventStore
from twofold.storage.outbox import Outbox
from twofold.write.redrive import Redrive, RedriveResult
from twofold.write.relay import Relay
from twofold.write.store import Store, keep_undelivered

pytestmark = pytest.mark.guarantee("G4", "R12")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a group of its own, and a first look that never has to be waited for."""
    changes = {"kafka_consumer_group": settings.kafka_topic, "relay_first_look_s": -2.0}
    return settings.model_copy(update=changes)


@pytest.fixture
def letters(database: Database) -> DeadLetters:
    return DeadLetters(database)


@pytest.fixture
def redrive(database: Database, letters: DeadLetters, sender: Sender) -> Redrive:
    return Redrive(letters, Outbox(database), sender)


@pytest.fixture
def store(database: Database, settings: Settings) -> Store:
    return Store(database, settings, clock=lambda: datetime.now(UTC))


@pytest.fixture
def relay(database: Database, sender: Sender, settings: Settings) -> Relay:
    async def nothing_waits() -> Backlog:
        return Backlog({}, {})

    return Relay(database, sender, settings, time.monotonic, nothing_waits)


async def bury(letters: DeadLetters, event: Event) -> DeadLetter:
    """A sound event among the dead letters: whatever was wrong has been mended."""
    letter = DeadLetter(*delivered(event), Conflict("other content"), 0, 0, DeliveredEvent(event.to_document()))
    await letters.keep(letter)
    return letter


async def shown(letters: DeadLetters, letter: DeadLetter) -> Document:
    document = await letters.get(letter.dead_letter_id)
    assert document is not None
    return document


async def lines(letters: DeadLetters, letter: DeadLetter) -> list[str]:
    return [line["what"] for line in (await shown(letters, letter))["history"]]


def next_delivery(settings: Settings) -> tuple[Raw, bytes]:
    """What KafkaSource makes of the first record in the topic."""
    with KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, consumer_timeout_ms=20_000) as consumer:
        partitions = consumer.partitions_for_topic(settings.kafka_topic) or set()
        consumer.assign([TopicPartition(settings.kafka_topic, number) for number in partitions])
        consumer.seek_to_beginning()
        record = next(consumer)
    headers = [(name.replace("ce_", "ce-", 1).encode(), value) for name, value in record.headers]
    place = [(b"ce-knativekafkapartition", record.partition), (b"ce-knativekafkaoffset", record.offset)]
    return [*headers, *((name, str(number).encode()) for name, number in place)], record.value


async def test_a_letter_goes_through_kafka_into_the_log(
    letters: DeadLetters, redrive: Redrive, store: Store, database: Database, settings: Settings
) -> None:
    """Dead, redriving, stored: to the topic that `store` reads, in the form that it knows; each step has its line."""
    event = an_event()
    letter = await bury(letters, event)
    assert await redrive.redrive([letter.dead_letter_id], "Ada") == RedriveResult(sent=1)
    assert (await shown(letters, letter))["state"] == "redriving"
    await store.take(*await asyncio.to_thread(next_delivery, settings))
    assert await EventStore(database).get(event.event_id) == event
    kept = await shown(letters, letter)
    assert kept["state"] == "stored"
    assert [(line["what"], line.get("by")) for line in kept["history"]] == [("redriven", "Ada"), ("stored", None)]


async def test_one_that_fails_again_is_the_same_letter_with_its_history(
    letters: DeadLetters, redrive: Redrive, store: Store, database: Database, settings: Settings
) -> None:
    event = an_event()
    await store.take(*delivered(event))
    letter = await bury(letters, altered(event))
    await redrive.redrive([letter.dead_letter_id], "Ada")
    await store.take(*await asyncio.to_thread(next_delivery, settings))
    kept = await shown(letters, letter)
    assert (kept["state"], kept["times"]) == ("dead", 2)
    assert await lines(letters, letter) == ["redriven", "failed again"]
    assert await database["dead_letters"].count_documents({}) == 1
    assert await EventStore(database).get(event.event_id) == event


async def test_raw_poison_comes_back_as_the_same_letter(
    letters: DeadLetters, redrive: Redrive, store: Store, database: Database, settings: Settings
) -> None:
    """At another place in the topic, but with the letter's name on it; to the byte as it first came."""
    await store.take(*plain_record(b"\x00\xffpoison", partition=3, offset=7))
    (before,) = [found async for found in database["dead_letters"].find()]
    await redrive.redrive([before["_id"]], "Ada")
    await store.take(*await asyncio.to_thread(next_delivery, settings))
    (after,) = [found async for found in database["dead_letters"].find()]
    assert (after["_id"], after["state"], after["times"]) == (before["_id"], "dead", 2)
    for name in ("body", "headers", "kafka", "reason", "first_at"):
        assert after[name] == before[name]


async def test_two_redrives_at_once_send_it_once(
    letters: DeadLetters, database: Database, sender: Sender, settings: Settings
) -> None:
    letter = await bury(letters, an_event())
    redrives = [Redrive(DeadLetters(database), Outbox(database), sender) for _ in range(5)]
    done = await asyncio.gather(*(each.redrive([letter.dead_letter_id], "Ada") for each in redrives))
    assert (sum(each.sent for each in done), sum(each.not_dead for each in done)) == (1, 4)
    assert sum((await asyncio.to_thread(read_backlog, settings)).lag.values()) == 1


async def test_one_that_dies_half_way_leaves_a_letter_that_is_dead_again_in_time(
    letters: DeadLetters, relay: Relay, database: Database
) -> None:
    """Killed between changing the letter's state and sending it. Before its time, it stays as it is."""
    letter = await bury(letters, an_event())
    assert await letters.start_redrive(letter.dead_letter_id, "Ada") is not None
    await relay.run()
    assert (await shown(letters, letter))["state"] == "redriving"
    long_ago = datetime.now(UTC) - REDRIVE_WITHIN - timedelta(minutes=1)
    await database["dead_letters"].update_one({}, {"$set": {"history.0.at": long_ago}})
    await relay.run()
    assert (await shown(letters, letter))["state"] == "dead"
    assert await lines(letters, letter) == ["redriven", "lost on its way"]


async def test_without_kafka_a_letter_is_dead_as_before(
    letters: DeadLetters, database: Database, settings: Settings
) -> None:
    sender = Sender(without_kafka(settings))
    letter = await bury(letters, an_event())
    done = await Redrive(letters, Outbox(database), sender).redrive([letter.dead_letter_id], "Ada")
    await asyncio.to_thread(sender.close, 0.0)
    assert done == RedriveResult(not_sent=1)
    assert (await shown(letters, letter))["state"] == "dead"
    assert await lines(letters, letter) == ["redriven", "not sent"]


async def test_many_are_redriven_and_the_progress_is_told(letters: DeadLetters, redrive: Redrive) -> None:
    """One that is no letter at all is counted, and stops nothing."""
    buried = [await bury(letters, an_event()) for _ in range(3)]
    ids = [letter.dead_letter_id for letter in buried]
    heard: list[int] = []
    assert await redrive.redrive([ids[0], an_event().event_id, *ids[1:]], "Ada", heard.append) == RedriveResult(3, 1)
    assert heard == [1, 2, 3, 4]


async def test_discarding_names_who_and_why_and_removes_nothing(letters: DeadLetters, redrive: Redrive) -> None:
    letter = await bury(letters, an_event())
    before = await shown(letters, letter)
    assert await letters.discard(letter.dead_letter_id, "Ada", "a $test of $$ROOT")
    kept = await shown(letters, letter)
    assert (kept["state"], kept["body"], kept["headers"]) == ("discarded", before["body"], before["headers"])
    (line,) = kept["history"]
    assert (line["what"], line["by"], line["why"]) == ("discarded", "Ada", "a $test of $$ROOT")
    assert not await letters.discard(letter.dead_letter_id, "Bob", "once more")
    assert await redrive.redrive([letter.dead_letter_id], "Bob") == RedriveResult(not_dead=1)


@pytest.mark.guarantee("G5")
async def test_the_mark_of_a_redriven_event_is_tried_again(
    redrive: Redrive, relay: Relay, store: Store, database: Database, settings: Settings
) -> None:
    """It was given up as dead; once the log has it, its mark goes and its clock starts."""
    event = an_event()
    await accept(database, event)
    letter = await bury(DeadLetters(database), event)
    assert (await relay.run()) is not None
    await redrive.redrive([letter.dead_letter_id], "Ada")
    await store.take(*await asyncio.to_thread(next_delivery, settings))
    await database["events"].update_one({}, {"$set": {"outbox.next_try": datetime.now(UTC) - timedelta(minutes=1)}})
    run = await relay.run()
    assert run is not None
    assert run.confirmed == 1
    document = await database["events"].find_one({"_id": event.event_id})
    assert document is not None
    assert "outbox" not in document
    assert "expires_at" in document


async def test_one_that_counted_as_lost_and_then_comes_is_stored(
    letters: DeadLetters, relay: Relay, store: Store, database: Database
) -> None:
    """Its record waited in Kafka for longer than a redrive may take."""
    event = an_event()
    letter = await bury(letters, event)
    await letters.start_redrive(letter.dead_letter_id, "Ada")
    long_ago = datetime.now(UTC) - REDRIVE_WITHIN - timedelta(minutes=1)
    await database["dead_letters"].update_one({}, {"$set": {"history.0.at": long_ago}})
    await relay.run()
    assert (await shown(letters, letter))["state"] == "dead"
    await store.take(*delivered(event, redriveof=str(letter.dead_letter_id)))
    assert (await shown(letters, letter))["state"] == "stored"
    assert await lines(letters, letter) == ["redriven", "lost on its way", "stored"]


class TestNamed:
    """Whoever writes into the topic can name any letter."""

    async def test_other_poison_that_names_a_letter_is_a_letter_of_its_own(
        self, letters: DeadLetters, store: Store, database: Database
    ) -> None:
        """Counted as a redelivery of that one, its bytes would be lost."""
        await store.take(*plain_record(b"poison"))
        (first,) = [found async for found in database["dead_letters"].find()]
        headers, body = plain_record(b"other poison", offset=7)
        named = [(b"ce-redriveof", str(first["_id"]).encode())]
        await store.take(headers + named, body)
        await store.take([*headers, (b"ce-more", b"1"), *named], b"poison")
        assert await letters.get(first["_id"]) == first
        others = [found["body"] async for found in database["dead_letters"].find({"_id": {"$ne": first["_id"]}})]
        assert sorted(others) == [b"other poison", b"poison"]

    async def test_a_letter_that_is_not_there_is_believed_by_nobody(self, store: Store, database: Database) -> None:
        nobody = an_event().event_id
        headers, body = plain_record(b"poison")
        await store.take([*headers, (b"ce-redriveof", str(nobody).encode())], body)
        (kept,) = [found async for found in database["dead_letters"].find()]
        assert kept["_id"] != nobody

    async def test_another_event_that_names_a_letter_does_not_end_it(self, letters: DeadLetters, store: Store) -> None:
        letter = await bury(letters, an_event())
        await store.take(*delivered(an_event(), redriveof=str(letter.dead_letter_id)))
        assert (await shown(letters, letter))["state"] == "dead"


@pytest.mark.guarantee("R9")
class TestUndelivered:
    """What a source gave up on though nothing is wrong with it."""

    async def test_it_does_not_stop_the_relay_and_is_stored_once_the_log_has_it(
        self, letters: DeadLetters, relay: Relay, store: Store, database: Database
    ) -> None:
        event = an_event()
        await accept(database, event)
        await keep_undelivered(letters, *delivered(event, knativeerrorcode="503", knativeerrordest="http://store"))
        run = await relay.run()
        assert run is not None
        assert (run.resent, run.dead) == (1, 0)
        await store.take(*delivered(event))
        await database["events"].update_one({}, {"$set": {"outbox.next_try": datetime.now(UTC) - timedelta(minutes=1)}})
        run = await relay.run()
        assert run is not None
        assert run.confirmed == 1
        (letter,) = [found async for found in database["dead_letters"].find()]
        assert (letter["state"], letter["reason"]) == ("stored", "undelivered")
        assert [line["what"] for line in letter["history"]] == ["stored"]

    @pytest.mark.guarantee("G10")
    async def test_one_that_was_in_the_log_already_is_stored_with_the_next_run(
        self, letters: DeadLetters, relay: Relay, store: Store
    ) -> None:
        """Its mark has gone by then: no relay looks at the event again. What the log lacks stays dead."""
        there, foreign = an_event(), an_event()
        await store.take(*delivered(there))
        for event in (there, foreign):
            await keep_undelivered(letters, *delivered(event, knativeerrorcode="503"))
        assert len(await letters.to_look_up(10)) == 2
        await relay.run()
        assert {(found["event_id"], found["state"]) for found in await letters.list({}, 10)} == {
            (there.event_id, "stored"),
            (foreign.event_id, "dead"),
        }
        assert await letters.to_look_up(10) == [], "each is looked for once"

    async def test_a_run_looks_up_a_bounded_number(
        self, letters: DeadLetters, database: Database, sender: Sender, settings: Settings, store: Store
    ) -> None:
        async def nothing_waits() -> Backlog:
            return Backlog({}, {})

        for event in [an_event() for _ in range(5)]:
            await store.take(*delivered(event))
            await keep_undelivered(letters, *delivered(event, knativeerrorcode="503"))
        small = settings.model_copy(update={"relay_batch": 3})
        relay = Relay(database, sender, small, time.monotonic, nothing_waits)
        for left in (2, 0):
            await relay.run()
            assert len(await letters.list({"state": "dead"}, 10)) == left

    async def test_other_content_in_the_log_does_not_end_it(
        self, letters: DeadLetters, relay: Relay, store: Store
    ) -> None:
        event = an_event()
        await store.take(*delivered(event))
        await keep_undelivered(letters, *delivered(altered(event), knativeerrorcode="503"))
        await relay.run()
        assert [found["state"] for found in await letters.list({}, 10)] == ["dead"]

    @pytest.mark.guarantee("G10")
    async def test_one_that_then_fails_for_a_reason_of_its_own_is_dead_for_that(
        self, letters: DeadLetters, relay: Relay, store: Store, database: Database
    ) -> None:
        """The relay would send it again and again, and no checkpoint would count it."""
        event = an_event()
        await accept(database, event)
        await keep_undelivered(letters, *delivered(event, knativeerrorcode="503"))
        letter = await bury(letters, event)
        kept = await shown(letters, letter)
        assert (kept["reason"], kept["detail"], kept["times"]) == ("identity-conflict", "other content", 2)
        assert await lines(letters, letter) == ["failed again"]
        run = await relay.run()
        assert run is not None
        assert run.dead == 1

    async def test_what_failed_for_a_reason_of_its_own_stays_so(self, letters: DeadLetters, relay: Relay) -> None:
        event = an_event()
        letter = await bury(letters, event)
        await keep_undelivered(letters, *delivered(event, knativeerrorcode="503"))
        assert (await shown(letters, letter))["reason"] == "identity-conflict"
        assert await lines(letters, letter) == []


async def test_what_was_stored_and_fails_again_is_dead_again(letters: DeadLetters, store: Store) -> None:
    """As when the log was set back."""
    event = an_event()
    letter = await bury(letters, event)
    await store.take(*delivered(event, redriveof=str(letter.dead_letter_id)))
    assert (await shown(letters, letter))["state"] == "stored"
    await bury(letters, event)
    assert (await shown(letters, letter))["state"] == "dead"
    assert await lines(letters, letter) == ["stored", "failed again"]


async def test_what_was_discarded_stays_so_unless_it_fails_for_another_reason(letters: DeadLetters) -> None:
    """A redelivery is no news to whoever decided; another reason is."""
    event = an_event()
    letter = await bury(letters, event)
    await letters.discard(letter.dead_letter_id, "Ada", "a test")
    await bury(letters, event)
    assert (await shown(letters, letter))["state"] == "discarded"
    large = DeadLetter(*delivered(event), TooLarge("Kafka refuses it"), 0, 0, DeliveredEvent(event.to_document()))
    await letters.keep(large)
    kept = await shown(letters, letter)
    assert (kept["state"], kept["reason"], kept["times"]) == ("dead", "too-large", 3)
    assert await lines(letters, letter) == ["discarded", "failed again"]


async def test_letters_are_listed_by_state_and_reason_the_oldest_first_and_counted(letters: DeadLetters) -> None:
    first, second = await bury(letters, an_event()), await bury(letters, an_event())
    poison = DeadLetter(*plain_record(b"poison"), Malformed("no JSON"), 0, 0)
    await letters.keep(poison)
    await letters.discard(second.dead_letter_id, "Ada", "a test")
    listed = await letters.list({"state": "dead"}, 10)
    assert [letter["_id"] for letter in listed] == [first.dead_letter_id, poison.dead_letter_id]
    assert [letter["_id"] for letter in await letters.list({"reason": "malformed"}, 10)] == [poison.dead_letter_id]
    assert not any({"body", "headers"} & letter.keys() for letter in listed)
    assert await letters.count() == {
        ("dead", "identity-conflict"): 1,
        ("discarded", "identity-conflict"): 1,
        ("dead", "malformed"): 1,
    }
