"""The write path of new events: insert them into `events` with their outbox entries, and send them to Kafka.

The caller gets its answer after the insert. Sending is best effort: the relay sends an event again as long as it has an
outbox entry. Application code uses the same path as the function `publish`:

    async with open_publisher(Settings()) as publisher:
        published = await publisher.publish_event(
            "order.created", {"total": 3}, source="/shop", id="order-7-created-py", aggregate_id="order-7"
        )
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Any
from uuid import UUID

from twofold.cloudevents.decode_http import IncomingEvent
from twofold.cloudevents.encode import check_attributes_size
from twofold.errors import Conflict, Forbidden, Rejected, TooLarge, TwofoldError, UnknownReplay, unexpected
from twofold.event.data import NO_DATA, payload_of
from twofold.event.identity import new_id
from twofold.event.model import Event
from twofold.event.payload import check_containers
from twofold.event.reserved import is_reserved
from twofold.event.sealed import check_not_sealed
from twofold.event.time import check_not_future
from twofold.kafka.diagnosis import check_kafka
from twofold.kafka.sender import Sender
from twofold.mongo.client import open_database
from twofold.mongo.insert import InsertResult, compare_digests
from twofold.observability.metrics import ACCEPTED, DUPLICATES, REJECTED
from twofold.observability.telemetry import SILENT, Telemetry
from twofold.settings import PublishSettings
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.write.batch import Batch, PreparedEvent, Published, ReplayedEvent
from twofold.write.decoding import in_decoding_thread
from twofold.write.group_commit import GroupCommit
from twofold.write.order import PublicationOrder

CLOSE_S = 5.0
"""The seconds that closing waits for Kafka. The relay sends the rest."""


class Publisher:
    """Publishes events into `events`, and through Kafka into `event_store`. Use one publisher in an event loop."""

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
        self._max_future = timedelta(seconds=settings.max_future_s)
        self.clock = clock
        self._order = PublicationOrder()
        self._telemetry = telemetry
        self._commit: GroupCommit[PreparedEvent, InsertResult] = GroupCommit(
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
        payload: Any = NO_DATA,
        *,
        source: str,
        id: UUID | str | None = None,  # noqa: A002 - CloudEvents' name
        time: datetime | None = None,
        aggregate_id: str | None = None,
        extensions: dict[str, str] | None = None,
        **metadata: str,
    ) -> Published:
        """Publish a new event from its parts. `metadata` takes the other fields of `Metadata`.

        `payload` is any JSON value, or text or bytes for a `data_content_type` that is not JSON. Give an `id` if the
        call may be repeated: a call without an `id` makes a new event. As over HTTP, any text is an `id`, and `source`
        and `id` together name the event. `time` needs a time zone. Without a `time`, the event gets the time of this
        call.

        Returns when a majority of MongoDB's members has the event. Raises `Invalid`, `TooLarge`, `Conflict`,
        `Unavailable`, or `Forbidden` for an event in the name of the cluster. After `Unavailable` the event may or may
        not be stored. A repeated call with the same id is safe.
        """
        event = Event.of(
            id=new_id(self.clock()) if id is None else str(id),
            event_type=event_type,
            timestamp=time or self.clock(),
            aggregate_id=aggregate_id,
            metadata={
                **metadata,
                "service_name": source,
                "time_assigned": time is None,
                "original_time": time.isoformat() if time and time.microsecond % 1000 else None,
                "extensions": extensions or {},
            },
            payload=payload_of(payload, metadata.get("data_content_type")),
        )
        return await self.publish_base_event(event)

    async def publish_base_event(self, event: Event) -> Published:
        """Publish an existing `Event`, with a new `order`. Returns and raises as `publish_event` does."""
        if is_reserved(event.metadata.service_name, event.event_type):
            raise Forbidden("only Twofold's own functions publish an event of the cluster: use another type", "type")
        # The copy has a new digest: the application may have changed the payload.
        return await self._publish_one(event.model_copy())

    async def _publish_one(self, event: Event) -> Published:
        (outcome,) = await self.publish([IncomingEvent.of(event)])
        if isinstance(outcome, TwofoldError):
            raise outcome
        return outcome

    async def yield_to_pending_write(self) -> None:
        """Await it before decoding a request: see `GroupCommit.yield_to_pending_write`."""
        await self._commit.yield_to_pending_write()

    async def publish(
        self, events: Iterable[IncomingEvent | TwofoldError], *, costly: bool = False
    ) -> list[Published | TwofoldError]:
        """Publish events together, and return their results in the same order.

        An error among `events` is its own result. The events of an iterator are encoded one by one and then released,
        except with tracing. `costly` events are encoded outside of the event loop: see `decoding.py`. Raises
        `Unavailable` when no event is known to be stored.
        """
        publish = partial(self._publish, costly=costly)
        if self._telemetry.tracing is not None:
            if costly:
                events = await in_decoding_thread(partial(list, events))
            return await self._telemetry.tracing.publishing(events, publish)
        return await publish(events)

    async def _publish(
        self, events: Iterable[IncomingEvent | TwofoldError], *, costly: bool
    ) -> list[Published | TwofoldError]:
        batch = await in_decoding_thread(partial(self._encode, events)) if costly else self._encode(events)
        outcomes = batch.outcomes
        if batch.replayed:
            await self._compare_replayed(batch)
        if batch.prepared:
            results = await self._commit.submit(list(batch.prepared.values()))
            for (position, new), result in zip(batch.prepared.items(), results, strict=True):
                outcomes[position] = self._outcome(new, result)
        return [outcome for outcome in outcomes if outcome is not None]

    def _encode(self, events: Iterable[IncomingEvent | TwofoldError]) -> Batch:
        """Encode the events one by one. An error is the outcome of its event alone."""
        batch = Batch([], {}, {})
        for event in events:
            outcome: TwofoldError | None = None
            if isinstance(event, TwofoldError):
                outcome = self.count_rejection(event)
            elif event.replay_id is not None:
                encoded = event.encoded
                batch.replayed[len(batch.outcomes)] = ReplayedEvent(encoded.event_id, encoded.given_id, encoded.digest)
            else:
                new = self._prepare(event)
                if isinstance(new, TwofoldError):
                    outcome = self.count_rejection(new)
                else:
                    batch.prepared[len(batch.outcomes)] = new
            batch.outcomes.append(outcome)
        return batch

    async def publish_observed(self, events: Sequence[Event]) -> int:
        """Publish observations of facts. The first observation of a fact wins, and a later observation is ignored.

        A fact that is in `events` or in the log already is not published again. Returns the number of new facts, when a
        majority of MongoDB's members has them. Raises `Unavailable` if a fact is not known to be stored. Raises the
        error of an invalid fact after the valid facts are stored.
        """
        ids = [event.event_id for event in events]
        known = await self._event_store.known(ids) | await self._events.known(ids)
        new = (IncomingEvent.of(event) for event in events if event.event_id not in known)
        outcomes = await self.publish(new)
        # A conflict is a different observation, stored in between.
        refused = [error for error in outcomes if isinstance(error, TwofoldError) and not isinstance(error, Conflict)]
        if refused:
            raise next((error for error in refused if error.retriable), refused[0])
        return sum(isinstance(outcome, Published) and outcome.status == "accepted" for outcome in outcomes)

    def count_rejection(self, error: TwofoldError) -> TwofoldError:
        """Count an error that rejects an event or a whole request, and return the error."""
        if isinstance(error, Rejected):
            self._telemetry.record(REJECTED, 1, {"error.type": error.title})
        return error

    def _prepare(self, event: IncomingEvent) -> PreparedEvent | TwofoldError:
        """Encode before the group commit, so an event with an error harms no other event."""
        try:
            return self._prepared(event)
        except TwofoldError as error:
            return error
        except Exception as error:  # noqa: BLE001 - it must harm no other event
            return unexpected(error, "the encoding of an event")

    def _prepared(self, event: IncomingEvent) -> PreparedEvent:
        now = self.clock()
        encoded = event.encoded.within(event.traceparent)
        encoded.set_order(self._order.next(now))
        record = encoded.record(event.traceparent)
        record_size = record.size
        if record_size > self._max_record_bytes:
            raise TooLarge(f"the event needs {record_size} bytes in Kafka: the limit is {self._max_record_bytes}")
        check_attributes_size(record.headers, has_exact=not encoded.is_plain)
        check_not_sealed(encoded.document.get("payload"), record.value)
        if encoded.data.kind == b"json":
            check_containers(record.value)  # an escaped bracket of the request is a bracket of the record
        check_not_future(encoded.document["timestamp"], now, self._max_future)
        document = EventRepository.encode(encoded.document, now)
        size = len(document.raw) + record_size
        return PreparedEvent(encoded.event_id, encoded.given_id, encoded.digest, document, record, size)

    async def _write(self, events: list[PreparedEvent]) -> Sequence[InsertResult]:
        with self._telemetry.committing("events", len(events)):
            results = await self._events.insert(events)
        self._telemetry.record(ACCEPTED, results.count("new"))
        self._sender.offer([event.record for event, result in zip(events, results, strict=True) if result == "new"])
        return results

    async def _compare_replayed(self, batch: Batch) -> None:
        """Compare replayed events with the stored events, and write nothing. An unknown event is rejected.

        All ids of the batch are looked up in `events` with one find, and the rest in the log with another.
        """
        ids = {event.event_id for event in batch.replayed.values()}
        known = await self._events.known(list(ids))
        if missing := ids - known.keys():
            known |= await self._event_store.known(list(missing))
        for position, event in batch.replayed.items():
            stored = known.get(event.event_id)
            batch.outcomes[position] = (
                self.count_rejection(UnknownReplay("no event has the id of this replayed event", "replayid"))
                if stored is None
                else self._outcome(event, compare_digests(stored, event.digest))
            )

    def _outcome(self, event: ReplayedEvent | PreparedEvent, result: InsertResult) -> Published | TwofoldError:
        if isinstance(result, TwofoldError):
            return self.count_rejection(result)
        if result == "duplicate":
            self._telemetry.record(DUPLICATES, 1, {"db.collection.name": "events"})
        return Published(event.event_id, event.given_id, "accepted" if result == "new" else "duplicate")

    async def close(self) -> None:
        """Finish the accepted events, wait up to `CLOSE_S` for Kafka, and leave the rest to the relay."""
        await self._commit.close()
        await self.flush()
        await asyncio.to_thread(self._sender.close, 0)

    async def flush(self) -> None:
        """Wait up to `CLOSE_S` until Kafka has acknowledged the records in the queue."""
        await asyncio.to_thread(self._sender.flush, CLOSE_S)


@asynccontextmanager
async def open_publisher(
    settings: PublishSettings, application: str = "application", telemetry: Telemetry = SILENT
) -> AsyncIterator[Publisher]:
    """Open a publisher with its own connections. Call it after the fork.

    Raises `InvalidSettings` for a wrong `MONGODB_URI`, and for wrong settings of Kafka. An address of Kafka is
    required, as in the function `publish`: without Kafka, every event would wait for the relay.
    """
    check_kafka(settings)
    sender = Sender(settings)
    async with open_database(settings, application) as database:
        publisher = Publisher(EventRepository(database), EventStore(database), sender, settings, telemetry=telemetry)
        try:
            yield publisher
        finally:
            await publisher.close()
