"""The write path in application code, on real servers."""

import asyncio
import json
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from dev.process.child import free_port
from dev.stack import Stack
from tests.helpers import (
    Commands,
    altered,
    an_event,
    eventually,
    failing,
    listened,
    settings_of,
    some_events,
    with_headers_of,
    without_kafka,
)
from twofold.cloudevents.decode_http import IncomingEvent, decode_structured
from twofold.cloudevents.encode import MAX_ATTRIBUTES_BYTES, EncodedEvent
from twofold.errors import (
    Conflict,
    Forbidden,
    Invalid,
    InvalidSettings,
    Malformed,
    TooLarge,
    TwofoldError,
    Unavailable,
    UnknownReplay,
)
from twofold.event.identity import event_id_of
from twofold.event.model import Event
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database, open_database
from twofold.settings import Settings
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.write.batch import Published
from twofold.write.publisher import Publisher, open_publisher


@pytest.fixture
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    async with open_publisher(settings) as publishing:
        yield publishing


@asynccontextmanager
async def counted(settings: Settings) -> AsyncIterator[tuple[Publisher, Commands]]:
    """Yield a publisher, and its commands to MongoDB."""
    async with listened(settings) as (database, commands):
        publishing = Publisher(EventRepository(database), EventStore(database), Sender(settings), settings)
        try:
            yield publishing, commands
        finally:
            await publishing.close()


async def publish_all(publisher: Publisher, events: list[Any]) -> list[Published | BaseException]:
    """Publish the events at once, every event by a caller of its own."""
    return await asyncio.gather(*(publisher.publish_base_event(event) for event in events), return_exceptions=True)


async def number_of(database: Database, name: str = "events") -> int:
    return await database[name].count_documents({})


async def stored_content(database: Database, event: Event) -> Event | None:
    """Return the event in `events`, with the order of `event` in place of the publisher's."""
    stored = await EventRepository(database).get(event.event_id)
    return None if stored is None else stored.model_copy(update={"order": event.order})


def unencodable() -> Event:
    """Return an event that application code built without the checks of the schema."""
    event = an_event()
    fields = {name: getattr(event, name) for name in Event.model_fields}
    return Event.model_construct(**fields | {"payload": {"number": 2**70}})


