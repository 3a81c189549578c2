"""The changes of `events`: every insert and every expiry. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from bson.timestamp import Timestamp

_NEEDED = ("operationType", "documentKey", "clusterTime", *(f"fullDocument.{n}" for n in ("seq", "digest", "payload")))
PIPELINE = ({"$match": {"operationType": {"$in": ["insert", "delete"]}}}, {"$project": dict.fromkeys(_NEEDED, 1)})
"""The change stream of these changes."""


@dataclass(frozen=True, slots=True)
class Inserted:
    """A new document in `events`."""

    event_id: UUID
    seq: Timestamp
    digest: bytes
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Deleted:
    """A document that left `events`, with the cluster time."""

    event_id: UUID
    at: Timestamp


Change = Inserted | Deleted


def change_of(document: Mapping[str, Any]) -> Change:
    """Return the change of a document of the change stream."""
    event_id = document["documentKey"]["_id"]
    if document["operationType"] == "delete":
        return Deleted(event_id, document["clusterTime"])
    full = document["fullDocument"]
    return Inserted(event_id, full["seq"], full["digest"], full["payload"])
