"""The KafkaSource stand-in between a real broker and a real HTTP sink, over sockets."""

import asyncio
import base64
import itertools
import json
import os
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from dev.paths import ROOT
from dev.process.child import Child, free_port
from dev.servers.tansu import Tansu

pytestmark = [pytest.mark.dev, pytest.mark.slow]

Headers = Sequence[tuple[str, bytes]]


def event(event_id: str, *more: tuple[str, bytes], source: str = "/s") -> list[tuple[str, bytes]]:
    """Return the headers of a record that is a CloudEvent."""
    required = {"ce_specversion": "1.0", "ce_id": event_id, "ce_source": source, "ce_type": "t"}
    return [*((name, value.encode()) for name, value in required.items()), *more]


@dataclass(frozen=True)
class SinkRequest:
    """A request that a sink got, with raw header values."""

    headers: dict[str, bytes]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        return self.headers["ce-id"].decode()

    @property
    def position(self) -> tuple[int, int]:
        return int(self.headers["ce-knativekafkapartition"]), int(self.headers["ce-knativekafkaoffset"])


async def ok(_: SinkRequest) -> web.Response:
    return web.Response()


@dataclass
class Sink:
    """An HTTP server that keeps its requests, and counts the simultaneous requests in total and per partition."""

    answer: Callable[[SinkRequest], Any] = ok
    port: int = field(default_factory=free_port)
    received: list[SinkRequest] = field(default_factory=list)
    most_in_flight: Counter[object] = field(default_factory=Counter)
    _in_flight: Counter[object] = field(default_factory=Counter)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/sink"

    @property
    def ids(self) -> list[str]:
        return [request.id for request in self.received]

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/sink", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.decode().lower(): value for name, value in request.raw_headers}
        got = SinkRequest(headers, await request.read())
        self.received.append(got)
        keys = ("all", got.position[0])
        self._in_flight.update(keys)
        for key in keys:
            self.most_in_flight[key] = max(self.most_in_flight[key], self._in_flight[key])
        try:
            response: web.StreamResponse = await self.answer(got)
        finally:
            self._in_flight.subtract(keys)
        return response


async def until(check: Callable[[], bool], within: float = 15.0) -> None:
    """Wait until `check` is true. Fails with `TimeoutError`."""
    async with asyncio.timeout(within):
        while not check():  # noqa: ASYNC110  # other processes make the check true
            await asyncio.sleep(0.02)


@dataclass
class Stage:
    """A topic of the broker, two sinks, and the sources between them."""

    broker: Tansu
    folder: Path
    stack: ExitStack
    sink: Sink = field(default_factory=Sink)
    dead_letters: Sink = field(default_factory=Sink)
    topic: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:8]}")
    group: str = field(default_factory=lambda: f"g-{uuid.uuid4().hex[:8]}")

    def make_topic(self, partitions: int) -> None:
        with KafkaAdminClient(bootstrap_servers=self.broker.bootstrap) as admin:
            admin.create_topics([NewTopic(self.topic, partitions, 1)])

    def remake_topic(self, partitions: int) -> None:
        with KafkaAdminClient(bootstrap_servers=self.broker.bootstrap) as admin:
            admin.delete_topics([self.topic])
        self.make_topic(partitions)

    def send(self, *records: Headers, partition: int = 0, value: bytes = b"{}") -> None:
        producer = KafkaProducer(
            bootstrap_servers=self.broker.bootstrap, enable_idempotence=False, linger_ms=50, acks="all"
        )
        try:
            for headers in records:
                producer.send(self.topic, value=value, headers=list(headers), partition=partition)
            producer.flush(10)
        finally:
            producer.close(5)

    def source(self, *options: str, sink: Sink | None = None) -> Child:
        """Make a source without starting it. By default it reads from the start and commits often."""
        command = [sys.executable, "-m", "dev.kafka_source", "--bootstrap-servers", self.broker.bootstrap]
        command += ["--topic", self.topic, "--group", self.group, "--sink", (sink or self.sink).url]
        command += ["--name", "events", "--initial-offset", "earliest", "--session-timeout-ms", "1500"]
        command += ["--ordering", "unordered", "--commit-every", "0.2", *options]
        log = self.folder / f"source-{uuid.uuid4().hex[:8]}.log"
        child = Child("kafka_source", command, log=log, ready=lambda child: child.printed("ready"), cwd=ROOT)
        self.stack.callback(child.kill)
        return child

    async def run(self, *options: str, sink: Sink | None = None) -> Child:
        """Start a source."""
        return await asyncio.to_thread(self.source(*options, sink=sink).start)

    def committed(self, partition: int = 0) -> int | None:
        consumer = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, group_id=self.group, enable_auto_commit=False)
        try:
            offset: int | None = consumer.committed(TopicPartition(self.topic, partition))
        finally:
            consumer.close()
        return offset

    async def until_committed(self, offset: int) -> None:
        async with asyncio.timeout(10):
            while await asyncio.to_thread(self.committed) != offset:  # noqa: ASYNC110  # the broker sends no notice
                await asyncio.sleep(0.05)


