"""Events on their way through KafkaSource, and their exact comparison."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from httptools import HttpRequestParser

from dev.kafka_source.event import SourceName, to_event
from dev.kafka_source.http import Destination
from tests.helpers import Raw
from twofold.cloudevents.encode import KafkaRecord
from twofold.event.model import Event

SINK = Destination("http://store.local/", "local", 1.0)


@dataclass
class FakeRecord:
    """A record in the form that the KafkaSource stand-in gets from Kafka."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    topic: str = "twofold.events"
    partition: int = 3
    offset: int = 2**40
    timestamp: int = 0


class Request:
    """A request, read by uvicorn's parser."""

    def __init__(self, request: bytes) -> None:
        self.headers: Raw = []
        self.body = b""
        self.complete = False
        HttpRequestParser(self).feed_data(request)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def through_kafka_source(record: KafkaRecord) -> tuple[Raw, bytes]:
    """Return the request that `store` gets, by the rules of the real source."""
    consumed = FakeRecord(record.key, record.value, [*record.headers])
    request = Request(SINK.request(to_event(consumed, SourceName("local", "store"))))
    assert request.complete
    return request.headers, request.body


def raw(headers: Mapping[str, str]) -> Raw:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def text(payload: object) -> str:
    """Return sorted JSON. It distinguishes -0.0 from 0.0 and 1 from 1.0."""
    return json.dumps(payload, sort_keys=True)


def same(first: Event, second: Event) -> bool:
    """Return True for equal events with equal types of numbers and signs of zeros, which `==` ignores."""
    return first == second and text(first.payload) == text(second.payload) and first.digest == second.digest
