"""CloudEvents 1.0 in and out. Pure.

In: HTTP binary, structured and batch (`publish`), and what KafkaSource makes of a record (`store`). Out: a Kafka record
and an HTTP request, both in binary mode. The two ways in differ in one thing that matters: HTTP producers
percent-encode header values (CloudEvents HTTP binding, 3.1.3.2), KafkaSource writes them raw.
"""

import base64
import binascii
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import methodcaller
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote, unquote_to_bytes
from uuid import UUID

import orjson
from pydantic_core import from_json

from twofold.errors import DigestMismatch, Invalid, Malformed, Problem, Rejected, TooLarge, UnsupportedType
from twofold.event import (
    MAX_ATTRIBUTE,
    MAX_DEPTH,
    Event,
    canonical,
    canonical_id,
    check_json_type,
    derived_id,
    digest_of,
    is_text,
    media_type,
    printable,
    surely_sound,
)

Headers = Iterable[tuple[bytes, bytes]]

MAX_ATTRIBUTES_BYTES = 32 * 1024
"""All attributes of an event together, Twofold's own included: below what the HTTP servers on the way to `store` take.

Nobody but `publish` measures: what is added on the way, some 200 bytes, would make `store` refuse what was accepted.
"""
_ALWAYS_FIT = MAX_ATTRIBUTES_BYTES // (MAX_ATTRIBUTE + len("ce_") + 40)
"""So many of them are never too much, each at its longest."""

