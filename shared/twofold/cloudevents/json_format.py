"""The members of a CloudEvent in the JSON event format (CloudEvents 1.0, "JSON Event Format"). Pure."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from twofold.cloudevents import strict_json
from twofold.errors import Invalid, Malformed
from twofold.event.attribute import printable_name
from twofold.event.payload import is_encodable

DATA_MEMBERS = {"data", "data_base64"}


def data_of(member: Mapping[str, Any]) -> object:
    """Return the data of an event in JSON: `{}` if it has none. Raises `Rejected` for invalid `data_base64`."""
    if member.get("data_base64") is None:
        return member["data"] if member.get("data") is not None else {} if "data" not in member else None
    if "data" in member:
        raise Malformed("data and data_base64 exclude each other", "data_base64")
    try:
        return strict_json.parse(base64.b64decode(member["data_base64"], validate=True), "data_base64")
    except (binascii.Error, TypeError, ValueError) as error:
        raise Malformed(f"not base64: {error}", "data_base64") from None


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
