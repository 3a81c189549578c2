"""TODO module."""

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from twofold.errors import Unavailable
from twofold.kafka.client import ANSWER_S, BOOTSTRAP_S, client_module, connection_config
from twofold.settings import KafkaSettings

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the consumer group has not yet committed."""

    lag: dict[int, int]
    """Records by partition."""
    waiting_since: datetime | None
    """The time on the oldest of those records, by its producer's clock; None if there is none."""

    def may_hold(self, sent_at: datetime) -> bool:
        """Whether a record that was sent at `sent_at` can be among them."""
        return self.waiting_since is not None and sent_at >= self.waiting_since


def read_backlog(settings: KafkaSettings) -> Backlog:
    """The backlog of the group that feeds `store`. Blocks. Raises `Unavailable` when Kafka is away."""
    kafka = client_module()
    config = {
        **connection_config(settings),
        "group.id": settings.kafka_consumer_group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 100,
        "queued.min.messages": 1,
        "queued.max.messages.kbytes": 4096,
    }
    try:
        with contextlib.closing(kafka.Consumer(config)) as consumer:
            topics = consumer.list_topics(settings.kafka_topic, timeout=BOOTSTRAP_S).topics
            partitions = [
                kafka.TopicPartition(settings.kafka_topic, each) for each in topics[settings.kafka_topic].partitions
            ]
            return _read_partitions(consumer, consumer.committed(partitions, timeout=ANSWER_S))
    except kafka.KafkaException as error:
        what = error.args[0].name()
        raise Unavailable(f"Kafka did not say what the consumer group has before it: {what}") from error


def _read_partitions(consumer: "Consumer", committed: "Sequence[TopicPartition]") -> Backlog:
    """Read the next record of each partition, and the high watermark that a fetch brings with it.

    Not by ListOffsets: Tansu answers that with the last batch's first offset. Raises `KafkaException` after 10 s.
    """
    kafka = client_module()
    lag: dict[int, int] = {}
    times: list[int] = []
    waiting = {place.partition: place for place in committed}
    for place in committed:
        place.offset = max(place.offset, 0)  # negative: none is committed
    consumer.assign(list(committed))
    until = time.monotonic() + ANSWER_S
    while waiting:
        if time.monotonic() > until:
            raise kafka.KafkaException(kafka.KafkaError(kafka.KafkaError.REQUEST_TIMED_OUT))
        message: Any = consumer.poll(0.2)
        if message is None:
            _begin_lost_logs_anew(consumer, waiting.values())
        elif message.partition() in waiting:
            error = message.error()
            if error is not None and error.code() != kafka.KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                raise kafka.KafkaException(error)
            place = waiting.pop(message.partition())
            lag[place.partition] = _end(consumer, place) - message.offset()
            times += [] if error else [message.timestamp()[1]]
            consumer.pause([place])
    waiting_since = datetime.fromtimestamp(min(times) / 1000, UTC) if times else None
    return Backlog(dict(sorted(lag.items())), waiting_since)


def _begin_lost_logs_anew(consumer: "Consumer", waiting: "Iterable[TopicPartition]") -> None:
    """What was committed of a log that was lost counts for nothing: its group begins anew. Tansu does not say so."""
    for place in waiting:
        if 0 <= _end(consumer, place) < place.offset:
            place.offset = 0
            consumer.seek(place)


def _end(consumer: "Consumer", place: "TopicPartition") -> int:
    """The high watermark that the last fetch brought; negative before the first."""
    end: int = consumer.get_watermark_offsets(place, cached=True)[1]
    return end
