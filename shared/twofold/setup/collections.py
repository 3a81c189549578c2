"""TODO module."""

from typing import Any

from pymongo import ASCENDING, IndexModel

from twofold.storage.indexes import filter_indexes

_ZSTD = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}}}


COLLECTIONS: dict[str, dict[str, Any]] = {
    "events": {},
    "event_store": _ZSTD,
    "dead_letters": {},
    "archive": _ZSTD,
    "locks": {},
    "pod_state": {},
    "checkpoints": {},
}


INDEXES: dict[str, list[IndexModel]] = {
    "events": [
        IndexModel("expires_at", name="retention", expireAfterSeconds=0, sparse=True),
        IndexModel("outbox.next_try", name="due", sparse=True),
        IndexModel(
            [("outbox.state", ASCENDING), ("seq", ASCENDING)],
            name="outbox",
            partialFilterExpression={"outbox.state": {"$exists": True}},
        ),
        *filter_indexes("events"),
    ],
    "event_store": [
        IndexModel("seq", name="feed"),
        *filter_indexes("event_store"),
    ],
    "dead_letters": [
        IndexModel([("event_id", ASCENDING), ("state", ASCENDING)], name="by_event"),
        IndexModel([("state", ASCENDING), ("reason", ASCENDING), ("first_at", ASCENDING)], name="by_reason"),
        IndexModel("to_look_up", name="to_look_up", sparse=True),
    ],
    "archive": [IndexModel([("deleted_at", ASCENDING), ("_id", ASCENDING)], name="newest")],
    "pod_state": [IndexModel("gone_at", name="retention", expireAfterSeconds=3600, sparse=True)],
    "checkpoints": [IndexModel("seq", name="newest")],
}
"""Each for a query that needs it. `_id` has its own in every collection."""