def stats(source: Child) -> dict[str, int]:
    """Return the last statistics in the log of a source."""
    lines = [line for line in source.log.read_text().splitlines() if line.startswith("{")]
    logged: dict[str, int] = json.loads(lines[-1])
    return logged


async def end(source: Child) -> dict[str, int]:
    """End a source in order, and return its statistics."""
    await asyncio.to_thread(source.terminate)
    return stats(source)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tansu]:
    folder = tmp_path_factory.mktemp("tansu")
    tansu = Tansu(folder, folder)
    tansu.start()
    yield tansu
    tansu.stop()


@pytest.fixture
async def stage(broker: Tansu, tmp_path: Path) -> AsyncIterator[Stage]:
    with ExitStack() as stack:
        made = Stage(broker, tmp_path, stack)
        await made.sink.start()
        await made.dead_letters.start()
        yield made
        await made.sink.stop()
        await made.dead_letters.stop()


async def test_attributes_arrive_raw_and_damaged(stage: Stage) -> None:
    """Latin-1 stays, other text becomes `?`. A source with a space gives a plain event, a control gives no event."""
    stage.make_topic(1)
    stage.send(
        event("raw", ("ce_subject", "100% é€\U0001f600".encode()), ("content-type", b"text/plain")),
        event("spaced", source="/a b"),
        event("control", ("ce_subject", b"a\nb")),
        [("X-Tag", b"1")],
        value=b"data",
    )
    source = await stage.run("--retry", "1", "--backoff-delay", "0.01", "--dead-letter-sink", stage.dead_letters.url)
    await stage.until_committed(4)
    got = {request.position[1]: request for request in stage.sink.received}
    assert got.keys() == {0, 1, 3}
    assert got[0].headers["ce-subject"] == b"100% \xe9???"
    assert got[0].headers["content-type"] == b"text/plain"
    assert got[0].headers["ce-source"] == b"/s"
    assert (got[0].headers["prefer"], got[0].headers["kn-namespace"]) == (b"reply", b"local")
    assert got[0].body == b"data"
    assert got[1].headers["ce-type"] == b"dev.knative.kafka.event"
    assert got[1].headers["ce-kafkaheaderceid"] == b"spaced"
    assert got[3].id == "partition:0/offset:3"
    assert got[3].headers["ce-source"] == f"/apis/v1/namespaces/local/kafkasources/events#{stage.topic}".encode()
    assert got[3].headers["ce-kafkaheaderxtag"] == b"1"
    assert stage.dead_letters.received == []
    assert await end(source) == {"delivered": 3, "retried": 2, "dead_lettered": 0, "lost": 1}


def scripted(tries: Counter[str]) -> Callable[[SinkRequest], Any]:
    """Answer an event with the statuses in its id, try by try. The last status repeats, and 0 gives no answer."""

    async def answer(request: SinkRequest) -> web.Response:
        statuses = [int(status) for status in request.id.split("-")]
        status = statuses[min(tries[request.id], len(statuses) - 1)]
        tries[request.id] += 1
        if not status:
            await asyncio.sleep(5)
        headers = {"Kne-Reason": "no", "Location": "/elsewhere"}
        return web.Response(status=status or 200, body=b"b" * 2000 if status == 422 else b"", headers=headers)

    return answer


async def test_failures_are_retried_then_dead_lettered(stage: Stage) -> None:
    """The source retries only some statuses from 300 on. A time-out has no code, and an empty body has no data."""
    tries: Counter[str] = Counter()
    stage.sink.answer = scripted(tries)
    stage.make_topic(1)
    final = ["302", "400", "401", "403", "413", "422", "425"]
    ids = ["503-404-408-409-429-200", "500", "0", *final]
    stage.send(*map(event, ids))
    source = await stage.run(
        *("--retry", "5", "--backoff-policy", "linear", "--backoff-delay", "0.02", "--timeout", "0.3"),
        *("--dead-letter-sink", stage.dead_letters.url),
    )
    await stage.until_committed(len(ids))
    assert tries == {"503-404-408-409-429-200": 6, "500": 6, "0": 6, **dict.fromkeys(final, 1)}
    kept = {dead_letter.id: dead_letter.headers for dead_letter in stage.dead_letters.received}
    assert kept.keys() == {"500", "0", *final}
    assert all(headers["ce-knativeerrordest"] == stage.sink.url.encode() for headers in kept.values())
    assert kept["422"]["ce-knativeerrorcode"] == b"422"
    assert base64.b64decode(kept["422"]["ce-knativeerrordata"]) == b"b" * 1024
    assert kept["422"]["ce-reason"] == b"no"
    assert "ce-knativeerrordata" not in kept["500"]
    assert "ce-knativeerrorcode" not in kept["0"]
    assert await end(source) == {"delivered": 1, "retried": 15, "dead_lettered": 9, "lost": 0}


