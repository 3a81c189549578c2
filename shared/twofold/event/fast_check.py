"""A fast check of a whole event, before the schema. Pure.

The check looks at the joined values in one pass, which takes a tenth of the schema's time. It never accepts an event
that the schema rejects. It may fail for a valid event: then the schema decides.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from twofold.errors import Rejected
from twofold.event.attribute import MAX_ATTRIBUTE_CHARS, check_uri_reference
from twofold.event.metadata import check_extensions

_PRINTABLE = bytes(range(ord(" "), ord("~") + 1))


def passes_fast_check(content: Mapping[str, Any], values: Collection[str]) -> bool:
    """Return True if the schema accepts `content`. Return False if only the schema can decide.

    `content` is the argument of `compute_digest`. `values` are the attributes that `content` was made of.
    """
    joined = " ".join(values)
    if not joined.isascii() or joined.encode().translate(None, _PRINTABLE):
        return False
    if "  " in joined or joined.strip() != joined:  # a value is empty, or has white space at an end
        return False
    if len(joined) > MAX_ATTRIBUTE_CHARS and max(map(len, values)) > MAX_ATTRIBUTE_CHARS:
        return False
    metadata = content["metadata"]
    try:
        check_uri_reference(metadata["service_name"])
        if "extensions" in metadata:
            check_extensions(metadata["extensions"])
    except (PydanticCustomError, Rejected):
        return False
    return " " not in content["event_type"]
