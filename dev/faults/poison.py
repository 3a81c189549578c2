"""Poison: records in the topic that are no events of ours, or forged ones. Each carries a marker of its own."""

import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from uuid import UUID

from kafka import KafkaProducer
from kafka.errors import KafkaError

from dev.faults.producer import Sent, new_event, received_of, sent_of
from twofold.cloudevents.encode import KafkaRecord, encode_kafka

PLAIN_HEADER = "marker"
ATTRIBUTE_HEADER = "ce_marker"
MARKERS = {b"ce-kafkaheadermarker", b"ce-marker"}
"""As which headers the marker arrives at `store`, from a plain record and from a CloudEvent."""

_ACKNOWLEDGED_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that `store` must refuse."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass
class Sendings:
    """What became of each poison record, by its marker. Each was appended at most once."""

    acknowledged: set[str] = field(default_factory=set)
    unacknowledged: set[str] = field(default_factory=set)
    """Kafka did not answer: it may be in the topic or not."""
    gone: set[str] = field(default_factory=set)
    """In the topic when the broker lost its log, and not known to be kept: nobody may ever have seen it."""


def record_of(sent: Sent) -> KafkaRecord:
    """The record that `publish` makes of an event."""
    return encode_kafka(received_of(sent.event).event)


def conflicting(sent: Sent, marker: str) -> Poison:
    """A sound record with the id of an event that is in the log: a conflict, digest and all."""
    forged = sent_of({**sent.event, "marker": marker, "data": {**sent.event["data"], "forged": True}})
    record = record_of(forged)
    return Poison(record.key, record.value, tuple(record.headers))


def altered(sent: Sent, marker: str) -> Poison:
    """An event's own record, but somebody changed what is in it."""
    record = record_of(sent)
    headers = (*record.headers, (ATTRIBUTE_HEADER, marker.encode()))
    return Poison(record.key, record.value.replace(b'"n":', b'"m":'), headers)


def foreign(marker: str) -> Poison:
    """A CloudEvent that somebody sent past `publish`: it has no digest."""
    headers = {
        "specversion": "1.0",
        "id": marker,
        "source": "/foreign",
        "type": "com.example.foreign",
        "marker": marker,
    }
    attributes = tuple((f"ce_{name}", value.encode()) for name, value in headers.items())
    return Poison(b"key", b'{"foreign":true}', (*attributes, ("content-type", b"application/json")))


def plain(value: bytes | None, marker: str, key: bytes | None = None) -> Poison:
    """No CloudEvent at all."""
    return Poison(key, value, ((PLAIN_HEADER, marker.encode()),))


def without_data(value: bytes | None, marker: str) -> Poison:
    """A CloudEvent with a digest, and with no data, or none that is an object."""
    base = foreign(marker)
    return replace(
        base, value=value, headers=(*base.headers, ("ce_digest", b"null"), ("ce_time", b"2026-01-01T00:00:00Z"))
    )


def nameless(marker: str) -> Poison:
    """A CloudEvent whose id is there and empty."""
    base = foreign(marker)
    return replace(base, headers=tuple((name, b"" if name == "ce_id" else value) for name, value in base.headers))


def stranger(marker: str) -> Poison:
    """An altered record of an event that was never published: its digest alone tells."""
    return altered(sent_of(new_event("stranger", -1, random.Random(marker))), marker)


SHAPES: Mapping[str, Callable[[str], Poison]] = {
    "foreign": foreign,
    "nameless": nameless,
    "stranger": stranger,
    "bytes": lambda marker: plain(b"\x00\xff\xfe not text at all \x80", marker),
    "half": lambda marker: plain(b"{", marker, b"key"),
    "null": lambda marker: plain(b"null", marker),
    "empty": lambda marker: plain(b"", marker),
    "tombstone": lambda marker: plain(None, marker, b"tombstone"),
    "large": lambda marker: plain(b"x" * 200_000, marker),
    "null data": lambda marker: without_data(b"null", marker),
    "no data": lambda marker: without_data(None, marker),
    "a list": lambda marker: without_data(b"[[[[[[[[[[1]]]]]]]]]]", marker),
    "a name twice": lambda marker: without_data(b'{"a":1,"a":2}', marker),
}


class Poisoner:
    """Sends poison now and then, from a thread of its own, until told to end.

    `in_log` picks an event that is in `event_store`, to forge; None if there is none yet. `kept` says which markers are
    among the dead letters. While `lock` is held, nothing is sent.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        topic: str,
        seed: int,
        every_s: float,
        in_log: Callable[[random.Random], Sent | None],
        kept: Callable[[], set[str]],
    ) -> None:
        self.sendings = Sendings()
        self.lock = threading.Lock()
        self._bootstrap = bootstrap
        self._topic = topic
        self._random = random.Random(seed)
        self._every_s = every_s
        self._in_log = in_log
        self._kept = kept
        self._ending = threading.Event()
        self._producer: KafkaProducer | None = None
        self._thread = threading.Thread(target=self._main, name="poisoner", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Send nothing more."""
        self._ending.set()
        self._thread.join()

    def log_lost(self) -> None:
        """Note that the broker lost its log, with whatever was in it. Call it with the lock held."""
        self.sendings.gone |= (self.sendings.acknowledged | self.sendings.unacknowledged) - self._kept()

    def _main(self) -> None:
        while not self._ending.wait(self._random.uniform(0, 2 * self._every_s)):
            with self.lock:
                self._send(str(UUID(int=self._random.getrandbits(128), version=4)))
        self._retire()

    def _send(self, marker: str) -> None:
        poison = self._poison(marker)
        self.sendings.unacknowledged.add(marker)
        try:
            self._producer = self._producer or self._new_producer()
            future = self._producer.send(self._topic, poison.value, poison.key, list(poison.headers))
            future.get(_ACKNOWLEDGED_WITHIN_S)
        except (KafkaError, OSError):
            self._retire()
            return
        self.sendings.unacknowledged.discard(marker)
        self.sendings.acknowledged.add(marker)

    def _poison(self, marker: str) -> Poison:
        kind = self._random.random()
        victim = self._in_log(self._random) if kind < 0.5 else None
        if victim is None:
            return self._random.choice(list(SHAPES.values()))(marker)
        return altered(victim, marker) if kind < 0.25 else conflicting(victim, marker)

    def _new_producer(self) -> KafkaProducer:
        """Without retries, so that a record is appended once or not at all."""
        return KafkaProducer(
            bootstrap_servers=self._bootstrap,
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
            with suppress(Exception):  # it is broken, and thrown away
                producer.close(timeout=1)