async def test_back_off_is_exponential_from_twice_the_delay(stage: Stage) -> None:
    stage.sink.answer = scripted(Counter())
    stage.make_topic(1)
    stage.send(event("503-503-503-200"))
    await stage.run("--retry", "3", "--backoff-policy", "exponential", "--backoff-delay", "0.05")
    await until(lambda: len(stage.sink.received) == 4)
    times = [request.at for request in stage.sink.received]
    waited = [after - before for before, after in itertools.pairwise(times)]
    assert all(gap >= delay for gap, delay in zip(waited, (0.1, 0.2, 0.4), strict=True))


async def test_an_event_that_the_dead_letter_sink_refuses_is_lost(stage: Stage) -> None:
    """The dead-letter sink gets the same retries. Then the source commits the offset."""
    stage.sink.answer = stage.dead_letters.answer = scripted(Counter())
    stage.make_topic(1)
    stage.send(event("500"))
    options = ("--retry", "2", "--backoff-delay", "0.01")
    source = await stage.run(*options, "--dead-letter-sink", stage.dead_letters.url)
    await stage.until_committed(1)
    assert (len(stage.sink.received), len(stage.dead_letters.received)) == (3, 3)
    assert await end(source) == {"delivered": 0, "retried": 4, "dead_lettered": 0, "lost": 1}


async def test_an_unavailable_sink_is_tried_again(stage: Stage) -> None:
    await stage.sink.stop()
    stage.make_topic(1)
    stage.send(event("1"))
    source = await stage.run("--retry", "100", "--backoff-policy", "linear", "--backoff-delay", "0.01")
    await asyncio.sleep(0.1)
    await stage.sink.start()
    await until(lambda: stage.sink.ids == ["1"])
    assert (await end(source))["retried"] > 0


@pytest.mark.fault("D6")
async def test_unordered_keeps_up_to_two_batches_less_one_in_flight(stage: Stage) -> None:
    """As the data plane polls: below 50 requests under way, the next 50 start. The rest of the partition waits."""
    full = asyncio.Event()

    async def wait_for_all(_: SinkRequest) -> web.Response:
        if len(stage.sink.received) > 1:
            await full.wait()
        return web.Response()

    stage.sink.answer = wait_for_all
    stage.make_topic(1)
    stage.send(*(event(str(number)) for number in range(160)))
    await stage.run()
    await until(lambda: len(stage.sink.received) == 100)
    await asyncio.sleep(0.2)
    assert stage.sink.most_in_flight["all"] == 99
    full.set()
    await until(lambda: len(stage.sink.received) == 160)
    assert stage.sink.most_in_flight["all"] == 99


@pytest.mark.fault("B1")
async def test_a_record_with_95_extensions_is_lost_at_envoy_without_a_retry(stage: Stage) -> None:
    """Neither the sink nor the dead-letter sink gets it, and the offset is committed."""
    stage.make_topic(1)
    stage.send(event("many", *((f"ce_x{number}", b"1") for number in range(95))), event("few"))
    options = ("--retry", "5", "--backoff-delay", "0.01")
    source = await stage.run(*options, "--dead-letter-sink", stage.dead_letters.url)
    await stage.until_committed(2)
    assert (stage.sink.ids, stage.dead_letters.ids) == (["few"], [])
    assert await end(source) == {"delivered": 1, "retried": 0, "dead_lettered": 0, "lost": 1}


@pytest.mark.fault("D6")
async def test_the_rate_bounds_what_a_consumer_delivers(stage: Stage) -> None:
    stage.make_topic(1)
    stage.send(*(event(str(number)) for number in range(1000)), value=b"x" * 1000)
    began = time.monotonic()
    await stage.run("--rate", "200")
    await until(lambda: len(stage.sink.received) == 1000)
    assert time.monotonic() - began > 3


