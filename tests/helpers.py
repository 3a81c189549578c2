"""Helpers of many tests: events, requests of a KafkaSource, and a view of a running stack."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
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
from twofold.write.order import PublicationOrder

Raw = list[tuple[bytes, bytes]]

_ORDER = PublicationOrder()

ARRIVES_WITHIN_S = 40.0
"""The longest way of an event from Kafka into `event_store` on a busy machine, with a rejoined group."""


def an_event(**changes: Any) -> Event:
    """Return a new, unique event with `changes`. Its order is of the hour before, so a publisher's order differs."""
    fields: dict[str, Any] = {
        "id": str(uuid4()),
        "event_type": "order.created",
        "timestamp": datetime.now(UTC),
        "aggregate_id": f"order-{uuid4()}",
        "metadata": {"service_name": "/shop"},
        "payload": {"total": 3},
        "order": _ORDER.next(datetime.now(UTC) - timedelta(hours=1)),
    }
    return Event.of(**fields | changes)


def some_events(number: int, **changes: Any) -> list[Event]:
    """Return new events."""
    return [an_event(**changes) for _ in range(number)]


def altered(event: Event) -> Event:
    """Return another event with the identity of `event`."""
    return event.model_copy(update={"payload": {"altered": True}})


def with_headers_of(size: int) -> Event:
    """Return a new event whose record has headers of `size` bytes, near 32 KiB."""

    def of(last: str) -> Event:
        extensions = {f"x{number:02}": "x" * 1015 for number in range(31)} | {"last": last}
        return an_event(aggregate_id="order-7", metadata={"service_name": "/shop", "extensions": extensions})

    shortest = sum(len(name) + len(value) for name, value in encode_kafka(of("x")).headers)
    return of("x" * (1 + size - shortest))


def structured(event: Event) -> dict[str, Any]:
    """Return the event in CloudEvents' JSON format, as a producer writes it."""
    headers, body = encode_http(event)
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    return attributes | {"data": json.loads(body)}


def delivered(event: Event, partition: int = 0, offset: int = 0, **attributes: str) -> tuple[Raw, bytes]:
    """Return headers and body of KafkaSource's request for the record of the event."""
    record = encode_kafka(event)
    carried = {name.replace("ce_", "ce-"): value.decode() for name, value in record.headers}
    carried |= {"ce-knativekafkapartition": str(partition), "ce-knativekafkaoffset": str(offset)}
    carried |= {f"ce-{name}": value for name, value in attributes.items()}
    return [(name.encode(), value.encode()) for name, value in carried.items()], record.value


def plain_record(body: bytes, partition: int = 0, offset: int = 0) -> tuple[Raw, bytes]:
    """Return headers and body of KafkaSource's request for a record without a CloudEvent."""
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
    """Return the settings with an address without a broker and a short time for sending."""
    address = f"127.0.0.1:{free_port()}"
    return settings.model_copy(update={"kafka_bootstrap_servers": address, "send_timeout_s": 1.0} | changes)


def settings_of(stack: Stack, **changes: Any) -> Settings:
    """Return the settings of the library for the servers of `stack`, with `changes`."""
    return Settings.model_validate({name.lower(): value for name, value in stack.environment.items()} | changes)


class EncodedDocument(NamedTuple):
    """An encoded event, ready for its insert."""

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
    """Wait until `check` is true. Raises `TimeoutError` after `within` seconds."""
    async with asyncio.timeout(within):
        while not await check():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.02)


class Commands(CommandListener):
    """Records the commands of a client."""

    def __init__(self) -> None:
        self.sent: list[CommandStartedEvent] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append(event)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass

    def count(self, name: str) -> int:
        """Return the number of recorded commands with this name."""
        return sum(event.command_name == name for event in self.sent)


