"""Servers and functions that stop, freeze, die and lose data, on a stack of their own."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from dev.process.child import free_port, wait_until
from dev.stack import Options, Stack
from dev.stack.functions import FunctionProcess
from tests.conftest import Spawner
from tests.helpers import (
    Answer,
    Request,
    View,
    an_event,
    callers,
    delivered,
    ids,
    plain_record,
    settings_of,
    some_events,
    view,
)
from twofold.cloudevents.encode import encode_http, encode_kafka
from twofold.event.identity import event_id_of
from twofold.event.model import Event
from twofold.kafka.lag import read_backlog

CAPACITY = 300
"""The capacity of the sender in this stack, in records."""


@pytest.fixture(scope="module")
def fragile(broker_name: str) -> Iterator[Stack]:
    """Start a stack for tests that break and repair it."""
    options = Options(
        broker=broker_name,
        settings={"RELAY_FIRST_LOOK_S": "0.1"},
        function_settings={"publish": {"SEND_CAPACITY": str(CAPACITY)}},
        source_arguments=("--commit-every", "0.2"),
    )
    with Stack(options) as running:
        yield running


@pytest.fixture(scope="module")
def broken(fragile: Stack) -> Iterator[View]:
    with view(fragile) as seen:
        yield seen


def committed(stack: Stack) -> list[UUID]:
    """Return the ids of the events that the source will not deliver again."""
    found: list[UUID] = []
    with (
        KafkaAdminClient(bootstrap_servers=stack.kafka) as admin,
        KafkaConsumer(bootstrap_servers=stack.kafka, auto_offset_reset="earliest") as consumer,
    ):
        offsets = admin.list_group_offsets(stack.consumer_group)[stack.consumer_group]
        consumer.assign(list(offsets))
        consumer.seek_to_beginning()
        while any(consumer.position(partition) < until.offset for partition, until in offsets.items()):
            for partition, records in consumer.poll(timeout_ms=500).items():
                until = offsets[partition].offset
                headers = [dict(record.headers) for record in records if record.offset < until]
                found += [event_id_of(each["ce_source"].decode(), each["ce_id"].decode()) for each in headers]
    return found


def put_all(stack: Stack, events: list[Event]) -> None:
    """Put the events into the topic past `publish`, because its sender holds only a few records here."""
    with KafkaProducer(bootstrap_servers=stack.kafka, linger_ms=5) as producer:
        for record in map(encode_kafka, events):
            producer.send(stack.topic, record.value, record.key, list(record.headers))
        producer.flush(20)


def resumed(seen: View, within: float = 60.0) -> bool:
    """Return True if a new event is sent without help after the return of Kafka."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        event = an_event()
        assert seen.publish(event).status_code == 202
        if seen.arrive([event], within=1.0):
            return True
    return False


@pytest.mark.slow
@pytest.mark.guarantee("G1", "G2", "R6")
def test_killing_store_and_source_loses_and_doubles_no_event(broken: View) -> None:
    """The log has the committed events, and other events are delivered again."""
    stack, events = broken.stack, some_events(10_000)
    put_all(stack, events)
    assert wait_until(lambda: len(broken.held("event_store", events)) > 500, within=40.0)
    time.sleep(0.3)
    stack.functions["store"].kill()
    time.sleep(0.5)
    assert stack.source is not None
    stack.source.kill()
    logged = broken.held("event_store", events)
    gone = committed(stack)
    assert 0 < len(gone) <= len(logged) < len(events)
    assert set(gone) <= logged
    stack.functions["store"].start()
    stack.source.start()
    assert broken.arrive(events)
    assert broken.database.event_store.count_documents({"_id": ids(events)}) == len(events)
    assert broken.database.dead_letters.count_documents({}) == 0


def refused_in_time(answers: list[Answer]) -> bool:
    """Return True if every answer is 503, within five seconds."""
    return all(
        answer.status == 503 and int(answer.headers["retry-after"]) > 0 and answer.seconds < 5.0 for answer in answers
    )


@pytest.mark.slow
@pytest.mark.guarantee("G1", "R10")
@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_without_mongodb_every_caller_gets_503_in_time(broken: View, how: str) -> None:
    """This includes callers that arrive while others wait. After its return, the same processes accept events."""
    stack, mongod = broken.stack, broken.stack.mongo
    assert mongod is not None
    before = {name: function.worker_pids for name, function in stack.functions.items()}
    events, deliveries = some_events(4), some_events(4)
    poison = plain_record(f"poison while mongod is {how}".encode(), partition=50, offset=len(how))
    to_store: list[Request] = [*map(delivered, deliveries), poison]

    async def staggered(url: str, requests: list[Request]) -> list[Answer]:
        async with callers(20) as sending:
            calls = []
            for request in requests:
                calls.append(asyncio.create_task(sending.post(url, request)))
                await asyncio.sleep(0.7)
            return await asyncio.gather(*calls)

    if how == "killed":
        mongod.kill()
    else:
        mongod.pause()
    try:
        answers = await asyncio.gather(
            staggered(stack.publish_url, [encode_http(event) for event in events]),
            staggered(stack.store_url, to_store),
        )
    finally:
        if how == "killed":
            await asyncio.to_thread(mongod.restart)
        else:
            mongod.resume()
    assert refused_in_time([answer for each in answers for answer in each])
    async with callers(20) as sending:
        deadline = time.monotonic() + 20
        while (await sending.post(stack.publish_url, encode_http(an_event()))).status != 202:
            assert time.monotonic() < deadline
        again = await sending.post_all(stack.publish_url, map(encode_http, events))
        assert {answer.status for answer in again} == {202}
        assert {answer.status for answer in await sending.post_all(stack.store_url, to_store)} == {200}
    assert {name: function.worker_pids for name, function in stack.functions.items()} == before
    assert broken.arrive(deliveries)
    assert broken.relayed(events), "a frozen mongod may have stored an event with a 503: then the relay sends it"
    assert broken.database.dead_letters.count_documents({"body": poison[1]}) == 1


