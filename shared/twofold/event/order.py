"""The order of an event among the events of equal time: a whole number of 63 bits. Pure.

The publisher that accepts an event gives the number (`write/order.py`). The digest leaves it out: an equal event that
is published again has another number, and is a duplicate.
"""

import re
from typing import Annotated, TypeGuard

from pydantic import Field

MAX_ORDER = 2**63 - 1
"""The largest order: BSON's largest int64."""

ORDER_ATTRIBUTE = "twofoldorder"
"""The CloudEvents attribute of the order, in decimal digits without leading zeros."""

_DIGITS = re.compile(r"0|[1-9][0-9]{0,18}")

PublicationNumber = Annotated[int, Field(strict=True, ge=0, le=MAX_ORDER)]


def is_order(value: object) -> TypeGuard[int]:
    """Return True for the `order` of a valid document."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ORDER


def parse_order(text: str) -> int:
    """Return the order of an attribute's value. Raises `ValueError` for another form, and beyond `MAX_ORDER`."""
    if _DIGITS.fullmatch(text) and (order := int(text)) <= MAX_ORDER:
        return order
    raise ValueError("must be a whole number below 2^63, in decimal digits without leading zeros")
