"""The sender of poison, and its knowledge of every record."""

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from kafka import KafkaProducer
from kafka.errors import KafkaError

from dev.comparison import SentEvent
from dev.faults.poison import SHAPES, Poison, altered, conflicting
from dev.stack import Stack

_LONGEST_PAUSE_S = 0.6
_ACKNOWLEDGED_WITHIN_S = 15.0


@dataclass
class SentPoison:
    """The poison records by their markers. Kafka appended each record at most once."""

    acknowledged: set[str] = field(default_factory=set)
    unacknowledged: set[str] = field(default_factory=set)
    """Kafka did not answer: a record may be in the topic or not."""
    gone: set[str] = field(default_factory=set)
    """In the topic when the broker lost its log, and not among the dead letters: perhaps no function saw the record."""


class Poisoner:
    """Sends a poison record now and then, from its own thread, until `end`.

    `in_log` picks an event of `event_store` to forge; it returns None while `event_store` is empty. `kept` returns the
    markers of the dead letters. `forged` has the events with a forged record under their id. While another thread holds
    `lock`, the poisoner sends no record.
    """

    def __init__(
        self, stack: Stack, seed: int, in_log: Callable[[random.Random], SentEvent | None], kept: Callable[[], set[str]]
    ) -> None:
        self.sent = SentPoison()
        self.lock = threading.Lock()
        self.forged: set[UUID] = set()
        self._stack = stack
        self._random = random.Random(seed)
        self._in_log = in_log
        self._kept = kept
        self._ending = threading.Event()
        self._producer: KafkaProducer | None = None
        self._thread = threading.Thread(target=self._main, name="poisoner", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def end(self) -> None:
        """Send no more records."""
        self._ending.set()
        self._thread.join()

    def log_lost(self) -> None:
        """Note that the broker lost its log. The caller holds the lock."""
        self.sent.gone |= (self.sent.acknowledged | self.sent.unacknowledged) - self._kept()

    def _main(self) -> None:
        while not self._ending.wait(self._random.uniform(0, _LONGEST_PAUSE_S)):
            with self.lock:
                self._send(str(UUID(int=self._random.getrandbits(128), version=4)))
        self._retire()

    def _send(self, marker: str) -> None:
        poison = self._poison(marker)
        self.sent.unacknowledged.add(marker)
        try:
            self._producer = self._producer or self._new_producer()
            future = self._producer.send(self._stack.topic, poison.value, poison.key, list(poison.headers))
            future.get(_ACKNOWLEDGED_WITHIN_S)
        except (KafkaError, OSError):
            self._retire()
            return
        self.sent.unacknowledged.discard(marker)
        self.sent.acknowledged.add(marker)

    def _poison(self, marker: str) -> Poison:
        choice = self._random.random()
        victim = self._in_log(self._random) if choice < 0.5 else None
        if victim is None:
            return self._random.choice(list(SHAPES.values()))(marker)
        if choice < 0.25:
            return altered(victim, marker)
        self.forged.add(victim.event_id)
        return conflicting(victim, marker)

    def _new_producer(self) -> KafkaProducer:
        """Open a producer without retries, so that Kafka appends a record at most once."""
        return KafkaProducer(
            bootstrap_servers=self._stack.kafka,
            acks="all",
            retries=0,
            enable_idempotence=False,
            allow_auto_create_topics=False,
            bootstrap_timeout_ms=2000,
            max_block_ms=3000,
        )

    def _retire(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(Exception):  # a broken producer may fail to close
                producer.close(timeout=1)
