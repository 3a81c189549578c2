"""Three members of MongoDB: a majority write survives a fail-over, and a write on one member does not."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pymongo import WriteConcern

from dev.functions import FunctionProcess
from dev.mongod import ReplicaSet
from dev.paths import ROOT
from dev.processes import free_port
from dev.stack import Options, Stack
from tests.helpers import Load, View, an_event, callers, eventually, ids, load, settings_of, view
from twofold.cloudevents.encode import encode_http
from twofold.errors import Unavailable
from twofold.mongo.client import open_database
from twofold.storage.checkpoints import Checkpoints
from twofold.storage.events import EventRepository

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def three(broker_name: str) -> Iterator[View]:
    """Open a view of a stack with three members."""
    options = Options(members=3, broker=broker_name, settings={"RELAY_FIRST_LOOK_S": "0.1"})
    with Stack(options) as running, view(running) as seen:
        yield seen


@pytest.fixture(scope="module")
def members(three: View) -> ReplicaSet:
    assert three.stack.mongo is not None
    return three.stack.mongo


def publish_with(stack: Stack, write_concern: str, directory: Path) -> FunctionProcess:
    """Start a `publish` from a changed copy of the source, with this write concern for inserts.

    There is no such setting, on purpose.
    """
    source = directory / "shared"
    shutil.copytree(ROOT / "shared" / "twofold", source / "twofold")
    module = source / "twofold" / "mongo" / "client.py"
    text = module.read_text()
    assert text.count('WriteConcern("majority")') == 1
    module.write_text(text.replace('WriteConcern("majority")', f"WriteConcern({write_concern})"))
    env = stack.function_environment("publish") | {"PYTHONPATH": str(source)}
    return FunctionProcess("publish", free_port(), env, logs=stack.logs / f"w-{write_concern.strip(chr(34))}")


async def fail_over(members: ReplicaSet, url: str) -> Load:
    """Send load to `url`, isolate the primary for a moment, kill it, and wait until events are accepted again.

    The other members return and elect a primary without the isolated writes. (They are killed too: frozen members would
    find these writes in the buffers of their sockets.)
    """
    primary = members.primary()
    others = [index for index in range(3) if index != primary]
    async with load(url) as sent:
        await sent.has(accepted=100)
        for index in others:
            members.kill(index)
        await asyncio.sleep(0.4)
        members.kill(primary)
        await asyncio.gather(*(asyncio.to_thread(members.restart, index) for index in others))
        await asyncio.to_thread(members.wait_primary)
        await sent.has(accepted=len(sent.accepted) + 100)
    await asyncio.to_thread(members.restart, primary)
    return sent


@pytest.mark.guarantee("G1")
async def test_the_primarys_death_under_load_loses_no_accepted_event(three: View, members: ReplicaSet) -> None:
    """This includes the events that the primary accepted before and during its isolation."""
    sent = await fail_over(members, three.stack.publish_url)
    assert sent.others == []
    accepted = {event.event_id for event in sent.accepted}
    assert three.held("events", sent.accepted) == accepted
    assert three.relayed(sent.accepted)
    assert three.held("event_store", sent.accepted) == accepted
    assert three.database.event_store.count_documents({"_id": ids(sent.accepted)}) == len(accepted)


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(("write_concern", "loses"), [("1", True), ('"majority"', False)])
async def test_without_majority_writes_events_are_lost(
    three: View, members: ReplicaSet, tmp_path: Path, write_concern: str, loses: bool
) -> None:
    """The same with a changed copy of the code loses events, so the test above can fail."""
    publish = publish_with(three.stack, write_concern, tmp_path)
    publish.start()
    try:
        sent = await fail_over(members, publish.url)
    finally:
        publish.kill()
    lost = {event.event_id for event in sent.accepted} - three.held("events", sent.accepted)
    assert bool(lost) is loses


@pytest.mark.guarantee("G1", "G2")
async def test_a_duplicate_of_an_event_that_is_not_durable_is_not_acknowledged(
    three: View, members: ReplicaSet
) -> None:
    """Only the primary has the event and may lose it, so a repeated request gets 503 too."""
    primary = members.primary()
    others = [index for index in range(3) if index != primary]
    event = an_event()
    async with callers(5) as sending:
        assert (await sending.post(three.stack.publish_url, encode_http(an_event()))).status == 202
        for index in others:
            await asyncio.to_thread(members.pause, index)
        try:
            first = asyncio.create_task(sending.post(three.stack.publish_url, encode_http(event)))
            await asyncio.sleep(0.3)
            answers = [await sending.post(three.stack.publish_url, encode_http(event)), await first]
        finally:
            for index in others:
                members.resume(index)
        assert [answer.status for answer in answers] == [503, 503]
        assert all(answer.seconds < 5.0 for answer in answers)
        await asyncio.to_thread(members.wait_primary)

        async def taken() -> bool:
            return (await sending.post(three.stack.publish_url, encode_http(event))).status == 202

        await eventually(taken)
    assert three.relayed([event])


@pytest.mark.guarantee("G10")
async def test_without_a_majority_there_is_no_new_checkpoint(three: View, members: ReplicaSet) -> None:
    """An isolated primary may have events that will be rolled back."""
    settings = settings_of(three.stack, mongodb_timeout_s=2.0)
    primary = members.primary()
    others = [index for index in range(3) if index != primary]
    event = an_event()
    async with open_database(settings, "tests") as database:
        checkpoints = Checkpoints(database, timedelta(seconds=2))
        before = await checkpoints.record()
        alone = database["events"].with_options(write_concern=WriteConcern(1))
        await asyncio.gather(*(asyncio.to_thread(members.pause, index) for index in others))
        try:
            await alone.insert_one(EventRepository.encode(event.to_document(), datetime.now(UTC)))
            with pytest.raises(Unavailable):
                await checkpoints.measure()
            with pytest.raises(Unavailable):
                await checkpoints.record()
        finally:
            for index in others:
                members.resume(index)
        await asyncio.to_thread(members.wait_primary)

        async def recorded() -> bool:
            with suppress(Unavailable):
                return await checkpoints.last() == before
            return False

        await eventually(recorded)
        three.database.events.delete_one({"_id": event.event_id})
