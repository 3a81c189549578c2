"""The members of a CloudEvent in the JSON event format (CloudEvents 1.0, "JSON Event Format"). Pure."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from twofold.cloudevents import strict_json
from twofold.errors import Invalid, Malformed
from twofold.event.attribute import printable_name
from twofold.event.data import NO_DATA, payload_of, text_or_bytes
from twofold.event.media_type import parse_content_type
from twofold.event.payload import is_encodable

DATA_MEMBERS = {"data", "data_base64"}


def payload_of_members(member: Mapping[str, Any], content_type: str | None) -> Any:
    """Return the payload of an event in JSON. Raises `Rejected` for data that does not fit the content type."""
    encoded = member.get("data_base64")
    if encoded is None:
        return payload_of(member.get("data", NO_DATA), content_type)
    if member.get("data") is not None:
        raise Malformed("data and data_base64 exclude each other", "data_base64")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise Malformed(f"not base64: {error}", "data_base64") from None
    if content_type is None:
        return data or NO_DATA
    return payload_of_bytes(data, content_type, "data_base64")


def payload_of_bytes(data: bytes, content_type: str, name: str = "the body") -> Any:
    """Return the payload for the bytes of data. Errors call the bytes `name`."""
    if not data:
        return NO_DATA
    if parse_content_type(content_type).kind == "json":
        return strict_json.parse(data, name)
    return text_or_bytes(data, content_type)


def attribute_text(name: str, value: object) -> str:
    """Return an attribute's value as text, by CloudEvents' type system. Raises `Invalid` for another type."""
    match value:
        case str() if is_encodable(value):
            return value
        case str():
            raise Invalid("a string must not contain a lone surrogate", printable_name(name))
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
    raise Invalid("an attribute must be a string, a boolean or an integer", printable_name(name))
