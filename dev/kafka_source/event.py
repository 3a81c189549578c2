"""The event that KafkaSource makes of a record, and the dead letter that it makes of an undelivered event. Pure.

Sources: knative-extensions/eventing-kafka-broker v1.23 (`data-plane/dispatcher`: CloudEventDeserializer,
InvalidCloudEventInterceptor, CloudEventOverridesMutator, RecordDispatcherImpl) and cloudevents/sdk-java (`kafka`,
`core`, `formats/json-jackson`), and requests of the real data plane (`tests/fixtures/kafka_source_requests`).
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol

from dev.kafka_source.java import java_accepts_uri, java_time
from dev.kafka_source.tracing import TraceContext

PLAIN_TYPE = "dev.knative.kafka.event"
ERROR_DATA_MAX_BYTES = 1024

_CONTENT_TYPE = "content-type"
_STRUCTURED = "application/cloudevents+json"
_REQUIRED = ("id", "source", "type")
_SCHEMA = {"1.0": "dataschema", "0.3": "schemaurl"}
"""The attribute with the URI of the schema, by specversion."""
_EXTENSION_NAME = re.compile("[a-z0-9]*")
_NOT_IN_EXTENSION_NAME = re.compile("[^a-z0-9]")
_JSON_DATA = re.compile(r"(?:application|text)/(?:[a-zA-Z0-9\-.]+\+)?json(?:;.*)*")
_INT32 = range(-(2**31), 2**31)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

KeyType = Literal["string", "byte-array"]


class KafkaRecord(Protocol):
    """The attributes of kafka-python's ConsumerRecord that this package reads."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """A CloudEvent on its way to the sink: its attributes by name, `specversion` first, and its data."""

    attributes: Mapping[str, str]
    data: bytes | None
    trace: TraceContext | None = None
    """The W3C trace of the request. It is no part of the event."""


class SourceName(NamedTuple):
    """The namespace and the name of the KafkaSource, and the type of its keys."""

    namespace: str
    name: str
    key_type: KeyType = "string"
    """The label `kafkasources.sources.knative.dev/key-type`."""


class SinkResponse(NamedTuple):
    """The answer of a sink."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


class NotAnEvent(ValueError):
    """The record is not a CloudEvent for the Java SDK. KafkaSource treats it as a plain record."""


class NeverFinishes(ValueError):
    """The data plane throws in a callback here: it never dead-letters the event, and never commits its offset."""


def has_null_header(record: KafkaRecord) -> bool:
    """Return True if a header has no value. KafkaSource can lose the batch around such a record.

    `new String(null)` throws in its interceptor for plain records. Kafka's client logs the error and goes on without
    the interceptor, so KafkaSource discards every plain record of the poll. This stand-in drops the partition's batch.
    """
    return any(value is None for _, value in record.headers)


def to_event(record: KafkaRecord, source: SourceName) -> SourceEvent:
    """Return the event that the sink gets: the record's event, or a plain event. Both carry partition and offset."""
    try:
        event = _read_event(record)
    except NotAnEvent:
        event = _plain_event(record, source)
    position = {"knativekafkapartition": str(record.partition), "knativekafkaoffset": str(record.offset)}
    return SourceEvent({**event.attributes, **position}, event.data)


def _read_event(record: KafkaRecord) -> SourceEvent:
    headers = {name: value.decode(errors="replace") for name, value in record.headers if value is not None}
    content_type = headers.get(_CONTENT_TYPE, "")
    if content_type.partition(";")[0] == _STRUCTURED:
        return _read_structured(record.value or b"")
    if content_type.startswith("application/cloudevents") or headers.get("ce_specversion") not in _SCHEMA:
        raise NotAnEvent(content_type)
    attributes = {name[3:].lower(): value for name, value in headers.items() if name.startswith("ce_")}
    attributes.pop("", None)  # a header `ce_` has no attribute name
    if _CONTENT_TYPE in headers:
        attributes["datacontenttype"] = content_type
    return SourceEvent(_checked(attributes), record.value or None)


def _read_structured(value: bytes) -> SourceEvent:
    """Read the JSON event format as `io.cloudevents.jackson` does: it writes JSON data again, in compact form.

    Not modelled: specversion 0.3 in this format, because Twofold never writes it.
    """
    try:
        members = json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise NotAnEvent(str(error)) from error
    if not isinstance(members, dict) or members.get("specversion") != "1.0":
        raise NotAnEvent("the value is not a CloudEvent 1.0 in JSON")
    if {"data", "data_base64"} <= members.keys():
        raise NotAnEvent("data and data_base64 are both present")
    content_type = members.get("datacontenttype")
    if content_type is None and "data" in members:
        content_type = "application/json"
    data = _structured_data(members, content_type)
    del members["specversion"]
    attributes = {name: _structured_attribute(name, member) for name, member in members.items()}
    attributes["datacontenttype"] = content_type
    return SourceEvent(_checked({name: text for name, text in attributes.items() if text is not None}), data)


