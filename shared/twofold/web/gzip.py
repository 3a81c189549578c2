"""Bodies with `Content-Encoding: gzip` (RFC 1952). Pure."""

import zlib

from twofold.errors import Malformed, TooLarge

MAX_RATIO = 1032
"""The most decoded bytes for one byte of gzip data: deflate's limit is 258 bytes for two bits."""
MAX_MEMBERS = 100
"""The most members of a body. Each member copies the bytes behind it, so the time grows with their number."""
_GZIP = 31
"""The `wbits` of zlib for gzip with a window of any size."""
_WHERE = "content-encoding"


def decompressed(data: bytes, max_bytes: int) -> bytes:
    """Return the decoded bytes of gzip data with one or more members.

    It stops after `max_bytes` and one byte. Raises `TooLarge` beyond `max_bytes`, and `Malformed` for data that is not
    gzip, ends early, or has other bytes at its end.
    """
    members: list[bytes] = []
    free, rest = max_bytes, data
    while rest or not members:
        if len(members) == MAX_MEMBERS:
            raise Malformed(f"the gzip body has more than {MAX_MEMBERS} members: compress it as one member", _WHERE)
        decoder = zlib.decompressobj(wbits=_GZIP)
        try:
            member = decoder.decompress(rest, free + 1)
        except zlib.error:
            raise Malformed(_reason(members), _WHERE) from None
        if len(member) > free:
            raise TooLarge(f"the decoded body has more than {max_bytes} bytes: send less in one request")
        if not decoder.eof:
            raise Malformed("the gzip body ends early: send all its bytes", _WHERE)
        members.append(member)
        free -= len(member)
        rest = decoder.unused_data
    return members[0] if len(members) == 1 else b"".join(members)


def _reason(members: list[bytes]) -> str:
    if members:
        return "the gzip body has other bytes after its end: remove them"
    return "the body is not valid gzip data: compress it with gzip, or remove the header Content-Encoding"
