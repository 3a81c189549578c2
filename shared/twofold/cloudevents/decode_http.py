"""Events in requests of producers: the three modes of CloudEvents' HTTP binding. Pure.

| mode | content type | decoded by |
|---|---|---|
| binary | any, with `ce-*` headers | `_decode_binary` |
| structured | `application/cloudevents+json` | `decode_structured` |
| batch | `application/cloudevents-batch+json` | `_decode_batch` |
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, Self
from urllib.parse import unquote_to_bytes

import orjson

from twofold.cloudevents import strict_json
from twofold.cloudevents.attributes import (
    RawHeaders,
    build_event,
    check_required_attributes,
    drop_unfit_hops,
    pop_internal_attributes,
    read_headers,
    verified_event,
)
from twofold.cloudevents.encode import (
    MAX_OTHER_ATTRIBUTES,
    EncodedEvent,
    check_attributes_number,
    check_attributes_size,
)
from twofold.cloudevents.fast_encode import encode_fast
from twofold.cloudevents.json_format import DATA_MEMBERS, attribute_text, payload_of_bytes, payload_of_members
from twofold.errors import Invalid, Malformed, Problem, Rejected, TooLarge, UnsupportedType, cut_text, unexpected
from twofold.event.attribute import MAX_ATTRIBUTE_BYTES
from twofold.event.data import NO_DATA
from twofold.event.digest import HOP_ATTRIBUTES
from twofold.event.media_type import parse_content_type, unquoted
from twofold.event.metadata import RESERVED_ATTRIBUTES
from twofold.event.model import Event

LARGEST_FORM = 2
"""The most bytes of a structured event for one byte of its data: base64 has four bytes for three, and a character of
Latin-1 can have two bytes in UTF-8."""

_TRACEPARENT = re.compile(b"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class IncomingEvent(NamedTuple):
    """An event from a producer's request."""

    encoded: EncodedEvent
    replay_id: str | None = None
    traceparent: str | None = None
    """The trace of the request. The event's own `traceparent` is in its metadata."""

    @classmethod
    def of(cls, event: Event, replay_id: str | None = None) -> Self:
        """Return the incoming event for an `Event`."""
        return cls(EncodedEvent.of(event), replay_id)

    @property
    def event(self) -> Event:
        """The `Event`. Every access builds and checks it anew."""
        return Event.from_document(self.encoded.document)


def decode_http(
    headers: RawHeaders, body: bytes, now: datetime, max_events: int, max_record_bytes: int | None = None
) -> Iterator[IncomingEvent | Rejected] | IncomingEvent:
    """Return the event of a request. Return an iterator for a batch: of its events, and of the errors of bad events.

    `now` is the time of an event without `time`. Every event gets the request's `traceparent`. A body that makes a
    larger record than `max_record_bytes` is refused before it is parsed. Raises `Rejected` for an error of the whole
    request, and `Unexpected` for an unexpected error.
    """
    try:
        return _decode(headers, body, now, max_events, max_record_bytes)
    except Rejected:
        raise
    except Exception as error:  # noqa: BLE001 - the same event would raise it again for ever
        raise unexpected(error, "the decoding of a request") from None


def _decode(
    headers: RawHeaders, body: bytes, now: datetime, max_events: int, max_record_bytes: int | None
) -> Iterator[IncomingEvent | Rejected] | IncomingEvent:
    attributes, content_type = read_headers(headers, decode=_header_value)
    media, traceparent = content_type.partition(";")[0].strip().lower(), _traceparent_of(headers)
    if media == "application/cloudevents-batch+json":
        parse_content_type(content_type)  # it refuses another charset than UTF-8
        most = max_record_bytes if max_record_bytes is not None and len(body) > max_record_bytes else None
        return _decode_batch(body, max_events, now, traceparent, most)
    if media == "application/cloudevents+json":
        parse_content_type(content_type)
        if max_record_bytes is not None:
            check_body_size(body, LARGEST_FORM * max_record_bytes)
        incoming = decode_structured(body, now)
    elif attributes and not media.startswith("application/cloudevents"):
        if max_record_bytes is not None:
            check_body_size(body, max_record_bytes)
        incoming = _decode_binary(attributes, content_type, body, now)
    else:
        raise _not_a_cloud_event(media)
    return _with_traceparent(incoming, traceparent)


def check_body_size(body: bytes, max_bytes: int) -> None:
    """Raise `TooLarge` for the body of a single event beyond `max_bytes`, before the body is parsed.

    White space does not count, and an escape counts as one byte: canonical JSON has neither. `Publisher` measures the
    record itself. This check saves the work on each value of a large body.
    """
    if len(body) <= max_bytes:
        return
    size = len(body.translate(None, b" \t\r\n")) - 5 * body.count(b"\\u")
    if size > max_bytes:
        raise TooLarge(f"the body of the event has {size} bytes without white space: at most {max_bytes} are allowed")


def _decode_batch(
    body: bytes, max_events: int, now: datetime, traceparent: str | None, max_record_bytes: int | None
) -> Iterator[IncomingEvent | Rejected]:
    members = strict_json.parse(body)
    if not isinstance(members, list):
        raise Malformed("a batch must be a JSON array of CloudEvents")
    if len(members) > max_events:
        raise TooLarge(f"the batch has {len(members)} events: send at most {max_events} events in a batch")
    return (_decode_batch_member(member, now, traceparent, max_record_bytes) for member in members)


