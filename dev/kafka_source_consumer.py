"""One consumer of the group, in its own thread, since kafka-python blocks. It fetches, hands over, and commits."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import KafkaError, KafkaTimeoutError

from dev.kafka_source_delivery import Delivery
from dev.kafka_source_event import SourceName, has_null_header, to_event
from dev.kafka_source_rules import OffsetTracker

log = logging.getLogger(__name__)

# kafka-python 3.0.12 can forget a partition that is paused while half of a fetch of it was polled: the other half waits
# for ever. So each poll takes all that was fetched, and the fetches are small: the data plane's own limit.
_MAX_POLL_RECORDS = 1_000_000
_MAX_PARTITION_FETCH_BYTES = 65_536
_POLL_MS = 100
_POLL_PAUSED_MS = 10
_REQUEST_MS = 2000
_LOG_CHECK_S = 1.0
_REJOIN_DELAY_S = 0.5


@dataclass(frozen=True)
class Group:
    """What a consumer must know about its topic and group."""

    bootstrap_servers: str
    topic: str
    group: str
    source: SourceName
    initial_offset: str
    session_timeout_ms: int
    commit_every: float


class SourceConsumer(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # it has no types
    """A member of the group. It survives what happens to the broker, its log and its group, and ends at `leave`.

    Called on the thread of `run`: `hand_over` gets records of one partition, by offset; `may_fetch` says whether
    more of a partition is wanted; `on_ready` hears of each assignment when its positions are known.
    """

    def __init__(
        self,
        group: Group,
        hand_over: Callable[[TopicPartition, list[Delivery]], None],
        may_fetch: Callable[[TopicPartition], bool],
        on_ready: Callable[[set[TopicPartition]], None],
    ) -> None:
        self._group = group
        self._hand_over = hand_over
        self._may_fetch = may_fetch
        self._on_ready = on_ready
        self._stopping = threading.Event()
        self._leaving = threading.Event()
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._consumer: Any = None
        self._newly_assigned = False

    def stop_fetching(self) -> None:
        """Fetch nothing more, but stay in the group."""
        self._stopping.set()

    def leave(self) -> None:
        """Commit, leave the group, and end `run`."""
        self._stopping.set()
        self._leaving.set()

    def run(self) -> None:
        """Consume until told to leave; join anew whenever the client fails. This blocks."""
        while not self._leaving.is_set():
            try:
                self._consumer = self._join()
                try:
                    self._consume()
                    self._commit()
                finally:
                    self._consumer.close(autocommit=False, timeout_ms=_REQUEST_MS)
            except (KafkaError, OSError) as error:
                log.warning("the consumer failed: %r", error)
                self._leaving.wait(_REJOIN_DELAY_S)
            self._forget(list(self._trackers))

    def _join(self) -> Any:
        """Subscribe. This makes no topic: somebody else sets up the real source's, and its partitions."""
        consumer = KafkaConsumer(
            bootstrap_servers=self._group.bootstrap_servers,
            group_id=self._group.group,
            auto_offset_reset=self._group.initial_offset,
            enable_auto_commit=False,
            session_timeout_ms=self._group.session_timeout_ms,
            heartbeat_interval_ms=self._group.session_timeout_ms // 4,
            max_poll_records=_MAX_POLL_RECORDS,
            max_partition_fetch_bytes=_MAX_PARTITION_FETCH_BYTES,
            reconnect_backoff_max_ms=500,
            metadata_max_age_ms=1000,  # a topic that came, or came back, is seen within a second
            allow_auto_create_topics=False,
            bootstrap_timeout_ms=_REQUEST_MS,
        )
        consumer.subscribe([self._group.topic], listener=self)
        return consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Commit what may be committed and forget the rest. kafka-python calls this inside `poll` and `close`."""
        offsets = self._to_commit(revoked)
        try:
            if offsets:
                await self._consumer.commit_async(offsets)
        except KafkaError as error:
            log.warning("commit on revoke failed: %r", error)
        self._forget(revoked)

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Forget them: the group, or the whole broker, no longer knows us."""
        log.warning("lost the group's %s", sorted(lost))
        self._forget(lost)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Have the positions looked up after this poll."""
        log.info("assigned %s", sorted(assigned))
        self._newly_assigned = True

    def _consume(self) -> None:
        next_commit = time.monotonic() + self._group.commit_every
        next_check = time.monotonic() + _LOG_CHECK_S
        while not self._leaving.is_set():
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
            if now >= next_commit:
                self._commit()
                next_commit = now + self._group.commit_every

    def _pause_and_resume(self) -> None:
        assigned = self._consumer.assignment()
        wanted = set() if self._stopping.is_set() else {tp for tp in assigned if self._may_fetch(tp)}
        paused = self._consumer.paused()
        self._consumer.pause(*(assigned - wanted - paused))
        self._consumer.resume(*(paused & wanted))

    def _take(self, partition: TopicPartition, records: list[Any]) -> None:
        """Make events of a partition's records and hand them over; one null header loses them all."""
        if self._stopping.is_set():
            return  # never committed, so they come again
        tracker = self._trackers.setdefault(partition, OffsetTracker(records[0].offset))
        if any(map(has_null_header, records)):
            first, last = records[0].offset, records[-1].offset
            log.error("LOST a batch with a null header: %s offsets %d to %d", partition, first, last)
            deliveries = [Delivery(tracker, record.offset, None) for record in records]
        else:
            source = self._group.source
            deliveries = [Delivery(tracker, record.offset, to_event(record, source)) for record in records]
        self._hand_over(partition, deliveries)

    def _report_assignment(self) -> None:
        """Find the positions, so that whatever is sent from now on comes after `latest`; try again later if not."""
        assigned = self._consumer.assignment()
        try:
            for partition in assigned:
                self._consumer.position(partition, timeout_ms=_REQUEST_MS)
        except KafkaError as error:
            log.info("no positions yet: %r", error)
            return
        self._newly_assigned = False
        self._on_ready(assigned)

    def _restart_shorter_logs(self) -> None:
        """Start again where a partition's log ends before our position: it was deleted and made anew.

        Apache Kafka answers such a fetch with OFFSET_OUT_OF_RANGE, and kafka-python then resets by itself. Tansu
        answers with nothing, for ever, and its ListOffsets misses the end; but its fetches tell the high watermark.
        """
        shorter = [tp for tp in self._consumer.assignment() if self._is_shorter(tp)]
        if shorter:
            log.warning("the log is shorter than what was read of it, starting again: %s", shorter)
            self._forget(shorter)
            earliest = self._group.initial_offset == "earliest"
            (self._consumer.seek_to_beginning if earliest else self._consumer.seek_to_end)(*shorter)

    def _is_shorter(self, partition: TopicPartition) -> bool:
        end = self._consumer.highwater(partition)
        if end is None:
            return False
        try:
            return bool(end < self._consumer.position(partition, timeout_ms=_POLL_MS))
        except KafkaTimeoutError:
            return False  # its position is being looked up

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
