"""Three members of MongoDB: what a majority is worth, and what an acknowledgement without one would be."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pymongo import WriteConcern

from dev.paths import ROOT
from dev.process.child import free_port
from dev.servers.mongod import ReplicaSet
from dev.stack import Options, Stack
from dev.stack.functions import FunctionProcess
from tests.helpers import Load, View, an_event, callers, eventually, ids, load, settings_of, view
from twofold.cloudevents.encode import encode_http
from twofold.errors import Unavailable
from twofold.mongo.client import open_database
from twofold.storage.checkpoints import Checkpoints
from twofold.storage.events import EventRepository

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def three(broker_name: str) -> Iterator[View]:
    """A view of a stack with three members."""
    options = Options(members=3, broker=broker_name, settings={"RELAY_FIRST_LOOK_S": "0.1"})
    with Stack(options) as running, view(running) as seen:
        yield seen


@pytest.fixture(scope="module")
def members(three: View) -> ReplicaSet:
    assert three.stack.mongo is not None
    return three.stack.mongo


def publish_with(stack: Stack, write_concern: str, directory: Path) -> FunctionProcess:
    """A `publish` made of a copy of the source in which inserts are acknowledged at that write concern.

    There is no such setting, on purpose.
    """
    source = directory / "shared"
    shutil.copytree(ROOT / "shared" / "twofold", source / "twofold")
    module = source / "twofold" / "mongo.py"
    text = module.read_text()
    assert text.count('WriteConcern("majority")') == 1
    module.write_text(text.replace('WriteConcern("majority")', f"WriteConcern({write_concern})"))
    env = stack.function_environment("publish") | {"PYTHONPATH": str(source)}
    return FunctionProcess("publish", free_port(), env, logs=stack.logs / f"w-{write_concern.strip(chr(34))}")


async def fail_over(members: ReplicaSet, url: str) -> Load:
    """Load on `url`, while the primary is left alone for a moment, and then dies; it goes on until events are taken.

    The others come back, and choose one of themselves, who has never heard of what the first one took alone. (They
    die too: frozen ones would find it in their sockets' buffers when they wake.)
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
    """Neither of those from before it was cut off, nor of those that it took while it was."""
    sent = await fail_over(members, three.stack.publish_url)
    assert sent.others == []
    accepted = {event.event_id for event in sent.accepted}
    assert three.held("events", sent.accepted) == accepted
    assert three.relayed(sent.accepted)
    assert three.held("event_store", sent.accepted) == accepted
    assert three.database.event_store.count_documents({"_id": ids(sent.accepted)}) == len(accepted)


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(("write_concern", "loses"), [("1", True), ('"majority"', False)])
async def test_it_is_the_majority_that_keeps_them(
    three: View, members: ReplicaSet, tmp_path: Path, write_concern: str, loses: bool
) -> None:
    """The same, with a copy of the code: acknowledged by one member, events are lost; so the test above can fail."""
    publish = publish_with(three.stack, write_concern, tmp_path)
    publish.start()
    try:
        sent = await fail_over(members, publish.url)
    finally:
        publish.kill()
    lost = {event.event_id for event in sent.accepted} - three.held("events", sent.accepted)
    assert bool(lost) is loses


@pytest.mark.guarantee("G1", "G2")
async def test_a_duplicate_of_what_is_not_yet_durable_is_not_acknowledged(three: View, members: ReplicaSet) -> None:
    """The primary alone has it, and may lose it: until a majority does, the answer to a repetition is "later" too."""
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
async def test_without_a_majority_nothing_new_is_stated(three: View, members: ReplicaSet) -> None:
    """The primary alone may know things that never will have been: it says nothing, rather than something untrue."""
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

        async def stated() -> bool:
            with suppress(Unavailable):
                return await checkpoints.last() == before
            return False

        await eventually(stated)
        three.database.events.delete_one({"_id": event.event_id})
