"""The one schema of both collections: identity, digest, and the document. Pure: no I/O, no clock.

Everything here holds for an event from wherever it comes: HTTP, Kafka, MongoDB, or application code.
"""

import copy
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Annotated, Any, Self
from uuid import UUID, uuid5

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from twofold.errors import Invalid, Problem, Rejected, UnsupportedType

NAMESPACE = UUID("6ba7c3f4-53c5-5b0e-9d0c-2a6f0e0d7f01")
"""The name space of the ids that Twofold derives. Never changes: the log is for ever."""

MAX_ATTRIBUTE = 1024
"""How long an attribute may be: it travels as a header."""

MAX_DEPTH = 100
"""How deep a payload may nest. MongoDB refuses a document beyond 100 levels in some of its drivers, and 180 itself."""

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,40}")
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1  # no `range`: it counts up to the Int64 that BSON gives back
_MAX_WHERE = 200
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""No event is older: BSON's and Kafka's clocks begin here."""

_in_python = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_PERHAPS_EXPONENT, _SMALL = re.compile(rb"e[-+0-9]"), re.compile(rb"0\.0000")  # both begin with what is quickly found
_EXPONENT = re.compile(rb"[:,\[]-?[0-9][0-9.]*e")

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


_PRINTABLE = bytes(range(ord(" "), ord("~") + 1))
_ASCII = "printable ASCII characters, at most 1,024"


def _text(pattern: str, must: str) -> GetPydanticSchema:
    """A string that `pattern` matches from end to end, checked by pydantic's Rust part: a tenth of Python's time."""
    text = core_schema.str_schema(pattern=f"^(?:{pattern})$", max_length=MAX_ATTRIBUTE, strict=True)
    checked = core_schema.custom_error_schema(text, "attribute", custom_error_message=f"must be {must}")
    return GetPydanticSchema(lambda _source, _handler: checked)


@lru_cache(maxsize=4096)  # an event's source is seldom a new one
def _uri_reference(value: str) -> str:
    match = _URI_REFERENCE.fullmatch(value) if len(value) <= MAX_ATTRIBUTE else None
    if match is None or (match["ipv6"] and not _is_ipv6(match["ipv6"])):
        raise PydanticCustomError("attribute", "must be {must}", {"must": f"a URI reference (RFC 3986) of {_ASCII}"})
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
            raise Invalid("an attribute's name must be 1 to 40 lower-case letters and digits", printable(name))
        if name in _NO_EXTENSIONS:
            raise Invalid("is the name of something else: it can't be an extension", name)
    if "dataschema" in value:
        try:
            _uri_reference(value["dataschema"])
        except PydanticCustomError as error:
            raise Invalid(error.message(), "dataschema") from None
    check_json_type(media_type(value.get("datacontenttype", "")))
    return value


def printable(name: str) -> str:
    """A name as an error may show it: what is no printable ASCII is escaped, and what is long is cut."""
    name = name[:64]
    return name if name and name.isascii() and name.isprintable() else ascii(name)


def media_type(content_type: str) -> str:
    """The type without its parameters, in lower case. Raises `UnsupportedType` for a charset that JSON has not."""
    media, _, parameters = content_type.partition(";")
    charset = parameters.lower().partition("charset=")[2].partition(";")[0].strip().strip('"')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UnsupportedType(f"charset {charset!a} is not read, only UTF-8", "datacontenttype")
    return media.strip().lower()


def check_json_type(media: str) -> None:
    """Raise `UnsupportedType` unless `media` is that of JSON, and not that of a CloudEvent around it.

    KafkaSource would take the payload of a record with such a type for the event itself.
    """
    is_json = media in ("", "application/json", "text/json") or media.endswith("+json")
    if not is_json or media.startswith("application/cloudevents"):
        raise UnsupportedType(f"data of type {media!a} is not stored, only JSON objects", "datacontenttype")


def surely_sound(said: Mapping[str, Any], attributes: Collection[str]) -> bool:
    """Whether the schema takes `said`, which was made of these values of attributes; False: perhaps not, look closer.

    One look at all values together takes a tenth of the time that the schema does. `said` is what `digest_of` takes.
    """
    together = " ".join(attributes)
    if not together.isascii() or together.encode().translate(None, _PRINTABLE):
        return False
    if "  " in together or together.strip() != together:  # a value is empty, or has white space at an end
        return False
    if len(together) > MAX_ATTRIBUTE and max(map(len, attributes)) > MAX_ATTRIBUTE:
        return False
    metadata = said["metadata"]
    try:
        _uri_reference(metadata["service_name"])
        if "extensions" in metadata:
            _extensions(metadata["extensions"])
    except (PydanticCustomError, Rejected):
        return False
    return " " not in said["event_type"]


Attribute = Annotated[str, _text("[!-~](?:[ -~]*[!-~])?", f"1 or more {_ASCII}, without white space at either end")]
Word = Annotated[str, _text("[!-~]+", f"1 or more {_ASCII}, without white space")]
UriReference = Annotated[str, AfterValidator(_uri_reference)]
Extensions = Annotated[dict[str, Attribute], AfterValidator(_extensions)]


def utc_milliseconds(value: datetime) -> datetime:
    """BSON's dates are UTC milliseconds, so an event's time is too: what is finer is cut off before the digest.

    Raises `PydanticCustomError` for a time that no event can have.
    """
    if value.tzinfo is not UTC:
        if value.tzinfo is None:
            raise PydanticCustomError("time", "must have a time zone")
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise PydanticCustomError("time", "must be from 1970 to 9999, in UTC") from None
    if value < EARLIEST:
        raise PydanticCustomError("time", "must be from 1970 to 9999, in UTC")
    finer = value.microsecond % 1000
    return value.replace(microsecond=value.microsecond - finer) if finer else value


def rfc_3339(timestamp: datetime) -> str:
    """A time of UTC, as an event's `time` is written: with milliseconds."""
    return timestamp.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


