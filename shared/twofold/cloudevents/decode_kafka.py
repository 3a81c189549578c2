"""Twofold's own records, as KafkaSource delivers them to `store`: HTTP binary, with header values as they are. Pure.

HTTP producers percent-encode header values (CloudEvents HTTP binding, 3.1.3.2); KafkaSource writes them raw.
"""

import re
from datetime import datetime
from operator import methodcaller
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import from_json

from twofold.cloudevents import strict_json
from twofold.cloudevents.attributes import (
    CANONICAL_TIME,
    Headers,
    InternalAttributes,
    content_fields,
    pop_internal_attributes,
    read_headers,
    verified_event,
)
from twofold.event.canonical import canonical_json
from twofold.event.digest import compute_digest
from twofold.event.fast_check import passes_fast_check
from twofold.event.model import Event
from twofold.event.payload import MAX_DEPTH

_COORDINATE = re.compile("[0-9]{1,18}")  # 18 digits: what fits into 64 bits, whatever they are


_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class DeliveredEvent(NamedTuple):
    """An event as KafkaSource delivers it, in the form that the log keeps, with what was said about it on the way."""

    document: dict[str, Any]
    """See `Event.to_document`."""
    replay_id: str | None = None
    partition: int | None = None
    offset: int | None = None
    redrive_of: UUID | None = None
    """The dead letter that was redriven."""

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
        """The event itself. Raises `Invalid` if the document holds none."""
        return Event.from_document(self.document)


def decode_kafka(headers: Headers, body: bytes) -> DeliveredEvent:
    """The event that one of Twofold's own records holds, as KafkaSource delivers it.

    Raises `Rejected` for a record that isn't Twofold's, and `DigestMismatch` for one that was altered on its way.
    """
    attributes, content_type = read_headers(headers, decode=_raw_value)
    if content_type:
        attributes["datacontenttype"] = content_type
    own = pop_internal_attributes(attributes)
    return DeliveredEvent(
        _verified_document(attributes, own, body)
        or verified_event(attributes, own, strict_json.parse(body)).to_document(),
        own.replay_id,
        _coordinate(attributes.get("knativekafkapartition")),
        _coordinate(attributes.get("knativekafkaoffset")),
        _letter(attributes.get("redriveof")),
    )


def kafka_coordinates(headers: Headers) -> tuple[int | None, int | None]:
    """The partition and offset that KafkaSource adds to each delivery."""
    values = dict(headers)
    partition, offset = (values.get(name, b"") for name in (b"ce-knativekafkapartition", b"ce-knativekafkaoffset"))
    return _coordinate(_raw_value(partition)), _coordinate(_raw_value(offset))


def _coordinate(value: str | None) -> int | None:
    return int(value) if value and _COORDINATE.fullmatch(value) else None


def redriven_dead_letter_id(headers: Headers) -> UUID | None:
    """The dead letter that a redriven record names."""
    return _letter(_raw_value(dict(headers).get(b"ce-redriveof", b"")))


def _letter(value: str | None) -> UUID | None:
    return UUID(value) if value and _UUID.fullmatch(value) else None


_raw_value = methodcaller("decode", "latin-1")


def _verified_document(attributes: dict[str, str], own: InternalAttributes, body: bytes) -> dict[str, Any] | None:
    """The document that attributes and body are to the letter, if the digest was made for them as they are.

    `publish` had checked it, but not everybody who can write into the topic and make a digest has: what is in the log
    can be read. So this takes what is surely sound, and canonical JSON; None means: look closer.
    """
    time = attributes["time"]
    if not CANONICAL_TIME.fullmatch(time):
        return None
    event_id, id_text, said = content_fields(attributes, assigned=own.time_assigned)
    if compute_digest(id_text, said, body, time) != own.digest or not passes_fast_check(said, attributes.values()):
        return None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        return None
    try:
        payload, timestamp = from_json(body, allow_inf_nan=False), datetime.fromisoformat(time)
        is_canonical = (
            isinstance(payload, dict) and canonical_json(payload) == body
        )  # not so with a name twice, or 1e999
    except ValueError:
        return None
    if not is_canonical:
        return None
    return {"_id": event_id, **said, "timestamp": timestamp, "payload": payload, "digest": own.digest}
