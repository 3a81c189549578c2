"""Content types of data: JSON, text in a charset, or bytes. Pure."""

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from twofold.errors import UnsupportedType
from twofold.event.attribute import MAX_ATTRIBUTE_BYTES

Kind = Literal["json", "text", "bytes"]

JSON = "application/json"
"""The content type of JSON data without a content type (CloudEvents 1.0.2, `datacontenttype`)."""

_MEDIA = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PARAMETER = re.compile(r';\s*([^\s;=]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
"""A parameter (RFC 9110, section 5.6.6): its name, and its value as a token or as a quoted string."""
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)

_CODECS = {
    "": "utf-8",
    **dict.fromkeys(("utf-8", "utf8"), "utf-8"),
    **dict.fromkeys(("us-ascii", "ascii"), "ascii"),
    **dict.fromkeys(("iso-8859-1", "latin1"), "latin-1"),
    "iso-8859-15": "iso-8859-15",
    "windows-1252": "cp1252",
}
"""Charsets of text, and their codecs in Python. Text in another charset stays bytes."""

_TEXTS = frozenset(
    f"application/{name}"
    for name in ("javascript", "ecmascript", "x-www-form-urlencoded", "yaml", "x-yaml", "toml", "sql", "graphql")
) | {"application/x-ndjson", "application/jsonl"}
"""Types of text outside of `text/*` and XML."""


class ContentType(NamedTuple):
    """The parts of a content type that decide about the data."""

    media: str
    """The type without its parameters, in lower case."""
    kind: Kind
    codec: str | None
    """Python's codec of the charset: UTF-8 without a charset, and None for a charset without a codec here."""

    @property
    def is_cloud_event(self) -> bool:
        """Return True for the types of CloudEvents. KafkaSource takes such data for the event itself."""
        return self.media.startswith("application/cloudevents")


def parse_content_type(content_type: str) -> ContentType:
    """Return the parts of a content type. An empty type is JSON.

    Raises `UnsupportedType` for a long type, for another form than type/subtype, and for JSON in another charset than
    UTF-8 (RFC 8259, section 8.1).
    """
    if len(content_type) > MAX_ATTRIBUTE_BYTES:  # the cache must not keep it
        raise UnsupportedType("the content type must have at most 1,024 bytes", "datacontenttype")
    return _parse(content_type)


@lru_cache(maxsize=1024)  # events use the same few types
def _parse(content_type: str) -> ContentType:
    media, separator, parameters = content_type.partition(";")
    media = media.strip().lower()
    if content_type and not _MEDIA.fullmatch(media):
        raise UnsupportedType(f"{media[:64]!a} is not a content type: send one such as {JSON}", "datacontenttype")
    charset = _charset(separator + parameters)
    kind, codec = _kind_of(media), _CODECS.get(charset)
    if kind == "json" and codec not in ("utf-8", "ascii"):
        raise UnsupportedType(f"JSON in the charset {charset[:64]!a} is not supported: use UTF-8", "datacontenttype")
    return ContentType(media, kind, codec)


def _kind_of(media: str) -> Kind:
    if media in ("", JSON, "text/json") or media.endswith("+json"):
        return "json"
    is_text = media.startswith("text/") or media.endswith(("/xml", "+xml", "+yaml")) or media in _TEXTS
    return "text" if is_text else "bytes"


def _charset(parameters: str) -> str:
    if "charset" not in parameters.lower():  # the other parameters have no meaning here
        return ""
    found = {
        unquoted(value.strip()).lower() for name, value in _PARAMETER.findall(parameters) if name.lower() == "charset"
    }
    return ", ".join(sorted(found))  # of two charsets, neither holds


def unquoted(value: str) -> str:
    """Return the value of a quoted string (RFC 9110, section 5.6.4). Another value stays."""
    return _QUOTED_PAIR.sub(r"\1", value[1:-1]) if len(value) > 1 and value[0] == value[-1] == '"' else value
