"""Attributes that KafkaSource would change: they travel exactly in the attribute `twofoldexact`. Pure.

KafkaSource writes attributes into HTTP headers. It changes characters outside of Latin-1, white space at the ends, and
the text of a time. It replaces an event with a `source` that java.net.URI refuses, and an event with the content type
of a CloudEvent. So the record of such an event has one more header, in ASCII: `twofoldexact` is the base64url form of a
JSON object with the exact values. `null` stands for an absent content type. The usual headers keep the values in UTF-8,
or a stand-in, for other readers of the topic. docs/cloudevents.md has the rules.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

import orjson

from twofold.cloudevents import strict_json
from twofold.errors import Malformed
from twofold.event.attribute import is_java_uri
from twofold.event.digest import KAFKA_SOURCE_ATTRIBUTES
from twofold.event.media_type import JSON, parse_content_type
from twofold.event.metadata import EXACT_ATTRIBUTE

_BYTES = "application/octet-stream"
_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")
"""A value that travels as it is."""
_URIS = ("source", "dataschema")
_JAVA_TIME = re.compile(r"[^.]{17}[0-5][0-9](?:\.[0-9]{1,9})?(?:[Zz]|[+-](?:0[0-9]|1[0-7]):[0-9]{2})")
"""A time that java.time.OffsetDateTime takes: at most nanoseconds, no leap second, an offset of at most 18 hours."""


class RecordAttributes(NamedTuple):
    """The attributes of a record, as its headers have them."""

    attributes: dict[str, str]
    content_type: str


def record_attributes(
    attributes: Mapping[str, str], time: str, content_type: str | None, *, is_json: bool
) -> RecordAttributes:
    """Return the attributes of the record of an event, with `twofoldexact` if a value needs it.

    `attributes` has the exact values without `datacontenttype`. `time` is the time in milliseconds. `content_type` is
    None if the event has no content type.
    """
    exact: dict[str, str | None] = {}
    sent: dict[str, str] = {}
    for name, value in attributes.items():
        stand_in = _stand_in(name, value, time)
        if stand_in != value or not _PLAIN.fullmatch(value) or (name == "time" and value != time):
            exact[name] = value
        if stand_in is not None:
            sent[name] = stand_in
    default = JSON if is_json else _BYTES
    header = content_type or default
    if not _PLAIN.fullmatch(header) or parse_content_type(header).is_cloud_event:
        header, exact["datacontenttype"] = default, content_type
    elif content_type is None and not is_json:
        exact["datacontenttype"] = None
    if exact:
        sent[EXACT_ATTRIBUTE] = base64.urlsafe_b64encode(orjson.dumps(exact)).decode().rstrip("=")
    return RecordAttributes(sent, header)


def _stand_in(name: str, value: str, time: str) -> str | None:
    """Return the value in the usual header. None: KafkaSource sets the header itself."""
    if name in KAFKA_SOURCE_ATTRIBUTES:
        return None
    if name == "time":
        return value if _JAVA_TIME.fullmatch(value) else time
    return quote(value, safe="") if name in _URIS and not is_java_uri(value) else value


def apply_exact(attributes: dict[str, str], exact: str) -> None:
    """Replace values in `attributes` by the exact values. Raises `Malformed` for another form of `exact`."""
    try:
        values = strict_json.parse(
            base64.b64decode(exact + "=" * (-len(exact) % 4), altchars=b"-_", validate=True), EXACT_ATTRIBUTE
        )
    except (binascii.Error, ValueError):
        raise Malformed("must be base64url of JSON", EXACT_ATTRIBUTE) from None
    if not isinstance(values, dict):
        raise Malformed("must be a JSON object", EXACT_ATTRIBUTE)
    for name, value in values.items():
        if value is None and name == "datacontenttype":
            attributes.pop(name, None)
        elif isinstance(value, str):
            attributes[name] = value
        else:
            raise Malformed("must have strings", EXACT_ATTRIBUTE)
