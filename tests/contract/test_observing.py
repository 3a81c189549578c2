"""Publishing observations: the first one of a fact wins, and a known fact is not announced again."""

from collections.abc import AsyncIterator

import pytest

from tests.helpers import altered, an_event, log
from twofold.errors import TooLarge
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.settings import Settings
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.write.publisher import Publisher

pytestmark = pytest.mark.guarantee("G2", "G6")


@pytest.fixture
async def publisher(database: Database, sender: Sender, settings: Settings) -> AsyncIterator[Publisher]:
    made = Publisher(EventRepository(database), EventStore(database), sender, settings)
    yield made
    await made.close()


async def test_what_is_new_is_stored_with_its_mark(publisher: Publisher, database: Database) -> None:
    events = [an_event(), an_event()]
    assert await publisher.publish_observed(events) == 2
    for event in events:
        document = await database["events"].find_one({"_id": event.event_id})
        assert document is not None
        assert (document["digest"], document["outbox"]["state"]) == (event.digest, "new")


async def test_a_later_observation_that_differs_is_success_and_changes_nothing(
    publisher: Publisher, database: Database
) -> None:
    event = an_event()
    await publisher.publish_observed([event])
    assert await publisher.publish_observed([altered(event)]) == 0
    assert await EventRepository(database).get(event.event_id) == event


async def test_two_observations_at_once_are_one_fact(publisher: Publisher, database: Database) -> None:
    """Neither knew of the other when it looked."""
    event = an_event()
    await publisher.publish_observed([event, altered(event)])
    assert await EventRepository(database).get(event.event_id) == event


async def test_what_is_in_the_log_alone_is_not_announced_again(publisher: Publisher, database: Database) -> None:
    event = an_event()
    await log(database, event)
    assert await publisher.publish_observed([altered(event)]) == 0
    assert await EventRepository(database).get(event.event_id) is None


async def test_one_that_cannot_be_taken_does_not_stop_the_others(publisher: Publisher, database: Database) -> None:
    sound, too_large = an_event(), an_event(payload={"text": "x" * 2_000_000})
    with pytest.raises(TooLarge):
        await publisher.publish_observed([too_large, sound])
    assert await EventRepository(database).get(sound.event_id) == sound
