"""The identity of an event: a UUID of version 8 (RFC 9562) made of `source` and `id`. Pure.

CloudEvents makes the pair of `source` and `id` unique, and neither of them alone.
"""

import hashlib
import os
import re
from datetime import datetime, timedelta
from uuid import UUID

from twofold.event.time import EARLIEST

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_VERSION_8, _VARIANT = 8 << 76, 0b10 << 62
_NOT_VERSION, _NOT_VARIANT = ~(0xF << 76), ~(0b11 << 62)
_LOW_80 = (1 << 80) - 1


def event_id_of(source: str, given: str) -> UUID:
    """Return the identity for a producer's `source` and `id`.

    It is the start of SHA-256 over both texts, each in UTF-8 behind its length. An `id` that is a UUID of version 7
    keeps its 48 bits of time in front, so that inserts stay at one end of the index. The form must never change,
    because the log is permanent.
    """
    first, second = source.encode(), given.encode()
    hashed = hashlib.sha256(b"%d:%b%d:%b" % (len(first), first, len(second), second)).digest()
    number = int.from_bytes(hashed[:16])
    if len(given) == 36 and given[14] == "7" and given[19] in "89ab" and _CANONICAL_UUID.fullmatch(given):
        number = int(given[:8] + given[9:13], 16) << 80 | number & _LOW_80
    return UUID(int=number & _NOT_VERSION & _NOT_VARIANT | _VERSION_8 | _VARIANT)


def uuid_bytes(given: str) -> bytes | None:
    """Return the 16 bytes of an `id` that is a UUID in lower case with hyphens, and None for another `id`."""
    if len(given) != 36 or not _CANONICAL_UUID.fullmatch(given):
        return None
    return bytes.fromhex(given.replace("-", ""))


def new_id(now: datetime) -> str:
    """Return a new UUID of version 7 (RFC 9562) as text."""
    milliseconds = (now - EARLIEST) // timedelta(milliseconds=1)
    number = milliseconds << 80 | int.from_bytes(os.urandom(10))
    return str(UUID(int=number & _NOT_VERSION & _NOT_VARIANT | 7 << 76 | _VARIANT))
