"""TODO module."""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Annotated

from pydantic import AfterValidator, GetPydanticSchema
from pydantic_core import PydanticCustomError, core_schema

MAX_ATTRIBUTE_CHARS = 1024
"""How long an attribute may be: it travels as a header."""


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


_ASCII = "printable ASCII characters, at most 1,024"


def _text(pattern: str, must: str) -> GetPydanticSchema:
    """A string that `pattern` matches from end to end, checked by pydantic's Rust part: a tenth of Python's time."""
    text = core_schema.str_schema(pattern=f"^(?:{pattern})$", max_length=MAX_ATTRIBUTE_CHARS, strict=True)
    checked = core_schema.custom_error_schema(text, "attribute", custom_error_message=f"must be {must}")
    return GetPydanticSchema(lambda _source, _handler: checked)


@lru_cache(maxsize=4096)  # an event's source is seldom a new one
def check_uri_reference(value: str) -> str:
    match = _URI_REFERENCE.fullmatch(value) if len(value) <= MAX_ATTRIBUTE_CHARS else None
    if match is None or (match["ipv6"] and not _is_ipv6(match["ipv6"])):
        raise PydanticCustomError("attribute", "must be {must}", {"must": f"a URI reference (RFC 3986) of {_ASCII}"})
    return value


def _is_ipv6(value: str) -> bool:
    try:
        IPv6Address(value)
    except AddressValueError:
        return False
    return True


def printable_name(name: str) -> str:
    """A name as an error may show it: what is no printable ASCII is escaped, and what is long is cut."""
    name = name[:64]
    return name if name and name.isascii() and name.isprintable() else ascii(name)


Attribute = Annotated[str, _text("[!-~](?:[ -~]*[!-~])?", f"1 or more {_ASCII}, without white space at either end")]


Word = Annotated[str, _text("[!-~]+", f"1 or more {_ASCII}, without white space")]


UriReference = Annotated[str, AfterValidator(check_uri_reference)]