async def test_ordered_keeps_one_in_flight_for_each_partition(stage: Stage) -> None:
    """A retry delays only its partition."""
    stage.sink.answer = scripted(Counter())
    stage.make_topic(2)
    for partition in (0, 1):
        stage.send(*(event(f"500-200-{number}") for number in range(200, 210)), partition=partition)
    await stage.run("--ordering", "ordered", "--retry", "2", "--backoff-delay", "0.01", "--consumers", "2")
    await until(lambda: len(stage.sink.received) >= 30)
    await stage.until_committed(10)
    assert (stage.sink.most_in_flight[0], stage.sink.most_in_flight[1]) == (1, 1)
    for partition in (0, 1):
        positions = [request.position for request in stage.sink.received if request.position[0] == partition]
        assert positions == sorted(positions)


async def test_ordered_delivers_the_records_of_paused_partitions(stage: Stage) -> None:
    """A partition is paused while its lane is full. No record stays behind in the client."""
    stage.make_topic(3)
    for partition in range(3):
        stage.send(*(event(f"{partition}-{number}") for number in range(400)), partition=partition)
    await stage.run("--ordering", "ordered", "--max-poll-records", "10", "--rate", "0")
    await until(lambda: len(stage.sink.received) == 1200)


async def test_after_a_kill_uncommitted_records_come_again(stage: Stage) -> None:
    """The source commits contiguous offsets only, so a slow event brings back the events behind it."""

    async def hang_on_5(request: SinkRequest) -> web.Response:
        if request.id == "5":
            await asyncio.sleep(3600)
        return web.Response()

    stage.sink.answer = hang_on_5
    stage.make_topic(1)
    stage.send(*(event(str(number)) for number in range(10)))
    source = await stage.run()
    await until(lambda: len(stage.sink.received) == 10)
    await stage.until_committed(5)
    source.kill()
    again = Sink()
    await again.start()
    await stage.run(sink=again)
    await until(lambda: len(again.received) == 5)
    await stage.until_committed(10)
    assert sorted(again.ids) == ["5", "6", "7", "8", "9"]
    await again.stop()


@pytest.mark.fault("D6")
async def test_after_sigterm_the_records_since_the_last_commit_come_again(stage: Stage) -> None:
    """SIGTERM commits nothing.

    `latest` skips the records from before `ready`. SIGUSR1 logs the statistics.
    """
    stage.make_topic(1)
    stage.send(event("old"))
    source = await stage.run("--commit-every", "60", "--initial-offset", "latest")
    stage.send(event("new"))
    await until(lambda: stage.sink.ids == ["new"])
    os.kill(source.pid, signal.SIGUSR1)
    await until(lambda: '{"delivered": 1' in source.log.read_text())
    assert (await end(source))["delivered"] == 1
    assert stage.committed() is None
    await stage.run()
    await until(lambda: stage.sink.ids == ["new", "old", "new"])


async def test_a_second_source_takes_over_partitions(stage: Stage) -> None:
    """A rebalance loses no record, and then both sources deliver a share."""
    other = Sink()
    await other.start()
    stage.make_topic(2)
    first = await stage.run()
    await stage.run(sink=other)
    stage.send(event("0"), partition=0)
    stage.send(event("1"), partition=1)
    await until(lambda: len(stage.sink.received) == len(other.received) == 1)
    await end(first)
    stage.send(event("2"), partition=0)
    stage.send(event("3"), partition=1)
    await until(lambda: {"2", "3"} <= {*other.ids})
    await other.stop()


async def test_a_topic_made_anew_is_read_from_its_start(stage: Stage) -> None:
    """The group still has its committed offset, beyond the end of the new log."""
    stage.make_topic(1)
    stage.send(*(event(f"old-{number}") for number in range(10)))
    await stage.run()
    await stage.until_committed(10)
    stage.remake_topic(1)
    stage.send(event("new-0"), event("new-1"))
    await until(lambda: {"new-0", "new-1"} <= {*stage.sink.ids})


@pytest.mark.parametrize("count", [2, 30], ids=["shorter", "longer"])
async def test_a_broker_that_lost_its_log_is_read_from_the_start(tmp_path: Path, count: int) -> None:
    """The new log ends before, or after, the position in the old log."""
    broker = Tansu(tmp_path, tmp_path)
    broker.start()
    with ExitStack() as stack:
        stack.callback(broker.stop)
        stage = Stage(broker, tmp_path, stack)
        await stage.sink.start()
        stage.make_topic(1)
        stage.send(*(event(f"old-{number}") for number in range(10)))
        await stage.run()
        await stage.until_committed(10)
        await asyncio.to_thread(broker.restart)
        with suppress(TopicAlreadyExistsError):  # Tansu creates a topic for the request of a consumer
            stage.make_topic(1)
        stage.send(*(event(f"new-{number}") for number in range(count)))
        await until(lambda: {f"new-{number}" for number in range(count)} <= {*stage.sink.ids})
        await stage.until_committed(count)
        await stage.sink.stop()
