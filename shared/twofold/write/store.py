"""The way into the log: what `store` does with what KafkaSource delivers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

from twofold.cloudevents.attributes import RawHeaders
from twofold.cloudevents.decode_kafka import DeliveredEvent, decode_kafka, kafka_coordinates
from twofold.errors import Rejected, TwofoldError, UnknownReplay
from twofold.mongo.client import Database, RawDocument
from twofold.mongo.insert import InsertResult, compare_digests
from twofold.observability.metrics import DUPLICATES, STORED
from twofold.observability.telemetry import SILENT, Telemetry
from twofold.settings import GroupCommitSettings
from twofold.storage.dead_letters import DeadLetter, DeadLetters, undelivered_reason
from twofold.storage.event_store import EventStore
from twofold.write.group_commit import GroupCommit


class _Entry(NamedTuple):
    event_id: UUID
    digest: bytes
    document: RawDocument
    body_bytes: int
    """Of the request, which waits with it."""


async def keep_undelivered(dead_letters: DeadLetters, headers: RawHeaders, body: bytes) -> None:
    """Keep what a source gave up on, as it was before the source said why. Raises `Unavailable`."""
    partition, offset = kafka_coordinates(headers)
    letter = DeadLetter(headers, body, undelivered_reason(headers), partition, offset)
    try:
        received = decode_kafka(letter.kept_headers, body)
    except Rejected:
        received = None
    await dead_letters.keep(replace(letter, received=received))


class Store:
    """Takes deliveries into `event_store`, many at once; what can't be taken is kept in `dead_letters`."""

    def __init__(
        self,
        database: Database,
        settings: GroupCommitSettings,
        clock: Callable[[], datetime],
        *,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._event_store = EventStore(database)
        self._dead_letters = DeadLetters(database, telemetry)
        self._telemetry = telemetry
        self._clock = clock
        self._commit: GroupCommit[_Entry, InsertResult] = GroupCommit(
            self._write,
            max_items=settings.group_commit_events,
            wait_s=settings.group_commit_wait_ms / 1000,
            capacity=settings.group_commit_capacity,
            max_writes=settings.group_commit_writes,
            size_of=lambda entry: len(entry.document.raw) + entry.body_bytes,
            capacity_bytes=settings.group_commit_capacity_bytes,
        )

    async def take(self, headers: RawHeaders, body: bytes) -> None:
        """Return once the delivery is durable: in the log, there already, or among the dead letters.

        Raises `Unavailable` when it is not known to be durable: deliver it again.
        """
        if self._telemetry.tracing is not None:
            await self._telemetry.tracing.storing(headers, body, self._take)
        else:
            await self._take(headers, body)

    async def _take(self, headers: RawHeaders, body: bytes) -> str:
        """What became of it: `stored`, `duplicate`, or why it is a dead letter."""
        await self._commit.yield_to_pending_write()
        received: DeliveredEvent | None = None
        try:
            received = decode_kafka(headers, body)
            became = await self._append(received, len(body))
            if received.redrive_of is not None:
                await self._dead_letters.stored(headers, body, received)
        except Rejected as reason:
            partition, offset = kafka_coordinates(headers)
            await self._dead_letters.keep(DeadLetter(headers, body, reason, partition, offset, received))
            return reason.title
        return became

    async def _append(self, delivered: DeliveredEvent, body_bytes: int) -> Literal["stored", "duplicate"]:
        """Append the event to the log, or check a replayed event against it. Raises the event's error."""
        if delivered.replay_id is not None:
            stored = (await self._event_store.known([delivered.event_id])).get(delivered.event_id)
            if stored is None:
                raise UnknownReplay("a replayed event must be known", "replayid")
            result: InsertResult = compare_digests(stored, delivered.digest)
        else:
            document = EventStore.encode(delivered, self._clock())
            entry = _Entry(delivered.event_id, delivered.digest, document, body_bytes)
            (result,) = await self._commit.submit([entry])
        if isinstance(result, TwofoldError):
            raise result
        if result == "new":
            return "stored"
        self._telemetry.record(DUPLICATES, 1, {"db.collection.name": "event_store"})
        return "duplicate"

    async def _write(self, entries: list[_Entry]) -> Sequence[InsertResult]:
        with self._telemetry.committing("event_store", len(entries)):
            results = await self._event_store.append(entries)
        self._telemetry.record(STORED, results.count("new"))
        return results
