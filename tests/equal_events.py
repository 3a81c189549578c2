"""The judge of equal events: an event in any of its forms becomes one comparable form. Pure, and without `twofold`.

Two events are equal if they have equal attributes, the same instant to the millisecond, the same original text of a
finer time, an equal content type, and the same data. A JSON value keeps its types: 1, 1.0 and true differ.

| form | function |
|---|---|
| a CloudEvent in the JSON format, as a fixture holds it | `of_cloud_event` |
| the JSON of a reader: `query`, `admin`, `audit`, exports, feed | `of_reader` |
| a document of MongoDB | `of_document` |
| the headers and the value of a Kafka record | `of_record` |
"""

import base64
import codecs
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

HOPS = frozenset(
    {
        *("traceparent", "tracestate", "baggage"),
        *("knativearrivaltime", "knativebrokerttl", "knativehistory"),
        *("knativekafkapartition", "knativekafkaoffset"),
        *("knativeerrordest", "knativeerrorcode", "knativeerrordata"),
    }
)
"""The attributes that a hop adds. An event keeps its first values, and a hop may add more."""

OWN_PREFIX = "twofold"
"""The attributes of Twofold itself begin with this prefix."""

_NO_ATTRIBUTES = {"service_name", "time_assigned", "original_time", "data_content_type", "extensions"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:)(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_CHARSET = re.compile(r""";\s*charset\s*=\s*"?([^\s;"]+)""", re.IGNORECASE)
_CHARSETS = {"utf-8", "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252"}
_ABSENT = object()


class Time(NamedTuple):
    """The time that a producer gave."""

    milliseconds: int
    original: str | None
    """The producer's text, if the time is finer than a millisecond, or in a leap second."""


@dataclass(frozen=True)
class ComparableEvent:
    """The parts of an event that make it equal to another event."""

    attributes: Mapping[str, str]
    """All attributes, except `specversion`, `time`, `datacontenttype` and the attributes of hops."""
    time: Time | None
    """None: Twofold gave the time."""
    content_type: str | None
    """None for JSON of type `application/json`: the specification makes both equal."""
    data: tuple[str, Any]
    """The kind (none, json, text, bytes), and the typed JSON value, the text or the bytes."""
    hops: Mapping[str, str]


def differences(expected: ComparableEvent, found: ComparableEvent) -> list[str]:
    """Return a line for each part of `found` that differs. `found` may have more attributes of hops."""
    parts = [
        f"{name}: expected {getattr(expected, name)!r}, found {getattr(found, name)!r}"
        for name in ("attributes", "time", "content_type", "data")
        if getattr(expected, name) != getattr(found, name)
    ]
    if not expected.hops.items() <= found.hops.items():
        parts.append(f"hops: expected {expected.hops!r} among {found.hops!r}")
    return parts


def of_cloud_event(event: Mapping[str, Any]) -> ComparableEvent:
    """Return the comparable form of a CloudEvent in the JSON format. An absent member and `null` are equal."""
    attributes = {
        name: attribute_text(value)
        for name, value in event.items()
        if name not in ("data", "data_base64") and value is not None
    }
    assert attributes["specversion"] == "1.0"
    content_type = attributes.pop("datacontenttype", None)
    time = attributes.pop("time", None)
    return _comparable(attributes, None if time is None else time_of(time), content_type, _member(event, content_type))


def of_reader(shown: Mapping[str, Any]) -> ComparableEvent:
    """Return the comparable form of an event in a reader's answer."""
    assert not {"payload", "payload_base64"} <= shown.keys(), "two kinds of data at once"
    payload = shown.get("payload", _ABSENT)
    if "payload_base64" in shown:
        payload = base64.b64decode(shown["payload_base64"], validate=True)
    return _of_fields(shown, milliseconds_of(shown["timestamp"]), payload)


def of_document(document: Mapping[str, Any]) -> ComparableEvent:
    """Return the comparable form of a document that was decoded with time zones and standard UUIDs."""
    milliseconds = (document["timestamp"] - _EPOCH) // timedelta(milliseconds=1)
    return _of_fields(document, milliseconds, document.get("payload", _ABSENT))


def of_record(headers: Iterable[tuple[str, bytes]], value: bytes | None) -> ComparableEvent:
    """Return the comparable form of a record. A value of `twofoldexact` takes the place of the header's value."""
    texts = {name: value.decode() for name, value in headers}
    attributes = {name.removeprefix("ce_"): text for name, text in texts.items() if name.startswith("ce_")}
    if "content-type" in texts:
        attributes["datacontenttype"] = texts["content-type"]
    given = attributes | exact_values(attributes.get("twofoldexact"))
    payload: Any = value or _ABSENT
    is_json = kind_of(given.get("datacontenttype", "")) == "json"  # null: bytes without a content type
    if payload is not _ABSENT and is_json:
        payload = json.loads(payload)
    attributes = {name: text for name, text in given.items() if text is not None and not name.startswith(OWN_PREFIX)}
    content_type, time = attributes.pop("datacontenttype", None), attributes.pop("time")
    assigned = given.get("twofoldtimeassigned") == "true"
    return _comparable(attributes, None if assigned else time_of(time), content_type, _data(payload, content_type))


def exact_values(text: str | None) -> dict[str, Any]:
    """Return the values in the attribute `twofoldexact`: base64url without padding, of JSON."""
    if text is None:
        return {}
    values: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return values


def attribute_text(value: object) -> str:
    """Return the value of an attribute as text, by the type system of CloudEvents."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def kind_of(content_type: str | None) -> str:
    """Return the kind of data of a content type: json, text or other. An empty type is JSON, and None is `other`."""
    if content_type is None:
        return "other"
    media = content_type.partition(";")[0].strip().lower()
    if media in ("", "application/json", "text/json") or media.endswith("+json"):
        return "json"
    return "text" if media.startswith("text/") or media.endswith(("/xml", "+xml")) else "other"


def encoded_text(text: str, content_type: str) -> bytes:
    """Return the bytes of text data in the charset of its content type."""
    return text.encode(_charset(content_type) or "utf-8")


def milliseconds_of(text: str) -> int:
    """Return the milliseconds since 1970 of an RFC 3339 text, cut off. A leap second is the second before."""
    found = _TIME.fullmatch(text)
    assert found is not None, text
    start, second, fraction, zone = found.groups()
    whole = datetime.fromisoformat(f"{start}{min(int(second), 59):02}{zone}".upper())
    return (whole - _EPOCH) // timedelta(milliseconds=1) + int(f"{fraction or ''}000"[:3])


def time_of(text: str) -> Time:
    """Return the comparable form of a producer's time."""
    found = _TIME.fullmatch(text)
    assert found is not None, text
    is_finer = bool((found[3] or "")[3:].strip("0")) or found[2] == "60"
    return Time(milliseconds_of(text), text if is_finer else None)


def typed(value: Any) -> tuple[Any, ...]:
    """Return a JSON value with the names of its types, so that 1, 1.0, true and -0.0 differ."""
    match value:
        case bool():
            return ("boolean", value)
        case int():
            return ("integer", int(value))
        case float():
            return ("number", repr(float(value)))
        case list():
            return ("array", *map(typed, value))
        case dict():
            return ("object", *sorted((name, typed(member)) for name, member in value.items()))
    assert value is None or isinstance(value, str), type(value)
    return ("null",) if value is None else ("string", value)


def _comparable(
    attributes: dict[str, str], time: Time | None, content_type: str | None, data: tuple[str, Any]
) -> ComparableEvent:
    if data[0] in ("json", "none") and content_type == "application/json":
        content_type = None
    if attributes.get("eventversion") == "1.0":
        del attributes["eventversion"]
    content = {name: value for name, value in attributes.items() if name not in HOPS | {"specversion"}}
    return ComparableEvent(content, time, content_type, data, {n: v for n, v in attributes.items() if n in HOPS})


def _of_fields(fields: Mapping[str, Any], milliseconds: int, payload: object) -> ComparableEvent:
    metadata = fields["metadata"]
    attributes = {"id": str(fields["id"]), "type": fields["event_type"], "source": metadata["service_name"]}
    if fields["aggregate_id"] is not None:
        attributes["subject"] = fields["aggregate_id"]
    attributes["eventversion"] = fields["event_version"]
    attributes |= {name.replace("_", ""): value for name, value in metadata.items() if name not in _NO_ATTRIBUTES}
    attributes |= metadata.get("extensions", {})
    original = metadata.get("original_time")
    time = None if metadata.get("time_assigned") else Time(milliseconds, original and time_of(original).original)
    content_type = metadata.get("data_content_type")
    return _comparable(attributes, time, content_type, _data(payload, content_type))


def _member(event: Mapping[str, Any], content_type: str | None) -> tuple[str, Any]:
    """Return the data of a CloudEvent in the JSON format."""
    kind = kind_of(content_type or "")
    if event.get("data_base64") is not None:
        content = base64.b64decode(event["data_base64"], validate=True)
        is_json = kind == "json" and content_type is not None and content
        return _data(json.loads(content) if is_json else content or _ABSENT, content_type)
    if "data" not in event or (event["data"] is None and "data_base64" in event):
        return ("none", None)
    if kind == "json":
        return ("json", typed(event["data"]))
    return _data(encoded_text(event["data"], content_type or "") or _ABSENT, content_type)


def _data(payload: object, content_type: str | None) -> tuple[str, Any]:
    """Return the comparable data of a JSON value, a text, or bytes. Bytes of text become text, and the reverse."""
    kind = kind_of(content_type or "")
    if payload is _ABSENT:
        return ("none", None)
    if not isinstance(payload, bytes):
        if kind == "json":
            return ("json", typed(payload))
        assert isinstance(payload, str), f"{content_type} with {type(payload)}"
        payload = encoded_text(payload, content_type or "")
    charset = _charset(content_type or "")
    if kind != "text" or charset is None:
        return ("bytes", payload)
    try:
        text = payload.decode(charset)
    except UnicodeDecodeError:
        return ("bytes", payload)
    return ("text", text) if text.encode(charset) == payload else ("bytes", payload)


def _charset(content_type: str) -> str | None:
    """Return the charset of a text, or None for an unknown charset: the text stays bytes."""
    found = _CHARSET.search(content_type)
    name = found[1].lower() if found else "utf-8"
    try:
        return codecs.lookup(name).name if name in _CHARSETS else None
    except LookupError:
        return None
