"""Servers and functions that stop, freeze, die and forget, on a stack of its own."""

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
from tests.helpers import Answer, Request, View, an_event, callers, delivered, ids, plain_record, some_events, view
from twofold.cloudevents.encode import encode_http, encode_kafka
from twofold.event.model import Event

CAPACITY = 300
"""How many records `publish` may hold for Kafka, in this stack."""


@pytest.fixture(scope="module")
def fragile(broker_name: str) -> Iterator[Stack]:
    """A stack to break, and to leave whole again."""
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
    """The ids of all events that the source will never deliver again."""
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
                found += [UUID(dict(record.headers)["ce_id"].decode()) for record in records if record.offset < until]
    return found


def put_all(stack: Stack, events: list[Event]) -> None:
    """Put the events into the topic, past `publish`, which holds only a few of them at a time here."""
    with KafkaProducer(bootstrap_servers=stack.kafka, linger_ms=5) as producer:
        for record in map(encode_kafka, events):
            producer.send(stack.topic, record.value, record.key, list(record.headers))
        producer.flush(20)


def resumed(seen: View, within: float = 60.0) -> bool:
    """Whether a new event comes to be sent without anybody's help, once Kafka is back."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        event = an_event()
        assert seen.publish(event).status_code == 202
        if seen.arrive([event], within=1.0):
            return True
    return False


@pytest.mark.slow
@pytest.mark.guarantee("G1", "G2", "R6")
def test_killing_store_and_source_in_the_middle_loses_and_doubles_nothing(broken: View) -> None:
    """What the source has committed is in the log by then, and what is not in the log comes again."""
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
    """Whether each answer is "later", within the five seconds in which a caller may expect one."""
    return all(
        answer.status == 503 and int(answer.headers["retry-after"]) > 0 and answer.seconds < 5.0 for answer in answers
    )


@pytest.mark.slow
@pytest.mark.guarantee("G1", "R10")
@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_without_mongodb_everybody_is_told_to_come_again(broken: View, how: str) -> None:
    """In time, also those who come while others wait; and with MongoDB back, the same processes take it."""
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
    assert broken.relayed(events), "a frozen mongod may have stored what was answered with 503: then the relay sends it"
    assert broken.database.dead_letters.count_documents({"body": poison[1]}) == 1


class Footprint:
    """What a process takes, now."""

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
def test_kafka_away_changes_nothing_for_producers_and_the_log_is_completed_later(broken: View, how: str) -> None:
    """Accepted as ever, with no thread, socket or memory for what can't be sent; the relay sends what was left."""
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
def test_a_kafka_that_died_and_forgot_everything_is_used_again_without_a_restart(broken: View) -> None:
    """Its log may be gone, and with it the producer's state; `events` still has every mark."""
    stack = broken.stack
    before = stack.functions["publish"].worker_pids
    lost, away = some_events(50), some_events(50)
    stack.functions["store"].pause()
    assert broken.publish_all(lost).status_code == 202
    time.sleep(0.5)
    stack.broker.kill()
    stack.functions["store"].resume()
    assert broken.publish_all(away).status_code == 202
    assert {broken.publish(event).status_code for event in some_events(20)} == {202}
    stack.restart_broker()
    assert resumed(broken)
    assert broken.relayed([*lost, *away])
    assert len(broken.held("event_store", [*lost, *away])) == 100
    assert stack.functions["publish"].worker_pids == before


@pytest.mark.guarantee("G1", "R1", "R2")
def test_a_publish_that_dies_between_the_insert_and_the_send_loses_nothing(flow: View, spawn: Spawner) -> None:
    """Here Kafka is away for it, so that nothing was sent when it is killed; the marks are there."""
    dying = spawn("publish", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    events = some_events(100)
    assert flow.publish_all(events, dying.url).status_code == 202
    dying.kill()
    assert flow.held("event_store", events) == set()
    assert flow.marked(events) == 100
    assert flow.relay(due=events)["resent"] >= 100
    assert flow.arrive(events)
    assert flow.marked(events) == 100, "sent is not stored: only the read-back takes a mark off"
    assert flow.relayed(events)


@pytest.mark.slow
@pytest.mark.guarantee("G1", "R6")
def test_an_event_waits_in_kafka_while_store_is_away(broken: View) -> None:
    """However long: here longer than the source's first retries, and its offset is not committed meanwhile."""
    event: Event = an_event()
    store = broken.stack.functions["store"]
    store.kill()
    assert broken.publish(event).status_code == 202
    time.sleep(2.0)
    store.start()
    assert broken.arrive([event])
