"""TODO module."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import bson
from bson.binary import UUID_SUBTYPE, Binary
from bson.errors import BSONError
from bson.timestamp import Timestamp
from pymongo.asynchronous.collection import AsyncCollection

from twofold.errors import Invalid, TooLarge
from twofold.event.model import Event
from twofold.mongo.client import CODEC, RAW_CODEC, Collection, Document, RawDocument

MAX_DOCUMENT_BYTES = 16_000_000
"""Below the server's 16 MiB: an oversized document would fail the whole group that it is written with."""


def encode_document(document: Mapping[str, Any]) -> RawDocument:
    """`document` as BSON, so that one that can't be stored is found before it joins a group.

    Raises `Invalid` or `TooLarge`.
    """
    try:
        encoded = bson.encode(document, codec_options=CODEC)
    except (BSONError, OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise Invalid(f"can't be stored: {error}", "data") from error
    if len(encoded) > MAX_DOCUMENT_BYTES:
        raise TooLarge(f"the event takes {len(encoded)} bytes in MongoDB: at most {MAX_DOCUMENT_BYTES} are taken")
    return RawDocument(encoded, RAW_CODEC)


_SEQ = Timestamp(0, 0)
"""The server fills it in at insert: unique, and increasing."""


def encode_event(document: Document, stored_at: datetime, **added: object) -> RawDocument:
    """An event's document with what every collection adds, and `added`. Raises `Invalid` or `TooLarge`."""
    whole = {
        **document,
        "_id": Binary(document["_id"].bytes, UUID_SUBTYPE),  # what bson makes of a UUID, by a detour
        "timestamp": _utc(document["timestamp"]),
        "stored_at": _utc(stored_at),
        "seq": _SEQ,
        **added,
    }
    return encode_document(whole)


def _utc(date: datetime) -> datetime:
    """`date`, which is UTC, as BSON takes it: a date with a zone is asked for its offset, twice."""
    return date.replace(tzinfo=None)


def undecoded(collection: Collection) -> AsyncCollection[RawDocument]:
    """`collection`, read undecoded, as `event_of` needs it."""
    return collection.with_options(codec_options=RAW_CODEC)


def event_of(document: RawDocument) -> Event:
    """The event that a stored document, read undecoded, holds."""
    return Event.from_document(decode_document(document))


def decode_document(document: RawDocument) -> Document:
    """A stored document, read undecoded, as dicts and lists.

    Decoded, a sub-document with `$ref` and `$id` would be a DBRef, which forgets that its `$db` was null.
    """
    if b"$ref" not in document.raw:
        return bson.decode(document.raw, codec_options=CODEC)
    return {name: _decode_value(member) for name, member in document.items()}


def _decode_value(value: Any) -> Any:
    if isinstance(value, RawDocument):
        return decode_document(value)
    if isinstance(value, list):
        return [_decode_value(member) for member in value]
    return value
