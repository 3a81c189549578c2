"""A bounded sender of records, which works after the answers to producers.

Kafka is transport, not storage. If a record is not sent, or is lost later, the event keeps its outbox entry, and the
relay sends it again. So the sender may drop a record at any time. It must never block, grow without bound, or need a
restart.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from twofold.cloudevents.encode import KafkaRecord
from twofold.errors import TooLarge, TwofoldError, Unavailable
from twofold.kafka.client import client_module, connection_config
from twofold.kafka.diagnosis import ConnectionErrors, diagnose
from twofold.settings import SendSettings

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer


logger = logging.getLogger(__name__)

Outcome = TwofoldError | None
"""The error of a record, or `None` after Kafka's acknowledgement."""

_WARN_AGAIN_S = 60.0
"""Minimum seconds between two warnings that Kafka is unavailable."""


def new_producer(settings: SendSettings, failed: "Callable[[KafkaError], None]") -> "Producer":
    """Return a bounded producer that waits for all in-sync replicas. `failed` gets the errors of the connection.

    One request at a time to a broker keeps the order of records. Idempotence would keep the order too. But its state
    lives in the broker, and a broker that lost the state can fence the producer for good (seen with Tansu). Duplicates
    do no harm, because `store` drops them. Raises `KafkaException` for invalid settings.
    """
    producer: Producer = client_module().Producer(
        {
            **connection_config(settings),
            "acks": "all",
            "max.in.flight.requests.per.connection": 1,
            "partitioner": "consistent",  # CRC-32 of the key
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

    The threads of librdkafka start at the first offer, so a sender may be created before a fork. The queue has at most
    `send_capacity` records and `send_capacity_bytes`. A record leaves it after `send_timeout_s` at the latest.
    """

    def __init__(self, settings: SendSettings) -> None:
        self._settings = settings
        self._producer: Producer | None = None
        self._reported = ConnectionErrors()
        self._warned_at = -math.inf

    def offer(self, records: Sequence[KafkaRecord]) -> int:
        """Queue records as long as there is room, and return their number at once."""
        self._poll()
        for queued, record in enumerate(records):
            if isinstance(self._queue(record, self._on_delivery), Unavailable):
                return queued
        return len(records)

    async def send(self, records: Sequence[KafkaRecord]) -> list[Outcome]:
        """Send the records, and return their outcomes in order.

        Do not use the sender elsewhere at the same time: acknowledged records could count as not acknowledged then.
        """
        outcomes: list[Outcome] = [None] * len(records)  # librdkafka reports only failures, before the queue is empty

        def on_delivery(position: int, error: "KafkaError | None", _: "Message") -> None:
            outcomes[position] = None if error is None else self._outcome(error)

        self._poll()
        first = self._producer
        for position, record in enumerate(records):
            if (refusal := self._queue(record, partial(on_delivery, position))) is not None:
                outcomes[position] = refusal
            first = first or self._producer
        if await asyncio.to_thread(self.flush, self._settings.send_timeout_s + 1) and self._producer is first:
            return outcomes
        return [outcome or Unavailable("Kafka did not acknowledge the record in time") for outcome in outcomes]

    def flush(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until the queue is empty. Return True if it is."""
        producer = self._producer
        return producer is None or producer.flush(timeout_s) == 0

    def close(self, timeout_s: float) -> None:
        """Flush for up to `timeout_s`, and drop the rest: its outbox entries remain. Offer no records afterwards."""
        self.flush(timeout_s)
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()

    def _poll(self) -> None:
        """Handle the outcomes of earlier records. This makes room in the queue."""
        if self._producer is not None:
            self._producer.poll(0)

    def _queue(self, record: KafkaRecord, on_delivery: "Callable[[KafkaError | None, Message], None]") -> Outcome:
        """Put the record into the queue, or return the error. `on_delivery` gets a later failure."""
        errors = client_module().KafkaException
        try:
            if self._producer is None:
                self._producer = new_producer(self._settings, self._on_error)
            self._producer.produce(
                self._settings.kafka_topic, record.value, record.key, headers=[*record.headers], on_delivery=on_delivery
            )
        except BufferError:
            return Unavailable("the queue of records for Kafka is full")
        except errors as error:
            return self._outcome(error.args[0])
        return None

    def _outcome(self, error: "KafkaError") -> TwofoldError:
        """Return `TooLarge` for a record that Kafka never accepts, else `Unavailable`."""
        kafka_error = client_module().KafkaError
        if error.code() in (kafka_error.MSG_SIZE_TOO_LARGE, kafka_error.RECORD_LIST_TOO_LARGE):
            return TooLarge(f"Kafka refuses the record: {error.str()}")
        self._failed(error)
        return Unavailable(f"Kafka did not acknowledge the record. {self._diagnosis(error)}")

    def _on_error(self, error: "KafkaError") -> None:
        self._reported(error)
        self._failed(error)

    def _failed(self, error: "KafkaError") -> None:
        """Warn that Kafka is unavailable, at most once in `_WARN_AGAIN_S`."""
        now = time.monotonic()
        if now - self._warned_at >= _WARN_AGAIN_S:
            self._warned_at = now
            logger.warning("Kafka is unavailable, so the relay will send these events. %s", self._diagnosis(error))

    def _diagnosis(self, error: "KafkaError") -> str:
        return diagnose(self._reported.cause_of(error), self._settings)

    def _on_delivery(self, error: "KafkaError | None", _: "Message") -> None:
        if error is not None:
            self._failed(error)