_METADATA_OF_ATTRIBUTE = {
    "source": "service_name",
    "serviceversion": "service_version",
    "correlationid": "correlation_id",
    "causationid": "causation_id",
    "userid": "user_id",
    "environment": "environment",
    "ipaddress": "ip_address",
    "useragent": "user_agent",
    "traceparent": "traceparent",
}
_FIELD_OF_ATTRIBUTE = {"type": "event_type", "eventversion": "event_version", "subject": "aggregate_id"}
TRANSPORT = {"knativekafkapartition", "knativekafkaoffset", "redriveof"}
"""About one hop: where a record lay, and whose redrive it is. No content, so neither stored nor part of the digest."""
_NO_EXTENSION = (
    TRANSPORT
    | _METADATA_OF_ATTRIBUTE.keys()
    | _FIELD_OF_ATTRIBUTE.keys()
    | {"specversion", "id", "time", "datacontenttype"}
)
RESERVED = {"digest", "timeassigned", "replayid", "redriveof"}
"""Twofold's own: only its own events carry them."""

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_OWN_TIME = re.compile(r"(?:19[7-9]|[2-9][0-9]{2})[0-9]-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z")
_COORDINATE = re.compile("[0-9]{1,18}")  # 18 digits: what fits into 64 bits, whatever they are
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TRACEPARENT = re.compile(b"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_QUOTED_PAIR = re.compile(r"\\(.)")


class Received(NamedTuple):
    """An event as a producer's request holds it."""

    event: Event
    replay_id: str | None = None
    traceparent: str | None = None
    """Of the hop that brings the event; what the event says of itself is in its metadata."""


class Delivered(NamedTuple):
    """An event as KafkaSource delivers it, in the form that the log keeps, with what was said about it on the way."""

    document: dict[str, Any]
    """See `Event.document`."""
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


# --- in: HTTP, from producers ---------------------------------------------------------------------------------------


def from_http(
    headers: Headers, body: bytes, now: datetime, max_events: int
) -> Iterator[Received | Rejected] | Received:
    """The event, or for a batch its events and refusals in order, that a producer's request holds.

    `now` is the time of an event that has none; the `traceparent` of each is the request's. Raises `Rejected` for what
    is wrong with the request as a whole.
    """
    attributes, content_type = _attributes_of(headers, decode=_header_value)
    media, traceparent = media_type(content_type), _traceparent_of(headers)
    if media == "application/cloudevents-batch+json":
        return (_from_member(member, now, traceparent) for member in _batch(body, max_events))
    if media == "application/cloudevents+json":
        received = from_structured(body, now)
    elif attributes:
        received = _binary(attributes, content_type, media, body, now)
    else:
        raise _no_cloud_event(media)
    return _of_trace(traceparent, received)


def _of_trace(traceparent: str | None, received: Received) -> Received:
    return received if traceparent is None else received._replace(traceparent=traceparent)


def _traceparent_of(headers: Headers) -> str | None:
    """The trace that a producer's request belongs to (W3C Trace Context); None where it names none, or no valid one."""
    value = dict(headers).get(b"traceparent")
    return value.decode() if value and _TRACEPARENT.fullmatch(value) else None


def _no_cloud_event(media: str) -> Rejected:
    if media in ("", "application/json"):
        return Malformed("no CloudEvent: send ce-* headers, or application/cloudevents+json", "ce-specversion")
    return UnsupportedType(f"{media!a} is no content type of a CloudEvent with JSON data", "content-type")


def _binary(attributes: dict[str, str], content_type: str, media: str, body: bytes, now: datetime) -> Received:
    if "datacontenttype" in attributes:
        raise Malformed("the HTTP header Content-Type says this", "ce-datacontenttype")
    if content_type:
        attributes["datacontenttype"] = content_type
    check_json_type(media)
    return _received(attributes, _json(body) if body else {}, now)


def from_structured(body: bytes, now: datetime) -> Received:
    """The event that the body of a structured request holds, or a line of NDJSON. Raises `Rejected`."""
    return _structured(_json(body), now)


def _structured(member: object, now: datetime) -> Received:
    if not isinstance(member, dict):
        raise Malformed("a CloudEvent in JSON is an object")
    attributes = {name: _text(name, value) for name, value in member.items() if name not in _DATA and value is not None}
    check_json_type(media_type(attributes.get("datacontenttype", "")))
    return _received(attributes, _data_of(member), now)


def _from_member(member: object, now: datetime, traceparent: str | None) -> Received | Rejected:
    try:
        return _of_trace(traceparent, _structured(member, now))
    except Rejected as refusal:
        return refusal


def _batch(body: bytes, max_events: int) -> list[object]:
    members = _json(body)
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
        return _json(base64.b64decode(member["data_base64"], validate=True))
    except (binascii.Error, TypeError, ValueError) as error:
        raise Malformed(f"no base64: {error}", "data_base64") from None


def _text(name: str, value: object) -> str:
    """An attribute as the string that CloudEvents' type system makes of it: all that a header can carry."""
    match value:
        case str() if is_text(value):
            return value
        case str():
            raise Invalid("a string must not hold a lone surrogate", printable(name))
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
    raise Invalid("an attribute is a string, a boolean or an integer", printable(name))


def _header_value(raw: bytes) -> str:
    """A header's value as the CloudEvents HTTP binding says: unquoted, then percent-decoded once."""
    text = raw.decode("latin-1")
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = _QUOTED_PAIR.sub(r"\1", text[1:-1])
    return unquote_to_bytes(text.encode("latin-1")).decode("utf-8", "replace") if "%" in text else text


# --- in: KafkaSource, to `store` ------------------------------------------------------------------------------------


def from_kafka_source(headers: Headers, body: bytes) -> Delivered:
    """The event that one of Twofold's own records holds, as KafkaSource delivers it.

    Raises `Rejected` for a record that isn't Twofold's, and `DigestMismatch` for one that was altered on its way.
    """
    attributes, content_type = _attributes_of(headers, decode=_raw_value)
    if content_type:
        attributes["datacontenttype"] = content_type
    own = _own(attributes)
    return Delivered(
        _vouched_document(attributes, own, body) or _vouched_event(attributes, own, _json(body)).document(),
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


def letter_of(headers: Headers) -> UUID | None:
    """The dead letter that a redriven record names."""
    return _letter(_raw_value(dict(headers).get(b"ce-redriveof", b"")))


def _letter(value: str | None) -> UUID | None:
    return UUID(value) if value and _UUID.fullmatch(value) else None


_raw_value = methodcaller("decode", "latin-1")


# --- in: what all have in common ------------------------------------------------------------------------------------


def _attributes_of(headers: Headers, decode: Callable[[bytes], str]) -> tuple[dict[str, str], str]:
    """CloudEvents' attributes among the headers, whose names are in lower case (ASGI), and the content type."""
    attributes: dict[str, str] = {}
    content_type: str | None = None
    for name, value in headers:
        if name[:3] == b"ce-":
            attribute = _attribute_name(name)
            if attribute in attributes:
                raise Malformed("is there more than once", f"ce-{attribute}"[:64])
            attributes[attribute] = decode(value)
        elif name == b"content-type":
            if content_type is not None:
                raise Malformed("is there more than once", "content-type")
            content_type = value.decode("latin-1")
    return attributes, content_type or ""


@lru_cache(maxsize=1024)  # the same few names, over and over
def _attribute_name(header: bytes) -> str:
    return header[3:].decode("latin-1")


def _json(body: bytes) -> Any:
    """Strict JSON: UTF-8, no NaN, no name twice in an object. Raises `Malformed`, or `Invalid` for what is too big.

    pydantic's parser is six times as fast as Python's, but takes the last of equal names. Every member that it drops
    has a colon, and without escapes every colon of the text is in what was read: equal numbers mean that none was
    dropped.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
        if b"\\u" not in body and body.count(b":") == orjson.dumps(value).count(b":"):
            return value
    except (ValueError, orjson.JSONEncodeError):  # the latter for what is too big
        pass
    return _json_in_detail(body)


def _json_in_detail(body: bytes) -> Any:
    """The same with Python's parser, which says what is wrong."""
    try:
        return json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: {error.reason} at byte {error.start}", "data") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"no JSON: {error.msg} at line {error.lineno}, column {error.colno}", "data") from None
    except RecursionError:
        raise Invalid("nests too deep", "data") from None
    except ValueError:  # int() refuses more than 4,300 digits
        raise Invalid("an integer must fit into 64 bits", "data") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise Malformed(f"the name {twice[:64]!a} is there twice in one object", "data")
    return members


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is no JSON", "data")


def check_size(attributes: Collection[tuple[str, Sized]]) -> None:
    """Raise `Invalid` if all attributes of an event, which are within their own bounds, are too much together."""
    if len(attributes) <= _ALWAYS_FIT:
        return
    together = sum(len(name) + len(value) for name, value in attributes)
    if together > MAX_ATTRIBUTES_BYTES:
        raise Invalid(f"all attributes together are {together} bytes: at most {MAX_ATTRIBUTES_BYTES} are taken")


def _received(attributes: dict[str, str], data: object, now: datetime) -> Received:
    """A producer's event; or one of Twofold's own coming back in a replay, which has `replayid` and a true digest."""
    own = _own(attributes) if "replayid" in attributes else None
    check_size(attributes.items())  # `Publisher` measures what is sent; this spares it the work on megabytes of them
    if own is not None:
        return Received(_vouched_event(attributes, own, data), own.replay_id)
    if reserved := sorted(RESERVED & attributes.keys()):
        raise Invalid(
            f"reserved: {', '.join(reserved)}", problems=tuple(Problem(name, "is reserved") for name in reserved)
        )
    return Received(_event(attributes, data, now))


class _Own(NamedTuple):
    """What Twofold itself adds to an event's attributes, for the way to the log."""

    digest: bytes
    time_assigned: bool
    replay_id: str | None


def _own(attributes: dict[str, str]) -> _Own:
    """Take Twofold's own attributes out of `attributes`. Raises `Rejected` where they are not what Twofold makes."""
    _check_context(attributes)
    digest = attributes.pop("digest", None)
    replay_id = attributes.pop("replayid", None)
    assigned = attributes.pop("timeassigned", None)
    if digest is None:
        raise Malformed("none of Twofold's records: it has no digest", "digest")
    try:
        vouching = bytes.fromhex(digest)
    except ValueError:
        raise DigestMismatch("must be 64 hexadecimal digits", "digest") from None
    if assigned not in (None, "true"):
        raise Malformed("is there only as true", "timeassigned")
    if "time" not in attributes:
        raise Malformed("none of Twofold's records: it has no time", "time")
    return _Own(vouching, assigned is not None, replay_id)


def _vouched_document(attributes: dict[str, str], own: _Own, body: bytes) -> dict[str, Any] | None:
    """The document that attributes and body are to the letter, if the digest was made for them as they are.

    `publish` had checked it, but not everybody who can write into the topic and make a digest has: what is in the log
    can be read. So this takes what is surely sound, and canonical JSON; None means: look closer.
    """
    time = attributes["time"]
    if not _OWN_TIME.fullmatch(time):
        return None
    event_id, metadata = _identity(attributes, assigned=own.time_assigned)
    said: dict[str, Any] = {
        "event_type": attributes["type"],
        "event_version": attributes.get("eventversion", "1.0"),
        "aggregate_id": attributes.get("subject"),
        "metadata": metadata,
    }
    if digest_of(str(event_id), said, body, time) != own.digest or not surely_sound(said, attributes.values()):
        return None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        return None
    try:
        payload, timestamp = from_json(body, allow_inf_nan=False), datetime.fromisoformat(time)
        is_canonical = isinstance(payload, dict) and canonical(payload) == body  # not so with a name twice, or 1e999
    except ValueError:
        return None
    if not is_canonical:
        return None
    return {"_id": event_id, **said, "timestamp": timestamp, "payload": payload, "digest": own.digest}


def _vouched_event(attributes: dict[str, str], own: _Own, data: object) -> Event:
    """The event, checked in every part. Raises `Rejected`, and `DigestMismatch` if the digest wasn't made for it."""
    event = _event(attributes, data, None, assigned=own.time_assigned)
    if event.digest != own.digest:
        raise DigestMismatch("the event is not the one that the digest was made for", "digest")
    return event


def _event(attributes: dict[str, str], data: object, now: datetime | None, *, assigned: bool = False) -> Event:
    """The event that `attributes` and `data` make. Raises `Rejected`."""
    _check_context(attributes)
    if not isinstance(data, dict):
        raise Invalid("must be a JSON object", "data")
    time = attributes.get("time")
    event_id, metadata = _identity(attributes, assigned=assigned or time is None)
    return Event.of(
        event_id=event_id,
        timestamp=now if time is None else _time(time),
        metadata=metadata,
        payload=data,
        **{field: attributes[name] for name, field in _FIELD_OF_ATTRIBUTE.items() if name in attributes},
    )


def _identity(attributes: Mapping[str, str], *, assigned: bool) -> tuple[UUID, dict[str, Any]]:
    """The event's identity and metadata."""
    metadata: dict[str, Any] = {
        field: attributes[name] for name, field in _METADATA_OF_ATTRIBUTE.items() if name in attributes
    }
    given = attributes["id"]
    event_id = canonical_id(given)
    if event_id is None:
        event_id = derived_id(attributes["source"], given)
        metadata["source_event_id"] = given
    if assigned:
        metadata["time_assigned"] = True
    extensions = {}
    if not _NO_EXTENSION.issuperset(attributes):  # most have none
        extensions = {name: attributes[name] for name in attributes.keys() - _NO_EXTENSION}
    if "datacontenttype" in attributes and not _is_plain_json(attributes["datacontenttype"]):
        extensions["datacontenttype"] = attributes["datacontenttype"]
    if extensions:
        metadata["extensions"] = extensions
    return event_id, metadata


def _is_plain_json(content_type: str) -> bool:
    return content_type == "application/json" or media_type(content_type) in ("", "application/json")


def _check_context(attributes: Mapping[str, str]) -> None:
    there = attributes.get
    if there("specversion") == "1.0" and there("id") and there("source") and there("type"):
        return
    if missing := [name for name in ("specversion", "id", "source", "type") if not attributes.get(name)]:
        problems = tuple(Problem(name, "is missing") for name in missing)
        raise Malformed(f"a CloudEvent needs {', '.join(missing)}", problems=problems)
    raise Malformed(f"only CloudEvents 1.0 is read, not {attributes['specversion'][:16]!a}", "specversion")


def _time(value: str) -> datetime:
    try:
        if _RFC_3339.fullmatch(value):
            return datetime.fromisoformat(value.upper())
    except ValueError:
        pass
    raise Invalid("must be a valid datetime (RFC 3339) from 1970 to 9999", "time")


# --- out ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record: what is sent, without topic and partition."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    size: int = dataclasses.field(init=False)
    """An upper bound of its bytes in a batch: with up to 5 bytes for each length, and 64 for the record."""

    def __post_init__(self) -> None:
        size = 64 + len(self.key) + len(self.value) + 10 * len(self.headers)
        for name, value in self.headers:
            size += len(name) + len(value)
        object.__setattr__(self, "size", size)  # asked for by several, on each event's way


def attributes_of(event: Event) -> dict[str, str]:
    """All attributes of `event`, Twofold's own included, but `datacontenttype`, which each binding puts elsewhere."""
    metadata = event.metadata_fields
    attributes = {"specversion": "1.0", "id": event.given_id, "type": event.event_type, "time": event.time}
    if event.event_version != "1.0":
        attributes["eventversion"] = event.event_version
    if event.aggregate_id is not None:
        attributes["subject"] = event.aggregate_id
    attributes.update({name: metadata[field] for name, field in _METADATA_OF_ATTRIBUTE.items() if field in metadata})
    if "extensions" in metadata:
        attributes.update(metadata["extensions"])
        attributes.pop("datacontenttype", None)
    if "time_assigned" in metadata:
        attributes["timeassigned"] = "true"
    attributes["digest"] = event.digest.hex()
    return attributes


def record_of_letter(letter: Mapping[str, Any]) -> Record:
    """The record that brings a dead letter's original to `store` again, with the letter's name on it."""
    headers = {header["name"].replace("ce-", "ce_", 1): header["value"] for header in letter["headers"]}
    for name in TRANSPORT:
        headers.pop(f"ce_{name}", None)
    key = headers.get("ce_subject") or headers.get("ce_id") or b""
    return Record(key, letter["body"], [*headers.items(), ("ce_redriveof", str(letter["_id"]).encode())])


def _content_type(event: Event) -> str:
    return event.metadata.extensions.get("datacontenttype", "application/json")


def to_kafka(event: Event, traceparent: str | None = None) -> Record:
    """The record of `event` (CloudEvents Kafka binding, binary mode), which KafkaSource can carry unchanged.

    Its key is the aggregate's id, so that one aggregate stays in one partition. `traceparent` is the hop's, in W3C's
    own header: KafkaSource's spans continue it.
    """
    headers = [(f"ce_{name}", value.encode()) for name, value in attributes_of(event).items()]
    headers.append(("content-type", _content_type(event).encode()))
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    return Record((event.aggregate_id or event.id_text).encode(), event.payload_json, headers)


def to_http(event: Event) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request with `event` (CloudEvents HTTP binding, binary mode) as a producer sends it."""
    attributes = attributes_of(event)
    for name in RESERVED & attributes.keys():
        del attributes[name]
    if event.metadata.time_assigned:
        del attributes["time"]
    headers = {f"ce-{name}": quote(value, safe=_UNQUOTED) for name, value in attributes.items()}
    return headers | {"content-type": _content_type(event)}, event.payload_json


_UNQUOTED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
