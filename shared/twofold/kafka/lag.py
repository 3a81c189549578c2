"""The backlog of the consumer group of `store`: its lag, and the time of its oldest record.

The relay uses the backlog to wait with events that the consumer group may still reach.
"""

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zlib import crc32

from twofold.errors import Unavailable
from twofold.kafka.client import ANSWER_S, BOOTSTRAP_S, client_module, connection_config
from twofold.kafka.diagnosis import ConnectionErrors, diagnose
from twofold.settings import KafkaSettings

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition


@dataclass(frozen=True, slots=True)
class Backlog:
    """The records that the consumer group has not committed."""

    lag: dict[int, int]
    """The number of records by partition, for every partition of the topic."""
    waiting_since: dict[int, datetime]
    """The timestamp of the oldest record by partition, by its producer's clock. An empty partition is absent."""

    def may_hold(self, key: bytes, sent_at: datetime) -> bool:
        """Return True if the backlog can hold a record with this key and time.

        The partition is the CRC-32 of the key: librdkafka's partitioner `consistent`.
        """
        since = self.waiting_since.get(crc32(key) % len(self.lag)) if self.lag else None
        return since is not None and sent_at >= since


def read_backlog(settings: KafkaSettings) -> Backlog:
    """Read the backlog of the consumer group. Blocks. Raises `Unavailable` when Kafka is unavailable."""
    kafka, reported = client_module(), ConnectionErrors()
    config = {
        **connection_config(settings),
        "group.id": settings.kafka_consumer_group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 100,
        "queued.min.messages": 1,
        "queued.max.messages.kbytes": 4096,
        "error_cb": reported,
    }
    try:
        with contextlib.closing(kafka.Consumer(config)) as consumer:
            topics = _topics(consumer, settings.kafka_topic)
            partitions = [
                kafka.TopicPartition(settings.kafka_topic, number) for number in topics[settings.kafka_topic].partitions
            ]
            return _read_partitions(consumer, consumer.committed(partitions, timeout=ANSWER_S))
    except kafka.KafkaException as error:
        why = diagnose(reported.cause_of(error.args[0]), settings)
        group = settings.kafka_consumer_group
        raise Unavailable(f"the backlog of the consumer group {group} is unknown. {why}") from error


def _topics(consumer: "Consumer", topic: str) -> Any:
    """Return the metadata of the topic. After an error, librdkafka reports the cause before the error is raised."""
    try:
        return consumer.list_topics(topic, timeout=BOOTSTRAP_S).topics
    except client_module().KafkaException:
        consumer.poll(0)
        raise


def _read_partitions(consumer: "Consumer", committed: "Sequence[TopicPartition]") -> Backlog:
    """Fetch the next record of every partition. The fetch brings the partition's high watermark too.

    ListOffsets would be simpler, but Tansu answers it with the first offset of the last batch. Raises `KafkaException`
    after `ANSWER_S`.
    """
    kafka = client_module()
    lag: dict[int, int] = {}
    waiting_since: dict[int, datetime] = {}
    waiting = {partition.partition: partition for partition in committed}
    for partition in committed:
        partition.offset = max(partition.offset, 0)  # a negative offset: the group has not committed yet
    consumer.assign(list(committed))
    until = time.monotonic() + ANSWER_S
    while waiting:
        if time.monotonic() > until:
            raise kafka.KafkaException(kafka.KafkaError(kafka.KafkaError.REQUEST_TIMED_OUT))
        message: Any = consumer.poll(0.2)
        if message is None:
            _restart_lost_partitions(consumer, waiting.values())
        elif message.partition() in waiting:
            error = message.error()
            if error is not None and error.code() != kafka.KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                raise kafka.KafkaException(error)
            partition = waiting.pop(message.partition())
            lag[partition.partition] = _end(consumer, partition) - message.offset()
            if error is None:
                waiting_since[partition.partition] = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
            consumer.pause([partition])
    return Backlog(dict(sorted(lag.items())), waiting_since)


def _restart_lost_partitions(consumer: "Consumer", waiting: "Iterable[TopicPartition]") -> None:
    """Read from the start when a partition ends below its committed offset: it was lost. Tansu reports no error."""
    for partition in waiting:
        if 0 <= _end(consumer, partition) < partition.offset:
            partition.offset = 0
            consumer.seek(partition)


def _end(consumer: "Consumer", partition: "TopicPartition") -> int:
    """Return the high watermark of the last fetch. It is negative before the first fetch."""
    end: int = consumer.get_watermark_offsets(partition, cached=True)[1]
    return end
