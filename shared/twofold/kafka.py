"""Kafka: the only importer of confluent-kafka. A bounded sender behind the replies, and the topic's settings.

Kafka is transport, not storage: whatever is not sent, or sent and lost, keeps its mark in `events`, and the relay sends
it again. So the sender may drop a record at any time, and must never block, grow or need a restart.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient

from twofold.cloudevents import Record
from twofold.errors import TooLarge, TwofoldError, Unavailable
from twofold.settings import Settings

logger = logging.getLogger(__name__)

Outcome = TwofoldError | None

_ANSWER_S = 10.0
"""How long Kafka may take for one question."""
_BOOTSTRAP_S = 5.0
"""How long it may take until there is a broker to ask."""
_SAID_AGAIN_S = 60.0
"""How long Kafka takes no records before that is said once more."""


@cache
def _client() -> Any:
    """confluent-kafka, imported when it is first used: `cold_start_ratio` feels it."""
    import confluent_kafka  # noqa: PLC0415
    import confluent_kafka.admin  # noqa: PLC0415

    return confluent_kafka


def _connection(settings: Settings) -> dict[str, Any]:
    """What each client is told. librdkafka says much about a broker that is away: its callers say it once."""
    password = settings.kafka_sasl_password
    given = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": "twofold",
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": password.get_secret_value() if password else None,
        "ssl.ca.location": settings.kafka_ssl_cafile,
        "socket.timeout.ms": round(_ANSWER_S * 1000),
        "socket.connection.setup.timeout.ms": round(_BOOTSTRAP_S * 1000),
        "reconnect.backoff.max.ms": 1000,
        "log_level": 2,
    }
    return {name: value for name, value in given.items() if value is not None}


def new_producer(settings: Settings, failed: "Callable[[KafkaError], None]") -> "Producer":
    """A bounded producer with acks from all in-sync replicas. `failed` is told of what is no record's own fault.

    One request at a time to each broker keeps the order. Not by idempotence: that saves doubles, which `store` drops
    anyway, by a state in the broker; and one that lost it can fence the producer for good (seen with Tansu). Raises
    `KafkaException` for settings that can't be.
    """
    producer: Producer = _client().Producer(
        {
            **_connection(settings),
            "acks": "all",
            "max.in.flight.requests.per.connection": 1,
            "partitioner": "consistent",  # the CRC-32 of the key
            "allow.auto.create.topics": False,
            "linger.ms": 5,
            "batch.size": 256 * 1024,
            "message.max.bytes": settings.max_record_bytes + 4096,
            "message.timeout.ms": round(settings.send_timeout_s * 1000),
            "queue.buffering.max.messages": settings.send_capacity,
            "queue.buffering.max.kbytes": -(-settings.send_capacity_bytes // 1024),
            "delivery.report.only.error": True,
            "error_cb": failed,
        }
    )
    return producer


class Sender:
    """Sends records in the background, in the order of their offers.

    librdkafka does it, in threads of its own. They start with the first offer, so a sender may be made before a fork.
    It holds at most `send_capacity` records and `send_capacity_bytes`, and none for longer than `send_timeout_s`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Producer | None = None
        self._said_at = -math.inf

    def offer(self, records: Sequence[Record]) -> int:
        """Hand over as many of `records` as there is room for, and return their number at once."""
        self._serve()
        for taken, record in enumerate(records):
            if isinstance(self._hand_over(record, self._not_delivered), Unavailable):
                return taken
        return len(records)

    async def send(self, records: Sequence[Record]) -> list[Outcome]:
        """Send `records` and wait for each one's outcome: None once Kafka has acknowledged it, or else the error.

        On a sender that nobody else uses meanwhile: otherwise some may be called not acknowledged that are.
        """
        outcomes: list[Outcome] = [None] * len(records)  # only failures are reported, before the queue is empty

        def not_delivered(position: int, error: "KafkaError | None", _: "Message") -> None:
            outcomes[position] = None if error is None else self._outcome(error)

        self._serve()
        first = self._producer
        for position, record in enumerate(records):
            if (refusal := self._hand_over(record, partial(not_delivered, position))) is not None:
                outcomes[position] = refusal
            first = first or self._producer
        if await asyncio.to_thread(self.flush, self._settings.send_timeout_s + 1) and self._producer is first:
            return outcomes
        return [outcome or Unavailable("Kafka did not acknowledge in time") for outcome in outcomes]

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is held, at most `timeout_s`; whether that came to be."""
        producer = self._producer
        return producer is None or producer.flush(timeout_s) == 0

    def close(self, timeout_s: float) -> None:
        """Flush for at most `timeout_s`, then let go of what is left: its marks remain. Offer nothing afterwards."""
        self.flush(timeout_s)
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()

    def _serve(self) -> None:
        """Take in what became of the records before: failures are reported, and all make room."""
        if self._producer is not None:
            self._producer.poll(0)

    def _hand_over(self, record: Record, failed: "Callable[[KafkaError | None, Message], None]") -> Outcome:
        """Queue `record`, or say why not; `failed` hears if one that is queued comes to nothing."""
        errors = _client().KafkaException
        try:
            if self._producer is None:
                self._producer = new_producer(self._settings, self._failed)
            self._producer.produce(
                self._settings.kafka_topic, record.value, record.key, headers=[*record.headers], on_delivery=failed
            )
        except BufferError:
            return Unavailable("too many records are waiting for Kafka")
        except errors as error:
            return self._outcome(error.args[0])
        return None

    def _outcome(self, error: "KafkaError") -> TwofoldError:
        """Why a record was not sent: by its own fault, or by what passes."""
        kafka_error = _client().KafkaError
        if error.code() in (kafka_error.MSG_SIZE_TOO_LARGE, kafka_error.RECORD_LIST_TOO_LARGE):
            return TooLarge(f"Kafka refuses the record: {error.str()}")
        self._failed(error)
        return Unavailable(f"Kafka did not acknowledge: {error.name()}")

    def _failed(self, error: "KafkaError") -> None:
        """Say that Kafka does not take records, now and then."""
        now = time.monotonic()
        if now - self._said_at >= _SAID_AGAIN_S:
            self._said_at = now
            logger.warning("what Kafka does not take is left to the relay: %s", error)

    def _not_delivered(self, error: "KafkaError | None", _: "Message") -> None:
        if error is not None:
            self._failed(error)


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


def consumer_backlog(settings: Settings) -> Backlog:
    """The backlog of the group that feeds `store`. Blocks. Raises `Unavailable` when Kafka is away."""
    kafka = _client()
    config = {
        **_connection(settings),
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
            topics = consumer.list_topics(settings.kafka_topic, timeout=_BOOTSTRAP_S).topics
            partitions = [
                kafka.TopicPartition(settings.kafka_topic, each) for each in topics[settings.kafka_topic].partitions
            ]
            return _backlog(consumer, consumer.committed(partitions, timeout=_ANSWER_S))
    except kafka.KafkaException as error:
        what = error.args[0].name()
        raise Unavailable(f"Kafka did not say what the consumer group has before it: {what}") from error


def _backlog(consumer: "Consumer", committed: "Sequence[TopicPartition]") -> Backlog:
    """Read the next record of each partition, and the high watermark that a fetch brings with it.

    Not by ListOffsets: Tansu answers that with the last batch's first offset. Raises `KafkaException` after 10 s.
    """
    kafka = _client()
    lag: dict[int, int] = {}
    times: list[int] = []
    waiting = {place.partition: place for place in committed}
    for place in committed:
        place.offset = max(place.offset, 0)  # negative: none is committed
    consumer.assign(list(committed))
    until = time.monotonic() + _ANSWER_S
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


def ensure_topic(settings: Settings) -> None:
    """Make the topic, or bring its partitions (never fewer) and settings to what they should be. Blocks.

    Raises `Unavailable` when Kafka is away.
    """
    config = {
        "max.message.bytes": str(settings.max_message_bytes),
        "retention.ms": str(round(settings.setup_topic_retention_days * 86_400_000)),
        "cleanup.policy": "delete",
        "min.insync.replicas": str(settings.setup_topic_min_insync_replicas),
    }
    name, partitions = settings.kafka_topic, settings.setup_topic_partitions
    kafka = _client()
    admin = kafka.admin.AdminClient(_connection(settings))
    try:
        new = kafka.admin.NewTopic(name, partitions, settings.setup_topic_replication, config=config)
        if not _created(admin, new):
            set_ = partial(kafka.admin.ConfigEntry, incremental_operation=kafka.admin.AlterConfigOpType.SET)
            entries = [set_(setting, value) for setting, value in config.items()]
            changed = kafka.admin.ConfigResource(kafka.admin.ResourceType.TOPIC, name, incremental_configs=entries)
            _wait(admin.incremental_alter_configs([changed], request_timeout=_ANSWER_S))
            if len(admin.list_topics(name, timeout=_ANSWER_S).topics[name].partitions) < partitions:
                more = kafka.admin.NewPartitions(name, partitions)
                _wait(admin.create_partitions([more], request_timeout=_ANSWER_S))
    except kafka.KafkaException as error:
        raise Unavailable(f"Kafka did not make the topic {name}: {error}") from error


def _created(admin: "AdminClient", topic: Any) -> bool:
    """Whether the topic was made, and not there before."""
    try:
        _wait(admin.create_topics([topic], request_timeout=_ANSWER_S))
    except _client().KafkaException as error:
        if error.args[0].code() != _client().KafkaError.TOPIC_ALREADY_EXISTS:
            raise
        return False
    return True


def _wait(futures: Mapping[Any, Future[Any]]) -> None:
    for future in futures.values():
        future.result()
