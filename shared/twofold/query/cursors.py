"""Cursors: places that readers keep. Opaque, fit for a URL, and refused where they don't belong. Pure.

Each carries a checksum over its place and the question that it was made for. That is no secret: who works it out gets
no further than the question leads, and only begins elsewhere.
"""

import base64
import binascii
import hashlib
import struct
from datetime import datetime, timedelta
from typing import NamedTuple, Self
from uuid import UUID

from twofold.errors import Malformed
from twofold.event.time import EARLIEST

_CHECKSUM_BYTES = 12


_POSITION = struct.Struct(">q16s")


class PageCursor(NamedTuple):
    """A place in the order of `(timestamp, _id)`: behind this event."""

    timestamp: datetime
    event_id: UUID

    def packed(self) -> bytes:
        """The place of a cursor; `PACKED_BYTES` long."""
        return _POSITION.pack((self.timestamp - EARLIEST) // timedelta(milliseconds=1), self.event_id.bytes)

    @classmethod
    def of_packed(cls, place: bytes) -> Self:
        """The position that is `packed` so. Raises `ValueError` for what is none."""
        try:
            milliseconds, event_id = _POSITION.unpack(place)
            return cls(EARLIEST + timedelta(milliseconds=milliseconds), UUID(bytes=event_id))
        except (struct.error, OverflowError):
            raise ValueError("that is no position") from None


PAGE_CURSOR_BYTES = _POSITION.size


def encode_cursor(place: bytes, question: bytes) -> str:
    """The cursor for that place among the answers to `question`."""
    return base64.urlsafe_b64encode(place + _checksum(place, question)).decode().rstrip("=")


def decode_cursor(cursor: str, question: bytes, where: str = "cursor") -> bytes:
    """The place that the cursor was made of. Raises `Malformed`, naming `where`, unless it is one of `question`."""
    try:
        place = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)[:-_CHECKSUM_BYTES]
    except (binascii.Error, ValueError):
        raise invalid_cursor(where) from None
    if cursor != encode_cursor(place, question):
        raise invalid_cursor(where)
    return place


def invalid_cursor(where: str = "cursor") -> Malformed:
    """What is said of a cursor that is none, was altered, or belongs to another question."""
    return Malformed("is none that was given out for these parameters", where)


def _checksum(place: bytes, question: bytes) -> bytes:
    return hashlib.sha256(b"twofold cursor 2" + question + b"\0" + place).digest()[:_CHECKSUM_BYTES]