class TestLibrary:
    @pytest.mark.guarantee("G2", "R26")
    @pytest.mark.parametrize("odd", [float("nan"), uuid4(), datetime(2026, 1, 1, tzinfo=UTC), 2**70])
    async def test_a_changed_payload_is_checked_again(
        self, publisher: Publisher, database: Database, odd: object
    ) -> None:
        """JSON and BSON would write such a value differently, so one event would become two."""
        event = an_event(payload={"things": []})
        event.payload["things"].append(odd)
        with pytest.raises(Invalid) as caught:
            await publisher.publish_base_event(event)
        assert [problem.where for problem in caught.value.problems] == ["data.things[0]"]
        assert await EventRepository(database).get(event.event_id) is None

    @pytest.mark.guarantee("R3")
    @pytest.mark.parametrize(
        ("payload", "content_type"),
        [({"a": ["sealed:v1:x"]}, None), ("sealed:v1:", None), ("sealed:v1:", "text/plain")],
    )
    async def test_a_string_with_the_reserved_prefix_is_refused(
        self, publisher: Publisher, database: Database, payload: object, content_type: str | None
    ) -> None:
        typed = partial(publisher.publish_event, data_content_type=content_type) if content_type else None
        with pytest.raises(Invalid, match="sealed:v1:"):
            await (typed or publisher.publish_event)("order.created", payload, source="/shop")
        await publisher.publish_event("order.created", {"sealed:v1:": "x sealed:v1:"}, source="/shop")
        await publisher.publish_event("order.created", b"sealed:v1:", source="/shop", data_content_type="image/png")
        assert await number_of(database) == 2

    @pytest.mark.guarantee("G2")
    async def test_a_finer_time_is_the_time_of_the_same_event_over_http(
        self, publisher: Publisher, database: Database
    ) -> None:
        time = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
        await publisher.publish_event("order.created", {}, source="/shop", id="7", time=time)
        request = {"specversion": "1.0", "id": "7", "type": "order.created", "source": "/shop", "data": {}}
        again = decode_structured(json.dumps(request | {"time": "2026-07-01T10:00:00.123456Z"}).encode(), time)
        (outcome,) = await publisher.publish([again])
        assert isinstance(outcome, Published)
        assert outcome.status == "duplicate"
        stored = await database["events"].find_one({"_id": event_id_of("/shop", "7")})
        assert stored is not None
        assert stored["metadata"]["original_time"] == "2026-07-01T12:00:00.123456+02:00"

    @pytest.mark.guarantee("G1", "R5")
    async def test_a_changed_payload_gets_a_new_digest(self, publisher: Publisher, database: Database) -> None:
        """With the old digest, the log would get the old payload, and no check would notice."""
        event = an_event(payload={"things": []})
        before = event.digest
        event.payload["things"].append(2)
        await publisher.publish_base_event(event)
        stored = await EventRepository(database).get(event.event_id)
        document = await database["events"].find_one({"_id": event.event_id})
        assert stored is not None
        assert document is not None
        assert document["payload"] == {"things": [2]}
        assert document["digest"] == stored.digest != before
        event.payload["things"].append(3)
        with pytest.raises(Conflict):
            await publisher.publish_base_event(event)

    @pytest.mark.guarantee("G1", "R4")
    async def test_publish_event_stores_its_arguments(self, publisher: Publisher, database: Database) -> None:
        published = await publisher.publish_event(
            "order.created",
            {"total": 3},
            source="/shop",
            aggregate_id="order-7",
            correlation_id="c-1",
            user_id="u-1",
            extensions={"tenant": "t-1"},
        )
        assert published.status == "accepted"
        event = await EventRepository(database).get(published.event_id)
        assert event is not None
        assert (event.event_type, event.payload, event.aggregate_id) == ("order.created", {"total": 3}, "order-7")
        assert (event.metadata.service_name, event.metadata.correlation_id) == ("/shop", "c-1")
        assert (event.metadata.user_id, event.metadata.extensions) == ("u-1", {"tenant": "t-1"})

    async def test_every_call_without_an_id_makes_a_new_event(self, publisher: Publisher) -> None:
        first = await publisher.publish_event("order.created", {}, source="/shop")
        second = await publisher.publish_event("order.created", {}, source="/shop")
        assert first.event_id != second.event_id
        assert second.status == "accepted"

    @pytest.mark.guarantee("G2")
    async def test_a_call_with_an_id_may_be_repeated(self, publisher: Publisher, database: Database) -> None:
        """The later clock of the second call does not make another event."""
        given = uuid4()
        for expected in ("accepted", "duplicate"):
            published = await publisher.publish_event("order.created", {}, source="/shop", id=given)
            assert (published.event_id, published.status) == (event_id_of("/shop", str(given)), expected)
            await asyncio.sleep(0.005)
        assert await number_of(database) == 1

    async def test_publish_base_event_stores_an_existing_event(self, publisher: Publisher, database: Database) -> None:
        event = an_event()
        assert await publisher.publish_base_event(event) == Published(event.event_id, event.id, "accepted")
        assert await stored_content(database, event) == event

    @pytest.mark.guarantee("R3")
    async def test_an_invalid_event_raises_and_stores_nothing(self, publisher: Publisher, database: Database) -> None:
        with pytest.raises(Invalid):
            await publisher.publish_event("order\x85created", {}, source="/shop")
        with pytest.raises(Invalid):
            await publisher.publish_event("order.created", {"text": "\ud800"}, source="/shop")
        with pytest.raises(Invalid):
            await publisher.publish_event("order.created", {}, source="/shop", id="")
        naive = datetime(2026, 7, 1)  # noqa: DTZ001 - the subject of the test
        with pytest.raises(Invalid, match="time zone"):
            await publisher.publish_event("order.created", {}, source="/shop", time=naive)
        assert await number_of(database) == 0

    @pytest.mark.fault("C5")
    @pytest.mark.parametrize("given", ["order-7-created", str(UUID(int=1)), "8A2F8D1E-6F39-4C5C-9D1F-0A5F6C1B2D3E"])
    async def test_any_text_is_an_id_as_over_http(self, publisher: Publisher, database: Database, given: str) -> None:
        """`source` and id name the event, and the digest is that of the function `publish`."""
        time = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        published = await publisher.publish_event(
            "order.created", {"total": 3}, source="/shop", id=given, time=time, aggregate_id="order-7"
        )
        assert (published.event_id, published.given_id) == (event_id_of("/shop", given), given)
        request = {"specversion": "1.0", "id": given, "type": "order.created", "source": "/shop"}
        request |= {"time": "2026-07-01T10:00:00Z", "subject": "order-7"}
        over_http = decode_structured(json.dumps(request | {"data": {"total": 3}}).encode(), datetime.now(UTC))
        (again,) = await publisher.publish([over_http])
        assert isinstance(again, Published)
        assert again.status == "duplicate"
        event = await EventRepository(database).get(published.event_id)
        assert event is not None
        assert event.timestamp == time
        assert event.metadata.time_assigned is False

    @pytest.mark.fault("C5")
    @pytest.mark.parametrize(("source", "event_type"), [("/shop", "pod.failed"), ("/pod_events", "order.created")])
    async def test_an_application_does_not_publish_in_the_name_of_the_cluster(
        self, publisher: Publisher, database: Database, source: str, event_type: str
    ) -> None:
        with pytest.raises(Forbidden, match="event of the cluster"):
            await publisher.publish_event(event_type, {}, source=source)
        event = an_event(event_type=event_type, metadata={"service_name": source})
        with pytest.raises(Forbidden):
            await publisher.publish_base_event(event)
        assert await number_of(database) == 0

    @pytest.mark.fault("C5")
    async def test_a_publisher_needs_an_address_of_kafka(self, settings: Settings) -> None:
        """Without Kafka every event would wait for the relay. The function `publish` does not start either."""
        with pytest.raises(InvalidSettings, match="KAFKA_BOOTSTRAP_SERVERS is missing"):
            async with open_publisher(settings.model_copy(update={"kafka_bootstrap_servers": ""})):
                pass

    @pytest.mark.guarantee("R3")
    async def test_an_event_too_large_for_kafka_is_rejected_before_the_insert(
        self, publisher: Publisher, database: Database, settings: Settings
    ) -> None:
        """In `events` it would wait for ever."""
        with pytest.raises(TooLarge):
            await publisher.publish_base_event(an_event(payload={"text": "x" * settings.max_record_bytes}))
        assert await number_of(database) == 0

    @pytest.mark.guarantee("R3")
    async def test_an_event_with_too_large_attributes_is_rejected_before_the_insert(
        self, publisher: Publisher, database: Database
    ) -> None:
        """Twofold's own attributes count too, and the trace of the request."""
        largest = with_headers_of(MAX_ATTRIBUTES_BYTES)
        with pytest.raises(Invalid, match="32769 bytes: at most 32768"):
            await publisher.publish_base_event(with_headers_of(MAX_ATTRIBUTES_BYTES + 1))
        hop = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        (refused,) = await publisher.publish([IncomingEvent.of(largest)._replace(traceparent=hop)])
        assert isinstance(refused, Invalid)
        assert await number_of(database) == 0
        assert (await publisher.publish_base_event(largest)).status == "accepted"

    @pytest.mark.guarantee("G2")
    async def test_the_same_id_with_other_content_is_a_conflict(self, publisher: Publisher, database: Database) -> None:
        event = an_event()
        await publisher.publish_base_event(event)
        with pytest.raises(Conflict):
            await publisher.publish_base_event(altered(event))
        assert await stored_content(database, event) == event

    @pytest.mark.guarantee("R5")
    async def test_a_copy_with_other_content_has_another_digest(self, publisher: Publisher, database: Database) -> None:
        """An old digest would store one content and send another content, even if it was computed before the copy."""
        original = an_event()
        assert original.digest
        assert original.data.data
        other = original.model_copy(update={"id": str(uuid4()), "payload": {"total": 4}})
        await publisher.publish_base_event(other)
        stored = await stored_content(database, other)
        assert stored == other
        assert stored.digest == other.digest != original.digest
        assert other.data.data == b'{"total":4}'
        with pytest.raises(Invalid):
            original.model_copy(update={"payload": {"number": 2**64}})

    @pytest.mark.guarantee("G1")
    async def test_closing_finishes_accepted_events(self, settings: Settings, database: Database) -> None:
        async with open_publisher(settings) as publishing:
            calls = [asyncio.create_task(publishing.publish_base_event(event)) for event in some_events(50)]
            await asyncio.sleep(0)
        assert {published.status for published in await asyncio.gather(*calls)} == {"accepted"}
        assert await number_of(database) == 50
        with pytest.raises(Unavailable):
            await publishing.publish_base_event(an_event())


