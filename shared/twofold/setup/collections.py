"""The collections and their indexes. `twofold.setup.roles` has the functions with write access to a collection.

| collection | documents |
|---|---|
| `events` | accepted events of the last days; an event has an outbox entry until the log has the event |
| `event_store` | the log: all events, never changed |
| `dead_letters` | deliveries without a place in the log, with the reasons |
| `archive` | events deleted from `events` by an admin |
| `locks` | locks of jobs that run one at a time |
| `pod_state` | the last observed state of every pod |
| `checkpoints` | completeness checkpoints and reconciliations |
"""

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
    "checkpoints": _ZSTD,
}
"""The options by collection."""

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
    "checkpoints": [
        IndexModel("seq", name="newest"),
        IndexModel([("epoch", ASCENDING), ("log_regressed", ASCENDING), ("seq", ASCENDING)], name="by_epoch"),
    ],
}
"""The indexes by collection, besides the index of `_id`. Every index serves a query or a retention."""
