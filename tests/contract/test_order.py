"""The order that a publisher gives, in both collections, and in each record of the event."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tests.helpers import altered, an_event, delivered, some_events
from twofold.cloudevents.decode_http import IncomingEvent
from twofold.cloudevents.decode_kafka import decode_kafka
from twofold.event.model import Event
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.observability.telemetry import SILENT
from twofold.settings import Settings
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.storage.outbox import Outbox
from twofold.write.publisher import Publisher
from twofold.write.store import Store

pytestmark = pytest.mark.guarantee("R26")

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def publisher(database: Database, sender: Sender, settings: Settings, clock: Clock) -> AsyncIterator[Publisher]:
    own = settings.model_copy(update={"max_future_s": 10**9})
    publisher = Publisher(EventRepository(database), EventStore(database), sender, own, clock)
    yield publisher
    await publisher.close()


async def orders(database: Database, events: Sequence[Event], collection: str = "events") -> list[int]:
    """Return the stored orders of the events."""
    ids = [event.event_id for event in events]
    found = {document["_id"]: document["order"] async for document in database[collection].find({"_id": {"$in": ids}})}
    return [found[event_id] for event_id in ids]


@pytest.mark.parametrize("costly", [False, True])
async def test_the_events_of_a_call_are_in_its_order(publisher: Publisher, database: Database, costly: bool) -> None:
    """A costly call is encoded in another thread."""
    events = some_events(20)
    await publisher.publish([IncomingEvent.of(event) for event in events], costly=costly)
    first = (NOON - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) << 20
    assert await orders(database, events) == list(range(first, first + 20))


async def test_observed_facts_are_in_the_order_of_the_call(publisher: Publisher, database: Database) -> None:
    facts = some_events(10)
    await publisher.publish_observed(facts)
    found = await orders(database, facts)
    assert found == sorted(set(found))


async def test_concurrent_calls_give_distinct_orders(publisher: Publisher, database: Database) -> None:
    """Half of the calls are encoded in threads. The orders of each call increase."""
    calls = [some_events(20) for _ in range(20)]
    await asyncio.gather(
        *(
            publisher.publish([IncomingEvent.of(event) for event in events], costly=number % 2 == 0)
            for number, events in enumerate(calls)
        )
    )
    found = [await orders(database, events) for events in calls]
    assert all(one == sorted(one) for one in found)
    assert len({order for one in found for order in one}) == 400


async def test_the_order_increases_although_the_clock_goes_back(
    publisher: Publisher, database: Database, clock: Clock
) -> None:
    events = some_events(6)
    for event, seconds in zip(events, (0, 5, -100, -99, 6, 6), strict=True):
        clock.now = NOON + timedelta(seconds=seconds)
        await publisher.publish_base_event(event)
    found = await orders(database, events)
    assert found == sorted(set(found))
    assert found[4] == found[0] + (6000 << 20)


async def test_a_duplicate_keeps_the_first_order(publisher: Publisher, database: Database) -> None:
    event, other = an_event(), an_event()
    await publisher.publish_base_event(event)
    first = await orders(database, [event])
    await publisher.publish_base_event(other)
    assert (await publisher.publish_base_event(event)).status == "duplicate"
    assert await publisher.publish_observed([altered(event)]) == 0
    assert await orders(database, [event]) == first


async def test_an_event_that_is_published_anew_gets_a_new_order(publisher: Publisher, database: Database) -> None:
    """An application may publish an event that a reader gave it. Its record has the new order too."""
    event = an_event(order=2**63 - 1)
    await publisher.publish_base_event(event)
    (order,) = await orders(database, [event])
    assert order < 2**62
    loaded = (await Outbox(database).load([event.event_id]))[event.event_id]
    assert isinstance(loaded, Event)
    assert decode_kafka(*delivered(loaded)).document["order"] == order


async def test_the_log_keeps_the_first_order_that_arrives(database: Database, settings: Settings) -> None:
    """An event that expired and was published again has a second record. It is a duplicate."""
    store = Store(database, settings, lambda: datetime.now(UTC), telemetry=SILENT)
    event = an_event(order=2**31 - 1)
    await store.take(*delivered(event))
    await store.take(*delivered(event.model_copy(update={"order": 8})))
    assert await orders(database, [event], "event_store") == [2**31 - 1]
    assert await database.event_store.count_documents({"order": {"$type": "long"}}) == 1
    assert await database.dead_letters.count_documents({}) == 0


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("wrong", [None, "x", -1, 2.5])
async def test_the_relay_does_not_send_an_event_without_a_valid_order(
    publisher: Publisher, database: Database, wrong: object
) -> None:
    """Its document was changed in the database."""
    event = an_event()
    await publisher.publish_base_event(event)
    change = {"$unset": {"order": 1}} if wrong is None else {"$set": {"order": wrong}}
    await database.events.update_one({"_id": event.event_id}, change)
    loaded = (await Outbox(database).load([event.event_id]))[event.event_id]
    assert not isinstance(loaded, Event)
    assert not loaded.retriable