Timestamp = Annotated[datetime, AfterValidator(utc_milliseconds)]


def canonical_id(given: str) -> UUID | None:
    """The UUID that `given` is written as, if it is a canonical lower-case version 4 or 7."""
    return UUID(given) if _CANONICAL_UUID.fullmatch(given) else None


def _is_random_or_timed(event_id: UUID) -> bool:
    """Whether it is a UUID of version 4 or 7 (RFC 9562: the variant is 0b10)."""
    return (event_id.int >> 76) & 0xF in (4, 7) and (event_id.int >> 62) & 0b11 == 0b10


def derived_id(source: str, given: str) -> UUID:
    """The identity of an event whose `id` is no such UUID: CloudEvents makes (source, id) unique."""
    return uuid5(NAMESPACE, _in_python([source, given]))


def canonical(payload: Mapping[str, Any]) -> bytes:
    """JSON in the one form that digests are made of: UTF-8, names in code point order, numbers as Python's repr.

    orjson makes it in a tenth of the time. Numbers that Python writes with an exponent it may write otherwise, and of
    float it takes no subclass: such payloads are left to Python. Raises `Invalid` for what is no JSON.
    """
    try:
        made = orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)
        has_exponent = _PERHAPS_EXPONENT.search(made) and _EXPONENT.search(made)
        if not (has_exponent or _SMALL.search(made)):
            return made
    except orjson.JSONEncodeError:
        pass
    try:
        return _in_python(payload).encode()
    except (TypeError, ValueError) as error:
        raise Invalid(f"is no JSON: {error}", "data") from error


_Path = tuple[Any, str | int] | None
"""What contains it, and its name or position there. Written out only for an error: names may be long, and many."""


def check_payload(value: object, path: _Path = None, depth: int = 1) -> None:
    """Raise `Invalid`, with the path, for what BSON and JSON can't both carry and give back equal."""
    if isinstance(value, str):
        if not is_text(value):
            raise Invalid("a string must not hold a lone surrogate", _where(path))
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not _INT64_MIN <= value <= _INT64_MAX:
            raise Invalid("an integer must fit into 64 bits", _where(path))
    elif isinstance(value, float):
        if value - value != 0.0:  # only NaN and the infinities differ from themselves
            raise Invalid("a number must be finite", _where(path))
    elif depth > MAX_DEPTH:
        raise Invalid(f"must not nest deeper than {MAX_DEPTH}", _where(path))
    elif isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str) or "\0" in name or not (name.isascii() or is_text(name)):
                raise Invalid("a name must be a string without NUL and lone surrogates", _where((path, ascii(name))))
            kind = type(member)
            if (kind is str and member.isascii()) or (kind is int and _INT64_MIN <= member <= _INT64_MAX):
                continue  # most are such, and a call costs more than to look
            check_payload(member, (path, name), depth + 1)
    elif isinstance(value, list):
        for position, member in enumerate(value):
            check_payload(member, (path, position), depth + 1)
    else:
        raise Invalid(f"a {type(value).__name__} is no JSON value", _where(path))


