"""Encoded events: MongoDB documents, Kafka records and HTTP requests (CloudEvents 1.0, binary mode). Pure."""

from collections.abc import Collection, Mapping, Sized
from contextlib import suppress
from typing import Any, NamedTuple, Self
from urllib.parse import quote
from uuid import UUID

from twofold.cloudevents.exact import apply_exact, record_attributes
from twofold.errors import Invalid, Rejected
from twofold.event.attribute import MAX_ATTRIBUTE_BYTES
from twofold.event.data import EncodedData
from twofold.event.digest import KAFKA_SOURCE_ATTRIBUTES
from twofold.event.media_type import JSON, parse_content_type
from twofold.event.metadata import DIGEST_ATTRIBUTE, METADATA_OF_ATTRIBUTE, RESERVED_ATTRIBUTES, TIME_ASSIGNED_ATTRIBUTE
from twofold.event.model import Event
from twofold.event.order import ORDER_ATTRIBUTE
from twofold.event.time import format_time

MAX_ATTRIBUTES_BYTES = 32 * 1024
"""The largest size of an event's attributes together, Twofold's own included.

The bound is below the limits of the HTTP servers on the way to `store`. Only `publish` checks it. The hops to `store`
add some 200 bytes, so a check in `store` would reject events that `publish` accepted.
"""

MAX_ATTRIBUTES = 64
"""The most attributes of an event, with `HOP_HEADERS`.

Every attribute becomes a header on the way to `store` and to the dead-letter sink. Envoy, in Knative's gateway, answers
431 to a request with more than 100 headers (`max_headers_count`). The rest is for the headers of the connection, the
proxies and the trace.
"""

HOP_HEADERS = KAFKA_SOURCE_ATTRIBUTES | RESERVED_ATTRIBUTES | {"datacontenttype", "time", "traceparent"}
"""The attributes that Twofold and the hops can add to an event. They count, whether the event has them or not."""

MAX_OTHER_ATTRIBUTES = MAX_ATTRIBUTES - len(HOP_HEADERS)
"""The most attributes of an event besides `HOP_HEADERS`: `id`, `type`, `source` and `specversion` are four of them."""

