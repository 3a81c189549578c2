"""TODO module."""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from twofold.errors import Rejected
from twofold.event.attribute import MAX_ATTRIBUTE_CHARS, check_uri_reference
from twofold.event.metadata import check_extensions

_PRINTABLE = bytes(range(ord(" "), ord("~") + 1))


def passes_fast_check(said: Mapping[str, Any], attributes: Collection[str]) -> bool:
    """Whether the schema takes `said`, which was made of these values of attributes; False: perhaps not, look closer.

    One look at all values together takes a tenth of the time that the schema does. `said` is what `digest_of` takes.
    """
    together = " ".join(attributes)
    if not together.isascii() or together.encode().translate(None, _PRINTABLE):
        return False
    if "  " in together or together.strip() != together:  # a value is empty, or has white space at an end
        return False
    if len(together) > MAX_ATTRIBUTE_CHARS and max(map(len, attributes)) > MAX_ATTRIBUTE_CHARS:
        return False
    metadata = said["metadata"]
    try:
        check_uri_reference(metadata["service_name"])
        if "extensions" in metadata:
            check_extensions(metadata["extensions"])
    except (PydanticCustomError, Rejected):
        return False
    return " " not in said["event_type"]