class Held(dict[str, Any]):
    """A document with weak references, to see if an object still holds it."""


@pytest.mark.guarantee("R7")
class TestGroupCommit:
    async def test_the_events_of_a_batch_are_released_one_by_one(self, publisher: Publisher) -> None:
        """Only documents and records wait for MongoDB, in a batch of any size."""
        made: list[weakref.ref[Held]] = []

        def batch() -> Iterator[IncomingEvent]:
            for _ in range(10):
                encoded = EncodedEvent.of(an_event())
                document = Held(encoded.document)
                made.append(weakref.ref(document))
                yield IncomingEvent(encoded._replace(document=document))
                assert sum(ref() is not None for ref in made) == 1

        outcomes = await publisher.publish(batch())
        assert [outcome.status for outcome in outcomes if isinstance(outcome, Published)] == ["accepted"] * 10

    @pytest.mark.guarantee("G1")
    async def test_500_concurrent_events_cost_at_most_50_inserts(self, settings: Settings, database: Database) -> None:
        async with counted(settings) as (publishing, commands):
            results = await publish_all(publishing, some_events(500))
        assert commands.count("insert") <= 50
        assert {result.status for result in results if isinstance(result, Published)} == {"accepted"}
        assert await number_of(database) == 500

    async def test_a_duplicate_a_conflict_and_invalid_events_affect_only_their_own_results(
        self, settings: Settings, database: Database
    ) -> None:
        """Every caller gets the result of its event, and only valid events are stored."""
        there, other = some_events(2)
        large = an_event(payload={"text": "x" * settings.max_record_bytes})
        async with counted(settings) as (publishing, commands):
            await publish_all(publishing, [there, other])
            odd = [there, altered(other), unencodable(), large]
            good = some_events(496)
            results = await publish_all(publishing, [*good[:200], *odd, *good[200:]])
        assert commands.count("insert") <= 50
        assert [result.status for result in results[:200] + results[204:] if isinstance(result, Published)] == [
            "accepted"
        ] * 496
        duplicate, conflict, *bad = results[200:204]
        assert isinstance(duplicate, Published)
        assert duplicate.status == "duplicate"
        assert isinstance(conflict, Conflict)
        assert [type(result) for result in bad] == [Invalid, TooLarge]
        assert await number_of(database) == 498

    async def test_a_batch_keeps_the_order_of_results_and_errors(
        self, publisher: Publisher, database: Database
    ) -> None:
        there, new, last = some_events(3)
        await publisher.publish_base_event(there)
        refused = Malformed("no event at all")
        outcomes = await publisher.publish(
            [IncomingEvent.of(new), refused, IncomingEvent.of(there), IncomingEvent.of(last)]
        )
        assert [getattr(outcome, "status", None) for outcome in outcomes] == ["accepted", 400, "duplicate", "accepted"]
        assert outcomes[1] is refused
        assert await number_of(database) == 3

    async def test_an_event_twice_in_a_batch_is_stored_once(self, publisher: Publisher, database: Database) -> None:
        event = an_event()
        outcomes = await publisher.publish([IncomingEvent.of(event), IncomingEvent.of(event)])
        assert sorted(outcome.status for outcome in outcomes if isinstance(outcome, Published)) == [
            "accepted",
            "duplicate",
        ]
        assert await number_of(database) == 1

    @pytest.mark.guarantee("G1")
    @pytest.mark.parametrize("with_a_duplicate", [False, True])
    async def test_a_write_concern_error_acknowledges_no_event(
        self, settings: Settings, database: Database, with_a_duplicate: bool
    ) -> None:
        """A repeated call then gets the true result."""
        name, events, there = settings.mongodb_database, some_events(20), an_event()
        timed_out = {"code": 64, "errmsg": "waiting for replication timed out"}
        async with open_publisher(settings, name) as publishing:
            await publishing.publish_base_event(there)
            sent = [*events[:10], there, *events[10:]] if with_a_duplicate else events
            async with failing(database, name, writeConcernError=timed_out):
                results = await publish_all(publishing, sent)
            assert {type(result) for result in results} == {Unavailable}
            again = await publish_all(publishing, sent)
        assert {result.status for result in again if isinstance(result, Published)} == {"duplicate"}
        assert len(again) == len(sent)
        assert await number_of(database) == 21

    @pytest.mark.guarantee("G1")
    async def test_a_full_queue_refuses_at_once_and_finishes_its_callers(
        self, settings: Settings, database: Database
    ) -> None:
        name = settings.mongodb_database
        small = settings.model_copy(update={"group_commit_capacity": 5, "group_commit_events": 1})
        slow = {"blockConnection": True, "blockTimeMS": 500}
        async with open_publisher(small, name) as publishing, failing(database, name, times=1, **slow):
            results = await publish_all(publishing, some_events(100))
        full = [result for result in results if isinstance(result, TwofoldError)]
        assert full
        assert {type(result) for result in full} == {Unavailable}
        assert len(full) + await number_of(database) == 100

    @pytest.mark.guarantee("G1")
    async def test_a_queue_full_of_bytes_refuses_at_once(self, settings: Settings, database: Database) -> None:
        """A few large events can exceed the memory."""
        name = settings.mongodb_database
        small = settings.model_copy(update={"group_commit_capacity_bytes": 1_000_000})
        slow = {"blockConnection": True, "blockTimeMS": 500}
        async with open_publisher(small, name) as publishing, failing(database, name, times=1, **slow):
            results = await publish_all(publishing, some_events(20, payload={"text": "x" * 100_000}))
        assert {type(result) for result in results} == {Published, Unavailable}
        taken = sum(isinstance(result, Published) for result in results)
        assert await number_of(database) == taken == 4, "an event needs the bytes of its record and its document"

    async def test_a_batch_larger_than_the_queue_is_refused_as_a_whole(
        self, settings: Settings, database: Database
    ) -> None:
        small = settings.model_copy(update={"group_commit_capacity": 5})
        async with open_publisher(small) as publishing:
            with pytest.raises(Unavailable):
                await publishing.publish([IncomingEvent.of(event) for event in some_events(6)])
        assert await number_of(database) == 0