@asynccontextmanager
async def listened(settings: Settings) -> AsyncIterator[tuple[Database, Commands]]:
    """Open the database, and record the commands of this client."""
    commands = Commands()
    client: AsyncMongoClient[Document] = AsyncMongoClient(
        settings.mongodb_uri.get_secret_value(), event_listeners=[commands]
    )
    async with client:
        yield database_of(client, settings), commands


@asynccontextmanager
async def failing(database: Database, application: str, times: int = 1, **how: Any) -> AsyncIterator[None]:
    """Let the server fail the next `insert` commands of an application, or the commands in `how`."""
    data = {"failCommands": ["insert"], "appName": f"twofold-{application}"} | how
    admin = database.client.admin
    await admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)
    try:
        yield
    finally:
        await admin.command("configureFailPoint", "failCommand", mode="off")


@dataclass
class View:
    """A running stack, seen by its users over HTTP and by its operators in the collections."""

    stack: Stack
    http: httpx.Client
    database: Any
    """pymongo's database, with root's permissions if MongoDB checks permissions."""

    def publish(self, event: Event, url: str = "", **headers: str) -> httpx.Response:
        """Post an event in binary mode."""
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
        """Post a delivery of KafkaSource."""
        headers, body = request
        return self.http.post(url or self.stack.store_url, headers=headers, content=body)

    def accept(self, event: Event) -> None:
        """Put the event into `events` as `publish` does, and send nothing: a process that died behind its answer."""
        self.database.events.insert_one(EventRepository.encode(event.to_document(), datetime.now(UTC)))

    def relay(self, due: Iterable[Event] = ()) -> dict[str, Any]:
        """Make the outbox entries of `due` due, wake the relay, and return its result."""
        now = {"$set": {"outbox.state": "pending", "outbox.next_try": datetime.now(UTC)}}
        self.database.events.update_many({"_id": ids(due), "outbox.state": {"$in": ["new", "pending"]}}, now)
        answer = self.http.post(self.stack.relay_url)
        assert answer.status_code == 200, answer.text
        run: dict[str, Any] = answer.json()
        return run

    def document(self, collection: str, event: Event) -> Document | None:
        """Return the document of the event in `events` or `event_store`."""
        found: Document | None = self.database[collection].find_one({"_id": event.event_id})
        return found

    def held(self, collection: str, events: Iterable[Event]) -> set[UUID]:
        """Return the ids of the events in the collection with an equal digest."""
        digests = {event.event_id: event.digest for event in events}
        found = self.database[collection].find({"_id": {"$in": list(digests)}}, {"digest": 1})
        return {document["_id"] for document in found if document["digest"] == digests[document["_id"]]}

    def outbox_entries(self, events: Iterable[Event]) -> int:
        """Return the number of outbox entries of the events."""
        count: int = self.database.events.count_documents({"_id": ids(events), "outbox": {"$exists": True}})
        return count

    def arrive(self, events: Sequence[Event], within: float = ARRIVES_WITHIN_S) -> bool:
        """Return True if every event arrives in `event_store` in time."""
        return wait_until(lambda: len(self.held("event_store", events)) == len(events), within=within, every=0.1)

    def relayed(self, events: Sequence[Event], within: float = ARRIVES_WITHIN_S) -> bool:
        """Wake the relay until no event has an outbox entry. Return True if this happens in time."""

        def done() -> bool:
            self.relay(due=events)
            return self.outbox_entries(events) == 0

        return wait_until(done, within=within, every=0.5)

    def dead_letters(self, event: Event) -> list[Document]:
        """Return the dead letters from deliveries of the event."""
        return list(self.database.dead_letters.find({"headers.value": event.id.encode()}))


def ids(events: Iterable[Event]) -> Document:
    """Return the query for the documents of the events."""
    return {"$in": [event.event_id for event in events]}


def bearer(subject: str = "service", *permissions: str, **claims: Any) -> dict[str, str]:
    """Return the header with a token of the stacks' issuer, for a service with every permission or for a user."""
    given = token(subject, permissions, **claims) if subject != "service" else token(**claims)
    return {"authorization": f"Bearer {given}"}


