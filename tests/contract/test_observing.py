"""`publish_observed`: the first observation of a fact wins, and a known fact is not published again."""

from collections.abc import AsyncIterator

import pytest

from tests.helpers import altered, an_event, log
from twofold.errors import TooLarge
from twofold.event.model import Event
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.settings import Settings
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.write.publisher import Publisher

pytestmark = pytest.mark.guarantee("G2", "G6")


@pytest.fixture
async def publisher(database: Database, sender: Sender, settings: Settings) -> AsyncIterator[Publisher]:
    publisher = Publisher(EventRepository(database), EventStore(database), sender, settings)
    yield publisher
    await publisher.close()


async def stored_digest(database: Database, event: Event) -> bytes | None:
    """Return the digest of the event in `events`."""
    stored = await EventRepository(database).get(event.event_id)
    return None if stored is None else stored.digest


async def test_a_new_fact_is_stored_with_its_outbox_entry(publisher: Publisher, database: Database) -> None:
    events = [an_event(), an_event()]
    assert await publisher.publish_observed(events) == 2
    for event in events:
        document = await database["events"].find_one({"_id": event.event_id})
        assert document is not None
        assert (document["digest"], document["outbox"]["state"]) == (event.digest, "new")


async def test_a_different_later_observation_is_a_success_and_changes_nothing(
    publisher: Publisher, database: Database
) -> None:
    event = an_event()
    await publisher.publish_observed([event])
    assert await publisher.publish_observed([altered(event)]) == 0
    assert await stored_digest(database, event) == event.digest


async def test_two_observations_in_one_call_are_one_fact(publisher: Publisher, database: Database) -> None:
    """The search for known facts finds neither of them."""
    event = an_event()
    await publisher.publish_observed([event, altered(event)])
    assert await stored_digest(database, event) == event.digest


async def test_a_fact_that_only_the_log_has_is_not_published_again(publisher: Publisher, database: Database) -> None:
    event = an_event()
    await log(database, event)
    assert await publisher.publish_observed([altered(event)]) == 0
    assert await EventRepository(database).get(event.event_id) is None


async def test_a_rejected_fact_does_not_stop_the_rest(publisher: Publisher, database: Database) -> None:
    sound, too_large = an_event(), an_event(payload={"text": "x" * 2_000_000})
    with pytest.raises(TooLarge):
        await publisher.publish_observed([too_large, sound])
    assert await stored_digest(database, sound) == sound.digest