def _refuse_constant(name: str) -> None:
    raise NotAnEvent(f"{name} is not JSON")


def _structured_data(members: dict[str, Any], content_type: Any) -> bytes | None:
    """Remove the data from the members, and return it."""
    if "data_base64" in members:
        try:
            return base64.b64decode(members.pop("data_base64"), validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise NotAnEvent("data_base64 is not Base64") from error
    if "data" not in members:
        return None
    data = members.pop("data")
    if content_type is None or _JSON_DATA.fullmatch(str(content_type)):
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    if not isinstance(data, str):
        raise NotAnEvent("data is not JSON, so it must be a string")
    return data.encode(errors="replace")


def _structured_attribute(name: str, member: Any) -> str | None:
    """Return the text of an attribute. An extension that is not a string becomes its JSON."""
    if isinstance(member, str):
        return member
    if name in {*_REQUIRED, "datacontenttype", "dataschema", "subject", "time"}:
        if member is None:
            return None
        raise NotAnEvent(f"{name} is not a string")
    if isinstance(member, float) or (type(member) is int and member not in _INT32):
        raise NotAnEvent(f"{name} is not a 32-bit integer")
    return json.dumps(member, separators=(",", ":"), ensure_ascii=False)


def _checked(attributes: Mapping[str, str]) -> dict[str, str]:
    """Check and write attributes as the SDK's CloudEventBuilder does. Raises `NotAnEvent`."""
    checked = {"specversion": "1.0", **attributes}
    if any(name not in checked for name in _REQUIRED):
        raise NotAnEvent("a required attribute is missing")
    uris = ("source", _SCHEMA[checked["specversion"]])
    if not all(java_accepts_uri(checked[name]) for name in uris if name in checked):
        raise NotAnEvent("source or the URI of the schema is not a URI for Java")
    if not all(map(_EXTENSION_NAME.fullmatch, checked)):
        raise NotAnEvent("the name of an extension has characters outside a-z and 0-9")
    if "time" in checked:
        time = java_time(checked["time"])
        if time is None:
            raise NotAnEvent("time is not a time for Java")
        checked["time"] = time
    return checked


def _plain_event(record: KafkaRecord, source: SourceName) -> SourceEvent:
    """Make up an event for a plain record: its headers and its key become extensions."""
    attributes = {
        "specversion": "1.0",
        "id": f"partition:{record.partition}/offset:{record.offset}",
        "source": f"/apis/v1/namespaces/{source.namespace}/kafkasources/{source.name}#{record.topic}",
        "type": PLAIN_TYPE,
        "subject": f"partition:{record.partition}#{record.offset}",
        "time": _written_time(record.timestamp),
    }
    if record.key:
        is_text = source.key_type == "string"
        key = record.key.decode(errors="replace") if is_text else base64.b64encode(record.key).decode()
        attributes["partitionkey"] = attributes["key"] = key
    for name, value in record.headers:
        text = (value or b"").decode(errors="replace")
        if name.lower() == _CONTENT_TYPE:
            attributes["datacontenttype"] = text.lower()
        else:
            attributes["kafkaheader" + _NOT_IN_EXTENSION_NAME.sub("", name.lower())] = text
    return SourceEvent(attributes, record.value)


def _written_time(milliseconds: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    fraction = f".{milliseconds % 1000:03}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def dead_letter(event: SourceEvent, destination: str, response: SinkResponse | None) -> SourceEvent:
    """Return the event that the dead-letter sink gets; `response` is None after a time-out or a broken connection.

    Raises `NeverFinishes` for a header like `Kne-A-B`: `A-B` is not a name of an extension, so the SDK throws.
    """
    errors = {"knativeerrordest": destination}
    if response is not None:
        errors["knativeerrorcode"] = str(response.status)
        for name, value in response.headers:
            if name.lower().startswith("kne-"):
                errors[name[4:].lower()] = value
        if response.body:
            errors["knativeerrordata"] = base64.b64encode(response.body[:ERROR_DATA_MAX_BYTES]).decode()
    unnameable = [name for name in errors if not _EXTENSION_NAME.fullmatch(name)]
    if unnameable:
        raise NeverFinishes(f"these response headers cannot become extensions: {unnameable}")
    return replace(event, attributes={**event.attributes, **errors})