@contextmanager
def view(stack: Stack) -> Iterator[View]:
    """Open a view of `stack` for the block."""
    with (
        httpx.Client(timeout=60.0, headers=bearer()) as http,
        MongoClient[Document](stack.mongodb_uri, uuidRepresentation="standard", tz_aware=True) as client,
    ):
        yield View(stack, http, client[stack.database])


Request = tuple[Mapping[str, str] | Raw, bytes]
"""Headers and body."""


class Answer(NamedTuple):
    """An HTTP answer and its duration. The status is 0 without an answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


class Callers:
    """Sends many requests at once. httpx, as in the other tests, needs milliseconds for a request."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(self, url: str, request: Request) -> Answer:
        """Send a request."""
        headers, body = request
        pairs = headers.items() if isinstance(headers, Mapping) else decoded(headers)
        start = time.monotonic()
        try:
            async with self._session.post(url, headers=CIMultiDict(pairs), data=body) as answer:
                return Answer(answer.status, await answer.read(), answer.headers, time.monotonic() - start)
        except (aiohttp.ClientError, TimeoutError):
            return Answer(0, b"", {}, time.monotonic() - start)

    async def post_all(self, url: str, requests: Iterable[Request]) -> list[Answer]:
        """Send the requests at once, and return the answers in their order."""
        return await asyncio.gather(*(self.post(url, request) for request in requests))


def decoded(headers: Raw) -> list[tuple[str, str]]:
    """Return the headers as text, for a client."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


@asynccontextmanager
async def callers(number: int) -> AsyncIterator[Callers]:
    """Open up to `number` connections."""
    connector = aiohttp.TCPConnector(limit=number)
    async with aiohttp.ClientSession(
        connector=connector, headers=bearer(), timeout=aiohttp.ClientTimeout(60.0)
    ) as session:
        yield Callers(session)


@dataclass
class Load:
    """The results of many callers. A caller sends one event after another until `stopped`."""

    accepted: list[Event] = field(default_factory=list)
    refused: list[Event] = field(default_factory=list)
    """Answered with 503."""
    unanswered: list[Event] = field(default_factory=list)
    others: list[Answer] = field(default_factory=list)
    """Any other answer."""
    stopped: bool = False

    async def has(self, accepted: int) -> None:
        """Wait until this number of events was accepted."""

        async def enough() -> bool:
            return len(self.accepted) >= accepted

        await eventually(enough)

    async def call(self, sending: Callers, url: str, request: Callable[[Event], Request]) -> None:
        """Send events as one caller."""
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
    """Send load to `url` during the block. After the block, every request has its answer."""
    made = Load()
    async with callers(number) as sending:
        calls = [asyncio.create_task(made.call(sending, url, request)) for _ in range(number)]
        try:
            yield made
        finally:
            made.stopped = True
            await asyncio.gather(*calls)


def stages(plan: Any) -> Iterator[Document]:
    """Yield every stage of an explained plan, in any form of the server."""
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
    """Return the server's explanation of a recorded command, with the numbers of keys and documents."""
    command = {name: value for name, value in sent.command.items() if not name.startswith(("$", "lsid", "txn"))}
    command.pop("readConcern", None)
    command.pop("maxTimeMS", None)
    return await database.command("explain", command, verbosity="executionStats", codec_options=CODEC)


def looked_at(explanation: Document, what: str) -> int:
    """Return the number of examined keys (`totalKeysExamined`) or documents (`totalDocsExamined`)."""
    if what in explanation:  # it includes the stages below
        return int(explanation[what])
    inner = [value for name, value in explanation.items() if name not in ("command", "allPlansExecution")]
    dicts = [each for value in inner for each in (value if isinstance(value, list) else [value])]
    return sum(looked_at(each, what) for each in dicts if isinstance(each, dict))
