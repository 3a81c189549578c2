"""The cost of a pod's state in MongoDB, and the queries for its events."""

from collections.abc import AsyncIterator
from typing import NamedTuple
from uuid import uuid4

import pytest

from functions.pod_events.watching import PodWatcher
from tests.helpers import Commands, listened
from tests.pods import SourceRequest, new_life, pod_watcher
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.query.filters import Filter
from twofold.read.pages import EventReader
from twofold.settings import Settings
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.write.publisher import Publisher

pytestmark = pytest.mark.guarantee("G6")


class RecordedWatcher(NamedTuple):
    """A watcher with its database and the commands sent there."""

    watcher: PodWatcher
    database: Database
    commands: Commands

    async def handle(self, sent: SourceRequest) -> None:
        """Handle a delivery."""
        headers, body = sent.request()
        await self.watcher.handle([(name.encode(), value.encode()) for name, value in headers.items()], body)


@pytest.fixture
async def watched(settings: Settings, sender: Sender) -> AsyncIterator[RecordedWatcher]:
    async with listened(settings) as (database, commands):
        publisher = Publisher(EventRepository(database), EventStore(database), sender, settings)
        yield RecordedWatcher(pod_watcher(publisher, database), database, commands)
        await publisher.close()


async def test_an_unchanged_pod_costs_one_read_a_delivery_and_no_write(watched: RecordedWatcher) -> None:
    sent = new_life("oom_then_restarted")[-1]
    await watched.handle(sent)
    before = len(watched.commands.sent)
    for _ in range(1000):
        await watched.handle(sent)
    assert [command.command_name for command in watched.commands.sent[before:]] == ["find"] * 1000


async def test_a_changed_state_without_a_new_fact_costs_one_read_and_no_write(watched: RecordedWatcher) -> None:
    """Most updates change only conditions and managed fields."""
    sent = new_life("oom_then_restarted")[-1]
    await watched.handle(sent)
    before = len(watched.commands.sent)
    sent.pod["metadata"]["resourceVersion"] = "99"
    sent.pod["status"]["conditions"].append({"type": "Other", "status": "True"})
    await watched.handle(sent)
    assert [command.command_name for command in watched.commands.sent[before:]] == ["find"]


@pytest.mark.guarantee("R13")
async def test_new_facts_in_one_phase_are_published(watched: RecordedWatcher) -> None:
    """A pod stays Pending while it is scheduled and cannot get its image."""
    states = new_life("image_pull_failure")
    for state in states:
        await watched.handle(state)
    assert {state.pod["status"]["phase"] for state in states} == {"Pending"}
    found = watched.database["events"].find({"payload.pod_uid": states[0].uid})
    assert {document["event_type"] async for document in found} == {
        *("pod.created", "pod.scheduled", "pod.initialized", "pod.container_waiting")
    }


@pytest.mark.guarantee("R21")
async def test_a_query_by_the_id_of_the_work_finds_the_pod_events(watched: RecordedWatcher, settings: Settings) -> None:
    work, states = f"execution-{uuid4()}", new_life("completed_job")
    for state in states:
        state.pod["metadata"]["labels"]["twofold.dev/aggregate-id"] = work
        await watched.handle(state)
    reader = EventReader(watched.database["events"], settings)
    page = await reader.page(Filter(aggregate=work, order="oldest"))
    assert {event.event_type for event in page.events} == {
        *("pod.created", "pod.scheduled", "pod.initialized", "pod.running"),
        *("pod.container_terminated", "pod.succeeded", "pod.terminating", "pod.deleted"),
    }
    assert [event.timestamp for event in page.events] == sorted(event.timestamp for event in page.events)
    found = await reader.page(Filter(correlation="request-17", user="user-3"))
    assert {event.event_id for event in found.events} == {event.event_id for event in page.events}


async def test_a_pod_with_a_reserved_string_has_its_facts(watched: RecordedWatcher) -> None:
    """The delivery itself is not stored, so any text may stand in it."""
    sent = new_life("completed_job")[-1]
    sent.pod["metadata"].setdefault("annotations", {})["note"] = "sealed:v1:x"
    await watched.handle(sent)
    assert await watched.database["dead_letters"].count_documents({}) == 0
    assert await watched.database["events"].count_documents({"payload.pod_uid": sent.uid}) == len(sent.events())