class TestOutbox:
    @pytest.mark.guarantee("G5", "R1")
    async def test_an_event_is_stored_with_an_outbox_entry_and_without_an_expiry(
        self, publisher: Publisher, database: Database
    ) -> None:
        """One insert makes both, so a crash cannot separate them. Kafka's acknowledgement changes nothing."""
        event = an_event()
        await publisher.publish_base_event(event)
        await publisher.flush()
        document = await database["events"].find_one({"_id": event.event_id})
        assert document is not None
        assert document["outbox"] == {"state": "new", "tries": 0}
        assert document["seq"].time > 0, "the entry is due by the server's time"
        assert "expires_at" not in document

    @pytest.mark.guarantee("G7", "R2")
    async def test_without_kafka_an_event_is_accepted(self, settings: Settings, database: Database) -> None:
        unreachable = without_kafka(settings)
        async with asyncio.timeout(30), open_publisher(unreachable) as publishing:
            async with asyncio.timeout(4):
                results = await publish_all(publishing, some_events(200))
        assert {type(result) for result in results} == {Published}
        assert await database["events"].count_documents({"outbox.tries": 0}) == 200

    @pytest.mark.guarantee("R3")
    async def test_without_mongodb_nothing_is_sent_to_kafka(self, settings: Settings) -> None:
        """The log never has an event that `events` never had."""
        uri = SecretStr(f"mongodb://127.0.0.1:{free_port()}")
        unreachable = settings.model_copy(update={"mongodb_uri": uri, "mongodb_timeout_s": 0.5})
        async with open_database(unreachable, "tests") as database:
            sender = Sender(unreachable)
            publishing = Publisher(EventRepository(database), EventStore(database), sender, unreachable)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(publishing.publish_base_event(an_event()), 60)
            assert sender.flush(0.0)
            await publishing.close()