class Footprint:
    """The present resources of a process."""

    def __init__(self, function: FunctionProcess) -> None:
        (worker,) = function.worker_pids
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines() if ":" in line
        )
        self.threads = int(status["Threads"])
        self.memory_mb = int(status["VmRSS"].split()[0]) / 1024
        self.files = len(list(Path(f"/proc/{worker}/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.guarantee("G1", "G7", "R2", "R9")
@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_an_outage_of_kafka_changes_nothing_for_producers_and_the_log_is_completed_later(
    broken: View, how: str
) -> None:
    """Events are accepted as before, without more threads, sockets or memory. The relay sends the rest."""
    stack, text = broken.stack, "x" * 4000
    first = some_events(CAPACITY * 2, payload={"text": text})
    many = some_events(CAPACITY * 20, payload={"text": text})
    (stack.broker.pause if how == "frozen" else stack.broker.kill)()
    try:
        assert broken.publish_all(first).status_code == 202
        before = Footprint(stack.functions["publish"])
        for start in range(0, len(many), CAPACITY):
            assert broken.publish_all(many[start : start + CAPACITY]).status_code == 202
        singles = some_events(50)
        assert {broken.publish(event).status_code for event in singles} == {202}
        after = Footprint(stack.functions["publish"])
    finally:
        (stack.broker.resume if how == "frozen" else stack.restart_broker)()
    assert after.threads <= before.threads + 1
    assert after.files <= before.files + 20
    assert after.memory_mb - before.memory_mb < 12, f"the text of the events alone is {len(many) * 4 // 1000} MB"
    assert resumed(broken)
    assert broken.relayed([*first, *many, *singles], within=60.0)
    assert len(broken.held("event_store", [*first, *many, *singles])) == len(first) + len(many) + len(singles)


@pytest.mark.slow
@pytest.mark.guarantee("G1", "G7", "R2", "R9")
def test_a_kafka_without_its_data_is_used_again_without_a_restart(broken: View) -> None:
    """Its data and the producer's state may be lost. `events` still has every outbox entry."""
    stack = broken.stack
    before = stack.functions["publish"].worker_pids
    lost, missed = some_events(50), some_events(50)
    stack.functions["store"].pause()
    assert broken.publish_all(lost).status_code == 202
    time.sleep(0.5)
    stack.broker.kill()
    stack.functions["store"].resume()
    assert broken.publish_all(missed).status_code == 202
    assert {broken.publish(event).status_code for event in some_events(20)} == {202}
    stack.restart_broker()
    assert resumed(broken)
    assert broken.relayed([*lost, *missed])
    assert len(broken.held("event_store", [*lost, *missed])) == 100
    assert stack.functions["publish"].worker_pids == before


def group_is_done(flow: View) -> bool:
    """Return True if the consumer group commits every record in time. The KafkaSource commits every 5 s."""
    settings = settings_of(flow.stack)
    return wait_until(lambda: not read_backlog(settings).waiting_since, within=30.0, every=0.5)


@pytest.mark.guarantee("G1", "R1", "R2")
def test_a_publish_killed_between_insert_and_sending_loses_no_event(flow: View, spawn: Spawner) -> None:
    """Kafka is unavailable for it, so no record was sent at the kill. The outbox entries exist."""
    dying = spawn("publish", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    events = some_events(100)
    assert flow.publish_all(events, dying.url).status_code == 202
    dying.kill()
    assert flow.held("event_store", events) == set()
    assert flow.outbox_entries(events) == 100
    assert group_is_done(flow), "the relay holds each event that the backlog may hold"
    assert flow.relay(due=events)["resent"] >= 100
    assert flow.arrive(events)
    assert flow.outbox_entries(events) == 100, "a sent event is not stored: only the relay confirms it"
    assert flow.relayed(events)


@pytest.mark.slow
@pytest.mark.guarantee("G1", "R6")
def test_an_event_waits_in_kafka_while_store_is_unavailable(broken: View) -> None:
    """The outage is longer than the first retries of the source. The offset is not committed during it."""
    event: Event = an_event()
    store = broken.stack.functions["store"]
    store.kill()
    assert broken.publish(event).status_code == 202
    time.sleep(2.0)
    store.start()
    assert broken.arrive([event])
