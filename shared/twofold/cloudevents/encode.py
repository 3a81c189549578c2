"""CloudEvents 1.0: an event's attributes, and the way out as a Kafka record or an HTTP request in binary mode. Pure."""

from collections.abc import Collection, Mapping, Sized
from typing import Any, NamedTuple, Self
from urllib.parse import quote
from uuid import UUID

from twofold.errors import Invalid
from twofold.event.attribute import MAX_ATTRIBUTE_CHARS
from twofold.event.metadata import HOP_ATTRIBUTES, METADATA_OF_ATTRIBUTE
from twofold.event.model import Event

MAX_ATTRIBUTES_BYTES = 32 * 1024
"""All attributes of an event together, Twofold's own included: below what the HTTP servers on the way to `store` take.

Nobody but `publish` measures: what is added on the way, some 200 bytes, would make `store` refuse what was accepted.
"""


_ALWAYS_FIT = MAX_ATTRIBUTES_BYTES // (MAX_ATTRIBUTE_CHARS + len("ce_") + 40)
"""So many of them are never too much, each at its longest."""


RESERVED_ATTRIBUTES = {"digest", "timeassigned", "replayid", "redriveof"}
"""Twofold's own: only its own events carry them."""


class KafkaRecord(NamedTuple):
    """A Kafka record: what is sent, without topic and partition."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]

    @property
    def size(self) -> int:
        """An upper bound of its bytes in a batch: with up to 5 bytes for each length, and 64 for the record."""
        size = 64 + len(self.key) + len(self.value) + 10 * len(self.headers)
        for name, value in self.headers:
            size += len(name) + len(value)
        return size


class EncodedEvent(NamedTuple):
    """An event in the forms in which it is written: MongoDB's, and what CloudEvents' bindings are made of."""

    document: dict[str, Any]
    """See `Event.to_document`."""
    attributes: dict[str, str]
    """See `attributes_of`."""
    payload_json: bytes
    """See `Event.payload_json`."""

    @classmethod
    def of(cls, event: Event) -> Self:
        """The forms of `event`."""
        return cls(event.to_document(), attributes_of(event), event.payload_json)

    @property
    def event_id(self) -> UUID:
        """The event's identity."""
        event_id: UUID = self.document["_id"]
        return event_id

    @property
    def given_id(self) -> str:
        """See `Event.given_id`."""
        return self.attributes["id"]

    @property
    def digest(self) -> bytes:
        """The event's digest."""
        digest: bytes = self.document["digest"]
        return digest

    def within(self, traceparent: str | None) -> Self:
        """The same as a part of that trace, unless it says itself of which; its digest does not say."""
        if traceparent is None or "traceparent" in self.attributes:
            return self
        metadata = self.document["metadata"] | {"traceparent": traceparent}
        attributes = self.attributes | {"traceparent": traceparent}
        return self._replace(document=self.document | {"metadata": metadata}, attributes=attributes)

    def record(self, traceparent: str | None = None) -> KafkaRecord:
        """The record of the event (CloudEvents Kafka binding, binary mode), which KafkaSource can carry unchanged.

        Its key is the aggregate's id, so that one aggregate stays in one partition. `traceparent` is the hop's, in
        W3C's own header: KafkaSource's spans continue it.
        """
        headers = [(f"ce_{name}", value.encode()) for name, value in self.attributes.items()]
        headers.append(("content-type", _content_type(self.document).encode()))
        if traceparent is not None:
            headers.append(("traceparent", traceparent.encode()))
        key = self.document["aggregate_id"] or str(self.event_id)
        return KafkaRecord(key.encode(), self.payload_json, headers)


def attributes_of(event: Event) -> dict[str, str]:
    """All attributes of `event`, Twofold's own included, but `datacontenttype`, which each binding puts elsewhere.

    `receiving` makes the same of what is surely sound without an Event.
    """
    metadata = event.metadata_fields
    attributes = {"specversion": "1.0", "id": event.given_id, "type": event.event_type, "time": event.time}
    if event.event_version != "1.0":
        attributes["eventversion"] = event.event_version
    if event.aggregate_id is not None:
        attributes["subject"] = event.aggregate_id
    attributes.update({name: metadata[field] for name, field in METADATA_OF_ATTRIBUTE.items() if field in metadata})
    if "extensions" in metadata:
        attributes.update(metadata["extensions"])
        attributes.pop("datacontenttype", None)
    if "time_assigned" in metadata:
        attributes["timeassigned"] = "true"
    attributes["digest"] = event.digest.hex()
    return attributes


def redrive_record(letter: Mapping[str, Any]) -> KafkaRecord:
    """The record that brings a dead letter's original to `store` again, with the letter's name on it."""
    headers = {header["name"].replace("ce-", "ce_", 1): header["value"] for header in letter["headers"]}
    for name in HOP_ATTRIBUTES:
        headers.pop(f"ce_{name}", None)
    key = headers.get("ce_subject") or headers.get("ce_id") or b""
    return KafkaRecord(key, letter["body"], [*headers.items(), ("ce_redriveof", str(letter["_id"]).encode())])


def _content_type(document: Mapping[str, Any]) -> str:
    extensions: Mapping[str, str] = document["metadata"].get("extensions", {})
    return extensions.get("datacontenttype", "application/json")


def encode_kafka(event: Event) -> KafkaRecord:
    """The record of `event`: see `Written.record`."""
    return EncodedEvent.of(event).record()


def encode_http(event: Event) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request with `event` (CloudEvents HTTP binding, binary mode) as a producer sends it."""
    attributes = attributes_of(event)
    for name in RESERVED_ATTRIBUTES & attributes.keys():
        del attributes[name]
    if event.metadata.time_assigned:
        del attributes["time"]
    headers = {f"ce-{name}": quote(value, safe=_UNQUOTED) for name, value in attributes.items()}
    return headers | {"content-type": _content_type({"metadata": event.metadata_fields})}, event.payload_json


_UNQUOTED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def check_attributes_size(attributes: Collection[tuple[str, Sized]]) -> None:
    """Raise `Invalid` if all attributes of an event, which are within their own bounds, are too much together."""
    if len(attributes) <= _ALWAYS_FIT:
        return
    together = sum(len(name) + len(value) for name, value in attributes)
    if together > MAX_ATTRIBUTES_BYTES:
        raise Invalid(f"all attributes together are {together} bytes: at most {MAX_ATTRIBUTES_BYTES} are taken")
