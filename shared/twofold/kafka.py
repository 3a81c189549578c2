"""Kafka: the only importer of kafka-python. A bounded sender behind the replies, and the topic's settings.

Kafka is transport, not storage: whatever is not sent, or sent and lost, keeps its mark in `events`, and the relay sends
it again. So the sender may drop a record at any time, and must never block, grow or need a restart.
"""

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import ConfigResource

from twofold.cloudevents import Record
from twofold.errors import TooLarge, TwofoldError, Unavailable
from twofold.settings import Settings

logger = logging.getLogger(__name__)

Outcome = TwofoldError | None
Done = Callable[[int, Outcome], None]


def _client() -> Any:
    """kafka-python, imported when it is first used, by the thread that uses it: `cold_start_ratio` feels it."""
    import kafka  # noqa: PLC0415
    import kafka.net.compat  # noqa: PLC0415

    return kafka


_BOOTSTRAP_S = 5.0
_DELIVERY_S = 20.0
_REBUILD_WAIT_S = 1.0
_CLOSE_S = 2.0


def _connection(settings: Settings) -> dict[str, Any]:
    password = settings.kafka_sasl_password
    return {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "client_id": "twofold",
        "security_protocol": settings.kafka_security_protocol,
        "sasl_mechanism": settings.kafka_sasl_mechanism,
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": password.get_secret_value() if password else None,
        "ssl_cafile": settings.kafka_ssl_cafile,
        "bootstrap_timeout_ms": round(_BOOTSTRAP_S * 1000),
    }


def new_producer(settings: Settings) -> "KafkaProducer":
    """A producer with acks from all in-sync replicas and idempotence, its waits bounded. Blocks up to 5 s."""
    kafka = _client()
    clients: list[Any] = []

    def client(**config: Any) -> Any:
        clients.append(kafka.net.compat.KafkaNetClient(**config))
        return clients[0]

    try:
        return kafka.KafkaProducer(
            **_connection(settings),
            acks="all",
            allow_auto_create_topics=False,
            linger_ms=5,
            batch_size=256 * 1024,
            max_request_size=settings.max_record_bytes + 4096,
            max_block_ms=round(_BOOTSTRAP_S * 1000),
            request_timeout_ms=10_000,
            delivery_timeout_ms=round(_DELIVERY_S * 1000),
            metadata_max_age_ms=30_000,
            reconnect_backoff_max_ms=1000,
            metrics_enabled=False,  # nobody reads them, and they cost each record
            kafka_client=client,
        )
    except BaseException:
        for left in clients:  # a constructor that fails leaves its client's sockets open
            left.close()
        raise


@dataclass(eq=False, slots=True)
class _Sending:
    """A record that the sender holds until its outcome is known."""

    sender: "Sender"
    record: Record
    position: int
    done: Done | None

    def acknowledged(self, _: object) -> None:
        """Kafka has it."""
        self.sender.settle(self, None)

    def failed(self, error: Exception) -> None:
        """Kafka has not: by the record's own fault, or else the producer is broken."""
        self.sender.not_sent(self, error)


