"""CloudEvents 1.0 from producers: HTTP binary, structured and batch. Pure."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Self
from urllib.parse import unquote_to_bytes

from twofold.cloudevents import strict_json
from twofold.cloudevents.attributes import (
    CANONICAL_TIME,
    Headers,
    build_event,
    check_required_attributes,
    content_fields,
    parse_time,
    pop_internal_attributes,
    read_headers,
    verified_event,
)
from twofold.cloudevents.encode import RESERVED_ATTRIBUTES, EncodedEvent, check_attributes_size
from twofold.errors import Invalid, Malformed, Problem, Rejected, TooLarge, UnsupportedType
from twofold.event.attribute import printable_name
from twofold.event.canonical import canonical_json
from twofold.event.digest import compute_digest
from twofold.event.fast_check import passes_fast_check
from twofold.event.media_type import check_json_type, media_type
from twofold.event.metadata import HOP_ATTRIBUTES
from twofold.event.model import Event
from twofold.event.payload import check_payload, is_encodable
from twofold.event.time import format_time, to_utc_milliseconds

_TRACEPARENT = re.compile(b"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


_QUOTED_PAIR = re.compile(r"\\(.)")


class IncomingEvent(NamedTuple):
    """An event as a producer's request holds it."""

    encoded: EncodedEvent
    replay_id: str | None = None
    traceparent: str | None = None
    """Of the hop that brings the event; what the event says of itself is in its metadata."""

    @classmethod
    def of(cls, event: Event, replay_id: str | None = None) -> Self:
        """The same of an event that is already built."""
        return cls(EncodedEvent.of(event), replay_id)

    @property
    def event(self) -> Event:
        """The event itself, built and checked anew each time."""
        return Event.from_document(self.encoded.document)


def decode_http(
    headers: Headers, body: bytes, now: datetime, max_events: int
) -> Iterator[IncomingEvent | Rejected] | IncomingEvent:
    """The event, or for a batch its events and refusals in order, that a producer's request holds.

    `now` is the time of an event that has none; the `traceparent` of each is the request's. Raises `Rejected` for what
    is wrong with the request as a whole.
    """
    attributes, content_type = read_headers(headers, decode=_header_value)
    media, traceparent = media_type(content_type), _traceparent_of(headers)
    if media == "application/cloudevents-batch+json":
        return (_from_member(member, now, traceparent) for member in _batch(body, max_events))
    if media == "application/cloudevents+json":
        received = decode_structured(body, now)
    elif attributes:
        received = _binary(attributes, content_type, media, body, now)
    else:
        raise _no_cloud_event(media)
    return _of_trace(traceparent, received)


def _of_trace(traceparent: str | None, received: IncomingEvent) -> IncomingEvent:
    return received if traceparent is None else received._replace(traceparent=traceparent)


def _traceparent_of(headers: Headers) -> str | None:
    """The trace that a producer's request belongs to (W3C Trace Context); None where it names none, or no valid one."""
    value = dict(headers).get(b"traceparent")
    return value.decode() if value and _TRACEPARENT.fullmatch(value) else None


def _no_cloud_event(media: str) -> Rejected:
    if media in ("", "application/json"):
        return Malformed("no CloudEvent: send ce-* headers, or application/cloudevents+json", "ce-specversion")
    return UnsupportedType(f"{media!a} is no content type of a CloudEvent with JSON data", "content-type")


def _binary(attributes: dict[str, str], content_type: str, media: str, body: bytes, now: datetime) -> IncomingEvent:
    if "datacontenttype" in attributes:
        raise Malformed("the HTTP header Content-Type says this", "ce-datacontenttype")
    if content_type:
        attributes["datacontenttype"] = content_type
    check_json_type(media)
    return _received(attributes, strict_json.parse(body) if body else {}, now)


def decode_structured(body: bytes, now: datetime) -> IncomingEvent:
    """The event that the body of a structured request holds, or a line of NDJSON. Raises `Rejected`."""
    return _structured(strict_json.parse(body), now)


def _structured(member: object, now: datetime) -> IncomingEvent:
    if not isinstance(member, dict):
        raise Malformed("a CloudEvent in JSON is an object")
    attributes = {
        name: value if type(value) is str and value.isascii() else _text(name, value)  # most are, and a call costs more
        for name, value in member.items()
        if name not in _DATA and value is not None
    }
    check_json_type(media_type(attributes.get("datacontenttype", "")))
    return _received(attributes, _data_of(member), now)


