"""The types of CloudEvents attributes: text for an HTTP header, and URI references. Pure.

A URI reference follows RFC 3986, without the forms that java.net.URI refuses: KafkaSource replaces a record with such a
source by a plain record with a new id. So a "%" starts an escape, a scheme is not the whole reference, and "//" has an
authority behind it.
"""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Annotated

from pydantic import AfterValidator, GetPydanticSchema
from pydantic_core import PydanticCustomError, core_schema

MAX_ATTRIBUTE_CHARS = 1024
"""The most characters of an attribute. It travels as a header."""

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
    """Return the schema of a string that `pattern` matches as a whole. pydantic's Rust part checks it, for speed."""
    text = core_schema.str_schema(pattern=f"^(?:{pattern})$", max_length=MAX_ATTRIBUTE_CHARS, strict=True)
    checked = core_schema.custom_error_schema(text, "attribute", custom_error_message=f"must be {must}")
    return GetPydanticSchema(lambda _source, _handler: checked)


@lru_cache(maxsize=4096)  # most events have a source that an earlier event had
def check_uri_reference(value: str) -> str:
    """Return the URI reference. Raises `PydanticCustomError` for an invalid reference."""
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
    """Return a name for an error message: at most 64 characters, and escaped unless it is printable ASCII."""
    name = name[:64]
    return name if name and name.isascii() and name.isprintable() else ascii(name)


Attribute = Annotated[str, _text("[!-~](?:[ -~]*[!-~])?", f"1 or more {_ASCII}, without white space at either end")]
Word = Annotated[str, _text("[!-~]+", f"1 or more {_ASCII}, without white space")]
UriReference = Annotated[str, AfterValidator(check_uri_reference)]
