"""TODO module."""

from typing import Any

from pymongo import ASCENDING, IndexModel

from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.storage.indexes import filter_indexes

_ZSTD = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}}}


COLLECTIONS: dict[str, dict[str, Any]] = {
    "events": {},
    "event_store": _ZSTD,
    "dead_letters": {},
    "archive": _ZSTD,
    "locks": {},
    "seen_pods": {},
    "statements": {},
}


INDEXES: dict[str, list[IndexModel]] = {
    "events": [
        IndexModel("expires_at", name="retention", expireAfterSeconds=0, sparse=True),
        IndexModel("outbox.next_try", name="due", sparse=True),
        IndexModel(
            [("outbox.state", ASCENDING), ("seq", ASCENDING)],
            name="marks",
            partialFilterExpression={"outbox.state": {"$exists": True}},
        ),
        *filter_indexes(EventRepository.INDEXED),
    ],
    "event_store": [
        IndexModel("seq", name="feed"),
        *filter_indexes(EventStore.INDEXED),
    ],
    "dead_letters": [
        IndexModel([("event_id", ASCENDING), ("state", ASCENDING)], name="by_event"),
        IndexModel([("state", ASCENDING), ("reason", ASCENDING), ("first_at", ASCENDING)], name="by_reason"),
        IndexModel("to_look_up", name="to_look_up", sparse=True),
    ],
    "archive": [IndexModel([("deleted_at", ASCENDING), ("_id", ASCENDING)], name="newest")],
    "seen_pods": [IndexModel("gone_at", name="retention", expireAfterSeconds=3600, sparse=True)],
    "statements": [IndexModel("seq", name="newest")],
}
"""Each for a query that needs it. `_id` has its own in every collection."""