def _where(path: _Path) -> str:
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step[:64]}")
    where = "data" + "".join(reversed(steps))
    return where if len(where) <= _MAX_WHERE else where[:_MAX_WHERE] + "..."


def is_text(value: str) -> bool:
    """Whether UTF-8 can carry it: JSON's escapes can make lone surrogates."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


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
            if not _is_random_or_timed(self.event_id):
                raise Invalid("must be a UUID of version 4 or 7, or come with its source_event_id", "id")
        elif canonical_id(given) or derived_id(self.metadata.service_name, given) != self.event_id:
            raise Invalid("must be derived from the source and the source_event_id", "id")
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other fields, checked as any event is; pydantic's own would keep the digest of the original.

        Raises `Invalid`.
        """
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return self.of(**(copy.deepcopy(fields) if deep else fields) | dict(update or {}))

    @property
    def given_id(self) -> str:
        """CloudEvents' `id`: what the producer called it."""
        return self.metadata.source_event_id or self.id_text

    @cached_property
    def id_text(self) -> str:
        """The identity as it is written: making it takes longer than one thinks."""
        return str(self.event_id)

    @cached_property
    def time(self) -> str:
        """The timestamp in RFC 3339, with milliseconds."""
        return rfc_3339(self.timestamp)

    @cached_property
    def metadata_fields(self) -> dict[str, Any]:
        """The metadata that is there: what is absent is not stored as null."""
        return {name: value for name, value in vars(self.metadata).items() if value}

    @cached_property
    def payload_json(self) -> bytes:
        """The payload as `canonical` JSON."""
        return canonical(self.payload)

    @cached_property
    def digest(self) -> bytes:
        """What vouches for the event on its way: see `digest_of`."""
        return digest_of(self.id_text, self._said, self.payload_json, self.time)

    @property
    def _said(self) -> dict[str, Any]:
        return {
            "event_type": self.event_type,
            "event_version": self.event_version,
            "aggregate_id": self.aggregate_id,
            "metadata": self.metadata_fields,
        }

    def document(self) -> dict[str, Any]:
        """The event as its MongoDB document, without what the server and each collection add."""
        said = self._said
        return {
            "_id": self.event_id,
            **said,
            "timestamp": self.timestamp,
            "payload": self.payload,
            "digest": self.digest,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The event that `document` holds. Raises `Invalid` if it holds none."""
        fields = {name: document[name] for name in cls.model_fields if name in document}
        return cls.of(event_id=document.get("_id"), **fields)


def digest_of(event_id: str, said: Mapping[str, Any], payload_json: bytes, time: str) -> bytes:
    """SHA-256 (32 bytes) of the canonical JSON of all that the producer said; `payload_json` is canonical already.

    `said` has the document's `event_type`, `event_version`, `aggregate_id` and `metadata`. Left out are `traceparent`,
    which differs from one attempt to the next, and the time if the producer gave none: a retry without `time` is the
    same event, whatever the clock says by then.
    """
    metadata = said["metadata"]
    if "traceparent" in metadata:
        metadata = {name: value for name, value in metadata.items() if name != "traceparent"}
    # Of strings, orjson's JSON with its names in order is the canonical one.
    head = orjson.dumps({**said, "event_id": event_id, "metadata": metadata}, option=orjson.OPT_SORT_KEYS)[:-1]
    timestamp = b"null" if "time_assigned" in metadata else b'"%b"' % time.encode()
    return hashlib.sha256(b'%b,"payload":%b,"timestamp":%b}' % (head, payload_json, timestamp)).digest()


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


TRANSPORT = frozenset(
    {
        *("knativekafkapartition", "knativekafkaoffset"),
        *("knativeerrordest", "knativeerrorcode", "knativeerrordata"),
        "redriveof",
    }
)
"""About one hop: where a record lay, why it was not delivered, and whose redrive it is. No content, so neither stored
nor part of the digest."""

_NO_EXTENSIONS = (
    TRANSPORT
    | {"specversion", "digest", "replayid"}
    | {_ATTRIBUTE_OF_FIELD.get(field, field.replace("_", "")) for field in Event.model_fields | Metadata.model_fields}
)
"""Attributes with a field of their own, Twofold's, and `data`: as extensions they would replace those on the way."""


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
