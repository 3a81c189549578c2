"""Cursors: strings from which a reader continues. Opaque and fit for a URL. Pure.

A cursor is the base64 form of its content and a checksum. The checksum covers the content and the key of the query, so
a cursor is valid only for its own query. The checksum is no secret. A forged cursor gives no access to more events: the
filters of the query still hold, and only the start of the page changes.
"""

import base64
import binascii
import hashlib
import struct
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self

from twofold.errors import Malformed
from twofold.event.order import is_order
from twofold.event.time import EARLIEST

_CHECKSUM_BYTES = 12

_PAGE_CURSOR = struct.Struct(">qq")
PAGE_CURSOR_BYTES = _PAGE_CURSOR.size


class PageCursor(NamedTuple):
    """The cursor behind all events with this pair, in the order of `(timestamp, order)`."""

    timestamp: datetime
    order: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self | None:
        """Return the cursor behind a stored document.

        Return None if `timestamp` or `order` has a wrong type, after a change in the database.
        """
        timestamp, order = document.get("timestamp"), document.get("order")
        return cls(timestamp, order) if isinstance(timestamp, datetime) and is_order(order) else None

    def to_bytes(self) -> bytes:
        """Return `PAGE_CURSOR_BYTES` bytes: milliseconds since 1970, then the order."""
        return _PAGE_CURSOR.pack((self.timestamp - EARLIEST) // timedelta(milliseconds=1), self.order)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return the cursor from the bytes of `to_bytes`. Raises `ValueError` for a wrong length, time or order."""
        try:
            milliseconds, order = _PAGE_CURSOR.unpack(content)
            timestamp = EARLIEST + timedelta(milliseconds=milliseconds)
        except (struct.error, OverflowError):
            raise ValueError("the content is not a page cursor") from None
        if not is_order(order):
            raise ValueError("the content is not a page cursor")
        return cls(timestamp, order)


def encode_cursor(content: bytes, key: bytes) -> str:
    """Return the cursor with `content` for the query with `key`."""
    return base64.urlsafe_b64encode(content + _checksum(content, key)).decode().rstrip("=")


def decode_cursor(cursor: str, key: bytes, where: str = "cursor") -> bytes:
    """Return the content of a cursor. Raises `Malformed` for the parameter `where` if `key` is another query's."""
    try:
        content = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)[:-_CHECKSUM_BYTES]
    except (binascii.Error, ValueError):
        raise invalid_cursor(where) from None
    if cursor != encode_cursor(content, key):
        raise invalid_cursor(where)
    return content


def invalid_cursor(where: str = "cursor") -> Malformed:
    """Return the error for a cursor that was altered, made up, or made for another query."""
    return Malformed("is not a cursor of this query: use the cursor of a previous answer to the same query", where)


def _checksum(content: bytes, key: bytes) -> bytes:
    return hashlib.sha256(b"twofold cursor 2" + key + b"\0" + content).digest()[:_CHECKSUM_BYTES]
