"""Kafka: the only importer of confluent-kafka. A bounded sender behind the replies, and the topic's settings.

Kafka is transport, not storage: whatever is not sent, or sent and lost, keeps its mark in `events`, and the relay sends
it again. So the sender may drop a record at any time, and must never block, grow or need a restart.
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
from twofold.settings import SendSettings

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer


logger = logging.getLogger(__name__)


Outcome = TwofoldError | None


_SAID_AGAIN_S = 60.0
"""How long Kafka takes no records before that is said once more."""


def new_producer(settings: SendSettings, failed: "Callable[[KafkaError], None]") -> "Producer":
    """A bounded producer with acks from all in-sync replicas. `failed` is told of what is no record's own fault.

    One request at a time to each broker keeps the order. Not by idempotence: that saves doubles, which `store` drops
    anyway, by a state in the broker; and one that lost it can fence the producer for good (seen with Tansu). Raises
    `KafkaException` for settings that can't be.
    """
    producer: Producer = client_module().Producer(
        {
            **connection_config(settings),
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

    def __init__(self, settings: SendSettings) -> None:
        self._settings = settings
        self._producer: Producer | None = None
        self._said_at = -math.inf

    def offer(self, records: Sequence[KafkaRecord]) -> int:
        """Hand over as many of `records` as there is room for, and return their number at once."""
        self._serve()
        for taken, record in enumerate(records):
            if isinstance(self._hand_over(record, self._not_delivered), Unavailable):
                return taken
        return len(records)

    async def send(self, records: Sequence[KafkaRecord]) -> list[Outcome]:
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

    def _hand_over(self, record: KafkaRecord, failed: "Callable[[KafkaError | None, Message], None]") -> Outcome:
        """Queue `record`, or say why not; `failed` hears if one that is queued comes to nothing."""
        errors = client_module().KafkaException
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
        kafka_error = client_module().KafkaError
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
