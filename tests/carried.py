"""Events on their way: what KafkaSource makes of a record, and when two of them are the same."""

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
    """A record as the KafkaSource stand-in gets it from Kafka."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    topic: str = "twofold.events"
    partition: int = 3
    offset: int = 2**40
    timestamp: int = 0


class Request:
    """A request as uvicorn's parser reads it."""

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
    """The request that reaches `store`, by the rules of the real source."""
    consumed = FakeRecord(record.key, record.value, [*record.headers])
    request = Request(SINK.request(to_event(consumed, SourceName("local", "store"))))
    assert request.complete
    return request.headers, request.body


def raw(headers: Mapping[str, str]) -> Raw:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def text(payload: object) -> str:
    """JSON, which tells -0.0 from 0.0 and 1 from 1.0, without the order of names."""
    return json.dumps(payload, sort_keys=True)


def same(one: Event, other: Event) -> bool:
    """Equal to the kinds of numbers and the signs of zeros, which `==` does not see."""
    return one == other and text(one.payload) == text(other.payload) and one.digest == other.digest