def _decode_batch_member(
    member: object, now: datetime, traceparent: str | None, max_record_bytes: int | None
) -> IncomingEvent | Rejected:
    try:
        if max_record_bytes is not None and isinstance(member, dict):
            _check_data_size(member, max_record_bytes)
        return _with_traceparent(_decode_member(member, now), traceparent)
    except Rejected as error:
        refused = error
    except Exception as error:  # noqa: BLE001 - it must harm no other event of the batch
        refused = unexpected(error, "an event of a batch")
    refused.given_id = _given_id(member)
    return refused


def _given_id(member: object) -> str | None:
    """Return the `id` of a refused member, cut to the size of an attribute. None: the member has no `id`.

    The member was not checked, so its `id` can hold any text. JSON cannot hold lone surrogates.
    """
    given = member.get("id") if isinstance(member, dict) else None
    if not given or not isinstance(given, str):
        return None
    return cut_text(given, MAX_ATTRIBUTE_BYTES).encode("utf-8", "replace").decode()


def _check_data_size(member: dict[str, object], max_record_bytes: int) -> None:
    """Check the size of a large batch's event before the work on each of its values. Raises `TooLarge`."""
    data, encoded = member.get("data"), member.get("data_base64")
    if isinstance(encoded, str):
        size = len(encoded) // LARGEST_FORM
    elif isinstance(data, str):
        size = len(data)
    else:
        try:
            size = len(orjson.dumps(data))
        except orjson.JSONEncodeError:
            return  # the check of the payload names the value that is no JSON
    if size > max_record_bytes:
        raise TooLarge(f"the event needs at least {size} bytes in Kafka: the limit is {max_record_bytes}")


def decode_structured(body: bytes, now: datetime) -> IncomingEvent:
    """Return the event of a structured body, or of a line of NDJSON. Raises `Rejected`."""
    return _decode_member(strict_json.parse(body), now)


def _decode_member(member: object, now: datetime) -> IncomingEvent:
    if not isinstance(member, dict):
        raise Malformed("a CloudEvent in JSON must be an object")
    if len(member) > MAX_OTHER_ATTRIBUTES:
        check_attributes_number(
            [name for name, value in member.items() if value is not None and name not in DATA_MEMBERS]
        )
    attributes = {  # the most frequent values skip the call, which costs more than this check
        name: value if type(value) is str and value.isascii() else attribute_text(name, value)
        for name, value in member.items()
        if name not in DATA_MEMBERS and value is not None
    }
    return _incoming_event(attributes, partial(payload_of_members, member), now)


def _decode_binary(attributes: dict[str, str], content_type: str, body: bytes, now: datetime) -> IncomingEvent:
    if "datacontenttype" in attributes:
        raise Malformed("must not be sent: the header Content-Type has this attribute", "ce-datacontenttype")
    if content_type:
        attributes["datacontenttype"] = content_type
    return _incoming_event(attributes, partial(_payload_of_body, body), now)


def _payload_of_body(body: bytes, content_type: str | None) -> Any:
    """Return the payload of a body. Without a content type, a body that is not JSON is bytes."""
    if content_type is None and not strict_json.is_json(body):
        return body or NO_DATA
    return payload_of_bytes(body, content_type or "")


def _incoming_event(
    attributes: dict[str, str], payload_of: Callable[[str | None], Any], now: datetime
) -> IncomingEvent:
    """Return the event of a producer, or of a replay: a replayed event has `replayid`, and a digest to verify.

    `payload_of` returns the payload for the content type.
    """
    if not HOP_ATTRIBUTES.isdisjoint(attributes):
        drop_unfit_hops(attributes)
    internal = pop_internal_attributes(attributes) if "replayid" in attributes else None
    # `Publisher` checks the size again, as it is sent. This check saves the work on megabytes of attributes.
    check_attributes_size(attributes.items())
    if internal is not None:
        payload = payload_of(attributes.get("datacontenttype"))
        return IncomingEvent.of(verified_event(attributes, internal, payload), internal.replay_id)
    if reserved := sorted(RESERVED_ATTRIBUTES & attributes.keys()):
        problems = tuple(Problem(name, f"only Twofold may set {name}: remove this attribute") for name in reserved)
        raise Invalid("; ".join(problem.what for problem in problems), problems=problems)
    check_required_attributes(attributes)
    payload = payload_of(attributes.get("datacontenttype"))
    return IncomingEvent(
        encode_fast(attributes, payload, now) or EncodedEvent.of(build_event(attributes, payload, now))
    )


def _not_a_cloud_event(media: str) -> Rejected:
    if media.startswith("application/cloudevents"):
        return UnsupportedType(
            f"{media[:64]!a} is not supported: send application/cloudevents+json, or ce-* headers", "content-type"
        )
    return Malformed(
        "the request is not a CloudEvent: send ce-* headers, or application/cloudevents+json", "ce-specversion"
    )


def _header_value(raw: bytes) -> str:
    """Return a header's value by the CloudEvents HTTP binding: without quotes, then percent-decoded once.

    Raw bytes are UTF-8 if they are valid UTF-8, else Latin-1. Raises `Malformed` for escapes that are not UTF-8.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if text[:1] == '"':
        text = unquoted(text)
    if "%" not in text:
        return text
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise Malformed("has escapes that are not UTF-8: percent-encode its characters in UTF-8") from None


def _traceparent_of(headers: RawHeaders) -> str | None:
    """Return the request's trace (W3C Trace Context), or None for an absent or invalid header."""
    value = dict(headers).get(b"traceparent")
    return value.decode() if value and _TRACEPARENT.fullmatch(value) else None


def _with_traceparent(incoming: IncomingEvent, traceparent: str | None) -> IncomingEvent:
    return incoming if traceparent is None else incoming._replace(traceparent=traceparent)
