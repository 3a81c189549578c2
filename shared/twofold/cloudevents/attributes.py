"""An event's attributes on the way in: read from headers, checked, and made into an event with its data. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from twofold.errors import DigestMismatch, Invalid, Malformed, Problem
from twofold.event.identity import canonical_id, derived_id
from twofold.event.media_type import media_type
from twofold.event.metadata import FIELD_OF_ATTRIBUTE, HOP_ATTRIBUTES, METADATA_OF_ATTRIBUTE
from twofold.event.model import Event

Headers = Iterable[tuple[bytes, bytes]]


RawHeaders = Sequence[tuple[bytes, bytes]]
"""A request's, as ASGI has them: names in lower case, values as they came."""


_NO_EXTENSION = (
    HOP_ATTRIBUTES
    | METADATA_OF_ATTRIBUTE.keys()
    | FIELD_OF_ATTRIBUTE.keys()
    | {"specversion", "id", "time", "datacontenttype"}
)


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


CANONICAL_TIME = re.compile(
    r"(?:19[7-9]|[2-9][0-9]{2})[0-9]-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z"
)
"""A time as `rfc_3339` writes it, from 1970 on; the day may still be none."""


def read_headers(headers: Headers, decode: Callable[[bytes], str]) -> tuple[dict[str, str], str]:
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


class InternalAttributes(NamedTuple):
    """What Twofold itself adds to an event's attributes, for the way to the log."""

    digest: bytes
    time_assigned: bool
    replay_id: str | None


def pop_internal_attributes(attributes: dict[str, str]) -> InternalAttributes:
    """Take Twofold's own attributes out of `attributes`. Raises `Rejected` where they are not what Twofold makes."""
    check_required_attributes(attributes)
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
    return InternalAttributes(vouching, assigned is not None, replay_id)


def verified_event(attributes: dict[str, str], own: InternalAttributes, data: object) -> Event:
    """The event, checked in every part. Raises `Rejected`, and `DigestMismatch` if the digest wasn't made for it."""
    event = build_event(attributes, data, None, assigned=own.time_assigned)
    if event.digest != own.digest:
        raise DigestMismatch("the event is not the one that the digest was made for", "digest")
    return event


def build_event(attributes: dict[str, str], data: object, now: datetime | None, *, assigned: bool = False) -> Event:
    """The event that `data` and attributes, which `check_context` passed, make. Raises `Rejected`."""
    if not isinstance(data, dict):
        raise Invalid("must be a JSON object", "data")
    time = attributes.get("time")
    event_id, metadata = _identity(attributes, assigned=assigned or time is None)
    return Event.of(
        event_id=event_id,
        timestamp=now if time is None else parse_time(time),
        metadata=metadata,
        payload=data,
        **{field: attributes[name] for name, field in FIELD_OF_ATTRIBUTE.items() if name in attributes},
    )


def content_fields(attributes: Mapping[str, str], *, assigned: bool) -> tuple[UUID, str, dict[str, Any]]:
    """The event's identity, the same as text, and what `digest_of` takes for what is said of the event."""
    event_id, metadata = _identity(attributes, assigned=assigned)
    id_text = str(event_id) if "source_event_id" in metadata else attributes["id"]
    return (
        event_id,
        id_text,
        {
            "event_type": attributes["type"],
            "event_version": attributes.get("eventversion", "1.0"),
            "aggregate_id": attributes.get("subject"),
            "metadata": metadata,
        },
    )


def _identity(attributes: Mapping[str, str], *, assigned: bool) -> tuple[UUID, dict[str, Any]]:
    """The event's identity and metadata."""
    metadata: dict[str, Any] = {
        field: attributes[name] for name, field in METADATA_OF_ATTRIBUTE.items() if name in attributes
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


def check_required_attributes(attributes: Mapping[str, str]) -> None:
    """Raise `Malformed` unless all is there that makes a CloudEvent of version 1.0."""
    there = attributes.get
    if there("specversion") == "1.0" and there("id") and there("source") and there("type"):
        return
    if missing := [name for name in ("specversion", "id", "source", "type") if not attributes.get(name)]:
        problems = tuple(Problem(name, "is missing") for name in missing)
        raise Malformed(f"a CloudEvent needs {', '.join(missing)}", problems=problems)
    raise Malformed(f"only CloudEvents 1.0 is read, not {attributes['specversion'][:16]!a}", "specversion")


def parse_time(value: str) -> datetime:
    """A time in RFC 3339. Raises `Invalid`."""
    try:
        if _RFC_3339.fullmatch(value):
            return datetime.fromisoformat(value.upper())
    except ValueError:
        pass
    raise Invalid("must be a valid datetime (RFC 3339) from 1970 to 9999", "time")