class Sender:
    """Sends records in the background, in the order of their offers, from one thread that starts with the first.

    At most `capacity` records and `capacity_bytes` are held, the unacknowledged included. `build` makes a producer, and
    is called again after each error that isn't a record's own: a kafka-python producer can end in a state that it never
    leaves.
    """

    def __init__(self, topic: str, capacity: int, capacity_bytes: int, build: Callable[[], "KafkaProducer"]) -> None:
        self._topic = topic
        self._capacity = capacity
        self._room_bytes = capacity_bytes
        self._build = build
        self._queue: queue.SimpleQueue[list[_Sending] | None] = queue.SimpleQueue()
        self._held: set[_Sending] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._producer: KafkaProducer | None = None
        self._broken = False

    def offer(self, records: Sequence[Record], done: Done | None = None) -> int:
        """Take as many of `records` as there is room for, and return their number at once.

        `done` is called once for each of those, from another thread: with its position, and None after Kafka's
        acknowledgement or else the error.
        """
        with self._changed:
            records = self._that_fit(records)
            taken = [_Sending(self, record, position, done) for position, record in enumerate(records)]
            self._held.update(taken)
            self._room_bytes -= sum(record.size for record in records)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kafka-sender", daemon=True)
                self._thread.start()
        self._queue.put(taken)
        return len(taken)

    def _that_fit(self, records: Sequence[Record]) -> Sequence[Record]:
        sizes = itertools.accumulate(record.size for record in records)
        fit = sum(size <= self._room_bytes for size in sizes)
        return records[: min(fit, self._capacity - len(self._held))]

    async def send(self, records: Sequence[Record]) -> list[Outcome]:
        """Send `records` and wait for each one's outcome: None once Kafka has acknowledged it, or else the error."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Outcome]] = [loop.create_future() for _ in records]

        def done(position: int, outcome: Outcome) -> None:
            loop.call_soon_threadsafe(futures[position].set_result, outcome)

        for future in futures[self.offer(records, done) :]:
            future.set_result(Unavailable("too many records are waiting for Kafka"))
        return await asyncio.gather(*futures)

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is held, at most `timeout_s`; whether that came to be."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Flush for at most `timeout_s`, then let go of what is left: its marks remain. Offer nothing afterwards."""
        self.flush(timeout_s)
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        failures = (_client().errors.KafkaError, OSError, ValueError)
        while (batch := self._queue.get()) is not None:
            try:
                producer = self._working_producer()
                partitions = len(producer.partitions_for(self._topic))
            except failures as error:
                self._give_up(error)
                continue
            for sending in batch:
                self._send_one(producer, sending, partitions)
        self._retire()

    def _send_one(self, producer: "KafkaProducer", sending: _Sending, partitions: int) -> None:
        if self._broken or sending not in self._held:
            self.settle(sending, Unavailable("Kafka is away"))
            return
        record = sending.record
        partition = crc32(record.key) % partitions  # as librdkafka does; kafka-python's own hash takes longer than this
        try:
            future = producer.send(self._topic, record.value, record.key, record.headers, partition)
        except (_client().errors.KafkaError, ValueError) as error:
            self.not_sent(sending, error)
        else:
            future.add_callback(sending.acknowledged)
            future.add_errback(sending.failed)

    def not_sent(self, sending: _Sending, error: Exception) -> None:
        """Let go of a record that Kafka did not take; unless that is the record's own fault, the producer is broken."""
        errors = _client().errors
        if isinstance(error, (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)):
            self.settle(sending, TooLarge(f"Kafka refuses the record: {error}"))
            return
        self._broken = True
        self.settle(sending, Unavailable(f"Kafka did not acknowledge: {type(error).__name__}"))

    def settle(self, sending: _Sending, outcome: Outcome) -> None:
        """Let go of a record, once, and tell whoever waits for it."""
        with self._changed:
            if sending not in self._held:
                return
            self._held.remove(sending)
            self._room_bytes += sending.record.size
            if not self._held:
                self._changed.notify_all()
        if sending.done is not None:
            sending.done(sending.position, outcome)

    def _working_producer(self) -> "KafkaProducer":
        if self._broken:
            self._give_up(Unavailable("the producer had failed"))
            time.sleep(_REBUILD_WAIT_S)
        if self._producer is None:
            self._producer = self._build()
        return self._producer

    def _give_up(self, error: Exception) -> None:
        """Let go of the producer and of all that is held, so that nothing grows while Kafka is away."""
        logger.warning("Kafka is away, %d records are left to the relay: %r", len(self._held), error)
        with contextlib.suppress(queue.Empty):
            while (batch := self._queue.get_nowait()) is not None:
                pass
            self._queue.put(batch)  # the end of this thread: not to be lost
        for sending in list(self._held):
            self.settle(sending, Unavailable("Kafka is away"))
        self._retire()
        self._broken = False

    def _retire(self) -> None:
        """Close the producer from a thread of its own: `close` can block beyond its time-out, or raise."""
        producer, self._producer = self._producer, None
        if producer is not None:
            closing = threading.Thread(target=_close, args=(producer,), name="kafka-closing", daemon=True)
            closing.start()
            closing.join(_CLOSE_S + 1)


