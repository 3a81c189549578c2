"""What many tests need: events to send, what KafkaSource makes of them, and a view of a running stack."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import aiohttp
import httpx
from multidict import CIMultiDict
from pymongo import AsyncMongoClient, MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from dev.process.child import free_port, wait_until
from dev.servers.issuer import token
from dev.stack import Stack
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.cloudevents.encode import encode_http, encode_kafka
from twofold.event.model import Event
from twofold.mongo.client import CODEC, Database, Document, RawDocument, database_of
from twofold.settings import Settings
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository

Raw = list[tuple[bytes, bytes]]

ARRIVES_WITHIN_S = 40.0
"""How long an event may take from Kafka into `event_store` on a busy machine, a rejoined group included."""


def an_event(**changes: Any) -> Event:
    """A new event, nothing like any other, with `changes`."""
    fields: dict[str, Any] = {
        "event_id": uuid4(),
        "event_type": "order.created",
        "timestamp": datetime.now(UTC),
        "aggregate_id": f"order-{uuid4()}",
        "metadata": {"service_name": "/shop"},
        "payload": {"total": 3},
    }
    return Event.of(**fields | changes)


def some_events(number: int, **changes: Any) -> list[Event]:
    """That many new events."""
    return [an_event(**changes) for _ in range(number)]


def altered(event: Event) -> Event:
    """Another event with the identity of `event`."""
    return event.model_copy(update={"payload": {"altered": True}})


def with_headers_of(size: int) -> Event:
    """A new event whose record has headers of that many bytes: some 32 KiB."""

    def of(last: str) -> Event:
        extensions = {f"x{number:02}": "x" * 1015 for number in range(31)} | {"last": last}
        return an_event(aggregate_id="order-7", metadata={"service_name": "/shop", "extensions": extensions})

    shortest = sum(len(name) + len(value) for name, value in encode_kafka(of("x")).headers)
    return of("x" * (1 + size - shortest))


def structured(event: Event) -> dict[str, Any]:
    """The event in CloudEvents' JSON format, as a producer writes it."""
    headers, body = encode_http(event)
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    return attributes | {"data": json.loads(body)}


def delivered(event: Event, partition: int = 0, offset: int = 0, **attributes: str) -> tuple[Raw, bytes]:
    """Headers and body of the request that KafkaSource makes of the event's record."""
    record = encode_kafka(event)
    carried = {name.replace("ce_", "ce-"): value.decode() for name, value in record.headers}
    carried |= {"ce-knativekafkapartition": str(partition), "ce-knativekafkaoffset": str(offset)}
    carried |= {f"ce-{name}": value for name, value in attributes.items()}
    return [(name.encode(), value.encode()) for name, value in carried.items()], record.value


def plain_record(body: bytes, partition: int = 0, offset: int = 0) -> tuple[Raw, bytes]:
    """Headers and body of the request that KafkaSource makes of a record that is no CloudEvent."""
    attributes = {
        "specversion": "1.0",
        "id": f"partition:{partition}/offset:{offset}",
        "source": "/apis/v1/namespaces/local/kafkasources/store#twofold.events",
        "type": "dev.knative.kafka.event",
        "time": "2026-07-01T00:00:00Z",
        "knativekafkapartition": str(partition),
        "knativekafkaoffset": str(offset),
    }
    return [(f"ce-{name}".encode(), value.encode()) for name, value in attributes.items()], body


def without_kafka(settings: Settings, **changes: Any) -> Settings:
    """The same where no broker is, and a record is soon given up."""
    address = f"127.0.0.1:{free_port()}"
    return settings.model_copy(update={"kafka_bootstrap_servers": address, "send_timeout_s": 1.0} | changes)


def settings_of(stack: Stack, **changes: Any) -> Settings:
    """The library's settings for the servers of `stack`, with `changes`."""
    return Settings.model_validate({name.lower(): value for name, value in stack.environment.items()} | changes)


class EncodedDocument(NamedTuple):
    """An event that is ready to be inserted."""

    event_id: UUID
    digest: bytes
    document: RawDocument


async def accept(database: Database, *events: Event) -> None:
    """Insert the events into `events` as `publish` does, and send nothing to Kafka."""
    now = datetime.now(UTC)
    documents = [
        EncodedDocument(event.event_id, event.digest, EventRepository.encode(event.to_document(), now))
        for event in events
    ]
    await EventRepository(database).insert(documents)


async def log(database: Database, *events: Event) -> None:
    """Append the events to `event_store` as `store` does."""
    now = datetime.now(UTC)
    documents = [
        EncodedDocument(event.event_id, event.digest, EventStore.encode(DeliveredEvent(event.to_document()), now))
        for event in events
    ]
    await EventStore(database).append(documents)


