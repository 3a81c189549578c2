"""Events as BSON documents: encoding before the insert, and decoding without loss."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import bson
from bson.binary import UUID_SUBTYPE, Binary
from bson.errors import BSONError
from bson.int64 import Int64
from bson.timestamp import Timestamp
from pymongo.asynchronous.collection import AsyncCollection

from twofold.errors import Invalid, Rejected, TooLarge
from twofold.event.data import NO_DATA, encode_data
from twofold.event.digest import compute_digest
from twofold.event.identity import event_id_of, uuid_bytes
from twofold.event.model import Event
from twofold.event.time import format_time
from twofold.mongo.client import CODEC, RAW_CODEC, Collection, Document, RawDocument

MAX_DOCUMENT_BYTES = 16_000_000
"""Below the server's 16 MiB, because an oversized document would fail the whole group commit."""

_CONTENT = ("event_type", "event_version", "aggregate_id", "metadata")
"""The fields that the digest covers, besides id, payload and timestamp."""

_LARGEST_INT32 = 2**31 - 1
"""bson writes a smaller int as an int32, and a larger int as an int64 without a conversion."""

_SEQ = Timestamp(0, 0)
"""A placeholder: the server replaces it at insert with a unique, increasing timestamp."""


def encode_document(document: Mapping[str, Any]) -> RawDocument:
    """Encode a document as BSON. Raises `Invalid` or `TooLarge`, before the document joins a group commit."""
    try:
        encoded = bson.encode(document, codec_options=CODEC)
    except (BSONError, OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise Invalid(f"MongoDB cannot store this payload: {error}", "data") from error
    if len(encoded) > MAX_DOCUMENT_BYTES:
        raise TooLarge(f"the event needs {len(encoded)} bytes in MongoDB: the limit is {MAX_DOCUMENT_BYTES}")
    return RawDocument(encoded, RAW_CODEC)


def encode_event(document: Document, stored_at: datetime, **added: object) -> RawDocument:
    """Encode the document of an event with an `order`, and with `stored_at`, `seq` and the fields `added`.

    Raises `Invalid` or `TooLarge`.
    """
    order: int = document["order"]
    whole = {
        **document,
        "_id": Binary(document["_id"].bytes, UUID_SUBTYPE),  # faster than bson's own conversion of a UUID
        "id": _stored_id(document["id"]),
        "timestamp": _utc(document["timestamp"]),
        "order": order if order > _LARGEST_INT32 else Int64(order),
        "stored_at": _utc(stored_at),
        "seq": _SEQ,
        **added,
    }
    return encode_document(whole)


def _stored_id(given: str) -> Binary | str:
    """Return the form of an `id` in MongoDB: a UUID for a UUID in lower case with hyphens, else the text."""
    number = uuid_bytes(given)
    return given if number is None else Binary(number, UUID_SUBTYPE)


def _utc(date: datetime) -> datetime:
    """Drop the zone of a UTC date: bson asks a date with a zone for its offset, twice."""
    return date.replace(tzinfo=None)


def undecoded(collection: Collection) -> AsyncCollection[RawDocument]:
    """Return the collection with undecoded documents, as `event_of` needs them."""
    return collection.with_options(codec_options=RAW_CODEC)


def event_of(document: RawDocument) -> Event:
    """Return the event of an undecoded stored document. Raises `Invalid`."""
    return Event.from_document(decode_document(document))


def decode_document(document: RawDocument) -> Document:
    """Return an undecoded stored document as dicts and lists.

    bson would turn a payload's object with `$ref` and `$id` into a DBRef, and a DBRef loses a `$db` of null.
    """
    if b"$ref" not in document.raw:
        return bson.decode(document.raw, codec_options=CODEC)
    return {name: _decode_value(member) for name, member in document.items()}


def fits_digest(document: Document) -> bool:
    """Return True if a decoded document fits its digest and its `_id`. False: somebody changed it in the database.

    The digest covers no field that the server or the collections add, such as `stored_at`.
    """
    content = {name: document.get(name) for name in _CONTENT}
    try:
        data = encode_data(document.get("payload", NO_DATA), document["metadata"].get("data_content_type"))
        given, time = str(document["id"]), format_time(document["timestamp"])
        return (
            compute_digest(given, content, data, time) == document["digest"]
            and document["_id"] == event_id_of(document["metadata"]["service_name"], given)
            and type(document["id"]) is (str if uuid_bytes(given) is None else UUID)
        )
    except (Rejected, KeyError, TypeError, ValueError, AttributeError):
        return False


def _decode_value(value: Any) -> Any:
    if isinstance(value, RawDocument):
        return decode_document(value)
    if isinstance(value, list):
        return [_decode_value(member) for member in value]
    return value
