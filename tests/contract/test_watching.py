"""What a pod's state costs in MongoDB, and how its events are found there."""

from collections.abc import AsyncIterator
from typing import NamedTuple
from uuid import uuid4

import pytest

from functions.pod_events.watching import Watcher
from tests.helpers import Commands, listened
from tests.pods import Sent, new_life, watcher
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.query.filters import Filter
from twofold.read.pages import EventReader
from twofold.settings import Settings
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.write.publisher import Publisher

pytestmark = pytest.mark.guarantee("G6")


class Watched(NamedTuple):
    """A watcher, its database, and the commands that it sends there."""

    watcher: Watcher
    database: Database
    commands: Commands

    async def take(self, sent: Sent) -> None:
        """Deliver a state."""
        headers, body = sent.request()
        await self.watcher.take([(name.encode(), value.encode()) for name, value in headers.items()], body)


@pytest.fixture
async def watched(settings: Settings, sender: Sender) -> AsyncIterator[Watched]:
    async with listened(settings) as (database, commands):
        publisher = Publisher(EventRepository(database), EventStore(database), sender, settings)
        yield Watched(watcher(publisher, database), database, commands)
        await publisher.close()


async def test_an_unchanged_pod_sent_1000_times_writes_nothing_and_costs_one_read_each(watched: Watched) -> None:
    sent = new_life("oom_then_restarted")[-1]
    await watched.take(sent)
    before = len(watched.commands.sent)
    for _ in range(1000):
        await watched.take(sent)
    assert [command.command_name for command in watched.commands.sent[before:]] == ["find"] * 1000


async def test_a_state_without_a_new_fact_writes_nothing_either(watched: Watched) -> None:
    """Most updates of a pod are about its conditions and its managed fields."""
    sent = new_life("oom_then_restarted")[-1]
    await watched.take(sent)
    before = len(watched.commands.sent)
    sent.pod["metadata"]["resourceVersion"] = "99"
    sent.pod["status"]["conditions"].append({"type": "Other", "status": "True"})
    await watched.take(sent)
    assert [command.command_name for command in watched.commands.sent[before:]] == ["find"]


@pytest.mark.guarantee("R13")
async def test_a_new_fact_in_the_same_phase_is_published(watched: Watched) -> None:
    """A pod is scheduled, and can't get its image, and is Pending all the while."""
    states = new_life("image_pull_failure")
    for state in states:
        await watched.take(state)
    assert {state.pod["status"]["phase"] for state in states} == {"Pending"}
    found = watched.database["events"].find({"payload.pod_uid": states[0].uid})
    assert {document["event_type"] async for document in found} == {
        *("pod.created", "pod.scheduled", "pod.initialized", "pod.container_waiting")
    }


@pytest.mark.guarantee("R21")
async def test_a_query_by_the_works_id_finds_the_pods_events(watched: Watched, settings: Settings) -> None:
    """Together with what the work itself published, oldest first."""
    work, states = f"execution-{uuid4()}", new_life("completed_job")
    for state in states:
        state.pod["metadata"]["labels"]["twofold.dev/aggregate-id"] = work
        await watched.take(state)
    reader = EventReader(watched.database["events"], settings)
    page = await reader.page(Filter(aggregate=work, order="oldest"))
    assert {event.event_type for event in page.events} == {
        *("pod.created", "pod.scheduled", "pod.initialized", "pod.running"),
        *("pod.container_terminated", "pod.succeeded", "pod.terminating", "pod.deleted"),
    }
    assert [event.timestamp for event in page.events] == sorted(event.timestamp for event in page.events)
    found = await reader.page(Filter(correlation="request-17", user="user-3"))
    assert {event.event_id for event in found.events} == {event.event_id for event in page.events}
