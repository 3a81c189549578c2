"""The changes of `events` or of `event_store`: every insert and every deletion. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from bson.timestamp import Timestamp

_NEEDED = ("operationType", "documentKey", "clusterTime", *(f"fullDocument.{n}" for n in ("seq", "digest", "payload")))
PIPELINE = ({"$match": {"operationType": {"$in": ["insert", "delete"]}}}, {"$project": dict.fromkeys(_NEEDED, 1)})
"""The change stream of these changes."""


@dataclass(frozen=True, slots=True)
class Inserted:
    """A new document, with the cluster time of its commit."""

    event_id: UUID
    seq: Timestamp
    digest: bytes
    payload: Mapping[str, Any]
    at: Timestamp


@dataclass(frozen=True, slots=True)
class Deleted:
    """A document that left the collection, with the cluster time."""

    event_id: UUID
    at: Timestamp


Change = Inserted | Deleted


def change_of(document: Mapping[str, Any]) -> Change:
    """Return the change of a document of the change stream."""
    event_id = document["documentKey"]["_id"]
    if document["operationType"] == "delete":
        return Deleted(event_id, document["clusterTime"])
    full = document["fullDocument"]
    return Inserted(event_id, full["seq"], full["digest"], full["payload"], document["clusterTime"])


def by_event(changes: Iterable[Change]) -> Mapping[UUID, list[Change]]:
    """Return the changes of each event, in their order. An event without a change has none."""
    found: defaultdict[UUID, list[Change]] = defaultdict(list)
    for change in changes:
        found[change.event_id].append(change)
    return found