def _from_member(member: object, now: datetime, traceparent: str | None) -> IncomingEvent | Rejected:
    try:
        return _of_trace(traceparent, _structured(member, now))
    except Rejected as refusal:
        return refusal


def _batch(body: bytes, max_events: int) -> list[object]:
    members = strict_json.parse(body)
    if not isinstance(members, list):
        raise Malformed("a batch is a JSON array of CloudEvents")
    if not members:
        raise Invalid("the batch is empty")
    if len(members) > max_events:
        raise TooLarge(f"{len(members)} events in one batch: at most {max_events} are taken")
    return members


_DATA = {"data", "data_base64"}


def _data_of(member: Mapping[str, Any]) -> object:
    if member.get("data_base64") is None:
        return member["data"] if member.get("data") is not None else {} if "data" not in member else None
    if "data" in member:
        raise Malformed("data and data_base64 exclude each other", "data_base64")
    try:
        return strict_json.parse(base64.b64decode(member["data_base64"], validate=True))
    except (binascii.Error, TypeError, ValueError) as error:
        raise Malformed(f"no base64: {error}", "data_base64") from None


def _text(name: str, value: object) -> str:
    """An attribute as the string that CloudEvents' type system makes of it: all that a header can carry."""
    match value:
        case str() if is_encodable(value):
            return value
        case str():
            raise Invalid("a string must not hold a lone surrogate", printable_name(name))
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
    raise Invalid("an attribute is a string, a boolean or an integer", printable_name(name))


def _header_value(raw: bytes) -> str:
    """A header's value as the CloudEvents HTTP binding says: unquoted, then percent-decoded once."""
    text = raw.decode("latin-1")
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = _QUOTED_PAIR.sub(r"\1", text[1:-1])
    return unquote_to_bytes(text.encode("latin-1")).decode("utf-8", "replace") if "%" in text else text


def _received(attributes: dict[str, str], data: object, now: datetime) -> IncomingEvent:
    """A producer's event; or one of Twofold's own coming back in a replay, which has `replayid` and a true digest."""
    own = pop_internal_attributes(attributes) if "replayid" in attributes else None
    check_attributes_size(
        attributes.items()
    )  # `Publisher` measures what is sent; this spares it the work on megabytes of them
    if own is not None:
        return IncomingEvent.of(verified_event(attributes, own, data), own.replay_id)
    if reserved := sorted(RESERVED_ATTRIBUTES & attributes.keys()):
        raise Invalid(
            f"reserved: {', '.join(reserved)}", problems=tuple(Problem(name, "is reserved") for name in reserved)
        )
    check_required_attributes(attributes)
    return IncomingEvent(_encode_fast(attributes, data, now) or EncodedEvent.of(build_event(attributes, data, now)))


_NOT_SENT = HOP_ATTRIBUTES | {"datacontenttype"}


def _encode_fast(attributes: dict[str, str], data: object, now: datetime) -> EncodedEvent | None:
    """What `Written.of` makes of the event, without making one, if all is surely sound; None means: look closer.

    Raises `Invalid` for what is wrong with the payload alone.
    """
    if not isinstance(data, dict):
        return None
    time = attributes.get("time")
    event_id, id_text, said = content_fields(attributes, assigned=time is None)
    if not passes_fast_check(said, attributes.values()):
        return None
    try:
        if time is not None and CANONICAL_TIME.fullmatch(time):
            timestamp = datetime.fromisoformat(time)
        else:
            timestamp = to_utc_milliseconds(now if time is None else parse_time(time))
            time = format_time(timestamp)
    except (ValueError, Invalid):
        return None
    check_payload(data)
    payload_json = canonical_json(data)
    digest = compute_digest(id_text, said, payload_json, time)
    document = {"_id": event_id, **said, "timestamp": timestamp, "payload": data, "digest": digest}
    sent = {name: value for name, value in attributes.items() if name not in _NOT_SENT}
    sent["time"] = time
    if said["event_version"] == "1.0":
        sent.pop("eventversion", None)
    if "time_assigned" in said["metadata"]:
        sent["timeassigned"] = "true"
    sent["digest"] = digest.hex()
    return EncodedEvent(document, sent, payload_json)
