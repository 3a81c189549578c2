"""CloudEvents attributes of an arriving event: read from headers, checked, and mapped to the fields of an event. Pure.

Attributes are a dictionary of names in lower case and text. `metadata.py` has the table of names and fields.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import PydanticCustomError

from twofold.cloudevents.exact import apply_exact
from twofold.errors import DigestMismatch, Invalid, Malformed, Problem
from twofold.event.attribute import check_text
from twofold.event.digest import HOP_ATTRIBUTES
from twofold.event.media_type import JSON
from twofold.event.metadata import (
    DIGEST_ATTRIBUTE,
    EXACT_ATTRIBUTE,
    FIELD_OF_ATTRIBUTE,
    KNOWN_ATTRIBUTES,
    METADATA_OF_ATTRIBUTE,
    TIME_ASSIGNED_ATTRIBUTE,
)
from twofold.event.model import Event
from twofold.event.order import ORDER_ATTRIBUTE, parse_order
from twofold.event.time import is_inexact, parse_time

RawHeaders = Sequence[tuple[bytes, bytes]]
"""The headers of a request in ASGI's form: names in lower case, values unchanged."""

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
                if attribute in HOP_ATTRIBUTES:  # it is no part of the event, so it refuses no event
                    continue
                raise Malformed("stands more than once", f"ce-{attribute}"[:64])
            try:
                attributes[attribute] = decode(value)
            except Malformed as error:
                if attribute not in HOP_ATTRIBUTES:
                    raise Malformed(error.detail, f"ce-{attribute}"[:64]) from None
        elif name == b"content-type":
            if content_type is not None:
                raise Malformed("stands more than once", "content-type")
            content_type = _text(value)
    return attributes, content_type or ""


def _text(value: bytes) -> str:
    """Return the text of a header: UTF-8 if it is valid UTF-8, else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


@lru_cache(maxsize=1024)  # events use the same few names
def _attribute_name(header: bytes) -> str:
    return header[3:].decode("latin-1")


class InternalAttributes(NamedTuple):
    """The attributes that Twofold adds to an event for its way to the log."""

    digest: bytes
    time_assigned: bool
    replay_id: str | None
    order: int


def pop_internal_attributes(attributes: dict[str, str]) -> InternalAttributes:
    """Remove Twofold's own attributes from `attributes`, and return them.

    The exact values in `twofoldexact` replace the values of the headers. Raises `Rejected` if the attributes are not in
    Twofold's form, or if a required attribute is missing.
    """
    if (exact := attributes.pop(EXACT_ATTRIBUTE, None)) is not None:
        apply_exact(attributes, exact)
    check_required_attributes(attributes)
    digest = attributes.pop(DIGEST_ATTRIBUTE, None)
    replay_id = attributes.pop("replayid", None)
    assigned = attributes.pop(TIME_ASSIGNED_ATTRIBUTE, None)
    order = attributes.pop(ORDER_ATTRIBUTE, None)
    if digest is None:
        raise Malformed("is missing: only records that Twofold wrote are accepted", DIGEST_ATTRIBUTE)
    try:
        digest_bytes = bytes.fromhex(digest)
    except ValueError:
        raise DigestMismatch("must be 64 hexadecimal digits", DIGEST_ATTRIBUTE) from None
    if assigned not in (None, "true"):
        raise Malformed("must be true or absent", TIME_ASSIGNED_ATTRIBUTE)
    if "time" not in attributes:
        raise Malformed("is missing: only records that Twofold wrote are accepted", "time")
    return InternalAttributes(digest_bytes, assigned is not None, replay_id, _order(order))


def _order(value: str | None) -> int:
    if value is None:
        raise Malformed("is missing: only records that Twofold wrote are accepted", ORDER_ATTRIBUTE)
    try:
        return parse_order(value)
    except ValueError as error:
        raise Malformed(str(error), ORDER_ATTRIBUTE) from None


def verified_event(attributes: dict[str, str], internal: InternalAttributes, data: object) -> Event:
    """Return the event, checked in full. Raises `DigestMismatch` for another digest, and other `Rejected` errors."""
    event = build_event(attributes, data, None, assigned=internal.time_assigned, order=internal.order)
    if event.digest != internal.digest:
        raise DigestMismatch("the event was altered: the digest belongs to other content", DIGEST_ATTRIBUTE)
    return event


def build_event(
    attributes: dict[str, str],
    data: object,
    now: datetime | None,
    *,
    assigned: bool = False,
    order: int | None = None,
) -> Event:
    """Return the event of these attributes and data. Raises `Rejected`.

    `check_required_attributes` must have accepted the attributes. `now` is the time of an event without `time`. An
    event that no publisher has accepted has no `order`.
    """
    time = attributes.get("time")
    metadata = _metadata(attributes, assigned=assigned or time is None)
    if time is not None and not assigned and is_inexact(time):
        metadata["original_time"] = time
    return Event.of(
        id=attributes["id"],
        timestamp=now if time is None else time_attribute(time),
        metadata=metadata,
        payload=data,
        order=order,
        **{field: attributes[name] for name, field in FIELD_OF_ATTRIBUTE.items() if name in attributes},
    )


def drop_unfit_hops(attributes: dict[str, str]) -> None:
    """Remove a value of a hop that no attribute may have: it is no part of the event, so it refuses no event."""
    for name in HOP_ATTRIBUTES & attributes.keys():
        try:
            check_text(attributes[name])
        except PydanticCustomError:
            del attributes[name]


def content_fields(attributes: Mapping[str, str], *, assigned: bool) -> dict[str, Any]:
    """Return the event's content for `compute_digest`."""
    return {
        "event_type": attributes["type"],
        "event_version": attributes.get("eventversion", "1.0"),
        "aggregate_id": attributes.get("subject"),
        "metadata": _metadata(attributes, assigned=assigned),
    }


def _metadata(attributes: Mapping[str, str], *, assigned: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        field: attributes[name] for name, field in METADATA_OF_ATTRIBUTE.items() if name in attributes
    }
    if metadata.get("data_content_type") == JSON:
        del metadata["data_content_type"]
    if assigned:
        metadata["time_assigned"] = True
    if not KNOWN_ATTRIBUTES.issuperset(attributes):  # most events have no extensions
        metadata["extensions"] = {name: attributes[name] for name in attributes.keys() - KNOWN_ATTRIBUTES}
    return metadata


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
        raise Invalid(
            "must be a valid datetime (RFC 3339) from 1970 to 9999, such as 2026-07-01T12:00:00Z", "time"
        ) from None
