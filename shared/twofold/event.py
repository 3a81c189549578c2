"""The one schema of both collections: identity, digest, and the document. Pure: no I/O, no clock.

Everything here holds for an event from wherever it comes: HTTP, Kafka, MongoDB, or application code.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from ipaddress import AddressValueError, IPv6Address
from typing import Annotated, Any, Self
from uuid import UUID, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from twofold.errors import Invalid, Problem

NAMESPACE = UUID("6ba7c3f4-53c5-5b0e-9d0c-2a6f0e0d7f01")
"""The name space of the ids that Twofold derives. Never changes: the log is for ever."""

MAX_ATTRIBUTE = 1024
"""How long an attribute may be: it travels as a header."""

MAX_DEPTH = 100
"""How deep a payload may nest. MongoDB refuses a document beyond 100 levels in some of its drivers, and 180 itself."""

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_ATTRIBUTE = re.compile(r"[!-~](?:[ -~]{0,1022}[!-~])?")
_WORD = re.compile(r"[!-~]{1,1024}")
_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,40}")
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1  # no `range`: it counts up to the Int64 that BSON gives back
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode

# RFC 3986's URI-reference, less what java.net.URI refuses: KafkaSource turns a record with such a source into a
# plain one with a new id. So: every "%" is an escape, a scheme has something behind it, "//" has an authority.
_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*:"
_AUTHORITY = r"//(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::[0-9]{1,5})?"
_URI_REFERENCE = re.compile(
    rf"(?:(?:{_SCHEME})?(?:{_AUTHORITY}(?:/{_PCHAR}*)*|/(?:{_PCHAR}+(?:/{_PCHAR}*)*)?)"
    rf"|{_SCHEME}{_PCHAR}+(?:/{_PCHAR}*)*"
    rf"|(?!{_SCHEME})(?:(?!:){_PCHAR})+(?:/{_PCHAR}*)*)"
    rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:\#(?:{_PCHAR}|[/?])*)?"
)


_ASCII = "printable ASCII characters, at most 1,024"


def _attribute_error(must: str) -> PydanticCustomError:
    return PydanticCustomError("attribute", "must be {must}", {"must": must})


def _attribute(value: str) -> str:
    if not _ATTRIBUTE.fullmatch(value):
        raise _attribute_error(f"1 or more {_ASCII}, without white space at either end")
    return value


def _word(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise _attribute_error(f"1 or more {_ASCII}, without white space")
    return value


def _uri_reference(value: str) -> str:
    match = _URI_REFERENCE.fullmatch(value) if len(value) <= MAX_ATTRIBUTE else None
    if match is None or (match["ipv6"] and not _is_ipv6(match["ipv6"])):
        raise _attribute_error(f"a URI reference (RFC 3986) of {_ASCII}")
    return value


def _is_ipv6(value: str) -> bool:
    try:
        IPv6Address(value)
    except AddressValueError:
        return False
    return True


def _extensions(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _EXTENSION_NAME.fullmatch(name):
            raise PydanticCustomError(
                "extension", "{name} must be 1 to 40 lower-case letters and digits", {"name": ascii(name[:64])}
            )
    if "dataschema" in value:
        _uri_reference(value["dataschema"])
    return value


Attribute = Annotated[str, AfterValidator(_attribute)]
Word = Annotated[str, AfterValidator(_word)]
UriReference = Annotated[str, AfterValidator(_uri_reference)]
Extensions = Annotated[dict[str, Attribute], AfterValidator(_extensions)]


def _utc_milliseconds(value: datetime) -> datetime:
    """BSON's dates are UTC milliseconds, so an event's time is too: what is finer is cut off before the digest."""
    if value.tzinfo is None:
        raise PydanticCustomError("time", "must have a time zone")
    try:
        value = value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("time", "must be before the year 10000 in UTC") from None
    if value < _EARLIEST:
        raise PydanticCustomError("time", "must not be before 1970")
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


Timestamp = Annotated[datetime, AfterValidator(_utc_milliseconds)]


def canonical_id(given: str) -> UUID | None:
    """The UUID that `given` is written as, if it is a canonical lower-case version 4 or 7."""
    return UUID(given) if _CANONICAL_UUID.fullmatch(given) else None


def derived_id(source: str, given: str) -> UUID:
    """The identity of an event whose `id` is no such UUID: CloudEvents makes (source, id) unique."""
    return uuid5(NAMESPACE, _canonical([source, given]))


def check_payload(value: object, where: str = "data", depth: int = 1) -> None:
    """Raise `Invalid`, with the path, for what BSON and JSON can't both carry and give back equal."""
    if isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not _INT64_MIN <= value <= _INT64_MAX:
            raise Invalid("an integer must fit into 64 bits", where)
    elif isinstance(value, float):
        if value - value != 0.0:  # only NaN and the infinities differ from themselves
            raise Invalid("a number must be finite", where)
    elif depth > MAX_DEPTH:
        raise Invalid(f"must not nest deeper than {MAX_DEPTH}", where[:64] + "...")
    elif isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str) or "\0" in name:
                raise Invalid("a name must be a string without NUL", f"{where}.{name!r}")
            _check_text(name, where)
            check_payload(member, f"{where}.{name}", depth + 1)
    elif isinstance(value, list):
        for position, member in enumerate(value):
            check_payload(member, f"{where}[{position}]", depth + 1)
    else:
        raise Invalid(f"a {type(value).__name__} is no JSON value", where)