_ALWAYS_FIT = min(MAX_ATTRIBUTES_BYTES // (MAX_ATTRIBUTE_BYTES + len("ce_") + 40), MAX_OTHER_ATTRIBUTES)
"""The number of attributes that fit in any case, because an attribute has its own bound."""

_COUNTED_APART = frozenset(spelled for name in HOP_HEADERS for spelled in (name, f"ce_{name}")) | {"content-type"}


_UNQUOTED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""The characters that the HTTP binding does not percent-encode."""


class KafkaRecord(NamedTuple):
    """A Kafka record, without topic and partition."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]

    @property
    def size(self) -> int:
        """An upper bound of its bytes in a batch: a length takes up to 5 bytes, and the record up to 64 more."""
        size = 64 + len(self.key) + len(self.value) + 10 * len(self.headers)
        for name, value in self.headers:
            size += len(name) + len(value)
        return size


class EncodedEvent(NamedTuple):
    """An event in the forms for writing: MongoDB's document, and the parts of CloudEvents' bindings."""

    document: dict[str, Any]
    """See `Event.to_document`."""
    attributes: dict[str, str]
    """See `attributes_of`."""
    data: EncodedData
    """See `Event.data`."""
    is_plain: bool = False
    """True if every value is known to travel through KafkaSource unchanged."""

    @classmethod
    def of(cls, event: Event) -> Self:
        """Return the forms of `event`."""
        return cls(event.to_document(), attributes_of(event), event.data)

    @property
    def event_id(self) -> UUID:
        """The event's identity."""
        event_id: UUID = self.document["_id"]
        return event_id

    @property
    def given_id(self) -> str:
        """CloudEvents' `id`."""
        return self.attributes["id"]

    @property
    def digest(self) -> bytes:
        """The event's digest."""
        digest: bytes = self.document["digest"]
        return digest

    def within(self, traceparent: str | None) -> Self:
        """Return the event with `traceparent` in its metadata, unless it has its own. The digest leaves it out."""
        if traceparent is None or "traceparent" in self.attributes:
            return self
        metadata = self.document["metadata"] | {"traceparent": traceparent}
        attributes = self.attributes | {"traceparent": traceparent}
        return self._replace(document=self.document | {"metadata": metadata}, attributes=attributes)

    def set_order(self, order: int) -> None:
        """Set the order of publication in this event's document and attributes, in place of an earlier order."""
        self.document["order"] = order
        self.attributes[ORDER_ATTRIBUTE] = str(order)

    def record(self, traceparent: str | None = None) -> KafkaRecord:
        """Return the record of the event (CloudEvents Kafka binding, binary mode). KafkaSource carries it unchanged.

        The key is the aggregate's id, so the events of an aggregate stay in one partition. Without an aggregate, the
        key is the event's `id`. `traceparent` is the trace of the hop, in W3C's own header: KafkaSource continues it.
        """
        content_type = self.document["metadata"].get("data_content_type")
        attributes, header = self.attributes, content_type or JSON
        if not self.is_plain:
            time, is_json = format_time(self.document["timestamp"]), self.data.kind != b"bytes"
            attributes, header = record_attributes(attributes, time, content_type, is_json=is_json)
        headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
        headers.append(("content-type", header.encode()))
        if traceparent is not None:
            headers.append(("traceparent", traceparent.encode()))
        key = self.document["aggregate_id"] or self.given_id
        return KafkaRecord(key.encode(), self.data.data, headers)


def attributes_of(event: Event) -> dict[str, str]:
    """Return the attributes of `event` with Twofold's own, but without `datacontenttype`: bindings put it elsewhere.

    `encode_fast` makes the same attributes without an `Event`.
    """
    metadata = event.metadata_fields
    attributes = {"specversion": "1.0", "id": event.id, "type": event.event_type}
    attributes["time"] = event.metadata.original_time or event.time
    if event.event_version != "1.0":
        attributes["eventversion"] = event.event_version
    if event.aggregate_id is not None:
        attributes["subject"] = event.aggregate_id
    attributes.update({name: metadata[field] for name, field in METADATA_OF_ATTRIBUTE.items() if field in metadata})
    if "extensions" in metadata:
        attributes.update(metadata["extensions"])
    attributes.pop("datacontenttype", None)
    if "time_assigned" in metadata:
        attributes[TIME_ASSIGNED_ATTRIBUTE] = "true"
    attributes[DIGEST_ATTRIBUTE] = event.digest.hex()
    if event.order is not None:
        attributes[ORDER_ATTRIBUTE] = str(event.order)
    return attributes


def redrive_record(dead_letter: Mapping[str, Any]) -> KafkaRecord:
    """Return the record that brings the original of a dead letter to `store` again, with the dead letter's id.

    KafkaSource reads a header of a record as UTF-8, and writes it into its request as Latin-1. The dead letter has the
    bytes of the request. So the record gets their characters in UTF-8, and the next request has the same bytes again.
    """
    headers = {
        header["name"].replace("ce-", "ce_", 1): header["value"].decode("latin-1").encode()
        for header in dead_letter["headers"]
    }
    for name in (*KAFKA_SOURCE_ATTRIBUTES, "redriveof"):
        headers.pop(f"ce_{name}", None)
    key = _redrive_key(headers)
    return KafkaRecord(key, dead_letter["body"], [*headers.items(), ("ce_redriveof", str(dead_letter["_id"]).encode())])


def _redrive_key(headers: Mapping[str, bytes]) -> bytes:
    """Return the key that the first record had. A header that KafkaSource changed has its value in `twofoldexact`."""
    known = {name: headers.get(f"ce_{name}", b"").decode() for name in ("subject", "id")}
    if exact := headers.get("ce_twofoldexact"):
        with suppress(Rejected):  # a record of another program
            apply_exact(known, exact.decode())
    return (known["subject"] or known["id"]).encode()


def encode_kafka(event: Event) -> KafkaRecord:
    """Return the record of `event`. See `EncodedEvent.record`."""
    return EncodedEvent.of(event).record()


def encode_http(event: Event) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a producer's request with `event` (CloudEvents HTTP binding, binary mode).

    Raises `Invalid` for data with the content type of a CloudEvent: only the structured mode can carry it.
    """
    attributes = attributes_of(event)
    for name in RESERVED_ATTRIBUTES & attributes.keys():
        del attributes[name]
    if event.metadata.time_assigned:
        del attributes["time"]
    given_type = event.metadata.data_content_type
    if given_type and parse_content_type(given_type).is_cloud_event:
        raise Invalid(f"data of type {given_type} needs the structured mode", "datacontenttype")
    content_type = given_type or (None if event.data.kind == b"bytes" else JSON)
    headers = {f"ce-{name}": quote(value, safe=_UNQUOTED) for name, value in attributes.items()}
    return headers | ({"content-type": content_type} if content_type else {}), event.data.data


def check_attributes_number(names: Collection[str]) -> None:
    """Check the number of an event's attributes, or of its record's headers. Raises `Invalid` beyond `MAX_ATTRIBUTES`.

    The check needs only the names, so it stands before any work for each attribute.
    """
    if len(names) <= MAX_OTHER_ATTRIBUTES:
        return
    number = len(names) - sum(name in _COUNTED_APART for name in names)
    if number > MAX_OTHER_ATTRIBUTES:
        raise Invalid(
            f"{number} attributes, besides those that Twofold adds: at most {MAX_OTHER_ATTRIBUTES} are allowed. Put "
            "values into the data"
        )


def check_attributes_size(attributes: Collection[tuple[str, Sized]], *, has_exact: bool = False) -> None:
    """Check the attributes of an event together. Raises `Invalid` beyond `MAX_ATTRIBUTES_BYTES` or `MAX_ATTRIBUTES`.

    `has_exact`: they can have `twofoldexact`, the attribute without a bound of its own.
    """
    if len(attributes) <= _ALWAYS_FIT and not has_exact:
        return
    check_attributes_number([name for name, _ in attributes])
    size = sum(len(name) + len(value) for name, value in attributes)
    if size > MAX_ATTRIBUTES_BYTES:
        raise Invalid(
            f"the attributes together have {size} bytes: at most {MAX_ATTRIBUTES_BYTES} are allowed. A value with "
            "characters beyond ASCII counts twice"
        )