async def eventually(check: Callable[[], Awaitable[bool]], within: float = ARRIVES_WITHIN_S) -> None:
    """Wait until `check` is true; raises `TimeoutError` if it does not come to be."""
    async with asyncio.timeout(within):
        while not await check():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.02)


class Commands(CommandListener):
    """Notes the commands that a client sends."""

    def __init__(self) -> None:
        self.sent: list[CommandStartedEvent] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append(event)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass

    def count(self, name: str) -> int:
        """How many commands of that name were sent."""
        return sum(event.command_name == name for event in self.sent)


@asynccontextmanager
async def listened(settings: Settings) -> AsyncIterator[tuple[Database, Commands]]:
    """Twofold's database, and the commands that are sent to it."""
    commands = Commands()
    client: AsyncMongoClient[Document] = AsyncMongoClient(
        settings.mongodb_uri.get_secret_value(), event_listeners=[commands]
    )
    async with client:
        yield database_of(client, settings), commands


@asynccontextmanager
async def failing(database: Database, application: str, times: int = 1, **how: Any) -> AsyncIterator[None]:
    """Let the server fail the next `insert` commands, or those named, of that application alone, as `how` says."""
    data = {"failCommands": ["insert"], "appName": f"twofold-{application}"} | how
    admin = database.client.admin
    await admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)
    try:
        yield
    finally:
        await admin.command("configureFailPoint", "failCommand", mode="off")


@dataclass
class View:
    """A running stack as its users and its operators see it: over HTTP, and in the collections."""

    stack: Stack
    http: httpx.Client
    database: Any
    """pymongo's, with root's rights where MongoDB asks for rights."""

    def publish(self, event: Event, url: str = "", **headers: str) -> httpx.Response:
        """Post one event, in binary mode."""
        own, body = encode_http(event)
        return self.http.post(url or self.stack.publish_url, headers=own | headers, content=body)

    def publish_all(self, events: Sequence[Event], url: str = "", **headers: str) -> httpx.Response:
        """Post a batch."""
        return self.http.post(
            url or self.stack.publish_url,
            headers={"content-type": "application/cloudevents-batch+json"} | headers,
            content=json.dumps([structured(event) for event in events]),
        )

    def store(self, request: tuple[Raw, bytes], url: str = "") -> httpx.Response:
        """Post what KafkaSource delivers."""
        headers, body = request
        return self.http.post(url or self.stack.store_url, headers=headers, content=body)

    def accept(self, event: Event) -> None:
        """Put the event into `events` as `publish` does, and send nothing: a process that died behind its answer."""
        self.database.events.insert_one(EventRepository.encode(event.to_document(), datetime.now(UTC)))

    def relay(self, due: Iterable[Event] = ()) -> dict[str, Any]:
        """Wake the relay after the time of the marks of `due` has come, and return what it did."""
        now = {"$set": {"outbox.state": "pending", "outbox.next_try": datetime.now(UTC)}}
        self.database.events.update_many({"_id": ids(due), "outbox.state": {"$in": ["new", "pending"]}}, now)
        answer = self.http.post(self.stack.relay_url)
        assert answer.status_code == 200, answer.text
        run: dict[str, Any] = answer.json()
        return run

    def document(self, collection: str, event: Event) -> Document | None:
        """The event's document in `events` or `event_store`."""
        found: Document | None = self.database[collection].find_one({"_id": event.event_id})
        return found

    def held(self, collection: str, events: Iterable[Event]) -> set[UUID]:
        """The ids of those events that are in the collection, each with the digest that it was sent with."""
        digests = {event.event_id: event.digest for event in events}
        found = self.database[collection].find({"_id": {"$in": list(digests)}}, {"digest": 1})
        return {document["_id"] for document in found if document["digest"] == digests[document["_id"]]}

    def marked(self, events: Iterable[Event]) -> int:
        """How many of the events carry the mark."""
        count: int = self.database.events.count_documents({"_id": ids(events), "outbox": {"$exists": True}})
        return count

    def arrive(self, events: Sequence[Event], within: float = ARRIVES_WITHIN_S) -> bool:
        """Whether all of the events come to be in `event_store`."""
        return wait_until(lambda: len(self.held("event_store", events)) == len(events), within=within, every=0.1)

    def relayed(self, events: Sequence[Event], within: float = ARRIVES_WITHIN_S) -> bool:
        """Whether the relay, woken time and again, brings all of the events into the log, and takes off their marks."""

        def done() -> bool:
            self.relay(due=events)
            return self.marked(events) == 0

        return wait_until(done, within=within, every=0.5)

    def letters(self, event: Event) -> list[Document]:
        """The dead letters that were a delivery of the event."""
        return list(self.database.dead_letters.find({"headers.value": event.given_id.encode()}))


def ids(events: Iterable[Event]) -> Document:
    """The query for their documents."""
    return {"$in": [event.event_id for event in events]}