def _check_text(value: str, where: str) -> None:
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid("a string must not hold a lone surrogate", where) from None


class Metadata(BaseModel):
    """Who and what an event came from: CloudEvents' `source` and extensions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service_name: UriReference
    service_version: Attribute | None = None
    correlation_id: Attribute | None = None
    causation_id: Attribute | None = None
    user_id: Attribute | None = None
    environment: Attribute | None = None
    ip_address: Attribute | None = None
    user_agent: Attribute | None = None
    traceparent: Attribute | None = None
    source_event_id: Attribute | None = None
    """The `id` as it was given, if the event's identity had to be derived from it."""
    time_assigned: bool = False
    """The producer gave no `time`, so `publish` did; the digest then leaves the timestamp out."""
    extensions: Extensions = Field(default_factory=dict)


class Event(BaseModel):
    """One event, as both collections hold it. Raises `Invalid` from `Event.of` for what the schema forbids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: UUID
    event_type: Word
    event_version: Attribute = "1.0"
    timestamp: Timestamp
    aggregate_id: Attribute | None = None
    metadata: Metadata
    payload: dict[str, Any]

    @classmethod
    def of(cls, **fields: object) -> Self:
        """Make an event of `fields`. Raises `Invalid`, which names every field that is wrong."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise _invalid(error) from None

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        check_payload(self.payload)
        given = self.metadata.source_event_id
        if given is None:
            if canonical_id(str(self.event_id)) is None:
                raise Invalid("must be a UUID of version 4 or 7, or come with its source_event_id", "id")
        elif canonical_id(given) or derived_id(self.metadata.service_name, given) != self.event_id:
            raise Invalid("must be derived from the source and the source_event_id", "id")
        return self

    @property
    def given_id(self) -> str:
        """CloudEvents' `id`: what the producer called it."""
        return self.metadata.source_event_id or str(self.event_id)

    @property
    def time(self) -> str:
        """The timestamp in RFC 3339, with milliseconds."""
        return self.timestamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.timestamp.microsecond // 1000:03d}Z"

    @cached_property
    def metadata_fields(self) -> dict[str, Any]:
        """The metadata that is there: what is absent is not stored as null."""
        return self.metadata.model_dump(exclude_defaults=True)

    @cached_property
    def payload_json(self) -> bytes:
        """The payload as canonical JSON: UTF-8, names in code point order, no white space, numbers as Python's repr."""
        return _canonical(self.payload).encode()

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) of the canonical JSON of all that the producer said.

        That is everything but `traceparent`, which differs from one attempt to the next, and but the timestamp if the
        producer gave none: a retry without `time` is the same event, whatever the clock says by then.
        """
        rest = {name: value for name, value in self.metadata_fields.items() if name != "traceparent"}
        head = {
            "aggregate_id": self.aggregate_id,
            "event_id": str(self.event_id),
            "event_type": self.event_type,
            "event_version": self.event_version,
            "metadata": rest,
        }
        time = "null" if self.metadata.time_assigned else f'"{self.time}"'
        text = b'%b,"payload":%b,"timestamp":%b}' % (
            _canonical(head)[:-1].encode(),
            self.payload_json,
            time.encode(),
        )
        return hashlib.sha256(text).digest()

    def document(self) -> dict[str, Any]:
        """The event as its MongoDB document, without what the server and each collection add."""
        return {
            "_id": self.event_id,
            "event_type": self.event_type,
            "event_version": self.event_version,
            "timestamp": self.timestamp,
            "aggregate_id": self.aggregate_id,
            "metadata": self.metadata_fields,
            "payload": self.payload,
            "digest": self.digest,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The event that `document` holds. Raises `Invalid` if it holds none."""
        fields = {name: document[name] for name in cls.model_fields if name in document}
        return cls.of(event_id=document.get("_id"), **fields)


_ATTRIBUTE_OF_FIELD = {
    "event_id": "id",
    "event_type": "type",
    "event_version": "eventversion",
    "timestamp": "time",
    "aggregate_id": "subject",
    "service_name": "source",
    "source_event_id": "id",
    "payload": "data",
    "metadata": "",
    "extensions": "",
}


def _invalid(error: ValidationError) -> Invalid:
    """The same, said in the names of CloudEvents."""
    problems = tuple(
        Problem(_attribute_name(wrong["loc"]), wrong["msg"])
        for wrong in error.errors(include_url=False, include_context=False, include_input=False)
    )
    return Invalid("; ".join(f"{where}: {what}" for where, what in problems), problems=problems)


def _attribute_name(location: tuple[int | str, ...]) -> str:
    names = (_ATTRIBUTE_OF_FIELD.get(str(part), str(part).replace("_", "")) for part in location)
    return ".".join(name for name in names if name and name != "[key]")
