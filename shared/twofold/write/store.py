"""`Store`: append the deliveries of a KafkaSource to `event_store`, and keep rejected deliveries as dead letters."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Literal, NamedTuple
from uuid import UUID

from twofold.cloudevents.attributes import RawHeaders
from twofold.cloudevents.decode_kafka import DeliveredEvent, decode_kafka, kafka_coordinates
from twofold.errors import Rejected, TwofoldError, UnknownReplay, unexpected
from twofold.mongo.client import Database, RawDocument
from twofold.mongo.insert import InsertResult, compare_digests
from twofold.observability.metrics import DUPLICATES, STORED
from twofold.observability.telemetry import SILENT, Telemetry
from twofold.settings import StoreSettings
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.event_store import EventStore
from twofold.storage.failed_delivery import DeadLetter, undelivered_reason
from twofold.write.decoding import in_decoding_thread, is_costly
from twofold.write.group_commit import GroupCommit


class _LogDocument(NamedTuple):
    """A document of the log, waiting for the group commit."""

    event_id: UUID
    digest: bytes
    document: RawDocument
    size: int
    """The bytes of the document and of the request body. Both are in memory until the commit."""


async def keep_undelivered(
    dead_letters: DeadLetters, headers: RawHeaders, body: bytes, max_bytes: int | None = None
) -> None:
    """Keep a delivery after its source stopped retrying. `max_bytes`: see `decode_kafka`. Raises `Unavailable`."""
    partition, offset = kafka_coordinates(headers)
    dead_letter = DeadLetter(headers, body, undelivered_reason(headers), partition, offset)
    try:
        decode = partial(decode_kafka, dead_letter.kept_headers, body, max_bytes)
        delivered = await in_decoding_thread(decode) if is_costly(body) else decode()
    except Rejected:
        delivered = None
    await dead_letters.keep(replace(dead_letter, delivered=delivered))


class Store:
    """Appends deliveries to `event_store` in group commits."""

    def __init__(
        self,
        database: Database,
        settings: StoreSettings,
        clock: Callable[[], datetime],
        *,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._event_store = EventStore(database)
        self._dead_letters = DeadLetters(database, telemetry)
        self._telemetry = telemetry
        self._clock = clock
        self._max_bytes = settings.max_message_bytes
        self._commit: GroupCommit[_LogDocument, InsertResult] = GroupCommit(
            self._write,
            max_items=settings.group_commit_events,
            wait_s=settings.group_commit_wait_ms / 1000,
            capacity=settings.group_commit_capacity,
            max_writes=settings.group_commit_writes,
            size_of=attrgetter("size"),
            capacity_bytes=settings.group_commit_capacity_bytes,
        )

    async def take(self, headers: RawHeaders, body: bytes) -> None:
        """Return when the delivery is durable: as a new event, as a duplicate, or as a dead letter.

        After `Unavailable` the delivery may or may not be durable. The source delivers it again.
        """
        if self._telemetry.tracing is not None:
            await self._telemetry.tracing.storing(headers, body, self._take)
        else:
            await self._take(headers, body)

    async def _take(self, headers: RawHeaders, body: bytes) -> str:
        """Return `stored`, `duplicate`, or the reason of the dead letter."""
        await self._commit.yield_to_pending_write()
        delivered: DeliveredEvent | None = None
        try:
            decode = partial(decode_kafka, headers, body, self._max_bytes)
            delivered = await in_decoding_thread(decode) if is_costly(body) else decode()
            result = await self._append(delivered, len(body))
            if delivered.redrive_of is not None:
                await self._dead_letters.finish_redrive(headers, body, delivered)
        except Rejected as reason:
            partition, offset = kafka_coordinates(headers)
            await self._dead_letters.keep(DeadLetter(headers, body, reason, partition, offset, delivered))
            return reason.title
        return result

    async def _append(self, delivered: DeliveredEvent, body_bytes: int) -> Literal["stored", "duplicate"]:
        """Append the event to the log, or compare a replayed event with the log. Raises the error of the event."""
        if delivered.replay_id is not None:
            stored = (await self._event_store.known([delivered.event_id])).get(delivered.event_id)
            if stored is None:
                raise UnknownReplay("the log has no event with the id of this replayed event", "replayid")
            result: InsertResult = compare_digests(stored, delivered.digest)
        else:
            document = _encode(delivered, self._clock())
            size = len(document.raw) + body_bytes
            (result,) = await self._commit.submit([_LogDocument(delivered.event_id, delivered.digest, document, size)])
        if isinstance(result, TwofoldError):
            raise result
        if result == "new":
            return "stored"
        self._telemetry.record(DUPLICATES, 1, {"db.collection.name": "event_store"})
        return "duplicate"

    async def _write(self, documents: list[_LogDocument]) -> Sequence[InsertResult]:
        with self._telemetry.committing("event_store", len(documents)):
            results = await self._event_store.append(documents)
        self._telemetry.record(STORED, results.count("new"))
        return results


def _encode(delivered: DeliveredEvent, stored_at: datetime) -> RawDocument:
    """Encode the document of the log. Raises `Rejected`, so a delivery with an unexpected error blocks no other."""
    try:
        return EventStore.encode(delivered, stored_at)
    except TwofoldError:
        raise
    except Exception as error:  # noqa: BLE001 - the same delivery would raise it again for ever
        raise unexpected(error, "the encoding of a delivery") from None