def bearer(subject: str = "service", *rights: str, **claims: Any) -> dict[str, str]:
    """The header with a token of the stacks' issuer: that of a service that may do everything, or of a user."""
    given = token(subject, rights, **claims) if subject != "service" else token(**claims)
    return {"authorization": f"Bearer {given}"}


@contextmanager
def view(stack: Stack) -> Iterator[View]:
    """A view of `stack`, whose connections close with the block."""
    with (
        httpx.Client(timeout=60.0, headers=bearer()) as http,
        MongoClient[Document](stack.mongodb_uri, uuidRepresentation="standard", tz_aware=True) as client,
    ):
        yield View(stack, http, client[stack.database])


Request = tuple[Mapping[str, str] | Raw, bytes]
"""Headers and body."""


class Answer(NamedTuple):
    """What came back, or a status of 0 if nothing did, and after how many seconds."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


class Callers:
    """Sends many requests at once: httpx, which the other tests use, takes milliseconds for each."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(self, url: str, request: Request) -> Answer:
        """Send one."""
        headers, body = request
        pairs = headers.items() if isinstance(headers, Mapping) else decoded(headers)
        start = time.monotonic()
        try:
            async with self._session.post(url, headers=CIMultiDict(pairs), data=body) as answer:
                return Answer(answer.status, await answer.read(), answer.headers, time.monotonic() - start)
        except (aiohttp.ClientError, TimeoutError):
            return Answer(0, b"", {}, time.monotonic() - start)

    async def post_all(self, url: str, requests: Iterable[Request]) -> list[Answer]:
        """Send all at once, and return the answers in their order."""
        return await asyncio.gather(*(self.post(url, request) for request in requests))


def decoded(headers: Raw) -> list[tuple[str, str]]:
    """The headers as a client takes them."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


@asynccontextmanager
async def callers(number: int) -> AsyncIterator[Callers]:
    """That many connections at most."""
    connector = aiohttp.TCPConnector(limit=number)
    async with aiohttp.ClientSession(
        connector=connector, headers=bearer(), timeout=aiohttp.ClientTimeout(60.0)
    ) as session:
        yield Callers(session)


@dataclass
class Load:
    """What became of events that many callers send, one after the other each, until they are told to stop."""

    accepted: list[Event] = field(default_factory=list)
    refused: list[Event] = field(default_factory=list)
    """Answered with 503."""
    unanswered: list[Event] = field(default_factory=list)
    others: list[Answer] = field(default_factory=list)
    """Any other answer."""
    stopped: bool = False

    async def has(self, accepted: int) -> None:
        """Wait until that many were accepted."""

        async def enough() -> bool:
            return len(self.accepted) >= accepted

        await eventually(enough)

    async def call(self, sending: Callers, url: str, request: Callable[[Event], Request]) -> None:
        """Be one caller."""
        while not self.stopped:
            event = an_event()
            answer = await sending.post(url, request(event))
            if answer.status in (200, 202):
                self.accepted.append(event)
                continue
            if answer.status == 0:
                self.unanswered.append(event)
            elif answer.status == 503:
                self.refused.append(event)
            else:
                self.others.append(answer)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def load(url: str, request: Callable[[Event], Request] = encode_http, number: int = 32) -> AsyncIterator[Load]:
    """Load on `url` while the block lasts; behind it, the answers to all that was sent are there."""
    made = Load()
    async with callers(number) as sending:
        calls = [asyncio.create_task(made.call(sending, url, request)) for _ in range(number)]
        try:
            yield made
        finally:
            made.stopped = True
            await asyncio.gather(*calls)


def stages(plan: Any) -> Iterator[Document]:
    """Every stage of an explained plan, whatever form the server gives it."""
    if isinstance(plan, Mapping):
        if "stage" in plan:
            yield dict(plan)
        for name, inner in plan.items():
            if name not in ("rejectedPlans", "command"):
                yield from stages(inner)
    elif isinstance(plan, list):
        for inner in plan:
            yield from stages(inner)


async def explained(database: Database, sent: CommandStartedEvent) -> Document:
    """What the server says of a command that was sent: how it went about it, and what it looked at."""
    command = {name: value for name, value in sent.command.items() if not name.startswith(("$", "lsid", "txn"))}
    command.pop("readConcern", None)
    command.pop("maxTimeMS", None)
    return await database.command("explain", command, verbosity="executionStats", codec_options=CODEC)


def looked_at(explanation: Document, what: str) -> int:
    """How many index keys (`totalKeysExamined`) or documents (`totalDocsExamined`) it looked at in all."""
    if what in explanation:  # the stages below have their share of it, once more
        return int(explanation[what])
    inner = [value for name, value in explanation.items() if name not in ("command", "allPlansExecution")]
    dicts = [each for value in inner for each in (value if isinstance(value, list) else [value])]
    return sum(looked_at(each, what) for each in dicts if isinstance(each, dict))
