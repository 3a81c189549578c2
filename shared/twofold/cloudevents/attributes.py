"""CloudEvents attributes of an arriving event: read from headers, checked, and mapped to the fields of an event. Pure.

Attributes are a dictionary of names in lower case and text. `metadata.py` has the table of names and fields.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from twofold.errors import DigestMismatch, Invalid, Malformed, Problem
from twofold.event.identity import canonical_id, derived_id
from twofold.event.media_type import media_type
from twofold.event.metadata import FIELD_OF_ATTRIBUTE, KNOWN_ATTRIBUTES, METADATA_OF_ATTRIBUTE
from twofold.event.model import Event
from twofold.event.time import parse_time

RawHeaders = Sequence[tuple[bytes, bytes]]
"""The headers of a request in ASGI's form: names in lower case, values unchanged."""

_NOT_EXTENSIONS = KNOWN_ATTRIBUTES | {"datacontenttype"}  # `_identity` decides about `datacontenttype` itself

CANONICAL_TIME = re.compile(
    r"(?:19[7-9]|[2-9][0-9]{2})[0-9]-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z"
)
"""The form of `format_time`, from 1970 on. A day that does not exist, such as 02-30, can match too."""


def read_headers(headers: RawHeaders, decode: Callable[[bytes], str]) -> tuple[dict[str, str], str]:
    """Return the attributes in the headers, and the content type. Raises `Malformed` for a header that stands twice."""
    attributes: dict[str, str] = {}
    content_type: str | None = None
    for name, value in headers:
        if name[:3] == b"ce-":
            attribute = _attribute_name(name)
            if attribute in attributes:
                raise Malformed("stands more than once", f"ce-{attribute}"[:64])
            attributes[attribute] = decode(value)
        elif name == b"content-type":
            if content_type is not None:
                raise Malformed("stands more than once", "content-type")
            content_type = value.decode("latin-1")
    return attributes, content_type or ""


@lru_cache(maxsize=1024)  # events use the same few names
def _attribute_name(header: bytes) -> str:
    return header[3:].decode("latin-1")


class InternalAttributes(NamedTuple):
    """The attributes that Twofold adds to an event for its way to the log."""

    digest: bytes
    time_assigned: bool
    replay_id: str | None


def pop_internal_attributes(attributes: dict[str, str]) -> InternalAttributes:
    """Remove Twofold's own attributes from `attributes`, and return them.

    Raises `Rejected` if they are not in Twofold's form, or if a required attribute is missing.
    """
    check_required_attributes(attributes)
    digest = attributes.pop("digest", None)
    replay_id = attributes.pop("replayid", None)
    assigned = attributes.pop("timeassigned", None)
    if digest is None:
        raise Malformed("is missing: only records that Twofold wrote are accepted", "digest")
    try:
        digest_bytes = bytes.fromhex(digest)
    except ValueError:
        raise DigestMismatch("must be 64 hexadecimal digits", "digest") from None
    if assigned not in (None, "true"):
        raise Malformed("must be true or absent", "timeassigned")
    if "time" not in attributes:
        raise Malformed("is missing: only records that Twofold wrote are accepted", "time")
    return InternalAttributes(digest_bytes, assigned is not None, replay_id)


def verified_event(attributes: dict[str, str], internal: InternalAttributes, data: object) -> Event:
    """Return the event, checked in full. Raises `DigestMismatch` for another digest, and other `Rejected` errors."""
    event = build_event(attributes, data, None, assigned=internal.time_assigned)
    if event.digest != internal.digest:
        raise DigestMismatch("the event was altered: the digest belongs to other content", "digest")
    return event


def build_event(attributes: dict[str, str], data: object, now: datetime | None, *, assigned: bool = False) -> Event:
    """Return the event of these attributes and data. Raises `Rejected`.

    `check_required_attributes` must have accepted the attributes. `now` is the time of an event without `time`.
    """
    if not isinstance(data, dict):
        raise Invalid("must be a JSON object", "data")
    time = attributes.get("time")
    event_id, metadata = _identity(attributes, assigned=assigned or time is None)
    return Event.of(
        event_id=event_id,
        timestamp=now if time is None else time_attribute(time),
        metadata=metadata,
        payload=data,
        **{field: attributes[name] for name, field in FIELD_OF_ATTRIBUTE.items() if name in attributes},
    )


def content_fields(attributes: Mapping[str, str], *, assigned: bool) -> tuple[UUID, str, dict[str, Any]]:
    """Return the event's identity, its identity as text, and its content for `compute_digest`."""
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
    if not _NOT_EXTENSIONS.issuperset(attributes):  # most events have no extensions
        extensions = {name: attributes[name] for name in attributes.keys() - _NOT_EXTENSIONS}
    if "datacontenttype" in attributes and not _is_plain_json(attributes["datacontenttype"]):
        extensions["datacontenttype"] = attributes["datacontenttype"]
    if extensions:
        metadata["extensions"] = extensions
    return event_id, metadata


def _is_plain_json(content_type: str) -> bool:
    return content_type == "application/json" or media_type(content_type) in ("", "application/json")


def check_required_attributes(attributes: Mapping[str, str]) -> None:
    """Check the required attributes. Raises `Malformed` unless they make a CloudEvent of version 1.0."""
    get = attributes.get
    if get("specversion") == "1.0" and get("id") and get("source") and get("type"):
        return
    if missing := [name for name in ("specversion", "id", "source", "type") if not attributes.get(name)]:
        problems = tuple(Problem(name, "is missing") for name in missing)
        raise Malformed(f"a CloudEvent needs {', '.join(missing)}", problems=problems)
    raise Malformed(f"version {attributes['specversion'][:16]!a} is not supported: send CloudEvents 1.0", "specversion")


def time_attribute(value: str) -> datetime:
    """Return the time of the attribute `time`. Raises `Invalid`."""
    try:
        return parse_time(value)
    except ValueError:
        raise Invalid("must be a valid datetime (RFC 3339) from 1970 to 9999", "time") from None