def new_sender(settings: Settings) -> Sender:
    """A sender to the topic; nothing is opened before the first offer, so it may be made before a fork."""
    build = partial(new_producer, settings)
    return Sender(settings.kafka_topic, settings.send_capacity, settings.send_capacity_bytes, build)


def _close(producer: "KafkaProducer") -> None:
    try:
        producer.close(timeout=_CLOSE_S)
    except Exception:  # the producer is being thrown away because it is broken: there is nothing to do but to say so
        logger.warning("a producer did not close as it should", exc_info=True)


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
    try:
        with contextlib.closing(
            kafka.KafkaConsumer(
                **_connection(settings),
                group_id=settings.kafka_consumer_group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=100,
                max_poll_records=1,
                request_timeout_ms=10_000,
                allow_auto_create_topics=False,
            )
        ) as consumer:
            partitions = consumer.partitions_for_topic(settings.kafka_topic) or set()
            return _backlog(consumer, [kafka.TopicPartition(settings.kafka_topic, number) for number in partitions])
    except (kafka.errors.KafkaError, OSError, ValueError) as error:
        raise Unavailable(f"Kafka did not say what the consumer group has before it: {type(error).__name__}") from error


def _backlog(consumer: "KafkaConsumer", partitions: Sequence["TopicPartition"]) -> Backlog:
    """Read the next record of each partition, and the high watermark that a fetch brings with it.

    Not by ListOffsets: Tansu answers that with the last batch's first offset. Raises `KafkaTimeoutError` after 10 s.
    """
    next_ = {partition: consumer.committed(partition) or 0 for partition in partitions}
    consumer.assign(list(partitions))
    for partition, offset in next_.items():
        consumer.seek(partition, offset)
    times: dict[TopicPartition, int] = {}
    until = time.monotonic() + 10
    while not all(partition in times or consumer.highwater(partition) == next_[partition] for partition in partitions):
        if time.monotonic() > until:
            raise _client().errors.KafkaTimeoutError("the partitions could not be read")
        for partition, records in consumer.poll(200).items():
            next_[partition], times[partition] = records[0].offset, records[0].timestamp
            consumer.pause(partition)
        for partition in partitions:
            if (consumer.highwater(partition) or 0) < next_[partition] and consumer.highwater(partition) is not None:
                next_[partition] = 0  # what was committed is of a log that was lost: the group begins anew
                consumer.seek(partition, 0)
    lag = {partition.partition: consumer.highwater(partition) - next_[partition] for partition in partitions}
    oldest = min(times.values(), default=None)
    return Backlog(lag, datetime.fromtimestamp(oldest / 1000, UTC) if oldest is not None else None)


def ensure_topic(settings: Settings) -> None:
    """Make the topic, or bring its partitions (never fewer) and settings to what they should be. Blocks.

    Raises `Unavailable` when Kafka is away.
    """
    config = {
        "max.message.bytes": str(settings.max_record_bytes + 64 * 1024),
        "retention.ms": str(round(settings.setup_topic_retention_days * 86_400_000)),
        "cleanup.policy": "delete",
        "min.insync.replicas": str(settings.setup_topic_min_insync_replicas),
    }
    name, partitions = settings.kafka_topic, settings.setup_topic_partitions
    topic = {"num_partitions": partitions, "replication_factor": settings.setup_topic_replication, "configs": config}
    kafka = _client()
    try:
        admin = kafka.KafkaAdminClient(**_connection(settings), request_timeout_ms=10_000)
        try:
            admin.create_topics({name: topic})
        except kafka.errors.TopicAlreadyExistsError:
            _alter(admin, kafka.admin.ConfigResource("TOPIC", name, configs=config))
            if len(admin.describe_topics([name])[0]["partitions"]) < partitions:
                admin.create_partitions({name: partitions})
        finally:
            admin.close()
    except kafka.errors.KafkaError as error:
        raise Unavailable(f"Kafka did not make the topic {name}: {error}") from error


def _alter(admin: "KafkaAdminClient", topic: "ConfigResource") -> None:
    """Unchecked beforehand, since a broker may not list the settings of a topic that it made by itself (Tansu)."""
    (outcome,) = admin.alter_configs([topic], raise_on_unknown=False)["topic"].values()
    if outcome != "OK":
        raise _client().errors.KafkaError(outcome)
