"""The end of a function: SIGTERM finishes and answers every request, and SIGKILL loses no answered event."""

import asyncio
import time
from collections.abc import Callable

import httpx
import pytest

from dev.process.child import free_port
from dev.stack.functions import FunctionProcess
from tests.conftest import Spawner
from tests.helpers import (
    Load,
    Request,
    View,
    an_event,
    bearer,
    callers,
    delivered,
    failing,
    listened,
    load,
    settings_of,
    some_events,
)
from tests.pods import life, names
from twofold.cloudevents.encode import encode_http
from twofold.event.model import Event

LOAD_S = 0.7


async def under_load(
    function: FunctionProcess, end: Callable[[], None], request: Callable[[Event], Request] = encode_http
) -> Load:
    """Return the results of requests before, during and after `end` ended the function."""
    async with load(function.url, request) as sent:
        await sent.has(accepted=100)
        await asyncio.sleep(LOAD_S)
        await asyncio.to_thread(end)
    assert not function.running
    return sent


def sender_of(name: str) -> Callable[[Event], Request]:
    """Return the sender of events to the function: a producer or KafkaSource."""
    return encode_http if name == "publish" else delivered


def collection_of(name: str) -> str:
    """Return the collection of the events that the function accepts."""
    return "events" if name == "publish" else "event_store"


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("name", ["publish", pytest.param("store", marks=pytest.mark.slow)])
async def test_sigterm_under_load_answers_exactly_the_stored_events(flow: View, spawn: Spawner, name: str) -> None:
    """An accepted event is stored, and a refused event is not. Every request has an answer."""
    function = spawn(name)
    sent = await under_load(function, function.terminate, sender_of(name))
    assert sent.others == []
    accepted = {event.event_id for event in sent.accepted}
    everything = [*sent.accepted, *sent.refused, *sent.unanswered]
    assert flow.held(collection_of(name), everything) == accepted


@pytest.mark.slow
@pytest.mark.guarantee("G4")
async def test_sigterm_under_load_keeps_every_answered_dead_letter(flow: View, spawn: Spawner) -> None:
    function = spawn("dead_letters")
    sent = await under_load(function, function.terminate, delivered)
    assert sent.others == []
    ids = [event.id.encode() for event in sent.accepted]
    assert flow.database.dead_letters.count_documents({"headers.value": {"$in": ids}}) == len(ids)


@pytest.mark.slow
@pytest.mark.guarantee("G1", "G6")
async def test_sigterm_under_load_keeps_the_facts_of_every_answered_pod(flow: View, spawn: Spawner) -> None:
    state = life(names()[0])[0]

    def of_another_pod(event: Event) -> Request:
        headers, body = state.request()
        return headers, body.replace(state.uid.encode(), str(event.event_id).encode())

    function = spawn("pod_events")
    sent = await under_load(function, function.terminate, of_another_pod)
    assert sent.others == []
    told = set(flow.database.events.distinct("payload.pod_uid", {"payload.pod_uid": {"$exists": True}}))
    assert {str(event.event_id) for event in sent.accepted} <= told


@pytest.mark.slow
@pytest.mark.guarantee("G1", "G5")
async def test_sigterm_lets_the_relay_end_its_run(flow: View, spawn: Spawner) -> None:
    """The signal arrives during a second of waiting for the database. The run is answered, and its lock is released."""
    function, event = spawn("relay"), an_event()
    flow.accept(event)
    async with callers(1) as sending, listened(settings_of(flow.stack)) as (database, _):
        await sending.post(function.url, ({}, b""))
        async with failing(database, "relay", failCommands=["find"], blockConnection=True, blockTimeMS=1000):
            waiting = asyncio.create_task(sending.post(function.url, ({}, b"")))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(function.terminate)
            answer = await waiting
    assert answer.status == 200
    assert flow.relayed([event])


@pytest.mark.slow
@pytest.mark.guarantee("G9")
async def test_sigterm_answers_readers(flow: View, spawn: Spawner) -> None:
    """The signal arrives during a second of waiting for the database. No connection breaks."""
    function, event = spawn("query"), an_event()
    flow.accept(event)
    url = f"{function.url}/events/{event.event_id}"
    async with httpx.AsyncClient(headers=bearer()) as asking, listened(settings_of(flow.stack)) as (database, _):
        assert (await asking.get(url)).status_code == 200
        async with failing(database, "query", failCommands=["find"], blockConnection=True, blockTimeMS=1000):
            waiting = [asyncio.create_task(asking.get(url)) for _ in range(10)]
            await asyncio.sleep(0.3)
            await asyncio.to_thread(function.terminate)
            answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [200] * 10


@pytest.mark.guarantee("G1", "G7")
async def test_sigterm_flushes_records_to_kafka(flow: View, spawn: Spawner) -> None:
    """Kafka is slow at the signal and accepts the records a moment later. The relay is not needed."""
    function, events, broker = spawn("publish"), some_events(50), flow.stack.broker
    first = an_event()
    flow.publish(first, function.url)
    assert flow.arrive([first])
    broker.pause()
    try:
        assert flow.publish_all(events, function.url).status_code == 202
        ending = asyncio.create_task(asyncio.to_thread(function.terminate))
        await asyncio.sleep(1.5)
    finally:
        broker.resume()
    await ending
    assert flow.arrive(events)


@pytest.mark.slow
@pytest.mark.guarantee("G1", "G7", "R1")
async def test_sigterm_without_kafka_ends_soon_and_leaves_the_outbox_entries(flow: View, spawn: Spawner) -> None:
    """It ends well within the grace period of Kubernetes."""
    function = spawn("publish", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    events = some_events(50)
    assert flow.publish_all(events, function.url).status_code == 202
    start = time.monotonic()
    await asyncio.to_thread(function.terminate, 25.0)
    assert time.monotonic() - start < 20.0
    assert flow.outbox_entries(events) == 50
    assert flow.relayed(events)


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("name", ["publish", "store"])
async def test_sigterm_waits_for_a_write_under_way(flow: View, spawn: Spawner, name: str) -> None:
    """The signal arrives during a second of waiting for the database. Every waiting caller gets its answer."""
    function, events = spawn(name), some_events(20)
    request = sender_of(name)
    async with callers(20) as sending, listened(settings_of(flow.stack)) as (database, _):
        await sending.post(function.url, request(some_events(1)[0]))
        async with failing(database, name, blockConnection=True, blockTimeMS=1000):
            waiting = [asyncio.create_task(sending.post(function.url, request(event))) for event in events]
            await asyncio.sleep(0.3)
            await asyncio.to_thread(function.terminate)
            answers = await asyncio.gather(*waiting)
    assert {answer.status for answer in answers} == {202 if name == "publish" else 200}
    assert len(flow.held(collection_of(name), events)) == 20


@pytest.mark.slow
@pytest.mark.guarantee("G1", "R1")
@pytest.mark.parametrize("name", ["publish", "store"])
async def test_kill_9_under_load_loses_no_answered_event(flow: View, spawn: Spawner, name: str) -> None:
    """The function finishes nothing. An event with a 2xx is stored and reaches the log."""
    function = spawn(name)
    sent = await under_load(function, function.kill, sender_of(name))
    accepted = {event.event_id for event in sent.accepted}
    assert flow.held(collection_of(name), sent.accepted) == accepted
    if name == "publish":
        assert flow.relayed(sent.accepted)
        assert flow.held("event_store", sent.accepted) == accepted
