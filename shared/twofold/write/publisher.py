"""The one write path: into `events` with its mark, then, behind the answer, to Kafka.

Application code uses the same path as the function `publish`:

    async with publishing.open_publisher(PublishSettings()) as publisher:
        await publisher.publish_event("order.created", {"total": 3}, source="/shop", aggregate_id="order-7")
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid4

from twofold.cloudevents.decode_http import IncomingEvent
from twofold.cloudevents.encode import EncodedEvent, KafkaRecord, check_attributes_size
from twofold.errors import Conflict, Rejected, TooLarge, TwofoldError, UnknownReplay
from twofold.event.model import Event
from twofold.kafka.sender import Sender
from twofold.mongo.client import RawDocument, open_database
from twofold.mongo.insert import InsertResult, compare_digests
from twofold.observability.metrics import ACCEPTED, DUPLICATES, REJECTED
from twofold.observability.telemetry import SILENT, Telemetry
from twofold.settings import PublishSettings
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.write.group_commit import GroupCommit

CLOSE_S = 5.0
"""How long closing waits for Kafka: what is not sent by then is left to the relay."""


class Published(NamedTuple):
    """A taken event: durable in `events`, and on its way to `event_store`."""

    event_id: UUID
    given_id: str
    status: Literal["accepted", "duplicate"]


class _Entry(NamedTuple):
    """An event, ready to be written: encoding comes before queueing, so one that can't be encoded harms nobody else.

    It holds no event: of batches thousands wait, and the objects of their payloads would be many.
    """

    event_id: UUID
    given_id: str
    digest: bytes
    document: RawDocument
    record: KafkaRecord
    size: int
    """Its bytes, in both forms."""


class Publisher:
    """Publishes events: once in `events`, and through Kafka in `event_store`. One per process and event loop."""

    def __init__(
        self,
        events: EventRepository,
        event_store: EventStore,
        sender: Sender,
        settings: PublishSettings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._events = events
        self._event_store = event_store
        self._sender = sender
        self._max_record_bytes = settings.max_record_bytes
        self.clock = clock
        self._telemetry = telemetry
        self._commit: GroupCommit[_Entry, InsertResult] = GroupCommit(
            self._write,
            max_items=settings.group_commit_events,
            wait_s=settings.group_commit_wait_ms / 1000,
            capacity=settings.group_commit_capacity,
            max_writes=settings.group_commit_writes,
            size_of=attrgetter("size"),
            capacity_bytes=settings.group_commit_capacity_bytes,
        )

    async def publish_event(
        self,
        event_type: str,
        payload: dict[str, Any],
        *,
        source: str,
        event_id: UUID | None = None,
        aggregate_id: str | None = None,
        extensions: dict[str, str] | None = None,
        **metadata: str,
    ) -> Published:
        """Publish a new event, made of its parts; `metadata` takes the other fields of `event.Metadata`.

        Give an `event_id` (UUID version 4 or 7) where the call may be repeated: without one, each call is a new event.
        Returns once a majority of MongoDB has it. Raises `Invalid`, `TooLarge`, `Conflict` or `Unavailable`; after
        `Unavailable` the event may or may not be stored, and publishing it again, with the same id, is safe.
        """
        event = Event.of(
            event_id=event_id or uuid4(),
            event_type=event_type,
            timestamp=self.clock(),
            aggregate_id=aggregate_id,
            metadata={"service_name": source, "time_assigned": True, "extensions": extensions or {}, **metadata},
            payload=payload,
        )
        return await self._publish_one(event)

    async def publish_base_event(self, event: Event) -> Published:
        """Publish an event that is already built. Returns and raises as `publish_event` does."""
        # The application may have changed the payload since its digest was made.
        return await self._publish_one(event.model_copy())

    async def _publish_one(self, event: Event) -> Published:
        (outcome,) = await self.publish([IncomingEvent.of(event)])
        if isinstance(outcome, TwofoldError):
            raise outcome
        return outcome

    async def yield_to_pending_write(self) -> None:
        """Let a write that is due begin. Await it before decoding a request: see `GroupCommit.yield_to_pending_write`."""
        await self._commit.yield_to_pending_write()

    async def publish(self, received: Iterable[IncomingEvent | TwofoldError]) -> list[Published | TwofoldError]:
        """Publish several events together; each one's outcome stands in its place.

        Errors among `received` are handed through in their places. An iterator's events are made ready one by one, and
        let go (but for tracing). Raises `Unavailable` when none is known to be stored.
        """
        if self._telemetry.tracing is not None:
            return await self._telemetry.tracing.publishing(received, self._publish)
        return await self._publish(received)

    async def _publish(self, received: Iterable[IncomingEvent | TwofoldError]) -> list[Published | TwofoldError]:
        outcomes: list[Published | TwofoldError | None] = []
        entries: dict[int, _Entry] = {}
        for item in received:
            if isinstance(item, TwofoldError):
                outcomes.append(self.refused(item))
            elif item.replay_id is not None:
                outcomes.append(await self._replayed(item.encoded))
            else:
                entry = self._entry(item)
                if isinstance(entry, TwofoldError):
                    outcomes.append(self.refused(entry))
                else:
                    entries[len(outcomes)] = entry
                    outcomes.append(None)
        if entries:
            results = await self._commit.submit(list(entries.values()))
            for (position, entry), result in zip(entries.items(), results, strict=True):
                outcomes[position] = self._outcome(entry, result)
        return [outcome for outcome in outcomes if outcome is not None]

    async def publish_observed(self, events: Sequence[Event]) -> int:
        """Publish observations of facts: of each fact the first one wins, and one that differs from it is a duplicate.

        What is known already, in `events` or in the log, is left alone: a fact that outlived `events` is not announced
        again. Returns how many are new, once a majority of MongoDB has them. Raises `Unavailable` if one is not known
        to be stored, else the error of one that can't be taken, with the others taken.
        """
        ids = [event.event_id for event in events]
        known = await self._event_store.known(ids) | await self._events.known(ids)
        new = (IncomingEvent.of(event) for event in events if event.event_id not in known)
        outcomes = await self.publish(new)
        # A conflict is another's observation, made in between.
        refused = [error for error in outcomes if isinstance(error, TwofoldError) and not isinstance(error, Conflict)]
        if refused:
            raise next((error for error in refused if error.retriable), refused[0])
        return sum(isinstance(outcome, Published) and outcome.status == "accepted" for outcome in outcomes)

    def refused(self, error: TwofoldError) -> TwofoldError:
        """Count `error` if it refuses an event, or a whole request, for good; and return it."""
        if isinstance(error, Rejected):
            self._telemetry.record(REJECTED, 1, {"error.type": error.title})
        return error

    def _entry(self, item: IncomingEvent) -> _Entry | TwofoldError:
        written = item.encoded.within(item.traceparent)
        record = written.record(item.traceparent)
        record_size = record.size
        if record_size > self._max_record_bytes:
            what = f"the event takes {record_size} bytes in Kafka: at most {self._max_record_bytes} are taken"
            return TooLarge(what)
        try:
            check_attributes_size(record.headers)
            document = EventRepository.encode(written.document, self.clock())
        except TwofoldError as error:
            return error
        size = len(document.raw) + record_size
        return _Entry(written.event_id, written.given_id, written.digest, document, record, size)

    async def _write(self, entries: list[_Entry]) -> Sequence[InsertResult]:
        with self._telemetry.committing("events", len(entries)):
            results = await self._events.insert(entries)
        self._telemetry.record(ACCEPTED, results.count("new"))
        self._sender.offer([entry.record for entry, result in zip(entries, results, strict=True) if result == "new"])
        return results

    async def _replayed(self, encoded: EncodedEvent) -> Published | TwofoldError:
        """Answer a replayed event and write nothing: a known event is a duplicate, an unknown one is refused."""
        ids = [encoded.event_id]
        known = await self._events.known(ids) or await self._event_store.known(ids)
        if encoded.event_id not in known:
            return self.refused(UnknownReplay("a replayed event must be known", "replayid"))
        return self._outcome(encoded, compare_digests(known[encoded.event_id], encoded.digest))

    def _outcome(self, event: EncodedEvent | _Entry, result: InsertResult) -> Published | TwofoldError:
        if isinstance(result, TwofoldError):
            return self.refused(result)
        if result == "duplicate":
            self._telemetry.record(DUPLICATES, 1, {"db.collection.name": "events"})
        return Published(event.event_id, event.given_id, "accepted" if result == "new" else "duplicate")

    async def close(self) -> None:
        """Finish what was taken; wait a few seconds for Kafka, and leave the rest to the relay."""
        await self._commit.close()
        await self.flush()
        await asyncio.to_thread(self._sender.close, 0)

    async def flush(self) -> None:
        """Wait a few seconds until Kafka has acknowledged what was sent behind the answers."""
        await asyncio.to_thread(self._sender.flush, CLOSE_S)


@asynccontextmanager
async def open_publisher(
    settings: PublishSettings, application: str = "application", telemetry: Telemetry = SILENT
) -> AsyncIterator[Publisher]:
    """A publisher with its own connections, which closes with the block. Open it after a fork."""
    sender = Sender(settings)
    async with open_database(settings, application) as database:
        publisher = Publisher(EventRepository(database), EventStore(database), sender, settings, telemetry=telemetry)
        try:
            yield publisher
        finally:
            await publisher.close()