@pytest.mark.guarantee("G8")
class TestReplay:
    @pytest.mark.parametrize("known_in", ["events", "event_store"])
    async def test_a_known_event_is_a_duplicate_and_not_sent_again(
        self, publisher: Publisher, database: Database, known_in: str
    ) -> None:
        event = an_event()
        await database[known_in].insert_one(event.to_document())
        (outcome,) = await publisher.publish([IncomingEvent.of(event, replay_id="r-1")])
        assert isinstance(outcome, Published)
        assert outcome.status == "duplicate"
        assert await number_of(database) + await number_of(database, "event_store") == 1

    async def test_an_unknown_event_is_rejected(self, publisher: Publisher, database: Database) -> None:
        (outcome,) = await publisher.publish([IncomingEvent.of(an_event(), replay_id="r-1")])
        assert isinstance(outcome, UnknownReplay)
        assert await number_of(database) == 0

    async def test_other_content_under_a_known_id_is_a_conflict(self, publisher: Publisher, database: Database) -> None:
        event = an_event()
        await publisher.publish_base_event(event)
        (outcome,) = await publisher.publish([IncomingEvent.of(altered(event), replay_id="r-1")])
        assert isinstance(outcome, Conflict)


@pytest.mark.guarantee("G1", "R4")
async def test_an_event_of_the_library_reaches_the_log(stack: Stack) -> None:
    """Application code uses the same path as requests: here the whole path runs."""
    async with open_publisher(settings_of(stack), "tests") as publishing, listened(settings_of(stack)) as (database, _):
        published = await publishing.publish_event("order.created", {"total": 3}, source="/shop")

        async def in_the_log() -> bool:
            return await EventStore(database).get(published.event_id) is not None

        await eventually(in_the_log)
