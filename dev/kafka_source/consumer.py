"""One consumer of the group: it fetches records, hands them over, and commits. It has a thread: kafka-python blocks."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import KafkaError, KafkaTimeoutError

from dev.kafka_source.delivery import Deliverer, Delivery, Lane
from dev.kafka_source.event import SourceEvent, SourceName, has_null_header, to_event
from dev.kafka_source.rules import OffsetTracker, RecordRate
from dev.kafka_source.tracing import TraceMemory

log = logging.getLogger(__name__)

# kafka-python 3.0.12 can forget a partition that is paused after a poll took half of a fetch: the second half waits for
# ever. So every poll takes the whole fetch, and the fetches are small: the limit is the limit of the data plane.
_MAX_POLL_RECORDS = 1_000_000
_MAX_PARTITION_FETCH_BYTES = 65_536
_POLL_MS = 100
_POLL_PAUSED_MS = 10
_REQUEST_MS = 2000
_LOG_CHECK_S = 1.0
_REJOIN_DELAY_S = 0.5
_BACKLOG_PER_REQUEST = 10

Ordering = Literal["ordered", "unordered"]
RATES = {"ordered": 250.0, "unordered": 1650.0}
"""Records a second of one consumer of the real data plane with its shipped ConfigMap."""
InitialOffset = Literal["earliest", "latest"]


@dataclass(frozen=True)
class SourceSettings:
    """The topic, the group, the timings and the concurrency of a KafkaSource."""

    bootstrap_servers: str
    topic: str
    group: str
    source: SourceName
    initial_offset: InitialOffset
    session_timeout_ms: int = 6000
    commit_every: float = 5.0
    ordering: Ordering = "ordered"
    consumers: int = 1
    """The number of dispatcher pods: each pod has one consumer, whatever `spec.consumers` says."""
    max_poll_records: int = 50
    """A consumer without order has up to twice as many requests under way, less one."""
    rate: float = 0.0
    """Records a second of one consumer; 0 is no limit."""


class SourceConsumer(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # it has no types
    """A member of the group, with one lane in total, or with one lane for a partition in order.

    `run` blocks a thread until the process ends, and the lanes run on the event loop. The member survives failures of
    the broker, its log and its group.
    """

    def __init__(self, settings: SourceSettings, deliverer: Deliverer) -> None:
        self.in_group = asyncio.Event()
        self.has_partitions = asyncio.Event()
        self._settings = settings
        self._deliverer = deliverer
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[TopicPartition | None, Lane] = {}
        self._stopping = threading.Event()
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._consumer: Any = None
        self._newly_assigned = False
        self._traces = TraceMemory()
        self._rate = RecordRate(settings.rate)

    async def close(self, grace: float) -> None:
        """Take no more records, and wait `grace` seconds for the requests under way."""
        self._stopping.set()
        await asyncio.gather(*(lane.close(grace) for lane in self._lanes.values()))

    def run(self) -> None:
        """Consume, and join again after a failure of the client. Only the end of the process ends this."""
        while True:
            try:
                self._consumer = self._join()
                try:
                    self._consume()
                finally:
                    self._consumer.close(autocommit=False, timeout_ms=_REQUEST_MS)
            except (KafkaError, OSError) as error:
                log.warning("the consumer failed: %r", error)
                time.sleep(_REJOIN_DELAY_S)
            self._forget(list(self._trackers))

    def _join(self) -> Any:
        """Subscribe. The source never creates its topic, as the real source never does."""
        consumer = KafkaConsumer(
            bootstrap_servers=self._settings.bootstrap_servers,
            group_id=self._settings.group,
            auto_offset_reset=self._settings.initial_offset,
            enable_auto_commit=False,
            isolation_level="read_committed",
            session_timeout_ms=self._settings.session_timeout_ms,
            heartbeat_interval_ms=self._settings.session_timeout_ms // 4,
            max_poll_records=_MAX_POLL_RECORDS,
            max_partition_fetch_bytes=_MAX_PARTITION_FETCH_BYTES,
            reconnect_backoff_max_ms=500,
            metadata_max_age_ms=1000,  # so a new topic is seen within a second
            allow_auto_create_topics=False,
            bootstrap_timeout_ms=_REQUEST_MS,
        )
        consumer.subscribe([self._settings.topic], listener=self)
        return consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Commit the finished offsets and forget the partitions. kafka-python calls this inside `poll` and `close`."""
        offsets = self._to_commit(revoked)
        try:
            if offsets:
                await self._consumer.commit_async(offsets)
        except KafkaError as error:
            log.warning("commit on revoke failed: %r", error)
        self._forget(revoked)

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Forget the partitions: the group, or the whole broker, no longer knows this consumer."""
        log.warning("lost the group's %s", sorted(lost))
        self._forget(lost)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Look the positions up after this poll."""
        log.info("assigned %s", sorted(assigned))
        self._newly_assigned = True

    def _consume(self) -> None:
        # Metadata that arrive while kafka-python 3.0.12 joins can leave the member without partitions for ever.
        self._consumer.partitions_for_topic(self._settings.topic)
        next_commit = time.monotonic() + self._settings.commit_every
        next_check = time.monotonic() + _LOG_CHECK_S
        while True:
            self._pause_and_resume()
            timeout = _POLL_PAUSED_MS if self._consumer.paused() else _POLL_MS
            for partition, records in self._consumer.poll(timeout).items():
                self._take(partition, records)
            if self._newly_assigned:
                self._report_assignment()
            now = time.monotonic()
            if now >= next_check:
                self._restart_shorter_logs()
                next_check = now + _LOG_CHECK_S
            if now >= next_commit and not self._stopping.is_set():
                self._commit()
                next_commit = now + self._settings.commit_every

    def _pause_and_resume(self) -> None:
        assigned = self._consumer.assignment()
        wanted = set() if self._stopping.is_set() else set(filter(self._has_room, assigned))
        paused = self._consumer.paused()
        self._consumer.pause(*(assigned - wanted - paused))
        self._consumer.resume(*(paused & wanted))

    def _take(self, partition: TopicPartition, records: list[Any]) -> None:
        """Hand over the events of a partition's records. One null header loses the whole batch."""
        if self._stopping.is_set():
            return  # the records were never committed, so they come again
        tracker = self._trackers.setdefault(partition, OffsetTracker(records[0].offset))
        if any(map(has_null_header, records)):
            first, last = records[0].offset, records[-1].offset
            log.error("LOST a batch with a null header: %s offsets %d to %d", partition, first, last)
            deliveries = [Delivery(tracker, record.offset, None) for record in records]
        else:
            deliveries = [Delivery(tracker, record.offset, self._event(record)) for record in records]
        self._loop.call_soon_threadsafe(self._put, self._key(partition), deliveries)

    def _event(self, record: Any) -> SourceEvent:
        return replace(to_event(record, self._settings.source), trace=self._traces.of(record.headers))

    def _key(self, partition: TopicPartition) -> TopicPartition | None:
        return partition if self._settings.ordering == "ordered" else None

    def _has_room(self, partition: TopicPartition) -> bool:
        lane = self._lanes.get(self._key(partition))
        return lane is None or lane.backlog < self._settings.max_poll_records * _BACKLOG_PER_REQUEST

    def _put(self, key: TopicPartition | None, deliveries: list[Delivery]) -> None:
        """Queue the deliveries. This method runs on the event loop."""
        if key not in self._lanes:
            self._lanes[key] = Lane(self._deliverer, 1 if key else self._settings.max_poll_records, self._rate)
        self._lanes[key].put(deliveries)

    def _report_assignment(self) -> None:
        """Find the positions, so that later records lie behind `latest`. After a failure the next poll tries again."""
        assigned = self._consumer.assignment()
        try:
            for partition in assigned:
                self._consumer.position(partition, timeout_ms=_REQUEST_MS)
        except KafkaError as error:
            log.info("no positions yet: %r", error)
            return
        self._newly_assigned = False
        self._loop.call_soon_threadsafe(self.in_group.set)
        if assigned:
            self._loop.call_soon_threadsafe(self.has_partitions.set)

    def _restart_shorter_logs(self) -> None:
        """Start again in a partition whose log ends before our position: the topic was deleted and created again.

        Apache Kafka answers such a fetch with OFFSET_OUT_OF_RANGE, and kafka-python resets the position. Tansu sends
        empty answers for ever, and its ListOffsets misses the end, but its fetches carry the high watermark.
        """
        shorter = [tp for tp in self._consumer.assignment() if self._is_shorter(tp)]
        if shorter:
            log.warning("the log is shorter than what was read of it, starting again: %s", shorter)
            self._forget(shorter)
            earliest = self._settings.initial_offset == "earliest"
            (self._consumer.seek_to_beginning if earliest else self._consumer.seek_to_end)(*shorter)

    def _is_shorter(self, partition: TopicPartition) -> bool:
        end = self._consumer.highwater(partition)
        if end is None:
            return False
        try:
            return bool(end < self._consumer.position(partition, timeout_ms=_POLL_MS))
        except KafkaTimeoutError:
            return False  # the position is not known yet

    def _commit(self) -> None:
        offsets = self._to_commit(self._trackers)
        try:
            if offsets:
                self._consumer.commit(offsets, timeout_ms=_REQUEST_MS)
        except KafkaError as error:
            log.warning("commit failed: %r", error)
            return
        for partition, committed in offsets.items():
            if partition in self._trackers:
                self._trackers[partition].committed(committed.offset)

    def _to_commit(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        ends = {tp: self._trackers[tp].to_commit() for tp in partitions if tp in self._trackers}
        return {tp: OffsetAndMetadata(end, "", -1) for tp, end in ends.items() if end is not None}

    def _forget(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            tracker = self._trackers.pop(partition, None)
            if tracker is not None:
                tracker.revoked = True
