"""Events in requests of a KafkaSource: the records that Twofold wrote. Pure.

KafkaSource sends a record as an HTTP request in binary mode. It writes header values unchanged. HTTP producers
percent-encode them instead (CloudEvents HTTP binding, 3.1.3.2), so `decode_http` cannot read these requests.

The digest tells if a record is what `publish` wrote. It is no secret: a program with access to the topic can make
records with a correct digest. So an event that does not pass the fast check is checked in full.
"""

import re
from datetime import datetime
from operator import methodcaller
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import from_json

from twofold.cloudevents.attributes import (
    CANONICAL_TIME,
    InternalAttributes,
    RawHeaders,
    content_fields,
    pop_internal_attributes,
    read_headers,
    verified_event,
)
from twofold.cloudevents.json_format import payload_of_bytes
from twofold.errors import Malformed, Rejected, TooLarge, unexpected
from twofold.event.canonical import canonical_json
from twofold.event.data import NO_DATA, NO_ENCODED_DATA, EncodedData
from twofold.event.digest import KAFKA_SOURCE_ATTRIBUTES, compute_digest
from twofold.event.document import document_of
from twofold.event.fast_check import passes_fast_check
from twofold.event.identity import uuid_bytes
from twofold.event.model import Event
from twofold.event.payload import MAX_DEPTH

MAX_HEADERS = 200
"""The most headers of a delivery. Knative's gateway lets 100 pass, and then each proxy adds some of its own."""

_raw_value = methodcaller("decode", "latin-1")
_COORDINATE = re.compile("[0-9]{1,18}")  # any 18 digits fit into 64 bits


class DeliveredEvent(NamedTuple):
    """An event from a KafkaSource, with the attributes of its last hop."""

    document: dict[str, Any]
    """See `Event.to_document`."""
    replay_id: str | None = None
    partition: int | None = None
    offset: int | None = None
    redrive_of: UUID | None = None
    """The id of the redriven dead letter."""

    @property
    def event_id(self) -> UUID:
        """The event's identity."""
        event_id: UUID = self.document["_id"]
        return event_id

    @property
    def digest(self) -> bytes:
        """The event's digest."""
        digest: bytes = self.document["digest"]
        return digest

    @property
    def event(self) -> Event:
        """The `Event`. Raises `Rejected` if the document is not a valid event."""
        return Event.from_document(self.document)


def decode_kafka(headers: RawHeaders, body: bytes, max_bytes: int | None = None) -> DeliveredEvent:
    """Return the event of a record that Twofold wrote. A body of more than `max_bytes` is refused before it is read.

    Raises `DigestMismatch` for an altered record, `Unexpected` for a record with an unexpected error, and another
    `Rejected` for a record that Twofold did not write.
    """
    if max_bytes is not None and len(body) > max_bytes:
        raise TooLarge(f"the record has {len(body)} bytes: the topic's limit is {max_bytes}")
    try:
        return _decode(headers, body)
    except Rejected:
        raise
    except Exception as error:  # noqa: BLE001 - the same record would raise it again for ever
        raise unexpected(error, "the decoding of a record") from None


def _decode(headers: RawHeaders, body: bytes) -> DeliveredEvent:
    if len(headers) > MAX_HEADERS:
        raise Malformed(f"{len(headers)} headers: a delivery of an event has at most {MAX_HEADERS}")
    attributes, content_type = read_headers(headers, decode=_raw_value)
    if content_type:
        attributes["datacontenttype"] = content_type
    partition = attributes.pop("knativekafkapartition", None)
    offset = attributes.pop("knativekafkaoffset", None)
    redrive_of = attributes.pop("redriveof", None)
    if not KAFKA_SOURCE_ATTRIBUTES.isdisjoint(attributes):  # those of a failed delivery
        attributes = {name: value for name, value in attributes.items() if name not in KAFKA_SOURCE_ATTRIBUTES}
    internal = pop_internal_attributes(attributes)
    return DeliveredEvent(
        _verified_document(attributes, internal, body)
        or verified_event(attributes, internal, _payload(attributes, body)).to_document(),
        internal.replay_id,
        _coordinate(partition),
        _coordinate(offset),
        _dead_letter_id(redrive_of),
    )


def _payload(attributes: dict[str, str], body: bytes) -> Any:
    content_type = attributes.get("datacontenttype")
    if content_type is None:
        return body or NO_DATA
    return payload_of_bytes(body, content_type)


def kafka_coordinates(headers: RawHeaders) -> tuple[int | None, int | None]:
    """Return the partition and the offset, which KafkaSource adds to every request."""
    values = dict(headers)
    partition, offset = (values.get(name, b"") for name in (b"ce-knativekafkapartition", b"ce-knativekafkaoffset"))
    return _coordinate(_raw_value(partition)), _coordinate(_raw_value(offset))


def redriven_dead_letter_id(headers: RawHeaders) -> UUID | None:
    """Return the id of the dead letter in a redriven record."""
    return _dead_letter_id(_raw_value(dict(headers).get(b"ce-redriveof", b"")))


def _coordinate(value: str | None) -> int | None:
    return int(value) if value and _COORDINATE.fullmatch(value) else None


def _dead_letter_id(value: str | None) -> UUID | None:
    number = uuid_bytes(value or "")
    return None if number is None else UUID(bytes=number)


def _verified_document(attributes: dict[str, str], internal: InternalAttributes, body: bytes) -> dict[str, Any] | None:
    """Return the document, if the digest, the fast check and canonical JSON confirm it. Otherwise return None."""
    time = attributes["time"]
    if not CANONICAL_TIME.fullmatch(time):
        return None
    given, content = attributes["id"], content_fields(attributes, assigned=internal.time_assigned)
    data = EncodedData(b"json", body) if body else NO_ENCODED_DATA
    if compute_digest(given, content, data, time) != internal.digest:
        return None
    if not passes_fast_check(content, attributes.values()):
        return None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        return None
    try:
        timestamp = datetime.fromisoformat(time)
        payload = from_json(body, allow_inf_nan=False) if body else NO_DATA
        # The comparison fails for a name that stands twice, and for a number such as 1e999.
        if body and canonical_json(payload) != body:
            return None
    except ValueError:
        return None
    document = document_of(given, content, timestamp, payload, internal.digest)
    document["order"] = internal.order
    return document
