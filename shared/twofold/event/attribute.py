"""The types of CloudEvents attributes: text, and URI references (RFC 3986). Pure."""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from twofold.event.sealed import SEALED

MAX_ATTRIBUTE_BYTES = 1024
"""The most bytes of an attribute in UTF-8. It travels as a header."""

_FORBIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(rf"\U{plane:04x}fffe\U{plane:04x}ffff" for plane in range(17))
    + "]"
)
"""The characters that CloudEvents forbids (1.0.2, "Type System"): controls, surrogates and noncharacters."""

_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*:"
_AUTHORITY = (
    rf"//(?:(?:{_PCHAR}*@)?\[(?:(?P<ipv6>[0-9A-Fa-f:.]+)|[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\](?::[0-9]*)?"
    rf"|{_PCHAR}*)"
)
_URI_REFERENCE = re.compile(
    rf"(?:(?:{_SCHEME})?(?:{_AUTHORITY}(?:/{_PCHAR}*)*|/(?:{_PCHAR}+(?:/{_PCHAR}*)*)?)"
    rf"|{_SCHEME}(?:{_PCHAR}+(?:/{_PCHAR}*)*)?"
    rf"|(?:(?:(?!:){_PCHAR})+(?:/{_PCHAR}*)*)?)"
    rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:\#(?:{_PCHAR}|[/?])*)?"
)
"""A URI reference (RFC 3986, section 4.1). The authority may be any name (RFC 2396), as in `kafka://a:9092,b:9092`."""

_NOT_JAVA = re.compile(rf"{_SCHEME}(?:\#.*)?|(?:{_SCHEME})?//(?:(?:[^/?#]+\[|\[[vV]|\[[^]]*\]:[0-9]{{6}}).*)?")
"""URI references that java.net.URI refuses: a scheme alone, `//` at the end, and odd addresses in brackets."""


def check_text(value: str) -> str:
    """Return the text of an attribute. Raises `PydanticCustomError` for text that no attribute may have."""
    if _FORBIDDEN.search(value):
        raise PydanticCustomError("attribute", "must not contain control characters, surrogates or noncharacters")
    if len(value) > MAX_ATTRIBUTE_BYTES or len(value.encode()) > MAX_ATTRIBUTE_BYTES:
        raise PydanticCustomError("attribute", "must have at most 1,024 bytes in UTF-8")
    if value.startswith(SEALED):
        raise PydanticCustomError("attribute", "must not begin with '{sealed}', which is reserved", {"sealed": SEALED})
    return value


@lru_cache(maxsize=4096)  # most events have a source that an earlier event had
def check_uri_reference(value: str) -> str:
    """Return the URI reference. Raises `PydanticCustomError` for an invalid reference."""
    if not _matches(value):
        must = (
            "must be a URI reference (RFC 3986) of at most 1,024 characters: percent-encode spaces, characters beyond "
            "ASCII, and others that RFC 3986 does not allow"
        )
        raise PydanticCustomError("attribute", must)
    return check_text(value)


@lru_cache(maxsize=4096)
def is_java_uri(value: str) -> bool:
    """Return True for a non-empty URI reference that java.net.URI takes.

    KafkaSource replaces a record with another `source` or `dataschema` by a plain record with a new id.
    """
    return bool(value) and _matches(value) and not _NOT_JAVA.fullmatch(value)


def _matches(value: str) -> bool:
    match = _URI_REFERENCE.fullmatch(value) if len(value) <= MAX_ATTRIBUTE_BYTES else None
    return match is not None and (match["ipv6"] is None or _is_ipv6(match["ipv6"]))


def _is_ipv6(value: str) -> bool:
    try:
        IPv6Address(value)
    except AddressValueError:
        return False
    return True


def printable_name(name: str) -> str:
    """Return a name for an error message: at most 64 characters, and escaped unless it is printable ASCII."""
    name = name[:64]
    return name if name and name.isascii() and name.isprintable() else ascii(name)


Attribute = Annotated[str, Field(strict=True), AfterValidator(check_text)]
Required = Annotated[str, Field(strict=True, min_length=1), AfterValidator(check_text)]
"""An attribute that must not be empty."""
UriReference = Annotated[str, Field(strict=True, min_length=1), AfterValidator(check_uri_reference)]
