"""Poison: records in the topic that are foreign to Twofold, or forged. Each record has its own marker. Pure."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dev.comparison import SentEvent, read_by_publish
from dev.load.events import EventJson, new_order
from twofold.cloudevents.encode import encode_kafka

PLAIN_HEADER = "marker"
ATTRIBUTE_HEADER = "ce_marker"
MARKERS = {b"ce-kafkaheadermarker", b"ce-marker"}
"""The headers of the marker at `store`, from a plain record and from a CloudEvent."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A record to be refused by `store`."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    def with_headers(self, *more: tuple[str, bytes]) -> "Poison":
        """Add headers."""
        return replace(self, headers=(*self.headers, *more))


def _published(event: EventJson) -> Poison:
    """Return the record that `publish` makes of an event."""
    record = encode_kafka(read_by_publish(event).model_copy(update={"order": 0}))
    return Poison(record.key, record.value, tuple(record.headers))


def conflicting(sent: SentEvent, marker: str) -> Poison:
    """Return a valid record with the id of an event in `event_store`, and with another content and digest."""
    return _published({**sent.event, "marker": marker, "data": {**sent.event["data"], "forged": True}})


def altered(sent: SentEvent, marker: str) -> Poison:
    """Return the record of an event with a change in its payload."""
    record = _published(sent.event).with_headers((ATTRIBUTE_HEADER, marker.encode()))
    return replace(record, value=(record.value or b"").replace(b'"n":', b'"m":'))


def foreign(marker: str, **changed: str) -> Poison:
    """Return a CloudEvent without a digest, as if an application had bypassed `publish`."""
    required = {"specversion": "1.0", "id": marker, "source": "/foreign", "type": "com.example.foreign"}
    attributes = tuple((f"ce_{name}", value.encode()) for name, value in (required | changed).items())
    content_type = ("content-type", b"application/json")
    return Poison(b"key", b'{"foreign":true}', (*attributes, (ATTRIBUTE_HEADER, marker.encode()), content_type))


def plain(value: bytes | None, marker: str, key: bytes | None = None) -> Poison:
    """Return a record that is not a CloudEvent."""
    return Poison(key, value, ((PLAIN_HEADER, marker.encode()),))


def without_data(value: bytes | None, marker: str) -> Poison:
    """Return a CloudEvent with a digest whose data is missing or is not an object."""
    record = foreign(marker).with_headers(("ce_twofolddigest", b"null"), ("ce_time", b"2026-01-01T00:00:00Z"))
    return replace(record, value=value)


def stranger(marker: str) -> Poison:
    """Return the altered record of an event that was never published: only its digest shows the change."""
    return altered(SentEvent.of(new_order("stranger", -1, random.Random(marker))), marker)


SHAPES: Mapping[str, Callable[[str], Poison]] = {
    "foreign": foreign,
    "nameless": lambda marker: foreign(marker, id=""),
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
