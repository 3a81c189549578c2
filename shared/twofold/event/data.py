"""The data of an event: a JSON value, text, bytes, or no data. Pure.

The content type and the bytes alone decide about the kind of the data:

| content type | data | `payload` |
|---|---|---|
| JSON, or absent | a JSON value | the value |
| absent | bytes | bytes: only `data_base64`, and a body that is not JSON, give such data |
| text | valid in its charset | a string |
| text | not valid in its charset | bytes |
| another type | | bytes |

An event without data has no `payload`. Zero bytes are no data, because KafkaSource cannot tell them apart.
"""

from enum import Enum
from typing import Any, Final, NamedTuple

from twofold.errors import Invalid, UnsupportedType
from twofold.event.canonical import canonical_json
from twofold.event.media_type import parse_content_type
from twofold.event.payload import check_payload, is_encodable


class NoData(Enum):
    """The type of `NO_DATA`."""

    NO_DATA = "no data"


NO_DATA: Final = NoData.NO_DATA
"""The payload of an event without data. JSON's null is `None`."""


class EncodedData(NamedTuple):
    """The data in the form of digests and of Kafka."""

    kind: bytes
    """`json`, `bytes` (text too), or `none`."""
    data: bytes
    """Canonical JSON, or the bytes of the data."""


NO_ENCODED_DATA = EncodedData(b"none", b"")


def text_or_bytes(data: bytes, content_type: str) -> str | bytes | NoData:
    """Return the payload for the bytes of data that is not JSON."""
    if not data:
        return NO_DATA
    parts = parse_content_type(content_type)
    if parts.kind != "text" or parts.codec is None:
        return data
    try:
        text = data.decode(parts.codec)
    except UnicodeDecodeError:
        return data
    return text if text.encode(parts.codec) == data else data


def payload_of(value: Any, content_type: str | None) -> Any:
    """Return the payload for a value: a JSON value, or text or bytes for a content type that is not JSON.

    Raises `Rejected` for a value that does not fit the content type.
    """
    if content_type is None:
        return NO_DATA if isinstance(value, bytes) and not value else value
    if value is NO_DATA:
        return value
    if parse_content_type(content_type).kind == "json":
        if isinstance(value, bytes):
            raise Invalid("must be a JSON value, because the content type is JSON: bytes are not", "data")
        return value
    return text_or_bytes(_bytes_of(value, content_type), content_type)


def _bytes_of(value: Any, content_type: str) -> bytes:
    """Return the bytes of data that is not JSON. Raises `Rejected` if the charset of a text lacks a character."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise Invalid("must be a string, because the content type is not JSON", "data")
    if not is_encodable(value):
        raise Invalid("a string must not contain a lone surrogate", "data")
    codec = parse_content_type(content_type).codec
    if codec is None:
        raise UnsupportedType("text in this charset is not supported: send the bytes in data_base64", "datacontenttype")
    try:
        return value.encode(codec)
    except UnicodeEncodeError:
        raise Invalid("has a character that its charset lacks: send the bytes in data_base64", "data") from None


def encode_data(payload: Any, content_type: str | None) -> EncodedData:
    """Check the payload of an event with this content type, and return its data.

    Raises `Rejected` for a payload that does not fit the content type, or that cannot be stored.
    """
    if payload is NO_DATA:
        return NO_ENCODED_DATA
    if content_type is None and isinstance(payload, bytes) and payload:
        return EncodedData(b"bytes", payload)
    if parse_content_type(content_type or "").kind == "json":
        return encode_json(payload)
    data = _bytes_of(payload, content_type or "")
    if type(text_or_bytes(data, content_type or "")) is not type(payload):
        raise Invalid("must be a string for text in its charset, else bytes, and not empty", "data")
    return EncodedData(b"bytes", data)


def encode_json(payload: Any) -> EncodedData:
    """Check a JSON value, and return it as data. Raises `Invalid` for a value that cannot be stored."""
    check_payload(payload)
    return EncodedData(b"json", canonical_json(payload))
